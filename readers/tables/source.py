"""One raw table: where it lies, what its columns are called, how it writes times, and how its columns are typed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from readers.tables.files import LINE, TIME_FORMAT, Columns, Naming, header_of, is_unreadable, raw, typed
from readers.tables.ids import as_text


@dataclass(frozen=True)
class Derived:
    """Columns that a layout makes of others: from the ``columns`` of the file (as they are stored) ``make`` makes the
    ones it ``makes``, row by row or from several rows; each keeps the ``LINE`` of a row, where lines are read."""

    columns: Columns
    makes: frozenset[str]
    make: Callable[[pl.LazyFrame], pl.LazyFrame]


@dataclass(frozen=True)
class Source:
    """One table of the site: its file (messages name it with its ``folder``), what its columns are called, and how it
    writes times.

    A layout of which a table has not the columns that are asked for, but others that say the same (an interval as two
    rows, a version as a word), says how these are made: ``derived``. ``text_ids`` are the ids that are text at this
    hospital (see ``ids``). With ``is_careful`` ids of a csv file are read as text and then made numbers, which finds
    the ``.0`` that the reader's own integers do not know, and takes longer.
    """

    name: str
    path: Path
    naming: Naming = field(default_factory=Naming)
    time_format: str = TIME_FORMAT
    folder: str = ""
    derived: Derived | None = None
    text_ids: frozenset[str] = frozenset()
    is_careful: bool = False

    @property
    def label(self) -> str:
        """The table's file in messages."""
        return f"{self.folder}/{self.path.name}" if self.folder else self.path.name

    def raw(self, columns: Columns, optional: Columns | None = None, *, with_lines: bool = False) -> pl.LazyFrame:
        """The named columns under the layout's names as they are stored, whole numbers of a csv file as integers: see
        ``typed``.

        ``optional`` columns that the file lacks are null; ``with_lines`` adds the line of the file (``LINE``).

        Raises:
            DataError: a column is missing, or the file cannot be opened.
        """
        optional, line = optional or {}, LINE if with_lines else None
        read, may_lack = (self.derived.columns, {}) if self.derived else (columns, optional)
        texts = {*read, *may_lack} if self.is_careful else self.text_ids
        frame = raw(self.path, read, may_lack, self.naming, line, texts=texts)
        if self.derived is None:
            return frame
        frame = self.derived.make(frame)
        made = frame.collect_schema()
        absent = {name: pl.lit(None, kind) for name, kind in optional.items() if name not in made}
        return frame.with_columns(**absent).select(*([line] if line else []), *columns, *optional)

    def typed(self, frame: pl.LazyFrame, columns: Columns) -> list[pl.Expr]:
        """Expressions that read the columns of ``raw`` as their types; what cannot be read is null.

        Raises:
            DataError: a column of times is stored as something that does not say which local time it means, or one of
                ids as something that has rounded them.
        """
        stored = frame.collect_schema()
        return [
            as_text(name, stored[name], self.label)
            if name in self.text_ids
            else typed(name, stored[name], kind, self.time_format, self.label)
            for name, kind in columns.items()
        ]

    def unreadable(self, frame: pl.LazyFrame, columns: Columns) -> list[pl.Expr]:
        """For each column of ``raw`` whether there is a text that cannot be read as its type: ``NAME_unreadable``."""
        stored, values = frame.collect_schema(), self.typed(frame, columns)
        told = [
            is_unreadable(value, pl.col(name)) if stored[name] == pl.String else pl.lit(False)
            for name, value in zip(columns, values, strict=True)
        ]
        return [is_so.alias(f"{name}_unreadable") for name, is_so in zip(columns, told, strict=True)]

    def lacks(self, optional: Iterable[str]) -> list[str]:
        """Those of the optional columns that the file does not have."""
        header = self.derived.makes if self.derived else header_of(self.path)
        return [name for name in optional if (self.naming.own or {}).get(name, name) not in header]
