"""Treatments of generated stays: urine output, vasopressors, ventilation and renal replacement.

A treatment is given where a sum of latents and of the stay's own standard normal deviation passes a threshold. When it
begins and how long it lasts is drawn; it ends with the stay at the latest, and drips and urine are not written beyond
36 h. Only latents of the tables take part, and the length of stay in nothing but where a course is cut.
Letters in shapes: N stays, T hours, E events, G given treatments, S stretches of a drip.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from simulation.synthetic.process import CaseMix
from simulation.synthetic.records import Shares, after, happens, weighted

CHART_HOURS = 36


@dataclass(frozen=True)
class Given:
    """Who is given a treatment and when: ``weights`` of latents plus ``own_sd`` against ``threshold``.

    It begins with the stay for ``at_once`` of those treated, later for the others (exponential, mean
    ``delay_hours``), and lasts a log-normal time (median ``hours``).
    """

    item_id: int
    weights: Shares
    own_sd: float
    threshold: float
    at_once: float
    delay_hours: float
    hours: float
    hours_log_sd: float


@dataclass(frozen=True)
class Drip:
    """A drug given into a vein, in stretches of log-normal length (median ``stretch_hours``) at one rate each.

    The rate is log-normal around ``rate``; from one stretch to the next it makes a random step.
    """

    given: Given
    rate_unit: str
    amount_unit: str
    stretch_hours: float
    rate: float
    rate_weights: Shares = ()
    rate_own_sd: float = 0.0
    rate_step_sd: float = 0.0


@dataclass(frozen=True)
class Urine:
    """Urine output: hourly volume (log-normal), and how often it is written with and without a catheter."""

    hourly_ml: float = 60.0
    weights: Shares = (("renal", -0.4), ("shock", -0.3))
    own_sd: float = 0.4
    hour_sd: float = 0.6
    catheter_log_odds: float = 1.7
    catheter_weights: Shares = (("severity", 0.4),)
    catheter_item_id: int = 226559  # Foley
    void_item_id: int = 226560
    charted_with_catheter: float = 0.75  # per hour
    charted_without: float = 0.22
    rounded_to_ml: int = 5
    stored_minutes: float = 30.0


NOREPINEPHRINE = Given(221906, (("shock", 1.0),), 0.5, 0.88, 0.25, 8.0, 14.0, 0.9)
PHENYLEPHRINE = Given(221749, (("shock", 0.8),), 0.8, 1.15, 0.4, 6.0, 6.0, 0.9)
VASOPRESSIN = Given(222315, (("shock", 1.0),), 0.4, 1.85, 0.1, 8.0, 16.0, 0.7)


@dataclass(frozen=True)
class Treatments:
    """All parameters of the treatments. Shares and sizes: near those of the open MIMIC-IV demo 2.2."""

    urine: Urine = Urine()
    drips: tuple[Drip, ...] = (
        Drip(NOREPINEPHRINE, "mcg/kg/min", "mg", 1.1, 0.08, (("shock", 0.45),), 0.4, 0.25),
        Drip(PHENYLEPHRINE, "mcg/kg/min", "mg", 1.1, 0.8, (("shock", 0.25),), 0.45, 0.2),
        Drip(VASOPRESSIN, "units/hour", "units", 15.0, 2.4),
    )
    most_stretches: int = 32
    stretch_log_sd: float = 0.8
    ventilation: Given = Given(225792, (("respiratory", 0.9), ("neuro", 0.5)), 0.5, 0.62, 0.4, 6.0, 32.0, 1.1)
    replacement: Given = Given(225802, (("renal", 1.0),), 0.3, 1.85, 0.1, 16.0, 25.0, 0.5)
    continuous_above_shock: float = 0.5  # below it, dialysis
    dialysis_item_id: int = 225441
    dialysis_of_continuous: float = 0.15  # of the hours


TREATMENTS = Treatments()


def output_events(stays: pl.DataFrame, latents_ND: np.ndarray, mix: CaseMix, rng: np.random.Generator) -> pl.DataFrame:
    """``icu/outputevents``: urine from ICU admission to discharge or 36 h. A row holds what came since the last one.

    Shape:
        stays: N rows of ``records.draw_stays``; latents_ND: the same N rows
    """
    urine, num_stays = TREATMENTS.urine, stays.height
    level_N = weighted(urine.weights, latents_ND) + urine.own_sd * rng.standard_normal(num_stays)
    ml_NT = urine.hourly_ml * np.exp(level_N[:, None] + urine.hour_sd * rng.standard_normal((num_stays, CHART_HOURS)))
    has_catheter_N = happens(urine.catheter_log_odds, urine.catheter_weights, latents_ND, rng)
    charted_N = np.where(has_catheter_N, urine.charted_with_catheter, urine.charted_without) * mix.measuring_rate
    is_written_NT = rng.random(ml_NT.shape) < np.clip(charted_N, 0, 0.98)[:, None]
    total_NT = np.cumsum(ml_NT, axis=1)
    written_NT = np.maximum.accumulate(np.where(is_written_NT, total_NT, 0.0), axis=1)
    since_NT = total_NT - np.pad(written_NT, ((0, 0), (1, 0)))[:, :-1]
    stay_E, hour_E = np.nonzero(is_written_NT)
    drawn = {
        "itemid": np.where(has_catheter_N, urine.catheter_item_id, urine.void_item_id)[stay_E],
        "value": np.round(since_NT[is_written_NT] / urine.rounded_to_ml) * urine.rounded_to_ml,
        "hour": hour_E + 1.0,
        "stored": rng.exponential(urine.stored_minutes, len(stay_E)),
    }
    return (
        _rows_of(stays, stay_E)
        .hstack(pl.DataFrame(drawn))
        .with_columns(charttime=after("intime", pl.col("hour")).dt.truncate("1h"), valueuom=pl.lit("ml"))
        .filter(pl.col("charttime") <= pl.col("outtime"))
        .with_columns(storetime=after("charttime", pl.col("stored") / 60).dt.truncate("1m"))
        .select("subject_id hadm_id stay_id caregiver_id charttime storetime itemid value valueuom".split())
    )


def input_events(
    stays: pl.DataFrame, latents_ND: np.ndarray, weight_kg_N: np.ndarray, rng: np.random.Generator
) -> pl.DataFrame:
    """``icu/inputevents``: vasopressors, a row for each stretch at one rate.

    Shape:
        stays: N rows of ``records.draw_stays``; latents_ND, weight_kg_N: the same N rows
    """
    stretches = pl.concat([_drip(stays, latents_ND, drip, rng) for drip in TREATMENTS.drips])
    hours = (pl.col("endtime") - pl.col("starttime")).dt.total_seconds() / 3600
    mg = pl.col("rate") * pl.col("patientweight") * hours * 60 / 1000
    return (
        _with_orders(stretches, weight_kg_N)
        .with_columns(
            amount=pl.when(pl.col("amountuom") == "mg").then(mg).otherwise(pl.col("rate") * hours).round(4),
            storetime=after("starttime", pl.lit(0.15)),
            ordercategoryname=pl.lit("01-Drips"),
            secondaryordercategoryname=pl.lit("02-Fluids (Crystalloids)"),
            ordercomponenttypedescription=pl.lit("Main order parameter"),
            ordercategorydescription=pl.lit("Continuous Med"),
            totalamount=pl.lit(250),
            totalamountuom=pl.lit("ml"),
            isopenbag=pl.lit(0),
            linkorderid=pl.col("orderid").first().over("stay_id", "itemid"),
            statusdescription=pl.when(pl.col("endtime") == pl.col("endtime").max().over("stay_id", "itemid"))
            .then(pl.lit("FinishedRunning"))
            .otherwise(pl.lit("ChangeDose/Rate")),
        )
        .with_columns(originalamount="amount", originalrate="rate")
        .select(
            "subject_id hadm_id stay_id caregiver_id starttime endtime storetime itemid amount amountuom rate rateuom "
            "orderid linkorderid ordercategoryname secondaryordercategoryname ordercomponenttypedescription "
            "ordercategorydescription patientweight totalamount totalamountuom isopenbag continueinnextdept "
            "statusdescription originalamount originalrate".split()
        )
    )


def procedure_events(
    stays: pl.DataFrame, latents_ND: np.ndarray, weight_kg_N: np.ndarray, rng: np.random.Generator
) -> pl.DataFrame:
    """``icu/procedureevents``: invasive ventilation, continuous renal replacement or dialysis.

    Shape:
        stays: N rows of ``records.draw_stays``; latents_ND, weight_kg_N: the same N rows
    """
    air_G, begin_G, hours_G = _given(TREATMENTS.ventilation, latents_ND, rng)
    ventilation = {"itemid": np.full(len(air_G), TREATMENTS.ventilation.item_id), "begin": begin_G, "hours": hours_G}
    renal_G, begin_G, hours_G = _given(TREATMENTS.replacement, latents_ND, rng)
    goes_on_G = weighted((("shock", 1.0),), latents_ND)[renal_G] > TREATMENTS.continuous_above_shock
    replacement = {
        "itemid": np.where(goes_on_G, TREATMENTS.replacement.item_id, TREATMENTS.dialysis_item_id),
        "begin": begin_G,
        "hours": np.where(goes_on_G, hours_G, hours_G * TREATMENTS.dialysis_of_continuous),
    }
    stretches = pl.concat([_stretches(stays, air_G, ventilation), _stretches(stays, renal_G, replacement)])
    is_air = pl.col("itemid") == TREATMENTS.ventilation.item_id
    return (
        _with_orders(stretches, weight_kg_N)
        .with_columns(
            value=(pl.col("endtime") - pl.col("starttime")).dt.total_minutes(),
            valueuom=pl.lit("min"),
            storetime=after("endtime", pl.lit(0.15)),
            location=pl.lit(None, pl.String),
            locationcategory=pl.lit(None, pl.String),
            ordercategoryname=pl.when(is_air).then(pl.lit("Ventilation")).otherwise(pl.lit("Dialysis")),
            ordercategorydescription=pl.lit("ContinuousProcess"),
            isopenbag=pl.lit(1),
            statusdescription=pl.lit("FinishedRunning"),
            ORIGINALRATE=pl.lit(1),
        )
        .with_columns(linkorderid="orderid", ORIGINALAMOUNT="value")
        .select(
            "subject_id hadm_id stay_id caregiver_id starttime endtime storetime itemid value valueuom location "
            "locationcategory orderid linkorderid ordercategoryname ordercategorydescription patientweight isopenbag "
            "continueinnextdept statusdescription ORIGINALAMOUNT ORIGINALRATE".split()
        )
    )


def _given(given: Given, latents_ND: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which stays get a treatment (rows), hours from ICU admission to its beginning, and how long it lasts."""
    num_stays = len(latents_ND)
    score_N = weighted(given.weights, latents_ND) + given.own_sd * rng.standard_normal(num_stays)
    delay_N = np.where(rng.random(num_stays) < given.at_once, 0.0, rng.exponential(given.delay_hours, num_stays))
    hours_N = given.hours * np.exp(given.hours_log_sd * rng.standard_normal(num_stays))
    stay_G = np.flatnonzero(score_N > given.threshold)
    return stay_G, delay_N[stay_G], hours_N[stay_G]


