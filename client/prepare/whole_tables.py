"""Small tables that are read whole: those of stays, patients and admissions. Every row and number is accounted for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import polars as pl

from client.prepare.event_pass import BAD_ID, BAD_TIME, MAX_LINES, BadLines, FirstBad, bad_times
from client.site import Prepare
from lemof_model.errors import DataError
from readers.tables.files import LINE, TIME, Columns, collect, day, is_unreadable, unique_rows
from readers.tables.ids import text_ids
from readers.tables.source import Source
from readers.tables.unreadable import form_of, is_too_many, refuse_empty, refuse_unreadable


@dataclass(frozen=True)
class WholeTable:
    """A small table: its columns, of which the ``key`` is there once, the ``flags`` are 0 or 1 (another number is
    another column's: codes of where patients went, say), and the ``days``, which it may lack, are dates."""

    source: Source
    columns: Columns
    key: str
    flags: tuple[str, ...] = ()
    days: tuple[str, ...] = ()


class Read(NamedTuple):
    """One table as its types, its counts, and what in it cannot be read."""

    table: pl.DataFrame
    counts: dict[str, Any]
    bad_lines: BadLines
    first_bad: FirstBad


def read_whole(tables: Mapping[str, WholeTable], rules: Prepare) -> dict[str, Read]:
    """Read some tables; ids are numbers or text as all of them together tell (see ``ids``).

    Raises:
        DataError: a table is empty or damaged, a key is repeated, or too many numbers or times of it cannot be read.
    """
    stored = {name: _stored_table(table) for name, table in tables.items()}
    texts = text_ids(stored.values())
    return {
        name: _read_table(replace(table, source=replace(table.source, text_ids=texts)), stored[name], rules)
        for name, table in tables.items()
    }


def _stored_table(table: WholeTable) -> pl.DataFrame:
    """A whole table with its lines, as it is stored."""
    source = table.source
    raw = source.raw(dict.fromkeys(table.columns, pl.String), dict.fromkeys(table.days, pl.String), with_lines=True)
    stored = collect(raw, source.path)
    refuse_empty(source, stored.height)
    return stored


def _read_table(its: WholeTable, stored: pl.DataFrame, rules: Prepare) -> Read:
    """A table as its types, each key once."""
    source, columns, key, limit = its.source, its.columns, its.key, rules.max_bad_fraction
    whole = _with_stored(its, stored)
    bad = {
        BAD_ID if column == key else f"{column}_unreadable": _bad_numbers(whole, column, its, limit)
        for column in _of_type(columns, pl.Int64)
    }
    bad[BAD_TIME] = _bad_times(whole, source, _of_type(columns, TIME), limit)
    bad |= {f"{name}_unreadable": _bad_days(whole, name, source, limit) for name in its.days}
    names = [name for name in whole.columns if name != LINE and not name.endswith(_stored(""))]
    table, num_again = unique_rows(whole.select(names), key, source.path, rules.on_duplicate)
    lines: dict[str, list[int]] = {reason: rows[LINE].to_list() for reason, rows in bad.items()}
    counts = {
        "file": source.path.name,
        "rows": whole.height,
        **{reason: len(places) for reason, places in lines.items()},
        "duplicates": num_again,
        "used": table.height,
    }
    lines["repeated"] = whole.drop_nulls(key).filter(~pl.col(key).is_first_distinct())[LINE].to_list()
    first_reason = {line: reason for reason, places in reversed(lines.items()) for line in places}
    first_bad = {reason: first for reason, rows in bad.items() if (first := _first(rows))}
    return Read(table, counts, sorted(first_reason.items())[:MAX_LINES], first_bad)


def _of_type(columns: Columns, kind: type[pl.DataType] | pl.DataType) -> list[str]:
    """The columns of a type."""
    return [column for column, its in columns.items() if its == kind]


def _stored(column: str) -> str:
    """Where the text of a column is kept."""
    return f"{column}_stored"


def _with_stored(its: WholeTable, stored: pl.DataFrame) -> pl.DataFrame:
    """A whole table with its lines, and the text of every number and time."""
    columns = its.columns
    typed = its.source.typed(stored.lazy(), columns)
    typed += [day(name, stored.schema[name], its.source.time_format) for name in its.days]
    judged = [*_of_type(columns, pl.Int64), *_of_type(columns, TIME), *its.days]
    texts = [pl.col(column).cast(pl.String, strict=False).alias(_stored(column)) for column in judged]
    flags = [pl.when(pl.col(name).is_in([0, 1])).then(name) for name in its.flags]
    return stored.select(LINE, *typed, *texts).with_columns(flags)


def _bad_days(whole: pl.DataFrame, name: str, source: Source, max_bad_fraction: float) -> pl.DataFrame:
    """Line and text of the rows with a day of death that is there and cannot be read.

    Raises:
        DataError: they are too many of those that are there: the dead would pass for living.
    """
    bad = _told(whole, is_unreadable(pl.col(name), pl.col(_stored(name))), name)
    num_there = whole.height - whole[_stored(name)].null_count()
    rule = f"a date as 2150-03-10, or match {source.time_format}"
    refuse_unreadable(source, name, bad.height, num_there, max_bad_fraction, rule=rule, first=_first(bad))
    return bad


def _told(whole: pl.DataFrame, is_bad: pl.Expr, column: str) -> pl.DataFrame:
    """Line and text of the rows of which something is bad."""
    return whole.filter(is_bad).select(LINE, text=_stored(column))


def _bad_numbers(whole: pl.DataFrame, column: str, its: WholeTable, max_bad_fraction: float) -> pl.DataFrame:
    """Line and text of the rows with a number that is there and cannot be read. One that is not there is no fault,
    unless it is the key.

    Raises:
        DataError: they are too many.
    """
    number = pl.col(column)
    is_bad = number.is_null() if column == its.key else is_unreadable(number, pl.col(_stored(column)))
    bad = _told(whole, is_bad, column)
    rule = "0 or 1" if column in its.flags else "a whole number"
    refuse_unreadable(its.source, column, bad.height, whole.height, max_bad_fraction, rule=rule, first=_first(bad))
    return bad


def _first(bad: pl.DataFrame) -> dict[str, Any] | None:
    """Line and form of the first of some bad rows."""
    return {"line": bad[LINE][0], "form": form_of(bad["text"][0])} if bad.height else None


def _bad_times(whole: pl.DataFrame, source: Source, times: Sequence[str], max_bad_fraction: float) -> pl.DataFrame:
    """Line and text of the rows with a time that is there and cannot be read.

    Raises:
        DataError: they are too many of the times that are there; few admissions have a ``deathtime``.
    """
    is_bad = {time: is_unreadable(pl.col(time), pl.col(_stored(time))) for time in times}
    num_there = {time: whole.height - whole[_stored(time)].null_count() for time in times}
    num_bad = {time: whole.select(is_so.sum()).item() for time, is_so in is_bad.items()}
    for time in times:
        if is_too_many(num_bad[time], num_there[time], max_bad_fraction):
            first = whole.filter(is_bad[time]).row(0, named=True)
            are_others_read = any(2 * num_bad[other] < num_there[other] for other in times if other != time)
            raise DataError(
                bad_times(source, [time], num_bad[time], num_there[time], first, are_others_read=are_others_read)
            )
    text = pl.coalesce(pl.when(is_so).then(_stored(time)) for time, is_so in is_bad.items()) if times else pl.lit("")
    any_bad = pl.any_horizontal(pl.lit(False), *is_bad.values())
    return whole.filter(any_bad).select(LINE, text=text)
