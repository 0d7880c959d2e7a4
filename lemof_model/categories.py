"""Words of categorical statics: which category a hospital's word belongs to. Whole words and phrases, case aside.

Vocabularies: MIMIC-III and IV, eICU (unit types, admission sources, ethnicity), CLIF (race, admission and location
categories), HL7 2.x table 0002 (marital status). A denied word does not count: ``NOT HISPANIC OR LATINO`` is not
hispanic, ``WHITE - NON-HISPANIC`` is white. Codes such as 1 and 2 belong to nothing: who means what by them differs.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

OTHER = "other"

# Feature -> category -> phrases, one of which the value holds. The first category that has one wins, so "Trauma SICU"
# is trauma and "MICU/SICU" is medical.
CATEGORY_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "sex": {
        "female": ("f", "female", "woman", "women", "girl"),
        "male": ("m", "male", "man", "men", "boy"),
    },
    "admission_type": {
        "emergency": ("emer", "emerg", "emergency", "emergent", "ed"),
        "observation": ("observation",),
        "urgent": ("urgent",),
        "surgical_same_day": ("surgical same day", "same day surgery", "day of surgery"),
        "elective": ("elective", "planned", "scheduled"),
    },
    "admission_location": {
        "emergency_room": ("emergency room", "emergency department", "emergency", "ed", "er"),
        "facility": (
            "skilled nursing", "skilled nur", "nursing home", "nursing facility", "snf", "psych", "psychiatric",
            "psychiatry", "rehab", "rehabilitation", "long term care", "long term acute care", "ltac", "hospice",
        ),
        "hospital": (
            "transfer from hospital", "transfer from hosp", "other hospital", "another hospital", "outside hospital",
            "acute care hospital",
        ),
        "procedure": ("procedure", "pacu", "surgery", "operating room", "recovery room"),
        "referral": ("referral",),
    },
    "careunit_kind": {
        "neuro": (
            "neuro", "neurology", "neurological", "neurosurgery", "neurosurgical", "neuroscience", "neurosciences",
            "neurocritical", "nsicu", "stroke",
        ),
        "trauma": ("trauma", "tsicu"),
        "cardiac": (
            "cardiac", "cardiology", "cardio", "cardiovascular", "cardiothoracic", "coronary", "ccu", "cicu", "cvicu",
            "csicu", "csru", "cticu",
        ),
        "medical": ("medical", "medicine", "med", "micu", "msicu"),
        "surgical": ("surgical", "surgery", "surg", "sicu"),
    },
    "insurance": {
        "medicare": ("medicare",),
        "medicaid": ("medicaid",),
        "private": ("private", "commercial", "blue cross"),
    },
    "marital_status": {
        "married": ("married", "m"),
        "single": ("single", "never married", "unmarried", "s"),
        "widowed": ("widowed", "widow", "widower", "w"),
        "divorced": ("divorced", "d"),
    },
    "race": {
        "hispanic": (
            "hispanic", "latino", "latina", "latinx", "latine", "spanish origin", "chicano", "puerto rican", "mexican",
        ),
        "white": ("white", "caucasian"),
        "asian": ("asian",),
        "black": ("black", "african american", "afro american", "afro caribbean", "african caribbean"),
    },
}  # fmt: skip

# Phrases that are ``other`` whatever else the value says.
OTHER_FIRST: dict[str, tuple[str, ...]] = {
    "race": ("mixed", "multi", "multiple", "multiracial", "biracial", "two or more"),
    "careunit_kind": ("critical care unit ccu",),
    "insurance": ("private pay", "self pay"),
    "marital_status": ("separated", "formerly", "former", "previously", "ex"),
}

# Of these categories a value with two is in none: "male to female", "white and black", "married (divorced)".
ONE_OF: dict[str, tuple[str, ...]] = {
    "sex": ("female", "male"),
    "marital_status": ("married", "single", "widowed", "divorced"),
    "race": ("white", "asian", "black"),
}

# Phrases that say ``other``, or that nothing is known: nobody has to be told of them.
NOT_KNOWN = (
    "other", "unknown", "unk", "u", "none", "not known", "not specified", "not reported", "not recorded", "unspecified",
    "not available", "not applicable", "declined", "refused", "unable to obtain", "undetermined",
)  # fmt: skip
OTHER_WORDS: dict[str, tuple[str, ...]] = {
    "sex": ("intersex", "nonbinary", "x"),
    "admission_type": ("newborn", "routine", "direct", "osh", "facility", "labor", "trauma", "accident"),
    "admission_location": (
        "transfer", "trsf", "walk in", "direct", "floor", "ward", "icu", "step down", "observation", "home", "clinic",
        "chest pain center",
    ),
    "careunit_kind": (
        "intensive care", "icu", "critical care", "itu", "general", "mixed", "intermediate", "stepdown", "step down",
        "pacu", "burn", "vascular", "neonatal", "nicu", "pediatric", "picu", "hdu", "transplant", "oncology",
    ),
    "insurance": ("government", "self", "no charge", "uninsured", "military", "tricare", "workers"),
    "marital_status": ("separated", "partner", "partnership", "union", "cohabiting", "engaged"),
    "race": (
        "american indian", "native", "alaska", "hawaiian", "pacific islander", "portuguese", "south american", "arab",
        "middle eastern", "north african", "caribbean", "indigenous", "aboriginal",
    ),
}  # fmt: skip

NEGATIONS = frozenset({"not", "non", "no", "never", "without", "neither"})
# At the end they deny all before: "Hispanic or Latino: No". Of a care unit N is the north one.
_ANSWERS = {"race": frozenset({"no", "n", "not", "false"})}
_FILLERS = frozenset({"-", "of", "a", "an", "from"})
_LISTED = frozenset({"or", "nor", "and"})
_TAILS = frozenset({"origin", "ethnicity", "descent", "a", "o", "x"})


def category_of(feature_name: str, raw_value: str | None) -> str:
    """The category of a raw value, ``other`` when it is missing or matches none.

    Example:
        >>> category_of("careunit_kind", "Trauma SICU (TSICU)"), category_of("careunit_kind", None)
        ('trauma', 'other')
        >>> category_of("race", "NOT HISPANIC OR LATINO"), category_of("race", "Non-Hispanic White")
        ('other', 'white')
    """
    return _category(feature_name, raw_value or "") or OTHER


def is_understood(feature_name: str, raw_value: str | None) -> bool:
    """Whether a raw value is missing, in a category, or known to be in none.

    Example:
        >>> is_understood("sex", "F"), is_understood("sex", "unknown"), is_understood("sex", "2")
        (True, True, False)
    """
    return not (raw_value or "").strip() or _category(feature_name, raw_value or "") is not None


@lru_cache(maxsize=4096)
def _category(feature_name: str, raw_value: str) -> str | None:
    """The category of a value; None for words that nobody knows."""
    tokens = re.findall(r"[^\W_]+|[/,-]", raw_value.lower())
    whole = _padded(tokens)
    if _holds(whole, OTHER_FIRST.get(feature_name, ())):
        return OTHER
    words = CATEGORY_WORDS[feature_name]
    affirmed = _padded(_affirmed(tokens, feature_name))
    denied_in_word = {  # "never married" is a word of its own
        category: tuple(phrase for phrase in phrases if NEGATIONS.intersection(phrase.split()))
        for category, phrases in words.items()
    }
    found = [name for name in words if _holds(whole, denied_in_word[name]) or _holds(affirmed, words[name])]
    if len(set(found) & set(ONE_OF.get(feature_name, ()))) > 1 and found[0] in ONE_OF[feature_name]:
        return OTHER
    if found:
        return found[0]
    is_other = _holds(whole, (*NOT_KNOWN, *OTHER_WORDS[feature_name])) or affirmed != whole
    return OTHER if is_other else None


def _affirmed(tokens: Sequence[str], feature_name: str) -> list[str]:
    """The words of a value without those that it denies: a denied word, what is listed with it by "or", and further
    words of its category; all, where the answer at its end is no."""
    vocabulary = {
        word: category
        for category, phrases in CATEGORY_WORDS[feature_name].items()
        for phrase in phrases
        for word in phrase.split()
    }
    kept, rest = [], [] if _is_denied(tokens, feature_name) else list(tokens)
    while rest:
        token = rest.pop(0)
        if token not in NEGATIONS:
            kept.append(token)
            continue
        while rest and rest[0] in _FILLERS:
            rest.pop(0)
        category = vocabulary.get(rest.pop(0)) if rest else None
        while rest:
            follows = vocabulary.get(rest[1]) if len(rest) > 1 else None
            is_same = category is not None and follows == category
            if rest[0] in _LISTED or (rest[0] in "/," and (is_same or (rest[1:2] and rest[1] in _TAILS))):
                del rest[:2]
            elif rest[0] in _TAILS or (category and vocabulary.get(rest[0]) == category):
                del rest[0]
            else:
                break
    return kept


def _is_denied(tokens: Sequence[str], feature_name: str) -> bool:
    """Whether a value ends with an answer of no."""
    return len(tokens) > 1 and tokens[-1] in _ANSWERS.get(feature_name, NEGATIONS)


def _padded(tokens: Sequence[str]) -> str:
    """The words of some tokens between blanks."""
    return f" {' '.join(token for token in tokens if token not in '/,-')} "


def _holds(padded: str, phrases: Sequence[str]) -> bool:
    """Whether one of the phrases is there, word by word; a single letter must be all there is."""
    return any(padded == f" {phrase} " if len(phrase) == 1 else f" {phrase} " in padded for phrase in phrases)
