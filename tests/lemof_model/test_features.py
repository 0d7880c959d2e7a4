"""The schema: consistent in itself, and its digest follows every part of it."""

from itertools import pairwise

import pytest

from lemof_model import features as schema
from lemof_model.categories import category_of
from lemof_model.concepts import LABS, TREATMENTS, VITALS
from lemof_model.features import (
    CONCEPTS,
    FEATURES,
    GCS_PARTS,
    GRID_CHANNELS,
    MEASURED,
    STATICS,
    schema_digest,
)


def test_names_and_items_are_there_once() -> None:
    names = [feature.name for feature in FEATURES]
    assert len(set(names)) == len(names) == 236
    measured = [item_id for concept in MEASURED for item_id in concept.item_ids]
    items = measured + [item_id for treatment in TREATMENTS for item_id in treatment.item_ids]
    assert len(set(items)) == len(items)
    assert len(set(GRID_CHANNELS)) == len(GRID_CHANNELS) == 46


def test_units_of_one_item_do_not_overlap() -> None:
    """Of values that have no unit beside them: each is in one of at most two units."""
    two: dict[str, None] = {}
    for concept in MEASURED:
        for item_id in concept.item_ids:
            units = sorted(concept.units_without(item_id), key=lambda unit: unit.low)
            assert 1 <= len(units) <= 2
            assert all(one.high <= other.low for one, other in pairwise(units)), item_id
            two |= {concept.name: None} if len(units) == 2 else {}
    assert list(two) == ["temperature", "spo2", "height", "fio2", "hematocrit"]


def test_categoricals_end_with_other() -> None:
    for feature in FEATURES:
        assert (feature.kind == "categorical") == bool(feature.categories)
        assert not feature.categories or feature.categories[-1] == "other"


def test_limits_are_in_order_and_conversions_right() -> None:
    for concept in MEASURED:
        assert all(unit.low < unit.high for unit in concept.units.values())
        assert max(map(abs, concept.limits)) <= 100_000.01  # what ``first_day`` has room for
    temperature = next(concept for concept in CONCEPTS if concept.name == "temperature")
    fahrenheit = temperature.items[1]
    assert 212 * fahrenheit.factor + fahrenheit.offset == pytest.approx(100)
    assert 32 * fahrenheit.factor + fahrenheit.offset == pytest.approx(0)


def test_every_feature_tells_its_concept_source_and_range() -> None:
    concepts = {concept.name for concept in MEASURED} | {treatment.name for treatment in TREATMENTS} | {"gcs_total"}
    assert {feature.concept for feature in FEATURES} == concepts | {feature.concept for feature in STATICS}
    for feature in FEATURES:
        assert feature.table, feature.name
        assert bool(feature.item_ids) == bool(feature.aggregate) == (feature not in STATICS), feature.name
        assert feature.kind == "categorical" or feature.low is not None, feature.name
        assert feature.high is None or feature.low is None or feature.low < feature.high, feature.name


def test_what_the_first_day_sums_up() -> None:
    kinds = {concept.name: concept.aggregates for concept in CONCEPTS}
    assert kinds["heart_rate"] == ("min", "max", "mean", "first", "last", "count")
    assert {kinds[concept.name] for concept in LABS} == {("min", "max", "last", "count")}
    assert all({"min", "last", "count"} <= set(kinds[part]) for part in GCS_PARTS)
    assert all("count" in concept.aggregates for concept in CONCEPTS if concept.name in GRID_CHANNELS)


def test_other_units_say_the_same_value() -> None:
    for concept in (*VITALS, *LABS):
        for unit in concept.other_units:
            ends = [end * unit.factor + unit.offset for end in (unit.low, unit.high)]
            assert ends == pytest.approx(concept.limits), (concept.name, unit.name)
        for unit in concept.certain:
            known = concept.units[unit.name]
            assert (unit.factor, unit.offset) == (known.factor, known.offset)
            assert known.low <= unit.low and unit.high <= known.high
    glucose = next(concept for concept in LABS if concept.name == "glucose_lab")
    assert glucose.units["mmol/L"].factor * 5.55 == pytest.approx(100, abs=0.1)
    creatinine = next(concept for concept in LABS if concept.name == "creatinine")
    assert creatinine.units["umol/L"].factor * 88.42 == pytest.approx(1)


