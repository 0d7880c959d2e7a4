"""A hospital's mess, table by table: the stated message and exit status, or the counted drop; never a traceback."""

import csv
import gzip
import io
import json
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from client import cli
from client.cohort.store import Cohort
from client.layouts import layout_of
from client.layouts.mimic_iv.layout import MIMIC_IV
from client.prepare import event_pass
from client.prepare.prepare import prepare
from client.site import PlanSections, load_site
from lemof_model.concepts import TREATMENTS
from lemof_model.errors import ConfigError, DataError
from lemof_model.features import FEATURES

Rows = list[list[str]]
NAMES = [feature.name for feature in FEATURES]
CHART, LABS = "icu/chartevents.csv.gz", "hosp/labevents.csv.gz"


def make(site_path: Path, ehr: str = "", settings: str = "") -> Cohort:
    """Prepare the small hospital without its ECGs; ``ehr`` is added to data.ehr, ``settings`` to prepare."""
    site_path.write_text(
        f"version: 1\nsite: {{name: small}}\ndata: {{ehr: {{root: .{ehr}}}}}\nprepare: {{output: cohort{settings}}}\n"
    )
    site = load_site(site_path)
    return prepare(site, layout_of(site), PlanSections(), Console(quiet=True))


def value(cohort: Cohort, name: str, row: int = 0) -> float:
    return float(cohort.features[row, NAMES.index(name)])


def quality(cohort: Cohort) -> dict[str, Any]:
    return dict(json.loads((cohort.path / "quality.json").read_text()))


def read(path: Path) -> Rows:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"))))


def write(path: Path, rows: Rows) -> None:
    text = "".join(",".join(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def change(site_path: Path, table: str, edit: Callable[[Rows], Any]) -> None:
    rows = read(site_path.parent / table)
    edit(rows)
    write(site_path.parent / table, rows)


def more_charts(site_path: Path, num: int, **cells: str) -> None:
    """Append heart rates of 75 to chartevents, with these cells instead."""
    row = {"stay_id": "10", "itemid": "220045", "charttime": "2150-01-02 12:00:00", "valuenum": "75"} | cells
    change(site_path, CHART, lambda rows: rows.extend([[*row.values()]] * num))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("icu/chartevents", r"icu/chartevents must be a table, got no .* Vital signs need it\. Set .*\[E101\]"),
        ("hosp/labevents", r"hosp/labevents must be a table, .* Set data\.ehr\.tables\.labevents .*\[E101\]"),
        ("icu/icustays", r"icu/icustays must be a table, .* All features need it\. .*\[E101\]"),
    ],
)
def test_a_missing_table(site_path: Path, table: str, message: str) -> None:
    (site_path.parent / f"{table}.csv.gz").unlink()
    with pytest.raises(DataError, match=message):
        make(site_path)


def test_a_table_in_the_other_folder_or_where_the_site_file_says(site_path: Path) -> None:
    folder = site_path.parent
    (folder / "icu/chartevents.csv.gz").rename(folder / "hosp/chartevents.csv.gz")
    assert value(make(site_path), "heart_rate_count") == 5
    (folder / "my exports").mkdir()
    (folder / "hosp/chartevents.csv.gz").rename(folder / "my exports/chart events.csv.gz")
    assert value(make(site_path, ", tables: {chartevents: my exports/chart events.csv.gz}"), "heart_rate_count") == 5
    with pytest.raises(DataError, match=r"icu/chartevents must be a table, got no other\.csv under"):
        make(site_path, ", tables: {chartevents: other.csv}")


def test_tables_that_a_site_may_lack(site_path: Path) -> None:
    for name in ("outputevents", "inputevents", "procedureevents"):
        (site_path.parent / f"icu/{name}.csv.gz").unlink()
    cohort = make(site_path)
    lost = {"urine", *(treatment.name for treatment in TREATMENTS)}
    absent = [feature.name for feature in FEATURES if feature.concept in lost]
    assert len(absent) == 8
    for name in absent:
        assert np.isnan([value(cohort, name, row) for row in range(3)]).all(), name
    there = {"icustays", "patients", "admissions", "diagnoses_icd", "chartevents", "labevents"}
    assert set(quality(cohort)["tables"]) == there
    assert quality(cohort)["features"]["urine_sum"]["coverage"] == 0


