"""The one schema of a prepared stay, as plain data: what is measured, in which unit, within which limits.

``first_day_1``: vitals, laboratory values and statics of the first day in intensive care. Preparation reads it to
know what to collect, models read it to know their columns, and its digest tells a cohort of another schema apart.

Sources of item ids, units and limits: [mimic-code] MIT-LCP/mimic-code, mimic-iv/concepts/measurement;
[ricu] eth-mds/ricu, extdata/config/concept-dict; [ours] a cap that neither of them gives.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

SCHEMA_NAME = "first_day_1"

ECG_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
ECG_HZ = 100
ECG_SECONDS = 10

Table = Literal["chartevents", "labevents"]
Aggregate = Literal["min", "max", "mean"]


@dataclass(frozen=True)
class Item:
    """One item id: a value is kept when ``low < value <= high`` and becomes ``value * factor + offset``.

    Limits are in the item's own unit, before conversion. mimic-code's limits leave out both ends; here the upper
    end is kept, because an SpO2 of 100 is a good one and no other value depends on it. An item id that comes in two
    units has a row for each, with limits that do not overlap.
    """

    item_id: int
    low: float
    high: float
    factor: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class Concept:
    """Something measured again and again: its items, its unit after conversion, and how the first day sums it up."""

    name: str
    unit: str
    table: Table
    items: tuple[Item, ...]
    aggregates: tuple[Aggregate, ...]

    @property
    def item_ids(self) -> tuple[int, ...]:
        """The raw item ids that feed the concept."""
        return tuple(item.item_id for item in self.items)


@dataclass(frozen=True)
class Feature:
    """One column of ``features.npy``. A categorical column holds the index into ``categories``, last one ``other``.

    A numeric value that is missing is NaN; a categorical value that is missing or unknown is ``other``.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    unit: str
    categories: tuple[str, ...] = ()


def _vital(name: str, unit: str, low: float, high: float, *item_ids: int) -> Concept:
    """A bedside value in one unit: minimum, maximum and mean."""
    items = tuple(Item(item_id, low, high) for item_id in item_ids)
    return Concept(name, unit, "chartevents", items, ("min", "max", "mean"))


def _score(name: str, lowest: int, highest: int, item_id: int, *aggregates: Aggregate) -> Concept:
    """A bedside score in whole steps, both ends included."""
    return Concept(name, "", "chartevents", (Item(item_id, lowest - 0.5, highest),), aggregates)


def _lab(name: str, unit: str, low: float, high: float, *item_ids: int) -> Concept:
    """A laboratory value: minimum and maximum."""
    return Concept(name, unit, "labevents", tuple(Item(item_id, low, high) for item_id in item_ids), ("min", "max"))


VITALS: tuple[Concept, ...] = (
    _vital("heart_rate", "bpm", 0, 300, 220045),  # [mimic-code] vitalsign.sql, also for the next seven
    _vital("sbp", "mmHg", 0, 400, 220179, 220050, 225309),
    _vital("dbp", "mmHg", 0, 300, 220180, 220051, 225310),
    _vital("mbp", "mmHg", 0, 300, 220181, 220052, 225312),
    _vital("resp_rate", "1/min", 0, 70, 220210, 224690),
    Concept(
        "temperature",
        "degC",
        "chartevents",
        (Item(223762, 10, 50), Item(223761, 70, 120, factor=5 / 9, offset=-160 / 9)),  # the second is in degF
        ("min", "max", "mean"),
    ),
    _vital("spo2", "%", 0, 100, 220277),
    _vital("glucose", "mg/dL", 0, 2000, 225664, 220621, 226537),  # cap [ours]
    Concept(
        "height",
        "cm",
        "chartevents",
        (Item(226730, 120, 230), Item(226707, 120 / 2.54, 230 / 2.54, factor=2.54)),  # [mimic-code] height.sql; inches
        ("mean",),
    ),
    Concept("weight", "kg", "chartevents", (Item(226512, 1, 500),), ("mean",)),  # [ricu] weight
    # [mimic-code] gcs.sql. NOTE[DIFF]: a verbal response under intubation counts as charted, not as normal.
    _score("gcs_eye", 1, 4, 220739, "min"),
    _score("gcs_verbal", 1, 5, 223900, "min"),
    _score("gcs_motor", 1, 6, 223901, "min"),
    Concept(
        "fio2",
        "%",
        "chartevents",
        # [mimic-code] bg.sql: a fraction or a percentage, and litres of oxygen in between; air has 20.9 % [ours]
        (Item(223835, 0.209, 1, factor=100.0), Item(223835, 20.9, 100)),
        ("max", "mean"),
    ),
    _score("rass", -5, 4, 228096, "min", "max"),  # [ricu] rass
)

