"""The unit of a value: as its row spells it, as its item has it, as the hospital says; or another than all of these."""

import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from client import cli
from client.checks import raw_tables
from client.layouts.mimic_iv.items import LABS, MEASURED, VITALS
from client.prepare.measurements import MILLIONTHS, converted
from lemof_model.errors import DataError
from lemof_model.items import NINES, StoredConcept
from lemof_model.spellings import plain
from readers.tables.words import MAX_STRANGE, STRANGE_TEXT, Words
from tests.client.prepare.test_broken_tables import CHART, change, make, more_charts, quality, value

LABEVENTS = "hosp/labevents.csv.gz"
CREATININE = "50912"
Values = tuple[str, float, int]  # how the unit is spelled, the value, how often


def with_labs(site_path: Path, *values: Values, item_id: str = CREATININE) -> None:
    """Give labevents a last column ``valueuom``, and more values of an item."""

    def edit(rows: list[list[str]]) -> None:
        for place, row in enumerate(rows):
            row.append("" if place else "valueuom")
        for spelling, number, num in values:
            row = ["1", "11", item_id, "2150-01-02 12:00:00", "2150-01-02 13:00:00", str(number), spelling]
            rows.extend([row] * num)

    change(site_path, LABEVENTS, edit)


def with_charts(site_path: Path, item_id: str, *values: Values) -> None:
    """The same of chartevents."""

    def edit(rows: list[list[str]]) -> None:
        for place, row in enumerate(rows):
            row.append("" if place else "valueuom")
        for spelling, number, num in values:
            rows.extend([["10", item_id, "2150-01-02 12:00:00", str(number), spelling]] * num)

    change(site_path, CHART, edit)


def checked(site_path: Path, *options: str) -> tuple[int, list[dict[str, str]]]:
    """The exit status of ``check`` and its findings about units."""
    status = cli.run(["--site", str(site_path), "check", "--no-server", *options])
    findings = json.loads((site_path.parent / "check.json").read_text())["findings"]
    return status, [finding for finding in findings if finding["code"] == "E205"]


def refused(site_path: Path, ehr: str = "") -> str:
    """Why ``prepare`` refuses; ``check`` says the same, from a sample and from all."""
    with pytest.raises(DataError) as error:
        make(site_path, ehr)
    told = str(error.value)
    assert told.endswith("[E205]")
    for options in ((), ("--deep",)):
        status, found = checked(site_path, *options)
        assert status == 4
        assert [f"{one['found']} {one['fix']} [E205]" for one in found if one["result"] == "fail"] == told.splitlines()
    return told


# --- every concept of the schema, right and wrong ---


def summary(concept: StoredConcept, values: Sequence[tuple[float, str | None]]) -> list[dict[str, Any]]:
    """What becomes of values of a concept's first item with units beside them."""
    numbers, spelled = zip(*values, strict=True)
    rows = {"item": concept.item_ids[0], "value": numbers, "spelled": spelled, "again": False}
    kinds = {"item": pl.Int64, "value": pl.Float64, "spelled": pl.String, "again": pl.Boolean}
    return converted(pl.LazyFrame(rows, kinds), [concept], Path("values")).to_dicts()


def fates(concept: StoredConcept, values: Sequence[tuple[float, str | None]]) -> set[str]:
    """What becomes of any of them."""
    return {one["fate"] for one in summary(concept, values)}


def judged(concept: StoredConcept, number: float, spelled: str | None = None) -> tuple[str, float | None]:
    """What becomes of one, and what it is in the concept's unit."""
    (one,) = summary(concept, [(number, spelled)])
    return one["fate"], one["max"] / MILLIONTHS if one["max"] is not None else None


@pytest.mark.parametrize("concept", MEASURED, ids=lambda concept: concept.name)
def test_a_value_in_any_unit_and_spelling_of_its_concept_is_the_same(concept: StoredConcept) -> None:
    middle = (concept.units[concept.unit].low + concept.units[concept.unit].high) / 2
    values = [
        ((middle - unit.offset) / unit.factor, spelling)
        for unit in concept.units.values()
        for spelling in (unit.name, *unit.spellings)
    ]
    found = summary(concept, values)
    assert {one["fate"] for one in found} == {"used"} and sum(one["num"] for one in found) == len(values)
    for end in ("min", "max"):
        assert {round(one[end] / 10) for one in found} == {round(middle * MILLIONTHS / 10)}


