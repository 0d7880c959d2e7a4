"""Values in another unit than the one they are taken for: all of an item's, or some of them."""

import json
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from client import cli
from client.mimic_iv.labs import read_labs
from client.mimic_iv.units import MAX_SPELLINGS, Spellings
from client.site import load_site
from lemof_model.concepts import LABS, VITALS
from lemof_model.errors import DataError
from tests.client.mimic_iv.test_broken_tables import change, make, more_charts, quality, value

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


def checked(site_path: Path, *options: str) -> tuple[int, list[dict[str, str]]]:
    """The exit status of ``check`` and its findings about units."""
    status = cli.run(["--site", str(site_path), "check", "--no-server", *options])
    findings = json.loads((site_path.parent / "check.json").read_text())["findings"]
    return status, [finding for finding in findings if finding["code"] == "E205"]


def test_some_values_of_an_item_in_another_unit(site_path: Path) -> None:
    with_labs(site_path, ("mg/dL", 1.0, 180), ("umol/L", 88.42, 120))
    got = (
        "itemid 50912 must be in one unit (mg/dL), got values whose unit is 'umol/l' with a median of 88.2, which looks"
    )
    for options in ((), ("--deep",)):
        status, (found,) = checked(site_path, *options)
        assert status == 4
        assert found["found"] == f"{got} like umol/L, from hosp/labevents.csv.gz."
        assert found["fix"] == "Mend the export: all values of an item in one unit."
    with pytest.raises(DataError, match=r"one unit \(mg/dL\), got values whose unit is 'umol/l' with .* \[E205\]$"):
        make(site_path)
    with pytest.raises(DataError, match=r"one unit \(umol/L\), got values whose unit is 'mg/dl' with .* like mg/dL, "):
        make(site_path, ", units: {50912: umol/L}")


def test_some_values_without_a_unit(site_path: Path) -> None:
    with_labs(site_path, ("mg/dL", 1.0, 180), ("", 88.42, 120))
    with pytest.raises(DataError, match=r"one unit \(mg/dL\), got values whose unit is empty with a median of 88"):
        make(site_path)


@pytest.mark.parametrize(
    "values",
    [
        [("mg/dl", 1.0, 120), ("mg/dL", 1.1, 120), ("MG/DL", 0.9, 120)],
        [("mg/dL", 1.0, 300), ("MG/dl", 5.5, 99), ("mg/dl ", 5.5, 99)],  # one spelling, of the sickest
        [("umol/L", 1.0, 120)],  # the spelling alone decides nothing
        [("mg/dL", 1.0, 300), ("umol/L", 88.42, 99)],  # so few may be one patient's
    ],
)
def test_values_that_agree(site_path: Path, values: list[Values]) -> None:
    with_labs(site_path, *values)
    assert checked(site_path, "--deep") == (0, [])
    cohort = make(site_path)
    assert value(cohort, "creatinine_count") == sum(num for _, _, num in values)
    assert quality(cohort)["columns_absent"] == {} and quality(cohort)["tables"]["labevents"]["time_unreadable"] == 0
    assert not any("valueuom" in finding["found"] for finding in checked(site_path)[1])


@pytest.mark.parametrize(
    "values",
    [[("umol/L", 88.42, 120), ("µmol/l", 84, 120)], [("", 88.42, 30)], [("umol/L", 88.42, 500), ("uM", 2500, 120)]],
)
def test_all_values_of_an_item_in_another_unit(site_path: Path, values: list[Values]) -> None:
    with_labs(site_path, *values)
    message = (
        r"itemid 50912 must be in mg/dL, got a median of 8\d.*, which looks like umol/L, from .* Set data\.ehr\.units"
    )
    with pytest.raises(DataError, match=message):
        make(site_path)
    assert value(make(site_path, ", units: {50912: umol/L}"), "creatinine_min") == pytest.approx(1, rel=0.06)


