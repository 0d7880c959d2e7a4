"""Files of rows: csv, csv.gz or parquet, never loaded whole. Polars streams them once.

The schema is built from the file's own header, so columns may come in any order, more may be there, and a missing one
is named instead of misread. What cannot be read as an id, a number or a time is null, and the caller counts it.
"""

import csv
import difflib
import errno
import gzip
import re
import warnings
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from lemof_model.errors import DataError, DiskError, Problem
from readers.tables.ids import as_number

TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
TIME = pl.Datetime("us")
LINE = "line of the file"  # no column of a table is called so
ESTIMATE_BYTES = 1 << 20
SEPARATORS = {";": ";", "\t": "tabs", "|": "|"}

Columns = Mapping[str, type[pl.DataType] | pl.DataType]


@dataclass(frozen=True)
class Naming:
    """What the columns of a table are called.

    Attributes:
        table: the layout's name of it.
        own: the layout's name of a column -> what the hospital's file calls it; None where nobody may rename one.
        older: the same for what older versions of the layout called it.
        known: all columns that the layout has in the table. Each means the same at every hospital: none is proposed, or
            taken, for another.
        no_free_text: columns in which no quote can be: at the end of a line they need not be read.
    """

    table: str = ""
    own: Mapping[str, str] | None = None
    older: Mapping[str, str] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    no_free_text: frozenset[str] = frozenset()

    def is_another(self, name: str, own: str) -> bool:
        """Whether what a hospital calls a column is the layout's name of another one.

        Example:
            >>> naming = Naming("admissions", {}, {"race": "ethnicity"}, frozenset({"dischtime", "race", "ethnicity"}))
            >>> naming.is_another("deathtime", "DischTime"), naming.is_another("race", "ethnicity")
            (True, False)
        """
        plain = own.strip().lower()
        return plain in self.known and plain not in (name, self.older.get(name))

    def in_file(self, header: Sequence[str], name: str) -> str:
        """What the file calls a column."""
        if name in (self.own or {}):
            return (self.own or {})[name]
        older = self.older.get(name, name)
        return older if name not in header and older in header else name


def raw(
    path: Path,
    columns: Columns,
    optional: Columns,
    naming: Naming,
    line: str | None,
    *,
    texts: Collection[str] = (),
) -> pl.LazyFrame:
    """The named columns of a file, whole numbers as integers but for ``texts``, the rest as it is stored; see
    ``Source.raw``. With ``line`` its lines are a column of that name."""
    header = header_of(path)
    known = {**columns, **optional}
    names = {name: naming.in_file(header, name) for name in known}
    meant = {column.strip().lower() for column in header}.union(naming.own or {})  # also optional ones are then needed
    needed = [name for name in known if name in columns or name in meant]
    if missing := [name for name in needed if names[name] not in header]:
        name = missing[0]
        raise DataError(_no_column(path, naming, name, names[name], header))
    there = {name: own for name, own in names.items() if own in header}
    if twice := [own for own in there.values() if header.count(own) > 1]:
        raise DataError(
            rule="Columns must have names of their own",
            got=f"{twice[0]} twice from {path.name}",
            fix="Name each column once in the export.",
            code="E102",
        )
    if path.suffix == ".parquet":
        frame = pl.scan_parquet(path, row_index_name=line, row_index_offset=1)
        kinds = frame.collect_schema()
        stored = [_as_stored(own, kinds[own]).alias(name) for name, own in there.items()]
    else:
        ids = {own for name, own in there.items() if known[name] == pl.Int64 and name not in texts}
        last_read = max(header.index(own) for own in there.values())
        frame = _csv(path, header, ids, line, is_read_to_end=naming.no_free_text.issuperset(header[last_read + 1 :]))
        stored = [pl.col(own).alias(name) for name, own in there.items()]
    absent = [pl.lit(None, known[name]).alias(name) for name in known if name not in there]
    return frame.select(*([line] if line else []), *stored, *absent)


def _csv(
    path: Path, header: Sequence[str], ids: Collection[str], line: str | None, *, is_read_to_end: bool
) -> pl.LazyFrame:
    """All columns of a csv file as text, ``ids`` as integers."""
    # Names that repeat and nobody reads get polars' names for them.
    names = [f"{own}_duplicated_{n - 1}" if (n := header[:i].count(own)) else own for i, own in enumerate(header)]
    frame = pl.scan_csv(
        path,
        schema={name: pl.Int64 if name in ids else pl.String for name in names},
        encoding="utf8-lossy",
        ignore_errors=True,  # where an id is none of the reader's integers it is null
        row_index_name=line,
        row_index_offset=2,
    )
    if is_read_to_end:
        return frame
    # Always true. Polars sees lines that a stray quote runs together only in rows that it reads to their end.
    return frame.filter(pl.col(names[-1]).is_null() | pl.col(names[-1]).is_not_null())