@pytest.mark.parametrize("concept", MEASURED, ids=lambda concept: concept.name)
def test_a_value_in_a_unit_that_its_concept_does_not_know_is_left_out(concept: StoredConcept) -> None:
    unit = concept.units[concept.unit]
    inside, above = (unit.low + unit.high) / 2, unit.high * 1.01
    assert fates(concept, [(inside, "furlong"), (inside, "141"), (inside, "10^6/uL")]) == {"unit_unknown"}
    assert fates(concept, [(above, concept.unit)]) == {"out_of_range"}


@pytest.mark.parametrize("concept", MEASURED, ids=lambda concept: concept.name)
def test_codes_for_no_value_are_no_values(concept: StoredConcept) -> None:
    codes = [(code, spelled) for code in NINES for spelled in (None, *concept.units)]
    assert fates(concept, codes) == {"code_for_no_value"}
    impossible = [-9999.0, -999.0, 1_276_103.0]  # the last: MIMIC-IV 3.1, lactate
    assert fates(concept, [(code, concept.unit) for code in impossible]) == {"out_of_range"}
    if concept.name not in ("base_excess", "rass"):
        assert fates(concept, [(-1.0, concept.unit), (-9.0, None)]) == {"out_of_range"}


@pytest.mark.parametrize(
    ("name", "values"),
    [  # the greatest that are met in MIMIC-IV 3.1 and its demo, and what nobody has
        ("inr", {27.5: True, 99.0: False}),
        ("pt", {150.0: True, 999.0: False, 1907.0: False}),
        ("ptt", {198.1: True, 999.0: False}),
        ("alt", {20_000.0: True, 61_854.0: True, 88_888.0: False}),
        ("ast", {42_606.0: True}),
        ("alp", {5_965.0: True, 99_998.0: False}),
        ("troponin_t", {52.4: True, 999.0: False}),
        ("ck_mb", {999.0: True, 9_998.0: False}),
        ("nt_probnp", {62_656.0: True, 70_000.0: True, 70_001.0: False}),
        ("crp", {608.1: True, 999.0: False}),
        ("creatinine", {73.8: True, 88.0: False, 808.0: False}),
        ("wbc", {0.1: True, 998.0: True, 999.0: False}),
        ("platelets", {1.0: True, 2_989.0: True, 999.0: True}),
        ("glucose_lab", {999.0: True}),
        ("base_excess", {-1.0: True, -9.0: True}),
        ("rass", {-1.0: True, 0.0: True, 9.0: False}),
        ("urine", {0.0: True, -1.0: False}),
    ],
)
def test_rare_true_values_survive(name: str, values: dict[float, bool]) -> None:
    concept = next(concept for concept in MEASURED if concept.name == name)
    assert {number: judged(concept, number)[0] == "used" for number in values} == values


@pytest.mark.parametrize(
    ("name", "item", "number", "expected"),
    [
        ("spo2", 0, 0.97, 97),
        ("spo2", 0, 0.3, None),  # nobody knows
        ("spo2", 0, 1, 100),
        ("fio2", 0, 0.4, 40),
        ("fio2", 0, 6, None),  # litres
        ("height", 0, 1.75, 175),
        ("height", 1, 1.75, 175),
        ("height", 0, 70, None),  # inches, or a digit that is missing
        ("height", 1, 180, None),  # centimetres, or the weight in pounds
        ("temperature", 0, 98.6, 37),
        ("temperature", 1, 37, 37),
        ("temperature", 1, 20, None),
        ("hematocrit", 0, 0.35, 35),
        ("hemoglobin", 0, 120, None),
        ("wbc", 0, 8_500, None),
    ],
)
def test_a_value_without_a_unit_is_converted_where_that_is_certain(
    name: str, item: int, number: float, expected: float | None
) -> None:
    concept = next(concept for concept in MEASURED if concept.name == name)
    one = StoredConcept(**{**vars(concept), "items": concept.own_items(concept.item_ids[item])})
    fate, found = judged(one, number)
    assert (fate, found) == (("used", pytest.approx(expected)) if expected else ("out_of_range", None))
    if fate == "used" and len(one.items) == 1:  # but never where the row says another unit
        assert judged(one, number, one.items[0].unit.name)[0] == "out_of_range"


