"""Sets of a hospital's stays, and how many patients they are: what the door counts with."""

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lemof_model.stays import Rows, Stays
from lemof_model.study import MODALITIES, SPLITS


class StaySet(NamedTuple):
    """Stays, as a bool of each and as the bits of one number (sets are compared often), and their patients."""

    stay_N: NDArray[np.bool_]
    bits: int
    num_patients: int


class Census:
    """The sets of stays that a hospital's census counts, and how many patients any set is; made once for a hospital."""

    def __init__(self, stays: Stays) -> None:
        self._stays = stays
        patients, self._patient_N = np.unique(stays.patient_N, return_inverse=True)
        self._num_patients = len(patients)
        self._with_ecg = _bits(stays.has_ecg_N)

    def set_of(self, rows: Rows) -> StaySet:
        """The set of some rows."""
        stay_N = np.zeros(len(self._patient_N), bool)
        stay_N[rows] = True
        is_in = np.zeros(self._num_patients, bool)
        is_in[self._patient_N[rows]] = True
        return StaySet(stay_N, _bits(stay_N), int(is_in.sum()))

    @cached_property
    def sets(self) -> list[StaySet]:
        """Every split, modality and outcome."""
        stays, found = self._stays, []
        for split in SPLITS:
            for modality in MODALITIES:
                rows = stays.rows(split, modality)
                found += [self.set_of(part) for part in (rows, *(rows[stays.long_stay_N[rows] == y] for y in (0, 1)))]
        return found

    def rest(self, part: StaySet, whole: StaySet, *, is_of_ecgs: bool) -> int | None:
        """Patients of a whole without those of a part; None if it is no part of it, or all of it, or if ``is_of_ecgs``
        and it is the whole's stays with an ECG. A patient on both sides counts on neither: the stay that is left would
        be known as theirs."""
        if part.bits & whole.bits != part.bits or part.bits == whole.bits:
            return None
        if is_of_ecgs and part.bits == whole.bits & self._with_ecg:
            return None
        return whole.num_patients - part.num_patients


def _bits(stay_N: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(stay_N).tobytes())
