"""The real MIMIC-IV demo against counts made in another way: pandas, whole tables, a loop over stays.

Its waveforms are not public in every demo, so each record that a stay could use is given a made-up signal.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from client.cohort import Cohort
from client.mimic_iv.diagnoses import PREFIXES
from client.mimic_iv.prepare import prepare
from client.site import PlanSections, load_site
from lemof_model.features import FEATURES, GRID_CHANNELS

HOUR, DAY = pd.Timedelta(hours=1), pd.Timedelta(days=1)


@pytest.fixture(scope="module")
def mimic(mimic_demo: Path) -> Path:
    return mimic_demo / "mimic-iv-demo-2.2"


@pytest.fixture(scope="module")
def stays(mimic: Path) -> pd.DataFrame:
    """ICU stays of at least 24 h, in the order of the cohort (the demo holds no minors)."""
    stays = pd.read_csv(mimic / "icu/icustays.csv.gz", parse_dates=["intime", "outtime"])
    return stays[stays.outtime - stays.intime >= DAY].sort_values("stay_id").reset_index(drop=True)


@pytest.fixture(scope="module")
def records(mimic_demo: Path, stays: pd.DataFrame) -> pd.DataFrame:
    """Records from 24 h before to 24 h after the admission of a stay of their patient."""
    records = pd.read_csv(mimic_demo / "mimic-iv-ecg-demo-0.1/record_list.csv", parse_dates=["ecg_time"])
    pairs = stays.merge(records, on="subject_id")
    return pairs[(pairs.ecg_time >= pairs.intime - DAY) & (pairs.ecg_time <= pairs.intime + DAY)]


@pytest.fixture
def cohort(
    mimic: Path, mimic_demo: Path, records: pd.DataFrame, tmp_path: Path, write_record: Callable[..., None],
    samples: Callable[..., np.ndarray],
) -> Cohort:  # fmt: skip
    for path in records["path"].unique():
        write_record(tmp_path / path, samples(1))
    shutil.copy(mimic_demo / "mimic-iv-ecg-demo-0.1/record_list.csv", tmp_path)
    site = tmp_path / "site.yaml"
    site.write_text(f"version: 1\nsite: {{name: demo}}\ndata: {{ehr: {{root: '{mimic}'}}, ecg: {{root: .}}}}\n")
    return prepare(load_site(site), PlanSections(), Console(quiet=True))


def test_equals_an_independent_count(cohort: Cohort, mimic: Path, stays: pd.DataFrame, records: pd.DataFrame) -> None:
    manifest = cohort.manifest
    first, *dropped, last = manifest["attrition"]
    assert first["num_stays"] == 140 == sum(row["num_stays"] for row in dropped) + last["num_stays"]
    assert manifest["num_stays"] == last["num_stays"] == len(stays)
    assert manifest["num_patients"] == stays.subject_id.nunique()
    assert manifest["num_long_stays"] == int(((stays.outtime - stays.intime) > 3 * DAY).sum())
    num_with_ecg = records.stay_id.nunique()
    assert manifest["num_stays_with_ecg"] == manifest["num_stays_with_readable_ecg"] == num_with_ecg > 0
    assert sum(manifest["splits"].values()) == len(stays)
    assert cohort.stays["stay_id"].tolist() == stays["stay_id"].tolist()
    np.testing.assert_array_equal(cohort.ecg_index >= 0, stays["stay_id"].isin(records["stay_id"]))
    _check_heart_rate(cohort, mimic, stays)
    _check_sodium(cohort, mimic, stays)
    _check_statics_and_diseases(cohort, mimic, stays)


def _column(cohort: Cohort, name: str) -> np.ndarray:
    return cohort.features[:, [feature.name for feature in FEATURES].index(name)]


def _rows(table: pd.DataFrame) -> list[Any]:
    return list(table.itertuples())


def _check_heart_rate(cohort: Cohort, mimic: Path, stays: pd.DataFrame) -> None:
    chart = pd.read_csv(mimic / "icu/chartevents.csv.gz", parse_dates=["charttime"], low_memory=False)
    chart = chart[(chart.itemid == 220045) & (chart.valuenum > 0) & (chart.valuenum < 300)]
    grid = cohort.grid[:, :, GRID_CHANNELS.index("heart_rate")]
    for row, stay in enumerate(_rows(stays)):
        mine = chart[chart.stay_id == stay.stay_id]
        day = mine[(mine.charttime >= stay.intime - 6 * HOUR) & (mine.charttime <= stay.intime + DAY)]
        expected = [day.valuenum.min(), day.valuenum.max(), day.valuenum.mean()]
        found = [_column(cohort, f"heart_rate_{aggregate}")[row] for aggregate in ("min", "max", "mean")]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        hour = (mine.charttime - stay.intime) // HOUR
        hourly = mine.groupby(hour).valuenum.mean().reindex(range(24))
        np.testing.assert_allclose(grid[row], hourly, rtol=1e-6)


def _check_sodium(cohort: Cohort, mimic: Path, stays: pd.DataFrame) -> None:
    labs = pd.read_csv(mimic / "hosp/labevents.csv.gz", parse_dates=["charttime", "storetime"], low_memory=False)
    labs = labs[(labs.itemid == 50983) & labs.valuenum.notna()]
    for row, stay in enumerate(_rows(stays)):
        end = stay.intime + DAY
        day = labs[(labs.subject_id == stay.subject_id) & labs.charttime.between(stay.intime - 6 * HOUR, end)]
        day = day[~(day.storetime > end)]
        found = [_column(cohort, f"sodium_{aggregate}")[row] for aggregate in ("min", "max")]
        np.testing.assert_array_equal(found, np.array([day.valuenum.min(), day.valuenum.max()], np.float32))


def _check_statics_and_diseases(cohort: Cohort, mimic: Path, stays: pd.DataFrame) -> None:
    patients = pd.read_csv(mimic / "hosp/patients.csv.gz")
    admissions = pd.read_csv(mimic / "hosp/admissions.csv.gz", parse_dates=["admittime"])
    known = stays.merge(patients, on="subject_id").merge(admissions, on=["subject_id", "hadm_id"])
    known = known.set_index("stay_id").loc[stays["stay_id"]]
    age = known.anchor_age + known.admittime.dt.year - known.anchor_year
    np.testing.assert_array_equal(_column(cohort, "age"), age)
    earlier = [
        ((admissions.subject_id == stay.subject_id) & (admissions.admittime < stay.admittime)).sum()
        for stay in _rows(known)
    ]
    np.testing.assert_array_equal(_column(cohort, "num_earlier_admissions"), earlier)
    table = pd.read_csv(mimic / "hosp/diagnoses_icd.csv.gz", dtype={"icd_code": str})
    codes = table[["hadm_id", "icd_code", "icd_version"]].values.tolist()
    for disease, prefixes in PREFIXES.items():
        has = {
            hadm_id for hadm_id, code, version in codes if any(code.startswith(prefix) for prefix in prefixes[version])
        }
        np.testing.assert_array_equal(cohort.stays[disease], stays["hadm_id"].isin(has), err_msg=disease)


def test_linked_and_readable_are_counted_apart(mimic: Path, mimic_demo: Path, tmp_path: Path) -> None:
    ecg = mimic_demo / "mimic-iv-ecg-demo-0.1"
    (tmp_path / "site.yaml").write_text(
        f"version: 1\nsite: {{name: demo}}\ndata: {{ehr: {{root: {mimic}}}, ecg: {{root: {ecg}}}}}\n"
    )
    manifest = prepare(load_site(tmp_path / "site.yaml"), PlanSections(), Console(quiet=True)).manifest
    assert manifest["num_stays_with_ecg"] == 82
    num_readable = 82 if (ecg / "files").is_dir() else 0
    assert manifest["num_stays_with_readable_ecg"] == num_readable
