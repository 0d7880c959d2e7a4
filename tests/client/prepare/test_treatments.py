"""What was given: rows that were cancelled, ran at no rate, or have no end yet; bags of one drug."""

import json
from pathlib import Path
from typing import Any

import pytest

from client import cli
from client.layouts.mimic_iv.layout import TREATMENTS
from lemof_model.errors import DataError
from lemof_model.given import GIVEN, is_given, plain_status
from tests.client.prepare.conftest import at
from tests.client.prepare.test_broken_tables import Rows, change, make, quality, value

DRIPS, PROCEDURES = "icu/inputevents.csv.gz", "icu/procedureevents.csv.gz"
NOREPINEPHRINE, VENTILATION = 221906, 225792


def drip(**cells: Any) -> dict[str, Any]:
    """Norepinephrine for two hours."""
    row = {"stay_id": 10, "itemid": NOREPINEPHRINE, "starttime": at(1), "endtime": at(3)}
    return row | {"amount": 1.2, "rate": 0.1, "statusdescription": "FinishedRunning"} | cells


def procedure(**cells: Any) -> dict[str, Any]:
    """Ventilation for two hours."""
    row = {"stay_id": 10, "itemid": VENTILATION, "starttime": at(1), "endtime": at(3)}
    return row | {"value": 120, "statusdescription": "FinishedRunning"} | cells


def put(site_path: Path, table: str, *rows: dict[str, Any]) -> None:
    """A table with these rows alone."""

    def edit(old: Rows) -> None:
        old[:] = [list(rows[0]), *([str(cell) for cell in row.values()] for row in rows)]

    change(site_path, table, edit)


def given(site_path: Path, *rows: dict[str, Any], ehr: str = "") -> tuple[list[float], dict[str, int]]:
    """Whether vasopressors were given in stay 10, for how long and how many, and the counts of the table."""
    put(site_path, DRIPS, *rows)
    cohort = make(site_path, ehr)
    features = [value(cohort, f"vasopressor_{what}") for what in ("given", "hours", "drugs")]
    return features, quality(cohort)["tables"]["inputevents"]


def findings(site_path: Path, *options: str) -> list[dict[str, str]]:
    """What ``check`` finds about treatments."""
    cli.run(["--site", str(site_path), "check", "--no-server", *options])
    found = json.loads((site_path.parent / "check.json").read_text())["findings"]
    return [one for one in found if one["code"] == "E207" or "endtime" in one["found"] or "'rate'" in one["found"]]


@pytest.mark.parametrize(
    ("cells", "fate"),
    [
        ({"statusdescription": "Rewritten"}, "cancelled"),
        ({"statusdescription": " REWRITTEN "}, "cancelled"),
        ({"statusdescription": "Canceled"}, "cancelled"),
        ({"statusdescription": "cancelled entry"}, "cancelled"),
        ({"statusdescription": "entered-in-error"}, "cancelled"),
        ({"statusdescription": "not-done"}, "cancelled"),
        ({"statusdescription": "Held"}, "cancelled"),
        ({"rate": 0, "amount": 0}, "nothing_given"),
        ({"rate": 0}, "nothing_given"),
        ({"rate": "", "amount": 0}, "nothing_given"),
        ({"rate": -0.1}, "nothing_given"),
        ({"amount": -1}, "nothing_given"),
        ({"endtime": at(1), "amount": 0}, "nothing_given"),
        ({"endtime": at(0.5)}, "ends_before_it_begins"),
        ({"endtime": "soon"}, "time_unreadable"),
        ({"starttime": ""}, "time_unreadable"),
        ({"starttime": at(-9), "endtime": ""}, "outside_first_day"),
    ],
)
def test_what_was_not_given_does_not_count(site_path: Path, cells: dict[str, Any], fate: str) -> None:
    features, counts = given(site_path, drip(**cells))
    assert features == [0, 0, 0]
    assert (counts[fate], counts["used"], counts["wanted"]) == (1, 0, 1)


@pytest.mark.parametrize(
    ("cells", "hours"),
    [
        ({}, 2),
        ({"statusdescription": "Paused"}, 2),  # the pause ends what ran until then
        ({"statusdescription": "Stopped"}, 2),
        ({"statusdescription": ""}, 2),
        ({"statusdescription": "Stopped: held for pressure"}, 2),
        ({"rate": "", "amount": 5}, 2),
        ({"rate": 0.01, "amount": 0}, 2),  # rounded
        ({"rate": "", "amount": ""}, 2),
        ({"rate": "slow", "amount": "a bag"}, 2),  # nobody knows, but it was given
        ({"rate": 0, "amount": 5, "statusdescription": "Bolus"}, 2),
        ({"rate": 0, "amount": 5, "endtime": at(1, 60)}, 1 / 60),  # a push
        ({"rate": "", "amount": 5, "endtime": at(1)}, 0),
        ({"endtime": ""}, 23),
        ({"endtime": "9999-12-31 00:00:00"}, 23),
    ],
)
def test_what_was_given_counts(site_path: Path, cells: dict[str, Any], hours: float) -> None:
    features, counts = given(site_path, drip(**cells))
    assert features == [1, pytest.approx(hours), 1] and counts["used"] == 1
    assert counts.get("used_without_end", 0) == (cells.get("endtime") == "")


def test_a_pause_is_not_counted_and_its_two_sides_are(site_path: Path) -> None:
    rows = [drip(statusdescription="Paused"), drip(starttime=at(5), endtime=at(6))]
    assert given(site_path, *rows)[0] == [1, 3, 1]


