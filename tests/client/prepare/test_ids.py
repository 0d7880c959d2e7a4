"""Ids that tables write in different ways: numbers are numbers, texts are texts, and no row of a stay is lost."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from client import cli
from client.cohort.hospital import open_hospital
from client.cohort.store import Cohort, load_cohort
from client.prepare import event_pass
from client.site import load_site
from lemof_model.errors import DataError
from lemof_model.splits import patient_hash_of
from lemof_model.study import Study
from readers.tables.ids import as_number, as_text, text_ids
from simulation.run import warn_of_shared_patients
from tests.client.prepare.test_broken_tables import CHART, change, make, more_charts, quality, read, write
from tests.client.prepare.test_counted import with_ecgs

Writing = Callable[[str, int], str]
IDS = ("subject_id", "hadm_id", "stay_id", "itemid", "study_id")
WRITINGS: dict[str, Writing] = {
    "zero-padded": lambda text, _: text.zfill(12),
    "half of them zero-padded": lambda text, row: text.zfill(12) if row % 2 else text,
    "floats of pandas": lambda text, _: f"{text}.0" if text else "",
    "floats with two places": lambda text, _: f"{text}.00" if text else "",
    "blanks before and behind": lambda text, _: f" {text}  ",
    "tabs": lambda text, _: f"\t{text}\t",
    "a plus": lambda text, _: f"+{text}" if text else "",
    "all of it": lambda text, row: f" 000{text}.0 " if text and row % 3 else text,
}
TABLES = ("hosp/patients.csv.gz", "hosp/admissions.csv", "hosp/diagnoses_icd.csv.gz", "icu/icustays.csv.gz", CHART,
          "hosp/labevents.csv.gz", "icu/outputevents.csv.gz", "icu/inputevents.csv.gz", "icu/procedureevents.csv.gz",
          "ecg/record_list.csv")  # fmt: skip


def rewrite(site_path: Path, table: str, writing: Writing, names: tuple[str, ...] = IDS) -> None:
    """Write the ids of a table in another way."""
    rows = read(site_path.parent / table)
    places = [place for place, name in enumerate(rows[0]) if name in names]
    for number, row in enumerate(rows[1:]):
        for place in places:
            row[place] = writing(row[place], number) if row[place] else ""
    write(site_path.parent / table, rows)


def same(cohort: Cohort, expected: Cohort) -> None:
    """Every array, label and id but those that are text now."""
    for name in ("features", "grid", "ecg", "ecg_index"):
        np.testing.assert_array_equal(getattr(cohort, name), getattr(expected, name))
    ids = ["subject_id", "hadm_id", "stay_id", "patient_hash"]
    assert cohort.stays.drop(columns=ids).equals(expected.stays.drop(columns=ids))
    assert cohort.manifest["attrition"] == expected.manifest["attrition"]


@pytest.mark.parametrize(
    ("writing", "which"),
    [*((name, "events") for name in WRITINGS), *((name, "stays") for name in ("zero-padded", "all of it"))],
)
def test_numbers_that_are_written_in_other_ways(site_path: Path, writing: str, which: str) -> None:
    """In the tables of events alone, and in those of stays alone."""
    expected = make(site_path)
    for table in TABLES:
        if ("events" in table) == (which == "events"):
            rewrite(site_path, table, WRITINGS[writing])
    cohort = make(site_path)
    same(cohort, expected)
    assert cohort.stays.equals(expected.stays) and cohort.stays["subject_id"].dtype == np.int64
    tables = quality(cohort)["tables"]
    assert not any(counts.get(fate) for counts in tables.values() for fate in ("id_unreadable", "itemid_unreadable"))
    assert tables["chartevents"] == quality(expected)["tables"]["chartevents"]
    assert found_by_check(site_path) == []


def found_by_check(site_path: Path) -> list[str]:
    """What ``check`` finds of numbers that cannot be read."""
    cli.run(["--site", str(site_path), "check", "--no-server", "--deep"])
    findings = json.loads((site_path.parent / "check.json").read_text())["findings"]
    return [line["found"] for line in findings if line["code"] == "E105"]


@pytest.mark.parametrize("writing", ["all of it", "letters"])
def test_the_record_list_has_ids_too(site_path: Path, writing: str) -> None:
    with_ecgs(site_path)
    expected = load_cohort(load_site(site_path).prepare.output)
    for table in TABLES if writing == "letters" else TABLES[-1:]:
        rewrite(site_path, table, {**WRITINGS, **PSEUDONYMS}[writing], ("subject_id", "hadm_id", "stay_id", "study_id"))
    with_ecgs(site_path)
    cohort = load_cohort(load_site(site_path).prepare.output)
    same(cohort, expected)
    counts = quality(cohort)["ecg"]
    assert counts["records_linked"] == quality(expected)["ecg"]["records_linked"] > 0


PSEUDONYMS: dict[str, Writing] = {
    "letters": lambda text, _: f"P{text.zfill(4)}",
    "eICU's": lambda text, _: f"002-{text.zfill(5)}",
    "UUIDs": lambda text, _: f"{int(text):08x}-0000-4000-8000-{int(text):012x}",
    "hex, some of digits alone": lambda text, _: f"{int(text) * 2654435761 % 2**32:08x}",
    "longer than any integer": lambda text, _: f"9{int(text):030d}",
}


@pytest.mark.parametrize("writing", PSEUDONYMS.values(), ids=PSEUDONYMS)
def test_texts_are_ids(site_path: Path, writing: Writing) -> None:
    expected = make(site_path)
    for table in TABLES[:-1]:
        rewrite(site_path, table, writing, ("subject_id", "hadm_id", "stay_id"))
    cohort = make(site_path)
    order = np.argsort([writing(str(stay), 0) for stay in expected.stays["stay_id"]])
    np.testing.assert_array_equal(cohort.features, expected.features[order])
    assert cohort.stays["stay_id"].tolist() == [writing(str(stay), 0) for stay in expected.stays["stay_id"][order]]
    hashes = [patient_hash_of(writing(str(patient), 0)) for patient in expected.stays["subject_id"][order]]
    assert cohort.stays["patient_hash"].tolist() == hashes
    assert quality(cohort)["tables"]["chartevents"] == quality(expected)["tables"]["chartevents"]
    assert found_by_check(site_path) == []


def test_a_hospital_with_texts_takes_part(site_path: Path) -> None:
    """Also under a privacy budget, where a patient has one stay; and shared patients are met by their text."""
    for table in TABLES[:-1]:
        rewrite(site_path, table, PSEUDONYMS["letters"], ("subject_id", "hadm_id", "stay_id"))
    make(site_path)
    ledger = "privacy: {epsilon: 8, delta: 1.0e-5}\n"
    hospital = open_hospital(load_site(site_path), Study())
    assert len(hospital.stays.split_N) == 3
    site_path.write_text(site_path.read_text() + ledger)
    hospital = open_hospital(load_site(site_path), Study())
    assert (len(hospital.stays.split_N), hospital.num_left_out) == (2, 1)
    warn_of_shared_patients([site_path])


def test_one_column_may_be_text_and_another_of_numbers(site_path: Path) -> None:
    expected = make(site_path)
    for table in TABLES[:-1]:
        rewrite(site_path, table, PSEUDONYMS["letters"], ("subject_id",))
        rewrite(site_path, table, WRITINGS["all of it"], ("hadm_id", "stay_id"))
    cohort = make(site_path)
    same(cohort, expected)
    assert [cohort.stays[name].dtype == np.int64 for name in ("subject_id", "hadm_id", "stay_id")] == [
        False,
        True,
        True,
    ]


def test_blanks_around_a_text_are_no_part_of_it_and_case_is(site_path: Path) -> None:
    for table in TABLES[:-1]:
        rewrite(site_path, table, PSEUDONYMS["letters"], ("subject_id", "hadm_id", "stay_id"))
    expected = make(site_path)
    rewrite(site_path, CHART, lambda text, _: f" {text} ")
    same(make(site_path), expected)
    rewrite(site_path, CHART, lambda text, _: text.lower(), ("stay_id",))
    assert quality(make(site_path))["tables"]["chartevents"]["not_in_icustays"] == 36


def test_what_is_no_id_where_ids_are_numbers(site_path: Path) -> None:
    """A few texts are counted; so is a number that a spreadsheet has rounded, and what is not there."""
    for number, text in enumerate(("1.00E+01", "1e1", "ten", "10.5", "", "NULL")):
        more_charts(site_path, 1, stay_id=text, charttime=f"2150-01-02 12:0{number}:00")
    cohort = make(site_path)
    assert quality(cohort)["tables"]["chartevents"]["id_unreadable"] == 6
    first = quality(cohort)["first_bad"]["chartevents"]["id_unreadable"]
    assert first == {"line": 40, "form": "9.99a+99"}
    more_charts(site_path, 10, stay_id="1.00E+01")
    message = (
        r"^stay_id must be a whole number, got 16 of 53 rows .* \(first: line 40, form '9\.99a\+99'\) from .*E105\]$"
    )
    with pytest.raises(DataError, match=message):
        make(site_path)
    more_charts(site_path, 60, stay_id="10", itemid="heart rate")
    message = (
        r"^itemid must be a whole number, got 60 of 114 rows in which it is not \(first: line 56, form 'aaaaa aaaa'\) "
        r"from icu/chartevents\.csv\.gz\. Mend the export\. \[E105\]$"
    )
    with pytest.raises(DataError, match=message):
        make(site_path)


@pytest.mark.parametrize("table", ["icu/icustays", "icu/chartevents", "hosp/patients", "hosp/diagnoses_icd"])
def test_floats_of_32_bits_have_rounded_ids(site_path: Path, table: str) -> None:
    path = site_path.parent / f"{table}.csv.gz"
    key = "stay_id" if table.startswith("icu") else "hadm_id" if "icd" in table else "subject_id"
    frame = pl.read_csv(path, infer_schema_length=None, schema_overrides={"icd_code": pl.String})
    frame.with_columns(pl.col(key).cast(pl.Float32)).write_parquet(path.with_name(f"{path.name[:-7]}.parquet"))
    path.unlink()
    with pytest.raises(
        DataError, match=rf"^{key} must be whole numbers or text, got 32-bit floats from {table}\.parquet"
    ):
        make(site_path)


@pytest.mark.parametrize(
    ("stored", "numbers"),
    [
        (pl.Series(["7", "007", " 7.0 ", "x", None]), [7, 7, 7, None, None]),
        (pl.Series([7.0, 7.5, 2.0**54, None]), [7, None, None, None]),
        (pl.Series([7, -7], dtype=pl.Int32), [7, -7]),
        (pl.Series([7, 2**63], dtype=pl.UInt64), [7, None]),
        (pl.Series(["7.00", "8.50"]).cast(pl.Decimal(10, 2)), [7, None]),
    ],
)
def test_numbers_from_whatever_is_stored(stored: pl.Series, numbers: list[int | None]) -> None:
    frame = pl.DataFrame({"itemid": stored})
    assert frame.select(as_number("itemid", stored.dtype, ""))["itemid"].to_list() == numbers
    texts = frame.select(as_text("itemid", stored.dtype, ""))["itemid"].to_list()
    assert [text for text, number in zip(texts, numbers, strict=True) if number is not None] == [
        str(number) for number in numbers if number is not None
    ]


def test_what_makes_a_column_one_of_texts() -> None:
    def are_texts(*texts: str) -> bool:
        return bool(text_ids([pl.DataFrame({"stay_id": list(texts)})]))

    assert are_texts("A1", "A2") and are_texts("A1", "2") is False
    assert not are_texts(*map(str, range(2000)), *(f"x{n}" for n in range(10)))
    assert are_texts(*map(str, range(1000)), *(f"x{n}" for n in range(11)))
    assert not are_texts(*["NULL", "", "n/a", "-"] * 10)
    assert not are_texts(*["1.00E+07"] * 20)
    assert are_texts("1e100000", *["ab12cd34"] * 20)


def test_a_chart_pass_of_plain_numbers_is_read_once(site_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    read_once = event_pass._read

    def counted(source: object, *others: object) -> object:
        seen.append(source.is_careful)  # type: ignore[attr-defined]
        return read_once(source, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(event_pass, "_read", counted)
    make(site_path)
    assert seen == [False] * 5
    rewrite(site_path, CHART, WRITINGS["floats of pandas"], ("stay_id",))
    make(site_path)
    assert seen[5:] == [False, True, False, False, False, False]


def test_no_id_is_told(site_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for table in TABLES[:-1]:
        rewrite(site_path, table, lambda text, _: f"SECRET{text}", ("subject_id", "hadm_id", "stay_id"))
    change(site_path, CHART, lambda rows: rows.extend([["", "220045", "2150-01-02 12:00:00", "75"]] * 40))
    cli.run(["--site", str(site_path), "check", "--no-server"])
    assert cli.run(["--site", str(site_path), "prepare"]) == 4
    told = capsys.readouterr().err
    assert (
        "SECRET" not in told and "stay_id must be there, got 40 of 77 rows in which it is not (first: line 40" in told
    )