def typed(
    name: str, stored: pl.DataType, kind: type[pl.DataType] | pl.DataType, time_format: str, label: str
) -> pl.Expr:
    """A column of ``raw`` as its type; what cannot be read is null. ``label`` is the file in messages.

    Raises:
        DataError: times that are no text and no local times: a zone, a date or a number would be guessed at.
    """
    column = pl.col(name)
    if kind == TIME and stored == pl.String:
        return column.str.to_datetime(time_format, strict=False, time_unit="us")
    is_local = isinstance(stored, pl.Datetime) and stored.time_zone is None
    if kind == TIME and not is_local and stored != pl.Null:
        raise DataError(
            rule=f"{name} must be local times or text",
            got=f"{stored} from {label}",
            fix="Export dates with their time and without a zone.",
            code="E103",
        )
    if kind == pl.Int64:
        return as_number(name, stored, label)
    return column.cast(kind, strict=False)


def day(name: str, stored: pl.DataType, time_format: str) -> pl.Expr:
    """A date of a column of ``raw``: a time in the table's format, its day alone, or 2150-03-10. None where it is none
    of these."""
    column = pl.col(name)
    if stored != pl.String:
        return column.cast(TIME, strict=False) if stored in (pl.Date, pl.Null) or stored == TIME else pl.lit(None, TIME)
    forms = dict.fromkeys([time_format, re.split(r"[ T]*%[HI]", time_format)[0], "%Y-%m-%d"])
    plain = column.str.strip_chars()
    read = [plain.str.to_datetime(form, strict=False, time_unit="us", cache=False) for form in forms if "%d" in form]
    return pl.coalesce(read).dt.truncate("1d").alias(name)


def is_unreadable(value: pl.Expr, stored: pl.Expr) -> pl.Expr:
    """Whether a value is empty though its stored text is not: only the texts of empty values are looked at."""
    return (pl.when(value.is_null()).then(stored).str.strip_chars() != "").fill_null(False)


class EncodingError(DataError):
    """A text file is not in UTF-8, where its bytes must not change."""


def collect(frame: pl.LazyFrame, path: Path) -> pl.DataFrame:
    """Run a scan of ``path``, streaming.

    Raises:
        DataError: the file is damaged. The message quotes no value.
    """
    return collect_all([frame], path)[0]


