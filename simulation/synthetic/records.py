"""Patients, admissions, ICU stays and diagnoses of a generated hospital, and where its ids begin."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from simulation.synthetic.process import CaseMix, Latents, Process

MAX_SITES, MAX_STAYS = 26, 100_000
YEAR_GROUPS = ("2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019", "2020 - 2022")
MARITAL = ("MARRIED", "SINGLE", "WIDOWED", "DIVORCED")
RACES = ("WHITE", "BLACK/AFRICAN AMERICAN", "HISPANIC OR LATINO", "ASIAN", "UNKNOWN")
ADMISSIONS = (  # admission_type, admission_location, mean hours from hospital to ICU, share
    ("EW EMER.", "EMERGENCY ROOM", 4.0, 0.55),
    ("OBSERVATION ADMIT", "EMERGENCY ROOM", 6.0, 0.15),
    ("URGENT", "TRANSFER FROM HOSPITAL", 3.0, 0.18),
    ("SURGICAL SAME DAY ADMISSION", "PHYSICIAN REFERRAL", 9.0, 0.12),
)


@dataclass(frozen=True)
class Disease:
    """Codes of a diagnosis and its log-odds at the mean, per unit of severity and per unit of cardiac burden."""

    icd9: str
    icd10: str
    base: float
    severity: float = 0.0
    cardiac: float = 0.0


DISEASES = (
    Disease("25000", "E119", -0.9, 0.1, 0.1),
    Disease("1629", "C3490", -3.0, 0.2),
    Disease("99591", "A419", -1.5, 0.8),
    Disease("41071", "I214", -2.2, 0.0, 0.8),
    Disease("42731", "I4891", -0.9, 0.1, 0.6),
    Disease("2761", "E871", -0.6, 0.4),
    Disease("5859", "N189", -1.4, 0.2, 0.3),
    Disease("4280", "I509", -1.2, 0.1, 0.9),
    Disease("486", "J189", -1.6, 0.5),
    Disease("5849", "N179", -0.9, 0.7),
    Disease("4019", "I10", 0.2),  # none of the ten: plain hypertension
)


def first_id(kind: int, site_index: int) -> int:
    """Where the ids of a kind begin (1 patients, 2 admissions, 3 stays, 4 ECGs, ...): no two hospitals share one."""
    return kind * 10_000_000 + site_index * 3 * MAX_STAYS + 1


def draw_stays(
    process: Process, mix: CaseMix, latents: Latents, site_index: int, rng: np.random.Generator
) -> pl.DataFrame:
    """One row per ICU stay with its keys, times and latents; a few patients have a second stay a year later."""
    num_stays = len(latents.los_days)
    is_second = rng.random(num_stays) < process.second_stay_share
    is_second[0] = False
    is_second[1:] &= ~is_second[:-1]
    of_stay = np.cumsum(~is_second) - 1
    num_patients = int(of_stay[-1]) + 1
    admission = rng.choice(len(ADMISSIONS), num_stays, p=[share for *_, share in ADMISSIONS])
    patients = {
        "subject_id": first_id(1, site_index) + np.cumsum(rng.integers(1, 4, num_patients)),
        "gender": rng.choice(("F", "M"), num_patients, p=(0.44, 0.56)),
        "anchor_age": latents.age_years[~is_second],
        "anchor_year": rng.integers(2110, 2195, num_patients),
        "anchor_year_group": rng.choice(YEAR_GROUPS, num_patients),
        "marital_status": rng.choice(MARITAL, num_patients, p=(0.48, 0.3, 0.14, 0.08)),
        "race": rng.choice(RACES, num_patients, p=(0.66, 0.12, 0.06, 0.05, 0.11)),
    }
    hours = {
        "to_icu": 0.2 + rng.exponential([ADMISSIONS[kind][2] for kind in admission]),
        "in_icu": latents.los_days * 24,
        "after_icu": 2 + 24 * rng.exponential(3.5, num_stays),
    }
    stays = pl.DataFrame(
        {name: values[of_stay] for name, values in patients.items()}
        | {
            "hadm_id": first_id(2, site_index) + rng.permutation(num_stays),
            "stay_id": first_id(3, site_index) + rng.permutation(num_stays),
            "day": rng.uniform(15, 60, num_stays) + np.where(is_second, rng.integers(366, 700, num_stays), 0),
            "careunit": rng.choice(mix.care_units, num_stays),
            "admission_type": [ADMISSIONS[kind][0] for kind in admission],
            "admission_location": [ADMISSIONS[kind][1] for kind in admission],
            "died": rng.random(num_stays) < 1 / (1 + np.exp(2.9 - 0.8 * latents.severity)),
            "severity": latents.severity,
            "cardiac": latents.cardiac,
            "ecg_severity": latents.ecg_severity,
            "has_ecg": latents.has_ecg,
        }
        | hours
    )
    new_year = pl.datetime(pl.col("anchor_year"), 1, 1)
    return (
        stays.with_columns(intime=new_year + pl.duration(seconds=(pl.col("day") * 86_400).cast(pl.Int64)))
        .with_columns(
            admittime=after("intime", -pl.col("to_icu")).dt.truncate("1m"),
            outtime=after("intime", pl.col("in_icu")),
        )
        .with_columns(
            dischtime=pl.when("died").then("outtime").otherwise(after("outtime", pl.col("after_icu"))),
            los_days=(pl.col("outtime") - pl.col("intime")).dt.total_seconds() / 86_400,
        )
    )


def after(column: str, hours: pl.Expr) -> pl.Expr:
    """The time in ``column`` moved by ``hours``, to the second."""
    return pl.col(column) + pl.duration(seconds=(hours * 3600).cast(pl.Int64))


def patients_table(stays: pl.DataFrame) -> pl.DataFrame:
    """``hosp/patients``: one row per patient."""
    died = pl.col("dischtime").filter(pl.col("died")).max().dt.date().alias("dod")
    keys = ["subject_id", "gender", "anchor_age", "anchor_year", "anchor_year_group"]
    return stays.group_by(keys, maintain_order=True).agg(died)


def admissions_table(stays: pl.DataFrame) -> pl.DataFrame:
    """``hosp/admissions``: one row per stay, since every generated stay has its own admission."""
    through_ed = pl.col("admission_location") == "EMERGENCY ROOM"
    return stays.select(
        "subject_id",
        "hadm_id",
        "admittime",
        "dischtime",
        pl.when("died").then("dischtime").alias("deathtime"),
        "admission_type",
        pl.lit(None, pl.String).alias("admit_provider_id"),
        "admission_location",
        pl.when("died").then(pl.lit("DIED")).otherwise(pl.lit("HOME HEALTH CARE")).alias("discharge_location"),
        pl.when(pl.col("anchor_age") >= 65).then(pl.lit("Medicare")).otherwise(pl.lit("Other")).alias("insurance"),
        pl.lit("ENGLISH").alias("language"),
        "marital_status",
        "race",
        pl.when(through_ed).then(after("admittime", pl.lit(-4.0))).alias("edregtime"),
        pl.when(through_ed).then(after("admittime", pl.lit(0.5))).alias("edouttime"),
        pl.col("died").cast(pl.Int8).alias("hospital_expire_flag"),
    )


def icustays_table(stays: pl.DataFrame) -> pl.DataFrame:
    """``icu/icustays``; ``los`` is outtime - intime in days, as in MIMIC-IV."""
    return stays.select(
        "subject_id",
        "hadm_id",
        "stay_id",
        pl.col("careunit").alias("first_careunit"),
        pl.col("careunit").alias("last_careunit"),
        "intime",
        "outtime",
        pl.col("los_days").alias("los"),
    )


def diagnoses_table(stays: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """``hosp/diagnoses_icd``: discharge codes, ICD-9 before the years of ICD-10."""
    severity, cardiac = stays["severity"].to_numpy(), stays["cardiac"].to_numpy()
    is_old = stays["anchor_year_group"].is_in(YEAR_GROUPS[:2]).to_numpy()
    frames = []
    for disease in DISEASES:
        log_odds = disease.base + disease.severity * severity + disease.cardiac * cardiac
        has_it = rng.random(stays.height) < 1 / (1 + np.exp(-log_odds))
        frames.append(
            stays.select("subject_id", "hadm_id")
            .with_columns(
                icd_code=pl.Series(np.where(is_old, disease.icd9, disease.icd10)),
                icd_version=pl.Series(np.where(is_old, 9, 10)),
                order=pl.Series(rng.random(stays.height)),
            )
            .filter(has_it)
        )
    diagnoses = pl.concat(frames).sort("subject_id", "hadm_id", "order")
    return diagnoses.with_columns(seq_num=pl.int_range(1, pl.len() + 1).over("hadm_id")).select(
        "subject_id", "hadm_id", "seq_num", "icd_code", "icd_version"
    )