# The laboratory's own system reports these numbers, so a rare true value is likelier than a typing error and the wider
# limits win. Lower end: 0 [mimic-code]. Upper end: [mimic-code] chemistry.sql, complete_blood_count.sql, enzyme.sql
# where it caps at all (its 10000 is none), else [ricu] or as marked; 100000 where nobody caps [ours]. Gases: [ricu].
LABS: tuple[Concept, ...] = (
    _lab("albumin", "g/dL", 0, 10, 50862),
    _lab("anion_gap", "mEq/L", 0, 50, 50868),  # upper end: YerevaNN/mimic3-benchmarks
    _lab("bicarbonate", "mEq/L", 0, 50, 50882),
    _lab("bun", "mg/dL", 0, 300, 51006),
    _lab("calcium", "mg/dL", 0, 20, 50893),
    _lab("chloride", "mEq/L", 0, 200, 50902),  # [ours]: ricu's 130 is met in severe hypernatraemia
    _lab("creatinine", "mg/dL", 0, 150, 50912),
    # Cap [ours]: as at the bedside, for ricu's 1000 is passed in crises. The second is the blood gas's: bg.sql.
    _lab("glucose_lab", "mg/dL", 0, 2000, 50931, 50809),
    _lab("sodium", "mEq/L", 0, 200, 50983),
    _lab("potassium", "mEq/L", 0, 30, 50971),
    _lab("magnesium", "mg/dL", 0, 20, 50960),  # [ours]: ricu's 5 is passed under treatment
    _lab("phosphate", "mg/dL", 0, 40, 50970),
    _lab("hematocrit", "%", 0, 100, 51221),  # a percentage
    _lab("hemoglobin", "g/dL", 0, 30, 51222),  # [ours]: ricu's 18 is passed in polycythaemia
    _lab("platelets", "K/uL", 0, 5000, 51265),  # [ours]
    _lab("wbc", "K/uL", 0, 1000, 51301),  # [ours]
    _lab("rdw", "%", 0, 100, 51277),
    _lab("inr", "", 0, 100_000, 51237),
    _lab("pt", "s", 0, 100_000, 51274),
    _lab("ptt", "s", 0, 100_000, 51275),
    _lab("bilirubin", "mg/dL", 0, 100, 50885),
    _lab("alt", "IU/L", 0, 100_000, 50861),
    _lab("ast", "IU/L", 0, 100_000, 50878),
    _lab("alp", "IU/L", 0, 100_000, 50863),
    _lab("lactate", "mmol/L", 0, 50, 50813),
    _lab("ph", "", 6.8, 8, 50820),
    _lab("pco2", "mmHg", 10, 150, 50818),
    _lab("po2", "mmHg", 40, 600, 50821),
    _lab("base_excess", "mEq/L", -25, 25, 50802),
    _lab("troponin_t", "ng/mL", 0, 100_000, 51003),  # [mimic-code] cardiac_marker.sql, also for the next two
    _lab("ck_mb", "ng/mL", 0, 100_000, 50911),
    _lab("nt_probnp", "pg/mL", 0, 100_000, 50963),
    _lab("crp", "mg/L", 0, 100_000, 50889),  # [mimic-code] inflammation.sql
)

CONCEPTS: tuple[Concept, ...] = VITALS + LABS

# For each categorical static: category -> words, one of which the raw value contains (case does not matter).
# The first category that matches wins, so "Trauma SICU" is trauma and "MICU/SICU" is medical; no match is "other".
CATEGORY_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "sex": {"female": ("f",), "male": ("m",)},
    "admission_type": {
        "emergency": ("emer",),
        "observation": ("observation",),
        "urgent": ("urgent",),
        "surgical_same_day": ("surgical same day",),
        "elective": ("elective",),
    },
    "admission_location": {
        "emergency_room": ("emergency room",),
        "facility": ("skilled nursing", "psych"),
        "hospital": ("transfer from hospital",),
        "procedure": ("procedure", "pacu", "surgery"),
        "referral": ("referral",),
    },
    "careunit_kind": {
        "neuro": ("neuro",),
        "trauma": ("trauma",),
        "cardiac": ("cardi", "coronary"),
        "medical": ("medic",),
        "surgical": ("surg",),
    },
    "insurance": {"medicare": ("medicare",), "medicaid": ("medicaid",), "private": ("private",)},
    "marital_status": {
        "married": ("married",),
        "single": ("single",),
        "widowed": ("widowed",),
        "divorced": ("divorced",),
    },
    "race": {  # white before asian: "caucasian" holds both words
        "hispanic": ("hispanic", "latino"),
        "white": ("white", "caucasian"),
        "asian": ("asian",),
        "black": ("black",),
    },
}


