"""The one schema of a prepared stay, as plain data: every column, what it sums up, its unit and its limits.

``first_day_2``: vitals, laboratory values, urine, treatments and statics of the first day in intensive care.
Preparation reads it to know what to collect, models read it to know their columns, ``docs/features.md`` is printed from
it, and its digest tells a cohort of another schema apart. What is measured: ``concepts``. Nothing here says where in a
hospital's tables it stands: that is its layout's.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Literal

from lemof_model.categories import CATEGORY_WORDS, ONE_OF, OTHER, OTHER_FIRST
from lemof_model.categories import category_of as category_of
from lemof_model.concepts import LABS, TREATMENTS, URINE, VITALS
from lemof_model.items import NINES, Concept, Treatment
from lemof_model.spellings import SPELLINGS

SCHEMA_NAME = "first_day_2"

ECG_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
ECG_HZ = 100
ECG_SECONDS = 10

CONCEPTS: tuple[Concept, ...] = VITALS + LABS
"""What is measured at the bedside and in the laboratory, in the order of its features."""

MEASURED: tuple[Concept, ...] = (*CONCEPTS, URINE)
"""Everything that has a value at a time."""


@dataclass(frozen=True)
class Feature:
    """One column of ``features.npy``. A categorical column holds the index into ``categories``, last one ``other``.

    A numeric value that is missing is NaN; a categorical value that is missing or unknown is ``other``. ``concept`` is
    what the column says something about (a static's is its own name), ``aggregate`` how; ``low`` and ``high`` are the
    plausible range.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    unit: str
    categories: tuple[str, ...] = ()
    concept: str = ""
    aggregate: str = ""
    low: float | None = None
    high: float | None = None


# Known from the codes of earlier, ended admissions. Prefixes: ``icd``.
COMORBIDITIES: tuple[str, ...] = (
    "myocardial_infarct",
    "congestive_heart_failure",
    "peripheral_vascular_disease",
    "cerebrovascular_disease",
    "dementia",
    "chronic_pulmonary_disease",
    "rheumatic_disease",
    "peptic_ulcer_disease",
    "liver_disease",
    "diabetes",
    "paraplegia",
    "renal_disease",
    "malignancy",
    "metastatic_tumor",
    "aids",
)


def _number(name: str, unit: str, low: float, high: float) -> Feature:
    """A numeric static with its plausible range."""
    return Feature(name, "numeric", unit, concept=name, low=low, high=high)


def _category(name: str) -> Feature:
    """A categorical static with the fixed categories of the schema."""
    return Feature(name, "categorical", "", (*CATEGORY_WORDS[name], OTHER), concept=name)


def features_of(concept: Concept) -> tuple[Feature, ...]:
    """The columns of something measured; nothing measured is a count of 0, and NaN in the others."""
    low, high = concept.limits
    limits: dict[str, tuple[float, float | None]] = {"count": (0.0, None), "sum": (0.0, None)}
    return tuple(
        Feature(
            f"{concept.name}_{aggregate}",
            "numeric",
            "" if aggregate == "count" else concept.unit,
            concept=concept.name,
            aggregate=aggregate,
            low=limits.get(aggregate, (low, high))[0],
            high=limits.get(aggregate, (low, high))[1],
        )
        for aggregate in concept.aggregates
    )


def _summaries(treatment: Treatment) -> tuple[Feature, ...]:
    """The columns of a treatment; one that was not given is 0."""
    units = {"given": "0/1", "hours": "h", "drugs": ""}
    highs = {"given": 1.0, "hours": None, "drugs": float(len(treatment.drugs))}
    return tuple(
        Feature(
            f"{treatment.name}_{summary}",
            "numeric",
            units[summary],
            concept=treatment.name,
            aggregate=summary,
            low=0.0,
            high=highs[summary],
        )
        for summary in treatment.summaries
    )


STATICS: tuple[Feature, ...] = (
    _number("age", "years", 0, 120),
    _category("sex"),
    _category("admission_type"),
    _category("admission_location"),
    _category("careunit_kind"),
    _category("insurance"),
    _category("marital_status"),
    _category("race"),
    _number("icu_admission_hour", "h", 0, 23),
    _number("hours_to_icu", "h", -24, 8760),
    _number("num_earlier_admissions", "", 0, 1000),
    _number("num_earlier_icu_stays", "", 0, 1000),
    _number("hours_since_discharge", "h", 0, 250_000),
    *(replace(_number(f"earlier_{name}", "0/1", 0, 1), concept="comorbidities") for name in COMORBIDITIES),
)

GCS_PARTS = ("gcs_eye", "gcs_verbal", "gcs_motor")
GCS_TOTAL = Feature(
    "gcs_total_min",
    "numeric",
    "",
    concept="gcs_total",
    aggregate="min",
    low=3.0,
    high=15.0,
)
"""The lowest sum of the three parts charted at one time."""

FEATURES: tuple[Feature, ...] = (
    *STATICS,
    *(feature for concept in MEASURED for feature in features_of(concept)),
    GCS_TOTAL,
    *(feature for treatment in TREATMENTS for feature in _summaries(treatment)),
)

# Hourly means; height and weight do not change by the hour.
GRID_CHANNELS: tuple[str, ...] = tuple(concept.name for concept in CONCEPTS if concept.name not in ("height", "weight"))

# What an EHR token is for attention where an encoder keeps columns apart: an organ system or a side of the history.
SYSTEMS: dict[str, tuple[str, ...]] = {
    "person": ("age", "sex", "race", "marital_status", "insurance", "height", "weight"),
    "admission": ("admission_type", "admission_location", "careunit_kind", "icu_admission_hour", "hours_to_icu"),
    "history": ("num_earlier_admissions", "num_earlier_icu_stays", "hours_since_discharge", "comorbidities"),
    "consciousness": ("gcs_eye", "gcs_verbal", "gcs_motor", "gcs_total", "rass"),
    "circulation": ("heart_rate", "sbp", "dbp", "mbp", "vasopressor"),
    "respiration": ("resp_rate", "spo2", "fio2", "invasive_ventilation", "noninvasive_ventilation"),
    "gases": ("ph", "pco2", "po2", "base_excess", "lactate"),
    "inflammation": ("temperature", "wbc", "crp"),
    "kidney": ("bun", "creatinine", "urine", "renal_replacement"),
    "electrolytes": (
        "sodium", "potassium", "chloride", "bicarbonate", "anion_gap", "calcium", "magnesium", "phosphate",
    ),
    "metabolism": ("glucose", "glucose_lab"),
    "blood": ("hematocrit", "hemoglobin", "platelets", "rdw"),
    "coagulation": ("inr", "pt", "ptt"),
    "liver": ("albumin", "bilirubin", "alt", "ast", "alp"),
    "heart": ("troponin_t", "ck_mb", "nt_probnp"),
}  # fmt: skip

# Evaluation is also reported by discharge disease (prefixes: ``icd``). Never a feature.
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
    """sha256 (hex) of the whole schema: names, units and how they are spelled, limits, conversions, categories,
    channels and leads."""
    schema = (
        SCHEMA_NAME,
        MEASURED,
        SPELLINGS,
        NINES,
        TREATMENTS,
        (CATEGORY_WORDS, OTHER_FIRST, ONE_OF),
        FEATURES,
        GRID_CHANNELS,
        ECG_LEADS,
        ECG_HZ,
        ECG_SECONDS,
    )
    return hashlib.sha256(repr(schema).encode()).hexdigest()
