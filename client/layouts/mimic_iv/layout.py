"""MIMIC-IV as a layout: what of its tables is read, and as what."""

from functools import partial
from typing import ClassVar

import polars as pl

from client.layouts.mimic_iv import items
from client.layouts.mimic_iv.columns import naming_of
from client.layouts.mimic_iv.tables import (
    FOLDERS,
    OPTIONAL_TABLES,
    open_optional_table,
    open_table,
    require_root,
)
from client.prepare import measurements, treatments
from client.prepare.event_pass import EventTable
from client.prepare.icd_codes import DIAGNOSES
from client.prepare.layout import Stored, TableCheck
from client.prepare.measurements import Events
from client.prepare.stays import Frames, StayTables, read_stay_tables
from client.prepare.treatments import Intervals
from client.prepare.whole_tables import WholeTable
from client.site import EcgData, EhrData, SiteConfig
from readers.tables.files import TIME, Columns
from readers.tables.source import Source

UNIT, STATUS = "valueuom", "statusdescription"
ENDS = ("starttime", "endtime")
EVENTS = {
    # Bedside values are joined to their stay by ``stay_id``.
    "chartevents": EventTable("stay_id", "itemid", ("charttime",), {"valuenum": pl.Float64}, hints={UNIT: pl.String}),
    # By patient and time: emergency values often carry no admission. A value counts by when the sample was taken.
    "labevents": EventTable(
        "subject_id",
        "itemid",
        ("charttime",),
        {"valuenum": pl.Float64},
        optional={"storetime": TIME},
        hints={UNIT: pl.String},
    ),
    "outputevents": EventTable("stay_id", "itemid", ("charttime",), {"value": pl.Float64}, hints={UNIT: pl.String}),
}
INTERVALS = {
    "inputevents": EventTable(
        "stay_id",
        "itemid",
        ENDS,
        open_ends=("endtime",),
        hints={STATUS: pl.String, "amount": pl.Float64, "rate": pl.Float64},
    ),
    "procedureevents": EventTable(
        "stay_id", "itemid", ENDS, open_ends=("endtime",), hints={STATUS: pl.String, "value": pl.Float64}
    ),
}
ICUSTAYS: Columns = {
    "subject_id": pl.Int64,
    "hadm_id": pl.Int64,
    "stay_id": pl.Int64,
    "first_careunit": pl.String,
    "intime": TIME,
    "outtime": TIME,
}
PATIENTS: Columns = {"subject_id": pl.Int64, "gender": pl.String, "anchor_age": pl.Int64, "anchor_year": pl.Int64}
ADMISSIONS: Columns = {
    "subject_id": pl.Int64,
    "hadm_id": pl.Int64,
    "admittime": TIME,
    "dischtime": TIME,
    "deathtime": TIME,
    "admission_type": pl.String,
    "admission_location": pl.String,
    "insurance": pl.String,
    "marital_status": pl.String,
    "race": pl.String,
    "hospital_expire_flag": pl.Int64,
}
TABLES: dict[str, Columns] = {
    "icustays": ICUSTAYS,
    "patients": PATIENTS,
    "admissions": ADMISSIONS,
    "diagnoses_icd": DIAGNOSES,
    **{name: table.columns for name, table in (EVENTS | INTERVALS).items()},
}
CONCEPTS = {"chartevents": items.VITALS, "labevents": items.LABS, "outputevents": (items.URINE,)}
TREATMENTS = {
    "inputevents": tuple(one for one in items.TREATMENTS if one.name == "vasopressor"),
    "procedureevents": tuple(one for one in items.TREATMENTS if one.name != "vasopressor"),
}
WITHOUT_HINTS = {  # MIMIC-IV has all
    "chartevents": "an item that comes in two units cannot be told apart",
    "labevents": "an item that comes in two units cannot be told apart",
    "inputevents": "what was not given cannot be told apart",
}