def _drip(stays: pl.DataFrame, latents_ND: np.ndarray, drip: Drip, rng: np.random.Generator) -> pl.DataFrame:
    """The stretches of one drug, one after the other, each at the rate of the last one and a random step."""
    stay_G, begin_G, hours_G = _given(drip.given, latents_ND, rng)
    shape = (len(stay_G), TREATMENTS.most_stretches)
    length_GS = drip.stretch_hours * np.exp(TREATMENTS.stretch_log_sd * rng.standard_normal(shape))
    until_GS = np.cumsum(length_GS, axis=1)
    over_G = np.minimum(hours_G, CHART_HOURS - begin_G)[:, None]
    since_GS = until_GS - length_GS
    level_G = drip.rate_own_sd * rng.standard_normal(len(stay_G)) + weighted(drip.rate_weights, latents_ND)[stay_G]
    rate_GS = drip.rate * np.exp(level_G[:, None] + drip.rate_step_sd * np.cumsum(rng.standard_normal(shape), axis=1))
    is_one_GS = since_GS < over_G
    columns = {
        "itemid": np.full(is_one_GS.sum(), drip.given.item_id),
        "begin": (begin_G[:, None] + since_GS)[is_one_GS],
        "hours": (np.minimum(until_GS, over_G) - since_GS)[is_one_GS],
        "rate": np.round(rate_GS[is_one_GS], 4),
    }
    return _stretches(stays, stay_G[np.nonzero(is_one_GS)[0]], columns).with_columns(
        rateuom=pl.lit(drip.rate_unit), amountuom=pl.lit(drip.amount_unit)
    )


