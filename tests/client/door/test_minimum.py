"""The door counts for itself: it holds back at least what it held back when stages stated wholes and rests to it."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from client.cohort.census import Census
from client.door.minimum import held_back
from client.site import Limits
from lemof_model.lemof import POPULATIONS
from lemof_model.study import MODALITIES, SPLITS
from protocol.release import Group

Mask = NDArray[np.bool_]


class Stated(NamedTuple):
    """A group as it was once told to the door: with what it lies in, and the patients of the whole outside of it."""

    group: Group
    within: tuple[str, ...] = ()
    num_others: int = 0


class Ward:
    """A hospital drawn at random: some patients with several stays, some of no known sex, diseases inside others."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        num = int(rng.integers(30, 160))
        patient = rng.integers(0, max(num * 9 // 10, 1), num)
        split = rng.integers(0, 4, num)[patient % num]
        self.has_ecg_N, self.long_stay_N = (
            rng.random(num) < rng.choice([0.5, 0.97]),
            rng.random(num) < rng.choice([0.1, 0.4]),
        )
        self.patient_N, self._split = patient.astype(np.uint64), split
        female = rng.random(num) < rng.choice([0.5, 0.9])
        known, old = rng.random(num) < rng.choice([0.95, 1.0]), rng.random(num) < 0.5
        ill = rng.random(num) < 0.3
        self.subgroups = {
            "sex:female": female & known, "sex:male": ~female & known, "age:under_65": ~old, "age:65_and_over": old,
            "disease:heart": ill, "disease:infarct": ill & (rng.random(num) < 0.8),
        }  # fmt: skip

    def rows(self, split: str, modality: str = "ehr") -> NDArray[np.int64]:
        return np.flatnonzero((self._split == SPLITS.index(split)) & (self.has_ecg_N if modality == "ecg" else True))

    def num_patients(self, rows: NDArray[np.int64]) -> int:
        return len(np.unique(self.patient_N[rows]))

    def census_groups(self) -> list[Stated]:
        found = []
        for split in SPLITS:
            for modality in MODALITIES:
                rows, whole = self.rows(split, modality), f"{split}/{modality}"
                found.append(Stated(Group(whole, rows, "patients")))
                for label in (0, 1):
                    part = Group(f"{whole}/{label}", rows[self.long_stay_N[rows] == label], "cell")
                    found.append(Stated(part, (whole,)))
        return found

    def evaluation_groups(self) -> list[Stated]:
        found, held_out = [], np.isin(np.arange(len(self.patient_N)), self.rows("held_out"))
        for population in POPULATIONS:
            included = held_out & (self.has_ecg_N if population == "with_ecg" else True)
            for name, member in {"all": included, **self.subgroups}.items():
                for label in (0, 1):
                    of_label = included & (self.long_stay_N == label)
                    group = Group(f"{population}/{name}/{label}", np.flatnonzero(of_label & member), "cell")
                    if name == "all":
                        others = included & (self.long_stay_N != label)
                        found.append(Stated(group, (), self.num_patients(np.flatnonzero(others))))
                    else:
                        unnamed = np.flatnonzero(of_label & ~self._of_kind(name))
                        found.append(Stated(group, (f"{population}/all/{label}",), self.num_patients(unnamed)))
        return found

    def _of_kind(self, name: str) -> Mask:
        kind = name.partition(":")[0]
        if kind == "disease":
            return np.ones(len(self.patient_N), bool)
        return np.any([member for other, member in self.subgroups.items() if other.startswith(f"{kind}:")], axis=0)


def held_back_once(ward: Ward, limits: Limits, stated: list[Stated]) -> set[str]:
    """The rule of the door that was told: enough patients, and of each whole a rest of nobody or of enough."""
    least = {"patients": limits.min_patients, "cell": limits.min_cell}
    named = {one.group.name: one for one in stated}
    num = {name: ward.num_patients(one.group.rows) for name, one in named.items()}

    def is_safe(one: Stated) -> bool:
        smallest, wholes = least[one.group.minimum], [named[name] for name in one.within]
        wholes = [whole for whole in wholes if len(whole.group.rows) != len(one.group.rows)]
        rests = [num[whole.group.name] - num[one.group.name] for whole in wholes]
        others = [part.num_others for part in (one, *wholes) if part.num_others]
        return num[one.group.name] >= smallest and all(rest >= smallest for rest in (*rests, *others))

    return {name for name, one in named.items() if not is_safe(one)}


@pytest.mark.parametrize("seed", range(60))
def test_every_rest_that_was_held_back_when_stages_stated_it_is_held_back(seed: int) -> None:
    ward = Ward(seed)
    hospital: Any = SimpleNamespace(census=Census(ward))  # type: ignore[arg-type]
    limits = Limits(min_patients=12, min_cell=1 + seed % 7)
    for stated in (ward.census_groups(), ward.evaluation_groups()):
        before = held_back_once(ward, limits, stated)
        now = held_back(hospital, limits, [one.group for one in stated])
        assert before <= now, sorted(before - now)


def test_what_leaves_adds_up_to_no_rest_of_few() -> None:
    """Any group from any other that it lies in, and any two or three that share no stay from any whole."""
    num_checked = 0
    for seed in range(25):
        ward, smallest = Ward(seed), 4
        hospital: Any = SimpleNamespace(census=Census(ward))  # type: ignore[arg-type]
        groups = [one.group for one in ward.evaluation_groups()]
        held = held_back(hospital, Limits(min_patients=4, min_cell=smallest), groups)
        told = {group.name: set(group.rows.tolist()) for group in groups if group.name not in held}
        whole = {
            "held_out": set(ward.rows("held_out").tolist()),
            "held_out/ecg": set(ward.rows("held_out", "ecg").tolist()),
        }
        pairs = [("sex:female", "sex:male"), ("age:under_65", "age:65_and_over")]
        parts = list(told.values())
        for population in POPULATIONS:
            for label in "01":
                for pair in pairs:
                    names = [f"{population}/{name}/{label}" for name in pair]
                    if all(name in told for name in names):
                        parts.append(set.union(*(told[name] for name in names)))
        for part in parts:
            for of in (*told.values(), *whole.values()):
                if part < of and part != {row for row in of if ward.has_ecg_N[row]}:  # beside it: no secret
                    rest = ward.num_patients(np.array(sorted(of - part)))
                    assert rest >= smallest, (seed, rest)
                    num_checked += 1
    assert num_checked > 100