def test_a_renamed_column_is_named_and_can_be_declared(site_path: Path) -> None:
    change(site_path, CHART, lambda rows: rows.__setitem__(0, ["stay_id", "ITEM_ID", "charttime", "VALUE_NUM"]))
    with pytest.raises(DataError, match=r"got stay_id, ITEM_ID, .* Did you mean ITEM_ID\? Add "
                       r"data\.ehr\.columns\.chartevents\.itemid: ITEM_ID, or .*\[E102\]"):  # fmt: skip
        make(site_path)
    columns = ", columns: {chartevents: {itemid: ITEM_ID, valuenum: VALUE_NUM}}"
    assert value(make(site_path, columns), "heart_rate_count") == 5
    with pytest.raises(
        ConfigError, match=r"columns\.chartevents must rename columns that are read, got item_id\. Read: "
    ):
        make(site_path, ", columns: {chartevents: {item_id: ITEM_ID}}")
    with pytest.raises(ConfigError, match=r"data\.ehr\.columns\.chartevent"):
        make(site_path, ", columns: {chartevent: {itemid: ITEM_ID}}")


@pytest.mark.parametrize(
    ("table", "read_one", "unread"), [(CHART, "valuenum", "note"), ("hosp/admissions.csv", "race", "")]
)
def test_a_column_name_that_repeats_stops_only_where_it_is_read(
    site_path: Path, table: str, read_one: str, unread: str
) -> None:
    """As SELECT * over a join exports them."""
    before = make(site_path).manifest["digests"]["cohort"]

    def widen(rows: Rows) -> None:
        header, *others = rows
        header += [unread] * 3
        for row in others:
            row += ["7", "8", "9"]

    change(site_path, table, widen)
    assert make(site_path).manifest["digests"]["cohort"] == before
    change(site_path, table, lambda rows: rows[0].__setitem__(-1, read_one))
    told = f"Columns must have names of their own, got {read_one} twice from {Path(table).name}. Name each column once"
    with pytest.raises(DataError, match=rf"^{re.escape(told)} in the export\. \[E102\]$"):
        make(site_path)


def test_a_table_without_its_header_is_not_quoted(site_path: Path) -> None:
    change(site_path, "hosp/patients.csv.gz", lambda rows: rows.pop(0))
    with pytest.raises(
        DataError, match=r"header that names subject_id, got data from patients\.csv\.gz.*\[E102\]"
    ) as told:
        make(site_path)
    assert "2149" not in str(told.value)


def test_impossible_lengths_and_statics_are_unknown(site_path: Path) -> None:
    change(site_path, "hosp/admissions.csv", lambda rows: rows[1].__setitem__(3, "2149-12-01 00:00:00"))
    change(site_path, "hosp/admissions.csv", lambda rows: rows[4].__setitem__(2, "2148-01-01 00:00:00"))
    change(site_path, "icu/icustays.csv.gz", lambda rows: rows[3].__setitem__(6, "2190-01-01 00:00:00"))
    cohort = make(site_path)
    assert cohort.stays["stay_id"].tolist() == [10, 32]
    assert {"reason": "longer than 1,000 days", "num_stays": 1} in cohort.manifest["attrition"]
    assert cohort.stays["hospital_los_days"].isna().tolist() == [True, False]
    assert value(cohort, "hours_to_icu") == 24 and np.isnan(value(cohort, "hours_to_icu", 1))


def test_a_bad_time_of_a_patient_with_two_stays_is_told_once(site_path: Path) -> None:
    row = ["1", "11", "50983", "yesterday", "", "140"]
    change(site_path, "hosp/labevents.csv.gz", lambda rows: rows.extend([row] * 11))
    with pytest.raises(DataError, match=r"charttime must match .*, got 11 of 23 rows that do not \(first: line 14"):
        make(site_path)


def test_headers_of_older_and_newer_mimic(site_path: Path) -> None:
    change(site_path, "hosp/admissions.csv", lambda rows: rows[0].__setitem__(9, "ethnicity"))
    for table in (CHART, "icu/inputevents.csv.gz"):
        change(
            site_path,
            table,
            lambda rows: rows.__setitem__(
                slice(None), [["caregiver_id" if i == 0 else "", *row] for i, row in enumerate(rows)]
            ),
        )
    cohort = make(site_path)
    assert value(cohort, "race") == 1 and value(cohort, "heart_rate_count") == 5


