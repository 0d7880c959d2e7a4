"""The tables of MIMIC-IV at a site: where each one lies, what its columns are called, and how it writes times."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from client.layouts.mimic_iv.files import LINE, TIME_FORMAT, Columns, header_of, is_unreadable, raw, typed
from client.layouts.mimic_iv.ids import as_text
from client.layouts.mimic_iv.mimic_columns import is_of_another
from client.layouts.mimic_iv.roots import refuse_other_tables
from client.site import EhrData
from lemof_model.errors import ConfigError, DataError

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
    "patients": "subject_id gender anchor_age anchor_year dod",
    "admissions": "subject_id hadm_id admittime dischtime deathtime admission_type admission_location insurance "
    "marital_status race hospital_expire_flag",
    "diagnoses_icd": "hadm_id icd_code icd_version",
    "labevents": "subject_id itemid charttime storetime valuenum valueuom",
    "icustays": "subject_id hadm_id stay_id first_careunit intime outtime",
    "chartevents": "stay_id itemid charttime valuenum valueuom",
    "outputevents": "stay_id itemid charttime value valueuom",
    "inputevents": "stay_id itemid starttime endtime amount rate statusdescription",
    "procedureevents": "stay_id itemid starttime endtime value statusdescription",
}
"""The columns that are read."""
SUFFIXES = (".csv", ".csv.gz", ".parquet")


@dataclass(frozen=True)
class Source:
    """One table of the site: its file, the site's own names of MIMIC's columns, and how it writes times.

    ``text_ids`` are the ids that are text at this hospital (see ``ids``). With ``is_careful`` ids of a csv file are
    read as text and then made numbers, which finds the ``.0`` that the reader's own integers do not know, and takes
    longer.
    """

    name: str
    path: Path
    own_names: Mapping[str, str] | None = None
    time_format: str = TIME_FORMAT
    text_ids: frozenset[str] = frozenset()
    is_careful: bool = False

    @property
    def label(self) -> str:
        """The table's file in messages."""
        return f"{FOLDERS[self.name]}/{self.path.name}" if self.name in FOLDERS else self.path.name

    def raw(self, columns: Columns, optional: Columns | None = None, *, with_lines: bool = False) -> pl.LazyFrame:
        """The named columns under MIMIC's names as they are stored, whole numbers of a csv file as integers: see
        ``typed``.

        ``optional`` columns that the file lacks are null; ``with_lines`` adds the line of the file (``LINE``).

        Raises:
            DataError: a column is missing, or the file cannot be opened.
        """
        texts = {*columns, *(optional or {})} if self.is_careful else self.text_ids
        line = LINE if with_lines else None
        return raw(self.path, columns, optional or {}, self.own_names, line, table=self.name, texts=texts)

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
        header = header_of(self.path)
        return [name for name in optional if (self.own_names or {}).get(name, name) not in header]

    def scan(self, columns: Columns, optional: Columns | None = None) -> pl.LazyFrame:
        """``raw`` with every column as its type."""
        frame = self.raw(columns, optional)
        return frame.select(self.typed(frame, {**columns, **(optional or {})}))


def require_root(ehr: EhrData) -> None:
    """Refuse a site file whose folder of tables is not there, or is another: one message, not one for each table.

    Raises:
        DataError: there is no such folder, or it is too deep or too high.
    """
    if not ehr.root.is_dir():
        raise DataError(
            f"data.ehr.root must be a folder, got none at {ehr.root}. Set it in the site file, or mount its disk. "
            "[E101]"
        )
    if not any(files_of(ehr, name) for name in FOLDERS):
        refuse_other_tables(ehr.root, "data.ehr.root")


def find_table(ehr: EhrData, name: str) -> Path:
    """The file of a MIMIC-IV table: the site's own setting, else ``hosp`` or ``icu`` with .csv, .csv.gz or .parquet.

    Raises:
        DataError: there is no such file, or more than one.
    """
    require_root(ehr)
    own: Path | None = getattr(ehr.tables, name)
    stem = f"{FOLDERS[name]}/{name}"
    found = files_of(ehr, name)
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


def files_of(ehr: EhrData, name: str) -> list[Path]:
    """The files that may be a table: the one that the site file names, else all of its name in ``hosp`` and ``icu``."""
    own: Path | None = getattr(ehr.tables, name)
    folders = (FOLDERS[name], *sorted({*FOLDERS.values()} - {FOLDERS[name]}))
    usual = [ehr.root / folder / f"{name}{suffix}" for folder in folders for suffix in SUFFIXES]
    return [path for path in (usual if own is None else [ehr.root / own]) if path.is_file()]


def open_table(ehr: EhrData, name: str) -> Source:
    """A table of the site.

    Raises:
        DataError: there is no such file, or more than one.
        ConfigError: the site file renames a column that nobody reads, or takes one of MIMIC's for another.
    """
    own_names = ehr.columns.get(name, {})  # type: ignore[call-overload]
    read = MIMIC_COLUMNS[name].split()
    if unread := [column for column in own_names if column not in read]:
        raise ConfigError(
            f"data.ehr.columns.{name} must rename columns that are read, got {', '.join(unread)}. "
            f"Read: {', '.join(read)}."
        )
    for column, own in own_names.items():
        if is_of_another(name, column, own):
            raise ConfigError(
                f"data.ehr.columns.{name}.{column} must be the site's own name of {column}, got {own}, which in "
                f"MIMIC-IV is another column of {name}. Leave it out, and export {column} under a name of its own."
            )
        if list(own_names.values()).count(own) > 1:
            raise ConfigError(
                f"data.ehr.columns.{name} must give each column a name of its own, got {own} twice. Name the right "
                "column of the table for each."
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
        if getattr(ehr.tables, name) is not None or files_of(ehr, name):
            raise
        return None