class MimicIv:
    """The layout ``mimic_iv``."""

    name = "mimic_iv"
    stored: ClassVar[Stored] = {**CONCEPTS, **TREATMENTS}

    def require_root(self, ehr: EhrData) -> None:
        """Refuse a folder without tables."""
        require_root(ehr)

    def sources(self, ehr: EhrData) -> list[Source]:
        """Every table that is there."""
        return [source for name in FOLDERS if (source := _open(ehr, name)) is not None]

    def stays(self, site: SiteConfig) -> StayTables:
        """icustays, patients and admissions."""
        ehr = site.data.ehr
        tables = {
            "icustays": WholeTable(open_table(ehr, "icustays"), ICUSTAYS, "stay_id"),
            "patients": WholeTable(open_table(ehr, "patients"), PATIENTS, "subject_id", days=("dod",)),
            "admissions": WholeTable(
                open_table(ehr, "admissions"), ADMISSIONS, "hadm_id", flags=("hospital_expire_flag",)
            ),
        }
        return read_stay_tables(tables, frames_of, site.prepare)

    def diagnoses(self, ehr: EhrData) -> Source:
        """diagnoses_icd."""
        return open_table(ehr, "diagnoses_icd")

    def events(self, ehr: EhrData) -> list[Events]:
        """chartevents, labevents and, where it is there, outputevents."""
        return [_events(ehr, source) for name in EVENTS if (source := _open(ehr, name)) is not None]

    def intervals(self, ehr: EhrData) -> list[Intervals]:
        """inputevents and procedureevents, where they are there."""
        return [_intervals(ehr, source) for name in INTERVALS if (source := _open(ehr, name)) is not None]

    def ecg_records(self, ecg: EcgData) -> Source:
        """MIMIC-IV-ECG's record list."""
        return Source("record_list", ecg.record_list, naming_of("record_list", None), ecg.datetime_format)

    def checks(self, ehr: EhrData) -> list[TableCheck]:
        """Every table."""
        return [
            TableCheck(
                name,
                partial(_open, ehr, name),
                columns,
                partial(_events if name in EVENTS else _intervals, ehr) if name in EVENTS | INTERVALS else None,
                is_of_codes=name == "diagnoses_icd",
                without_hints=WITHOUT_HINTS.get(name, ""),
            )
            for name, columns in TABLES.items()
        ]


MIMIC_IV = MimicIv()


def frames_of(tables: dict[str, pl.DataFrame]) -> Frames:
    """The frames of ``StayTables``. ``age`` counts years at admission: anchor_age + year of admission - anchor_year
    (MIT-LCP/mimic-code, demographics/age.sql)."""
    ages = tables["patients"].select("subject_id", "anchor_age", "anchor_year")
    age = pl.col("anchor_age") + pl.col("admittime").dt.year() - pl.col("anchor_year")
    admissions = tables["admissions"].join(ages, on="subject_id", how="left", maintain_order="left")
    return (
        tables["icustays"].rename({"first_careunit": "careunit_kind"}),
        tables["patients"].drop("anchor_age", "anchor_year").rename({"gender": "sex"}),
        admissions.with_columns(age=age).drop("anchor_age", "anchor_year"),
    )


def _open(ehr: EhrData, name: str) -> Source | None:
    """A table; None where a hospital may lack it, and does."""
    return open_optional_table(ehr, name) if name in OPTIONAL_TABLES else open_table(ehr, name)


def _events(ehr: EhrData, source: Source) -> Events:
    """A table of measurements. The day of urine begins at admission: MIT-LCP/mimic-code,
    firstday/first_day_urine_output.sql."""
    return Events(
        source,
        EVENTS[source.name],
        measurements.declared(ehr, CONCEPTS[source.name]),
        UNIT,
        known_from="storetime" if source.name == "labevents" else None,
        begins_at_admission=source.name == "outputevents",
    )


def _intervals(ehr: EhrData, source: Source) -> Intervals:
    """A table of treatments."""
    is_of_drugs = source.name == "inputevents"
    return Intervals(
        source,
        INTERVALS[source.name],
        treatments.declared(ehr, TREATMENTS[source.name]),
        STATUS,
        rate="rate" if is_of_drugs else None,
        amount="amount" if is_of_drugs else "value",
    )
