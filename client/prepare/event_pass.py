"""One streaming pass over an event table, the same for every concept: what is wanted, what becomes of it, and counts.

Every wanted row meets one fate: it is used, or dropped for the first rule that it breaks. The rows that are used go to
a file of a few narrow columns, and all rows into a small summary by item and fate; memory does not grow with
the table. What their values mean is asked of that file afterwards (``measurements``, ``treatments``): of six rows of a
chart one is wanted, and of these three in ten are of a first day. In a table that is joined by patient, a row counts
once for each stay that the patient has in the cohort.

Rows of which something cannot be read are met again in a second pass, only to tell their lines; most tables have none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from lemof_model.errors import DataError, Problem
from lemof_model.items import ItemId
from readers.tables.files import LINE, TIME, Columns, collect, collect_all
from readers.tables.source import Source
from readers.tables.unreadable import RAISE, form_of, is_too_many, refuse_empty, refuse_unreadable

HOURS_BEFORE = 6  # the first day begins 6 h before admission: MIT-LCP/mimic-code, concepts/firstday
USED, BAD_TIME, BAD_VALUE = "used", "time_unreadable", "value_unreadable"
BAD_ID, BAD_ITEM, NO_STAY = "id_unreadable", "itemid_unreadable", "not_in_icustays"
UNREADABLE = (BAD_TIME, BAD_ID, BAD_VALUE)  # the fates of which the lines are told
MAX_LINES = 100_000  # of those that cannot be read; all are counted
OnRows = Callable[[int], None]
BadLines = list[tuple[int, str]]
FirstBad = dict[str, dict[str, Any]]  # fate -> line and form of the first row that met it


class BadRows(NamedTuple):
    """The rows that cannot be read: their ``lines``, each with its fate, and the ``first`` of each fate."""

    lines: BadLines
    first: FirstBad


@dataclass(frozen=True)
class EventTable:
    """What is read of an event table, by its own names of columns: the key to a stay, the ``item`` that a row is about
    (a whole number or, by ``item_kind``, a name), the times, and the columns of values.

    Of the times those in ``open_ends`` may be empty: what has begun and not ended. A table may lack ``optional`` times,
    and the ``hints``: words and numbers that say more of a row, and without which it stands.
    """

    key: str
    item: str
    times: tuple[str, ...]
    values: Columns = field(default_factory=dict)
    optional: Columns = field(default_factory=dict)
    open_ends: tuple[str, ...] = ()
    hints: Columns = field(default_factory=dict)
    item_kind: type[pl.DataType] = pl.Int64

    @property
    def columns(self) -> dict[str, Any]:
        """All columns that the table must have."""
        return {self.key: pl.Int64, self.item: self.item_kind, **dict.fromkeys(self.times, TIME), **self.values}

    @property
    def may_lack(self) -> dict[str, Any]:
        """All columns that the table may be without."""
        return {**self.optional, **self.hints}

    @property
    def may_be_empty(self) -> dict[str, Any]:
        """The columns that may be empty, but not hold what cannot be read."""
        return {**self.values, **self.times_that_may_be_empty}

    @property
    def times_that_may_be_empty(self) -> dict[str, Any]:
        """The times among them."""
        return {**self.optional, **dict.fromkeys(self.open_ends, TIME)}


@dataclass(frozen=True)
class Rules:
    """What a pass does with the rows of the wanted items, in expressions over the table's columns, ``row`` and
    ``intime`` of the stay, and ``NAME_unreadable`` for what may be empty (see ``Source.unreadable``).

    Attributes:
        dropped: reason -> whether a row is dropped for it, after unreadable times and unknown stays, in this order.
        kept: the columns of a row that is used. ``again`` is whether its patient's row was met for another stay.
        dropped_by_value: further reasons. Values are null in rows that are dropped for others: none is read in vain.
    """

    item_ids: Sequence[ItemId]
    dropped: Mapping[str, pl.Expr]
    kept: Sequence[pl.Expr | str]
    dropped_by_value: Mapping[str, pl.Expr] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a pass met: ``counts`` of rows, the ``summary`` by item and fate, the optional columns that the table does
    not have, and what else is to be ``told``. ``find_bad_lines`` tells the lines that cannot be read, with their fates,
    and the first of each with its form: it reads the table again if there are some, so it is for the caller who has
    refused nothing."""

    counts: dict[str, Any]
    summary: pl.DataFrame
    find_bad_lines: Callable[[], BadRows]
    columns_absent: list[str]
    told: dict[str, Any] = field(default_factory=dict)