def test_many_small_parts_beside_one_in_another_unit(site_path: Path) -> None:
    with_labs(site_path, *((f"mg/dL {letter}", 1.0, 90) for letter in "abc"), ("umol/L", 88.42, 120))
    with pytest.raises(DataError, match=r"one unit \(mg/dL\), got values whose unit is 'umol/l' with a median of 88"):
        make(site_path)


def test_a_unit_declared_by_mistake(site_path: Path) -> None:
    with_labs(site_path, ("mg/dL", 1.0, 100))
    facts = quality(make(site_path, ", units: {50912: umol/L}"))["concepts"]["creatinine"]
    assert facts["unusual_medians"]["50912"]["unit"] == "umol/L" and facts["max"] < 0.02


def test_a_hospital_whose_values_are_unusual_states_its_unit(site_path: Path) -> None:
    with_labs(site_path, ("mg/dL", 6.5, 120), item_id="50885")
    message = (
        r"looks like umol/L, from .* Set data\.ehr\.units: {50885: umol/L} if it is, {50885: mg/dL} if it is not\."
    )
    with pytest.raises(DataError, match=message):
        make(site_path)
    cohort = make(site_path, ", units: {50885: mg/dL}")
    assert value(cohort, "bilirubin_max") == 6.5
    assert quality(cohort)["concepts"]["bilirubin"]["unusual_medians"]["50885"]["unit"] == "mg/dL"


def test_the_column_of_units_by_another_name(site_path: Path) -> None:
    with_labs(site_path, ("mg/dL", 1.0, 180), ("umol/L", 88.42, 120))
    change(site_path, LABEVENTS, lambda rows: rows[0].__setitem__(6, "unit"))
    make(site_path)  # nothing tells them apart
    with pytest.raises(DataError, match=r"got values whose unit is 'umol/l'"):
        make(site_path, ", columns: {labevents: {valueuom: unit}}")


def test_units_as_categories_of_parquet(site_path: Path) -> None:
    with_labs(site_path, ("mg/dL", 1.0, 180), ("umol/L", 88.42, 120))
    path = site_path.parent / LABEVENTS
    pl.read_csv(path).with_columns(pl.col("valueuom").cast(pl.Categorical)).write_parquet(
        path.with_name("labevents.parquet")
    )
    path.unlink()
    with pytest.raises(DataError, match=r"got values whose unit is 'umol/l' .* from hosp/labevents\.parquet"):
        make(site_path)


def test_free_text_in_place_of_units_keeps_the_summary_small(site_path: Path, tmp_path: Path) -> None:
    num = 20 * MAX_SPELLINGS
    texts = [(f"seen by nurse {row}", 1.0, 1) for row in range(num)]
    with_labs(site_path, *texts)
    stays = pl.DataFrame({"row": [0], "subject_id": [1], "intime": [datetime(2150, 1, 2, 0, 30)]})
    labs = read_labs(load_site(site_path), stays, 24, tmp_path / "labs.parquet").summary
    assert labs["num"].sum() == labs.filter(pl.col("itemid") != 50912)["num"].sum() + num
    assert labs["spelling"].n_unique() <= MAX_SPELLINGS + 1 and labs.height < 2 * MAX_SPELLINGS
    assert value(make(site_path), "creatinine_count") == num


def test_no_digit_of_what_may_be_no_unit_is_told(site_path: Path) -> None:
    with_labs(site_path, ("mg/dL", 1.0, 180), ("see 88.42", 88.42, 120))
    with pytest.raises(DataError, match=r"got values whose unit is 'see 99\.99' with"):
        make(site_path)


def test_what_is_kept_of_spellings() -> None:
    spelled = ["mg/dL", "141", " ", "%", None, "a sentence that is no unit at all", "10*3/µL"]
    kept = Spellings().kept(pl.Series(spelled)).to_list()
    assert kept == ["mg/dl", None, None, "%", None, None, "10*3/ul"]
    spellings = Spellings()
    first, second = (pl.Series([f"{letter}{row}" for row in range(MAX_SPELLINGS)]) for letter in "ab")
    assert spellings.kept(first).equals(first)
    assert spellings.kept(second).is_null().all() and spellings.kept(first).equals(first)