def test_a_few_unreadable_ids_are_counted_and_many_stop(site_path: Path) -> None:
    more_charts(site_path, 2, itemid="heart rate")
    more_charts(site_path, 3, stay_id="ten")
    counts = quality(make(site_path))["tables"]["chartevents"]
    assert (counts["itemid_unreadable"], counts["id_unreadable"]) == (2, 3)
    more_charts(site_path, 10, itemid="heart rate")
    with pytest.raises(
        DataError, match=r"itemid must be a whole number, got 12 of 53 rows .*chartevents.*\[E105\]"
    ) as told:
        make(site_path)
    assert "heart rate" not in str(told.value)


def test_an_unreadable_stay_id_is_in_the_attrition(site_path: Path) -> None:
    change(site_path, "icu/icustays.csv.gz", lambda rows: rows[1].__setitem__(2, "tenth"))
    attrition = make(site_path).manifest["attrition"]
    assert attrition[1] == {"reason": "stay_id missing or unreadable", "num_stays": 1}
    assert attrition[0]["num_stays"] == 10 == sum(row["num_stays"] for row in attrition[1:])
    change(site_path, "icu/icustays.csv.gz", lambda rows: rows.extend([["", "", "?", "", "", "", "", ""]] * 10))
    with pytest.raises(DataError, match=r"stay_id must be a whole number, got 11 of 20 rows .*icustays"):
        make(site_path)


def test_text_and_nothing_where_a_number_must_be(site_path: Path) -> None:
    more_charts(site_path, 4, valuenum="ninety")
    more_charts(site_path, 3, valuenum="")
    more_charts(site_path, 20, valuenum="  ")
    more_charts(site_path, 2, valuenum="NaN")
    cohort = make(site_path)
    heart_rate = quality(cohort)["concepts"]["heart_rate"]
    assert (heart_rate["value_missing"], heart_rate["value_unreadable"]) == (1 + 25, 4)
    assert value(cohort, "heart_rate_count") == 5


