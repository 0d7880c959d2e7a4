"""Raw tables: where each one lies, what its columns are, and a lazy scan of those that are asked for.

Tables are csv, csv.gz or parquet and are never loaded whole: polars streams them once. The schema is built from the
table's own header, so columns may come in any order, more may be there, and a missing one is named instead of misread.
What cannot be read as an id, a number or a time is null, and the caller counts it.
"""

import csv
import difflib
import errno
import gzip
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from client.site import EhrData
from lemof_model.errors import ConfigError, DataError, DiskError

FOLDERS = {
    "patients": "hosp",
    "admissions": "hosp",
    "diagnoses_icd": "hosp",
    "labevents": "hosp",
    "icustays": "icu",
    "chartevents": "icu",
    "outputevents": "icu",
    "inputevents": "icu",
    "procedureevents": "icu",
}
OPTIONAL_TABLES = ("outputevents", "inputevents", "procedureevents")
NEEDED_FOR = {
    "patients": "Age and sex",
    "admissions": "Lengths of stay",
    "diagnoses_icd": "Disease groups",
    "labevents": "Laboratory values",
    "icustays": "All features",
    "chartevents": "Vital signs",
}
MIMIC_COLUMNS = {
    "patients": "subject_id gender anchor_age anchor_year",
    "admissions": "subject_id hadm_id admittime dischtime deathtime admission_type admission_location insurance "
    "marital_status race hospital_expire_flag",
    "diagnoses_icd": "hadm_id icd_code icd_version",
    "labevents": "subject_id itemid charttime storetime valuenum",
    "icustays": "subject_id hadm_id stay_id first_careunit intime outtime",
    "chartevents": "stay_id itemid charttime valuenum",
    "outputevents": "stay_id itemid charttime value",
    "inputevents": "stay_id itemid starttime endtime",
    "procedureevents": "stay_id itemid starttime endtime",
}
"""The columns that are read."""
SUFFIXES = (".csv", ".csv.gz", ".parquet")
OLDER_NAMES = {"race": "ethnicity"}  # MIMIC-IV 1.0
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
TIME = pl.Datetime("us")
LINE = "line"
ESTIMATE_BYTES = 1 << 20
HANDFUL = 10  # so few bad rows stop nothing, however small the table
NO_FREE_TEXT = {"valueuom", "warning"}  # chartevents ends with them, and reading them is a tenth of its pass
SEPARATORS = {";": ";", "\t": "tabs", "|": "|"}

Columns = Mapping[str, type[pl.DataType] | pl.DataType]


@dataclass(frozen=True)
class Source:
    """One table of the site: its file, the site's own names of MIMIC's columns, and how it writes times."""

    name: str
    path: Path
    own_names: Mapping[str, str]
    time_format: str = TIME_FORMAT

    @property
    def label(self) -> str:
        """The table's file in messages."""
        return f"{FOLDERS[self.name]}/{self.path.name}"

    def raw(self, columns: Columns, optional: Columns | None = None, *, with_lines: bool = False) -> pl.LazyFrame:
        """The named columns under MIMIC's names, ids as integers, the rest as it is stored: see ``typed``.

        ``optional`` columns that the file lacks are null; ``with_lines`` adds the line of the file (``LINE``).

        Raises:
            DataError: a column is missing, or the file cannot be opened.
        """
        return _raw(self.path, columns, optional or {}, self.own_names, LINE if with_lines else None)

    def typed(self, frame: pl.LazyFrame, columns: Columns) -> list[pl.Expr]:
        """Expressions that read the columns of ``raw`` as their types; what cannot be read is null.

        Raises:
            DataError: a column of times is stored as something that does not say which local time it means.
        """
        stored = frame.collect_schema()
        return [_typed(name, stored[name], kind, self.time_format, self.label) for name, kind in columns.items()]

    def unreadable(self, frame: pl.LazyFrame, columns: Columns) -> list[pl.Expr]:
        """For each column of ``raw`` whether there is a text that cannot be read as its type: ``NAME_unreadable``."""
        stored = frame.collect_schema()
        read = zip(columns, self.typed(frame, columns), strict=True)
        return [_is_unreadable(name, stored[name], value).alias(f"{name}_unreadable") for name, value in read]

    def lacks(self, optional: Columns) -> list[str]:
        """Those of the optional columns that the file does not have."""
        header = header_of(self.path)
        return [name for name in optional if self.own_names.get(name, name) not in header]

    def scan(self, columns: Columns, optional: Columns | None = None) -> pl.LazyFrame:
        """``raw`` with every column as its type."""
        frame = self.raw(columns, optional)
        return frame.select(self.typed(frame, {**columns, **(optional or {})}))


