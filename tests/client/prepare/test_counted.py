"""What decides a label or a feature and cannot be read: a few rows are counted, many stop, nothing is silent."""

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from client import cli
from client.layouts.mimic_iv.layout import MIMIC_IV
from client.prepare.prepare import prepare
from client.site import PlanSections, load_site
from lemof_model.errors import ConfigError, DataError
from tests.client.prepare.test_broken_tables import Rows, change, make, more_charts, quality

ADMISSIONS, ICUSTAYS, PATIENTS, DIAGNOSES = (
    "hosp/admissions.csv", "icu/icustays.csv.gz", "hosp/patients.csv.gz", "hosp/diagnoses_icd.csv.gz",
)  # fmt: skip
RECORD_LIST = "ecg/record_list.csv"


def put(rows: Rows, column: str, value: str) -> None:
    """The same value in every row of a column."""
    place = rows[0].index(column)
    for row in rows[1:]:
        row[place] = value


def more_admissions(site_path: Path, num: int, **cells: str) -> None:
    """Append admissions of nobody in intensive care, with these cells."""

    def edit(rows: Rows) -> None:
        base = {name: "" for name in rows[0]} | {"subject_id": "9", "hospital_expire_flag": "0"} | cells
        first = 1000 + len(rows)
        rows.extend([[*(base | {"hadm_id": str(first + row)}).values()] for row in range(num)])

    change(site_path, ADMISSIONS, edit)


def test_an_unreadable_deathtime_is_counted_and_many_stop(
    site_path: Path, read_rejects: Callable[[Path], list[dict[str, str]]]
) -> None:
    more_admissions(site_path, 2000)
    more_admissions(site_path, 10, deathtime="04.05.2150", hospital_expire_flag="1")
    cohort = make(site_path)
    assert quality(cohort)["tables"]["admissions"]["time_unreadable"] == 10
    assert {"file": "admissions.csv", "row": "2006", "reason": "time_unreadable"} in read_rejects(cohort.path)
    more_admissions(site_path, 1, deathtime="04.05.2150")
    with pytest.raises(DataError, match=r"^deathtime must match %Y-%m-%d %H:%M:%S, got 11 of 12 rows that do not "
                       r"\(first: line 2,006, form '99\.99\.9999'\) from hosp/admissions\..*\[E103\]$"):  # fmt: skip
        make(site_path)


def test_an_unreadable_flag_of_death_is_counted_and_many_stop(site_path: Path) -> None:
    more_admissions(site_path, 50, hospital_expire_flag="")
    more_admissions(site_path, 4, hospital_expire_flag="yes")
    more_admissions(site_path, 6, hospital_expire_flag="20")
    assert quality(make(site_path))["tables"]["admissions"]["hospital_expire_flag_unreadable"] == 10
    more_admissions(site_path, 1, hospital_expire_flag="yes")
    with pytest.raises(DataError, match=r"^hospital_expire_flag must be 0 or 1, got 11 of 65 rows in which it "
                       r"is not \(first: line 56, form 'aaa'\) from hosp/admissions\.csv\..*\[E105\]$"):  # fmt: skip
        make(site_path)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        (ICUSTAYS, "hadm_id", "2.00E+07"),
        (ICUSTAYS, "subject_id", "1.00E+07"),
        (PATIENTS, "anchor_age", "52.5"),
        (PATIENTS, "anchor_year", "2180 AD"),
        (PATIENTS, "subject_id", "1.00E+07"),
        (ADMISSIONS, "subject_id", "1e7"),
    ],
)
def test_numbers_of_stays_that_are_no_whole_numbers_are_named(
    site_path: Path, table: str, column: str, value: str
) -> None:
    change(site_path, table, lambda rows: rows.extend([list(rows[1]) for _ in range(11)]))
    change(site_path, table, lambda rows: put(rows, column, value))
    form = re.escape(re.sub("[A-Za-z]", "a", re.sub(r"\d", "9", value)))
    with pytest.raises(DataError, match=rf"^{column} must be a whole number, got \d+ of \d+ rows in which it is not "
                       rf"\(first: line 2, form '{form}'\) from {table}\..*\[E105\]$"):  # fmt: skip
        make(site_path)


def test_numbers_between_blanks_are_read(site_path: Path) -> None:
    change(site_path, PATIENTS, lambda rows: [row.__setitem__(2, f" {row[2]} ") for row in rows[1:]])
    change(site_path, ADMISSIONS, lambda rows: [row.__setitem__(4, row[4] or "  ") for row in rows[1:]])
    cohort = make(site_path)
    assert cohort.stays["stay_id"].tolist() == [10, 13, 32]
    counts = quality(cohort)["tables"]
    assert counts["patients"]["anchor_age_unreadable"] == counts["admissions"]["time_unreadable"] == 0