def _stretches(stays: pl.DataFrame, stay_G: np.ndarray, columns: dict[str, np.ndarray]) -> pl.DataFrame:
    """Treatments with their times, cut at discharge; what would begin or end there within a minute is left out."""
    return (
        _rows_of(stays, stay_G)
        .hstack(pl.DataFrame(columns))
        .with_columns(starttime=after("intime", pl.col("begin")).dt.truncate("1m").clip(lower_bound=pl.col("intime")))
        .with_columns(endtime=pl.min_horizontal(after("intime", pl.col("begin") + pl.col("hours")), "outtime"))
        .with_columns(pl.col("endtime").dt.truncate("1m"))
        .filter(pl.col("starttime") < pl.col("endtime"))
        .drop("begin", "hours")
    )


def _with_orders(stretches: pl.DataFrame, weight_kg_N: np.ndarray) -> pl.DataFrame:
    """Stretches by stay and time, with order numbers that no other stay has, and the weight that they were dosed by."""
    weight = pl.Series("patientweight", np.round(weight_kg_N, 1)).gather(stretches["stay"])
    ordered = stretches.with_columns(weight).sort("stay", "starttime", "itemid", maintain_order=True)
    return ordered.with_columns(
        orderid=(pl.col("stay_id") % 10_000_000) * 100 + pl.int_range(pl.len()).over("stay"),
        continueinnextdept=pl.lit(0),
    )


def _rows_of(stays: pl.DataFrame, stay_E: np.ndarray) -> pl.DataFrame:
    """Keys and times of the stays in these rows, one row for each."""
    keys = stays.select("subject_id", "hadm_id", "stay_id", "intime", "outtime")[stay_E]
    return keys.with_columns(pl.Series("stay", stay_E), caregiver_id=pl.lit(None, pl.Int64))
