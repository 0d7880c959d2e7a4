"""A second layout, for tests: tables as the Common Longitudinal ICU data Format has them (CLIF 2), in parquet.

What MIMIC-IV has as numbers of items are names of categories here. Events are joined by hospitalization, a unit stands
in the name of the category, what runs is told by rows of change, stays are those rows of ``adt`` that are in intensive
care, and an ICD version is a word. Insurance, marital status and where a patient came from are columns of this
hospital's own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import polars as pl

from client.prepare import measurements, treatments
from client.prepare.event_pass import EventTable
from client.prepare.icd_codes import DIAGNOSES
from client.prepare.layout import Stored, TableCheck
from client.prepare.measurements import Events
from client.prepare.stays import Frames, StayTables, read_stay_tables
from client.prepare.treatments import Intervals
from client.prepare.whole_tables import WholeTable
from client.site import EcgData, EhrData, SiteConfig
from lemof_model import concepts
from lemof_model.errors import DataError
from lemof_model.features import MEASURED
from lemof_model.items import Concept, Item, StoredConcept, StoredTreatment
from readers.tables.files import TIME, Columns, Naming
from readers.tables.source import Derived, Source

IDS = {"subject_id": "patient_id", "hadm_id": "hospitalization_id"}
CONCEPT = {concept.name: concept for concept in MEASURED}
TREATMENT = {treatment.name: treatment for treatment in concepts.TREATMENTS}


def _concept(name: str, category: str, *units: str) -> StoredConcept:
    concept: Concept = CONCEPT[name]
    return StoredConcept(concept, tuple(Item(category, concept.units[unit]) for unit in units or (concept.unit,)))


VITALS = tuple(
    _concept(name, category)
    for name, category in {
        "heart_rate": "heart_rate", "sbp": "sbp", "dbp": "dbp", "mbp": "map", "resp_rate": "respiratory_rate",
        "temperature": "temp_c", "spo2": "spo2", "height": "height_cm", "weight": "weight_kg",
    }.items()
)  # fmt: skip
ASSESSMENTS = tuple(_concept(name, name) for name in ("gcs_eye", "gcs_verbal", "gcs_motor", "rass"))
# Bedside glucose is a laboratory value of its own kind here.
LABS = (
    _concept("glucose", "glucose_fingerstick"),
    *(_concept(concept.name, concept.name.removesuffix("_lab")) for concept in concepts.LABS),
)
FIO2 = (_concept("fio2", "fio2_set", "fraction"),)
URINE = (_concept("urine", "urine"),)
VASOPRESSORS = (StoredTreatment(TREATMENT["vasopressor"], tuple((drug,) for drug in TREATMENT["vasopressor"].drugs)),)
VENTILATION = (
    StoredTreatment(TREATMENT["invasive_ventilation"], (("IMV",),)),
    StoredTreatment(TREATMENT["noninvasive_ventilation"], (("NIPPV",),)),
)
RENAL = (StoredTreatment(TREATMENT["renal_replacement"], (("crrt", "ihd"),)),)

ADT: Columns = {"hadm_id": pl.Int64, "in_dttm": TIME, "out_dttm": TIME, "location_category": pl.String,
                "location_type": pl.String}  # fmt: skip
STAYS: Columns = {"stay_id": pl.Int64, "hadm_id": pl.Int64, "in_dttm": TIME, "out_dttm": TIME,
                  "location_type": pl.String}  # fmt: skip
PATIENT: Columns = {"subject_id": pl.Int64, "sex_category": pl.String, "race_category": pl.String,
                    "ethnicity_category": pl.String, "death_dttm": TIME}  # fmt: skip
HOSPITALIZATION: Columns = {
    "subject_id": pl.Int64, "hadm_id": pl.Int64, "admission_dttm": TIME, "discharge_dttm": TIME,
    "age_at_admission": pl.Int64, "admission_type_name": pl.String, "discharge_category": pl.String,
    "admission_source_name": pl.String, "insurance_name": pl.String, "marital_status_name": pl.String,
}  # fmt: skip


def _stays_of(adt: pl.LazyFrame) -> pl.LazyFrame:
    """Rows in intensive care, each with an id: ``adt`` has none."""
    number = pl.col("in_dttm").rank("ordinal").over("hadm_id").cast(pl.Int64)
    return adt.filter(pl.col("location_category") == "icu").with_columns(stay_id=pl.col("hadm_id") * 100 + number)


def _until_next(rows: pl.LazyFrame, time: str, of: Sequence[str]) -> pl.LazyFrame:
    """What a row tells holds until the next one of the same."""
    return rows.sort(*of, time, maintain_order=True).with_columns(end_dttm=pl.col(time).shift(-1).over(of))


def _with_version(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.with_columns(icd_version=pl.col("diagnosis_code_format").str.extract(r"^ICD(\d+)CM$"))


@dataclass(frozen=True)
class Read:
    """One reading of a file."""

    file: str
    table: EventTable
    stored: Sequence[StoredConcept] | Sequence[StoredTreatment]
    unit: str | None = None
    known_from: str | None = None
    begins_at_admission: bool = False
    rate: str | None = None
    derived: Derived | None = None


def _events(category: str, time: str, value: str, **more: object) -> EventTable:
    return EventTable("hadm_id", category, (time,), {value: pl.Float64}, item_kind=pl.String, **more)  # type: ignore[arg-type]


def _intervals(category: str, time: str, **more: object) -> EventTable:
    ends = (time, "end_dttm")
    return EventTable("hadm_id", category, ends, open_ends=ends[1:], item_kind=pl.String, **more)  # type: ignore[arg-type]


def _changes(time: str, category: str, of: Sequence[str], *others: str) -> Derived:
    columns: Columns = {"hadm_id": pl.Int64, time: TIME, category: pl.String, **dict.fromkeys(others, pl.Float64)}
    return Derived(columns, frozenset({*columns, "end_dttm"}), partial(_until_next, time=time, of=of))


FIO2_ROWS: Columns = {"hadm_id": pl.Int64, "recorded_dttm": TIME, "fio2_set": pl.Float64}
READS = {
    "vitals": Read("vitals", _events("vital_category", "recorded_dttm", "vital_value"), VITALS),
    "patient_assessments": Read(
        "patient_assessments", _events("assessment_category", "recorded_dttm", "numerical_value"), ASSESSMENTS
    ),
    "labs": Read(
        "labs",
        _events("lab_category", "lab_collect_dttm", "lab_value_numeric", optional={"lab_result_dttm": TIME},
                hints={"reference_unit": pl.String}),
        LABS,
        unit="reference_unit",
        known_from="lab_result_dttm",
    ),
    "respiratory_support.fio2": Read(
        "respiratory_support",
        _events("setting", "recorded_dttm", "fio2_set"),
        FIO2,
        derived=Derived(
            FIO2_ROWS,
            frozenset({*FIO2_ROWS, "setting"}),
            lambda rows: rows.drop_nulls("fio2_set").with_columns(setting=pl.lit("fio2_set")),
        ),
    ),
    "output": Read(
        "output", _events("output_group", "recorded_dttm", "output_volume"), URINE, begins_at_admission=True
    ),
    "medication_admin_continuous": Read(
        "medication_admin_continuous",
        _intervals("med_category", "admin_dttm", hints={"med_dose": pl.Float64}),
        VASOPRESSORS,
        rate="med_dose",
        derived=_changes("admin_dttm", "med_category", ("hadm_id", "med_category"), "med_dose"),
    ),
    "respiratory_support.device": Read(
        "respiratory_support",
        _intervals("device_category", "recorded_dttm"),
        VENTILATION,
        derived=_changes("recorded_dttm", "device_category", ("hadm_id",)),
    ),
    "dialysis": Read(
        "dialysis",
        _intervals("mode_category", "recorded_dttm"),
        RENAL,
        derived=_changes("recorded_dttm", "mode_category", ("hadm_id",)),
    ),
}  # fmt: skip


class ClifLike:
    """The layout ``clif_like``."""

    name = "clif_like"
    stored: ClassVar[Stored] = {name: read.stored for name, read in READS.items()}

    def require_root(self, ehr: EhrData) -> None:
        """Refuse a folder without the first table."""
        _open(ehr, "adt")

    def sources(self, ehr: EhrData) -> list[Source]:
        """Every file once."""
        files = ("adt", "patient", "hospitalization", "hospital_diagnosis", *(read.file for read in READS.values()))
        return [_open(ehr, file) for file in dict.fromkeys(files)]

    def stays(self, site: SiteConfig) -> StayTables:
        """Rows of adt in intensive care, with patient and hospitalization."""
        ehr = site.data.ehr
        derived = Derived(ADT, frozenset({*STAYS, *ADT}), _stays_of)
        tables = {
            "adt": WholeTable(_open(ehr, "adt", derived), STAYS, "stay_id"),
            "patient": WholeTable(_open(ehr, "patient"), PATIENT, "subject_id"),
            "hospitalization": WholeTable(_open(ehr, "hospitalization"), HOSPITALIZATION, "hadm_id"),
        }
        return read_stay_tables(tables, frames_of, site.prepare)

    def diagnoses(self, ehr: EhrData) -> Source:
        """hospital_diagnosis."""
        columns: Columns = {"hadm_id": pl.Int64, "icd_code": pl.String, "diagnosis_code_format": pl.String}
        return _open(ehr, "hospital_diagnosis", Derived(columns, frozenset({*columns, "icd_version"}), _with_version))

    def events(self, ehr: EhrData) -> list[Events]:
        """Every table of measurements."""
        return [one for name in READS if isinstance(one := _read(ehr, name), Events)]

    def intervals(self, ehr: EhrData) -> list[Intervals]:
        """Every table of treatments."""
        return [one for name in READS if isinstance(one := _read(ehr, name), Intervals)]

    def ecg_records(self, ecg: EcgData) -> Source:
        """A list of ECGs, which CLIF does not have."""
        own = {"subject_id": "patient_id", "study_id": "ecg_id", "ecg_time": "acquired_dttm", "path": "file"}
        return Source("ecg_list", ecg.record_list, Naming("ecg_list", own), ecg.datetime_format)

    def checks(self, ehr: EhrData) -> list[TableCheck]:
        """Every table of events, and that of codes."""
        codes = TableCheck("hospital_diagnosis", partial(self.diagnoses, ehr), DIAGNOSES, is_of_codes=True)
        return [codes, *(_check(ehr, name) for name in READS)]


def frames_of(tables: dict[str, pl.DataFrame]) -> Frames:
    """The frames of ``StayTables``; who is Hispanic is so whatever the race."""
    stays, patients, hospitalizations = tables["adt"], tables["patient"], tables["hospitalization"]
    is_hispanic = pl.col("ethnicity_category") == "Hispanic"
    race = pl.when(is_hispanic).then("ethnicity_category").otherwise("race_category")
    expired = pl.col("discharge_category") == "Expired"
    admissions = hospitalizations.join(patients, on="subject_id", how="left", maintain_order="left").select(
        "subject_id",
        "hadm_id",
        admittime="admission_dttm",
        dischtime="discharge_dttm",
        deathtime=pl.when(expired).then("death_dttm"),
        age="age_at_admission",
        admission_type="admission_type_name",
        admission_location="admission_source_name",
        insurance="insurance_name",
        marital_status="marital_status_name",
        race=race,
        hospital_expire_flag=expired.cast(pl.Int64),
    )
    owners = hospitalizations.select("hadm_id", "subject_id")
    return (
        stays.join(owners, on="hadm_id", how="left", maintain_order="left").select(
            "subject_id", "hadm_id", "stay_id", careunit_kind="location_type", intime="in_dttm", outtime="out_dttm"
        ),
        patients.select("subject_id", sex="sex_category", dod="death_dttm"),
        admissions,
    )


def _open(ehr: EhrData, file: str, derived: Derived | None = None, name: str = "") -> Source:
    path = ehr.root / f"clif_{file}.parquet"
    if not path.is_file():
        raise DataError(
            rule=f"{path.name} must be a table", got=f"none under {ehr.root}", fix="Set data.ehr.root.", code="E101"
        )
    own: Mapping[str, str] = IDS | {"icd_code": "diagnosis_code"}
    return Source(name or file, path, Naming(file, own), ehr.datetime_format, derived=derived)


def _read(ehr: EhrData, name: str, source: Source | None = None) -> Events | Intervals:
    read = READS[name]
    source = source or _open(ehr, read.file, read.derived, name)
    given = [one for one in read.stored if isinstance(one, StoredTreatment)]
    measured = [one for one in read.stored if isinstance(one, StoredConcept)]
    if given:
        return Intervals(source, read.table, treatments.declared(ehr, given), rate=read.rate)
    known = measurements.declared(ehr, measured)
    return Events(source, read.table, known, read.unit, read.known_from, read.begins_at_admission)


def _check(ehr: EhrData, name: str) -> TableCheck:
    read = READS[name]
    find: Callable[[], Source] = partial(_open, ehr, read.file, read.derived, name)
    return TableCheck(name, find, read.table.columns, partial(_read, ehr, name))
