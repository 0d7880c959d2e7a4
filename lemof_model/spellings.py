"""How hospitals spell units: one plain form of every dialect, and which units it may mean.

A table says in a row what unit its value has, in capitals or not, as UCUM has it, with a micro sign (or
what a wrong encoding has left of it), with powers of ten in six ways. ``plain`` takes all that off; what is left is
looked up among the ``SPELLINGS`` of the units that a concept knows. A spelling that means two things (``bpm``, ``g/L``)
is thus read by the concept: beats or breaths, grams or giga.

Sources of spellings: MIT-LCP/mimic-code#1768 (all of MIMIC-IV 2.2), #523; eICU's ``labmeasurenamesystem``; the mCIDE of
CLIF; eth-mds/ricu, extdata/config/concept-dict (HiRID, AmsterdamUMCdb, SICdb); UCUM.
"""

import re
from functools import cache

NO_SPELLING = ""
"""The plain spelling of a value without a unit."""

# Words for no unit at all: a value with one of them beside it counts as one without.
NO_UNIT = frozenset({"", "na", "n/a", "nan", "none", "null", "nil", "-", "--", "---", "?", "unknown", "notapplicable"})

SPELLINGS: dict[str, tuple[str, ...]] = {
    # of number
    "": ("1", "ratio", "inr", "unit", "units", "ph", "phunit", "phunits", "score", "scores", "point", "points", "pts"),
    "%": ("percent", "pct", "%sat", "%o2", "%o2sat", "%saturation", "vol%", "%vol"),
    "fraction": ("frac", "decimal", "ratio"),
    "L/L": ("fraction", "frac", "decimal", "ratio", "v/v"),
    # of time
    "bpm": ("/min", "beat/min", "beats/min", "b/min", "lpm", "bat/min", "batt/min", "sl/min", "s/min", "puls/min"),
    "1/min": (
        "/min", "insp/min", "breath/min", "breaths/min", "br/min", "b/min", "bpm", "rpm", "resp/min", "rr/min",
        "respirations/min", "az/min", "cycles/min",
    ),
    "s": ("sec", "secs", "second", "seconds", "sek"),
    # of pressure and temperature
    "mmHg": ("torr", "mm"),
    "kPa": (),
    "degC": ("c", "cel", "celsius", "centigrade"),
    "degF": ("f", "fahrenheit"),
    # of length, mass and volume
    "cm": ("centimeter", "centimeters", "centimetre", "centimetres"),
    "m": ("meter", "meters", "metre", "metres"),
    "mm": ("millimeter", "millimeters", "millimetre", "millimetres"),
    "in": ("inch", "inches", "ini", '"'),
    "ft": ("foot", "feet", "fti"),
    "kg": ("kgs", "kilo", "kilos", "kilogram", "kilograms"),
    "g": ("gm", "gms", "gram", "grams"),
    "lb": ("lbs", "lbav", "pound", "pounds"),
    "oz": ("ounce", "ounces", "ozav"),
    "mL": ("cc", "ccm", "cm3", "milliliter", "milliliters", "millilitre", "millilitres"),
    "L": ("liter", "liters", "litre", "litres", "ltr"),
    # of concentration
    "g/dL": ("g%", "g/100ml", "gm/dl", "gms/dl", "gr/dl", "gm%"),
    "g/L": ("gm/l", "gr/l"),
    "mg/dL": ("mg%", "mg/100ml", "mgs/dl"),
    "mg/dL of urea": ("mg/dlurea", "ureamg/dl"),
    "mg/L": ("ug/ml", "mgs/l"),
    "mmol/L": ("mmol", "mm"),
    "umol/L": ("umol", "um"),
    "mEq/L": ("meq", "mval/l", "mequiv/l"),
    "ng/mL": ("ug/l",),
    "ng/L": ("pg/ml",),
    "pg/mL": ("ng/l",),
    "pmol/L": (),
    "nmol/L": (),
    # of cells and enzymes
    "K/uL": (
        "k/mm3", "10^3/ul", "10^3/mm3", "1000/ul", "1000/mm3", "10^6/ml", "10^9/l", "g/l", "giga/l", "gpt/l", "/nl",
        "th/ul", "thou/ul", "thous/ul", "thousand/ul", "thousands/ul", "thou/mm3", "thousand/mm3", "tsd/ul", "10^9",
        "10^3", "k", "x1000/ul", "x1000/mm3", "10^3cells/ul", "10^9cells/l", "tys/ul",
    ),
    "cells/uL": (
        "/ul", "#/ul", "cell/ul", "/mm3", "#/mm3", "cell/mm3", "cells/mm3", "10^6/l",
    ),
    "10^4/uL": ("10^4/mm3", "10000/ul", "10000/mm3"),
    "lakh/uL": ("lakhs/ul", "lakh/mm3", "lakhs/mm3", "lac/ul", "lac/mm3", "lacs/mm3", "10^5/ul", "10^5/mm3"),
    "IU/L": ("u/l", "ui/l", "e/l", "unit/l", "units/l", "ie/l", "mu/ml", "miu/ml", "iu", "u"),
    "ukat/L": (),
    "nkat/L": (),
}  # fmt: skip
"""Unit -> its other plain spellings. Its own name is one too."""

