"""Raw tables: where each one lies, what its columns are, and a lazy scan of those that are asked for.

Tables are csv or csv.gz and are never loaded whole: polars streams them once. The schema is built from the table's own
header line, so columns may come in any order, more may be there, and a missing one is named instead of misread.
"""

import csv
import difflib
import gzip
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from client.site import EhrData
from lemof_model.errors import DataError

FOLDERS = {
    "patients": "hosp",
    "admissions": "hosp",
    "diagnoses_icd": "hosp",
    "labevents": "hosp",
    "icustays": "icu",
    "chartevents": "icu",
}
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
TIME = pl.Datetime("us")

Columns = Mapping[str, type[pl.DataType] | pl.DataType]


def find_table(ehr: EhrData, name: str) -> Path:
    """The file of a MIMIC-IV table: the site's own setting, else ``hosp`` or ``icu`` with .csv or .csv.gz.

    Raises:
        DataError: there is no such file.
    """
    own: Path | None = getattr(ehr.tables, name)
    stem = f"{FOLDERS[name]}/{name}"
    candidates = [ehr.root / own] if own else [ehr.root / f"{stem}{suffix}" for suffix in (".csv", ".csv.gz")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = " or ".join(candidate.name for candidate in candidates)
    raise DataError(
        f"{stem} must be a table, got no {looked} from {candidates[0].parent}. "
        f"Set data.ehr.tables.{name} or data.ehr.root in the site file."
    )


def scan(path: Path, columns: Columns, optional: Columns | None = None) -> pl.LazyFrame:
    """Scan the named columns of a csv or csv.gz file; ``optional`` ones are null where the file lacks them.

    Integers must be integers or empty. A time or a decimal that cannot be read is null: the caller counts it.

    Raises:
        DataError: a column is missing, or the file cannot be opened.
    """
    header = _header(path)
    for name in columns:
        if name not in header:
            by_lower_case = {column.lower(): column for column in header}
            close = difflib.get_close_matches(name, by_lower_case, n=1)
            advice = f"Did the export rename it to {by_lower_case[close[0]]}?" if close else "Export it."
            raise DataError(f"Columns must include {name}, got {', '.join(header)} from {path.name}. {advice}")
    wanted = {**columns, **{name: kind for name, kind in (optional or {}).items() if name in header}}
    raw = {name: pl.Int64 if wanted.get(name) == pl.Int64 else pl.String for name in header}
    absent = [pl.lit(None, kind).alias(name) for name, kind in (optional or {}).items() if name not in header]
    return pl.scan_csv(path, schema=raw).select(*(_typed(name, kind) for name, kind in wanted.items()), *absent)


def collect(frame: pl.LazyFrame, path: Path) -> pl.DataFrame:
    """Run a scan of ``path``, streaming.

    Raises:
        DataError: the file is damaged, or holds text where an integer must be. The message quotes no value.
    """
    try:
        return frame.collect(engine="streaming")
    except (pl.exceptions.ComputeError, OSError) as error:
        what = error if isinstance(error, OSError) else "a row with text in an id, itemid or flag, or too many fields"
        raise DataError(f"The rows must fit the header, got {what} from {path.name}. Export it again.") from None


def require_unique(frame: pl.DataFrame, key: str, path: Path) -> None:
    """Refuse a table in which a key is missing or repeated: a join would lose or invent stays."""
    num_bad = frame.height - frame[key].drop_nulls().n_unique()
    if num_bad:
        raise DataError(
            f"{key} must be there once per row, got {num_bad} rows without or again from {path.name}. "
            "Export the table again."
        )


def _header(path: Path) -> list[str]:
    """Column names of the first line."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file), [])
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"The table must be csv or csv.gz, got {error} from {path.name}. Export it again.") from None


def _typed(name: str, kind: type[pl.DataType] | pl.DataType) -> pl.Expr:
    """A column as its type; what cannot be read is null."""
    column = pl.col(name)
    if kind == TIME:
        return column.str.to_datetime(TIME_FORMAT, strict=False, time_unit="us")
    return column.cast(pl.Float64, strict=False) if kind == pl.Float64 else column
