"""Which groups of an answer may leave: those of enough patients that leave no rest of too few.

The door counts for itself, from the rows of each group. A rest is what is left of a whole when a group is taken from
it; wholes are the other groups of the answer and those of the census. The groups of one kind (both outcomes, the sexes,
the ages) are taken from a whole together as well, for they can be added up. A stay's ECG is no secret that this keeps:
the stays with an ECG stand beside all stays, and their rest is not looked at (``docs/privacy.md``).
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from client.cohort.census import StaySet
from client.cohort.hospital import Hospital
from client.site import Limits
from protocol.release import Group

VALUE = re.compile(r"(?<=:)[^/]+|(?<=/)[01]$")
OF_ECGS = {"ecg", "with_ecg"}


def held_back(hospital: Hospital, limits: Limits, groups: Sequence[Group]) -> set[str]:
    """Names of the groups that do not leave. Of noisy groups the noisy number alone is looked at."""
    least = {"patients": limits.min_patients, "cell": limits.min_cell}
    small = {group.name for group in groups if group.public is not None and group.public[1] < least[group.minimum]}
    exact = [group for group in groups if group.public is None]
    return small | (_Counted(hospital, exact, least).held_back() if exact else set())


class _Counted:
    """The groups of an answer as sets of stays, among all that is told of them."""

    def __init__(self, hospital: Hospital, groups: Sequence[Group], least: dict[str, int]) -> None:
        self._census = hospital.census
        self._sets = {g.name: [self._census.set_of(rows) for rows in g.about or (g.rows,)] for g in groups}
        self._minimum = {group.name: least[group.minimum] for group in groups}
        self._least_rest = {group.name: least[group.rest or group.minimum] for group in groups}
        self._wholes = [*self._census.sets, *(one for own in self._sets.values() for one in own)]

    def held_back(self) -> set[str]:
        """Names of those that do not leave."""
        named = self._sets.items()
        small = {name for name, own in named if any(one.num_patients < self._minimum[name] for one in own)}
        unsafe = {name for name, own in named if any(self._has_small_rest(name, one) for one in own)}
        for names in self._kinds():
            while names:
                union = self._census.set_of(np.flatnonzero(np.any([self._sets[n][0].stay_N for n in names], axis=0)))
                unsafe |= set(names) if self._has_small_rest(names[0], union) else set()
                left = [name for name in names if name not in small | unsafe]
                names = left if len(left) < len(names) else []
        while parts := {name for name in self._sets if name not in unsafe and self._lies_in(name, unsafe)}:
            unsafe |= parts  # what a whole is held back for could be learnt from its parts
        return small | unsafe

    def _has_small_rest(self, name: str, part: StaySet) -> bool:
        """Whether too few are left of something when a part is taken from it."""
        rests = (self._rest(name, part, whole) for whole in self._wholes)
        return any(rest is not None and rest < self._least_rest[name] for rest in rests)

    def _lies_in(self, name: str, wholes: set[str]) -> bool:
        """Whether a group is part of one of some others."""
        of = (whole for other in wholes for whole in self._sets[other])
        return any(self._rest(name, part, whole) is not None for whole in of for part in self._sets[name])

    def _rest(self, name: str, part: StaySet, whole: StaySet) -> int | None:
        return self._census.rest(part, whole, is_of_ecgs=bool(OF_ECGS & set(name.split("/"))))

    def _kinds(self) -> Iterator[list[str]]:
        """Names of groups that differ in one value alone (``sex:female``, outcome 1) and share no stay."""
        kinds: dict[str, list[str]] = {}
        for name, own in self._sets.items():
            for found in VALUE.finditer(name) if len(own) == 1 else ():
                kinds.setdefault(f"{name[: found.start()]}*{name[found.end() :]}", []).append(name)
        for names in kinds.values():
            stays = [self._sets[name][0].stay_N for name in names]
            if len(names) > 1 and sum(one.sum() for one in stays) == np.any(stays, axis=0).sum():
                yield names
