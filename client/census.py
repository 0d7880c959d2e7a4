"""Sets of a hospital's stays, and how many patients they are: what the door counts with."""

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lemof_model.stays import Rows, Stays
from lemof_model.study import MODALITIES, SPLITS


class StaySet(NamedTuple):
    """Stays as a bool of each, and how many patients they are."""

    stay_N: NDArray[np.bool_]
    num_patients: int


class Census:
    """The sets of stays that a hospital's census counts, and how many patients any set is; made once for a hospital."""

    def __init__(self, stays: Stays) -> None:
        self._stays = stays
        patients, self._patient_N = np.unique(stays.patient_N, return_inverse=True)
        self._num_patients = len(patients)

    def set_of(self, rows: Rows) -> StaySet:
        """The set of some rows."""
        stay_N = np.zeros(len(self._patient_N), bool)
        stay_N[rows] = True
        return self.counted(stay_N)

    def counted(self, stay_N: NDArray[np.bool_]) -> StaySet:
        """A set with its patients."""
        is_in = np.zeros(self._num_patients, bool)
        is_in[self._patient_N[stay_N]] = True
        return StaySet(stay_N, int(is_in.sum()))

    @cached_property
    def sets(self) -> list[StaySet]:
        """Every split, modality and outcome."""
        stays, found = self._stays, []
        for split in SPLITS:
            for modality in MODALITIES:
                rows = stays.rows(split, modality)
                found += [self.set_of(part) for part in (rows, *(rows[stays.long_stay_N[rows] == y] for y in (0, 1)))]
        return found

    def rest(self, part: StaySet, whole: StaySet) -> int | None:
        """Patients of a whole without those of a part; None if it is no part of it, or all of it, or its stays with an
        ECG. A patient on both sides counts on neither: the stay that is left would be known as theirs."""
        if (part.stay_N & ~whole.stay_N).any() or part.stay_N.sum() == whole.stay_N.sum():
            return None
        if np.array_equal(part.stay_N, whole.stay_N & self._stays.has_ecg_N):
            return None
        return whole.num_patients - part.num_patients
