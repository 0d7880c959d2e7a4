"""A split keeps every row of a known patient as it stands, says what it leaves out, and leaves nothing half-written."""

import gzip
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from client.layouts.mimic_iv.tables import FOLDERS
from lemof_model.errors import DataError
from simulation import shares
from simulation import split as split_module
from simulation.split import read_patients, split
from tests.client.prepare.test_broken_tables import Rows, read, write
from tests.client.prepare.test_ids import PSEUDONYMS, WRITINGS, Writing

HEADERS = {
    "patients": "subject_id,gender,anchor_age,anchor_year,anchor_year_group",
    "admissions": "subject_id,hadm_id,admittime",
    "icustays": "subject_id,hadm_id,stay_id,first_careunit,intime,outtime",
    "diagnoses_icd": "subject_id,hadm_id,icd_code,icd_version",
    "labevents": "subject_id,hadm_id,itemid,valuenum,comments",
    "chartevents": "subject_id,hadm_id,stay_id,itemid,valuenum",
}
IDS = ("subject_id", "hadm_id", "stay_id")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twelve patients with an admission, a stay and two rows in each table of events; and one without a stay."""
    cells = {"gender": "F", "anchor_age": "50", "anchor_year": "2150", "anchor_year_group": "2008 - 2010",
             "admittime": "2150-01-01 00:00:00", "first_careunit": "MICU", "intime": "2150-01-02 00:00:00",
             "outtime": "2150-01-06 00:00:00", "icd_code": "0389", "icd_version": "9", "itemid": "50912",
             "valuenum": "1.50", "comments": "fine"}  # fmt: skip
    for table, header in HEADERS.items():
        names = header.split(",")
        rows = [names]
        for patient in range(1, 13):
            ids = {"subject_id": f"{patient}", "hadm_id": f"{100 + patient}", "stay_id": f"{200 + patient}"}
            rows += [[(cells | ids)[name] for name in names]] * (2 if table.endswith("events") else 1)
        if table == "patients":
            rows.append(["99", "M", "60", "2150", "2008 - 2010"])
        path = tmp_path / "mimic" / FOLDERS[table] / f"{table}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, rows)
    (tmp_path / "mimic/ecg").mkdir()
    listed = [["subject_id", "study_id", "file_name", "ecg_time", "path"]]
    write(tmp_path / "mimic/ecg/record_list.csv", [*listed, *([f"{n}", f"{n}", "", "", f"p{n}"] for n in range(1, 15))])
    return tmp_path / "mimic"


def do_split(source: Path, name: str = "out") -> Path:
    out = source.parent / name
    split(source, source / "ecg", out, num_sites=2, by="random")
    return out


def rows_of(out: Path, table: str) -> Rows:
    """The rows of all hospitals, headers aside."""
    return [row for path in sorted(out.glob(f"*/*/{table}.csv*")) for row in read(path)[1:]]


def rewrite(source: Path, table: str, edit: Callable[[Rows], object]) -> None:
    (path,) = source.glob(f"*/{table}.csv*")
    rows = read(path)
    edit(rows)
    write(path, rows)


def in_another_way(writing: Writing, names: tuple[str, ...] = IDS) -> Callable[[Rows], None]:
    def edit(rows: Rows) -> None:
        for number, row in enumerate(rows[1:]):
            for place, name in enumerate(rows[0]):
                if name in names:
                    row[place] = writing(row[place], number)

    return edit


@pytest.fixture
def warned() -> Iterator[list[str]]:
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("lemof").addHandler(handler)
    yield told
    logging.getLogger("lemof").removeHandler(handler)


@pytest.mark.parametrize("writing", WRITINGS)
def test_ids_in_other_ways_lose_no_row(source: Path, writing: str) -> None:
    expected = do_split(source, "expected")
    for number, table in enumerate(
        ["labevents", "chartevents", "diagnoses_icd", "record_list", "icustays", "patients"]
    ):
        if number % 2 == (writing != "zero-padded"):
            rewrite(source, table, in_another_way(WRITINGS[writing]))
    out = do_split(source)
    for table in (*HEADERS, "record_list"):
        for site in ("site_01", "site_02"):
            (path,), (old,) = (list((folder / site).glob(f"*/{table}.csv*")) for folder in (out, expected))
            meant = [[cell.strip().removeprefix("+").lstrip("0").split(".0")[0] for cell in row] for row in read(path)]
            assert meant == [[cell.lstrip("0").split(".0")[0] for cell in row] for row in read(old)], (table, site)
    sites = [json.loads((folder / "split.json").read_text())["sites"] for folder in (out, expected)]
    assert sites[0] == sites[1]


def test_what_is_written_is_what_stood_there(source: Path) -> None:
    rewrite(source, "labevents", in_another_way(lambda text, row: f" 00{text}.0 " if row % 3 else text))
    out = do_split(source)
    assert sorted(rows_of(out, "labevents")) == sorted(read(source / "hosp/labevents.csv.gz")[1:])


@pytest.mark.parametrize("writing", PSEUDONYMS)
def test_texts_are_shared_out_by_their_text(source: Path, writing: str, warned: list[str]) -> None:
    for table in (*HEADERS, "record_list"):
        rewrite(source, table, in_another_way(PSEUDONYMS[writing]))
    out = do_split(source)
    for table in HEADERS:
        (path,) = source.glob(f"*/{table}.csv*")
        assert sorted(rows_of(out, table)) == sorted(read(path)[1:])
    (told,) = warned
    assert told == (
        "record_list.csv: 2 of 14 rows are of patients that neither patients nor icustays has: they are in no hospital."
    )


def test_rows_of_nobody_are_told(source: Path, warned: list[str]) -> None:
    rewrite(source, "labevents", lambda rows: rows.extend([["77", "", "50912", "1", ""], ["", "", "50912", "1", ""]]))
    out = do_split(source)
    assert len(rows_of(out, "labevents")) == 24
    assert "hosp/labevents.csv.gz: 2 of 26 rows are of patients that neither patients nor icustays has" in warned[0]


@pytest.mark.parametrize("subject", ["", "unknown", "1.00E+00"])
def test_a_row_without_its_patient_whose_stay_is_known_is_not_lost(source: Path, subject: str) -> None:
    rewrite(source, "chartevents", lambda rows: rows[3].__setitem__(0, subject))
    message = (
        r"^subject_id must be that of the patient .*, got 1 rows with none, or another, whose stay_id belongs .*E105\]$"
    )
    with pytest.raises(DataError, match=message):
        do_split(source)
    assert list((source.parent / "out").iterdir()) == []


@pytest.mark.parametrize("table", ["patients", "icustays", "admissions"])
def test_numbers_that_a_spreadsheet_has_rounded_are_nobodys(source: Path, table: str) -> None:
    rewrite(source, table, in_another_way(lambda text, row: "1.00E+07" if row < 9 else text, ("subject_id",)))
    message = (
        r"^subject_id must be a whole number or text, got 9 of 1[23] rows in which a number was rounded .*\[E105\]$"
    )
    with pytest.raises(DataError, match=message):
        do_split(source)
    assert list((source.parent / "out").iterdir()) == []


def test_patients_who_are_in_icustays_alone(source: Path) -> None:
    rewrite(source, "patients", lambda rows: rows.__delitem__(slice(3, 6)))
    assert len(rows_of(do_split(source), "icustays")) == 12


def test_numbers_are_placed_as_numbers(source: Path) -> None:
    assert read_patients(source)["subject_id"].to_list() == [*range(1, 13), 99]
    rewrite(source, "patients", lambda rows: rows.append(["x1", "F", "50", "2150", ""]))
    assert read_patients(source)["subject_id"].dtype == pl.String


@pytest.mark.parametrize("table", ["labevents", "patients", "icustays", "record_list"])
def test_bytes_of_another_encoding_are_kept(source: Path, table: str, warned: list[str]) -> None:
    (path,) = source.glob(f"*/{table}.csv*")
    is_gz = path.suffix == ".gz"
    content = gzip.decompress(path.read_bytes()) if is_gz else path.read_bytes()
    lines = content.splitlines(keepends=True)
    marked = b"\xe9\xff\x80,caf\xe9\n"
    lines = [line.rstrip(b"\n") + b"," + (b"note,more\n" if n == 0 else marked) for n, line in enumerate(lines)]
    path.write_bytes(gzip.compress(b"".join(lines)) if is_gz else b"".join(lines))
    out = do_split(source)
    written = [
        gzip.decompress(file.read_bytes()) if is_gz else file.read_bytes() for file in out.glob(f"*/*/{table}.csv*")
    ]
    rows = [line for content in written for line in content.splitlines(keepends=True)[1:]]
    known = lines[1:-2] if table == "record_list" else lines[1:]
    assert sorted(rows) == sorted(known)
    assert any("is not in UTF-8: its bytes are kept as they are." in line for line in warned)
    assert not list(out.rglob("*.partial")) and len(list(out.iterdir())) == 3


@pytest.mark.parametrize("what", ["a table cut short", "a full disk", "a lost row", "Ctrl-C"])
def test_nothing_is_half_written(source: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = source.parent / "out"
    kind: type[BaseException] = DataError
    if what == "a table cut short":
        path = source / "icu/chartevents.csv.gz"
        path.write_bytes(path.read_bytes()[:-20])
    elif what == "a lost row":
        monkeypatch.setattr(shares, "_num_rows", lambda _: 5)
    else:
        kind = KeyboardInterrupt if what == "Ctrl-C" else OSError

        def stop(*_: object, **__: object) -> None:
            raise kind

        monkeypatch.setattr(split_module, "write_site_file", stop)
    with pytest.raises(kind):
        do_split(source)
    assert list(out.iterdir()) == []
    monkeypatch.undo()
    if what != "a table cut short":
        do_split(source)  # the same command goes through


def test_the_rest_of_a_split_that_was_killed_is_in_no_ones_way(source: Path) -> None:
    (source.parent / "out/.partial/site_01").mkdir(parents=True)
    assert sorted(path.name for path in do_split(source).iterdir()) == ["site_01", "site_02", "split.json"]


def test_times_in_another_form_are_refused(source: Path) -> None:
    rewrite(source, "icustays", lambda rows: [row.__setitem__(4, "02.01.2150 00:00") for row in rows[1:]])
    message = (
        r"^intime must match .*, got 12 of 12 rows that do not \(first: form '99\.99\.9999 99:99'\) from .*\[E103\]$"
    )
    with pytest.raises(DataError, match=message):
        do_split(source)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            "subject",
            r"^Columns must include subject_id, got subject, hadm_id, .* Export the column under its name\. \[E102\]$",
        ),
        (
            "hadm_id",
            r"^Columns must have names of their own, got hadm_id twice from chartevents\.csv\.gz\. Name each .*",
        ),
    ],
)
def test_the_words_are_those_of_prepare(source: Path, column: str, message: str) -> None:
    rewrite(source, "chartevents", lambda rows: rows[0].__setitem__(0 if column == "subject" else 3, column))
    with pytest.raises(DataError, match=message):
        do_split(source)


def test_a_source_without_year_groups_can_be_split_otherwise(source: Path) -> None:
    rewrite(source, "patients", lambda rows: [row.pop() for row in rows])
    assert len(rows_of(do_split(source), "patients")) == 13


def test_parquet_and_csv_are_shared_out_alike(source: Path) -> None:
    expected = do_split(source, "expected")
    for table, folder in FOLDERS.items():
        path = source / folder / f"{table}.csv.gz"
        if path.is_file():
            frame = pl.read_csv(path, schema_overrides={"icd_code": pl.String})
            ids = [name for name in IDS if name in frame.columns]
            frame.with_columns(pl.col(ids).cast(pl.Float64)).write_parquet(path.with_name(f"{table}.parquet"))
            path.unlink()
    out = do_split(source)
    for site in ("site_01", "site_02"):
        for table in HEADERS:
            found = pl.read_parquet(out / site / FOLDERS[table] / f"{table}.parquet")["subject_id"].cast(pl.Int64)
            expected_rows = read(expected / site / FOLDERS[table] / f"{table}.csv.gz")[1:]
            assert found.to_list() == [int(row[0]) for row in expected_rows]
    shutil.rmtree(out)
