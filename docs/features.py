"""docs/features.md, printed from the schema and the items of MIMIC-IV: python docs/features.py > docs/features.md"""

from collections.abc import Iterable, Sequence

from client.layouts.mimic_iv.items import MEASURED, TREATMENTS
from client.layouts.mimic_iv.layout import MIMIC_IV
from lemof_model.categories import CATEGORY_WORDS
from lemof_model.features import COMORBIDITIES, FEATURES, GRID_CHANNELS, SCHEMA_NAME, STATICS, Feature
from lemof_model.icd import DISEASE_PREFIXES, ICD_9, ICD_10
from lemof_model.items import NINES, Item, StoredConcept, Unit
from lemof_model.spellings import spellings_of

TABLE_OF = {one.name: table for table, of_table in MIMIC_IV.stored.items() for one in of_table}
STATIC_TABLES = {
    "age": "patients",
    "sex": "patients",
    "careunit_kind": "icustays",
    "icu_admission_hour": "icustays",
    "hours_to_icu": "icustays",
    "num_earlier_icu_stays": "icustays",
    "comorbidities": "diagnoses_icd",
}
"""Where MIMIC-IV has a static (or what it says something about), where that is not admissions."""

SPELLED = {name: [text for text in spellings_of(name) if text] for concept in MEASURED for name in concept.units}
"""Unit -> all of its plain spellings, in the order in which concepts name them."""

INTRODUCTION = f"""# The features of `{SCHEMA_NAME}`

Printed by `python docs/features.py > docs/features.md` from what means the same at every hospital
(`lemof_model/concepts.py`, `features.py`, `icd.py`) and, for its tables and item ids, from the layout of MIMIC-IV
(`client/layouts/mimic_iv/items.py`). Where ids, limits and codes come from stands beside them there.

{len(FEATURES)} columns of `features.npy`, and an hourly grid of {len(GRID_CHANNELS)} channels: every concept of the
first table but height, weight and urine, as means by the hour from ICU admission to the prediction.

The first day is from 6 h before ICU admission to the prediction time (24 h after admission in the default plan), both
included; urine counts from admission. A value is used when it lies in its limits (the lower one itself left out),
otherwise it is dropped and counted, never clipped. A laboratory value that was reported after the prediction time is
not used; one without a report time is. A hospital may add item ids: `data.ehr.items: {{CONCEPT: {{ITEM_ID: UNIT}}}}`.
"""
UNITS = """\
A value is in the unit that stands in its row (`valueuom`), however it is spelled: case, blanks, brackets, micro and
degree signs, `mcg`, `per`, `^`, `*`, `E` make no difference. A row whose unit is not listed here for its concept is
dropped and counted. A value without a unit is in that of its item (the first one here, where the first table names no
other); where it cannot be, and certainly is in another one (third column), in that; or in what a hospital says with
`data.ehr.units: {{ITEM_ID: UNIT}}`. What a spelling means there is said with `{{ITEM_ID: {{SPELLING: UNIT}}}}`; `drop`
in place of a unit leaves values out.

Numbers that mean no value are dropped and counted in every concept: {codes}.
Further ones stand in the table."""
AGGREGATES = """\
`min`, `max`, `mean`, `sum`: of the used values. `first` and `last`: by time; of several at one time the smallest is
the first and the largest the last. `count`: how many values were used, 0 for none. Without a value all others are
missing (NaN). `gcs_total_min` is the lowest sum of the three parts charted at one time."""
TREATED = """\
`given`: 1 or 0. `hours`: hours of the first day in which at least one of the items ran. `drugs`: how many different
drugs. All are 0 where the table has no row for the stay, and missing in every stay of a hospital that lacks the
table. What began on the first day and has no end yet runs until the prediction. A row does not count whose
`statusdescription` says that it was not given (rewritten, cancelled, refused, in error; `data.ehr.not_given` adds a
hospital's words), nor one with a rate of 0, without rate and with an amount of 0, or with a `value` of 0."""


