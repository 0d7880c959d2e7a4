"""Patients, admissions and ICU stays of a generated hospital, and where its ids begin.

Who comes, how and to which unit shows age, frailty and severity; how long a stay lasts shows in times alone. A patient
may have been in hospital before, more often when frail, but every ICU stay is one of the drawn ones. What a patient
brought along (``earlier_admissions``, ``diagnoses``) belongs to the first of the patient's stays.
Letters in shapes: N stays, P patients, K ways to arrive, U care units, E earlier admissions.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from simulation.synthetic.process import (
    CCU,
    CVICU,
    LATENTS,
    MICU,
    MICU_SICU,
    NSICU,
    SICU,
    TSICU,
    CaseMix,
    Latents,
    Process,
    SyntheticHospital,
)

MAX_SITES, MAX_STAYS = 26, 100_000
MAX_HOURS_TO_ICU, MAX_HOURS_AFTER_ICU = 240.0, 1440.0

Shares = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Arrival:
    """A way into hospital: its share, log-odds per unit of severity, and median hours (log sd) until the ICU.

    ``surgical`` log-odds are added in surgical units and subtracted in the others.
    """

    admission_type: str
    locations: Shares
    share: float
    severity: float
    hours_to_icu: float
    hours_log_sd: float
    surgical: float = 0.0


EMERGENCY = "EMERGENCY ROOM"
# Shares and hours: near those of the stays of the open MIMIC-IV demo 2.2.
ARRIVALS = (
    Arrival("EW EMER.", ((EMERGENCY, 0.93), ("WALK-IN/SELF REFERRAL", 0.07)), 0.52, 0.35, 1.6, 0.8),
    Arrival("URGENT", (("TRANSFER FROM HOSPITAL", 0.85), ("PHYSICIAN REFERRAL", 0.15)), 0.21, 0.25, 5.0, 1.6),
    Arrival("OBSERVATION ADMIT", ((EMERGENCY, 0.8), ("PHYSICIAN REFERRAL", 0.2)), 0.13, 0.0, 4.0, 1.4),
    Arrival(
        "SURGICAL SAME DAY ADMISSION",
        (("PHYSICIAN REFERRAL", 0.9), ("CLINIC REFERRAL", 0.1)),
        *(0.06, -0.5, 8.7, 0.6),
        surgical=1.5,
    ),
    Arrival("ELECTIVE", (("PHYSICIAN REFERRAL", 0.75), ("PROCEDURE SITE", 0.25)), 0.03, -0.4, 3.4, 0.6, surgical=0.7),
    Arrival("DIRECT EMER.", (("PHYSICIAN REFERRAL", 0.6), ("CLINIC REFERRAL", 0.4)), 0.04, 0.1, 12.0, 1.3),
)


@dataclass(frozen=True)
class Records:
    """All parameters of patients, admissions and stays; pairs are a name and a share or a weight."""

    age_sd_years: float = 15.0
    age_frailty: float = 0.55  # correlation of age with frailty
    age_range: tuple[int, int] = (18, 89)
    arrivals: tuple[Arrival, ...] = ARRIVALS
    surgical_units: tuple[str, ...] = (SICU, CVICU, NSICU)
    affinity: tuple[tuple[str, Shares], ...] = (
        (NSICU, (("neuro", 1.0),)),
        (CVICU, (("strain", 0.7),)),
        (CCU, (("strain", 0.7),)),
        (MICU, (("inflammation", 0.4), ("respiratory", 0.4))),
        (MICU_SICU, (("inflammation", 0.2), ("respiratory", 0.2))),
        (TSICU, (("frailty", -0.7),)),
        (SICU, ()),
    )
    died: Shares = (("severity", 0.7), ("shock", 0.5), ("neuro", 0.4))
    died_log_odds: float = -2.8
    days_after_icu: float = 3.5
    year_groups: tuple[tuple[str, int], ...] = (
        ("2008 - 2010", 2008),
        ("2011 - 2013", 2011),
        ("2014 - 2016", 2014),
        ("2017 - 2019", 2017),
        ("2020 - 2022", 2020),
    )
    gender: Shares = (("F", 0.44), ("M", 0.56))
    language: Shares = (("ENGLISH", 0.92), ("?", 0.08))
    race: Shares = (
        *(("WHITE", 0.63), ("BLACK/AFRICAN AMERICAN", 0.13), ("HISPANIC OR LATINO", 0.04), ("ASIAN", 0.03)),
        *(("WHITE - OTHER EUROPEAN", 0.03), ("OTHER", 0.04), ("UNKNOWN", 0.08), ("UNABLE TO OBTAIN", 0.02)),
    )
    # Below 65 years and from then on; an empty text is written as no value.
    marital_status: tuple[Shares, Shares] = (
        (("MARRIED", 0.4), ("SINGLE", 0.43), ("WIDOWED", 0.03), ("DIVORCED", 0.09), ("", 0.05)),
        (("MARRIED", 0.5), ("SINGLE", 0.16), ("WIDOWED", 0.23), ("DIVORCED", 0.07), ("", 0.04)),
    )
    insurance: tuple[Shares, Shares] = (
        (("Medicare", 0.12), ("Medicaid", 0.15), ("Other", 0.73)),
        (("Medicare", 0.75), ("Medicaid", 0.02), ("Other", 0.23)),
    )
    discharge_location: Shares = (
        *(("HOME", 0.28), ("HOME HEALTH CARE", 0.32), ("SKILLED NURSING FACILITY", 0.2), ("REHAB", 0.08)),
        *(("CHRONIC/LONG TERM ACUTE CARE", 0.05), ("HOSPICE", 0.03), ("AGAINST ADVICE", 0.02), ("", 0.02)),
    )
    messy_share: float = 0.01  # of stays: ICU before hospital admission, or the admission's origin not known
    earlier_log_mean: float = -0.5
    earlier_frailty: float = 0.6
    most_earlier: int = 5
    earlier_days: tuple[float, float] = (20.0, 900.0)  # before the patient's first ICU admission
    earlier_los_days: tuple[float, float] = (1.0, 9.0)
    earlier_kinds: tuple[tuple[str, str, float], ...] = (
        ("EW EMER.", EMERGENCY, 0.4),
        ("OBSERVATION ADMIT", EMERGENCY, 0.2),
        ("EU OBSERVATION", EMERGENCY, 0.15),
        ("URGENT", "TRANSFER FROM HOSPITAL", 0.1),
        ("SURGICAL SAME DAY ADMISSION", "PHYSICIAN REFERRAL", 0.08),
        ("ELECTIVE", "PHYSICIAN REFERRAL", 0.07),
    )


RECORDS = Records()


def first_id(kind: int, site_index: int) -> int:
    """Where the ids of a kind begin (1 patients, 2 admissions, 3 stays, 4 ECGs, ...): no two hospitals share one."""
    return kind * 10_000_000 + site_index * 3 * MAX_STAYS + 1


def after(column: str, hours: pl.Expr) -> pl.Expr:
    """The time in ``column`` moved by ``hours``, to the second."""
    return pl.col(column) + pl.duration(seconds=(hours * 3600).cast(pl.Int64))


def draw_stays(
    process: Process, hospital: SyntheticHospital, latents: Latents, rng: np.random.Generator
) -> pl.DataFrame:
    """One row per ICU stay, in the order of the latents: keys, patient, times and how it came about.

    A few patients have a second stay one to two years after the first, in the next row; ``patient`` counts patients.
    """
    num_stays = len(latents.los_days)
    is_second = _is_second(process, num_stays, rng)
    of_stay_N = np.cumsum(~is_second) - 1
    patients = _draw_patients(hospital, latents["frailty"][~is_second], rng)
    unit_N = _draw_units(hospital.mix, latents, rng)
    arrivals = _draw_arrivals(unit_N, latents["severity"], rng)
    has_later_N = np.append(is_second[1:], False)
    columns = {
        "hadm_id": first_id(2, hospital.index) + rng.permutation(num_stays),
        "stay_id": first_id(3, hospital.index) + rng.permutation(num_stays),
        "is_second": is_second,
        "careunit": unit_N,
        "died": happens(RECORDS.died_log_odds, RECORDS.died, latents.values_ND, rng) & ~has_later_N,
        "discharge_location": _choice(RECORDS.discharge_location, num_stays, rng),
        "has_ecg": latents.has_ecg,
        "first_day": rng.uniform(15, 360, len(patients["patient"]))[of_stay_N],  # no admission begins a year earlier
        "days_later": np.where(is_second, rng.integers(366, 700, num_stays), 0),
        "hours_after": np.minimum(2 + 24 * rng.exponential(RECORDS.days_after_icu, num_stays), MAX_HOURS_AFTER_ICU),
        "hours_in": latents.los_days * 24,
    }
    repeated = {name: values[of_stay_N] for name, values in patients.items()}
    return _with_times(pl.DataFrame(repeated | columns | arrivals)).with_columns(pl.col(pl.String).replace("", None))


def _is_second(process: Process, num_stays: int, rng: np.random.Generator) -> np.ndarray:
    """Which stays belong to the patient of the row before; no patient has three."""
    is_second = rng.random(num_stays) < process.second_stay_share
    is_second[0] = False
    is_second[1:] &= ~is_second[:-1]
    return is_second


def _draw_patients(
    hospital: SyntheticHospital, frailty_P: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Facts of each patient. The anchor year lies up to two years before the first ICU stay, and so does its age."""
    num_patients = len(frailty_P)
    alone = np.sqrt(1 - RECORDS.age_frailty**2)
    spread = RECORDS.age_frailty * frailty_P + alone * rng.standard_normal(num_patients)
    age = np.clip(np.round(hospital.mix.age_years + RECORDS.age_sd_years * spread), *RECORDS.age_range).astype(int)
    lag = np.minimum(rng.integers(0, 3, num_patients), age - RECORDS.age_range[0])
    group = rng.integers(len(RECORDS.year_groups), size=num_patients)
    by_age = {
        name: np.where(age < 65, *(_choice(shares, num_patients, rng) for shares in table))
        for name, table in (("marital_status", RECORDS.marital_status), ("insurance", RECORDS.insurance))
    }
    return {
        "patient": np.arange(num_patients),
        "subject_id": first_id(1, hospital.index) + np.cumsum(rng.integers(1, 4, num_patients)),
        "gender": _choice(RECORDS.gender, num_patients, rng),
        "anchor_age": age - lag,
        "anchor_year": rng.integers(2110, 2195, num_patients),
        "anchor_lag": lag,
        "anchor_year_group": np.array([name for name, _ in RECORDS.year_groups])[group],
        # What the anchor year was before the shift: it decides between ICD-9 and ICD-10.
        "true_year": np.array([year for _, year in RECORDS.year_groups])[group] + rng.integers(0, 3, num_patients),
        "language": _choice(RECORDS.language, num_patients, rng),
        "race": _choice(RECORDS.race, num_patients, rng),
        **by_age,
    }


