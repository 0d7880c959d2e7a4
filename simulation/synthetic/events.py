"""Chart and laboratory events of generated stays: what a bedside shows of the hidden severity.

A concept's value at a stay is ``base + slope * s`` plus a deviation per stay and one per measurement (on the log scale
where ``log``). Sicker stays are measured more. Letters in shapes: N stays, T times.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from simulation.synthetic.records import after

CHART_HOURS = 36.0
ARTEFACT_SHARE = 0.0005


@dataclass(frozen=True)
class Shown:
    """How one concept shows severity: MIMIC item id, unit, location, spread and rounding."""

    name: str
    item_id: int
    unit: str
    base: float
    slope: float
    stay_sd: float
    measurement_sd: float
    digits: int = 0
    every_hours: int = 1
    log: bool = False
    artefact: float = 0.0
    least: float = -np.inf
    most: float = np.inf


VITALS = (
    Shown("heart_rate", 220045, "bpm", 84, 5.5, 13, 6, artefact=999),
    Shown("sbp", 220179, "mmHg", 121, -6, 15, 9, artefact=999),
    Shown("dbp", 220180, "mmHg", 64, -3, 10, 6, artefact=999),
    Shown("mbp", 220181, "mmHg", 79, -4, 11, 7, artefact=999),
    Shown("resp_rate", 220210, "insp/min", 19, 1.4, 3.5, 3, artefact=120),
    Shown("temperature", 223761, "°F", 98.4, 0.2, 0.8, 0.5, digits=1, every_hours=4, artefact=37),
    Shown("spo2", 220277, "%", 97, -0.6, 1.6, 1.3, most=100),
    Shown("glucose", 225664, "mg/dL", 4.88, 0.06, 0.22, 0.15, every_hours=6, log=True, artefact=9999),
    Shown("height", 226730, "cm", 170, 0, 10, 0, every_hours=36),
    Shown("weight", 226512, "kg", 4.38, 0, 0.24, 0, digits=1, every_hours=36, log=True),
    Shown("gcs_eye", 220739, "", 3.6, -0.5, 0.8, 0.4, every_hours=4, least=1, most=4),
    Shown("gcs_verbal", 223900, "", 4.3, -0.8, 1.2, 0.5, every_hours=4, least=1, most=5),
    Shown("gcs_motor", 223901, "", 5.8, -0.5, 0.9, 0.4, every_hours=4, least=1, most=6),
    Shown("fio2", 223835, "", 3.7, 0.1, 0.25, 0.08, every_hours=4, log=True, artefact=10, least=21, most=100),
    Shown("rass", 228096, "", -0.4, -0.5, 1.0, 0.7, every_hours=4, least=-5, most=4),
)

PANELS: dict[str, tuple[Shown, ...]] = {
    "chemistry": (
        Shown("sodium", 50983, "mEq/L", 138.5, -0.4, 4, 1.5),
        Shown("potassium", 50971, "mEq/L", 4.15, 0.12, 0.45, 0.25, digits=1),
        Shown("chloride", 50902, "mEq/L", 104, -0.5, 5, 1.5),
        Shown("bicarbonate", 50882, "mEq/L", 23.5, -1.2, 3.6, 1.5),
        Shown("anion_gap", 50868, "mEq/L", 14, 1.1, 2.8, 1.5),
        Shown("bun", 51006, "mg/dL", 3.05, 0.25, 0.6, 0.1, log=True),
        Shown("creatinine", 50912, "mg/dL", 0.1, 0.2, 0.5, 0.1, digits=1, log=True),
        Shown("glucose_lab", 50931, "mg/dL", 4.88, 0.07, 0.25, 0.15, log=True),
        Shown("calcium", 50893, "mg/dL", 8.4, -0.15, 0.6, 0.3, digits=1),
        Shown("magnesium", 50960, "mg/dL", 2.0, 0.03, 0.25, 0.15, digits=1),
        Shown("phosphate", 50970, "mg/dL", 1.24, 0.09, 0.28, 0.12, digits=1, log=True),
    ),
    "blood count": (
        Shown("hematocrit", 51221, "%", 32.5, -1.2, 5.5, 1.5, digits=1),
        Shown("hemoglobin", 51222, "g/dL", 10.7, -0.4, 1.9, 0.5, digits=1),
        Shown("platelets", 51265, "K/uL", 5.2, -0.1, 0.45, 0.08, log=True),
        Shown("wbc", 51301, "K/uL", 2.35, 0.13, 0.42, 0.12, digits=1, log=True),
        Shown("rdw", 51277, "%", 14.8, 0.5, 1.8, 0.1, digits=1),
    ),
    "coagulation": (
        Shown("inr", 51237, "", 0.27, 0.09, 0.25, 0.07, digits=1, log=True),
        Shown("pt", 51274, "sec", 2.65, 0.09, 0.25, 0.06, digits=1, log=True),
        Shown("ptt", 51275, "sec", 3.5, 0.07, 0.3, 0.12, digits=1, log=True),
    ),
    "liver": (
        Shown("albumin", 50862, "g/dL", 3.2, -0.22, 0.55, 0.15, digits=1),
        Shown("bilirubin", 50885, "mg/dL", -0.2, 0.18, 0.8, 0.12, digits=1, log=True),
        Shown("alt", 50861, "IU/L", 3.5, 0.16, 0.9, 0.15, log=True),
        Shown("ast", 50878, "IU/L", 3.8, 0.2, 0.9, 0.15, log=True),
        Shown("alp", 50863, "IU/L", 4.4, 0.06, 0.45, 0.08, log=True),
    ),
    "heart": (
        Shown("troponin_t", 51003, "ng/mL", -2.5, 0.1, 1.2, 0.2, digits=2, log=True),
        Shown("ck_mb", 50911, "ng/mL", 1.6, 0.1, 1.0, 0.3, log=True, least=1),
        Shown("nt_probnp", 50963, "pg/mL", 7.8, 0.2, 1.3, 0.1, log=True),
    ),
    "inflammation": (Shown("crp", 50889, "mg/L", 3.2, 0.25, 1.2, 0.2, digits=1, log=True),),
    "blood gas": (
        Shown("lactate", 50813, "mmol/L", 0.6, 0.22, 0.42, 0.2, digits=1, log=True),
        Shown("ph", 50820, "units", 7.37, -0.025, 0.06, 0.03, digits=2),
        Shown("pco2", 50818, "mm Hg", 3.71, 0.0, 0.2, 0.1, log=True),
        Shown("po2", 50821, "mm Hg", 4.75, -0.08, 0.4, 0.25, log=True),
        Shown("base_excess", 50802, "mEq/L", -0.8, -1.2, 3.5, 1.5),
    ),
}
PANEL_SHARE = {
    "chemistry": 0.95,
    "blood count": 0.9,
    "coagulation": 0.6,
    "liver": 0.35,
    "heart": 0.3,
    "inflammation": 0.1,
    "blood gas": 0.4,
}


@dataclass(frozen=True)
class Occasions:
    """Measurements made, one row each: index of the stay, hours from ICU admission."""

    stay_N: np.ndarray
    hours_N: np.ndarray


def _values(shown: Shown, severity: np.ndarray, when: Occasions, rng: np.random.Generator) -> np.ndarray:
    """Values of one concept at the given occasions."""
    of_stay = shown.base + shown.slope * severity + shown.stay_sd * rng.standard_normal(len(severity))
    values = of_stay[when.stay_N] + shown.measurement_sd * rng.standard_normal(len(when.stay_N))
    values = np.exp(values) if shown.log else values
    values = np.clip(values, shown.least, shown.most)
    if shown.artefact:
        values = np.where(rng.random(len(values)) < ARTEFACT_SHARE, shown.artefact, values)
    rounded: np.ndarray = np.round(values, shown.digits)
    return rounded


def _frame(shown: Shown, when: Occasions, values: np.ndarray) -> pl.DataFrame:
    """One concept's measurements as a table; the value's text has the concept's digits."""
    number = pl.Series("valuenum", values)
    text = number.cast(pl.Int64).cast(pl.String) if shown.digits == 0 else number.cast(pl.String)
    return pl.DataFrame({"stay": when.stay_N, "hours": when.hours_N, "valuenum": number, "value": text}).with_columns(
        pl.lit(shown.item_id).alias("itemid"), pl.lit(shown.unit).alias("valueuom")
    )


