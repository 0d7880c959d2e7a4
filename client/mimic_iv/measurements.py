"""What vitals, laboratory values and urine have in common: item ids to concepts, limits and units.

A value that is used becomes one row (stay, concept, seconds since admission, millionths of the unit): ``first_day``
sums them up. Whole millionths, so that no order of threads changes a bit of a sum.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from client.mimic_iv.event_pass import (
    BAD_TIME,
    BAD_VALUE,
    NO_STAY,
    USED,
    EventTable,
    OnRows,
    Outcome,
    Rules,
    bad_rows,
    first_day,
    run_pass,
    seconds_since_admission,
)
from client.mimic_iv.files import LINE, collect
from client.mimic_iv.tables import Source
from client.mimic_iv.units import require_units, unit_keys, unusual_medians
from client.mimic_iv.unreadable import form_of, is_too_many
from client.site import SiteConfig
from lemof_model.concepts import Concept
from lemof_model.errors import DataError
from lemof_model.features import MEASURED

MILLIONTHS = 1_000_000
EVENT_COLUMNS = {"row": pl.UInt32, "concept": pl.UInt8, "seconds": pl.Int32, "millionths": pl.Int64}
CODES = {concept.name: code for code, concept in enumerate(MEASURED)}
LIMITS = ("low", "high", "factor", "offset")
FATES = (
    USED, "out_of_range", "value_missing", BAD_VALUE, BAD_TIME, "id_unreadable", NO_STAY, "not_in_cohort",
    "outside_first_day", "stored_late",
)  # fmt: skip
NOTHING_READ: dict[str, Any] = {**dict.fromkeys(FATES, 0), "min": None, "max": None, "mean": None}


def read_measurements(
    source: Source,
    table: EventTable,
    concepts: Sequence[Concept],
    stays: pl.DataFrame,
    target: Path,
    site: SiteConfig,
    *,
    window_hours: int,
    also_dropped: Mapping[str, pl.Expr] | None = None,
    on_rows: OnRows = lambda _: None,
) -> Outcome:
    """One pass over a table of values: the events of the cohort's first days go to ``target``.

    The summary counts every concept; ``also_dropped`` are the table's own reasons to drop a row.

    Raises:
        DataError: the table is damaged, has too many unreadable times or values, or an item is not in its unit.
    """
    declared = [concept.declared(site.data.ehr.units) for concept in concepts]
    (time,), (value,) = table.times, table.values
    raw_value = pl.col(value)
    in_unit = [(raw_value > pl.col(f"low_{n}")) & (raw_value <= pl.col(f"high_{n}")) for n in (0, 1)]
    converted = [raw_value * pl.col(f"factor_{n}") + pl.col(f"offset_{n}") for n in (0, 1)]
    canonical = pl.when(in_unit[0]).then(converted[0]).when(in_unit[1]).then(converted[1])
    millionths = (canonical * MILLIONTHS).round().cast(pl.Int64)
    rules = Rules(
        items=items_of(declared),
        dropped={
            "outside_first_day": ~first_day(time, window_hours),
            **(also_dropped or {}),
            BAD_VALUE: pl.col(f"{value}_unreadable"),
            "value_missing": raw_value.is_null() | raw_value.is_nan(),
            "out_of_range": canonical.is_null(),
        },
        kept=[
            pl.col("row").cast(pl.UInt32),
            "concept",
            seconds_since_admission(time).cast(pl.Int32).alias("seconds"),
            millionths.alias("millionths"),
        ],
        by=unit_keys(value, table.unit),
        totals=[
            millionths.min().alias("min"),
            millionths.max().alias("max"),
            millionths.sum().alias("sum"),
        ],
    )
    outcome = run_pass(
        source, table, rules, stays, target, max_bad_fraction=site.prepare.max_bad_fraction, on_rows=on_rows
    )
    _require_readable(source, table, rules.items, outcome.counts, site.prepare.max_bad_fraction)
    require_units(outcome.summary, declared, source, site.data.ehr.units)
    return outcome


def _require_readable(
    source: Source, table: EventTable, items: pl.DataFrame, counts: Mapping[str, Any], max_bad_fraction: float
) -> None:
    """Refuse a table in which too many values of the first days are texts; the first one's form is told.

    Raises:
        DataError: they are too many.
    """
    num_bad = counts[BAD_VALUE]
    num_looked_at = sum(counts[fate] for fate in (BAD_VALUE, "value_missing", "out_of_range", USED))
    if not is_too_many(num_bad, num_looked_at, max_bad_fraction):
        return
    (value,) = table.values
    bad = bad_rows(source, table, items, pl.col(f"{value}_unreadable"))
    first = collect(bad.head(1), source.path).row(0, named=True)
    raise DataError(
        f"{value} must be a number, got {num_bad:,} of {num_looked_at:,} rows in which it is not (first: line "
        f"{first[LINE]:,}, form {form_of(first[f'{value}_stored'])!r}) from {source.label}. Mend the export (a decimal "
        "point, no text), or raise prepare.max_bad_fraction. [E105]"
    )


def items_of(concepts: Sequence[Concept]) -> pl.DataFrame:
    """One row for each item id: its concept's code, and limits and conversion of its one or two units."""
    rows: dict[int, dict[str, Any]] = {}
    for concept in concepts:
        for item in concept.items:
            row = rows.setdefault(item.item_id, {"itemid": item.item_id, "concept": CODES[concept.name]})
            n = int("low_0" in row)
            row |= {
                f"low_{n}": item.low,
                f"high_{n}": item.high,
                f"factor_{n}": item.factor,
                f"offset_{n}": item.offset,
            }
    names = [f"{name}_{n}" for n in (0, 1) for name in LIMITS]
    schema = {"itemid": pl.Int64, "concept": pl.UInt8, **dict.fromkeys(names, pl.Float64)}
    return pl.DataFrame(list(rows.values()), schema=schema)


def counts_by_concept(outcome: Outcome, concepts: Sequence[Concept]) -> dict[str, dict[str, Any]]:
    """For each concept of a pass, with its units declared: how many rows met each fate, the least, largest and mean
    value that was used, and the items whose median is unusual (see ``units``)."""
    code_of = {item_id: CODES[concept.name] for concept in concepts for item_id in concept.item_ids}
    is_used = pl.col("fate") == USED
    by_concept = (
        outcome.summary.with_columns(concept=pl.col("itemid").replace_strict(code_of, return_dtype=pl.UInt8))
        .group_by("concept")
        .agg(
            *(pl.col("num").filter(pl.col("fate") == fate).sum().alias(fate) for fate in FATES),
            min=pl.col("min").filter(is_used).min() / MILLIONTHS,
            max=pl.col("max").filter(is_used).max() / MILLIONTHS,
            mean=pl.col("sum").filter(is_used).sum() / MILLIONTHS / pl.col("num").filter(is_used).sum(),
        )
        .with_columns(pl.col("mean").fill_nan(None))
    )
    found = {row.pop("concept"): row for row in by_concept.to_dicts()}
    facts = {concept.name: found.get(CODES[concept.name], NOTHING_READ) for concept in concepts}
    unusual = {concept.name: unusual_medians(outcome.summary, concept) for concept in concepts}
    return {name: facts[name] | ({"unusual_medians": told} if told else {}) for name, told in unusual.items()}
