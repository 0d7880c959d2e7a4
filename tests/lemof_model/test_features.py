"""The schema: consistent in itself, and its digest follows every part of it."""

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


def test_names_are_there_once() -> None:
    names = [feature.name for feature in FEATURES]
    assert len(set(names)) == len(names) == 236
    assert len(set(GRID_CHANNELS)) == len(GRID_CHANNELS) == 46


def test_categoricals_end_with_other() -> None:
    for feature in FEATURES:
        assert (feature.kind == "categorical") == bool(feature.categories)
        assert not feature.categories or feature.categories[-1] == "other"


def test_limits_are_in_order_and_conversions_right() -> None:
    for concept in MEASURED:
        assert all(unit.low < unit.high for unit in concept.units.values())
        assert max(map(abs, concept.limits)) <= 100_000.01  # what ``first_day`` has room for
    temperature = next(concept for concept in CONCEPTS if concept.name == "temperature")
    fahrenheit = temperature.units["degF"]
    assert 212 * fahrenheit.factor + fahrenheit.offset == pytest.approx(100)
    assert 32 * fahrenheit.factor + fahrenheit.offset == pytest.approx(0)


def test_every_feature_tells_its_concept_source_and_range() -> None:
    concepts = {concept.name for concept in MEASURED} | {treatment.name for treatment in TREATMENTS} | {"gcs_total"}
    assert {feature.concept for feature in FEATURES} == concepts | {feature.concept for feature in STATICS}
    for feature in FEATURES:
        assert bool(feature.aggregate) == (feature not in STATICS), feature.name
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
        for unit in concept.known_units:
            if concept.name == "temperature" and unit.name == "degF":
                continue  # its limits are of its own: a body of 49 degC is none in either
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
