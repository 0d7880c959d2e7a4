"""How hospitals spell units, and that every concept knows the spellings of its own."""

import pytest

from lemof_model.features import MEASURED
from lemof_model.items import Concept
from lemof_model.spellings import SPELLINGS, plain

DIALECTS = {
    "mmol/l": [
        *("mmol/L", "MMOL/L", "mmol.L-1", "mmol\u00b7l\u207b\u00b9", "mmol*L^-1", "mmol/litre", "mmol per L"),
        " mmol / l ",
    ],
    "umol/l": [
        *("umol/L", "\u00b5mol/L", "\u03bcmol/l", "mcmol/L", "micromol/L"),
        *("\u00c2\u00b5mol/L", "\ufffdmol/L", "?mol/L"),  # what another encoding makes of it
        *("micromole/L", "micromoles/litre", "mikromol/l"),
    ],
    "10^3/ul": [
        *(
            "10^3/uL",
            "10*3/uL",
            "10**3/uL",
            "x10^3/\u00b5L",
            "x10E3/uL",
            "10E3/uL",
            "10e+03/\u00b5L",
            "10\u00b3/\u00b5L",
        ),
        *("103/uL", "10(3)/mcL", "10exp3/uL", "10x3/UL"),
    ],
    "10^9/l": ["10^9/L", "10*9/L", "x10E9/L", "10\u2079/L", "\u00d710^9/l", "10e9/L", "109/L", "x 10 9/L"],
    "k/ul": ["K/uL", "K/mcL", "k/\u00b5l", "K/\ufffdL"],
    "k/mm3": ["K/mm3", "K/cumm", "K/cmm", "K/cu mm", "K/cu.mm", "K/mm\u00b3", "K/mm^3"],
    "f": [
        "\u00b0F",
        "degF",
        "deg F",
        "[degF]",
        "\u2109",
        "\u00baF",
        "\u00c2\u00b0F",
        "\ufffdF",
        "degrees F",
        "F",
        "\u00b0 F",
        "?F",
    ],
    "celsius": ["Celsius", "degrees Celsius", "Celsius degrees", "grad Celsius"],
    "c": ["\u00b0C", "deg. C", "degC", "\u2103", "C", "\ufffdC", "?C", "C\u00b0", "C deg", "*C", "degs C"],
    "mmhg": ["mmHg", "mm Hg", "mm[Hg]", "mmHg.", "MMHG"],
    "/min": ["/min", "1/min", "min-1", "min^-1", "min\u207b\u00b9", "/minute"],
    "breaths/min": ["breaths/min", "breaths per minute", "Breaths / min", "{breaths}/min", "breaths/mins"],
    "iu/l": ["IU/L", "[iU]/L", "IU/l"],
    "mg/dl": ["mg/dL", "MG/DL", "mgdl-1", "mg\u00b7dL\u207b\u00b9"],
    "": ["N/A", "n/a", "None", "NULL", "nan", "-", "--", "?", "unknown", "not applicable", "  "],
}


@pytest.mark.parametrize("expected", DIALECTS)
def test_dialects_of_one_spelling(expected: str) -> None:
    assert {text: plain(text) for text in DIALECTS[expected]} == dict.fromkeys(DIALECTS[expected], expected)


def test_what_differs_stays_apart() -> None:
    spellings = [
        "mg/dL",
        "mg/L",
        "ug/dL",
        "mmol/L",
        "umol/L",
        "nmol/L",
        "K/uL",
        "M/uL",
        "10^6/uL",
        "10^3/L",
        "g/L",
        "m/uL",
    ]
    assert len({plain(text) for text in spellings}) == len(spellings) - 1  # million per microlitre twice


@pytest.mark.parametrize("concept", MEASURED, ids=lambda concept: concept.name)
def test_every_unit_of_a_concept_has_spellings_of_its_own(concept: Concept) -> None:
    owners: dict[str, str] = {}
    for unit in concept.units.values():
        assert unit.name in SPELLINGS, "a new unit needs its spellings"
        for spelling in unit.spellings:
            assert plain(spelling) == spelling
            assert owners.setdefault(spelling, unit.name) == unit.name
        assert concept.unit_called(unit.name) == unit
    assert concept.unit in concept.units


@pytest.mark.parametrize("concept", MEASURED, ids=lambda concept: concept.name)
def test_a_concept_that_may_come_in_units_of_another_size_tells_them_apart(concept: Concept) -> None:
    sizes = {(unit.factor, unit.offset) for unit in concept.units.values()}
    assert (len(sizes) > 1) == (concept.usual is not None)


def test_no_spelling_is_of_a_unit_that_nobody_knows() -> None:
    assert set(SPELLINGS) == {name for concept in MEASURED for name in concept.units}
