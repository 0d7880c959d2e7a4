"""Rows as batches: scaling from sums, missing values, and ECGs in millivolts."""

import numpy as np
import pytest

from lemof_model.features import FEATURES
from lemof_model.pyramid import EhrBatch
from lemof_model.stays import (
    CATEGORY_COLUMNS,
    NUMERIC_COLUMNS,
    Stays,
    chunks,
    ecg_mv,
    ehr_batches,
    feature_sums,
    scaling_from,
)

RNG = np.random.default_rng(0)


@pytest.fixture
def stays() -> Stays:
    features = RNG.normal(50.0, 9.0, (30, len(FEATURES))).astype(np.float32)
    features[RNG.random(features.shape) < 0.2] = np.nan
    features[:, CATEGORY_COLUMNS] = 1
    features[:, NUMERIC_COLUMNS[0]] = 7.0
    features[:, NUMERIC_COLUMNS[1]] = np.nan
    return Stays(
        features_NF=features,
        ecg_MCT=RNG.integers(-2000, 2000, (2, 12, 1000)).astype(np.int16),
        ecg_row_N=np.where(np.arange(30) == 4, 1, np.where(np.arange(30) == 9, 0, -1)),
        long_stay_N=np.zeros(30, np.int8),
        split_N=np.arange(30) % 4,
        fold_N=np.zeros(30, np.int64),
        patient_N=(np.arange(30) // 2).astype(np.uint64),
    )


@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Degrees of freedom:RuntimeWarning")
def test_scaling_from_the_sums_of_two_sites_is_that_of_all_their_rows(stays: Stays) -> None:
    x = stays.features_NF
    parts = [feature_sums(x[:11]), feature_sums(x[11:])]
    scaling = scaling_from({name: parts[0][name] + parts[1][name] for name in parts[0]})
    numeric = x[:, NUMERIC_COLUMNS].astype(np.float64)
    mean, deviation = np.nanmean(numeric, axis=0), np.nanstd(numeric, axis=0)
    np.testing.assert_allclose(scaling["mean"][2:], mean[2:], rtol=1e-5)
    np.testing.assert_allclose(scaling["scale"][2:], deviation[2:], rtol=1e-4)
    assert (scaling["mean"][0], scaling["scale"][0]) == (7.0, 1.0)  # it never varies
    assert (scaling["mean"][1], scaling["scale"][1]) == (0.0, 1.0)  # nobody has it


def test_batches_are_scaled_clipped_and_marked_where_missing(stays: Stays) -> None:
    mean, scale = np.full(len(NUMERIC_COLUMNS), 50.0, np.float32), np.full(len(NUMERIC_COLUMNS), 3.0, np.float32)
    rows = np.array([7, 2])
    batch = ehr_batches(stays, mean, scale)(rows)
    assert isinstance(batch, EhrBatch)
    raw = stays.features_NF[rows][:, NUMERIC_COLUMNS]
    missing = np.isnan(raw)
    np.testing.assert_array_equal(batch.missing_BF.numpy(), missing)
    expected = np.where(missing, 0.0, np.clip((raw - 50.0) / 3.0, -4.0, 4.0))
    np.testing.assert_allclose(batch.numeric_BF.numpy(), expected, atol=1e-6)
    assert np.abs(expected).max() == 4.0 and (batch.category_BF == 1).all()


def test_an_ecg_is_read_by_its_stay_in_millivolts(stays: Stays) -> None:
    found = ecg_mv(stays, np.array([9, 4])).numpy()
    np.testing.assert_allclose(found, stays.ecg_MCT[[0, 1]] / 1000.0, atol=1e-7)


def test_rows_of_a_split_and_a_modality(stays: Stays) -> None:
    assert stays.rows("stack").tolist() == list(range(1, 30, 4))
    assert stays.rows("train", "ecg").tolist() == [4]
    assert stays.rows("stack", "ecg").tolist() == [9]
    assert stays.num_patients(np.array([0, 1, 2])) == 2
    few = stays.select(np.array([4, 5]))
    assert few.ecg_row_N.tolist() == [1, -1] and few.ecg_MCT is stays.ecg_MCT


def test_chunks_keep_order_and_lose_nothing() -> None:
    assert [part.tolist() for part in chunks(np.arange(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunks(np.arange(0), 3)) == []
