"""Tables that look whole and are not: stray quotes, other types of parquet, columns and files under two names.

Each must be refused, or give what the csv tables give; none may lose rows or move times in silence.
"""

import gzip
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from client import cli
from lemof_model.errors import DataError
from readers.tables.files import TIME, Columns, collect
from readers.tables.source import Source
from tests.client.prepare.test_broken_tables import CHART, change, make, more_charts, quality, read, value, write

LABS = "hosp/labevents.csv.gz"
NUM_ROWS = 12_000
TIMES = {"charttime", "storetime", "starttime", "endtime", "intime", "outtime"}
Comment = Callable[[int], str]
STRAY: dict[str, Comment] = {
    "one": lambda row: '5" tube' if row == 3000 else "",
    "two": lambda row: '5" tube' if row in (3000, 3010) else "",
    "two far apart": lambda row: '5" tube' if row in (3000, 8800) else "",
    "many": lambda row: '5" tube' if row % 2 else "",
    "two that begin a text": lambda row: '"tube' if row in (3000, 3010) else "",
}
WHOLE: dict[str, Comment] = {
    "doubled": lambda row: '"a 5"" tube"' if row % 3 else "",
    "on two lines": lambda row: '"see\nbelow, ""ok"""' if row % 3 else "",
    "blank lines in a text": lambda row: '"see\n\n\nbelow"' if row == 3000 else "",
}


def columns_of(path: Path, columns: Columns) -> pl.DataFrame:
    """Some columns of a file."""
    source = Source(path.stem, path)
    raw = source.raw(columns)
    return collect(raw.select(source.typed(raw, columns)), path)


def with_comments(site_path: Path, comment: Comment) -> None:
    """Labevents of 12,000 more rows of an item that nobody reads, and a last column of free text."""
    rows = read(site_path.parent / LABS)
    rows = [[*row, "comments" if place == 0 else ""] for place, row in enumerate(rows)]
    other = ["1", "11", "1", "2150-01-02 12:00:00", "2150-01-02 13:00:00", "1"]
    write(site_path.parent / LABS, [*rows, *([*other, comment(row)] for row in range(NUM_ROWS))])


def check(site_path: Path, *options: str) -> tuple[int, set[str], str]:
    """The exit status of ``check``, the codes of what failed, and all that was found."""
    status = cli.run(["--site", str(site_path), "check", "--no-server", *options])
    findings = json.loads((site_path.parent / "check.json").read_text())["findings"]
    failed = {finding["code"] for finding in findings if finding["result"] == "fail"}
    return status, failed, "\n".join(finding["found"] for finding in findings)


def to_parquet(site_path: Path, table: str, *columns: pl.Expr) -> None:
    """Store a table as parquet: times as times and ids as integers, but for ``columns``."""
    path = site_path.parent / f"{table}.csv.gz"
    frame = pl.read_csv(path, infer_schema_length=None)
    times = [name for name in frame.columns if name in TIMES]
    frame = frame.with_columns(pl.col(times).cast(pl.String).str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False))
    frame.with_columns(*columns).write_parquet(path.with_name(f"{path.name[:-7]}.parquet"))
    path.unlink()


@pytest.mark.parametrize("comment", STRAY.values(), ids=STRAY)
def test_a_stray_quote_in_a_column_that_nobody_reads(site_path: Path, comment: Comment) -> None:
    with_comments(site_path, comment)
    for _ in range(2):  # a warning that was told once is heard again
        with pytest.raises(DataError, match=r"must .*quote.* from labevents\.csv\.gz\. Export it again.*\[E110\]"):
            make(site_path)
    assert check(site_path, "--deep")[:2] == (4, {"E110"})


def test_a_stray_quote_is_heard_whatever_is_done_with_warnings(tmp_path: Path) -> None:
    path = tmp_path / "patients.csv"
    path.write_text("subject_id,note\n" + "".join(f"{row},{STRAY['many'](row)}\n" for row in range(100)))
    for action in ("ignore", "error", "once"):
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            with pytest.raises(DataError, match="lines that a stray quote runs together"):
                columns_of(path, {"subject_id": pl.Int64})


@pytest.mark.parametrize("comment", WHOLE.values(), ids=WHOLE)
def test_quotes_and_lines_in_a_quoted_text(site_path: Path, comment: Comment) -> None:
    expected = make(site_path)
    num_rows = quality(expected)["tables"]["labevents"]["rows"]
    with_comments(site_path, comment)
    cohort = make(site_path)
    np.testing.assert_array_equal(cohort.features, expected.features)
    assert quality(cohort)["tables"]["labevents"]["rows"] == num_rows + NUM_ROWS
    assert check(site_path, "--deep")[0] == 0


