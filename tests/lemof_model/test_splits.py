"""Splits and folds: the stated hash, the stated fractions, and nothing else decides."""

import hashlib

import numpy as np
import pytest

from lemof_model.splits import fold_of, patient_hash_of, split_of
from lemof_model.study import SPLITS, SplitSpec


@pytest.fixture(scope="module")
def patients() -> np.ndarray:
    return np.array([patient_hash_of(number) for number in range(20_000)], np.uint64)


def test_the_hash_is_the_stated_one() -> None:
    assert patient_hash_of(10_000_032) == int.from_bytes(hashlib.blake2b(b"10000032").digest()[:8], "big")
    # Golden: split of the first patients, made once by the definition in this test.
    patient = patient_hash_of(10_000_032)
    digest = hashlib.blake2b(b"lemof\0" + patient.to_bytes(8, "big")).digest()[:8]
    uniform = int.from_bytes(digest, "big") / 2**64
    bounds = [0.5, 0.75, 0.85, 1.0]
    expected = next(code for code, bound in enumerate(bounds) if uniform < bound)
    assert split_of(np.array([patient], np.uint64), SplitSpec()).tolist() == [expected]


def test_splits_have_their_fractions(patients: np.ndarray) -> None:
    spec = SplitSpec()
    shares = np.bincount(split_of(patients, spec), minlength=4) / len(patients)
    np.testing.assert_allclose(shares, [getattr(spec, name) for name in SPLITS], atol=0.01)


def test_another_salt_is_another_split(patients: np.ndarray) -> None:
    same = (split_of(patients, SplitSpec()) == split_of(patients, SplitSpec(salt="other"))).mean()
    assert same == pytest.approx(0.5**2 + 0.25**2 + 0.1**2 + 0.15**2, abs=0.01)


def test_folds_halve_every_split(patients: np.ndarray) -> None:
    splits, folds = split_of(patients, SplitSpec()), fold_of(patients, SplitSpec().salt)
    assert set(folds) == {0, 1}
    for code in range(len(SPLITS)):
        assert folds[splits == code].mean() == pytest.approx(0.5, abs=0.03)


def test_no_patients() -> None:
    assert split_of(np.array([], np.uint64), SplitSpec()).shape == (0,)