def collect_all(frames: Sequence[pl.LazyFrame], path: Path) -> list[pl.DataFrame]:
    """Run what shares one scan of ``path`` in one streaming pass.

    Raises:
        DataError: the file is damaged. The message quotes no value.
        DiskError: what the pass writes does not fit on the disk.
    """
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")  # "error" and "once" would both lose some
            found = pl.collect_all(list(frames), engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        full = re.search(r"No space left|[Qq]uota|File too large", str(error))
        if full or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskError(
                rule="The disk must hold what preparation writes",
                got="a full one",
                fix="What is finished is kept: free space, then run the same command.",
                code="E601",
            ) from None
        if "utf-8" in str(error):  # only whoever keeps bytes reads strictly
            raise EncodingError(
                rule="The table must be in UTF-8", got=f"another encoding from {path.name}", code="E110"
            ) from None
        is_ragged = isinstance(error, pl.exceptions.ComputeError) and path.suffix != ".parquet"
        ragged = "a row with more fields than the header, or a quote without an end"
        what = ragged if is_ragged else "one that is cut short or unreadable"
        raise DataError(
            rule="The table must be a whole file", got=f"{what} from {path.name}", fix="Export it again.", code="E110"
        ) from None
    for warning in told:
        if "CSV malformed" in str(warning.message):
            raise DataError(
                rule="The table must have a row in every line",
                got=f"lines that a stray quote runs together from {path.name}",
                fix="Export it again: text in quotes, and a quote in it doubled.",
                code="E110",
            )
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return found


def unique_rows(frame: pl.DataFrame, key: str, path: Path, on_duplicate: str) -> tuple[pl.DataFrame, int]:
    """Rows with a key of their own, and how many were left out because theirs had come before: a join would lose or
    invent stays. Rows without a key are left out too; the caller counts them.

    Raises:
        DataError: a key repeats, and ``on_duplicate`` is "refuse".
    """
    numbered = frame.with_row_index(LINE, offset=2).drop_nulls(key)
    again = numbered.filter(~pl.col(key).is_first_distinct())
    if again.height and on_duplicate == "refuse":
        lines = ", ".join(f"{line:,}" for line in again[LINE].head(3))
        repeated = numbered.join(again.select(key).unique(), on=key, how="semi")
        num_others = repeated.drop(LINE, "list_row", strict=False).n_unique() - repeated[key].n_unique()
        same = "Mend the export, or set prepare.on_duplicate: first"
        others = (
            f"{num_others:,} of them differ from the first, which to keep would lose what they say. Mend the export"
        )
        raise DataError(
            rule=f"{key} must be there once",
            got=f"{again.height:,} repetitions (lines {lines}{', ...' if again.height > 3 else ''}) from {path.name}",
            fix=f"{others if num_others else same}.",
            code="E104",
        )
    return numbered.filter(pl.col(key).is_first_distinct()).drop(LINE), again.height


def estimate_rows(path: Path) -> int:
    """The number of rows of a table: for a long csv or csv.gz, from the first megabyte of its file."""
    if path.suffix == ".parquet":
        return int(pl.scan_parquet(path).select(pl.len()).collect().item())
    with path.open("rb") as file:
        head = file.read(ESTIMATE_BYTES)
    return round(_num_lines(head, path) * path.stat().st_size / len(head)) - 1


def _num_lines(head: bytes, path: Path) -> int:
    """Lines in the beginning of a file; a compressed one may be many small ones in a row."""
    num, rest = 0, head
    while path.suffix == ".gz" and rest:
        part = zlib.decompressobj(wbits=31)
        try:
            num += part.decompress(rest).count(b"\n")
        except zlib.error:
            raise DataError(
                rule="The table must be a whole file",
                got=f"a damaged one from {path.name}",
                fix="Export it again.",
                code="E110",
            ) from None
        rest = part.unused_data
    return num or head.count(b"\n")


def header_of(path: Path) -> list[str]:
    """The names of a file's columns.

    Raises:
        DataError: the file is damaged, or not one of the three kinds.
        DiskError: it cannot be read at all.
    """
    try:
        if path.suffix == ".parquet":
            return list(pl.read_parquet_schema(path))
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, EOFError, csv.Error, pl.exceptions.PolarsError) as error:
        if reason := getattr(error, "strerror", None):
            raise DiskError(
                rule="The table must be readable",
                got=f"{reason} from {path.name}",
                fix="Mend its permissions or the disk.",
                code="E603",
            ) from None
        raise DataError(
            rule="The table must be a whole csv, csv.gz or parquet file",
            got=f"a damaged one from {path.name}",
            fix="Export it again.",
            code="E110",
        ) from None
    if not header:
        raise DataError(
            rule="The table must have a header",
            got=f"an empty file from {path.name}",
            fix="Export it again.",
            code="E106",
        )
    return header


def _no_column(path: Path, naming: Naming, name: str, own: str, header: Sequence[str]) -> Problem:
    """The message for a column that is not there. A first row of data in place of a header is not quoted; a name that
    the layout has for another column of the table is not proposed."""
    if separators := [told for mark, told in SEPARATORS.items() if len(header) == 1 and mark in header[0]]:
        return Problem(
            "The columns must be separated by commas",
            f"a table separated by {separators[0]} from {path.name}",
            "Export it with commas.",
            "E102",
        )
    if any("\0" in column for column in header):
        return Problem(
            "The table must be in UTF-8", f"another encoding from {path.name}", "Export it in UTF-8.", "E110"
        )
    if any(re.match(r"\W*\d", column) or not column.isprintable() for column in header):
        return Problem(
            f"The first line must be a header that names {own}",
            f"data from {path.name}",
            "Export it with its header.",
            "E102",
        )
    by_lower_case = {column.lower(): column for column in header if not naming.is_another(name, column)}
    close = [by_lower_case[column] for column in difflib.get_close_matches(own.lower(), by_lower_case, n=1)]
    question = f"Did you mean {close[0]}? " if close else ""
    key = f"data.ehr.columns.{naming.table}.{name}: {close[0] if close else 'ITS_NAME'}"
    remedy = f"Add {key}, or export the column." if naming.own is not None else "Export the column under its name."
    return Problem(
        f"Columns must include {own}", f"{', '.join(header)} from {path.name}", f"{question}{remedy}", "E102"
    )


def _as_stored(name: str, stored: pl.DataType) -> pl.Expr:
    """A column of a parquet file, categories as text."""
    column = pl.col(name)
    return column.cast(pl.String) if isinstance(stored, pl.Categorical | pl.Enum) else column