def test_a_column_of_text_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "patients.csv.gz"
    rows = (f"{row},{STRAY['two'](row)},{row}\n" for row in range(5000))
    path.write_bytes(gzip.compress(("subject_id,note,age\n" + "".join(rows)).encode()))
    with pytest.raises(DataError, match="lines that a stray quote runs together"):
        columns_of(path, {"subject_id": pl.Int64})


@pytest.mark.parametrize(
    ("column", "ehr", "message"),
    [
        ("STORETIME", "", r"Did you mean STORETIME\? Add data\.ehr\.columns\.labevents\.storetime: STORETIME"),
        ("storetime", ", columns: {labevents: {storetime: STORD}}", "must include STORD, got subject_id, .*storetime"),
    ],
)
def test_an_optional_column_by_another_name(site_path: Path, column: str, ehr: str, message: str) -> None:
    change(site_path, LABS, lambda rows: rows[0].__setitem__(4, column))
    with pytest.raises(DataError, match=rf"{message}.*\[E102\]"):
        make(site_path, ehr)
    site_path.write_text(site_path.read_text().replace("root: .}", f"root: .{ehr}}}"))
    assert check(site_path)[:2] == (4, {"E102"})


def test_a_table_may_lack_its_optional_column(site_path: Path) -> None:
    change(site_path, LABS, lambda rows: [row.pop(4) for row in rows])
    assert "no storetime: results reported after" in check(site_path)[2]
    cohort = make(site_path)
    assert value(cohort, "sodium_count") == 4 and quality(cohort)["columns_absent"] == {"labevents": ["storetime"]}
    status, failed, found = check(site_path)
    assert (status, failed) == (0, set()) and found.count("no storetime:") == 1


def test_a_storetime_that_cannot_be_read_is_a_bad_time(site_path: Path) -> None:
    change(site_path, LABS, lambda rows: rows[3].__setitem__(4, "2150-01-03T00:30:01"))  # after the prediction
    cohort = make(site_path)
    assert value(cohort, "sodium_max") == 141
    counts = quality(cohort)["tables"]["labevents"]
    assert (counts["time_unreadable"], counts["stored_late"]) == (2, 0)  # the patient has two stays
    with gzip.open(cohort.path / "rejects.csv.gz", "rt") as file:
        assert "labevents.csv.gz,4,time_unreadable" in file.read()
    status, failed, found = check(site_path)
    assert (status, failed) == (0, set()) and "1 of 12 'storetime' values do not match" in found

    row = ["1", "11", "50983", "2150-01-02 12:00:00", "2150-01-02T12:30:00", "140"]
    change(site_path, LABS, lambda rows: rows.extend([row] * 11))
    with pytest.raises(DataError, match=r"^storetime must match %Y-%m-%d %H:%M:%S, got 12 of 23 rows that do not "
                       r"\(first: line 4, form '9999-99-99a99:99:99'\) from hosp/labevents.*\[E103\]"):  # fmt: skip
        make(site_path)
    assert check(site_path)[:2] == (4, {"E103"})


@pytest.mark.parametrize(
    ("table", "column", "stored", "told"),
    [
        ("icu/icustays", "intime", pl.col("intime").dt.replace_time_zone("UTC"), "Datetime.*UTC"),
        ("icu/chartevents", "charttime", pl.col("charttime").dt.replace_time_zone("Europe/Vienna"), "Datetime.*Vienna"),
        ("hosp/labevents", "storetime", pl.col("storetime").dt.replace_time_zone("UTC"), "Datetime.*UTC"),
        ("icu/icustays", "intime", pl.col("intime").dt.date(), "Date"),
        ("icu/icustays", "outtime", pl.col("outtime").dt.epoch("s"), "Int64"),
    ],
)
def test_times_of_a_parquet_type_that_would_be_guessed_at(
    site_path: Path, table: str, column: str, stored: pl.Expr, told: str
) -> None:
    to_parquet(site_path, table, stored)
    with pytest.raises(DataError, match=rf"{column} must be local times or text, got {told}.* from {table}.*\[E103\]"):
        make(site_path)
    assert check(site_path)[:2] == (4, {"E103"})