def test_a_hospital_declares_the_unit_of_one_item() -> None:
    temperature = next(concept for concept in VITALS if concept.name == "temperature")
    declared = temperature.declared({223761: "degC", 50912: "umol/L", 226329: "drop"}, {7: "\u00b0F", 8: None})
    assert {item.item_id: item.unit.name for item in declared.items} == {
        223762: "degC", 223761: "degC", 227632: "degC", 227634: "degC", 7: "degF", 8: "degC"
    }  # fmt: skip
    assert [item.item_id for item in declared.items if item.is_stated] == [223761]
    assert declared.limits == temperature.limits and set(declared.units) == set(temperature.units)
    assert temperature.declared({}, {}) == temperature
    everything = dict.fromkeys(temperature.item_ids, "drop")
    assert temperature.declared(everything, {}).items == () and temperature.declared(everything, {}).limits == (10, 50)


def test_what_spellings_mean_at_a_hospital() -> None:
    creatinine = next(concept for concept in LABS if concept.name == "creatinine")
    declared = creatinine.declared({50912: {"MG/DL": "\u00b5mol/l", "kat": "drop", "N/A": "mg/L"}}, {})
    known = declared.units_spelled(50912)
    assert [unit.name for spelling in ("mg/dl", "umol/l") if (unit := known[spelling])] == ["umol/L", "umol/L"]
    assert known["kat"] is None and "kat" not in declared.units_spelled(52024)
    assert [unit.name for unit in declared.units_without(50912)] == ["mg/L"]
    assert [unit.name for unit in declared.units_without(52024)] == ["mg/dL"]
    assert creatinine.declared({50912: {"": "drop"}}, {}).units_without(50912) == ()
    stated = creatinine.declared({50912: "umol/L"}, {})
    assert set(stated.units_spelled(50912)) == set(stated.units["umol/L"].spellings)


@pytest.mark.parametrize(
    ("feature", "raw", "category"),
    [
        ("sex", "F", "female"),
        ("sex", "M", "male"),
        ("sex", None, "other"),
        ("careunit_kind", "Cardiac Vascular Intensive Care Unit (CVICU)", "cardiac"),
        ("careunit_kind", "Coronary Care Unit (CCU)", "cardiac"),
        ("careunit_kind", "Neuro Surgical Intensive Care Unit (Neuro SICU)", "neuro"),
        ("careunit_kind", "Trauma SICU (TSICU)", "trauma"),
        ("careunit_kind", "Medical/Surgical Intensive Care Unit (MICU/SICU)", "medical"),
        ("careunit_kind", "Surgical Intensive Care Unit (SICU)", "surgical"),
        ("careunit_kind", "PACU", "other"),
        ("admission_type", "EW EMER.", "emergency"),
        ("admission_type", "DIRECT OBSERVATION", "observation"),
        ("admission_type", "SURGICAL SAME DAY ADMISSION", "surgical_same_day"),
        ("admission_location", "TRANSFER FROM SKILLED NURSING FACILITY", "facility"),
        ("admission_location", "TRANSFER FROM HOSPITAL", "hospital"),
        ("admission_location", "AMBULATORY SURGERY TRANSFER", "procedure"),
        ("admission_location", "WALK-IN/SELF REFERRAL", "referral"),
        ("admission_location", "INFORMATION NOT AVAILABLE", "other"),
        ("insurance", "Medicare", "medicare"),
        ("insurance", "Medicaid", "medicaid"),
        ("insurance", "Private", "private"),
        ("insurance", "No charge", "other"),
        ("marital_status", "WIDOWED", "widowed"),
        ("marital_status", None, "other"),
        ("race", "WHITE - BRAZILIAN", "white"),
        ("race", "Caucasian", "white"),
        ("race", "BLACK/CAPE VERDEAN", "black"),
        ("race", "HISPANIC/LATINO - CUBAN", "hispanic"),
        ("race", "ASIAN - SOUTH EAST ASIAN", "asian"),
        ("race", "AMERICAN INDIAN/ALASKA NATIVE", "other"),
        ("race", "UNKNOWN", "other"),
    ],
)
def test_raw_values_of_mimic(feature: str, raw: str | None, category: str) -> None:
    assert category_of(feature, raw) == category


def test_the_digest_follows_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    before = schema_digest()
    for part, other in {"MEASURED": MEASURED[:-1], "SPELLINGS": {}, "NINES": ()}.items():
        with monkeypatch.context() as changed:
            changed.setattr(schema, part, other)
            assert schema_digest() != before
