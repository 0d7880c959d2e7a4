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

from client.cohort.store import Cohort
from client.layouts.mimic_iv.layout import MIMIC_IV
from client.prepare.prepare import prepare
from client.site import PlanSections, load_site
from lemof_model.features import FEATURES, GRID_CHANNELS
from lemof_model.icd import DISEASE_PREFIXES
from tests.real_stays import real_courses

HOUR, DAY = pd.Timedelta(hours=1), pd.Timedelta(days=1)


@pytest.fixture(scope="module")
def mimic(mimic_demo: Path) -> Path:
    return mimic_demo / "mimic-iv-demo-2.2"


@pytest.fixture(scope="module")
def courses(mimic: Path) -> pd.DataFrame:
    return real_courses(mimic)


@pytest.fixture(scope="module")
def stays(courses: pd.DataFrame) -> pd.DataFrame:
    """ICU stays of at least 24 h, in the order of the cohort (the demo holds no minors)."""
    return courses[courses.outtime - courses.intime >= DAY].sort_values("stay_id").reset_index(drop=True)


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
    return prepare(load_site(site), MIMIC_IV, PlanSections(), Console(quiet=True))


def test_equals_an_independent_count(
    cohort: Cohort, mimic: Path, courses: pd.DataFrame, stays: pd.DataFrame, records: pd.DataFrame
) -> None:
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
    los_days = (stays.outtime - stays.intime).dt.total_seconds() / 86_400
    np.testing.assert_allclose(cohort.stays["icu_los_days"], los_days, rtol=1e-12)
    assert sum(len(members) for members in stays.members) == len(stays) + 3
    _check_heart_rate(cohort, mimic, stays)
    _check_sodium(cohort, mimic, stays)
    _check_coma_scale_temperature_and_weight(cohort, mimic, stays)
    _check_urine(cohort, mimic, stays)
    _check_treatments(cohort, mimic, stays)
    _check_history(cohort, mimic, stays)
    _check_statics_and_diseases(cohort, mimic, stays)
    earlier = [((courses.subject_id == one.subject_id) & (courses.intime < one.intime)).sum() for one in _rows(stays)]
    np.testing.assert_array_equal(_column(cohort, "num_earlier_icu_stays"), earlier)


def _column(cohort: Cohort, name: str) -> np.ndarray:
    return cohort.features[:, [feature.name for feature in FEATURES].index(name)]


def _rows(table: pd.DataFrame) -> list[Any]:
    return list(table.itertuples())


def _events(path: Path, stays: pd.DataFrame, *times: str) -> pd.DataFrame:
    """A table of events, those of all rows of a stay under its id."""
    table = pd.read_csv(path, parse_dates=list(times), low_memory=False)
    course_of = {member: stay.stay_id for stay in _rows(stays) for member in stay.members}
    return table.assign(stay_id=table["stay_id"].map(course_of))


def _check_heart_rate(cohort: Cohort, mimic: Path, stays: pd.DataFrame) -> None:
    chart = _events(mimic / "icu/chartevents.csv.gz", stays, "charttime")
    chart = chart[(chart.itemid == 220045) & (chart.valuenum > 0) & (chart.valuenum < 300)]
    grid = cohort.grid[:, :, GRID_CHANNELS.index("heart_rate")]
    for row, stay in enumerate(_rows(stays)):
        mine = chart[chart.stay_id == stay.stay_id]
        day = mine[(mine.charttime >= stay.intime - 6 * HOUR) & (mine.charttime <= stay.intime + DAY)]
        begin, end = (day.valuenum[day.charttime == time] for time in (day.charttime.min(), day.charttime.max()))
        expected = [day.valuenum.min(), day.valuenum.max(), day.valuenum.mean(), begin.min(), end.max(), len(day)]
        kinds = ("min", "max", "mean", "first", "last", "count")
        found = [_column(cohort, f"heart_rate_{kind}")[row] for kind in kinds]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        hour = (mine.charttime - stay.intime) // HOUR
        hourly = mine.groupby(hour).valuenum.mean().reindex(range(24))
        np.testing.assert_allclose(grid[row], hourly, rtol=1e-6)


