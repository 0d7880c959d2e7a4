"""Words of other hospitals: whole words, denied words, and what nobody knows."""

import pytest

from lemof_model.categories import CATEGORY_WORDS, NOT_KNOWN, ONE_OF, OTHER, OTHER_WORDS, category_of, is_understood
from lemof_model.features import FEATURES

VALUES: dict[str, dict[str, tuple[str, ...]]] = {
    "sex": {
        "female": ("F", "f", "Female", " FEMALE ", "Woman", "girl"),
        "male": ("M", "Male", "Man", "MEN"),
        "other": ("", "Unknown", "Other", "Male to female", "man/woman", "X", "U"),
    },
    "admission_type": {
        "emergency": ("EW EMER.", "DIRECT EMER.", "EMERGENCY", "Emergent", "ed"),  # MIMIC-IV, MIMIC-III, CLIF
        "observation": ("EU OBSERVATION", "AMBULATORY OBSERVATION", "OBSERVATION ADMIT"),
        "urgent": ("URGENT", "Urgent admission"),
        "surgical_same_day": ("SURGICAL SAME DAY ADMISSION", "Same-day surgery"),
        "elective": ("ELECTIVE", "Elective surgery", "Scheduled", "Planned"),
        "other": ("NEWBORN", "Non-emergency", "Emergency: no", "non elective", "NOT URGENT", "facility", "osh"),
    },
    "admission_location": {
        "emergency_room": ("EMERGENCY ROOM", "EMERGENCY ROOM ADMIT", "Emergency Department"),
        "facility": ("TRANSFER FROM SKILLED NURSING FACILITY", "TRANSFER FROM SKILLED NUR", "Nursing home",
                     "INTERNAL TRANSFER TO OR FROM PSYCH"),
        "hospital": ("TRANSFER FROM HOSPITAL", "TRANSFER FROM HOSP/EXTRAM", "Other Hospital"),
        "procedure": ("PROCEDURE SITE", "PACU", "AMBULATORY SURGERY TRANSFER", "Operating Room", "Recovery Room"),
        "referral": ("PHYSICIAN REFERRAL", "WALK-IN/SELF REFERRAL", "PHYS REFERRAL/NORMAL DELI", "HMO REFERRAL/SICK"),
        "other": ("INFORMATION NOT AVAILABLE", "** INFO NOT AVAILABLE **", "Floor", "Step-Down Unit (SDU)",
                  "Acute Care/Floor", "ICU", "Direct Admit", "Chest Pain Center", "TRSF WITHIN THIS FACILITY"),
    },
    "careunit_kind": {
        "neuro": ("Neuro Surgical Intensive Care Unit (Neuro SICU)", "Neuro Stepdown", "Neuro ICU", "neuro_icu"),
        "trauma": ("Trauma SICU (TSICU)", "TSICU", "Surgery/Trauma"),
        "cardiac": ("Coronary Care Unit (CCU)", "Cardiac Vascular Intensive Care Unit (CVICU)", "CCU", "CSRU", "CSICU",
                    "CCU-CTICU", "Cardiac ICU", "Medicine/Cardiology", "mixed_cardiothoracic_icu"),
        "medical": ("Medical Intensive Care Unit (MICU)", "MICU", "Med-Surg ICU", "medical_icu", "Medicine", "MICU - N",
                    "Medical/Surgical Intensive Care Unit (MICU/SICU)"),
        "surgical": ("Surgical Intensive Care Unit (SICU)", "SICU", "surgical_icu", "Surgery/Vascular/Intermediate"),
        "other": ("PACU", "Intensive Care Unit (ICU)", "general_icu", "NICU", "Critical Care Unit (CCU)",
                  "Non-cardiac ICU"),
    },
    "insurance": {
        "medicare": ("Medicare", "Medicare Advantage"),
        "medicaid": ("Medicaid",),
        "private": ("Private", "Commercial", "Blue Cross/Blue Shield"),
        "other": ("Other", "No charge", "Self Pay", "Private Pay", "Government", "Non-Medicare"),
    },
    "marital_status": {
        "married": ("MARRIED", "Married", "M"),
        "single": ("SINGLE", "Never married", "Unmarried", "S"),
        "widowed": ("WIDOWED", "Widow", "Widower", "W"),
        "divorced": ("DIVORCED", "D"),
        "other": ("SEPARATED", "LIFE PARTNER", "UNKNOWN (DEFAULT)", "Not married", "Formerly married",
                  "Previously married", "ex-married", "Married - separated", "married (divorced)"),
    },
    "race": {
        "hispanic": ("HISPANIC OR LATINO", "Hispanic", "HISPANIC/LATINO - PUERTO RICAN", "Latina", "Hispanic - Black"),
        "white": ("WHITE", "WHITE - NON-HISPANIC", "Non-Hispanic White", "White (Non-Hispanic)", "Caucasian",
                  "White, not Hispanic", "Non-Hispanic/White", "WHITE - OTHER EUROPEAN", "nonhispanic white"),
        "asian": ("ASIAN - CHINESE", "Asian or Asian British - Indian"),
        "black": ("African American", "BLACK/AFRICAN AMERICAN", "Black or African American", "BLACK/HAITIAN",
                  "Non-Hispanic Black"),
        "other": ("NOT HISPANIC OR LATINO", "NON-HISPANIC", "Not of Hispanic, Latino/a or Spanish origin", "Non-White",
                  "MULTIPLE RACE/ETHNICITY", "MULTI RACE ETHNICITY", "Mixed - White and Asian", "White/Black",
                  "not Asian or Black", "Native American", "Other/Unknown", "UNABLE TO OBTAIN",
                  "NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER", "Pacific Islander (non-Asian)", "Hispanic: No",
                  "HISPANIC - NO", "Hispanic or Latino: No", "Latino = N", "neither Hispanic nor Latino"),
    },
}  # fmt: skip
UNKNOWN = {
    "sex": ("1", "2", "0", "H", "V", "femme", "fluid"),
    "admission_type": ("3", "Unplanned", "remergence"),
    "careunit_kind": ("Paramedical", "Ward 7"),
    "marital_status": ("Maried",),
    "race": ("Eurasian", "Blackfoot", "South African", "whiteness", "4"),
}


