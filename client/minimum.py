"""Which groups of an answer may leave: those of enough patients that leave no rest of too few.

The door counts for itself, from the rows of each group. A rest is what is left of a whole when a group is taken from
it; wholes are the other groups of the answer and those of the census. The groups of one kind (both outcomes, the sexes,
the ages) are taken from a whole together as well, for they can be added up. A stay's ECG is no secret that this keeps:
the stays with an ECG stand beside all stays, and their rest is not looked at (``docs/privacy.md``).
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from client.census import StaySet
from client.hospital import Hospital
from client.site import Limits
from protocol.release import Group

VALUE = re.compile(r"(?<=:)[^/]+|(?<=/)[01]$")


def held_back(hospital: Hospital, limits: Limits, groups: Sequence[Group]) -> set[str]:
    """Names of the groups that do not leave. Of noisy groups the noisy number alone is looked at."""
    least = {"patients": limits.min_patients, "cell": limits.min_cell}
    small = {group.name for group in groups if group.public is not None and group.public[1] < least[group.minimum]}
    exact = [group for group in groups if group.public is None]
    if not exact:
        return small
    census = hospital.census
    sets = {group.name: [census.set_of(rows) for rows in group.about or (group.rows,)] for group in exact}
    minimum = {group.name: least[group.minimum] for group in exact}
    small |= {name for name, own in sets.items() if any(one.num_patients < minimum[name] for one in own)}
    wholes = [*census.sets, *(one for own in sets.values() for one in own)]

    def has_small_rest(part: StaySet, least: int) -> bool:
        return any((rest := census.rest(part, whole)) is not None and rest < least for whole in wholes)

    unsafe = {name for name, own in sets.items() if any(has_small_rest(one, minimum[name]) for one in own)}
    for names in _kinds(exact, sets):
        while names:
            union = census.counted(np.any([sets[name][0].stay_N for name in names], axis=0))
            if has_small_rest(union, minimum[names[0]]):
                unsafe |= set(names)
            left = [name for name in names if name not in small | unsafe]
            names = left if len(left) < len(names) else []
    while parts := {
        name
        for name, own in sets.items()
        if name not in unsafe and any(census.rest(p, w) is not None for p in own for u in unsafe for w in sets[u])
    }:  # what a whole is held back for could be learnt from its parts
        unsafe |= parts
    return small | unsafe


def _kinds(groups: Sequence[Group], sets: dict[str, list[StaySet]]) -> Iterator[list[str]]:
    """Names of groups that differ in one value alone (``sex:female``, outcome 1) and share no stay."""
    kinds: dict[str, list[str]] = {}
    for group in groups:
        for found in VALUE.finditer(group.name):
            if len(sets[group.name]) == 1:
                kinds.setdefault(f"{group.name[: found.start()]}*{group.name[found.end() :]}", []).append(group.name)
    for names in kinds.values():
        sizes = [sets[name][0].stay_N for name in names]
        if len(names) > 1 and sum(one.sum() for one in sizes) == np.any(sizes, axis=0).sum():
            yield names