def _draw_units(mix: CaseMix, latents: Latents, rng: np.random.Generator) -> np.ndarray:
    """A care unit of the hospital for each stay, by what ails the patient."""
    affinity = dict(RECORDS.affinity)
    logits_NU = np.stack([weighted(affinity[unit], latents.values_ND) for unit in mix.care_units], axis=1)
    unit_N: np.ndarray = np.array(mix.care_units)[_draw_index(logits_NU, rng)]
    return unit_N


def _draw_arrivals(unit_N: np.ndarray, severity_N: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """How each stay came about: admission type and location, hours to the ICU, hours in the emergency room before."""
    num_stays = len(unit_N)
    side_N = np.where(np.isin(unit_N, RECORDS.surgical_units), 1.0, -1.0)
    kinds = RECORDS.arrivals
    logits = [np.log(kind.share) + kind.severity * severity_N + kind.surgical * side_N for kind in kinds]
    kind_N = _draw_index(np.stack(logits, axis=1), rng)
    location_KN = np.stack([_choice(kind.locations, num_stays, rng) for kind in kinds])
    location_N = location_KN[kind_N, np.arange(num_stays)]
    median_N = np.array([kind.hours_to_icu for kind in kinds])[kind_N]
    log_sd_N = np.array([kind.hours_log_sd for kind in kinds])[kind_N]
    to_icu_N = np.minimum(median_N * np.exp(log_sd_N * rng.standard_normal(num_stays)), MAX_HOURS_TO_ICU)
    is_early_N, is_unknown_N = rng.random((2, num_stays)) < RECORDS.messy_share / 2
    return {
        "admission_type": np.array([kind.admission_type for kind in kinds])[kind_N],
        "admission_location": np.where(is_unknown_N, "INFORMATION NOT AVAILABLE", location_N),
        "hours_to_icu": np.where(is_early_N, -rng.uniform(0.05, 0.5, num_stays), to_icu_N),
        "hours_before": 3.6 * np.exp(0.6 * rng.standard_normal(num_stays)),
    }


def _with_times(stays: pl.DataFrame) -> pl.DataFrame:
    """Turn hours into times. Who dies, dies in the ICU."""
    new_year = pl.datetime(pl.col("anchor_year") + pl.col("anchor_lag"), 1, 1)
    seconds = ((pl.col("first_day") + pl.col("days_later")) * 86_400).cast(pl.Int64)
    timed = (
        stays.with_columns(intime=new_year + pl.duration(seconds=seconds))
        .with_columns(
            admittime=after("intime", -pl.col("hours_to_icu")).dt.truncate("1m"),
            outtime=after("intime", pl.col("hours_in")),
        )
        .with_columns(
            dischtime=pl.when("died").then("outtime").otherwise(after("outtime", pl.col("hours_after"))),
            los_days=(pl.col("outtime") - pl.col("intime")).dt.total_seconds() / 86_400,
        )
    )
    return timed.drop("anchor_lag", "first_day", "days_later", "hours_to_icu", "hours_after", "hours_in")


def earlier_admissions(stays: pl.DataFrame, latents: Latents, rng: np.random.Generator) -> pl.DataFrame:
    """Admissions without intensive care before each patient's first ICU stay: more of them, the frailer the patient.

    From the end of one to the end of the next it is longer than any of them lasts, so none overlaps another.
    """
    num_stays = stays.height
    mean_N = np.exp(RECORDS.earlier_log_mean + RECORDS.earlier_frailty * latents["frailty"])
    num_N = np.minimum(rng.poisson(mean_N), RECORDS.most_earlier) * ~stays["is_second"].to_numpy()
    least, most = RECORDS.earlier_days
    apart = RECORDS.earlier_los_days[1] + 1
    is_one_NE = np.arange(RECORDS.most_earlier) < num_N[:, None]
    place_NE = np.where(is_one_NE, rng.random((num_stays, RECORDS.most_earlier)), np.inf)
    place_E = np.sort(place_NE, axis=1)[is_one_NE]
    row_E, turn_E = np.nonzero(is_one_NE)
    ended_E = least + place_E * (most - least - apart * num_N[row_E]) + apart * turn_E  # days before the first one
    kind_E = rng.choice(len(RECORDS.earlier_kinds), len(row_E), p=[share for *_, share in RECORDS.earlier_kinds])
    drawn = pl.DataFrame(
        {
            "hadm_id": stays["hadm_id"].to_numpy().max() + 1 + rng.permutation(len(row_E)),
            "admission_type": np.array([kind for kind, *_ in RECORDS.earlier_kinds])[kind_E],
            "admission_location": np.array([location for _, location, _ in RECORDS.earlier_kinds])[kind_E],
            "discharge_location": _choice(RECORDS.discharge_location, len(row_E), rng),
            "hours_before": 3.6 * np.exp(0.6 * rng.standard_normal(len(row_E))),
            "ended": ended_E * 24,
            "lasted": rng.uniform(*RECORDS.earlier_los_days, len(row_E)) * 24,
        }
    )
    kept = "patient subject_id anchor_age anchor_year true_year language race marital_status insurance admittime"
    earlier = stays.select(kept.split())[row_E].hstack(drawn).with_columns(died=pl.lit(False))
    return (
        earlier.with_columns(dischtime=after("admittime", -pl.col("ended")).dt.truncate("1m"))
        .with_columns(admittime=after("dischtime", -pl.col("lasted")).dt.truncate("1m"))
        .with_columns(pl.col("discharge_location").replace("", None))
        .drop("ended", "lasted")
    )


def patients_table(stays: pl.DataFrame) -> pl.DataFrame:
    """``hosp/patients``: one row per patient."""
    died = pl.col("dischtime").filter(pl.col("died")).max().dt.date().alias("dod")
    keys = ["subject_id", "gender", "anchor_age", "anchor_year", "anchor_year_group"]
    return stays.group_by(keys, maintain_order=True).agg(died)


def admissions_table(stays: pl.DataFrame, earlier: pl.DataFrame) -> pl.DataFrame:
    """``hosp/admissions``: the admission of every stay, since each has its own, and the earlier ones."""
    through_ed = pl.col("admission_location") == EMERGENCY
    columns = (
        "subject_id",
        "hadm_id",
        "admittime",
        "dischtime",
        pl.when("died").then("dischtime").alias("deathtime"),
        "admission_type",
        pl.lit(None, pl.String).alias("admit_provider_id"),
        "admission_location",
        pl.when("died").then(pl.lit("DIED")).otherwise("discharge_location").alias("discharge_location"),
        "insurance",
        "language",
        "marital_status",
        "race",
        pl.when(through_ed).then(after("admittime", -pl.col("hours_before"))).dt.truncate("1m").alias("edregtime"),
        pl.when(through_ed).then(after("admittime", pl.lit(1.4))).alias("edouttime"),
        pl.col("died").cast(pl.Int8).alias("hospital_expire_flag"),
    )
    return pl.concat([stays.select(columns), earlier.select(columns)]).sort("subject_id", "admittime")


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


def weighted(weights: Shares, latents_ND: np.ndarray) -> np.ndarray:
    """Sum of latents by weight, shape (N,)."""
    columns = (weight * latents_ND[:, LATENTS.index(name)] for name, weight in weights)
    return sum(columns, np.zeros(len(latents_ND)))


def happens(base: float, weights: Shares, latents_ND: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whether something with these log-odds comes true, shape (N,)."""
    log_odds = base + weighted(weights, latents_ND)
    is_so: np.ndarray = rng.random(len(log_odds)) < 1 / (1 + np.exp(-log_odds))
    return is_so


def _choice(shares: Shares, size: int, rng: np.random.Generator) -> np.ndarray:
    """Names by their shares."""
    return rng.choice([name for name, _ in shares], size, p=[share for _, share in shares])


def _draw_index(logits_NK: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One column of each row, by the softmax of its logits."""
    drawn: np.ndarray = (logits_NK + rng.gumbel(size=logits_NK.shape)).argmax(axis=1)
    return drawn