def chart_events(stays: pl.DataFrame, measuring_rate: float, rng: np.random.Generator) -> pl.DataFrame:
    """Vitals from ICU admission to discharge or 36 h, hourly at a measuring rate of 1; columns as in MIMIC-IV."""
    severity, hours_stayed = stays["severity"].to_numpy(), stays["los_days"].to_numpy() * 24.0
    charted = np.minimum(hours_stayed, CHART_HOURS)[:, None]
    seen = np.clip(0.88 * measuring_rate + 0.04 * severity, 0.05, 0.98)[:, None]
    frames = []
    for shown in VITALS:
        grid_T = np.arange(0, CHART_HOURS, shown.every_hours)
        hours_NT = grid_T + 0.1 + 0.8 * rng.random((stays.height, len(grid_T)))
        kept = (hours_NT < charted) & (rng.random(hours_NT.shape) < seen)
        when = Occasions(np.nonzero(kept)[0], hours_NT[kept])
        frames.append(_frame(shown, when, _values(shown, severity, when, rng)))
    events = pl.concat(frames)
    events = events.with_columns(stored=pl.col("hours") + rng.uniform(0.02, 0.5, events.height))
    joined = _join(stays, events).with_columns(caregiver_id=pl.lit(None, pl.Int64), warning=pl.lit(0))
    return joined.sort("stay", "charttime", "itemid").select(
        "subject_id hadm_id stay_id caregiver_id charttime storetime itemid value valuenum valueuom warning".split()
    )


