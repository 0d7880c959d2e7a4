"""docs/features.md, printed from the schema: python -m client.mimic_iv.schema_page > docs/features.md"""

from collections.abc import Iterable, Sequence

from client.mimic_iv.comorbidities import ICD_9, ICD_10
from client.mimic_iv.diagnoses import PREFIXES
from lemof_model.categories import CATEGORY_WORDS
from lemof_model.concepts import TREATMENTS, Concept
from lemof_model.features import (
    COMORBIDITIES,
    CONCEPTS,
    FEATURES,
    GRID_CHANNELS,
    MEASURED,
    SCHEMA_NAME,
    STATICS,
    Feature,
)

INTRODUCTION = f"""# The features of `{SCHEMA_NAME}`

Printed from the schema (`lemof_model/concepts.py`, `lemof_model/features.py`, `client/mimic_iv/comorbidities.py`) by
`python -m client.mimic_iv.schema_page > docs/features.md`. Where ids, limits and codes come from stands beside them
there.

{len(FEATURES)} columns of `features.npy`, and an hourly grid of {len(GRID_CHANNELS)} channels: every concept of the
first table but height, weight and urine, as means by the hour from ICU admission to the prediction.

The first day is from 6 h before ICU admission to the prediction time (24 h after admission in the default plan), both
included; urine counts from admission. A value is used when it lies in its limits (the lower one itself left out),
otherwise it is dropped and counted, never clipped. A laboratory value that was reported after the prediction time is
not used; one without a report time is.
"""
AGGREGATES = """\
`min`, `max`, `mean`, `sum`: of the used values. `first` and `last`: by time; of several at one time the smallest is
the first and the largest the last. `count`: how many values were used, 0 for none. Without a value all others are
missing (NaN). `gcs_total_min` is the lowest sum of the three parts charted at one time."""
TREATED = """\
`given`: 1 or 0. `hours`: hours of the first day in which at least one of the items ran. `drugs`: how many different
items. All are 0 where the table has no row for the stay, and missing in every stay of a hospital that lacks the
table."""


def page() -> str:
    """The whole page, in Markdown."""
    parts = [
        INTRODUCTION,
        "## Measured\n\n" + AGGREGATES,
        _table(("Concept", "Unit", "Limits", "Table", "Item ids", "Columns"), map(_measured, MEASURED)),
        "Units that a site file may declare for an item id (`data.ehr.units`):",
        _table(("Concept", "Units"), ((c.name, ", ".join(c.units)) for c in CONCEPTS if len(c.units) > 1)),
        "## Given\n\n" + TREATED,
        _table(
            ("Treatment", "Table", "Item ids", "Columns"),
            ((t.name, t.table, _list(t.item_ids), _list(t.summaries)) for t in TREATMENTS),
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
            ((name, *(_list(codes[v]) for v in (9, 10))) for name, codes in PREFIXES.items()),
        ),
    ]
    return "\n".join(f"{part.rstrip()}\n" for part in parts)


def _measured(concept: Concept) -> Sequence[str]:
    """One row of the first table."""
    limits = "; ".join(
        f"{unit.low:.4g} to {unit.high:.6g}{f' {unit.name}' if len(concept.units) > 1 else ''}"
        for unit in dict.fromkeys(item.unit for item in concept.items)
    )
    return concept.name, concept.unit, limits, concept.table, _list(concept.item_ids), _list(concept.aggregates)


def _static(feature: Feature) -> Sequence[str]:
    """One row of the statics."""
    plausible = f"{feature.low:g} to {feature.high:g}" if feature.low is not None else ""
    return feature.name, feature.unit, plausible, feature.table, _list(feature.categories)


def _list(values: Iterable[object]) -> str:
    """Values with commas."""
    return ", ".join(map(str, values))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(page(), end="")