def test_every_line_that_cannot_be_read_is_told_with_its_fate(
    site_path: Path, read_rejects: Callable[[Path], list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    more_charts(site_path, 2, valuenum="error")
    more_charts(site_path, 2, stay_id="ten")
    more_charts(site_path, 1, stay_id="ten", charttime="noon")  # the first fate counts
    more_charts(site_path, 1, stay_id="14", valuenum="error")  # of no stay of the cohort, so nobody looks at it
    change(site_path, LABS, lambda rows: rows.append(["1", "11", "50983", "2150-01-02 12:00:00", "", "error"]))
    change(site_path, LABS, lambda rows: rows.append(["1", "11", "50983", "noon", "", "140"]))  # of two stays
    change(site_path, "icu/icustays.csv.gz", lambda rows: rows[7].__setitem__(1, "?"))
    change(site_path, "icu/icustays.csv.gz", lambda rows: rows.extend([rows[2], ["", "", "?", "", "", "", "", ""]]))

    def told(cohort: Cohort) -> list[tuple[str, int, str]]:
        return [(row["file"].split(".")[0], int(row["row"]), row["reason"]) for row in read_rejects(cohort.path)]

    expected = [
        ("icustays", 8, "hadm_id_unreadable"),
        ("icustays", 12, "repeated"),
        ("icustays", 13, "id_unreadable"),
        ("chartevents", 11, "time_unreadable"),
        ("chartevents", 40, "value_unreadable"),
        ("chartevents", 41, "value_unreadable"),
        ("chartevents", 42, "id_unreadable"),
        ("chartevents", 43, "id_unreadable"),
        ("chartevents", 44, "time_unreadable"),
        ("labevents", 14, "value_unreadable"),
        ("labevents", 15, "time_unreadable"),
    ]
    assert told(make(site_path, settings=", on_duplicate: first")) == expected
    monkeypatch.setattr(event_pass, "MAX_LINES", 3)
    fewer = [row for row in expected if row[0] != "chartevents" or row[1] < 42]
    assert told(make(site_path, settings=", on_duplicate: first, max_bad_fraction: 0.5")) == fewer


def test_rows_of_stays_that_icustays_does_not_have(site_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more_charts(site_path, 20, stay_id="77")
    change(site_path, LABS, lambda rows: rows.extend([["9", "", "50983", "2150-01-02 12:00:00", "", "140"]] * 20))
    change(site_path, LABS, lambda rows: rows.append(["2", "21", "50983", "2150-01-01 02:00:00", "", "140"]))
    assert cli.run(["--site", str(site_path), "prepare"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    found = "20 of 57 wanted rows are of stays that the table of stays does not have"
    warning = f"warning: chartevents: {found}. Are both tables whole"
    assert warning in told and "warning: labevents" not in told
    tables = json.loads((site_path.parent / "cohort/quality.json").read_text())["tables"]
    fates = [(tables[name]["not_in_icustays"], tables[name]["not_in_cohort"]) for name in ("chartevents", "labevents")]
    assert fates == [(20, 1), (20, 1)]


def test_rows_that_are_there_again_are_counted_and_told(site_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more_charts(site_path, 100)
    assert cli.run(["--site", str(site_path), "prepare"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    found = "chartevents: 99 of 120 values repeat another of the same stay and time. Do exports overlap?"
    assert f"warning: measurements: {found} Sums and counts hold every row. [E104]" in told
    report = json.loads((site_path.parent / "cohort/quality.json").read_text())
    assert report["duplicates"]["values of chartevents"] == report["concepts"]["heart_rate"]["repeated"] == 99


def test_admissions_without_codes_are_told(site_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = {f"{900 + num}": [f"{2160 + num}-06-01 00:00:00", f"{2160 + num}-06-05 00:00:00"] for num in range(11)}
    admission = ["EW EMER.", "EMERGENCY ROOM", "Other", "", "WHITE", "0"]
    change(site_path, "hosp/admissions.csv", lambda rows: rows.extend(
        [["1", number, *times, "", *admission] for number, times in numbers.items()]
    ))  # fmt: skip
    change(site_path, "icu/icustays.csv.gz", lambda rows: rows.extend(
        [["1", number, number, "Coronary Care Unit (CCU)", "", *times, "4"] for number, times in numbers.items()]
    ))  # fmt: skip
    assert cli.run(["--site", str(site_path), "prepare"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "warning: diagnoses_icd: no code for 11 of the cohort's 14 admissions: they count as without any" in told


def test_a_column_that_is_called_line(site_path: Path, read_rejects: Callable[[Path], list[dict[str, str]]]) -> None:
    def add_it(rows: Rows) -> None:
        for place, row in enumerate(rows):
            row.append("7" if place else "line")

    change(site_path, CHART, add_it)
    change(site_path, CHART, lambda rows: rows[2].__setitem__(0, "tenth"))
    change(site_path, "icu/icustays.csv.gz", add_it)
    rejects = read_rejects(make(site_path).path)
    assert {"file": "chartevents.csv.gz", "row": "3", "reason": "id_unreadable"} in rejects


def test_few_bad_times_are_told_by_line_and_many_by_their_form(
    site_path: Path, read_rejects: Callable[[Path], list[dict[str, str]]]
) -> None:
    more_charts(site_path, 1, charttime="")
    cohort = make(site_path)
    assert quality(cohort)["tables"]["chartevents"]["time_unreadable"] == 2
    reject = {"file": "chartevents.csv.gz", "reason": "time_unreadable"}
    assert read_rejects(cohort.path) == [
        {"file": "icustays.csv.gz", "row": "8", "reason": "time_unreadable"},
        {**reject, "row": "11"},
        {**reject, "row": "40"},
    ]
    more_charts(site_path, 10, charttime="02/01/2150 12h30")
    with pytest.raises(DataError, match=r"charttime must match %Y-%m-%d %H:%M:%S, got 12 of 48 rows that do not "
                       r"\(first: line 11, form '99/99/9999'\) from icu/chartevents.*\[E103\]"):  # fmt: skip
        make(site_path)
    assert quality(make(site_path, settings=", max_bad_fraction: 0.3"))["tables"]["chartevents"]["used"] > 0


def test_a_time_format_of_the_sites_own(site_path: Path) -> None:
    for table in [*site_path.parent.glob("*/*.csv*")]:
        if table.parent.name != "ecg":
            write(
                table, [[cell.replace(" ", "T") if cell[4:5] == "-" else cell for cell in row] for row in read(table)]
            )
    cohort = make(site_path, ", datetime_format: '%Y-%m-%dT%H:%M:%S'")
    assert value(cohort, "heart_rate_count") == 5 and value(cohort, "vasopressor_hours") == 4
    with pytest.raises(DataError, match=r"first: line 2, form '9999-99-99a99:99:99'"):
        more_charts(site_path, 12, charttime="2150-01-02T12:00:00")
        change(site_path, "icu/icustays.csv.gz", lambda rows: [
            row.__setitem__(slice(5, 7), [cell.replace("T", " ") for cell in row[5:7]]) for row in rows[1:]
        ])  # fmt: skip
        change(site_path, "hosp/admissions.csv", lambda rows: [
            row.__setitem__(slice(2, 5), [cell.replace("T", " ") for cell in row[2:5]]) for row in rows[1:]
        ])  # fmt: skip
        make(site_path)


def test_repeated_keys_stop_unless_the_first_is_to_be_kept(site_path: Path) -> None:
    change(site_path, "icu/icustays.csv.gz", lambda rows: rows.extend([rows[2]] * 2))
    with pytest.raises(DataError, match=r"stay_id must be there once, got 2 repetitions \(lines 12, 13\) from "
                       r"icustays\.csv\.gz\. .* prepare\.on_duplicate: first\. \[E104\]"):  # fmt: skip
        make(site_path)
    cohort = make(site_path, settings=", on_duplicate: first")
    assert cohort.stays["stay_id"].tolist() == [10, 13, 32]
    assert quality(cohort)["duplicates"]["stay_id of icustays"] == 2
    assert {"reason": "stay_id repeated", "num_stays": 2} in cohort.manifest["attrition"]


def test_swapped_units_stop_and_can_be_declared(site_path: Path) -> None:
    more_charts(site_path, 30, itemid="223761", valuenum="36.8")
    with pytest.raises(DataError, match=r"itemid 223761 must be in degF, got a median of 3[67].*, which looks like "
                       r"degC, from icu/chartevents.* Set data\.ehr\.units: \{223761: degC\}.*\[E205\]"):  # fmt: skip
        make(site_path)
    cohort = make(site_path, ", units: {223761: degC}")
    assert value(cohort, "temperature_min") == pytest.approx(36.8) and value(cohort, "temperature_count") == 31
    with pytest.raises(ConfigError, match=r"data\.ehr\.units\.223761 must be one of degC, degF, got 'K'"):
        make(site_path, ", units: {223761: K}")
    with pytest.raises(ConfigError, match=r"data\.ehr\.units\.7 must be left out: no feature reads this item id"):
        make(site_path, ", units: {7: degC}")


def test_a_laboratory_in_other_units(site_path: Path) -> None:
    rows = [["1", "11", "50912", "2150-01-02 12:00:00", "2150-01-02 13:00:00", "88.42"]] * 30
    change(site_path, "hosp/labevents.csv.gz", lambda table: table.extend(rows))
    with pytest.raises(
        DataError, match=r"itemid 50912 must be in mg/dL, got a median of 88\.\d, which looks like umol/L"
    ):
        make(site_path)
    assert value(make(site_path, ", units: {50912: umol/L}"), "creatinine_max") == pytest.approx(1)


def test_a_clock_in_the_future_and_one_in_the_past(site_path: Path) -> None:
    before = quality(make(site_path))["tables"]["chartevents"]["outside_first_day"]
    more_charts(site_path, 2, charttime="9999-12-31 23:59:59")
    more_charts(site_path, 3, charttime="0001-01-01 00:00:00")
    cohort = make(site_path)
    assert quality(cohort)["tables"]["chartevents"]["outside_first_day"] == before + 5
    assert value(cohort, "heart_rate_count") == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"The table must have a header, got an empty file from chartevents\.csv\..*\[E106\]"),
        (
            b"stay_id,itemid,charttime,valuenum\n",
            r"The table must have rows, got none from icu/chartevents\.csv.*\[E106\]",
        ),
        (b"stay_id,itemid,charttime,valuenum\n10,220045,2150-01-02 03:00:00,7,5\n", "more fields than the header"),
        (b'stay_id,itemid,charttime,valuenum\n10,220045,"2150-01-02 03:00:00,75\n', "quote without an end"),
        (
            "stay_id,itemid,charttime,valuenum\n".encode("utf-16"),
            r"The table must be in UTF-8, got another encoding from chartevents\.csv\. Export it in UTF-8\.",
        ),
        (b"\x1f\x8b\x08garbage", r"first line must be a header that names stay_id, got data from chartevents\.csv\."),
    ],
)
def test_an_empty_or_ragged_table(site_path: Path, content: bytes, message: str) -> None:
    (site_path.parent / CHART).unlink()
    (site_path.parent / "icu/chartevents.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        make(site_path)


@pytest.mark.parametrize("end", [-20, 40, 5])
def test_a_gz_cut_short(site_path: Path, end: int) -> None:
    path = site_path.parent / CHART
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(DataError, match=r"chartevents\.csv\.gz\. Export it again"):
        make(site_path)


def test_crlf_damaged_utf8_and_blank_lines(site_path: Path) -> None:
    path = site_path.parent / CHART
    lines = gzip.decompress(path.read_bytes()).replace(b"\n", b"\r\n")
    bad = b"10,220045,2150-01-02 \xff\xfe:00:00,75\r\n10,220045,2150-01-02 05:00:00,7\xff\r\n\r\n"
    path.write_bytes(gzip.compress(lines + bad))
    cohort = make(site_path)
    assert value(cohort, "heart_rate_count") == 5 and value(cohort, "gcs_total_min") == 12
    counts = quality(cohort)["tables"]["chartevents"]
    assert (counts["time_unreadable"], counts["value_unreadable"], counts["itemid_unreadable"]) == (2, 1, 1)


def test_parquet_holds_the_same(site_path: Path) -> None:
    expected = make(site_path)
    for table in ("icu/chartevents", "hosp/labevents", "icu/icustays", "icu/inputevents"):
        path = site_path.parent / f"{table}.csv.gz"
        frame = pl.read_csv(path, try_parse_dates=True, infer_schema_length=None)
        times = [
            name for name in ("charttime", "storetime", "starttime", "endtime", "intime", "outtime") if name in frame
        ]
        frame = frame.with_columns(pl.col(times).cast(pl.String).str.to_datetime(strict=False))
        frame.with_columns(pl.col(pl.Int64).cast(pl.Int32)).write_parquet(path.with_name(f"{path.name[:-7]}.parquet"))
        path.unlink()
    cohort = make(site_path)
    np.testing.assert_array_equal(cohort.features, expected.features)
    np.testing.assert_array_equal(cohort.grid, expected.grid)
    (site_path.parent / "icu/chartevents.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(
        DataError, match=r"must be a whole csv, csv\.gz or parquet file, got .* from chartevents\.parquet"
    ):
        make(site_path)


def test_a_path_with_spaces_and_a_link_to_a_table(site_path: Path) -> None:
    moved = site_path.parent / "MIMIC IV (2026)"
    moved.mkdir()
    for folder in ("icu", "hosp"):
        shutil.move(site_path.parent / folder, moved / folder)
    (moved / CHART).rename(site_path.parent / "elsewhere.csv.gz")
    (moved / CHART).symlink_to(site_path.parent / "elsewhere.csv.gz")
    site_path.write_text("version: 1\nsite: {name: small}\ndata: {ehr: {root: MIMIC IV (2026)}}\n")
    assert value(prepare(load_site(site_path), MIMIC_IV, PlanSections(), Console(quiet=True)), "heart_rate_count") == 5


def test_an_unreadable_file_is_a_data_error(site_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site_path.write_text("version: 1\nsite: {name: small}\ndata: {ehr: {root: ., tables: {patients: icu}}}\n")
    assert cli.run(["--site", str(site_path), "prepare"]) == 4
    assert "hosp/patients must be a table" in capsys.readouterr().err


def test_a_disk_that_is_full_keeps_what_is_finished(site_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        status = cli.run(["--site", str(site_path), "prepare"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 6
    told = capsys.readouterr().err
    assert "got File too large" in told and "then run the same command" in told
    assert (site_path.parent / "cohort.partial/.state/chartevents.json").is_file()
    assert cli.run(["--site", str(site_path), "prepare"]) == 0
    assert "[2/4] chartevents                                                    done before" in capsys.readouterr().err
