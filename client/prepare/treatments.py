"""Ventilation, vasopressors and renal replacement: what was given from one time to another, cut to the first day.

A treatment counts by its own times. Its row is often stored when it ends, yet everyone at the bedside sees it run, so
``storetime`` is not looked at; what lies behind the prediction is cut off. What has no end yet runs until then. A row
that says that nothing was given (rewritten, cancelled, no rate, no amount) does not count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from client.prepare.event_pass import (
    HOURS_BEFORE,
    USED,
    EventTable,
    OnRows,
    Outcome,
    Rules,
    first_of,
    run_pass,
    seconds_since_admission,
)
from client.prepare.units import shown
from client.site import EhrData
from lemof_model.concepts import TREATMENTS
from lemof_model.errors import DataError
from lemof_model.given import GIVEN, is_given, plain_status
from lemof_model.items import StoredTreatment
from readers.tables.files import collect
from readers.tables.source import Source
from readers.tables.unreadable import HANDFUL
from readers.tables.words import Words, texts_of

STATUS, RATE, AMOUNT = "status_text", "rate", "amount"
INTERVAL_COLUMNS = {"row": pl.UInt32, "treatment": pl.UInt8, "drug": pl.UInt8, "begin": pl.Int32, "end": pl.Int32}
CANCELLED, NOTHING_GIVEN, WITHOUT_END, STRANGE_STATUS = (
    "cancelled", "nothing_given", "used_without_end", "used_of_unknown_status",
)  # fmt: skip
CODES = {treatment.name: code for code, treatment in enumerate(TREATMENTS)}
MAX_WITHOUT_END = 0.5  # share of the used rows: a table of which nothing ends tells no hours

PUSH_SECONDS = 60  # what is given at once may be stored as a row of a minute


@dataclass(frozen=True)
class Intervals:
    """A table of treatments: a row has an item and two times, from when to when it ran.

    Attributes:
        table: its columns: two ``times``, of which the second may be empty (``open_ends``).
        treatments: what is read of it; no other table has one of these.
        status: the column of what became of a row, in words; None where no row says so. As the next two: a hint.
        rate: the column of the rate at which it ran. Nothing was given at a rate of 0, or of no amount.
        amount: the column of the amount that was given; of a table without rates, of anything that is 0 if nothing was.
    """

    source: Source
    table: EventTable
    treatments: tuple[StoredTreatment, ...]
    status: str | None = None
    rate: str | None = None
    amount: str | None = None


def declared(ehr: EhrData, treatments: Sequence[StoredTreatment]) -> tuple[StoredTreatment, ...]:
    """The treatments as the site file has them: with its own items."""
    return tuple(treatment.declared(ehr.items_of(treatment.name)) for treatment in treatments)


def items_of(intervals: Intervals) -> pl.DataFrame:
    """Every item of a table of treatments: what it treats, and with which of its drugs."""
    rows = [
        {"item": item_id, "treatment": CODES[treatment.name], "drug": drug}
        for treatment in intervals.treatments
        for drug, (_, item_ids) in enumerate(treatment.drugs)
        for item_id in item_ids
    ]
    return pl.DataFrame(rows, {"item": intervals.table.item_kind, "treatment": pl.UInt8, "drug": pl.UInt8})


def read_treatments(
    intervals: Intervals,
    stays: pl.DataFrame,
    target: Path,
    limit: float,
    not_given: Sequence[str],
    *,
    window_hours: int,
    on_rows: OnRows = lambda _: None,
) -> Outcome:
    """One pass over a table of treatments: those of the cohort's first days go to ``target``. ``not_given`` are a
    hospital's own words for that; no more than ``limit`` of the rows may be unreadable.

    Raises:
        DataError: the table is damaged, too many of its times cannot be read, or most of it does not end.
        DiskError: the treatments do not fit on the disk.
    """
    source, table = intervals.source, intervals.table
    begin_time, end_time = table.times
    first, last = -HOURS_BEFORE * 3600, window_hours * 3600
    begin, is_open = seconds_since_admission(begin_time), pl.col(end_time).is_null()
    end = pl.when(is_open).then(last).otherwise(seconds_since_admission(end_time))
    rules = Rules(
        item_ids=items_of(intervals)["item"].to_list(),
        dropped={
            "ends_before_it_begins": ~is_open & (end < begin),
            # What began before the day and never ended: nobody knows when it did.
            "outside_first_day": (end < first) | (begin > last) | (is_open & (begin < first)),
        },
        kept=[
            pl.col("row").cast(pl.UInt32),
            begin.clip(first, last).cast(pl.Int32).alias("begin"),
            end.clip(first, last).cast(pl.Int32).alias("end"),
            *_renamed(intervals),
            "again",
        ],
    )
    raw = target.with_suffix(".raw")
    outcome = run_pass(source, table, rules, stays, raw, max_bad_fraction=limit, on_rows=on_rows)
    judged = _judged(pl.scan_ipc(raw), intervals, not_given, raw)
    raw.unlink()
    judged.filter(pl.col("fate") == USED).select(list(INTERVAL_COLUMNS)).write_parquet(target)
    counts, strange = told_of(judged, not_given)
    counts = {**outcome.counts, **counts}
    require_ends(source, end_time, counts, limit)
    item_ids = {treatment.name: list(treatment.item_ids) for treatment in intervals.treatments}
    return replace(outcome, counts=counts, told={"statuses": strange, "item_ids": item_ids})


def _renamed(intervals: Intervals) -> list[pl.Expr]:
    """The columns of a table of treatments under the names that are used here; null where it has none."""
    table = intervals.table
    words = pl.lit(None, pl.String) if intervals.status is None else pl.col(intervals.status)
    numbers = {RATE: intervals.rate, AMOUNT: intervals.amount}
    return [
        pl.col(table.item).alias("item"),
        *(pl.col(time).alias(name) for time, name in zip(table.times, ("begin_time", "end_time"), strict=True)),
        words.alias(STATUS),
        *((pl.lit(None, pl.Float64) if own is None else pl.col(own)).alias(name) for name, own in numbers.items()),
    ]


def sample_of_treatments(
    intervals: Intervals, rows: pl.LazyFrame, not_given: Sequence[str]
) -> tuple[dict[str, int], dict[str, int]]:
    """``told_of`` raw rows (all columns as text), if every one were of a first day.

    Raises:
        DataError: the table is damaged.
    """
    source, table, items = intervals.source, intervals.table, items_of(intervals)
    columns = {name: kind for name, kind in table.columns.items() if name != table.key} | dict(table.hints)
    is_wanted = pl.col("item").is_in(items["item"].to_list()) & pl.col("begin_time").is_not_null()
    typed = rows.select(*source.typed(rows, columns)).select(_renamed(intervals))
    wanted = typed.filter(is_wanted).with_columns(again=pl.lit(False))
    return told_of(_judged(wanted, intervals, not_given, source.path), not_given)


def _judged(rows: pl.LazyFrame, intervals: Intervals, not_given: Sequence[str], path: Path) -> pl.DataFrame:
    """Rows of treatments with their ``treatment`` and ``drug``, their ``status`` and their ``fate``.

    Raises:
        DataError: the file is damaged.
    """
    words = Words(texts_of(rows, STATUS, path), sorted(GIVEN), plain_status)
    cancelled = [n for n in range(1, words.num) if is_given(words.meant_by(n) or "", not_given) is False]
    fate = first_of([pl.col("status").is_in(cancelled), _nothing_given(intervals).fill_null(False)])
    numbered = words.numbered(rows, STATUS, "status")
    judged = numbered.join(items_of(intervals).lazy(), on="item", how="left").with_columns(fate=fate)
    named = pl.col("fate").replace_strict(range(3), [CANCELLED, NOTHING_GIVEN, USED], return_dtype=pl.String)
    return words.in_words(collect(judged, path).with_columns(named), "status")


def _nothing_given(intervals: Intervals) -> pl.Expr:
    """Whether a row has neither rate nor amount: nothing ran, or for no time. What is given at once has no rate."""
    seconds = (pl.col("end_time") - pl.col("begin_time")).dt.total_seconds()
    rate, amount = pl.col(RATE), pl.col(AMOUNT)
    if intervals.rate is None:
        return amount <= 0
    is_push = (amount > 0) & (pl.col(STATUS).str.to_lowercase().str.contains("bolus") | (seconds <= PUSH_SECONDS))
    no_rate = (rate == 0) & ~is_push.fill_null(False)
    no_amount = (amount == 0) & (rate.is_null() | (seconds == 0))
    return (rate < 0) | (amount < 0) | no_rate | no_amount


def told_of(judged: pl.DataFrame, not_given: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """How many rows are used, cancelled or say that nothing was given, and of the used ones how many have no end, and a
    status that nobody knows; and these statuses, as they may be shown. A row counts for each stay of its patient."""
    used = judged.filter(pl.col("fate") == USED)
    by_status = used.drop_nulls("status").group_by("status").len().sort("status")
    strange = {shown(status): num for status, num in by_status.iter_rows() if is_given(status, not_given) is None}
    counts = {fate: judged.filter(pl.col("fate") == fate).height for fate in (CANCELLED, NOTHING_GIVEN, USED)}
    more = {WITHOUT_END: used["end_time"].null_count(), STRANGE_STATUS: sum(strange.values())}
    return counts | {name: num for name, num in more.items() if num}, strange


def require_ends(source: Source, end: str, counts: Mapping[str, Any], max_bad_fraction: float) -> None:
    """Refuse a table of which most rows have no end.

    Raises:
        DataError: they are too many.
    """
    num, num_open = counts[USED], counts.get(WITHOUT_END, 0)
    if num_open > max(MAX_WITHOUT_END, max_bad_fraction) * num and num_open > HANDFUL:
        raise DataError(
            rule=f"{end} must be there of what has ended",
            got=f"{num_open:,} of {num:,} rows without it from {source.label}",
            fix="Export it, or raise prepare.max_bad_fraction.",
            code="E103",
        )


def treatment_features(intervals: pl.DataFrame, known: frozenset[str], num_stays: int) -> NDArray[np.float32]:
    """The columns of all treatments: 0 where one was not given, NaN everywhere if it is not ``known``: no table of the
    site could have it.

    Hours are those in which at least one of its items ran: overlaps count once. Bags of one drug are one drug.

    Shape:
        intervals: rows of ``INTERVAL_COLUMNS``; result: (num_stays, number of summaries)
    """
    begin_after = pl.max_horizontal("begin", pl.col("end").cum_max().shift().over("row", "treatment"))
    by_stay = (
        intervals.sort("row", "treatment", "begin", "end", "drug")
        .with_columns(seconds=(pl.col("end") - begin_after).clip(lower_bound=0))
        .group_by("row", "treatment")
        .agg(given=pl.lit(1.0), hours=pl.col("seconds").sum() / 3600, drugs=pl.col("drug").n_unique())
    )
    columns = []
    for code, treatment in enumerate(TREATMENTS):
        mine = by_stay.filter(pl.col("treatment") == code)
        for summary in treatment.summaries:
            column = np.full(num_stays, 0.0 if treatment.name in known else np.nan, np.float32)
            column[mine["row"].to_numpy()] = mine[summary].to_numpy()
            columns.append(column)
    return np.stack(columns, axis=1)