@pytest.mark.parametrize(
    ("feature", "category", "raw"),
    [(name, kind, raw) for name, kinds in VALUES.items() for kind, words in kinds.items() for raw in words],
)
def test_words_of_mimic_eicu_and_clif(feature: str, category: str, raw: str) -> None:
    assert (category_of(feature, raw), is_understood(feature, raw)) == (category, True)


@pytest.mark.parametrize(("feature", "raw"), [(name, raw) for name, words in UNKNOWN.items() for raw in words])
def test_words_that_nobody_knows_are_other_and_told(feature: str, raw: str) -> None:
    assert (category_of(feature, raw), is_understood(feature, raw)) == (OTHER, False)


def test_the_lists_fit_the_schema_and_themselves() -> None:
    categories = {feature.name: feature.categories for feature in FEATURES if feature.kind == "categorical"}
    assert {name: (*words, OTHER) for name, words in CATEGORY_WORDS.items()} == categories
    assert set(OTHER_WORDS) == set(CATEGORY_WORDS)
    assert all(set(kinds) <= set(CATEGORY_WORDS[name]) for name, kinds in ONE_OF.items())
    for name, words in CATEGORY_WORDS.items():
        for category, phrases in words.items():
            for phrase in phrases:
                assert phrase == phrase.lower() and category_of(name, phrase.upper()) == category, phrase
        for phrase in (*NOT_KNOWN, *OTHER_WORDS[name]):
            assert category_of(name, phrase) == OTHER and is_understood(name, phrase), phrase
