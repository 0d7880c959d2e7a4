"""Rows of icustays that are one course in intensive care: joined, counted, and none lost or counted twice."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from client import cli
from client.prepare.courses import ADJOINING_ANOTHER, IN_ANOTHER, OVERLAPPING, Courses, courses_of
from client.prepare.stays import StayTables, contradictions_in, select_stays, with_courses, with_left_out
from lemof_model.errors import ConfigError
from lemof_model.study import CohortSpec
from readers.tables.files import Columns
from tests.client.prepare.test_broken_tables import change, make, more_charts, quality, value

BEGIN = datetime(2150, 3, 10, 8)
Row = tuple[int, int, int, float | None, float | None]  # patient, admission, stay, hours of intime and outtime
SCHEMA: Columns = {"subject_id": pl.Int64, "hadm_id": pl.Int64, "stay_id": pl.Int64, "first_careunit": pl.String,
          "intime": pl.Datetime("us"), "outtime": pl.Datetime("us")}  # fmt: skip


def at(hours: float | None) -> datetime | None:
    return None if hours is None else BEGIN + timedelta(hours=hours)


def icustays(*rows: Row) -> pl.DataFrame:
    listed = [(patient, hadm, stay, f"unit {stay}", at(begin), at(end)) for patient, hadm, stay, begin, end in rows]
    return pl.DataFrame(listed, schema=SCHEMA, orient="row")


def found(courses: Courses) -> list[tuple[int, float | None]]:
    """The first row's id and the hours from its ``intime`` to the end of each course."""
    hours = (pl.col("outtime") - pl.col("intime")).dt.total_seconds() / 3600
    return courses.stays.sort("stay_id").select("stay_id", hours).rows()


@pytest.mark.parametrize(
    ("rows", "expected", "num_merged"),
    [
        (((1, 11, 5, 0, 30), (1, 11, 6, 30, 90)), [(5, 90.0)], 1),
        (((1, 11, 5, 0, 30), (1, 11, 6, 36, 90)), [(5, 90.0)], 1),
        (((1, 11, 5, 0, 30), (1, 11, 6, 36.1, 90)), [(5, 30.0), (6, 53.9)], 0),
        (((1, 11, 5, 0, 10), (1, 11, 6, 11, 20), (1, 11, 7, 20, 80)), [(5, 80.0)], 2),
        (((1, 11, 7, 20, 80), (1, 11, 5, 0, 10), (1, 11, 6, 11, 20)), [(5, 80.0)], 2),
        (((1, 11, 6, 0, 10), (1, 11, 5, 10, 80)), [(6, 80.0)], 1),  # the first by time, not by id
        (((1, 11, 5, 0, 100), (1, 11, 6, 20, 40)), [(5, 100.0)], 1),  # one within another
        (((1, 11, 5, 0, 100), (1, 11, 6, 20, 40), (1, 11, 7, 90, 120)), [(5, 120.0)], 2),
        (((1, 11, 5, 0, 72), (1, 11, 6, 0, 72)), [(5, 72.0)], 1),  # one stay under two ids
        (((1, 11, 5, 0, 30), (1, 11, 6, 30, None)), [(5, None)], 1),  # an end that nobody knows
        (((1, 11, 5, 0, 30), (2, 21, 6, 30, 90)), [(5, 30.0), (6, 60.0)], 0),
        (((1, 11, 5, 0, 30), (1, 12, 6, 200, 290)), [(5, 30.0), (6, 90.0)], 0),
        (((1, 11, 5, 0, 30_000), (1, 11, 6, 30, 90)), [(5, 30_000.0), (6, 60.0)], 0),  # a clock is wrong
        (((1, 11, 5, 30, 0), (1, 11, 6, 30, 90)), [(5, -30.0), (6, 60.0)], 0),
        (((1, 11, 5, None, 30), (1, 11, 6, 30, 90)), [(5, None), (6, 60.0)], 0),
    ],
)
def test_rows_of_a_course_are_one_stay(
    rows: tuple[Row, ...], expected: list[tuple[int, float | None]], num_merged: int
) -> None:
    courses = courses_of(icustays(*rows), icustays(*rows), 6)
    assert [(stay, None if hours is None else round(hours, 6)) for stay, hours in found(courses)] == expected
    assert (courses.num_merged, courses.num_within) == (num_merged, 0)
    assert courses.members.height == len(rows)
    assert set(courses.members["course"]) == {stay for stay, _ in expected}
    assert dict(courses.stays.select("stay_id", "first_careunit").rows()) == {
        stay: f"unit {stay}" for stay, _ in expected
    }