def require_root(ehr: EhrData) -> None:
    """Refuse a site file whose folder of tables is not there: one message, not one for each table.

    Raises:
        DataError: there is no such folder.
    """
    if not ehr.root.is_dir():
        raise DataError(
            f"data.ehr.root must be a folder, got none at {ehr.root}. Set it in the site file, or mount its disk. "
            "[E101]"
        )


def find_table(ehr: EhrData, name: str) -> Path:
    """The file of a MIMIC-IV table: the site's own setting, else ``hosp`` or ``icu`` with .csv, .csv.gz or .parquet.

    Raises:
        DataError: there is no such file, or more than one.
    """
    require_root(ehr)
    own: Path | None = getattr(ehr.tables, name)
    stem = f"{FOLDERS[name]}/{name}"
    found = _candidates(ehr, name)
    if len(found) > 1:
        names = " and ".join(path.relative_to(ehr.root).as_posix() for path in found)
        raise DataError(
            f"{stem} must be one table, got {names}. Remove all but one, or set data.ehr.tables.{name}. [E101]"
        )
    if found:
        return found[0]
    looked = f"{own.name}" if own else "{}, {} or {}".format(*(name + suffix for suffix in SUFFIXES))
    raise DataError(
        f"{stem} must be a table, got no {looked} under {ehr.root}. {NEEDED_FOR.get(name, 'Treatments')} need it. "
        f"Set data.ehr.tables.{name} or data.ehr.root in the site file. [E101]"
    )


def _candidates(ehr: EhrData, name: str) -> list[Path]:
    """The files that may be a table: the one that the site file names, else all of its name in ``hosp`` and ``icu``."""
    own: Path | None = getattr(ehr.tables, name)
    folders = (FOLDERS[name], *sorted({*FOLDERS.values()} - {FOLDERS[name]}))
    usual = [ehr.root / folder / f"{name}{suffix}" for folder in folders for suffix in SUFFIXES]
    return [path for path in (usual if own is None else [ehr.root / own]) if path.is_file()]


def open_table(ehr: EhrData, name: str) -> Source:
    """A table of the site.

    Raises:
        DataError: there is no such file, or more than one.
        ConfigError: the site file renames a column that nobody reads.
    """
    own_names = ehr.columns.get(name, {})  # type: ignore[call-overload]
    read = MIMIC_COLUMNS[name].split()
    if unread := [column for column in own_names if column not in read]:
        raise ConfigError(
            f"data.ehr.columns.{name} must rename columns that are read, got {', '.join(unread)}. "
            f"Read: {', '.join(read)}."
        )
    return Source(name, find_table(ehr, name), own_names, ehr.datetime_format)


def open_optional_table(ehr: EhrData, name: str) -> Source | None:
    """A table that a site may lack; None where it does and the site file does not name it.

    Raises:
        DataError: the site file names one that is not there, or there is more than one.
    """
    try:
        return open_table(ehr, name)
    except DataError:
        if getattr(ehr.tables, name) is not None or _candidates(ehr, name):
            raise
        return None


