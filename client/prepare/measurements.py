"""What vitals, laboratory values and urine have in common: items to concepts, units and limits.

A value is taken in the unit that its row spells, whatever that of others is; one without in the unit of
its item; one whose unit is not known for the concept is dropped. A value that is used becomes one row (stay, concept,
seconds since admission, millionths of the unit): ``first_day`` sums them up. Whole millionths, so that no order of
threads changes a bit of a sum.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from client.prepare.event_pass import (
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
from client.prepare.units import (
    OUT_OF_RANGE,
    UNKNOWN,
    num_by_unit,
    parts_of,
    require_units,
    unusual_medians,
    value_bin,
)
from client.site import EhrData
from lemof_model.errors import DataError
from lemof_model.features import MEASURED
from lemof_model.items import NINES, ItemId, StoredConcept, Unit
from lemof_model.spellings import plain
from readers.tables.files import LINE, collect, collect_all
from readers.tables.source import Source
from readers.tables.unreadable import form_of, is_too_many
from readers.tables.words import NONE, Words, texts_of

MILLIONTHS = 1_000_000
SPELLED = "spelled"
EVENT_COLUMNS = {"row": pl.UInt32, "concept": pl.UInt8, "seconds": pl.Int32, "millionths": pl.Int64}
CODES = {concept.name: code for code, concept in enumerate(MEASURED)}
LIMITS = ("low", "high", "factor", "offset")
NO_VALUE = "code_for_no_value"
FATES = (
    USED, OUT_OF_RANGE, NO_VALUE, UNKNOWN, "value_missing", BAD_VALUE, BAD_TIME, "id_unreadable", NO_STAY,
    "not_in_cohort", "outside_first_day", "stored_late",
)  # fmt: skip
NOTHING_READ: dict[str, Any] = {**dict.fromkeys(FATES, 0), "min": None, "max": None, "mean": None}


@dataclass(frozen=True)
class Events:
    """A table of measurements: a row has an item, a time and a value.

    Attributes:
        table: its columns: one of ``times`` (when it was measured, or a sample taken), one of ``values``.
        concepts: what is read of it; no other table has one of these.
        unit: the column (among the hints) in which a row may spell its unit; None where no row does.
        known_from: the column (among the optional ones) of the time from which a value could be known. One that is
            known only after the prediction is left out; one without is not.
        begins_at_admission: whether the first day begins with the admission to intensive care, not 6 h before.
    """

    source: Source
    table: EventTable
    concepts: tuple[StoredConcept, ...]
    unit: str | None = None
    known_from: str | None = None
    begins_at_admission: bool = False


def declared(ehr: EhrData, concepts: Sequence[StoredConcept]) -> tuple[StoredConcept, ...]:
    """Concepts as the site file has them: with its own items, and units that differ from the layout's."""
    return tuple(concept.declared(ehr.units, ehr.items_of(concept.name)) for concept in concepts)


def read_measurements(
    events: Events,
    stays: pl.DataFrame,
    target: Path,
    limit: float,
    *,
    window_hours: int,
    on_rows: OnRows = lambda _: None,
) -> Outcome:
    """One pass over a table of values: the events of the cohort's first days go to ``target``.

    The summary counts every concept; no more than ``limit`` of the rows may be unreadable.

    Raises:
        DataError: the table is damaged, has too many unreadable times or values, or an item is not in its unit.
        DiskError: the events do not fit on the disk.
    """
    source, table, here = events.source, events.table, events.concepts
    (time,), (value,) = table.times, table.values
    is_outside = ~first_day(time, window_hours)
    if events.begins_at_admission:
        is_outside = ~seconds_since_admission(time).is_between(0, window_hours * 3600)
    dropped = {"outside_first_day": is_outside}
    if events.known_from is not None:
        dropped["stored_late"] = seconds_since_admission(events.known_from) > window_hours * 3600
    rules = Rules(
        item_ids=_item_ids(here),
        dropped=dropped,
        dropped_by_value={
            BAD_VALUE: pl.col(f"{value}_unreadable"),
            "value_missing": pl.col(value).is_null() | pl.col(value).is_nan(),
        },
        kept=[
            pl.col("row").cast(pl.UInt32),
            pl.col(table.item).alias("item"),
            seconds_since_admission(time).cast(pl.Int32).alias("seconds"),
            pl.col(value).alias("value"),
            _spelled(events),
            "again",
        ],
    )
    raw = target.with_suffix(".raw")
    outcome = run_pass(source, table, rules, stays, raw, max_bad_fraction=limit, on_rows=on_rows)
    summary = converted(pl.scan_ipc(raw), here, raw, target)
    raw.unlink()
    outcome = _merged(outcome, summary)
    _require_readable(source, table, rules.item_ids, outcome.counts, limit)
    require_units(parts_of(outcome.summary, here), source, table.item, limit)
    return outcome


def sample_of(events: Events, rows: pl.LazyFrame) -> pl.DataFrame:
    """What ``summary`` a pass would make of raw rows (all columns as text) if every one were of a first day.

    Raises:
        DataError: the table is damaged.
    """
    source, table, concepts = events.source, events.table, events.concepts
    (value,) = table.values
    item_ids = _item_ids(concepts)
    typed = rows.select(*source.typed(rows, {table.item: table.item_kind, **table.values, **table.hints}))
    values = typed.select(pl.col(table.item).alias("item"), pl.col(value).alias("value"), _spelled(events))
    is_value = pl.col("value").is_not_null() & pl.col("value").is_not_nan()
    wanted = values.filter(pl.col("item").is_in(item_ids) & is_value).with_columns(again=pl.lit(False))
    return converted(wanted, concepts, source.path)


