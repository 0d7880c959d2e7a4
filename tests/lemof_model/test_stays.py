"""Rows as batches: scaling from sums, missing values, and ECGs in millivolts."""

import numpy as np
import pytest

from lemof_model.features import COMORBIDITIES, CONCEPTS, FEATURES, GRID_CHANNELS
from lemof_model.pyramid import EhrBatch
from lemof_model.stays import (
    CATEGORY_COLUMNS,
    NUMERIC_COLUMNS,
    STATIC_COLUMNS,
    Stays,
    chunks,
    ecg_mv,
    ehr_batches,
    feature_sums,
    grid_maps,
    grid_scaling,
    scaling_from,
)

RNG = np.random.default_rng(0)
NUMERIC_NAMES = [FEATURES[column].name for column in NUMERIC_COLUMNS]


@pytest.fixture
def stays() -> Stays:
    features = RNG.normal(50.0, 9.0, (30, len(FEATURES))).astype(np.float32)
    features[RNG.random(features.shape) < 0.2] = np.nan
    features[:, CATEGORY_COLUMNS] = 1
    features[:, NUMERIC_COLUMNS[0]] = 7.0
    features[:, NUMERIC_COLUMNS[1]] = np.nan
    grid = RNG.normal(50.0, 9.0, (40, 24, len(GRID_CHANNELS))).astype(np.float32)
    grid[RNG.random(grid.shape) < 0.7] = np.nan
    return Stays(
        features_NF=features,
        ecg_MCT=RNG.integers(-2000, 2000, (2, 12, 1000)).astype(np.int16),
        ecg_row_N=np.where(np.arange(30) == 4, 1, np.where(np.arange(30) == 9, 0, -1)),
        grid_NTG=grid,
        grid_row_N=np.arange(30) + 5,
        long_stay_N=np.zeros(30, np.int8),
        split_N=np.arange(30) % 4,
        fold_N=np.zeros(30, np.int64),
        patient_N=(np.arange(30) // 2).astype(np.uint64),
        network_N=np.zeros(30, np.int64),
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


def test_a_channel_is_scaled_by_the_features_that_are_known_of_it() -> None:
    mean, scale = RNG.normal(50.0, 9.0, (2, len(NUMERIC_COLUMNS))).astype(np.float32)
    found_mean, found_scale = grid_scaling(mean, scale)
    assert found_mean.shape == found_scale.shape == (len(GRID_CHANNELS),)
    for channel, name in enumerate(GRID_CHANNELS):
        known = {a: NUMERIC_NAMES.index(f"{name}_{a}") for c in CONCEPTS if c.name == name for a in c.aggregates}
        if "mean" in known:
            expected = mean[known["mean"]], scale[known["mean"]]
        elif "max" not in known:  # the parts of the coma scale
            expected = mean[known["min"]], scale[known["min"]]
        else:
            low, high = known["min"], known["max"]
            expected = (mean[low] + mean[high]) / 2, max(scale[low], scale[high])
        np.testing.assert_allclose((found_mean[channel], found_scale[channel]), expected, rtol=1e-6, err_msg=name)


def test_statics_are_the_numbers_that_no_channel_tells() -> None:
    assert [NUMERIC_NAMES[column] for column in STATIC_COLUMNS] == [
        "age", "icu_admission_hour", "hours_to_icu", "num_earlier_admissions", "num_earlier_icu_stays",
        "hours_since_discharge", *(f"earlier_{name}" for name in COMORBIDITIES), "height_mean", "weight_mean",
        "urine_sum", "urine_count", "gcs_total_min", "invasive_ventilation_hours", "noninvasive_ventilation_hours",
        "vasopressor_given", "vasopressor_hours", "vasopressor_drugs", "renal_replacement_given",
    ]  # fmt: skip


def test_values_are_carried_forward_and_grow_old_as_tpcs_are(stays: Stays) -> None:
    """Rocheteau et al. 2021, section 3; ``resample_and_mask`` of TPC-LoS-prediction, eICU_preprocessing/timeseries.py:
    1 where measured, else 1 / (4/3 hours since)."""
    raw = stays.grid_NTG[:3]
    value, fresh = grid_maps(raw)
    assert value.dtype == fresh.dtype == np.float32
    for stay, channel in np.ndindex(3, len(GRID_CHANNELS)):
        last, hours_since = 0.0, None
        for hour in range(24):
            if not np.isnan(raw[stay, hour, channel]):
                last, hours_since = raw[stay, hour, channel], 0
            elif hours_since is not None:
                hours_since += 1
            expected = 0.0 if hours_since is None else 1.0 if hours_since == 0 else 1.0 / (4.0 / 3.0 * hours_since)
            assert value[stay, hour, channel] == last
            assert fresh[stay, hour, channel] == pytest.approx(expected)


def test_the_grid_comes_scaled_and_clipped_and_only_when_asked_for(stays: Stays) -> None:
    mean, scale = np.full(len(NUMERIC_COLUMNS), 50.0, np.float32), np.full(len(NUMERIC_COLUMNS), 3.0, np.float32)
    rows = np.array([7, 2])
    with_grid, without = (ehr_batches(stays, mean, scale, with_grid=flag)(rows) for flag in (True, False))
    assert isinstance(with_grid, EhrBatch) and isinstance(without, EhrBatch)
    raw = stays.grid_NTG[[12, 7]]  # the cohort has stays that the study leaves out
    value, fresh = grid_maps(np.clip((raw - 50.0) / 3.0, -4.0, 4.0))
    np.testing.assert_allclose(with_grid.grid_BTG.numpy(), value, atol=1e-6)
    np.testing.assert_array_equal(with_grid.measured_BTG.numpy(), fresh)
    assert np.abs(value).max() == 4.0 and not np.isnan(value).any()
    assert without.grid_BTG.shape == without.measured_BTG.shape == (2, 0, 0)
    np.testing.assert_array_equal(with_grid.numeric_BF, without.numeric_BF)


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
    assert few.grid_row_N.tolist() == [9, 10] and few.grid_NTG is stays.grid_NTG


def test_chunks_keep_order_and_lose_nothing() -> None:
    assert [part.tolist() for part in chunks(np.arange(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunks(np.arange(0), 3)) == []