def scan(
    path: Path, columns: Columns, optional: Columns | None = None, *, time_format: str = TIME_FORMAT
) -> pl.LazyFrame:
    """Scan the named columns of any csv, csv.gz or parquet file; ``optional`` ones are null where the file lacks them.

    Raises:
        DataError: a column is missing, or the file cannot be opened.
    """
    frame = _raw(path, columns, optional or {}, None, None)
    stored = frame.collect_schema()
    wanted = {**columns, **(optional or {})}
    return frame.select(_typed(name, stored[name], kind, time_format, path.name) for name, kind in wanted.items())


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
                "The disk must hold what preparation writes, got a full one. What is finished is kept: free space, "
                "then run the same command. [E601]"
            ) from None
        is_ragged = isinstance(error, pl.exceptions.ComputeError) and path.suffix != ".parquet"
        ragged = "a row with more fields than the header, or a quote without an end"
        what = ragged if is_ragged else "one that is cut short or unreadable"
        raise DataError(
            f"The table must be a whole file, got {what} from {path.name}. Export it again. [E110]"
        ) from None
    for warning in told:
        if "CSV malformed" in str(warning.message):
            raise DataError(
                f"The table must have a row in every line, got lines that a stray quote runs together from "
                f"{path.name}. Export it again: text in quotes, and a quote in it doubled. [E110]"
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
        raise DataError(
            f"{key} must be there once, got {again.height:,} repetitions (lines {lines}"
            f"{', ...' if again.height > 3 else ''}) from {path.name}. Mend the export, or set "
            "prepare.on_duplicate: first. [E104]"
        )
    return numbered.filter(pl.col(key).is_first_distinct()).drop(LINE), again.height


def is_too_many(num_bad: int, num_rows: int, max_bad_fraction: float) -> bool:
    """Whether so many rows of so many cannot be used that the preparation must stop."""
    return num_bad > max(max_bad_fraction * num_rows, HANDFUL)


def form_of(text: str | None) -> str:
    """The form of a text without its content: digits as 9, letters as a.

    Example:
        >>> form_of("02/01/2150 8h15"), form_of(None)
        ('99/99/9999 9a99', '(empty)')
    """
    shown = re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "9", (text or "")[:30]))
    return re.sub(r"[^9a /:.,+-]", "?", shown) or "(empty)"


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
                f"The table must be a whole file, got a damaged one from {path.name}. Export it again. [E110]"
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
                f"The table must be readable, got {reason} from {path.name}. Mend its permissions or the disk. [E603]"
            ) from None
        raise DataError(
            f"The table must be a whole csv, csv.gz or parquet file, got a damaged one from {path.name}. "
            "Export it again. [E110]"
        ) from None
    if not header:
        raise DataError(f"The table must have a header, got an empty file from {path.name}. Export it again. [E106]")
    return header


def _raw(
    path: Path, columns: Columns, optional: Columns, own_names: Mapping[str, str] | None, line: str | None
) -> pl.LazyFrame:
    """See ``Source.raw``."""
    header = header_of(path)
    known = {**columns, **optional}
    names = {name: _name_in(header, name, own_names or {}) for name in known}
    meant = {column.strip().lower() for column in header}.union(own_names or {})  # also optional ones are then needed
    needed = [name for name in known if name in columns or name in meant]
    if missing := [name for name in needed if names[name] not in header]:
        raise DataError(_no_column(path, missing[0], names[missing[0]], header, can_rename=own_names is not None))
    there = {name: own for name, own in names.items() if own in header}
    if path.suffix == ".parquet":
        frame = pl.scan_parquet(path, row_index_name=line, row_index_offset=1)
        kinds = frame.collect_schema()
        stored = [_whole_or_text(own, kinds[own], known[name]).alias(name) for name, own in there.items()]
    else:
        ids = {own for name, own in there.items() if known[name] == pl.Int64}
        schema = {name: pl.Int64 if name in ids else pl.String for name in header}
        frame = pl.scan_csv(
            path,
            schema=schema,
            encoding="utf8-lossy",
            ignore_errors=True,  # text where an id must be is null
            row_index_name=line,
            row_index_offset=2,
        )
        behind = header[1 + max(header.index(own) for own in there.values()) :]
        if not NO_FREE_TEXT.issuperset(behind):
            # Always true. Polars sees lines that a stray quote runs together only in rows that it reads to their end.
            frame = frame.filter(pl.col(header[-1]).is_null() | pl.col(header[-1]).is_not_null())
        stored = [pl.col(own).alias(name) for name, own in there.items()]
    absent = [pl.lit(None, known[name]).alias(name) for name in known if name not in there]
    return frame.select(*([line] if line else []), *stored, *absent)


