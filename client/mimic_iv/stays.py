"""ICU stays: icustays, patients and admissions joined, and who is in the cohort.

Every ICU stay is accounted for: it is in the cohort, or dropped for the first rule that it breaks.
"""

from dataclasses import dataclass

import polars as pl

from client.mimic_iv.tables import TIME, Columns, collect, find_table, require_unique, scan
from client.site import EhrData
from lemof_model.study import CohortSpec

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


@dataclass(frozen=True)
class StayTables:
    """The three tables that say who was in intensive care, and when."""

    icustays: pl.DataFrame
    patients: pl.DataFrame
    admissions: pl.DataFrame


def read_stay_tables(ehr: EhrData) -> StayTables:
    """Read the three tables; each row must have a key of its own.

    Raises:
        DataError: a table is missing or damaged, or a key is repeated.
    """
    keys = {
        "icustays": (ICUSTAYS, "stay_id"),
        "patients": (PATIENTS, "subject_id"),
        "admissions": (ADMISSIONS, "hadm_id"),
    }
    tables: dict[str, pl.DataFrame] = {}
    for name, (columns, key) in keys.items():
        path = find_table(ehr, name)
        tables[name] = collect(scan(path, columns), path)
        require_unique(tables[name], key, path)
    return StayTables(**tables)


def select_stays(tables: StayTables, spec: CohortSpec) -> tuple[pl.DataFrame, list[dict[str, str | int]]]:
    """The cohort's stays in the order of ``stay_id``, and the attrition table from all ICU stays down to them.

    ``row`` is the stay's row in every array. ``age`` counts years at admission: anchor_age + year of admission -
    anchor_year (MIT-LCP/mimic-code, demographics/age.sql).
    """
    joined = (
        tables.icustays.join(tables.patients, on="subject_id", how="left")
        .join(tables.admissions, on=["subject_id", "hadm_id"], how="left")
        .with_columns(age=pl.col("anchor_age") + pl.col("admittime").dt.year() - pl.col("anchor_year"))
    )
    stay_hours = (pl.col("outtime") - pl.col("intime")).dt.total_seconds() / 3600
    rules = {
        "intime or outtime missing, or outtime before intime": stay_hours.is_null() | (stay_hours < 0),
        "patient or admission not found, or age unknown": pl.col("age").is_null(),
        f"younger than {spec.min_age_years} years": pl.col("age") < spec.min_age_years,
        f"shorter than {spec.min_stay_hours:g} hours": stay_hours < spec.min_stay_hours,
    }
    first_broken = pl.coalesce(pl.when(broken).then(pl.lit(reason)) for reason, broken in rules.items())
    judged = joined.with_columns(dropped_for=first_broken)
    stays = judged.filter(pl.col("dropped_for").is_null()).sort("stay_id").with_row_index("row")
    counts = {
        "all ICU stays": tables.icustays.height,
        **{reason: int((judged["dropped_for"] == reason).sum()) for reason in rules},
        "in the cohort": stays.height,
    }
    assert sum(counts.values()) == 2 * tables.icustays.height, "a stay was lost or counted twice"
    return stays.drop("dropped_for"), [{"reason": reason, "num_stays": count} for reason, count in counts.items()]