@pytest.mark.parametrize("table", [ICUSTAYS, PATIENTS, ADMISSIONS, DIAGNOSES])
def test_a_table_of_a_header_alone_is_refused(site_path: Path, table: str) -> None:
    change(site_path, table, lambda rows: rows.__delitem__(slice(1, None)))
    with pytest.raises(DataError, match=rf"^The table must have rows, got none from {table}\. Export it.*\[E106\]$"):
        make(site_path)


def test_every_row_of_diagnoses_is_counted_once(
    site_path: Path, read_rejects: Callable[[Path], list[dict[str, str]]]
) -> None:
    lost = [["1", "11 (12)", "1", "I509", "10"], ["1", "11", "1", "I509", "ICD-10"], ["9", "91", "1", "I509", "10"]]
    change(site_path, DIAGNOSES, lambda rows: rows.extend([*lost, ["", "", "", "", ""]]))
    cohort = make(site_path)
    rejects = [(row["row"], row["reason"]) for row in read_rejects(cohort.path) if row["file"].startswith("diagnoses")]
    assert rejects == [("8", "id_unreadable"), ("9", "icd_version_unreadable"), ("11", "id_unreadable")]
    assert quality(cohort)["tables"]["diagnoses_icd"] == {
        "file": "diagnoses_icd.csv.gz", "rows": 10, "id_unreadable": 2, "icd_version_unreadable": 1,
        "icd_code_missing": 0, "other_admissions": 2, "used": 5, "codes_of_another_version": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("column", "value", "rule", "form"),
    [
        ("icd_version", "ICD-10", "9 or 10", "aaa-99"),
        ("icd_version", "11", "9 or 10", "99"),
        ("hadm_id", "2.00E+07", "a whole number", r"9\.99a\+99"),
    ],
)
def test_diagnoses_that_cannot_be_read_stop(site_path: Path, column: str, value: str, rule: str, form: str) -> None:
    change(site_path, DIAGNOSES, lambda rows: rows.extend([list(rows[1]) for _ in range(5)]))
    change(site_path, DIAGNOSES, lambda rows: put(rows, column, value))
    message = (
        rf"^{column} must be {rule}, got 11 of 11 rows in which it is not \(first: line 2, form '{form}'\) from "
        r"hosp/diagnoses_icd\.csv\.gz\. Mend the export\. \[E105\]$"
    )
    with pytest.raises(DataError, match=message):
        make(site_path)


def with_ecgs(site_path: Path, root: str = "ecg", record_list: str = "", settings: str = "") -> str:
    """Prepare the small hospital with its ECGs; what was told."""
    listed = f", record_list: {record_list}" if record_list else ""
    site_path.write_text(
        f"version: 1\nsite: {{name: small}}\ndata: {{ehr: {{root: .}}, ecg: {{root: {root}{listed}}}}}\n"
        f"prepare: {{output: cohort{settings}}}\n"
    )
    told = io.StringIO()
    prepare(load_site(site_path), MIMIC_IV, PlanSections(), Console(file=told, width=200))
    return told.getvalue()


def listed(num: int, **cells: str) -> Callable[[Rows], None]:
    """Append records of nobody in intensive care."""

    def edit(rows: Rows) -> None:
        for study in range(1000 + len(rows), 1000 + len(rows) + num):
            row = {"subject_id": "9", "study_id": str(study), "file_name": "", "ecg_time": "2150-01-01 00:00:00"}
            rows.append([*(row | {"path": f"files/{study}"} | cells).values()])

    return edit


def test_other_waveforms_make_the_cohort_anew_where_the_record_list_stays(site_path: Path) -> None:
    folder = site_path.parent
    shutil.copytree(folder / "ecg", folder / "filtered")
    (folder / RECORD_LIST).rename(folder / "record_list.csv")
    assert "[3/4] ECGs" in with_ecgs(site_path)
    assert "nothing changed" in with_ecgs(site_path)
    assert "[3/4] ECGs" in with_ecgs(site_path, root="filtered", record_list="record_list.csv")


