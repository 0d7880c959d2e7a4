"""Advice that makes nothing worse: no column of MIMIC's is proposed, or taken, for another one."""

import json
from pathlib import Path

import pytest

from client import cli
from client.layouts.mimic_iv.columns import ALL_COLUMNS
from client.layouts.mimic_iv.layout import TABLES
from client.layouts.mimic_iv.tables import MIMIC_COLUMNS
from lemof_model.errors import ConfigError, DataError
from tests.client.prepare.test_broken_tables import CHART, LABS, change, make, more_charts

FILES = {"patients": "hosp/patients.csv.gz", "admissions": "hosp/admissions.csv", "icustays": "icu/icustays.csv.gz",
         "diagnoses_icd": "hosp/diagnoses_icd.csv.gz", "labevents": LABS, "chartevents": CHART,
         "outputevents": "icu/outputevents.csv.gz", "inputevents": "icu/inputevents.csv.gz",
         "procedureevents": "icu/procedureevents.csv.gz"}  # fmt: skip
NEEDED = [(table, name) for table, columns in TABLES.items() for name in columns]


def test_every_column_that_is_read_is_of_mimic() -> None:
    assert all(set(names.split()) <= ALL_COLUMNS[table] for table, names in MIMIC_COLUMNS.items())


@pytest.mark.parametrize(("table", "name"), NEEDED, ids=lambda part: part)
def test_no_column_of_mimic_is_proposed_for_another(site_path: Path, table: str, name: str) -> None:
    """The table as MIMIC-IV has it, but for one column."""

    def without(rows: list[list[str]]) -> None:
        header = [column for column in sorted(ALL_COLUMNS[table]) if column not in (name, "ethnicity")]
        rows[:] = [header, [""] * len(header)]

    change(site_path, FILES[table], without)
    with pytest.raises(DataError, match=rf"^Columns must include {name}, got .*\[E102\]$") as told:
        make(site_path)
    assert "Did you mean" not in str(told.value)
    assert f"Add data.ehr.columns.{table}.{name}: ITS_NAME, or export the column." in str(told.value)


@pytest.mark.parametrize(
    ("name", "own", "proposed"),
    [("deathtime", "DEATHTIME", True), ("deathtime", "death_time", True), ("deathtime", "DISCHTIME", False)],
)
def test_other_names_are_still_proposed(site_path: Path, name: str, own: str, proposed: bool) -> None:
    change(site_path, FILES["admissions"], lambda rows: rows[0].__setitem__(rows[0].index(name), own))
    with pytest.raises(DataError) as told:
        make(site_path)
    assert (f"Did you mean {own}?" in str(told.value)) is proposed


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            "admissions: {deathtime: dischtime}",
            r"admissions\.deathtime must be the site's own name .*, got dischtime, ",
        ),
        (
            "admissions: {deathtime: DischTime}",
            r"admissions\.deathtime must be the site's own name .*, got DischTime, ",
        ),
        (
            "icustays: {outtime: intime}",
            r"icustays\.outtime must be .*, got intime, which in MIMIC-IV is another column",
        ),
        ("labevents: {charttime: storetime}", r"labevents\.charttime must be .*, got storetime, which in MIMIC-IV"),
        ("patients: {anchor_age: anchor_year}", r"patients\.anchor_age must be .*, got anchor_year, which"),
        (
            "icustays: {intime: when, outtime: when}",
            r"icustays must give each column a name of its own, got when twice",
        ),
    ],
)
def test_a_site_file_that_takes_one_column_for_another(site_path: Path, columns: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.ehr\.columns\.{message}"):
        make(site_path, f", columns: {{{columns}}}")
    assert cli.run(["--site", str(site_path), "check", "--no-server"]) == 3
    findings = json.loads((site_path.parent / "check.json").read_text())["findings"]
    assert len([line for line in findings if line["result"] == "fail"]) == 1


def test_the_older_name_of_race_is_no_other_column(site_path: Path) -> None:
    change(site_path, FILES["admissions"], lambda rows: rows[0].__setitem__(rows[0].index("race"), "ethnicity"))
    assert make(site_path, ", columns: {admissions: {race: ethnicity}}").num_stays == 3


def test_a_repeated_key_that_tells_something_else_is_not_to_be_dropped(site_path: Path) -> None:
    """One row for each bed of a stay: to keep the first would end the stay there."""

    def beds(rows: list[list[str]]) -> None:
        later = [*rows[2]]
        rows[2][6] = later[5] = "2150-01-03 00:30:00"
        rows.append(later)

    change(site_path, FILES["icustays"], beds)
    message = r"1 of them differ from the first, which to keep would lose what they say\. Mend the export\. \[E104\]$"
    with pytest.raises(DataError, match=message):
        make(site_path)


def test_a_format_is_not_to_be_set_where_other_times_are_read(site_path: Path) -> None:
    def of_another_form(rows: list[list[str]]) -> None:
        for row in rows[1:]:
            row[4] = "04.05.2150"

    change(site_path, FILES["admissions"], of_another_form)
    change(
        site_path,
        FILES["admissions"],
        lambda rows: rows.extend([[*rows[1][:1], f"{n}", *rows[1][2:]] for n in range(900, 910)]),
    )
    with pytest.raises(
        DataError, match=r"^deathtime must match .* Export it in the form of the other times\. \[E103\]$"
    ):
        make(site_path)
    assert cli.run(["--site", str(site_path), "check", "--no-server"]) == 4
    findings = json.loads((site_path.parent / "check.json").read_text())["findings"]
    fixes = {found["fix"] for found in findings if found["result"] == "fail" and "deathtime" in found["found"]}
    assert fixes == {"Export it in the form of the other times."}


def test_more_may_be_lost_only_where_most_is_kept(site_path: Path) -> None:
    more_charts(site_path, 30, charttime="noon")
    with pytest.raises(DataError, match=r", or raise prepare\.max_bad_fraction\. \[E103\]$"):
        make(site_path)
    more_charts(site_path, 30, charttime="noon")
    with pytest.raises(DataError, match=r"Set data\.ehr\.datetime_format, mend the export\. \[E103\]$"):
        make(site_path)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("chartevents", "charttime"),
        ("chartevents", "stay_id"),
        ("chartevents", "itemid"),
        ("labevents", "subject_id"),
        ("diagnoses_icd", "hadm_id"),
        ("diagnoses_icd", "icd_version"),
    ],
)
def test_check_tells_of_gaps_that_prepare_refuses(site_path: Path, table: str, column: str) -> None:
    def with_gaps(rows: list[list[str]]) -> None:
        gap = list(rows[1])
        gap[rows[0].index(column)] = ""
        rows.extend([gap] * 40)

    change(site_path, FILES[table], with_gaps)
    with pytest.raises(
        DataError, match=rf"^{column} must .* got 4[01] of .*\(first: line \d+, form '\(empty\)'\)"
    ) as told:
        make(site_path)
    assert "datetime_format" not in str(told.value)
    assert cli.run(["--site", str(site_path), "check", "--no-server"]) == 4
    findings = json.loads((site_path.parent / "check.json").read_text())["findings"]
    (found,) = [line for line in findings if f" rows have no {column} (first: line " in line["found"]]
    assert (found["result"], found["fix"]) == ("fail", f"Export {column} in every row.")
