"""Disease cohorts: the ten diseases of the paper, from discharge codes, to stratify an evaluation. Never a feature."""

import polars as pl

from client.layouts.mimic_iv.icd_codes import Prefixes
from lemof_model.features import DISEASES

# Prefixes without dots, any position. HCUP CCS / CCSR categories named beside, written out as prefixes because CCSR's
# first category misses most bacterial pneumonia and hypertensive heart failure.
PREFIXES: dict[str, Prefixes] = {
    "diabetes": {9: ("249", "250"), 10: ("E08", "E09", "E10", "E11", "E13")},  # CCS 49, 50; END002, END003
    "lung_cancer": {9: (*(f"162{digit}" for digit in range(2, 10)), "20921"), 10: ("C34",)},  # CCS 19; NEO022
    "sepsis": {  # CCS 2; INF002
        9: ("038", "99591", "99592", "78552"),
        10: ("A40", "A41", "R652", "A021", "A227", "B377"),
    },
    "acute_myocardial_infarction": {9: ("410",), 10: ("I21", "I22")},  # CCS 100; CIR009
    "dysrhythmia": {  # CCS 106; CIR017: 427 without fibrillation of the ventricles (4274) and arrest (4275)
        9: ("4270", "4271", "4272", "4273", "4276", "4278", "4279"),
        10: ("I47", "I48", "I49"),
    },
    "electrolyte_disorder": {9: ("276",), 10: ("E86", "E87")},  # CCS 55; END011
    "chronic_kidney_disease": {9: ("585",), 10: ("N18",)},  # CCS 158; GEN003
    "heart_failure": {  # CCS 108; CIR019, with hypertensive heart failure
        9: ("428", "39891", *(f"402{x}1" for x in "019"), *(f"404{x}{y}" for x in "019" for y in "13")),
        10: ("I50", "I0981", "I110", "I130", "I132"),
    },
    "pneumonia": {  # CCS 122; RSP002
        9: ("480", "481", "482", "483", "484", "485", "486"),
        10: ("J12", "J13", "J14", "J15", "J16", "J17", "J18"),
    },
    "kidney_failure": {9: ("584", "586"), 10: ("N17", "N19")},  # CCS 157; GEN002
}


def with_diseases(stays: pl.DataFrame, groups: pl.DataFrame) -> pl.DataFrame:
    """Add a column for each disease: whether the stay's admission has one of its codes (``groups`` by admission), and
    ``is_coded``: whether it has any code at all."""
    coded = groups.select("hadm_id", *PREFIXES, is_coded=True)
    joined = stays.join(coded, on="hadm_id", how="left").sort("row")
    return joined.with_columns(pl.col(*DISEASES, "is_coded").fill_null(False))


def num_coded(stays: pl.DataFrame) -> dict[str, int]:
    """How many admissions the stays of ``with_diseases`` belong to, and how many of these have any code."""
    admissions = stays.unique("hadm_id")
    return {"admissions": admissions.height, "admissions_coded": int(admissions["is_coded"].sum())}