def test_bags_of_one_drug_are_one_drug(site_path: Path) -> None:
    phenylephrine = [drip(itemid=item_id) for item_id in (221749, 229630, 229631, 229632)]
    assert given(site_path, *phenylephrine)[0] == [1, 2, 1]
    others = [drip(itemid=item_id) for item_id in (221289, 229617, 229709, 229764)]
    assert given(site_path, *phenylephrine, *others)[0] == [1, 2, 3]


@pytest.mark.parametrize("treatment", TREATMENTS["inputevents"], ids=lambda t: t.name)
def test_every_item_of_a_treatment_is_read(site_path: Path, treatment: Any) -> None:
    features, counts = given(site_path, *(drip(itemid=item_id) for item_id in treatment.item_ids), drip(itemid=225798))
    assert features == [1, 2, len(treatment.drugs)]
    assert (counts["wanted"], counts["other_items"]) == (len(treatment.item_ids), 1)


@pytest.mark.parametrize(
    ("cells", "hours"),
    [
        ({}, 2),
        ({"value": 0}, 0),
        ({"value": ""}, 2),
        ({"statusdescription": "Rewritten"}, 0),
        ({"endtime": ""}, 23),
        ({"endtime": at(1), "value": 0}, 0),
    ],
)
def test_procedures_that_were_not_done_or_run_on(site_path: Path, cells: dict[str, Any], hours: float) -> None:
    put(site_path, PROCEDURES, procedure(**cells))
    assert value(make(site_path), "invasive_ventilation_hours") == hours


def test_a_status_that_nobody_knows_counts_as_given_and_is_told(
    site_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [drip(statusdescription="Storniert"), drip(statusdescription="Storniert", starttime=at(2)), drip()]
    features, counts = given(site_path, *rows)
    assert features == [1, 2, 1] and counts["used_of_unknown_status"] == 2
    found = "2 rows have a status that is not known, and count as given: 'storniert' 2"
    assert [finding["found"] for finding in findings(site_path)] == [found]
    assert cli.run(["--site", str(site_path), "prepare", "--force"]) == 0
    assert f"warning: inputevents: {found}." in capsys.readouterr().err.replace("\n", " ")
    features, counts = given(site_path, *rows, ehr=", not_given: [STORNIERT]")
    assert features == [1, 2, 1] and (counts["cancelled"], counts["used"]) == (2, 1)
    assert not findings(site_path, "--deep")


def test_many_rows_without_an_end_are_told_and_most_are_refused(site_path: Path) -> None:
    ended = [drip(starttime=at(hour), endtime=at(hour + 1)) for hour in range(20)]
    features, counts = given(site_path, *ended, *[drip(endtime="")] * 11)
    assert features == [1, 24, 1] and counts["used_without_end"] == 11
    found = "11 of 31 rows have no end: they count as running until the prediction"
    assert found in {finding["found"] for finding in findings(site_path)}
    message = r"endtime must be there of what has ended, got 21 of 41 rows without it from icu/inputevents.*\[E103\]"
    put(site_path, DRIPS, *ended, *[drip(endtime="")] * 21)
    with pytest.raises(DataError, match=message):
        make(site_path)
    assert findings(site_path)[0]["result"] == "fail"
    assert value(make(site_path, settings=", max_bad_fraction: 0.6"), "vasopressor_hours") == 24


def test_a_table_in_which_little_was_given_is_told(site_path: Path) -> None:
    _, counts = given(site_path, drip(), *[drip(statusdescription="Rewritten")] * 8, *[drip(rate=0)] * 7)
    assert (counts["cancelled"], counts["nothing_given"], counts["used"]) == (8, 7, 1)
    found = "15 of 16 rows say that nothing was given: 8 cancelled, 7 nothing given"
    for options in ((), ("--deep",)):
        assert found in {finding["found"] for finding in findings(site_path, *options)}
    assert found in (site_path.parent / "readiness.html").read_text()


def test_rates_that_are_no_numbers_are_told_and_count_as_given(site_path: Path) -> None:
    assert given(site_path, *[drip(rate="slow")] * 12)[0] == [1, 2, 1]
    (found,) = findings(site_path)
    assert (found["result"], found["fix"]) == ("warn", "Such rows count as given.")
    assert found["found"] == "12 of 12 'rate' values are no numbers (first: line 2, form 'aaaa')"


def test_columns_by_other_names(site_path: Path) -> None:
    put(site_path, DRIPS, drip(statusdescription="Rewritten"))
    change(site_path, DRIPS, lambda rows: rows[0].__setitem__(6, "STATUS"))
    assert value(make(site_path), "vasopressor_given") == 1  # nothing tells it
    cli.run(["--site", str(site_path), "check", "--no-server"])
    told = json.loads((site_path.parent / "check.json").read_text())["findings"]
    assert "no statusdescription: what was not given cannot be told apart" in {finding["found"] for finding in told}
    renamed = ", columns: {inputevents: {statusdescription: STATUS}}"
    assert value(make(site_path, renamed), "vasopressor_given") == 0


@pytest.mark.parametrize("status", sorted(GIVEN))
def test_what_says_that_a_row_was_given(status: str) -> None:
    assert is_given(plain_status(status.title())) is True
    assert is_given(plain_status(f"[{status.upper()}]")) is True


def test_urine_is_never_less_than_none(site_path: Path) -> None:
    rows = [["10", "227488", at(2), "3000"], ["10", "227489", at(3), "2500"]]
    change(site_path, "icu/outputevents.csv.gz", lambda table: table.__setitem__(slice(1, None), rows))
    cohort = make(site_path)
    assert (value(cohort, "urine_sum"), value(cohort, "urine_count")) == (0, 2)
    assert quality(cohort)["concepts"]["urine"]["below_zero"] == 1
    cli.run(["--site", str(site_path), "check", "--no-server"])
    assert "A sum below 0 counts as 0: urine in 1 stays." in (site_path.parent / "readiness.html").read_text()