def category_of(feature_name: str, raw_value: str | None) -> str:
    """The category of a raw value, ``other`` when it is missing or matches none.

    Example:
        >>> category_of("careunit_kind", "Trauma SICU (TSICU)"), category_of("careunit_kind", None)
        ('trauma', 'other')
    """
    lowered = (raw_value or "").lower()
    for category, words in CATEGORY_WORDS[feature_name].items():
        if any(word in lowered for word in words):
            return category
    return "other"


def _categorical(name: str) -> Feature:
    """A categorical feature with the fixed categories of the schema."""
    return Feature(name, "categorical", "", (*CATEGORY_WORDS[name], "other"))


STATICS: tuple[Feature, ...] = (
    Feature("age", "numeric", "years"),
    _categorical("sex"),
    _categorical("admission_type"),
    _categorical("admission_location"),
    _categorical("careunit_kind"),
    _categorical("insurance"),
    _categorical("marital_status"),
    _categorical("race"),
    Feature("icu_admission_hour", "numeric", "h"),
    Feature("hours_to_icu", "numeric", "h"),
    Feature("num_earlier_admissions", "numeric", ""),
    Feature("num_earlier_icu_stays", "numeric", ""),
)

FEATURES: tuple[Feature, ...] = STATICS + tuple(
    Feature(f"{concept.name}_{aggregate}", "numeric", concept.unit)
    for concept in CONCEPTS
    for aggregate in concept.aggregates
)

# Hourly means; height and weight do not change by the hour.
GRID_CHANNELS: tuple[str, ...] = tuple(concept.name for concept in CONCEPTS if concept.name not in ("height", "weight"))

# What an EHR token is for attention where an encoder keeps columns apart: an organ system or a side of the history.
SYSTEMS: dict[str, tuple[str, ...]] = {
    "person": ("age", "sex", "race", "marital_status", "insurance", "height", "weight"),
    "admission": ("admission_type", "admission_location", "careunit_kind", "icu_admission_hour", "hours_to_icu"),
    "history": ("num_earlier_admissions", "num_earlier_icu_stays"),
    "consciousness": ("gcs_eye", "gcs_verbal", "gcs_motor", "rass"),
    "circulation": ("heart_rate", "sbp", "dbp", "mbp"),
    "respiration": ("resp_rate", "spo2", "fio2"),
    "gases": ("ph", "pco2", "po2", "base_excess", "lactate"),
    "inflammation": ("temperature", "wbc", "crp"),
    "kidney": ("bun", "creatinine"),
    "electrolytes": (
        "sodium", "potassium", "chloride", "bicarbonate", "anion_gap", "calcium", "magnesium", "phosphate",
    ),
    "metabolism": ("glucose", "glucose_lab"),
    "blood": ("hematocrit", "hemoglobin", "platelets", "rdw"),
    "coagulation": ("inr", "pt", "ptt"),
    "liver": ("albumin", "bilirubin", "alt", "ast", "alp"),
    "heart": ("troponin_t", "ck_mb", "nt_probnp"),
}  # fmt: skip

# Evaluation is also reported by discharge disease (prefixes: client/mimic_iv/diagnoses.py). Never a feature.
DISEASES: tuple[str, ...] = (
    "diabetes",
    "lung_cancer",
    "sepsis",
    "acute_myocardial_infarction",
    "dysrhythmia",
    "electrolyte_disorder",
    "chronic_kidney_disease",
    "heart_failure",
    "pneumonia",
    "kidney_failure",
)


def schema_digest() -> str:
    """sha256 (hex) of the whole schema: names, items, limits, conversions, categories, channels and leads."""
    schema = (SCHEMA_NAME, CONCEPTS, CATEGORY_WORDS, FEATURES, GRID_CHANNELS, ECG_LEADS, ECG_HZ, ECG_SECONDS)
    return hashlib.sha256(repr(schema).encode()).hexdigest()