class Tally:
    """Rows met so far, and those without a readable item id. A streaming engine calls from several threads, and
    ``list.append`` is atomic."""

    def __init__(self, item: str, on_rows: OnRows) -> None:
        self.blocks: list[tuple[int, int]] = []
        self._item, self._on_rows = item, on_rows

    def count(self, block: pl.DataFrame) -> pl.DataFrame:
        """The block as it came."""
        self.blocks.append((block.height, block[self._item].null_count()))
        self._on_rows(block.height)
        return block


def first_day(time: str, window_hours: int) -> pl.Expr:
    """Whether a time lies from 6 h before ICU admission to the prediction, both included."""
    return seconds_since_admission(time).is_between(-HOURS_BEFORE * 3600, window_hours * 3600)


def seconds_since_admission(time: str) -> pl.Expr:
    """Seconds from ICU admission to a time."""
    return (pl.col(time) - pl.col("intime")).dt.total_seconds()


def run_pass(
    source: Source,
    table: EventTable,
    rules: Rules,
    stays: pl.DataFrame,
    target: Path,
    *,
    max_bad_fraction: float,
    on_rows: OnRows = lambda _: None,
) -> Outcome:
    """Read a table once: the rows that are used go to ``target`` (Arrow IPC), the others are counted.

    ``stays`` are those of the cohort and, without a ``row``, those that were left out (``stays.with_left_out``). Ids
    are numbers or text as theirs are. Where the csv reader's integers leave ids unread, the table is read again,
    carefully.

    Raises:
        DataError: the table is damaged, or too many of its times or ids cannot be read.
        DiskError: ``target`` does not fit on the disk.
    """
    own = _by_key(stays, table.key)
    if own.collect_schema()[table.key] == pl.String:
        source = replace(source, text_ids=frozenset([table.key]))
    outcome, num_bad_times = _read(source, table, rules, own, target, on_rows)
    is_unread = outcome.counts[BAD_ID] or outcome.counts[BAD_ITEM]
    if is_unread and source.path.suffix != ".parquet":
        source = replace(source, is_careful=True)
        outcome, num_bad_times = _read(source, table, rules, own, target)
    _refuse_unreadable(source, table, rules, outcome.counts, num_bad_times, max_bad_fraction)
    return outcome


def _read(
    source: Source,
    table: EventTable,
    rules: Rules,
    own: pl.LazyFrame,
    target: Path,
    on_rows: OnRows = lambda _: None,
) -> tuple[Outcome, int]:
    """One reading of a table, and how many of its rows have a time that cannot be read."""
    tally = Tally(table.item, on_rows)
    raw = source.raw(table.columns, table.may_lack)
    raw = raw.with_columns(source.typed(raw, {table.item: table.item_kind}))
    counted = raw.map_batches(tally.count, streamable=True, predicate_pushdown=False, projection_pushdown=False)
    judged = _judged(counted, source, table, rules, own)
    fates = [*_broken(table, rules), *rules.dropped_by_value, USED]
    used = judged.filter(pl.col("fate") == fates.index(USED)).select(*rules.kept)
    summary = judged.group_by(pl.col(table.item).alias("item"), "fate").agg(
        pl.len().alias("num"), pl.col("again").sum().alias("num_again")
    )
    _, found = collect_all([used.sink_ipc(target, compression="lz4", lazy=True), summary], source.path)
    found = found.with_columns(pl.col("fate").replace_strict(range(len(fates)), fates, return_dtype=pl.String))
    counts = {"file": source.path.name, **_counted(tally, found, fates)}
    is_bad = pl.col("fate") == BAD_TIME
    num_bad_times = int(found.select((pl.col("num") - pl.col("num_again")).filter(is_bad).sum()).item())

    def find_bad_lines() -> BadRows:
        if not any(counts.get(fate) for fate in UNREADABLE):
            return BadRows([], {})
        with_lines = source.raw(table.columns, table.may_lack, with_lines=True)
        again = _judged(with_lines.with_columns(**_stored_of(table)), source, table, rules, own)
        places = {fates.index(fate): fate for fate in UNREADABLE if fate in fates}
        return _bad_lines(again, table, places, source.path)

    return Outcome(counts, found, find_bad_lines, source.lacks(table.optional)), num_bad_times


def _by_key(stays: pl.DataFrame, key: str) -> pl.LazyFrame:
    """What a row is joined to: the cohort's stays, and the keys of which no stay is in it (``row`` is null). A stay
    that is several rows has several keys, but is one stay of its patient."""
    stays = stays.select("row", key, "intime").unique(maintain_order=True)
    mine = stays.drop_nulls("row")
    others = stays.filter(pl.col("row").is_null()).unique(key, maintain_order=True).join(mine, on=key, how="anti")
    return pl.concat([mine, others]).lazy().with_columns(again=~pl.col(key).is_first_distinct())


