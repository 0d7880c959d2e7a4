"""The tables of MIMIC-IV at a site: where each one lies, what its columns are called, and how it writes times."""

from pathlib import Path

from client.layouts.mimic_iv.columns import naming_of
from client.site import EhrData
from lemof_model.errors import ConfigError, DataError
from readers.tables.roots import refuse_other
from readers.tables.source import Source

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


def require_root(ehr: EhrData) -> None:
    """Refuse a site file whose folder of tables is not there, or is another: one message, not one for each table.

    Raises:
        DataError: there is no such folder, or it is too deep or too high.
    """
    if not ehr.root.is_dir():
        raise DataError(
            rule="data.ehr.root must be a folder",
            got=f"none at {ehr.root}",
            fix="Set it in the site file, or mount its disk.",
            code="E101",
        )
    if not any(files_of(ehr, name) for name in FOLDERS):
        refuse_other_tables(ehr.root, "data.ehr.root")


def refuse_other_tables(root: Path, setting: str) -> None:
    """Refuse a root without ``hosp`` and ``icu`` where a folder near it has them; ``setting`` is the root's name."""

    def has_both(folder: Path) -> bool:
        return all((folder / name).is_dir() for name in {*FOLDERS.values()})

    refuse_other(root, setting, "hosp and icu", "E101", has_both)


def find_table(ehr: EhrData, name: str) -> Path:
    """The file of a MIMIC-IV table: the site's own setting, else ``hosp`` or ``icu`` with .csv, .csv.gz or .parquet.

    Raises:
        DataError: there is no such file, or more than one.
    """
    require_root(ehr)
    own = ehr.tables.get(name)
    stem = f"{FOLDERS[name]}/{name}"
    found = files_of(ehr, name)
    if len(found) > 1:
        names = " and ".join(path.relative_to(ehr.root).as_posix() for path in found)
        raise DataError(
            rule=f"{stem} must be one table",
            got=f"{names}",
            fix=f"Remove all but one, or set data.ehr.tables.{name}.",
            code="E101",
        )
    if found:
        return found[0]
    looked = f"{own.name}" if own else "{}, {} or {}".format(*(name + suffix for suffix in SUFFIXES))
    raise DataError(
        rule=f"{stem} must be a table",
        got=f"no {looked} under {ehr.root}",
        fix=f"{NEEDED_FOR.get(name, 'Treatments')} need it. Set data.ehr.tables.{name} or data.ehr.root in the site "
        "file.",
        code="E101",
    )


def files_of(ehr: EhrData, name: str) -> list[Path]:
    """The files that may be a table: the one that the site file names, else all of its name in ``hosp`` and ``icu``."""
    own = ehr.tables.get(name)
    folders = (FOLDERS[name], *sorted({*FOLDERS.values()} - {FOLDERS[name]}))
    usual = [ehr.root / folder / f"{name}{suffix}" for folder in folders for suffix in SUFFIXES]
    return [path for path in (usual if own is None else [ehr.root / own]) if path.is_file()]


def open_table(ehr: EhrData, name: str) -> Source:
    """A table of the site.

    Raises:
        DataError: there is no such file, or more than one.
        ConfigError: the site file renames a column that nobody reads, or takes one of MIMIC's for another.
    """
    own_names = ehr.columns.get(name, {})
    read = MIMIC_COLUMNS[name].split()
    if unread := [column for column in own_names if column not in read]:
        raise ConfigError(
            rule=f"data.ehr.columns.{name} must rename columns that are read",
            got=f"{', '.join(unread)}",
            fix=f"Read: {', '.join(read)}.",
        )
    for column, own in own_names.items():
        if naming_of(name, own_names).is_another(column, own):
            raise ConfigError(
                rule=f"data.ehr.columns.{name}.{column} must be the site's own name of {column}",
                got=f"{own}, which in MIMIC-IV is another column of {name}",
                fix=f"Leave it out, and export {column} under a name of its own.",
            )
        if list(own_names.values()).count(own) > 1:
            raise ConfigError(
                rule=f"data.ehr.columns.{name} must give each column a name of its own",
                got=f"{own} twice",
                fix="Name the right column of the table for each.",
            )
    return Source(name, find_table(ehr, name), naming_of(name, own_names), ehr.datetime_format, FOLDERS[name])


def open_optional_table(ehr: EhrData, name: str) -> Source | None:
    """A table that a site may lack; None where it does and the site file does not name it.

    Raises:
        DataError: the site file names one that is not there, or there is more than one.
    """
    try:
        return open_table(ehr, name)
    except DataError:
        if name in ehr.tables or files_of(ehr, name):
            raise
        return None