def _name_in(header: Sequence[str], name: str, own_names: Mapping[str, str]) -> str:
    """What the file calls a column of MIMIC's."""
    if name in own_names:
        return own_names[name]
    older = OLDER_NAMES.get(name, name)
    return older if name not in header and older in header else name


def _no_column(path: Path, name: str, own: str, header: Sequence[str], *, can_rename: bool) -> str:
    """The message for a column that is not there. A first row of data in place of a header is not quoted."""
    if separators := [told for mark, told in SEPARATORS.items() if len(header) == 1 and mark in header[0]]:
        return (
            f"The columns must be separated by commas, got a table separated by {separators[0]} from {path.name}. "
            "Export it with commas. [E102]"
        )
    if any(re.match(r"\W*\d", column) or not column.isprintable() for column in header):
        return (
            f"The first line must be a header that names {own}, got data from {path.name}. Export it with its header. "
            "[E102]"
        )
    by_lower_case = {column.lower(): column for column in header}
    close = [by_lower_case[column] for column in difflib.get_close_matches(own.lower(), by_lower_case, n=1)]
    question = f"Did you mean {close[0]}? " if close else ""
    key = f"data.ehr.columns.{path.name.split('.')[0]}.{name}: {close[0] if close else 'ITS_NAME'}"
    remedy = f"Add {key}, or export the column." if can_rename else "Export the column under its name."
    return f"Columns must include {own}, got {', '.join(header)} from {path.name}. {question}{remedy} [E102]"


def _whole_or_text(name: str, stored: pl.DataType, kind: type[pl.DataType] | pl.DataType) -> pl.Expr:
    """A column of a parquet file, ids as integers and categories as text. An id that is no whole number is null."""
    column = pl.col(name)
    if isinstance(stored, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    if kind != pl.Int64 or stored == pl.Int64:
        return column
    if stored.is_float() or stored.is_decimal():
        number = column.cast(pl.Float64)
        return pl.when(number == number.floor()).then(number.cast(pl.Int64, strict=False))
    is_number = stored.is_integer() or stored == pl.Boolean
    return (column if is_number else column.cast(pl.String, strict=False)).cast(pl.Int64, strict=False)


def _is_unreadable(name: str, stored: pl.DataType, value: pl.Expr) -> pl.Expr:
    """Whether a column holds something where its value is null; only text does. Blanks are something: to look at each
    text would cost the chart pass 7 %."""
    if stored != pl.String:
        return pl.lit(False)
    return value.is_null() & (pl.col(name) != "").fill_null(False)


def _typed(
    name: str, stored: pl.DataType, kind: type[pl.DataType] | pl.DataType, time_format: str, label: str
) -> pl.Expr:
    """A column as its type; what cannot be read is null.

    Raises:
        DataError: times that are no text and no local times: a zone, a date or a number would be guessed at.
    """
    column = pl.col(name)
    if kind == TIME and stored == pl.String:
        return column.str.to_datetime(time_format, strict=False, time_unit="us", cache=False)
    is_local = isinstance(stored, pl.Datetime) and stored.time_zone is None
    if kind == TIME and not is_local and stored != pl.Null:
        raise DataError(
            f"{name} must be local times or text, got {stored} from {label}. Export dates with their time and without "
            "a zone. [E103]"
        )
    if kind == pl.Int64:
        return _whole_or_text(name, stored, kind)
    return column.cast(kind, strict=False)
