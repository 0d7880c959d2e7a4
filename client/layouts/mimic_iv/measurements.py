"""What vitals, laboratory values and urine have in common: item ids to concepts, units and limits.

A value is taken in the unit that its row spells (``valueuom``), whatever that of others is; one without in the unit of
its item; one whose unit is not known for the concept is dropped. A value that is used becomes one row (stay, concept,
seconds since admission, millionths of the unit): ``first_day`` sums them up. Whole millionths, so that no order of
threads changes a bit of a sum.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from client.layouts.mimic_iv.event_pass import (
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
    first_of,
    run_pass,
    seconds_since_admission,
)
from client.layouts.mimic_iv.files import LINE, collect, collect_all
from client.layouts.mimic_iv.tables import Source
from client.layouts.mimic_iv.units import (
    OUT_OF_RANGE,
    UNKNOWN,
    num_by_unit,
    parts_of,
    require_units,
    unusual_medians,
    value_bin,
)
from client.layouts.mimic_iv.unreadable import form_of, is_too_many
from client.layouts.mimic_iv.words import NONE, Words, texts_of
from client.site import EhrData, SiteConfig
from lemof_model.errors import DataError
from lemof_model.features import MEASURED
from lemof_model.items import NINES, Concept, Unit
from lemof_model.spellings import plain

MILLIONTHS = 1_000_000
UNIT = "valueuom"
EVENT_COLUMNS = {"row": pl.UInt32, "concept": pl.UInt8, "seconds": pl.Int32, "millionths": pl.Int64}
CODES = {concept.name: code for code, concept in enumerate(MEASURED)}
LIMITS = ("low", "high", "factor", "offset")
NO_VALUE = "code_for_no_value"
FATES = (
    USED, OUT_OF_RANGE, NO_VALUE, UNKNOWN, "value_missing", BAD_VALUE, BAD_TIME, "id_unreadable", NO_STAY,
    "not_in_cohort", "outside_first_day", "stored_late",
)  # fmt: skip
NOTHING_READ: dict[str, Any] = {**dict.fromkeys(FATES, 0), "min": None, "max": None, "mean": None}


def declared(ehr: EhrData, concepts: Sequence[Concept]) -> list[Concept]:
    """Concepts as the site file has them: with its own items, and units that differ from the schema's."""
    return [concept.declared(ehr.units, ehr.items_of(concept.name)) for concept in concepts]


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
        DiskError: the events do not fit on the disk.
    """
    here, limit = declared(site.data.ehr, concepts), site.prepare.max_bad_fraction
    (time,), (value,) = table.times, table.values
    rules = Rules(
        item_ids=[item_id for concept in here for item_id in concept.item_ids],
        dropped={"outside_first_day": ~first_day(time, window_hours), **(also_dropped or {})},
        dropped_by_value={
            BAD_VALUE: pl.col(f"{value}_unreadable"),
            "value_missing": pl.col(value).is_null() | pl.col(value).is_nan(),
        },
        kept=[
            pl.col("row").cast(pl.UInt32),
            "itemid",
            seconds_since_admission(time).cast(pl.Int32).alias("seconds"),
            pl.col(value).alias("value"),
            UNIT,
            "again",
        ],
    )
    raw = target.with_suffix(".raw")
    outcome = run_pass(source, table, rules, stays, raw, max_bad_fraction=limit, on_rows=on_rows)
    summary = converted(pl.scan_ipc(raw), here, raw, target)
    raw.unlink()
    outcome = _merged(outcome, summary)
    _require_readable(source, table, rules.item_ids, outcome.counts, limit)
    require_units(parts_of(outcome.summary, here), source, limit)
    return outcome


def sample_of(source: Source, table: EventTable, rows: pl.LazyFrame, concepts: Sequence[Concept]) -> pl.DataFrame:
    """What ``summary`` a pass would make of raw rows (all columns as text) if every one were of a first day.

    Raises:
        DataError: the table is damaged.
    """
    (value,) = table.values
    item_ids = [item_id for concept in concepts for item_id in concept.item_ids]
    values = rows.select(*source.typed(rows, {"itemid": pl.Int64, **table.values, **table.hints})).rename(
        {value: "value"}
    )
    is_value = pl.col("value").is_not_null() & pl.col("value").is_not_nan()
    wanted = values.filter(pl.col("itemid").is_in(item_ids) & is_value).with_columns(again=pl.lit(False))
    return converted(wanted, concepts, source.path)


def converted(
    values: pl.LazyFrame, concepts: Sequence[Concept], path: Path, target: Path | None = None
) -> pl.DataFrame:
    """What becomes of values with their item and the text of their unit: a summary by item, spelling, fate and bin.
    Those that are used go to ``target`` in their concept's unit."""
    words = Words(texts_of(values, UNIT, path), _spellings(concepts), plain)
    value, fates = pl.col("value"), [NO_VALUE, UNKNOWN, OUT_OF_RANGE, USED]
    in_unit = [(value > pl.col(f"low_{n}")) & (value <= pl.col(f"high_{n}")) for n in (0, 1)]
    in_concept = [value * pl.col(f"factor_{n}") + pl.col(f"offset_{n}") for n in (0, 1)]
    canonical = pl.when(in_unit[0]).then(in_concept[0]).when(in_unit[1]).then(in_concept[1])
    is_code = value.is_in(NINES) | (value == pl.col("code"))
    judged = (
        words.numbered(values, UNIT, "spelling")
        .with_columns(key=pl.col("itemid") * words.num + pl.col("spelling"))
        .join(_meanings(concepts, words).lazy(), on="key", how="left")
        .with_columns(fate=first_of([is_code, pl.col("low_0").is_null(), canonical.is_null()]))
        .with_columns(millionths=(canonical * MILLIONTHS).round().cast(pl.Int64))
    )
    millionths = pl.col("millionths")
    summary = judged.group_by("itemid", "fate", "spelling", value_bin("value")).agg(
        pl.len().alias("num"),
        pl.col("again").sum().alias("num_again"),
        millionths.min().alias("min"),
        millionths.max().alias("max"),
        millionths.sum().alias("sum"),
    )
    used = judged.filter(pl.col("fate") == fates.index(USED)).select(list(EVENT_COLUMNS)) if target else None
    sinks = [] if used is None or target is None else [used.sink_parquet(target, lazy=True)]
    found = collect_all([summary, *sinks], path)[0]
    named = pl.col("fate").replace_strict(range(len(fates)), fates, return_dtype=pl.String)
    return words.in_words(found.with_columns(named), "spelling")