@pytest.mark.parametrize(
    ("item_id", "number", "own", "name", "unit", "canonical"),
    [
        ("220277", 0.97, "%", "spo2_max", "fraction", 97),
        ("220179", 16, "mmHg", "sbp_max", "kPa", 120.01),
        ("225310", 8, "mmHg", "dbp_max", "kPa", 60.005),
        ("220052", 10, "mmHg", "mbp_max", "kPa", 75.006),
    ],
)
def test_vitals_in_another_unit(
    site_path: Path, item_id: str, number: float, own: str, name: str, unit: str, canonical: float
) -> None:
    more_charts(site_path, 30, itemid=item_id, valuenum=str(number))
    message = rf"itemid {item_id} must be in {own}, got a median of .*, which looks like {unit}, from icu/chartevents"
    with pytest.raises(DataError, match=message):
        make(site_path)
    (found,) = checked(site_path, "--deep")[1]
    assert found["fix"] == f"Set data.ehr.units: {{{item_id}: {unit}}} if it is, {{{item_id}: {own}}} if it is not."
    assert value(make(site_path, f", units: {{{item_id}: {unit}}}"), name) == pytest.approx(canonical, rel=1e-5)


@pytest.mark.parametrize(
    ("item_id", "number", "own", "name", "unit", "canonical"),
    [
        ("51301", 9300, "K/uL", "wbc_max", "cells/uL", 9.3),
        ("51265", 190_000, "K/uL", "platelets_max", "cells/uL", 190),
        ("50861", 0.5, "IU/L", "alt_max", "ukat/L", 30),
    ],
)
def test_laboratory_values_in_another_unit(
    site_path: Path, item_id: str, number: float, own: str, name: str, unit: str, canonical: float
) -> None:
    with_labs(site_path, ("", number, 30), item_id=item_id)
    with pytest.raises(
        DataError, match=rf"itemid {item_id} must be in {own}, got a median of .*, which looks like {unit}"
    ):
        make(site_path)
    assert value(make(site_path, f", units: {{{item_id}: {unit}}}"), name) == pytest.approx(canonical)


def test_all_breathe_oxygen(site_path: Path) -> None:
    more_charts(site_path, 300, itemid="220277", valuenum="100")
    assert value(make(site_path), "spo2_min") == 100


def test_a_median_that_is_usual_in_no_unit(site_path: Path) -> None:
    more_charts(site_path, 99, itemid="220277", valuenum="50")
    more_charts(site_path, 1, itemid="220277", valuenum="50")
    cohort = make(site_path)
    facts = quality(cohort)["concepts"]["spo2"]["unusual_medians"]["220277"]
    assert facts == {"unit": "%", "median": pytest.approx(50, rel=0.01), "low": 70, "high": 101}
    status, (found,) = checked(site_path)
    assert (status, found["result"], found["fix"]) == (0, "warn", "Is its unit this hospital's?")
    assert found["found"] == "spo2: itemid 220277 has a median of 49.9 %, usually 70 to 101"
    assert "a median of 49.9 %, usually 70 to 101" in cohort.path.with_name("readiness.html").read_text()
    more_charts(site_path, 100, itemid="223761", valuenum="140")
    make(site_path)
    assert "temperature: itemid 223761 has a median of 140 degF, usually 93.2 to 104" in {
        finding["found"] for finding in checked(site_path)[1]
    }


UNMISTAKABLE = ("sbp", "dbp", "mbp", "spo2", "platelets", "wbc", "alt", "ast", "alp")


@pytest.mark.parametrize("name", UNMISTAKABLE)
def test_usual_medians_of_two_units_do_not_overlap(name: str) -> None:
    concept = next(concept for concept in (*VITALS, *LABS) if concept.name == name)
    (other,) = concept.other_units
    low, high = concept.usual or (0, 0)
    assert high / other.factor < low or high < low / other.factor
