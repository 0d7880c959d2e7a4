"""The raw tables: headers, a sample of the first rows (or every row), their number, units and what was given."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl
from rich.progress import Progress

from client.checks.concerns import absent_columns, treatments, units
from client.checks.findings import Finding
from client.prepare.event_pass import EventTable
from client.prepare.icd_codes import DIAGNOSES, without_code
from client.prepare.icd_zeros import codes_of, refuse_lost_zeros, refuse_numeric_codes
from client.prepare.layout import TableCheck
from client.prepare.measurements import Events, counts_by_concept, sample_of
from client.prepare.treatments import Intervals, items_of, require_ends, sample_of_treatments
from client.prepare.units import parts_of, require_units
from lemof_model.errors import DataError
from lemof_model.icd import VERSIONS
from readers.tables.files import LINE, TIME, Columns, collect, estimate_rows, is_unreadable
from readers.tables.source import Source
from readers.tables.unreadable import form_of, is_too_many, refuse_unreadable

SAMPLE_ROWS = 1000
UNIT_ROWS = 100_000  # some twenty stays: the first thousand rows may be one patient's
Reads = Events | Intervals


def check_table(
    table: TableCheck,
    not_given: Sequence[str],
    *,
    max_bad_fraction: float,
    is_deep: bool,
    progress: Progress,
    text_ids: frozenset[str] = frozenset(),
) -> Iterator[Finding]:
    """One table: that it is there, has its columns, and that its values can be read; ``text_ids`` are no numbers here.

    Raises:
        DataError: it is not there, lacks a column, or is damaged.
    """
    source = table.find()
    if source is None:
        fix = f"Export it if this hospital has it, or set data.ehr.tables.{table.name}."
        yield Finding(table.name, "warn", "not there: its features will be missing", fix, "E101")
        return
    source = replace(source, text_ids=text_ids)
    reads = table.reads(source) if table.reads else None
    events = reads.table if reads else None
    needed, optional = table.columns, events.may_lack if events else {}
    columns = {**needed, **optional}
    every_row = source.raw(dict.fromkeys(needed, pl.String), dict.fromkeys(optional, pl.String), with_lines=True)
    rows = _watched(every_row, source, progress) if is_deep else every_row.head(SAMPLE_ROWS)
    counted = _counts(source, rows, columns, _missing(table, source, rows, reads))
    counts = collect(counted, source.path).row(0, named=True)
    num_rows = counts["rows"]
    if not num_rows:
        yield Finding(source.label, "fail", "no rows", "Export the table again.", "E106", DataError.exit_status)
        return
    is_whole = is_deep or num_rows < SAMPLE_ROWS
    listed = f"{num_rows:,} rows" if is_whole else f"{estimate_rows(source.path):,} rows est."
    yield Finding(source.label, "ok", f"has its {len(needed)} columns, {listed}")
    yield from _absent(source, events, table.without_hints)
    for column, kind in columns.items():
        if num_bad := counts.get(f"{column} bad", 0):
            stops = is_too_many(num_bad, num_rows, max_bad_fraction) or 2 * num_bad > num_rows
            found = _unreadable(source, table.columns, column, kind, num_rows, counts, stops=stops)
            is_hint = events is not None and column in events.hints
            yield replace(found, result="warn", fix="Such rows count as given.", exit_status=0) if is_hint else found
        if num_missing := counts.get(f"{column} missing", 0):
            told = f"{num_missing:,} of {num_rows:,} rows have no {column} (first: line {counts[f'{column} gap']:,})"
            if is_too_many(num_missing, num_rows, max_bad_fraction):
                yield Finding(
                    source.label, "fail", told, f"Export {column} in every row.", "E105", DataError.exit_status
                )
            else:
                yield Finding(source.label, "warn", told, "So few are skipped.", "E105")
    rows = every_row if is_deep else every_row.head(UNIT_ROWS)
    if events and events.values and not is_deep and estimate_rows(source.path) > UNIT_ROWS:
        # Of so few stays one that is measured daily would be the median: each counts once.
        rows = rows.unique([events.key, events.item, *events.hints], keep="first", maintain_order=True)
    if reads:
        yield from _judged(reads, rows, not_given, max_bad_fraction)
    if table.is_of_codes:
        _require_codes(source, rows, max_bad_fraction)


def _absent(source: Source, events: EventTable | None, without_hints: str) -> Iterator[Finding]:
    """The columns that a table may lack, and does."""
    if events and (absent := source.lacks(events.optional)):
        yield absent_columns(source.label, absent)
    if events and without_hints and (absent := source.lacks(events.hints)):
        fix = "Export it if this hospital has it."
        yield Finding(source.label, "warn", f"no {', '.join(absent)}: {without_hints}", fix, "E102")


def _watched(rows: pl.LazyFrame, source: Source, progress: Progress) -> pl.LazyFrame:
    """The rows with a bar that moves as they are read."""
    bar = progress.add_task(source.label, total=estimate_rows(source.path))

    def advance(block: pl.DataFrame) -> pl.DataFrame:
        progress.advance(bar, block.height)
        return block

    return rows.map_batches(advance, streamable=True)


def _missing(table: TableCheck, source: Source, rows: pl.LazyFrame, reads: Reads | None) -> dict[str, pl.Expr]:
    """Column -> whether a row lacks what ``prepare`` cannot do without."""
    if table.is_of_codes:
        return {column: pl.col(column).is_null() for column in ("hadm_id", "icd_version")} | {
            "icd_code": without_code()
        }
    if reads is None:  # ``prepare`` and ``check`` read these tables whole, and alike
        return {}
    events = reads.table
    if isinstance(reads, Events):
        item_ids = [item_id for concept in reads.concepts for item_id in concept.item_ids]
    else:
        item_ids = items_of(reads)["item"].to_list()
    (item,) = source.typed(rows, {events.item: events.item_kind})
    columns = [events.key, *(time for time in events.times if time not in events.open_ends)]
    is_missing = {column: pl.col(column).is_null() & item.is_in(item_ids) for column in columns}
    return {events.item: pl.col(events.item).is_null(), **is_missing}


def _counts(source: Source, rows: pl.LazyFrame, columns: Columns, missing: Mapping[str, pl.Expr]) -> pl.LazyFrame:
    """One row: the number of rows; for each column the texts that cannot be read as its type, and the first of them
    with its line; the rows that lack one that is needed, and the first line."""
    counts = [pl.len().alias("rows")]
    for name, is_so in missing.items():
        counts += [is_so.sum().alias(f"{name} missing"), pl.col(LINE).filter(is_so).first().alias(f"{name} gap")]
    for (name, kind), value in zip(columns.items(), source.typed(rows, columns), strict=True):
        if kind != pl.String:
            text = pl.col(name).cast(pl.String)
            is_bad = is_unreadable(value, text)
            counts += [is_bad.sum().alias(f"{name} bad"), text.filter(is_bad).first().alias(f"{name} first")]
            counts += [pl.col(LINE).filter(is_bad).first().alias(f"{name} line"), text.count().alias(f"{name} there")]
    return rows.select(counts)


def _unreadable(
    source: Source,
    columns: Columns,
    column: str,
    kind: type[pl.DataType] | pl.DataType,
    num_rows: int,
    counts: Mapping[str, Any],
    *,
    stops: bool,
) -> Finding:
    """The finding about values of the wrong form; their form is told, never a value."""
    if kind == TIME:
        others = [name for name, its in columns.items() if its == TIME and name != column]
        are_read = any(2 * counts[f"{name} bad"] < counts[f"{name} there"] for name in others)
        fix = "Export it in the form of the other times." if are_read else "Set data.ehr.datetime_format."
        rule, code = f"do not match {source.time_format}", "E103"
    else:
        rule, code, fix = f"are no {'integers' if kind == pl.Int64 else 'numbers'}", "E105", "Export the table again."
    first = f"line {counts[f'{column} line']:,}, form '{form_of(counts[f'{column} first'])}'"
    found = f"{counts[f'{column} bad']:,} of {num_rows:,} '{column}' values {rule} (first: {first})"
    if stops:
        return Finding(source.label, "fail", found, fix, code, DataError.exit_status)
    return Finding(source.label, "warn", found, "So few are skipped.", code)


def _require_codes(source: Source, rows: pl.LazyFrame, max_bad_fraction: float) -> None:
    """Refuse codes that lost their zeros, and versions that there are not, as ``prepare`` does.

    Raises:
        DataError: there are some.
    """
    refuse_numeric_codes(source, rows.collect_schema()["icd_code"])
    codes = collect(codes_of(rows.select(source.typed(rows, DIAGNOSES))), source.path)
    is_version = pl.col("icd_version").is_in(VERSIONS)
    num, num_other = (int(codes.filter(part)["num"].sum()) for part in (pl.lit(True), ~is_version))
    refuse_unreadable(source, "icd_version", num_other, num, max_bad_fraction, rule="9 or 10")
    refuse_lost_zeros(source, codes)


def _judged(reads: Reads, rows: pl.LazyFrame, not_given: Sequence[str], max_bad_fraction: float) -> Iterator[Finding]:
    """What ``prepare`` would tell of units, of codes for no value and of what was not given.

    Raises:
        DataError: what it would refuse: names the items and units.
    """
    source = reads.source
    if isinstance(reads, Intervals):
        counts, statuses = sample_of_treatments(reads, rows, not_given)
        require_ends(source, reads.table.times[1], counts, max_bad_fraction)
        yield from treatments(source.label, counts, statuses)
        return
    summary = sample_of(reads, rows)
    require_units(parts_of(summary, reads.concepts), source, reads.table.item, max_bad_fraction)
    yield from units(counts_by_concept(summary, reads.concepts), source.label)