@pytest.mark.parametrize(
    ("name", "number", "spelled"),
    [("creatinine", 1, "umol/L"), ("wbc", 8, "cells/uL"), ("platelets", 200, "/mm3"), ("spo2", 0.97, "%")],
)
def test_a_value_whose_row_names_another_unit_by_mistake_is_out_of_range(
    name: str, number: float, spelled: str
) -> None:
    """Where that can be told of a single value; of many, their median tells."""
    assert judged(next(concept for concept in MEASURED if concept.name == name), number, spelled)[0] == "out_of_range"


def test_what_is_rinsed_in_is_taken_off_in_any_unit() -> None:
    urine = next(concept for concept in MEASURED if concept.name == "urine")
    rinsed = StoredConcept(**{**vars(urine), "items": urine.own_items(227488)})
    for number, spelled in ((300, "ml"), (0.3, "Liters"), (300, None)):
        assert judged(rinsed, number, spelled) == ("used", -300)


# --- as a row says ---


@pytest.mark.parametrize("num", [1, 15, 300])
def test_a_laboratory_value_is_in_the_unit_of_its_row(site_path: Path, num: int) -> None:
    with_labs(site_path, ("mg/dL", 1.0, 300), ("µmol/L", 88.42, num), ("", 1.0, 5))
    cohort = make(site_path)
    assert [value(cohort, f"creatinine_{what}") for what in ("min", "max", "count")] == [1, 1, 305 + num]
    facts = quality(cohort)["concepts"]["creatinine"]
    assert facts["units"][CREATININE] == {"mg/dL": 300, "umol/L": num, "without a unit": 5}
    assert checked(site_path, "--deep") == (0, [])
    assert f"without a unit 5, mg/dL 300, umol/L {num}" in cohort.path.with_name("readiness.html").read_text()


def test_a_bedside_value_is_in_the_unit_of_its_row(site_path: Path) -> None:
    with_charts(site_path, "220277", ("%", 96, 40), ("Fraction", 0.9, 20), ("% Sat.", 97, 3))
    cohort = make(site_path)
    assert [value(cohort, f"spo2_{what}") for what in ("min", "count")] == [pytest.approx(90), 64]
    assert checked(site_path) == (0, [])


def test_a_column_of_units_by_another_name_and_of_parquet(site_path: Path) -> None:
    with_labs(site_path, ("mg/dL", 1.0, 300), ("umol/L", 88.42, 120))
    change(site_path, LABEVENTS, lambda rows: rows[0].__setitem__(6, "unit"))
    lost = r"within 0\.05 to 75 mg/dL, got 120 of 420 values \(28\.6%\) outside, which look like umol/L"
    with pytest.raises(DataError, match=lost):
        make(site_path)  # nothing tells them apart
    renamed = ", columns: {labevents: {valueuom: unit}}"
    assert value(make(site_path, renamed), "creatinine_max") == 1
    path = site_path.parent / LABEVENTS
    pl.read_csv(path).with_columns(pl.col("unit").cast(pl.Categorical)).write_parquet(
        path.with_name("labevents.parquet")
    )
    path.unlink()
    assert value(make(site_path, renamed), "creatinine_max") == 1


def test_units_in_another_encoding_and_as_numbers(site_path: Path) -> None:
    with_charts(site_path, "223761", ("\u00b0F", 100.4, 12))
    path = site_path.parent / CHART
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).decode().encode("latin-1")))
    assert value(make(site_path), "temperature_count") == 14
    pl.read_csv(path, encoding="utf8-lossy").with_columns(valueuom=pl.lit(7)).write_parquet(
        path.with_name("chartevents.parquet")
    )
    path.unlink()
    with pytest.raises(
        DataError, match=rf"got '{STRANGE_TEXT}' in .* values \(100\.0%\), from icu/chartevents\.parquet"
    ):
        make(site_path)