def _broken(table: EventTable, rules: Rules) -> dict[str, pl.Expr]:
    """Fate -> whether a row meets it, if none before; those that look at no value."""
    return {
        BAD_TIME: _is_bad_time(table),
        BAD_ID: pl.col(table.key).is_null(),
        NO_STAY: pl.col("again").is_null(),
        "not_in_cohort": pl.col("row").is_null(),
        **rules.dropped,
    }


def _judged(raw: pl.LazyFrame, source: Source, table: EventTable, rules: Rules, own: pl.LazyFrame) -> pl.LazyFrame:
    """The wanted rows of a table with their stays and the place of their ``fate``."""
    values = {**table.values, **table.hints}
    others = {name: kind for name, kind in {**table.columns, **table.may_lack}.items() if name not in values}
    early, late = list(_broken(table, rules).values()), list(rules.dropped_by_value.values())
    return (
        _wanted(raw, source, table, rules.item_ids)
        .with_columns(*source.typed(raw, others), *source.unreadable(raw, table.times_that_may_be_empty))
        .join(own, on=table.key, how="left")
        .with_columns(fate=first_of(early))
        .with_columns(pl.when(pl.col("fate") == len(early)).then(pl.col(*table.values)) if table.values else [])
        .with_columns(*source.typed(raw, values), *source.unreadable(raw, table.values))
        .with_columns(fate=pl.when(pl.col("fate") < len(early)).then("fate").otherwise(first_of(late) + len(early)))
    )


def _wanted(raw: pl.LazyFrame, source: Source, table: EventTable, item_ids: Sequence[ItemId]) -> pl.LazyFrame:
    """The rows of items that somebody reads."""
    (item,) = source.typed(raw, {table.item: table.item_kind})
    return raw.filter(item.is_in(item_ids))


def _stored_of(table: EventTable) -> dict[str, pl.Expr]:
    """The text of what can be unreadable in a wanted row."""
    names = (table.key, *table.times, *table.may_be_empty)
    return {f"{name}_stored": pl.col(name).cast(pl.String, strict=False) for name in names}


def _bad_lines(judged: pl.LazyFrame, table: EventTable, fates: Mapping[int, str], path: Path) -> BadRows:
    """The lines of some fates, no more than the first ``MAX_LINES``; one that is met for two stays is told once. And of
    each fate the line and the form of the first."""
    bad = judged.filter(pl.col("fate").is_in(list(fates)))
    told = bad.select(LINE, "fate").unique(LINE, keep="any").bottom_k(MAX_LINES, by=LINE)
    first = bad.group_by("fate").agg(pl.all().sort_by(LINE).first())
    lines, firsts = collect_all([told, first], path)
    found = {
        fates[row["fate"]]: {"line": row[LINE], "form": _form_of_bad(row, table, fates[row["fate"]])}
        for row in firsts.sort(LINE).iter_rows(named=True)
    }
    return BadRows([(line, fates[place]) for line, place in lines.sort(LINE).iter_rows()], found)


def _form_of_bad(row: Mapping[str, Any], table: EventTable, fate: str) -> str:
    """The form of what cannot be read in a row, by its fate; of times, each that cannot."""
    if fate == BAD_ID:
        return form_of(row[f"{table.key}_stored"])
    names = _bad_times_of(row, table) if fate == BAD_TIME else [n for n in table.values if row[f"{n}_unreadable"]]
    return ", ".join(form_of(row[f"{name}_stored"]) for name in names)


def _bad_times_of(row: Mapping[str, Any], table: EventTable) -> list[str]:
    """The times of a row that cannot be read."""
    missing = [time for time in table.times if row[time] is None and time not in table.open_ends]
    return missing + [name for name in table.times_that_may_be_empty if row[f"{name}_unreadable"]]


def _is_bad_time(table: EventTable) -> pl.Expr:
    """Whether a time cannot be read, or one that must be there is not."""
    missing = [pl.col(time).is_null() for time in table.times if time not in table.open_ends]
    return pl.any_horizontal(*missing, *(pl.col(f"{name}_unreadable") for name in table.times_that_may_be_empty))


def first_of(broken: Sequence[pl.Expr]) -> pl.Expr:
    """The place of the first expression that is true; their number where none is."""
    places = (pl.when(is_so).then(pl.lit(place, pl.UInt8)) for place, is_so in enumerate(broken))
    return pl.coalesce(*places, pl.lit(len(broken), pl.UInt8))