def _spelled(events: Events) -> pl.Expr:
    """The text that a row has for its unit."""
    return (pl.lit(None, pl.String) if events.unit is None else pl.col(events.unit)).alias(SPELLED)


def converted(
    values: pl.LazyFrame, concepts: Sequence[StoredConcept], path: Path, target: Path | None = None
) -> pl.DataFrame:
    """What becomes of values with their item and the text of their unit: a summary by item, spelling, fate and bin.
    Those that are used go to ``target`` in their concept's unit."""
    words = Words(texts_of(values, SPELLED, path), _spellings(concepts), plain)
    value, fates = pl.col("value"), [NO_VALUE, UNKNOWN, OUT_OF_RANGE, USED]
    in_unit = [(value > pl.col(f"low_{n}")) & (value <= pl.col(f"high_{n}")) for n in (0, 1)]
    in_concept = [value * pl.col(f"factor_{n}") + pl.col(f"offset_{n}") for n in (0, 1)]
    canonical = pl.when(in_unit[0]).then(in_concept[0]).when(in_unit[1]).then(in_concept[1])
    is_code = value.is_in(NINES) | (value == pl.col("code"))
    judged = (
        words.numbered(values, SPELLED, "spelling")
        .with_columns(key=_item_number(concepts) * words.num + pl.col("spelling"))
        .join(_meanings(concepts, words).lazy(), on="key", how="left")
        .with_columns(fate=first_of([is_code, pl.col("low_0").is_null(), canonical.is_null()]))
        .with_columns(millionths=(canonical * MILLIONTHS).round().cast(pl.Int64))
    )
    millionths = pl.col("millionths")
    summary = judged.group_by("item", "fate", "spelling", value_bin("value")).agg(
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
    source: Source, table: EventTable, item_ids: Sequence[ItemId], counts: Mapping[str, Any], max_bad_fraction: float
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
        rule=f"{value} must be a number",
        got=f"{num_bad:,} of {num_looked_at:,} rows in which it is not (first: line {first[LINE]:,}, form "
        f"{form_of(first[f'{value}_stored'])!r}) from {source.label}",
        fix="Mend the export (a decimal point, no text), or raise prepare.max_bad_fraction.",
        code="E105",
    )


def _spellings(concepts: Sequence[StoredConcept]) -> list[str]:
    """Every spelling of a unit that is known for one of the concepts' items."""
    known = {s for concept in concepts for item_id in concept.item_ids for s in concept.units_spelled(item_id)}
    return sorted(known - {""})


def _item_number(concepts: Sequence[StoredConcept]) -> pl.Expr:
    """A whole number for each item: itself, or the place of its name among all."""
    names = [item_id for item_id in _item_ids(concepts) if isinstance(item_id, str)]
    return pl.col("item").cast(pl.Enum(names)).to_physical().cast(pl.Int64) if names else pl.col("item")


def _item_ids(concepts: Sequence[StoredConcept]) -> list[ItemId]:
    """All items of some concepts."""
    return [item_id for concept in concepts for item_id in concept.item_ids]


def _meanings(concepts: Sequence[StoredConcept], words: Words) -> pl.DataFrame:
    """One row for each item and spelling of a unit that is known for it (a number of ``words``): its concept's code,
    and limits and conversion of the one or two units that such a value may be in."""
    rows, place_of = [], {item_id: place for place, item_id in enumerate(_item_ids(concepts))}
    for concept, item_id, number, units in _known(concepts, words):
        sign = concept.own_items(item_id)[0].sign
        row = {
            "key": (item_id if isinstance(item_id, int) else place_of[item_id]) * words.num + number,
            "concept": CODES[concept.name],
            "code": next(iter(concept.concept.codes), None),
        }
        for n, unit in enumerate(units):
            limits = (unit.low, unit.high, sign * unit.factor, sign * unit.offset)
            row |= {f"{name}_{n}": limit for name, limit in zip(LIMITS, limits, strict=True)}
        rows.append(row)
    names = ["code", *(f"{name}_{n}" for n in (0, 1) for name in LIMITS)]
    return pl.DataFrame(rows, {"key": pl.Int64, "concept": pl.UInt8, **dict.fromkeys(names, pl.Float64)})


def _known(
    concepts: Sequence[StoredConcept], words: Words
) -> Iterator[tuple[StoredConcept, ItemId, int, Sequence[Unit]]]:
    """Every item with every spelling that is known for it, and the units that it may mean."""
    for concept in concepts:
        for item_id in concept.item_ids:
            yield concept, item_id, NONE, concept.units_without(item_id)
            for spelling, unit in concept.units_spelled(item_id).items():
                if spelling and unit is not None:
                    yield concept, item_id, words.number_of(spelling), (unit,)


def counts_by_concept(summary: pl.DataFrame, concepts: Sequence[StoredConcept]) -> dict[str, dict[str, Any]]:
    """For each concept of a pass, as the site file has it: how many rows met each fate, the least, largest and mean of
    the used values, its items, how many values were in which unit, and items whose median is unusual (see ``units``).
    """
    code_of = {item_id: CODES[concept.name] for concept in concepts for item_id in concept.item_ids}
    is_used = pl.col("fate") == USED
    by_concept = (
        summary.with_columns(concept=pl.col("item").replace_strict(code_of, return_dtype=pl.UInt8))
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