def test_a_few_values_in_a_unit_that_nobody_knows_are_left_out_and_told(
    site_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_labs(site_path, ("mg/dL", 1.0, 300), ("U/L", 70.0, 3))
    assert cli.run(["--site", str(site_path), "prepare"]) == 0
    found = "creatinine: 3 of 303 values are in a unit that is not known for it (u/l), and left out"
    told = capsys.readouterr().err.replace("\n", " ")
    assert found in told and "values left out: 3 in a unit that is not known for them" in told
    facts = json.loads((site_path.parent / "cohort/quality.json").read_text())["concepts"]["creatinine"]
    assert (facts["unit_unknown"], facts["used"], facts["max"]) == (3, 300, 1)
    assert facts["units"][CREATININE] == {"mg/dL": 300, "unknown: u/l": 3}
    assert found in {finding["found"] for finding in checked(site_path)[1]}
    page = (site_path.parent / "readiness.html").read_text()
    assert "unit unknown" in page and "unknown: u/l 3" in page


@pytest.mark.parametrize("spelling", ["U/L", "seen by nurse 7", "141"])
def test_many_values_in_a_unit_that_nobody_knows_are_refused(site_path: Path, spelling: str) -> None:
    with_labs(site_path, ("mg/dL", 1.0, 500), (spelling, 1.0, 15))
    shown = {"U/L": "u/l", "seen by nurse 7": "seenbynurse9", "141": STRANGE_TEXT}[spelling]
    key = "u/l" if spelling == "U/L" else "SPELLING"
    assert refused(site_path) == (
        "itemid 50912 must be in a unit that is known for creatinine (mg/dL, umol/L, mg/L, mmol/L), got "
        f"'{shown}' in 15 of 515 values (2.9%), from hosp/labevents.csv.gz. Set data.ehr.units: {{50912: {{'{key}': "
        "UNIT}} (or drop in place of UNIT), or mend the export. [E205]"
    )


def test_most_of_few_values_in_a_unit_that_nobody_knows_are_refused(site_path: Path) -> None:
    with_labs(site_path, ("U/L", 5.0, 6), item_id="50911")
    assert "itemid 50911 must be in a unit that is known for ck_mb (ng/mL), got 'u/l' in 6 of 7" in refused(site_path)
    cohort = make(site_path, ", units: {50911: {U/L: drop}}")
    assert quality(cohort)["concepts"]["ck_mb"]["unit_unknown"] == 6
    assert (value(cohort, "ck_mb_max"), value(cohort, "ck_mb_count")) == (3, 1)
    cohort = make(site_path, ", units: {50911: drop}")
    assert quality(cohort)["concepts"]["ck_mb"]["item_ids"] == []


def test_free_text_in_place_of_units_keeps_the_summary_small() -> None:
    texts = [f"seen by nurse {row}" for row in range(20 * MAX_STRANGE)]
    words = Words(texts, ["mg/dl"], plain)
    assert words.num <= MAX_STRANGE + 3 and set(words.numbers) == set(texts)
    assert {words.meant_by(number) for number in words.numbers.values()} >= {STRANGE_TEXT}
    assert Words(reversed(texts), ["mg/dl"], plain).numbers == words.numbers


# --- as a hospital says ---


def test_a_hospital_says_what_a_spelling_means(site_path: Path) -> None:
    with_labs(site_path, ("mg/dL", 88.42, 300), ("", 1.0, 5))  # the export has the wrong word
    assert refused(site_path) == (
        "itemid 50912 must be in mg/dL, got a median of 88.2 where it says mg/dl, which looks like umol/L (100.0% of "
        "values outside of its limits), from hosp/labevents.csv.gz. Set data.ehr.units: {50912: {'mg/dl': umol/L}} if "
        "it means that, {50912: {'mg/dl': mg/dL}} if it is right. [E205]"
    )
    cohort = make(site_path, ", units: {50912: {MG/DL: µmol/l}}")
    assert [value(cohort, f"creatinine_{what}") for what in ("min", "max", "count")] == [1, 1, 305]


@pytest.mark.parametrize(
    ("item_id", "values", "advised"),
    [
        ("223835", ("%", 0.5, 30), ["{223835: {'%': fraction}}", "{223835: {'%': '%'}}"]),
        ("220277", ("", 0.4, 30), ["{220277: UNIT}", "{220277: '%'}", "{220277: drop}"]),
        ("220277", ("o'clock", 0.97, 60), ["{220277: {'o''clock': UNIT}}"]),
    ],
)
def test_what_is_advised_can_be_written_so(site_path: Path, item_id: str, values: Values, advised: list[str]) -> None:
    with_charts(site_path, item_id, values)
    told = refused(site_path)
    assert re.findall(r"\{\d+: (?:\{[^}]*\}|[^}]*)\}", told) == advised
    for said in advised:
        make(site_path, f", units: {said.replace('UNIT', 'fraction')}")


def test_rows_that_contradict_what_a_hospital_states_are_refused(site_path: Path) -> None:
    with_labs(site_path, ("mg/dL", 1.0, 20), ("", 88.42, 300))
    assert refused(site_path, ", units: {50912: umol/L}") == (
        "itemid 50912 must be in umol/L, as data.ehr.units says, got 'mg/dl' in 20 of 320 values (6.2%), from "
        "hosp/labevents.csv.gz. If the rows are right, say it of those without a unit only: {50912: {'': umol/L}}; if "
        "not, what they mean: {50912: {'mg/dl': umol/L}}. [E205]"
    )
    cohort = make(site_path, ", units: {50912: {'': umol/L}}")
    assert [value(cohort, f"creatinine_{what}") for what in ("min", "max", "count")] == [1, 1, 320]


def test_values_without_a_unit_beside_others_that_have_one(site_path: Path) -> None:
    with_labs(site_path, ("mg/dL", 1.0, 180), ("", 40.0, 25))
    assert refused(site_path).startswith(
        "itemid 50912 must be in mg/dL where it says none, got a median of 40, which looks like umol/L, from "
        "hosp/labevents.csv.gz. Set data.ehr.units: {50912: {'': umol/L}} if it is, {50912: {'': mg/dL}} if it is not."
    )
    assert value(make(site_path, ", units: {50912: {'': mg/dL}}"), "creatinine_max") == 40
    assert value(make(site_path, ", units: {50912: {'': umol/L}}"), "creatinine_min") == pytest.approx(0.4524, 1e-3)


@pytest.mark.parametrize("values", [("", 98.6, 30), ("°F", 98.6, 30), ("", 98.6, 6)])
def test_a_wrong_unit_that_throws_an_item_away_is_refused(site_path: Path, values: Values) -> None:
    with_charts(site_path, "223761", values)
    told = refused(site_path, ", units: {223761: degC}")
    num = values[2] + (values[0] == "")  # the small hospital has one more
    if values[0]:
        assert "must be in degC, as data.ehr.units says, got 'f' in 30 of 31 values (96.8%)" in told
    else:
        assert told == (
            f"itemid 223761 must lie within 10 to 50 degC, got {num} of {num} values (100.0%) outside, which look like "
            "degF, from icu/chartevents.csv.gz. Set data.ehr.units: {223761: degF} in place of what it says. [E205]"
        )


def test_a_wrong_unit_that_throws_nothing_away_is_refused_too(site_path: Path) -> None:
    with_labs(site_path, ("", 1.0, 100), item_id="50885")
    told = refused(site_path, ", units: {50885: umol/L}")
    assert told.startswith(
        "itemid 50885 must be in umol/L, as data.ehr.units says, got a median of 1, which looks like mg/dL, from "
        "hosp/labevents.csv.gz. Take it out of data.ehr.units"
    )
    facts = quality(make(site_path, ", units: {50885: {'': umol/L}}"))["concepts"]["bilirubin"]  # said twice
    assert facts["unusual_medians"]["50885"]["unit"] == "umol/L" and facts["max"] < 0.06


def test_an_item_that_is_lost_for_no_reason_that_is_known(site_path: Path) -> None:
    with_labs(site_path, ("", 40.0, 30), item_id="50820")  # nanomoles of H+
    assert refused(site_path) == (
        "itemid 50820 must lie within 6.8 to 8, got 31 of 31 values (100.0%) outside, from hosp/labevents.csv.gz. Set "
        "data.ehr.units: {50820: UNIT} if they are in another unit, {50820: units} if they are right, {50820: drop} if "
        "the item is another one here. [E205]"
    )
    assert quality(make(site_path, ", units: {50820: units}"))["concepts"]["ph"]["out_of_range"] == 31
    assert quality(make(site_path, ", units: {50820: drop}"))["concepts"]["ph"]["out_of_range"] == 0


def test_one_of_two_items_that_is_lost_is_a_loss(site_path: Path) -> None:
    with_charts(site_path, "226730", ("", 175, 100), ("", 70, 0))
    change(site_path, CHART, lambda rows: rows.extend([["10", "226707", "2150-01-02 12:00:00", "175", ""]] * 20))
    assert "itemid 226707 must be in in, got a median of 174, which looks like cm (95.2% of values" in refused(
        site_path
    )


def test_venous_gases_and_scores_of_the_intubated_are_no_unit(site_path: Path) -> None:
    with_labs(site_path, ("mm Hg", 32.0, 30), ("mm Hg", 90.0, 40), item_id="50821")
    change(site_path, CHART, lambda rows: rows.extend([["10", "223900", "2150-01-02 12:00:00", "0"]] * 30))
    facts = quality(make(site_path))["concepts"]
    assert (facts["po2"]["out_of_range"], facts["gcs_verbal"]["out_of_range"]) == (30, 31)
    assert {finding["result"] for finding in checked(site_path)[1]} == {"warn"}


def test_a_hospital_whose_values_are_unusual_states_its_unit(site_path: Path) -> None:
    with_labs(site_path, ("", 6.5, 120), item_id="50885")
    assert refused(site_path).endswith(
        "looks like umol/L, from hosp/labevents.csv.gz. Set data.ehr.units: {50885: umol/L} if it is, {50885: mg/dL} "
        "if it is not. [E205]"
    )
    cohort = make(site_path, ", units: {50885: mg/dL}")
    assert value(cohort, "bilirubin_max") == 6.5
    assert quality(cohort)["concepts"]["bilirubin"]["unusual_medians"]["50885"]["unit"] == "mg/dL"


@pytest.mark.parametrize(
    ("table", "item_id", "number", "own", "name", "unit", "canonical"),
    [
        ("chart", "220277", 0.97, "%", "spo2_max", "fraction", 97),
        ("chart", "220179", 16, "mmHg", "sbp_max", "kPa", 120.01),
        ("chart", "225310", 8, "mmHg", "dbp_max", "kPa", 60.005),
        ("chart", "220052", 10, "mmHg", "mbp_max", "kPa", 75.006),
        ("chart", "226512", 80_000, "kg", "weight_mean", "g", 80),
        ("lab", "51301", 9300, "K/uL", "wbc_max", "cells/uL", 9.3),
        ("lab", "51265", 190_000, "K/uL", "platelets_max", "cells/uL", 190),
        ("lab", "50861", 0.5, "IU/L", "alt_max", "ukat/L", 30),
        ("lab", "51006", 1.1, "mg/dL", "bun_max", "g/L", 51.37),
        ("lab", "50931", 1.1, "mg/dL", "glucose_lab_max", "g/L", 110),
    ],
)
def test_all_values_of_an_item_in_another_unit(
    site_path: Path, table: str, item_id: str, number: float, own: str, name: str, unit: str, canonical: float
) -> None:
    if table == "chart":
        more_charts(site_path, 30, itemid=item_id, valuenum=str(number))
    else:
        with_labs(site_path, ("", number, 30), item_id=item_id)
    told = refused(site_path)
    assert told.startswith(f"itemid {item_id} must be in {own}, got a median of ") and f"looks like {unit}" in told
    written = {"%": "'%'"}.get(own, own)
    assert f"Set data.ehr.units: {{{item_id}: {unit}}} if it is, {{{item_id}: {written}}} if it is not." in told
    assert value(make(site_path, f", units: {{{item_id}: {unit}}}"), name) == pytest.approx(canonical, rel=1e-5)


def test_all_breathe_oxygen(site_path: Path) -> None:
    more_charts(site_path, 300, itemid="220277", valuenum="100")
    assert value(make(site_path), "spo2_min") == 100


def test_a_median_that_is_usual_in_no_unit(site_path: Path) -> None:
    more_charts(site_path, 99, itemid="220277", valuenum="50")
    more_charts(site_path, 1, itemid="220277", valuenum="50")
    cohort = make(site_path)
    facts = quality(cohort)["concepts"]["spo2"]["unusual_medians"]["220277"]
    assert facts == {"unit": "%", "median": pytest.approx(50, rel=0.01), "low": 70, "high": 101}
    status, found = checked(site_path)
    assert status == 0 and {one["result"] for one in found} == {"warn"}
    expected = "spo2: item 220277 has a median of 49.9 %, usually 70 to 101"
    assert expected in {one["found"] for one in found}
    assert "a median of 49.9 %, usually 70 to 101" in cohort.path.with_name("readiness.html").read_text()


UNMISTAKABLE = ("sbp", "dbp", "mbp", "spo2", "alt", "ast", "alp")


@pytest.mark.parametrize("name", UNMISTAKABLE)
def test_usual_medians_of_two_units_do_not_overlap(name: str) -> None:
    concept = next(concept for concept in (*VITALS, *LABS) if concept.name == name)
    low, high = concept.concept.usual or (0, 0)
    for other in concept.concept.known_units[1:2]:  # nkat/L is as near to IU/L as a liver unit
        assert high / other.factor < low or high < low / other.factor


# --- further items ---


def prepared(site_path: Path, ehr: str) -> dict[str, Any]:
    """What is told of the concepts of a hospital with these settings."""
    return dict(quality(make(site_path, ehr))["concepts"])


def test_a_hospital_adds_item_ids(site_path: Path) -> None:
    with_charts(site_path, "9001", ("", 99.5, 3), ("°C", 38.0, 1))
    change(site_path, "icu/outputevents.csv.gz", lambda rows: rows.extend(
        [["10", "9002", "2150-01-02 12:00:00", "50"], ["10", "9003", "2150-01-02 12:00:00", "20"]]
    ))  # fmt: skip
    change(site_path, "icu/inputevents.csv.gz", lambda rows: rows.append(
        ["10", "9004", "2150-01-02 20:30:00", "2150-01-02 21:30:00"]
    ))  # fmt: skip
    change(site_path, "icu/procedureevents.csv.gz", lambda rows: rows.append(
        ["10", "9005", "2150-01-02 20:30:00", "2150-01-02 21:30:00"]
    ))  # fmt: skip
    before = make(site_path)
    cohort = make(site_path, ", items: {temperature: {9001: °F}, urine: {9002: mL, 9003: mL rinsed in}, "
                             "vasopressor: {9004: vasopressin}, noninvasive_ventilation: [9005]}")  # fmt: skip
    change_of = {name: value(cohort, name) - value(before, name) for name in (
        "temperature_count", "urine_sum", "vasopressor_hours", "vasopressor_drugs", "noninvasive_ventilation_hours",
    )}  # fmt: skip
    assert list(change_of.values()) == [4, 30, 1, 0, 1]
    told = quality(cohort)
    assert 9001 in told["concepts"]["temperature"]["item_ids"]
    assert told["concepts"]["temperature"]["units"]["9001"] == {"degC": 1, "without a unit": 3}
    assert 9004 in told["treatments"]["vasopressor"]["item_ids"]


def test_one_patient_is_no_median_of_a_sample(site_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_tables, "UNIT_ROWS", 70)
    with_charts(site_path, "224639", ("kg", 140, 40))
    change(site_path, CHART, lambda rows: rows.extend([["10", "1", "2150-01-02 12:00:00", "1", ""]] * 40))
    assert checked(site_path) == (0, [])
    assert "which looks like lb" in checked(site_path, "--deep")[1][0]["found"]