def test_a_limit_of_nought_joins_what_touches() -> None:
    rows = icustays((1, 11, 5, 0, 30), (1, 11, 6, 30, 40), (1, 11, 7, 40.5, 90))
    assert found(courses_of(rows, rows, 0)) == [(5, 40.0), (7, 49.5)]
    for hours in (-1.0, 49.0):
        with pytest.raises(ConfigError, match=r"cohort\.merge_within_hours must be from 0 \(rows that touch\) to 48"):
            CohortSpec(merge_within_hours=hours)


def test_stays_without_an_admission_stay_alone() -> None:
    rows = icustays((1, 11, 5, 0, 30), (1, 11, 6, 30, 90)).with_columns(hadm_id=pl.lit(None, pl.Int64))
    assert found(courses_of(rows, rows, 6)) == [(5, 30.0), (6, 60.0)]


def test_what_lies_in_another_admission_counts_once_and_is_told() -> None:
    rows = icustays(
        (1, 11, 5, 0, 72), (1, 12, 6, 0, 72),  # one stay under two admissions
        (2, 21, 7, 0, 50), (2, 22, 8, 40, 90),
        (3, 31, 9, 0, 50), (3, 32, 10, 50, 90),  # admitted again at the door
        (4, 41, 11, 0, 50), (4, 41, 12, 40, 90),
    )  # fmt: skip
    courses = courses_of(rows, rows, 6)
    assert found(courses) == [(5, 72.0), (7, 50.0), (9, 50.0), (10, 40.0), (11, 90.0)]
    assert courses.contradictions == {OVERLAPPING: 1, IN_ANOTHER: 2, ADJOINING_ANOTHER: 1}
    assert (courses.num_merged, courses.num_within) == (1, 2)


def test_a_stay_of_an_admission_that_nobody_knows_hides_no_other() -> None:
    rows = icustays((1, 11, 5, 0, 72), (1, 12, 6, 0, 72))
    courses = courses_of(rows, rows.filter(pl.col("hadm_id") == 12), 6)
    assert (found(courses), courses.num_within) == ([(5, 72.0), (6, 72.0)], 0)


def tables_of(rows: pl.DataFrame, **of_admission: Any) -> StayTables:
    """Tables in which every patient is 50 and every admission begins 2 h before its first stay and ends long after."""
    admissions = rows.drop_nulls("hadm_id").group_by("subject_id", "hadm_id", maintain_order=True)
    hours = pl.duration(hours=1)
    others = {
        "admittime": pl.col("intime").min() - 2 * hours,
        "dischtime": pl.col("outtime").max() + 100 * hours,
        "deathtime": pl.lit(None, pl.Datetime("us")),
        "hospital_expire_flag": pl.lit(0),
        "age": pl.lit(50),
    } | of_admission
    patients = rows.select("subject_id").unique(maintain_order=True)
    return StayTables(
        rows,
        patients.with_columns(sex=pl.lit("F")),
        admissions.agg(**others),
        counts={"icustays": {"rows": rows.height, "id_unreadable": 0, "duplicates": 0}},
    )


def test_every_row_is_in_the_attrition() -> None:
    rows = icustays((1, 11, 5, 0, 30), (1, 11, 6, 30, 90), (1, 12, 7, 50, 99), (2, 21, 8, 0, 20), (2, 21, 9, 21, 30))
    tables = with_courses(tables_of(rows), CohortSpec())
    stays, attrition = select_stays(tables, CohortSpec())
    assert {row["reason"]: row["num_stays"] for row in attrition if row["num_stays"]} == {
        "all ICU stays": 5,
        "joined to the row before: same admission, at most 6 hours apart": 2,
        "begins during another stay of the patient, in another admission": 1,
        "in the cohort": 2,
    }
    assert stays["stay_id"].to_list() == [5, 8]
    known = with_left_out(stays, tables).sort("stay_id")
    assert known.select("stay_id", "row").rows() == [(5, 0), (6, 0), (7, None), (8, 1), (9, 1)]
    assert known["intime"].to_list() == [at(0), at(0), at(50), at(0), at(0)]
    assert contradictions_in(tables, CohortSpec())[IN_ANOTHER] == 1