def _check_sodium(cohort: Cohort, mimic: Path, stays: pd.DataFrame) -> None:
    labs = pd.read_csv(mimic / "hosp/labevents.csv.gz", parse_dates=["charttime", "storetime"], low_memory=False)
    labs = labs[labs.itemid.isin([50983, 50824]) & labs.valuenum.notna()]
    for row, stay in enumerate(_rows(stays)):
        end = stay.intime + DAY
        day = labs[(labs.subject_id == stay.subject_id) & labs.charttime.between(stay.intime - 6 * HOUR, end)]
        day = day[~(day.storetime > end)]
        last = day.valuenum[day.charttime == day.charttime.max()].max()
        found = [_column(cohort, f"sodium_{aggregate}")[row] for aggregate in ("min", "max", "last", "count")]
        expected = np.array([day.valuenum.min(), day.valuenum.max(), last, len(day)], np.float32)
        np.testing.assert_array_equal(found, expected)


def _check_coma_scale_temperature_and_weight(cohort: Cohort, mimic: Path, stays: pd.DataFrame) -> None:
    chart = _events(mimic / "icu/chartevents.csv.gz", stays, "charttime")
    chart = chart.merge(stays[["stay_id", "intime"]], on="stay_id")
    chart = chart[(chart.charttime >= chart.intime - 6 * HOUR) & (chart.charttime <= chart.intime + DAY)]
    parts = chart[chart.itemid.isin([220739, 223900, 223901]) & (chart.valuenum >= 1)]
    wide = parts.pivot_table(index=["stay_id", "charttime"], columns="itemid", values="valuenum", aggfunc="min")
    total = wide.dropna().sum(axis=1).groupby("stay_id").min().reindex(stays.stay_id)
    np.testing.assert_array_equal(_column(cohort, "gcs_total_min"), total)
    fahrenheit = chart[(chart.itemid == 223761) & chart.valuenum.between(70.001, 120)]
    celsius = chart[chart.itemid.isin([223762, 226329, 227632, 227634]) & chart.valuenum.between(10.001, 50)]
    both = pd.concat([fahrenheit.assign(valuenum=(fahrenheit.valuenum - 32) / 1.8), celsius])
    expected = both.groupby("stay_id").valuenum.mean().reindex(stays.stay_id)
    assert expected.notna().all()
    np.testing.assert_allclose(_column(cohort, "temperature_mean"), expected, rtol=1e-6)
    pounds = chart[chart.itemid == 226531]
    weights = pd.concat(
        [chart[chart.itemid.isin([226512, 224639])], pounds.assign(valuenum=pounds.valuenum / 2.2046226)]
    )
    expected = weights[weights.valuenum.between(1.001, 500)].groupby("stay_id").valuenum.mean().reindex(stays.stay_id)
    assert expected.notna().all()
    np.testing.assert_allclose(_column(cohort, "weight_mean"), expected, rtol=1e-6)


def _check_urine(cohort: Cohort, mimic: Path, stays: pd.DataFrame) -> None:
    output = _events(mimic / "icu/outputevents.csv.gz", stays, "charttime")
    output = output[
        output.itemid.isin([*range(226557, 226562), 226563, 226564, 226565, 226567, 226584, 227488, 227489])
    ]
    output = output.merge(stays[["stay_id", "intime"]], on="stay_id")
    output = output[(output.charttime >= output.intime) & (output.charttime <= output.intime + DAY)]
    signed = output.value.where(output.itemid != 227488, -output.value)
    by_stay = signed.groupby(output.stay_id).agg(["sum", "count"]).reindex(stays.stay_id)
    assert by_stay["sum"].notna().sum() > 100
    np.testing.assert_allclose(_column(cohort, "urine_sum"), by_stay["sum"].clip(lower=0), rtol=1e-6)
    np.testing.assert_array_equal(_column(cohort, "urine_count"), by_stay["count"].fillna(0))


def _seconds(table: pd.DataFrame, stay: Any, item_ids: list[int]) -> tuple[set[int], set[int]]:
    """The seconds of the first day in which an item ran, counted one by one, and which items did."""
    mine = table[(table.stay_id == stay.stay_id) & table.itemid.isin(item_ids)]
    running: set[int] = set()
    items: set[int] = set()
    for event in _rows(mine):
        begin, end = ((time - stay.intime).total_seconds() for time in (event.starttime, event.endtime))
        if end >= begin and end >= -6 * 3600 and begin <= 24 * 3600:
            running |= set(range(int(max(begin, -6 * 3600)), int(min(end, 24 * 3600))))
            items.add(event.itemid)
    return running, items


