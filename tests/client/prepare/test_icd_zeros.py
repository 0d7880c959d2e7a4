"""ICD-9 codes that lost their leading zeros are refused, by check and prepare alike; all others pass."""

import json
from pathlib import Path

import polars as pl
import pytest

from client import cli
from lemof_model.errors import DataError
from tests.client.prepare.test_broken_tables import change, make, quality

TABLE = "hosp/diagnoses_icd.csv.gz"
COMMON = ("4019", "25000", "42731", "V5861", "E8782", "51881")


def codes(site_path: Path, *of_9: str, of_10: tuple[str, ...] = ()) -> None:
    """Diagnoses of the first admission: these codes, and none else."""
    listed = [[*("1", "11", "1"), code, "9"] for code in of_9] + [[*("1", "11", "1"), code, "10"] for code in of_10]
    change(site_path, TABLE, lambda rows: rows.__setitem__(slice(1, None), listed))


def refused(site_path: Path, match: str) -> None:
    """Both commands refuse it in the same words."""
    with pytest.raises(DataError, match=match) as told:
        make(site_path)
    assert "CAST(icd_code AS VARCHAR)" in str(told.value)
    assert cli.run(["--site", str(site_path), "check", "--no-server"]) == 4
    findings = json.loads((site_path.parent / "check.json").read_text())["findings"]
    (found,) = [line for line in findings if line["code"] == "E112"]
    assert f"{found['found']} {found['fix']} [E112]" == str(told.value)


@pytest.mark.parametrize("kind", [pl.Int64, pl.Int32, pl.Float64, pl.Decimal(12, 2)], ids=str)
def test_a_column_of_numbers(site_path: Path, kind: pl.DataType) -> None:
    path = site_path.parent / "hosp/diagnoses_icd.parquet"
    rows = {"hadm_id": [11, 11], "icd_code": ["389", "25000"], "icd_version": [9, 9]}
    pl.DataFrame(rows).with_columns(pl.col("icd_code").cast(kind)).write_parquet(path)
    (site_path.parent / TABLE).unlink()
    refused(
        site_path, r"^icd_code must be text, got numbers \(.*\) from hosp/diagnoses_icd\.parquet\. Export icd_code "
    )


def test_200_codes_without_a_zero(site_path: Path) -> None:
    codes(site_path, *(COMMON * 40)[:199])
    make(site_path)
    codes(site_path, *(COMMON * 40)[:200])
    refused(
        site_path, r"^Some ICD-9 codes must begin with 0, .*, got 0 of 200 that do from hosp/diagnoses_icd\.csv\.gz\."
    )
    codes(site_path, *(COMMON * 40)[:200], "0389")
    assert make(site_path).stays["sepsis"].tolist() == [True, False, False]


def test_codes_of_icd_10_among_icd_9_are_told_as_such(site_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes(site_path, *("I509", "E119", "J189", "A419") * 60)
    assert cli.run(["--site", str(site_path), "prepare"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "240 of 240 codes begin as none of their version of ICD does: they are in no disease. Is the version" in told


@pytest.mark.parametrize("code", ["", " ", "NULL"])
def test_rows_without_a_code(site_path: Path, code: str) -> None:
    codes(site_path, "0389", *[code] * 3)
    cohort = make(site_path)
    assert cohort.stays["sepsis"].tolist() == [True, False, False]
    assert quality(cohort)["tables"]["diagnoses_icd"]["icd_code_missing"] == 3
    codes(site_path, "0389", *[code] * 30)
    with pytest.raises(
        DataError, match=r"^icd_code must be there, got 30 of 31 rows in which it is not \(first: line 3, "
    ):
        make(site_path)
    assert cli.run(["--site", str(site_path), "check", "--no-server"]) == 4
    findings = json.loads((site_path.parent / "check.json").read_text())["findings"]
    assert "30 of 31 rows have no icd_code (first: line 3)" in {line["found"] for line in findings}


def test_codes_that_were_padded(site_path: Path) -> None:
    codes(site_path, *(code.zfill(5) for code in ("4019", "389", "25000", "5849") * 60))
    refused(site_path, r"and most must not, got 180 of 240 that do from hosp/diagnoses_icd\.csv\.gz\.")


@pytest.mark.parametrize("form", ["{}.0", " {}.0", "{}.00"])
def test_codes_that_were_decimal_numbers(site_path: Path, form: str) -> None:
    codes(site_path, *(form.format(code) for code in ("389", "25000", "4019", "42731")))
    refused(
        site_path, r"^ICD-9 codes must have three digits before the dot, .* got 3 of 4 that are decimal numbers \(such "
    )
    codes(site_path, *(COMMON * 10), *(form.format(code) for code in ("389", "25000", "4019") * 6))
    refused(site_path, r"got 12 of 78 that are decimal numbers")


@pytest.mark.parametrize(
    "codes_9", [("42", "42", "42", "389", "4019"), ("38.9", "8.45", "42"), ("389", "42", "7", "85", *COMMON)]
)
def test_codes_that_are_too_short(site_path: Path, codes_9: tuple[str, ...]) -> None:
    codes(site_path, *codes_9)
    refused(site_path, r"got \d of \d+ of one or two digits \(such as form '9")


@pytest.mark.parametrize(
    ("of_9", "of_10"),
    [
        ((), ("I10", "I509", "A419") * 100),
        (("038.9", "250.00", "401.9", "V58.61", "389.0") * 50, ()),  # dots where ICD-9 has them
        (("0389", *COMMON) * 50, ("I10",)),
        (("0389 ", " 25000", "v5861", "e8782", "042"), ("i50.9",)),
        (("042", "08", *COMMON), ()),  # one slip
        (("", " ", "0389"), ("",)),
    ],
)
def test_codes_that_are_whole(site_path: Path, of_9: tuple[str, ...], of_10: tuple[str, ...]) -> None:
    codes(site_path, *of_9, of_10=of_10)
    make(site_path)
    cli.run(["--site", str(site_path), "check", "--no-server"])
    findings = json.loads((site_path.parent / "check.json").read_text())["findings"]
    assert not [line for line in findings if line["code"] == "E112"]


@pytest.mark.parametrize("code", ["0389", "038.9", " 0389", "038 9", "A41.9", "a419"])
def test_the_ways_to_write_a_code(site_path: Path, code: str) -> None:
    is_10 = code.strip().upper().startswith("A")
    codes(site_path, *(() if is_10 else (code,)), of_10=(code,) if is_10 else ())
    assert make(site_path).stays["sepsis"].tolist() == [True, False, False]


def test_versions_that_are_not(site_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(site_path, TABLE, lambda rows: [row.__setitem__(4, f" {row[4]}.0") for row in rows[1:]])
    assert make(site_path).stays["heart_failure"].tolist() == [True, False, True]
    codes(site_path, of_10=("4019", "25000", "0389") * 10)
    assert cli.run(["--site", str(site_path), "prepare"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "diagnoses_icd: 30 of 30 codes begin as none of their version of ICD does: they are in no disease." in told
    codes(site_path, *COMMON)
    change(site_path, TABLE, lambda rows: rows.extend([["1", "11", "1", "I509", "ICD-10"]] * 3))
    cohort = make(site_path)
    assert quality(cohort)["tables"]["diagnoses_icd"]["icd_version_unreadable"] == 3
    assert quality(cohort)["first_bad"]["diagnoses_icd"] == {"icd_version_unreadable": {"line": 8, "form": "aaa-99"}}
    assert cli.run(["--site", str(site_path), "prepare", "--force"]) == 0
    assert ", 3 in diagnoses_icd (first: line 8, form 'aaa-99')" in capsys.readouterr().err