def split_stay_10(site_path: Path, gap_minutes: int = 0, hadm_id: str = "11") -> None:
    """Two rows for the first stay: the second begins some time after 12 h."""

    def edit(rows: list[list[str]]) -> None:
        (row,) = (row for row in rows if row[2] == "10")
        later = [*row]
        row[6] = "2150-01-02 12:30:00"
        later[1:3] = [hadm_id, "15"]
        later[5] = str(datetime(2150, 1, 2, 12, 30) + timedelta(minutes=gap_minutes))
        rows.append(later)

    change(site_path, "icu/icustays.csv.gz", edit)


def test_events_of_every_row_belong_to_the_stay(site_path: Path) -> None:
    whole = make(site_path)
    split_stay_10(site_path, gap_minutes=30)
    change(site_path, "icu/chartevents.csv.gz", lambda rows: [
        row.__setitem__(0, "15") for row in rows[1:] if row[0] == "10" and "2150-01-02 05" < row[2] < "2150-02"
    ])  # fmt: skip
    change(site_path, "icu/inputevents.csv.gz", lambda rows: [
        row.__setitem__(0, "15") for row in rows[1:] if row[0] == "10" and row[1] == "222315"
    ])  # fmt: skip
    cohort = make(site_path)
    assert cohort.stays["stay_id"].tolist() == [10, 13, 32]
    assert (cohort.stays["icu_los_days"] == whole.stays["icu_los_days"]).all()
    assert (cohort.features[0] == whole.features[0])[~(whole.features[0] != whole.features[0])].all()
    for name in ("heart_rate_count", "fio2_max", "vasopressor_drugs", "sodium_count", "num_earlier_icu_stays"):
        assert value(cohort, name) == value(whole, name), name
    assert value(cohort, "sodium_count") == 3  # a laboratory value of the patient counts once, not for each row
    tables = quality(cohort)["tables"]
    assert tables["chartevents"]["not_in_icustays"] == 0
    assert tables["labevents"] == quality(whole)["tables"]["labevents"]


def test_events_of_a_stay_that_was_left_out_are_of_no_unknown_one(site_path: Path) -> None:
    more_charts(site_path, 20, stay_id="21")  # the second row of a minor's stay
    assert quality(make(site_path))["tables"]["chartevents"]["not_in_icustays"] == 0


def test_a_course_of_earlier_rows_is_one_earlier_stay(site_path: Path) -> None:
    split_stay_10(site_path)
    assert value(make(site_path), "num_earlier_icu_stays", 1) == 1


def test_overlapping_rows_are_told(site_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split_stay_10(site_path, gap_minutes=-60)
    cli.run(["--site", str(site_path), "check"])
    findings = json.loads((site_path.parent / "check.json").read_text())["findings"]
    assert [line["found"] for line in findings if line["code"] == "E113"] == [f"{OVERLAPPING}: 1"]
    assert cli.run(["--site", str(site_path), "prepare"]) == 0
    assert f"warning: deaths and times: {OVERLAPPING}: 1." in capsys.readouterr().err
    report = json.loads((site_path.parent / "cohort/quality.json").read_text())
    assert report["contradictions"][OVERLAPPING] == 1


def test_the_plan_says_what_is_one_stay(site_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split_stay_10(site_path, gap_minutes=90)
    plan = tmp_path / "plan.yaml"
    for hours, num in ((1, 2), (2, 3)):  # the first row alone is too short
        plan.write_text(f"cohort: {{merge_within_hours: {hours}, min_stay_hours: 24}}\n")
        assert cli.run(["--site", str(site_path), "prepare", "--plan", str(plan), "--json"]) == 0
        manifest = json.loads(capsys.readouterr().out)
        assert (manifest["cohort"]["merge_within_hours"], manifest["num_stays"]) == (hours, num + (hours == 1))
