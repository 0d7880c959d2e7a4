"""The schema: consistent in itself, and its digest follows every part of it."""

from itertools import pairwise

import pytest

from lemof_model import features as schema
from lemof_model.features import CONCEPTS, FEATURES, GRID_CHANNELS, category_of, schema_digest


def test_names_and_items_are_there_once() -> None:
    names = [feature.name for feature in FEATURES]
    assert len(set(names)) == len(names) == 111
    items = [item_id for concept in CONCEPTS for item_id in set(concept.item_ids)]
    assert len(set(items)) == len(items)
    assert len(set(GRID_CHANNELS)) == len(GRID_CHANNELS) == 46


def test_units_of_one_item_do_not_overlap() -> None:
    items = sorted((item.item_id, item.low, item.high) for concept in CONCEPTS for item in concept.items)
    twice = [(one, other) for one, other in pairwise(items) if one[0] == other[0]]
    assert [one[0] for one, _ in twice] == [223835]
    assert all(one[2] <= other[1] for one, other in twice)


def test_categoricals_end_with_other() -> None:
    for feature in FEATURES:
        assert (feature.kind == "categorical") == bool(feature.categories)
        assert not feature.categories or feature.categories[-1] == "other"


def test_limits_are_in_order_and_conversions_right() -> None:
    for concept in CONCEPTS:
        assert all(item.low < item.high for item in concept.items)
    temperature = next(concept for concept in CONCEPTS if concept.name == "temperature")
    fahrenheit = temperature.items[1]
    assert 212 * fahrenheit.factor + fahrenheit.offset == pytest.approx(100)
    assert 32 * fahrenheit.factor + fahrenheit.offset == pytest.approx(0)


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
    monkeypatch.setattr(schema, "CONCEPTS", CONCEPTS[:-1])
    assert schema_digest() != before