def _counted(tally: Tally, summary: pl.DataFrame, fates: Sequence[str]) -> dict[str, int]:
    """All rows = rows without an item id + of other items + wanted; wanted + counted again (for a second stay of the
    patient) = the sum of the fates."""
    rows, unreadable = (sum(block[place] for block in tally.blocks) for place in range(2))
    by_fate = {fate: int(summary.filter(pl.col("fate") == fate)["num"].sum()) for fate in fates}
    again = int(summary["num_again"].sum())
    wanted = sum(by_fate.values()) - again
    others = rows - unreadable - wanted
    head = {"rows": rows, BAD_ITEM: unreadable, "other_items": others, "wanted": wanted}
    return {**head, "counted_again": again, **by_fate}


def _refuse_unreadable(
    source: Source,
    table: EventTable,
    rules: Rules,
    counts: Mapping[str, Any],
    num_bad_times: int,
    max_bad_fraction: float,
) -> None:
    """Stop for a table of which too much cannot be read.

    Raises:
        DataError: too many times or ids cannot be read; or there is no row at all.
    """
    refuse_empty(source, counts["rows"])
    for column, num, num_rows in (
        (table.item, counts[BAD_ITEM], counts["rows"]),
        (table.key, counts[BAD_ID], counts["wanted"]),
    ):
        if is_too_many(num, num_rows, max_bad_fraction):
            item_ids = rules.item_ids if column == table.key else None
            first = _first_without(source, table, column, item_ids)
            refuse_unreadable(source, column, num, num_rows, max_bad_fraction, first=first)
    if is_too_many(num_bad_times, counts["wanted"], max_bad_fraction):
        row = _first_bad_time(source, table, rules.item_ids)
        raise DataError(bad_times(source, _bad_times_of(row, table), num_bad_times, counts["wanted"], row))


def _first_bad_time(source: Source, table: EventTable, item_ids: Sequence[ItemId]) -> dict[str, Any]:
    """The first row of which a time cannot be read; where most such rows lack one, the first of these."""
    bad = bad_rows(source, table, item_ids, _is_bad_time(table))
    needed = [time for time in table.times if time not in table.open_ends]
    is_gap = pl.any_horizontal(pl.col(f"{time}_stored").fill_null("").str.strip_chars() == "" for time in needed)
    found = [bad.select(is_gap.mean()), bad.head(1), bad.filter(is_gap).head(1)]
    share, first, first_gap = collect_all(found, source.path)
    return (first_gap if share.item() > 1 / 2 else first).row(0, named=True)


def _first_without(source: Source, table: EventTable, column: str, item_ids: Sequence[ItemId] | None) -> dict[str, Any]:
    """Line and form of the first row, of these items, whose id cannot be read."""
    source = replace(source, is_careful=True)
    raw = source.raw(table.columns, table.may_lack, with_lines=True)
    rows = raw if item_ids is None else _wanted(raw, source, table, item_ids)
    (typed,) = source.typed(raw, {column: table.columns[column]})
    bad = rows.filter(typed.is_null()).select(LINE, pl.col(column).cast(pl.String, strict=False))
    line, text = collect(bad.head(1), source.path).row(0)
    return {"line": line, "form": form_of(text)}


def bad_rows(source: Source, table: EventTable, item_ids: Sequence[ItemId], is_bad: pl.Expr) -> pl.LazyFrame:
    """The wanted rows of which an expression over their columns (as in ``Rules``) is true: a second reading of the
    table. They have their ``LINE``, and beside each time and value what is stored (``NAME_stored``)."""
    source = replace(source, is_careful=True)
    raw = source.raw(table.columns, table.may_lack, with_lines=True)
    read = {**dict.fromkeys(table.times, TIME), **table.may_be_empty}
    typed, unreadable = source.typed(raw, read), source.unreadable(raw, table.may_be_empty)
    return _wanted(raw, source, table, item_ids).select(LINE, *typed, *unreadable, **_stored_of(table)).filter(is_bad)


def bad_times(
    source: Source,
    times: Sequence[str],
    num: int,
    rows: int,
    first: Mapping[str, Any],
    *,
    are_others_read: bool = False,
) -> Problem:
    """What is told of too many unreadable times: the first one's line and form, never its text. Where other times of
    the table can be read, another format would only lose these."""
    forms = ", ".join(repr(form_of(first[f"{time}_stored"])) for time in times)
    own_form, own_format = "Export it in the form of the other times", "Set data.ehr.datetime_format, mend the export"
    is_empty = not any((first[f"{time}_stored"] or "").strip() for time in times)
    remedy = "Export it in every row" if is_empty else own_form if are_others_read else own_format
    remedy += RAISE * (2 * num < rows)
    return Problem(
        f"{' and '.join(times)} must match {source.time_format}",
        f"{num:,} of {rows:,} rows that do not (first: line {first[LINE]:,}, form {forms}) from {source.label}",
        f"{remedy}.",
        "E103",
    )