def lab_events(stays: pl.DataFrame, measuring_rate: float, first_id: int, rng: np.random.Generator) -> pl.DataFrame:
    """Panels every 6-12 h from up to 8 h before ICU admission (``hadm_id`` empty before hospital admission)."""
    severity, hours_stayed = stays["severity"].to_numpy(), stays["los_days"].to_numpy() * 24.0
    steps = rng.uniform(6, 12, (stays.height, 6)) / measuring_rate
    steps[:, 0] = rng.uniform(-8, 3, stays.height)
    hours_NT = np.cumsum(steps, axis=1)
    drawn = hours_NT < np.minimum(hours_stayed, CHART_HOURS)[:, None]
    frames = []
    for panel, concepts in PANELS.items():
        ordered = rng.random(stays.height) < 0.35 + 0.6 * PANEL_SHARE[panel] + 0.05 * severity
        done = drawn & ordered[:, None] & (rng.random(drawn.shape) < PANEL_SHARE[panel] + 0.04 * severity[:, None])
        when = Occasions(np.nonzero(done)[0], hours_NT[done])
        frames += [_frame(shown, when, _values(shown, severity, when, rng)) for shown in concepts]
    events = pl.concat(frames)
    events = events.with_columns(stored=pl.col("hours") + rng.uniform(0.3, 2.5, events.height))
    joined = _join(stays, events).sort("stay", "charttime", "itemid")
    empty = ["order_provider_id", "ref_range_lower", "ref_range_upper", "flag", "comments"]
    return joined.with_columns(
        [pl.lit(None, pl.String).alias(name) for name in empty],
        hadm_id=pl.when(pl.col("charttime") >= pl.col("admittime")).then("hadm_id"),
        labevent_id=first_id + pl.int_range(pl.len()),
        specimen_id=first_id + pl.struct("stay", "charttime").rank("dense").cast(pl.Int64),
        priority=pl.lit("STAT"),
    ).select(
        "labevent_id subject_id hadm_id specimen_id itemid order_provider_id charttime storetime value valuenum "
        "valueuom ref_range_lower ref_range_upper flag priority comments".split()
    )


def _join(stays: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Give events the keys of their stay and turn hours into times."""
    keys = stays.select("subject_id", "hadm_id", "stay_id", "admittime", "intime").with_row_index("stay")
    joined = events.with_columns(pl.col("stay").cast(pl.UInt32)).join(
        keys, on="stay", how="left", maintain_order="left"
    )
    return joined.with_columns(
        charttime=after("intime", pl.col("hours")).dt.truncate("1m"),
        storetime=after("intime", pl.col("stored")).dt.truncate("1m"),
    )