def _check_treatments(cohort: Cohort, mimic: Path, stays: pd.DataFrame) -> None:
    drips = _events(mimic / "icu/inputevents.csv.gz", stays, "starttime", "endtime")
    procedures = _events(mimic / "icu/procedureevents.csv.gz", stays, "starttime", "endtime")
    given = 0
    for row, stay in enumerate(_rows(stays)):
        seconds, drugs = _seconds(drips, stay, [221906, 221289, 221749, 222315, 221662, 221653, 221986])
        found = [_column(cohort, f"vasopressor_{kind}")[row] for kind in ("given", "hours", "drugs")]
        np.testing.assert_allclose(found, [bool(drugs), len(seconds) / 3600, len(drugs)], rtol=1e-6)
        for name, item in {"invasive_ventilation": 225792, "noninvasive_ventilation": 225794}.items():
            seconds, _ = _seconds(procedures, stay, [item])
            np.testing.assert_allclose(_column(cohort, f"{name}_hours")[row], len(seconds) / 3600, rtol=1e-6)
        _, items = _seconds(procedures, stay, [225441, 225802, 225803, 225805, 225809, 225955])
        assert _column(cohort, "renal_replacement_given")[row] == bool(items)
        given += bool(items) + bool(drugs)
    assert given > 20


def _check_history(cohort: Cohort, mimic: Path, stays: pd.DataFrame) -> None:
    admissions = pd.read_csv(mimic / "hosp/admissions.csv.gz", parse_dates=["admittime", "dischtime"])
    codes = pd.read_csv(mimic / "hosp/diagnoses_icd.csv.gz", dtype={"icd_code": str})
    renal = {9: "582 585 586 V56 5880 V420 V451 5830 5831 5832 5833 5834 5835 5836 5837 40301 40311 40391 40402 40403 "
             "40412 40413 40492 40493".split(),
             10: "N18 N19 I120 I131 N032 N033 N034 N035 N036 N037 N052 N053 N054 N055 N056 N057 N250 Z490 Z491 Z492 "
             "Z940 Z992".split()}  # fmt: skip
    is_renal = [
        code.startswith(tuple(renal[version])) for code, version in codes[["icd_code", "icd_version"]].to_numpy()
    ]
    diabetic = [code.startswith(("250", "E10", "E11", "E12", "E13", "E14")) for code in codes.icd_code]
    for row, stay in enumerate(_rows(stays.merge(admissions[["hadm_id", "admittime"]], on="hadm_id", how="left"))):
        past = admissions[(admissions.subject_id == stay.subject_id) & (admissions.dischtime < stay.admittime)]
        assert _column(cohort, "earlier_renal_disease")[row] == codes[is_renal].hadm_id.isin(past.hadm_id).any()
        assert _column(cohort, "earlier_diabetes")[row] == codes[diabetic].hadm_id.isin(past.hadm_id).any()
        since = (stay.admittime - past.dischtime.max()).total_seconds() / 3600
        np.testing.assert_allclose(_column(cohort, "hours_since_discharge")[row], since, rtol=1e-6)


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
    for disease, prefixes in DISEASE_PREFIXES.items():
        has = {
            hadm_id for hadm_id, code, version in codes if any(code.startswith(prefix) for prefix in prefixes[version])
        }
        np.testing.assert_array_equal(cohort.stays[disease], stays["hadm_id"].isin(has), err_msg=disease)


def test_linked_and_readable_are_counted_apart(mimic: Path, mimic_demo: Path, tmp_path: Path) -> None:
    ecg = mimic_demo / "mimic-iv-ecg-demo-0.1"
    (tmp_path / "site.yaml").write_text(
        f"version: 1\nsite: {{name: demo}}\ndata: {{ehr: {{root: {mimic}}}, ecg: {{root: {ecg}}}}}\n"
        "prepare: {max_bad_fraction: 1}\n"
    )
    manifest = prepare(load_site(tmp_path / "site.yaml"), MIMIC_IV, PlanSections(), Console(quiet=True)).manifest
    assert manifest["num_stays_with_ecg"] == 82
    num_readable = 82 if (ecg / "files").is_dir() else 0
    assert manifest["num_stays_with_readable_ecg"] == num_readable