def page() -> str:
    """The whole page, in Markdown."""
    parts = [
        INTRODUCTION,
        "## Measured\n\n" + AGGREGATES,
        _table(("Concept", "Unit", "Limits", "Table", "Item ids", "Columns"), map(_measured, MEASURED)),
        "### Units\n\n" + UNITS.format(codes=_list(NINES)),
        _table(
            ("Concept", "Units", "Certain without a unit", "Codes"),
            (
                (c.name, _list(map(_called, c.units)), "; ".join(map(_limits, c.certain)), _list(c.codes))
                for c in (stored.concept for stored in MEASURED)
            ),
        ),
        _table(
            ("Unit", "Spelled"), ((_called(name), _list(f"`{text}`" for text in SPELLED[name])) for name in SPELLED)
        ),
        "## Given\n\n" + TREATED,
        _table(
            ("Treatment", "Table", "Item ids", "Columns"),
            (
                (t.name, TABLE_OF[t.name], "; ".join(map(_drug, t.drugs)), _list(t.treatment.summaries))
                for t in TREATMENTS
            ),
        ),
        "## Known when the stay begins\n\nNothing here looks at the stay's end or at its own diagnoses.",
        _table(("Feature", "Unit", "Plausible", "Table", "Categories"), map(_static, STATICS)),
        "Categories by the whole words that a raw text holds, case aside, the first that fits. A denied word (`NOT "
        "HISPANIC`) does not count; a single letter must be all there is. None: `other`.",
        _table(
            ("Feature", "Category", "Words"),
            ((name, kind, _list(words)) for name, kinds in CATEGORY_WORDS.items() for kind, words in kinds.items()),
        ),
        "## Comorbidities\n\nFrom the codes of the patient's admissions that ended before this one began.",
        _table(("Comorbidity", "ICD-9", "ICD-10"), ((name, ICD_9[name], ICD_10[name]) for name in COMORBIDITIES)),
        "## Disease groups\n\nFrom the codes of the stay's own discharge: to stratify an evaluation, never a feature.",
        _table(
            ("Disease", "ICD-9", "ICD-10"),
            ((name, *(_list(codes[v]) for v in (9, 10))) for name, codes in DISEASE_PREFIXES.items()),
        ),
    ]
    return "\n".join(f"{part.rstrip()}\n" for part in parts)


def _measured(concept: StoredConcept) -> Sequence[str]:
    """One row of the first table."""
    limits = "; ".join(_limits(unit) for unit in dict.fromkeys(item.unit for item in concept.items))
    ids = _list(dict.fromkeys(_id(concept, item) for item in concept.items))
    return concept.name, concept.unit, limits, TABLE_OF[concept.name], ids, _list(concept.concept.aggregates)


def _id(concept: StoredConcept, item: Item) -> str:
    """An item id; with its unit where that is not the concept's, and with minus where it is taken off."""
    has_own = item.unit.name != concept.unit and len(concept.own_items(item.item_id)) == 1
    return f"{'-' if item.sign < 0 else ''}{item.item_id}{f' ({item.unit.name})' if has_own else ''}"


def _limits(unit: Unit) -> str:
    """From where to where values in a unit go."""
    return f"{unit.low:.4g} to {unit.high:.6g} {unit.name}".rstrip()


def _called(unit: str) -> str:
    """A unit's name; a word for none."""
    return unit or "(a number)"


def _drug(drug: tuple[str, Sequence[int]]) -> str:
    """A drug with the item ids that it is stored under."""
    name, item_ids = drug
    return f"{name} {_list(item_ids)}".lstrip()


def _static(feature: Feature) -> Sequence[str]:
    """One row of the statics."""
    plausible = f"{feature.low:g} to {feature.high:g}" if feature.low is not None else ""
    table = STATIC_TABLES.get(feature.concept, "admissions")
    return feature.name, feature.unit, plausible, table, _list(feature.categories)


def _list(values: Iterable[object]) -> str:
    """Values with commas."""
    return ", ".join(map(str, values))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(page(), end="")