def _merged(outcome: Outcome, summary: pl.DataFrame) -> Outcome:
    """The outcome of a pass in which what was used so far is parted by what became of its value."""
    others = outcome.summary.filter(pl.col("fate") != USED)
    nums = {
        fate: int(summary.filter(pl.col("fate") == fate)["num"].sum()) for fate in (NO_VALUE, UNKNOWN, OUT_OF_RANGE)
    }
    counts = {name: num for name, num in outcome.counts.items() if name != USED}
    counts |= {**nums, USED: outcome.counts[USED] - sum(nums.values())}
    return replace(outcome, counts=counts, summary=pl.concat([others, summary], how="diagonal_relaxed"))


def _require_readable(
    source: Source, table: EventTable, item_ids: Sequence[int], counts: Mapping[str, Any], max_bad_fraction: float
) -> None:
    """Refuse a table in which too many values of the first days are texts; the first one's form is told.

    Raises:
        DataError: they are too many.
    """
    num_bad = counts[BAD_VALUE]
    num_looked_at = sum(counts[fate] for fate in (BAD_VALUE, "value_missing", NO_VALUE, UNKNOWN, OUT_OF_RANGE, USED))
    if not is_too_many(num_bad, num_looked_at, max_bad_fraction):
        return
    (value,) = table.values
    bad = bad_rows(source, table, item_ids, pl.col(f"{value}_unreadable"))
    first = collect(bad.head(1), source.path).row(0, named=True)
    raise DataError(
        f"{value} must be a number, got {num_bad:,} of {num_looked_at:,} rows in which it is not (first: line "
        f"{first[LINE]:,}, form {form_of(first[f'{value}_stored'])!r}) from {source.label}. Mend the export (a decimal "
        "point, no text), or raise prepare.max_bad_fraction. [E105]"
    )


def _spellings(concepts: Sequence[Concept]) -> list[str]:
    """Every spelling of a unit that is known for one of the concepts' items."""
    known = {s for concept in concepts for item_id in concept.item_ids for s in concept.units_spelled(item_id)}
    return sorted(known - {""})


def _meanings(concepts: Sequence[Concept], words: Words) -> pl.DataFrame:
    """One row for each item id and spelling of a unit that is known for it (a number of ``words``): its concept's code,
    and limits and conversion of the one or two units that such a value may be in."""
    rows = []
    for concept, item_id, number, units in _known(concepts, words):
        sign = concept.own_items(item_id)[0].sign
        row = {
            "key": item_id * words.num + number,
            "concept": CODES[concept.name],
            "code": next(iter(concept.codes), None),
        }
        for n, unit in enumerate(units):
            limits = (unit.low, unit.high, sign * unit.factor, sign * unit.offset)
            row |= {f"{name}_{n}": limit for name, limit in zip(LIMITS, limits, strict=True)}
        rows.append(row)
    names = ["code", *(f"{name}_{n}" for n in (0, 1) for name in LIMITS)]
    return pl.DataFrame(rows, {"key": pl.Int64, "concept": pl.UInt8, **dict.fromkeys(names, pl.Float64)})


def _known(concepts: Sequence[Concept], words: Words) -> Iterator[tuple[Concept, int, int, Sequence[Unit]]]:
    """Every item with every spelling that is known for it, and the units that it may mean."""
    for concept in concepts:
        for item_id in concept.item_ids:
            yield concept, item_id, NONE, concept.units_without(item_id)
            for spelling, unit in concept.units_spelled(item_id).items():
                if spelling and unit is not None:
                    yield concept, item_id, words.number_of(spelling), (unit,)


def counts_by_concept(summary: pl.DataFrame, concepts: Sequence[Concept]) -> dict[str, dict[str, Any]]:
    """For each concept of a pass, as the site file has it: how many rows met each fate, the least, largest and mean of
    the used values, its items, how many values were in which unit, and items whose median is unusual (see ``units``).
    """
    code_of = {item_id: CODES[concept.name] for concept in concepts for item_id in concept.item_ids}
    is_used = pl.col("fate") == USED
    by_concept = (
        summary.with_columns(concept=pl.col("itemid").replace_strict(code_of, return_dtype=pl.UInt8))
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
    facts, parts = {}, parts_of(summary, concepts)
    for concept in concepts:
        unusual = unusual_medians(parts, concept)
        facts[concept.name] = {
            **found.get(CODES[concept.name], NOTHING_READ),
            "unit": concept.unit,
            "item_ids": list(concept.item_ids),
            **dict(zip(("low", "high"), concept.limits, strict=True)),
            "units": num_by_unit(parts, concept),
            **({"unusual_medians": unusual} if unusual else {}),
        }
    return facts
