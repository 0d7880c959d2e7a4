"""Which patient goes where: splits and folds as a function of a salt and the patient, and of nothing else.

A patient is known by ``patient_hash``, so a split never needs an id, is the same at every preparation, and holds all
stays of one patient.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from lemof_model.study import SPLITS, SplitSpec


def patient_hash_of(subject_id: int | str) -> int:
    """First 8 bytes (big-endian) of blake2b of ``subject_id``: a decimal number, or text.

    Example:
        >>> patient_hash_of(1) == patient_hash_of(2), patient_hash_of(1) == patient_hash_of("1")
        (False, True)
    """
    return int.from_bytes(hashlib.blake2b(str(subject_id).encode()).digest()[:8], "big")


def split_of(patient_hash: NDArray[np.uint64], splits: SplitSpec) -> NDArray[np.int64]:
    """Index into ``SPLITS`` of each patient.

    Shape:
        patient_hash: (N,); result: (N,)

    Example:
        >>> split_of(np.array([5, 5, 6], np.uint64), SplitSpec()).tolist()
        [1, 1, 3]
    """
    upper_bounds = np.cumsum([getattr(splits, name) for name in SPLITS])[:-1]
    return np.searchsorted(upper_bounds, _uniform(patient_hash, splits.salt), side="right").astype(np.int64)


def fold_of(patient_hash: NDArray[np.uint64], salt: str) -> NDArray[np.int64]:
    """Fold 0 or 1 of each patient, independent of the splits made with the same salt.

    Shape:
        patient_hash: (N,); result: (N,)
    """
    return (_uniform(patient_hash, f"{salt}/fold") >= 0.5).astype(np.int64)


def network_of(patient_hash: NDArray[np.uint64], salt: str, folds: int) -> NDArray[np.int64]:
    """The number of the network that learns nothing of each patient, independent of split and half; 0 without folds.

    Shape:
        patient_hash: (N,); result: (N,)
    """
    return np.floor(_uniform(patient_hash, f"{salt}/network") * max(folds, 1)).astype(np.int64)


def _uniform(patient_hash: NDArray[np.uint64], salt: str) -> NDArray[np.float64]:
    """A number from 0 to 1 for each patient: blake2b of salt, a zero byte, and the hash's 8 bytes."""
    prefix = salt.encode() + b"\0"
    digests = (hashlib.blake2b(prefix + int(value).to_bytes(8, "big")).digest() for value in patient_hash)
    return np.array([int.from_bytes(digest[:8], "big") / 2**64 for digest in digests], np.float64)