def test_a_folder_that_moves_with_its_record_list_is_the_same(site_path: Path) -> None:
    with_ecgs(site_path)
    (site_path.parent / "ecg").rename(site_path.parent / "moved")
    assert "nothing changed" in with_ecgs(site_path, root="moved")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"ecg_time": "01.02.2150"}, r"^ecg_time must match %Y-%m-%d %H:%M:%S, got 12 of 18 records that do not "
         r"\(first: row 7, form 'aaaaaaa'\) from record_list\.csv\. Set data\.ecg\.datetime_format, .*\[E103\]$"),
        ({"subject_id": "1.00E+07"}, r"^subject_id must be a whole number, got 11 of 18 records in which it is not "
         r"\(first: row 8, form '9\.99a\+99'\) from record_list\.csv\..*\[E105\]$"),
        ({"study_id": ""}, r"^study_id must be a whole number, got 11 of 18 records in which it is not \(first: row 8, "
         r"form '\(empty\)'\) from record_list\..*\[E105\]$"),
        ({"path": ""}, r"^path must be a record's place under data\.ecg\.root, got 11 of 18 records .*\[E105\]$"),
        ({"path": "files/1"}, r"^path must be there once, got 10 repetitions \(rows 9, 10, 11, \.\.\.\) from "
         r"record_list\.csv\. Mend the record list, or set prepare\.on_duplicate: first\. \[E104\]$"),
    ],
)  # fmt: skip
def test_a_record_list_of_which_too_much_cannot_be_used(
    site_path: Path, cells: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(site_path, RECORD_LIST, listed(11, **cells))
    with pytest.raises(DataError, match=message):
        with_ecgs(site_path)
    assert cli.run(["--site", str(site_path), "check", "--no-server", "--json"]) == 4
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["findings"]
    assert re.findall(r"E\d+", message)[-1] in {finding["code"] for finding in found if finding["result"] == "fail"}
    if "path" not in cells or cells["path"]:
        assert "[3/4] ECGs" in with_ecgs(site_path, settings=", max_bad_fraction: 0.9, on_duplicate: first")


def test_records_below_the_limit_are_told_by_prepare_too(
    site_path: Path, capsys: pytest.CaptureFixture[str], read_rejects: Callable[[Path], list[dict[str, str]]]
) -> None:
    change(site_path, RECORD_LIST, listed(3, study_id=""))
    assert cli.run(["--site", str(site_path), "prepare"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "warning: ECG record list: 3 records incomplete. Such records are skipped. [E105]" in told
    assert "warning: ECG record list: 1 records without readable time. Such records are skipped. [E103]" in told
    rejects = [row for row in read_rejects(site_path.parent / "cohort") if row["file"] == "record_list.csv"]
    assert [row["reason"] for row in rejects] == ["time_unreadable", *["incomplete"] * 3]
    assert [row["row"] for row in rejects][1:] == ["8", "9", "10"]


@pytest.mark.parametrize(
    ("change_path", "fix"),
    [
        (lambda path: path.replace("/1", "\\1"), "has / between its folders: write one for each backslash."),
        (lambda path: f"{path}.hea", "ends without .hea, .dat or .mat: take it off."),
        (lambda path: f"/{path}", "starts at data.ecg.root, not at / or a drive: cut off the rest."),
    ],
)
def test_a_path_of_another_form_is_not_taken_for_a_file_to_copy(
    site_path: Path, change_path: Callable[[str], str], fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(site_path, RECORD_LIST, lambda rows: [row.__setitem__(4, change_path(row[4])) for row in rows[1:]])
    cli.run(["--site", str(site_path), "check", "--no-server", "--json"])
    fixes = [finding["fix"] for finding in json.loads(capsys.readouterr().out)["findings"] if finding["code"] == "E202"]
    assert fixes == [f"In the record list a path {fix}"]


def test_an_output_that_has_no_name(site_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prepare\.output must be a folder with a name, got /\. Name one in it"):
        make(site_path, settings="x}\nprepare: {output: /")


def test_values_that_are_no_numbers_are_counted_and_many_stop(site_path: Path) -> None:
    more_charts(site_path, 10, valuenum="98.6 F")
    more_charts(site_path, 20, valuenum="  ")
    more_charts(site_path, 5, valuenum="")
    more_charts(site_path, 3, valuenum="<1", charttime="2151-01-01 00:00:00")  # of no first day
    for counts in (quality(make(site_path))[part] for part in ("tables", "concepts")):
        of_table = counts.get("chartevents") or counts["heart_rate"]
        assert of_table["value_unreadable"] == 10
    more_charts(site_path, 1, valuenum='"98,6"')
    with pytest.raises(DataError, match=r"^valuenum must be a number, got 11 of \d\d rows in which it is not \(first: "
                       r"line 40, form '99\.9 a'\) from icu/chartevents\.csv\.gz\..*\[E105\]$"):  # fmt: skip
        make(site_path)
    assert (
        quality(make(site_path, settings=", max_bad_fraction: 0.5"))["tables"]["chartevents"]["value_unreadable"] == 11
    )