@pytest.mark.parametrize(
    "columns",
    [
        (pl.col("stay_id", "itemid").cast(pl.Float64),),
        (pl.col("stay_id", "itemid").cast(pl.String),),
        (pl.col("stay_id", "itemid").cast(pl.String).cast(pl.Categorical),),
        (pl.col("stay_id", "itemid").cast(pl.Decimal(12, 0)),),
        (pl.col("charttime").dt.to_string("%Y-%m-%d %H:%M:%S").cast(pl.Categorical),),
        (pl.col("charttime").cast(pl.Datetime("ns")), pl.col("itemid").cast(pl.UInt32)),
        (pl.col("valuenum").cast(pl.String),),
    ],
    ids=["floats", "texts", "categories", "decimals", "times as categories", "nanoseconds", "values as text"],
)
def test_other_types_of_parquet_hold_the_same(site_path: Path, columns: tuple[pl.Expr, ...]) -> None:
    expected = make(site_path)
    to_parquet(site_path, "icu/chartevents", *columns)
    cohort = make(site_path)
    np.testing.assert_array_equal(cohort.features, expected.features)
    np.testing.assert_array_equal(cohort.grid, expected.grid)
    assert check(site_path, "--deep")[0] == 0


def test_a_flag_of_parquet_may_be_true_or_false(site_path: Path) -> None:
    expected = make(site_path).stays["died_in_hospital"].tolist()
    path = site_path.parent / "hosp/admissions.csv"
    is_dead = pl.col("hospital_expire_flag") == 1
    pl.read_csv(path).with_columns(is_dead, deathtime=pl.lit("")).write_parquet(path.with_suffix(".parquet"))
    path.unlink()
    assert make(site_path).stays["died_in_hospital"].tolist() == expected == [False, False, True]


def test_an_id_that_is_no_whole_number_is_not_rounded(site_path: Path) -> None:
    not_whole = pl.when(pl.int_range(pl.len()) < 3).then(pl.lit(220045.5)).otherwise(pl.col("itemid"))
    to_parquet(site_path, "icu/chartevents", not_whole.alias("itemid"))
    assert quality(make(site_path))["tables"]["chartevents"]["itemid_unreadable"] == 3
    assert "3 of 38 'itemid' values are no integers (first: line 1, form '999999.9')" in check(site_path)[2]


def test_numbers_with_a_decimal_comma_are_not_missing(site_path: Path) -> None:
    more_charts(site_path, 11, valuenum='"72,5"')
    with pytest.raises(DataError, match=r"valuenum must be a number, got 11 of 44 rows in which it is not \(first: "
                       r"line 40, form '99,9'\) from icu/chartevents\.csv\.gz\. Mend .*\[E105\]"):  # fmt: skip
        make(site_path)
    counts = quality(make(site_path, settings=", max_bad_fraction: 0.5"))["tables"]["chartevents"]
    assert (counts["value_unreadable"], counts["value_missing"], counts["used"]) == (11, 2, 20)


@pytest.mark.parametrize("table", ["icu/chartevents", "icu/inputevents"])
def test_two_files_of_one_table(site_path: Path, table: str) -> None:
    rows = read(site_path.parent / f"{table}.csv.gz")
    write(site_path.parent / f"{table}.csv", rows[:2])
    name = table.split("/")[1]
    with pytest.raises(DataError, match=rf"{table} must be one table, got {table}\.csv and {table}\.csv\.gz\. Remove "
                       rf"all but one, or set data\.ehr\.tables\.{name}\. \[E101\]"):  # fmt: skip
        make(site_path)
    assert check(site_path)[:2] == (4, {"E101"})
    assert value(make(site_path, f", tables: {{{name}: {table}.csv.gz}}"), "heart_rate_count") == 5


@pytest.mark.parametrize(("mark", "told"), [(";", ";"), ("\t", "tabs"), ("|", r"\|")])
def test_columns_with_another_separator(site_path: Path, mark: str, told: str) -> None:
    path = site_path.parent / CHART
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b",", mark.encode())))
    with pytest.raises(DataError, match=rf"got a table separated by {told} from chartevents\.csv\.gz\. .*\[E102\]"):
        make(site_path)


def test_a_column_of_times_that_is_empty_throughout(site_path: Path) -> None:
    to_parquet(site_path, "hosp/labevents", pl.lit(None).alias("storetime"))
    assert value(make(site_path), "sodium_count") == 4


def test_a_damaged_parquet_file_has_no_quotes(tmp_path: Path) -> None:
    path = tmp_path / "record_list.parquet"
    pl.DataFrame(
        {"ecg_time": ["2150-01-02 00:00:00"] * 5000, "path": [f"p{row}" for row in range(5000)]}
    ).write_parquet(path)
    content = bytearray(path.read_bytes())
    content[8:200] = bytes(192)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"got one that is cut short or unreadable from record_list\.parquet.*\[E110\]"):
        columns_of(path, {"ecg_time": TIME, "path": pl.String})
