"""Discharge diagnoses of generated admissions: what a patient has for good, and what came with one admission.

``Condition`` has two parts. The lasting one belongs to the patient and is written again and again: in earlier
admissions and in later ones. It depends on frailty, kidneys and strain at the patient's first stay. The sudden one
belongs to one admission; in ICU stays it depends on any latent, the ECG's too, because a discharge code is never a
feature of its own stay. In earlier admissions, which are features, it happens by a fixed share.
Letters in shapes: A admissions (ICU stays first, then earlier ones), P patients.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from client.prepare import icd_zeros
from simulation.synthetic.process import Latents
from simulation.synthetic.records import Shares, happens

Codes = tuple[tuple[str, str, float], ...]  # ICD-9, ICD-10, share among the condition's codes


@dataclass(frozen=True)
class Lasting:
    """A condition for good: its log-odds at the mean and by latent (tables' latents only), and its codes."""

    codes: Codes
    base: float
    weights: Shares = ()


@dataclass(frozen=True)
class Sudden:
    """A condition of one admission: log-odds in an ICU stay by latent, share among earlier admissions, codes."""

    codes: Codes
    base: float
    earlier_share: float
    weights: Shares = ()


@dataclass(frozen=True)
class Condition:
    """A disease or a group of codes, named as in ``client.prepare.diagnoses`` where it is one of the ten."""

    name: str
    lasting: Lasting | None = None
    sudden: Sudden | None = None


def _habit(name: str, icd9: str, icd10: str, base: float, *weights: tuple[str, float]) -> Condition:
    """A lasting condition with one code, none of the ten."""
    return Condition(name, lasting=Lasting(((icd9, icd10, 1.0),), base, weights))


def _event(
    name: str, icd9: str, icd10: str, base: float, earlier_share: float, *weights: tuple[str, float]
) -> Condition:
    """A sudden condition with one code, none of the ten."""
    return Condition(name, sudden=Sudden(((icd9, icd10, 1.0),), base, earlier_share, weights))


TEN = (
    Condition(
        "diabetes",
        Lasting(
            (
                *(("25000", "E119", 0.5), ("25040", "E1122", 0.15), ("25002", "E1165", 0.15)),
                *(("25060", "E1142", 0.15), ("24900", "E0900", 0.05)),
            ),
            *(-0.6, (("frailty", 0.5),)),
        ),
    ),
    Condition(
        "lung_cancer",
        Lasting((("1629", "C3490", 0.4), ("1623", "C3411", 0.35), ("1625", "C3431", 0.25)), -3.3, (("frailty", 0.3),)),
    ),
    Condition(
        "sepsis",
        sudden=Sudden(
            (
                *(("99591", "A419", 0.45), ("99592", "R6520", 0.15), ("78552", "R6521", 0.25)),
                *(("03842", "A4151", 0.1), ("03811", "A4101", 0.05)),
            ),
            *(-1.75, 0.06, (("inflammation", 1.0), ("shock", 0.9))),
        ),
    ),
    Condition(
        "acute_myocardial_infarction",
        sudden=Sudden(
            (("41071", "I214", 0.75), ("41041", "I2119", 0.15), ("41011", "I2109", 0.1)),
            *(-3.0, 0.03, (("strain", 0.8), ("repolarisation", 0.9))),
        ),
    ),
    Condition(
        "dysrhythmia",
        Lasting((("42731", "I4891", 0.6), ("42731", "I480", 0.4)), -2.6, (("frailty", 0.5), ("strain", 0.4))),
        Sudden(
            (
                *(("42731", "I4891", 0.65), ("42732", "I4892", 0.12), ("4271", "I472", 0.08)),
                *(("4270", "I471", 0.07), ("42769", "I493", 0.08)),
            ),
            *(-1.35, 0.03, (("rhythm", 1.9),)),
        ),
    ),
    Condition(
        "electrolyte_disorder",
        sudden=Sudden(
            (
                *(("2761", "E871", 0.3), ("2760", "E870", 0.12), ("2762", "E872", 0.3)),
                *(("2767", "E875", 0.15), ("2768", "E876", 0.13)),
            ),
            *(-0.5, 0.15, (("renal", 0.6), ("severity", 0.5))),
        ),
    ),
    Condition(
        "chronic_kidney_disease",
        Lasting(
            (("5859", "N189", 0.4), ("5853", "N183", 0.35), ("5854", "N184", 0.12), ("5856", "N186", 0.13)),
            *(-1.45, (("renal", 0.9), ("frailty", 0.5))),
        ),
    ),
    Condition(
        "heart_failure",
        Lasting(
            (("42822", "I5022", 0.35), ("42832", "I5032", 0.4), ("4280", "I509", 0.25)),
            *(-1.75, (("strain", 0.8), ("frailty", 0.6))),
        ),
        Sudden(
            (("42823", "I5023", 0.4), ("42833", "I5033", 0.4), ("4280", "I509", 0.2)),
            *(-2.7, 0.03, (("strain", 0.8), ("conduction", 0.9))),
        ),
    ),
    Condition(
        "pneumonia",
        sudden=Sudden(
            (("486", "J189", 0.7), ("48241", "J15211", 0.1), ("4829", "J159", 0.15), ("4821", "J151", 0.05)),
            *(-1.95, 0.06, (("respiratory", 0.8), ("inflammation", 0.7))),
        ),
    ),
    Condition(
        "kidney_failure",
        sudden=Sudden((("5849", "N179", 0.8), ("5845", "N170", 0.2)), -0.95, 0.08, (("renal", 1.0), ("shock", 0.6))),
    ),
)
OTHERS = (
    _habit("hypertension", "4019", "I10", 0.1, ("frailty", 0.3)),
    _habit("hyperlipidaemia", "2724", "E785", -0.4, ("frailty", 0.2)),
    _habit("coronary disease", "41401", "I2510", -1.3, ("strain", 0.5), ("frailty", 0.4)),
    _habit("chronic lung disease", "496", "J449", -1.8, ("frailty", 0.3)),
    _habit("reflux", "53081", "K219", -1.2),
    _habit("depression", "311", "F329", -1.5),
    _habit("hypothyroidism", "2449", "E039", -1.9),
    _habit("former smoker", "V1582", "Z87891", -1.0),
    _habit("sleep apnoea", "32723", "G4733", -2.2),
    _habit("obesity", "27800", "E669", -1.9),
    _habit("other cancer", "V1046", "Z8546", -2.8, ("frailty", 0.3)),
    _habit("anticoagulants", "V5861", "Z7901", -1.9, ("frailty", 0.3)),
    _event("respiratory failure", "51881", "J9601", -1.5, 0.04, ("respiratory", 1.2)),
    _event("anaemia", "2851", "D62", -1.4, 0.08, ("severity", 0.3)),
    _event("thrombocytopenia", "2875", "D696", -1.9, 0.05, ("liver", 0.7)),
    _event("encephalopathy", "34830", "G9340", -2.3, 0.02, ("neuro", 0.9)),
    _event("urinary infection", "5990", "N390", -1.8, 0.1, ("inflammation", 0.3)),
    _event("care limited", "V4986", "Z66", -2.1, 0.03, ("severity", 0.6), ("frailty", 0.5)),
)


@dataclass(frozen=True)
class Diagnoses:
    """All parameters of the discharge codes. ICD-10 holds from ``first_icd10`` (years) on."""

    conditions: tuple[Condition, ...] = TEN + OTHERS
    written_share: float = 0.85  # how often an admission lists what the patient has for good
    first_icd10: float = 2015.75


DIAGNOSES = Diagnoses()


def diagnoses_table(
    stays: pl.DataFrame, earlier: pl.DataFrame, latents: Latents, rng: np.random.Generator
) -> pl.DataFrame:
    """``hosp/diagnoses_icd`` of the stays' admissions and the earlier ones (``records.earlier_admissions``)."""
    columns = ["subject_id", "hadm_id", "patient", "anchor_year", "true_year", "admittime"]
    admissions = pl.concat([stays.select(columns), earlier.select(columns)])
    patient_A = admissions["patient"].to_numpy()
    is_first_N = ~stays["is_second"].to_numpy()
    frames = []
    for condition in DIAGNOSES.conditions:
        if lasting := condition.lasting:
            has_P = happens(lasting.base, lasting.weights, latents.values_ND, rng)[is_first_N]
            code_P = _draw_codes(lasting.codes, len(has_P), rng)
            has_A = has_P[patient_A] & (rng.random(len(patient_A)) < DIAGNOSES.written_share)
            frames.append(_coded(admissions, lasting.codes, code_P[patient_A], rng).filter(has_A))
        if sudden := condition.sudden:
            of_earlier = rng.random(earlier.height) < sudden.earlier_share
            has_A = np.append(happens(sudden.base, sudden.weights, latents.values_ND, rng), of_earlier)
            code_A = _draw_codes(sudden.codes, len(has_A), rng)
            frames.append(_coded(admissions, sudden.codes, code_A, rng).filter(has_A))
    written = pl.concat(frames).sort("subject_id", "hadm_id", "order")
    written = written.unique(["hadm_id", "icd_code"], keep="first", maintain_order=True)
    return (
        with_a_leading_zero(written)
        .with_columns(seq_num=pl.int_range(1, pl.len() + 1).over("hadm_id"))
        .select("subject_id", "hadm_id", "seq_num", "icd_code", "icd_version")
    )


def with_a_leading_zero(written: pl.DataFrame) -> pl.DataFrame:
    """The same codes, with one that begins with 0 where chance wrote none among many of ICD-9: no real table is so, and
    a hospital whose codes are would be refused for lost zeros. The first sepsis of ICD-9 is then one by its germ."""
    of_9 = (pl.col("icd_version") == 9).fill_null(False)
    codes = written.filter(of_9)["icd_code"]
    if codes.len() < icd_zeros.ENOUGH_CODES or codes.str.starts_with("0").any():
        return written
    is_sepsis = of_9 & pl.col("icd_code").is_in(["99591", "99592", "78552"])
    is_first = is_sepsis & (is_sepsis.cum_sum() == 1)
    return written.with_columns(icd_code=pl.when(is_first).then(pl.lit("03842")).otherwise("icd_code"))


def _coded(admissions: pl.DataFrame, codes: Codes, code_A: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    """One condition's code for every admission, in the ICD version of its time, with a random order."""
    date = pl.col("admittime").dt
    true_time = date.year() - pl.col("anchor_year") + pl.col("true_year") + (date.month() - 1) / 12
    is_icd10 = true_time >= DIAGNOSES.first_icd10
    icd9, icd10 = (pl.Series(np.array([code[version] for code in codes])[code_A]) for version in (0, 1))
    return admissions.select(
        "subject_id",
        "hadm_id",
        icd_code=pl.when(is_icd10).then(icd10).otherwise(icd9),
        icd_version=pl.when(is_icd10).then(10).otherwise(9),
        order=pl.Series(rng.random(len(code_A))),
    )


def _draw_codes(codes: Codes, size: int, rng: np.random.Generator) -> np.ndarray:
    """Which of the codes each one gets."""
    return rng.choice(len(codes), size, p=[share for *_, share in codes])