_SIGNS = str.maketrans(
    {**dict.fromkeys("\u00b5\u03bc", "u"), **dict.fromkeys("\u00b0\u00ba\u02da", "deg"), "\u2103": "degc",
     "\u2109": "degf", "\u00d7": "x", **dict.fromkeys("\u00b7\u22c5\u2022", "*"), **dict.fromkeys("\u2212\u2013", "-"),
     **{sign: str(digit) for digit, sign in enumerate("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")},
     "\u207b": "-", "\u2215": "/", "\u2044": "/", "\uff05": "%"}
)  # fmt: skip
# In this order, on small letters without blanks, brackets, dots and underscores.
_REWRITTEN = (
    (re.compile("\u00e2(?=u|deg)"), ""),  # UTF-8 that was read as Latin-1
    (re.compile("\ufffd(?=[cf]$)"), ""),  # Latin-1 that was read as UTF-8: a degree sign or a micro sign was here
    (re.compile("^[?*](?=[cf]$)"), ""),  # the same as ASCII has it: MIMIC-III's ?F
    (re.compile(r"[\ufffd?](?=g|l|mol|kat)"), "u"),
    (re.compile(r"^(?:degrees?|degs?|grad)(?=[cf])"), ""),  # deg C
    (re.compile(r"(?<=[cf])(?:degrees?|degs?)$|^(celsius|fahrenheit)degrees?$"), r"\1"),  # C deg
    (re.compile(r"(?:micro|mikro|mc)(?=g|l|mol|kat)"), "u"),
    (re.compile(r"milli(?=mol)"), "m"),
    (re.compile(r"mol(?:es?|s)(?=/|$)"), "mol"),
    (re.compile(r"^[x*]?10(?:exp|e|x|\*{1,2}|\^)?\+?0?([3-69])(?=\D|$)"), r"10^\1"),  # x10E3, 10*3, 10^3, 10 3
    (re.compile(r"(?:/cumm|/cmm|/mm\^3)$"), "/mm3"),
    (re.compile(r"(.*?)\*?(dl|ml|ul|l|min|kg)\^?-1$"), r"\1/\2"),  # mmol.L-1
    (re.compile(r"/(d|m|u)?(?:liters?|litres?)$"), r"/\1l"),
    (re.compile(r"/(?:minutes?|mins|mn)$"), "/min"),
    (re.compile(r"^1/"), "/"),
)


@cache
def plain(spelling: str) -> str:
    """What all dialects of one spelling have in common; nothing for a word that says that there is no unit.

    Example:
        >>> [plain(text) for text in ("K/mcL", "deg. F", "x10E9/L", "10*3/\u00b5L", "mm[Hg]", "Breaths per min", "N/A")]
        ['k/ul', 'f', '10^9/l', '10^3/ul', 'mmhg', 'breaths/min', '']
    """
    text = re.sub(r"\bper\b", "/", spelling.lower().translate(_SIGNS))
    text = re.sub(r"[\s\[\](){}_.]", "", text)
    for form, short in _REWRITTEN:
        text = form.sub(short, text)
    return NO_SPELLING if text in NO_UNIT else text


def spellings_of(unit: str) -> tuple[str, ...]:
    """All plain spellings of a unit, its own name first.

    Example:
        >>> spellings_of("degF")
        ('f', 'fahrenheit')
    """
    return tuple(dict.fromkeys((plain(unit), *SPELLINGS.get(unit, ()))))
