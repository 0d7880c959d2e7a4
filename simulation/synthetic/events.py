"""Chart and laboratory events of generated stays: when a hospital looks at a course, and what it writes down.

Whether and how often something is measured depends on the patient (the sicker, the more often), on the care unit and
on the hospital, so what is missing informs. Nothing here knows the length of stay, but that events end with it.
Letters in shapes: N stays, T times, D latents, E measurements.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from simulation.synthetic.courses import SHOWN, Array, Pairs, Shown, functions_at, measured, of, written
from simulation.synthetic.process import CCU, CVICU, LATENTS, NSICU, SICU, TSICU, CaseMix
from simulation.synthetic.records import after

CELSIUS_ITEM, CELSIUS_UNIT, CELSIUS_CARE_UNITS = 223762, "°C", (CVICU, NSICU)
ARTERIAL_ITEMS = {"sbp": 220050, "dbp": 220051, "mbp": 220052}
WORDS = {  # what stands in ``value`` for each number from the least on
    "gcs_eye": ("None", "To Pain", "To Speech", "Spontaneously"),
    "gcs_verbal": ("No Response", "Incomprehensible sounds", "Inappropriate Words", "Confused", "Oriented"),
    "gcs_motor": (
        *("No response", "Abnormal extension", "Abnormal Flexion"),
        *("Flex-withdraws", "Localizes Pain", "Obeys Commands"),
    ),
    "rass": (
        *("-5 Unarousable", "-4 Deep sedation", "-3 Moderate sedation", "-2 Light sedation", "-1 Drowsy"),
        *(" 0  Alert and calm", "+1 Restless", "+2 Agitated", "+3 Very agitated", "+4 Combative"),
    ),
}


@dataclass(frozen=True)
class Habit:
    """Concepts that are measured together, and what calls for it.

    The call of a stay is ``loads`` times its latents, plus what its care unit adds. Log-odds of being measured at all
    are ``log_odds`` plus the call; a greater call also shortens the time between two measurements.
    """

    concepts: tuple[str, ...]
    log_odds: float
    loads: Pairs = ()
    care_units: Pairs = ()

    def call_N(self, stays: pl.DataFrame, latents_ND: Array) -> Array:
        """How much each stay calls for it."""
        by_unit = dict(self.care_units)
        call_N = np.array([by_unit.get(unit, 0.0) for unit in stays["careunit"]])
        for name, weight in self.loads:
            call_N += weight * latents_ND[:, LATENTS.index(name)]
        return call_N


ROUNDS = Habit(("heart_rate", "resp_rate", "spo2"), 5.0, of(severity=1.6, shock=1.2))
PRESSURE = ("sbp", "dbp", "mbp")
ARTERIAL = Habit(PRESSURE, -0.7, of(shock=1.0, severity=0.2, respiratory=0.2), ((CVICU, 1.6), (SICU, 0.3), (CCU, 0.2)))
BEDSIDE = (
    Habit(("temperature",), 3.8, of(inflammation=0.5), ((CVICU, 0.5),)),
    Habit(("glucose",), 5.0, of(inflammation=0.5, severity=0.4), ((CVICU, 2.0), (CCU, -0.5))),
    Habit(("gcs_eye", "gcs_verbal", "gcs_motor"), 6.0, of(neuro=0.8), ((NSICU, 4.0), (TSICU, 1.0))),
    Habit(("rass",), 5.0, of(neuro=0.4, respiratory=0.4), ((CVICU, 0.5),)),
    Habit(("fio2",), 0.3, of(respiratory=1.0, shock=0.2, neuro=0.3), ((CVICU, 0.8),)),
    Habit(("height",), 0.2, (), ((CVICU, 1.0),)),
    Habit(("weight",), 2.4),
)
PANELS = (  # what is drawn every 11 h or so; followers after what they follow
    Habit(("sodium", "potassium", "bicarbonate", "anion_gap", "chloride", "bun", "creatinine", "glucose_lab"), 7.0),
    Habit(("hemoglobin", "hematocrit", "platelets", "wbc", "rdw"), 7.0, of(inflammation=0.3)),
    Habit(("calcium", "magnesium", "phosphate"), 3.0, of(renal=0.4, strain=0.3)),
    Habit(("inr", "pt", "ptt"), 2.6, of(liver=0.5, strain=0.3), ((CVICU, 0.8),)),
    Habit(("bilirubin", "alt", "ast", "alp"), 0.3, of(liver=0.8, severity=0.3), ((CVICU, -0.6), (TSICU, -0.3))),
    Habit(("albumin",), -0.5, of(frailty=0.4, liver=0.3, inflammation=0.2)),
    Habit(("troponin_t",), -1.8, of(strain=0.9), ((CCU, 1.5), (CVICU, 0.3))),
    Habit(("ck_mb",), -1.2, of(strain=0.8), ((CCU, 1.5), (CVICU, 0.5))),
    Habit(("nt_probnp",), -2.5, of(strain=0.8), ((CCU, 0.8),)),
    Habit(("crp",), -3.4, of(inflammation=0.8)),
)
GASES = (  # what is drawn every 6 h or so
    Habit(("pco2", "po2", "base_excess", "ph"), 1.2, of(respiratory=1.0, shock=0.7), ((CVICU, 1.5), (TSICU, 0.3))),
    Habit(("lactate",), 1.5, of(shock=0.8, inflammation=0.4, respiratory=0.2), ((CVICU, 1.0),)),
)
DRAWS = ((PANELS, 11.5, 7), (GASES, 6.5, 14))  # what is drawn, mean hours between two draws, most draws of a stay


@dataclass(frozen=True)
class Timing:
    """When rounds and draws are made, and when they are written down; hours since ICU admission, and shares."""

    last_hour: float = 36.0
    round_share: float = 0.97  # of the hourly rounds, at a measuring rate of 1
    extra_share: float = 0.12  # of the half hours between them, when nothing calls for more
    minutes_apart: float = 9.0  # within which a round comes after its time
    closer: float = 0.3  # how much a call shortens the time between two measurements, on the log scale
    own_pace_sd: float = 0.25
    line_laid: tuple[float, float] = (-3.0, 4.0)
    line_share: float = 0.9  # of the pressures once an arterial line lies
    first_draw: tuple[float, float] = (-7.5, 4.5)
    first_draw_beta: tuple[float, float] = (1.6, 2.0)
    draw_spread: tuple[float, float] = (0.6, 1.4)
    least_again: float = 0.2  # share of later draws in which a panel is asked for again when nothing calls for it
    lab_rate_log_odds: float = 2.0
    charted_after: tuple[float, float] = (0.02, 0.5)
    reported_after: tuple[float, float] = (0.3, 2.5)
    artefact_share: float = 0.0005


TIMING = Timing()


@dataclass(frozen=True)
class Occasions:
    """Measurements made, one row each: index of the stay, hours from ICU admission, Phi at these hours."""

    stay_E: NDArray[np.int64]
    hours_E: Array
    functions_EB: Array

    @classmethod
    def at(cls, made_NT: NDArray[np.bool_], hours_NT: Array) -> "Occasions":
        """Those of a stay-by-time table that were made."""
        hours_E = hours_NT[made_NT]
        return cls(np.nonzero(made_NT)[0], hours_E, functions_at(hours_E))


def chart_events(
    stays: pl.DataFrame, latents_ND: Array, courses: Mapping[str, Array], mix: CaseMix, rng: np.random.Generator
) -> pl.DataFrame:
    """Vitals from ICU admission to discharge or 36 h; columns as in MIMIC-IV.

    ``stays`` has the columns of ``records.draw_stays``; ``latents_ND`` and ``courses`` (of ``draw_courses``) belong to
    its rows.
    """
    extra_N = TIMING.extra_share * mix.measuring_rate * np.exp(TIMING.closer * ROUNDS.call_N(stays, latents_ND))
    half_hours_T = np.arange(0, TIMING.last_hour, 0.5)
    hours_NT = half_hours_T + rng.uniform(0, 0.5, (stays.height, 1))
    hours_NT = hours_NT + rng.uniform(0, TIMING.minutes_apart / 60, hours_NT.shape)
    usual = TIMING.round_share * min(mix.measuring_rate, 1.0)
    chance_NT = np.where(half_hours_T % 1 == 0, usual, np.minimum(extra_N, 0.9)[:, None])
    chance_NT[:, 0] = 1.0  # nobody is admitted without a look
    made_NT = (hours_NT < _end_N(stays)[:, None]) & (rng.random(hours_NT.shape) < chance_NT)
    frames = _read_off(ROUNDS.concepts, Occasions.at(made_NT, hours_NT), courses, rng)
    frames += _pressures(stays, latents_ND, made_NT, hours_NT, courses, rng)
    for habit in BEDSIDE:
        due_NT = made_NT & _due(habit, stays, latents_ND, mix, rng)
        frames += _read_off(habit.concepts, Occasions.at(due_NT, hours_NT), courses, rng)
    events = _in_celsius(pl.concat(frames), stays)
    events = events.with_columns(stored=pl.col("hours") + rng.uniform(*TIMING.charted_after, events.height))
    joined = _with_keys(stays, events).with_columns(caregiver_id=pl.lit(None, pl.Int64), warning=pl.lit(0))
    return joined.select(
        "subject_id hadm_id stay_id caregiver_id charttime storetime itemid value valuenum valueuom warning".split()
    )


def lab_events(
    stays: pl.DataFrame,
    latents_ND: Array,
    courses: Mapping[str, Array],
    mix: CaseMix,
    first_id: int,
    rng: np.random.Generator,
) -> pl.DataFrame:
    """Panels and blood gases from up to 8 h before ICU admission (``hadm_id`` empty before hospital admission)."""
    frames = []
    earliest, latest = TIMING.first_draw
    for habits, step_hours, num_draws in DRAWS:
        pace_N = mix.lab_rate * np.exp(TIMING.closer * _mean_call(habits, stays, latents_ND))
        steps_NT = step_hours * rng.uniform(*TIMING.draw_spread, (stays.height, num_draws)) / pace_N[:, None]
        steps_NT[:, 0] = earliest + (latest - earliest) * rng.beta(*TIMING.first_draw_beta, stays.height)
        hours_NT = np.cumsum(steps_NT, axis=1)
        drawn_NT = hours_NT < _end_N(stays)[:, None]
        for habit in habits:
            asked_NT = drawn_NT & _asked(habit, stays, latents_ND, mix, drawn_NT.shape, rng)
            frames += _read_off(habit.concepts, Occasions.at(asked_NT, hours_NT), courses, rng)
    events = pl.concat(frames)
    events = events.with_columns(stored=pl.col("hours") + rng.uniform(*TIMING.reported_after, events.height))
    empty = ["order_provider_id", "ref_range_lower", "ref_range_upper", "flag", "comments"]
    return (
        _with_keys(stays, events)
        .with_columns(
            [pl.lit(None, pl.String).alias(name) for name in empty],
            hadm_id=pl.when(pl.col("charttime") >= pl.col("admittime")).then("hadm_id"),
            labevent_id=first_id + pl.int_range(pl.len()),
            specimen_id=first_id + pl.struct("stay", "charttime").rle_id().cast(pl.Int64),
            priority=pl.lit("STAT"),
        )
        .select(
            "labevent_id subject_id hadm_id specimen_id itemid order_provider_id charttime storetime value valuenum "
            "valueuom ref_range_lower ref_range_upper flag priority comments".split()
        )
    )


def _end_N(stays: pl.DataFrame) -> Array:
    """The hour after which nothing is measured."""
    end_N: Array = np.minimum(stays["los_days"].to_numpy() * 24.0, TIMING.last_hour)
    return end_N


def _due(
    habit: Habit, stays: pl.DataFrame, latents_ND: Array, mix: CaseMix, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """At which of the half hours, shape (N, T), each stay is due: every few hours from admission on, or never."""
    call_N = habit.call_N(stays, latents_ND)
    every_hours = SHOWN[habit.concepts[0]].every_hours
    pace_N = mix.measuring_rate * np.exp(
        TIMING.closer * call_N + TIMING.own_pace_sd * rng.standard_normal(stays.height)
    )
    every_N = (
        np.maximum(np.round(every_hours / pace_N), 1).astype(np.int64)
        if every_hours < TIMING.last_hour
        else every_hours
    )
    steps_T = np.arange(2 * int(TIMING.last_hour))
    is_measured = rng.random(stays.height) < _chance(habit.log_odds + call_N)
    due_NT: NDArray[np.bool_] = is_measured[:, None] & (steps_T % (2 * np.reshape(every_N, (-1, 1))) == 0)
    return due_NT


def _pressures(
    stays: pl.DataFrame,
    latents_ND: Array,
    made_NT: NDArray[np.bool_],
    hours_NT: Array,
    courses: Mapping[str, Array],
    rng: np.random.Generator,
) -> list[pl.DataFrame]:
    """Blood pressures, from the cuff until an arterial line lies, then mostly from the line."""
    has_line = rng.random(stays.height) < _chance(ARTERIAL.log_odds + ARTERIAL.call_N(stays, latents_ND))
    from_N = np.where(has_line, rng.uniform(*TIMING.line_laid, stays.height), np.inf)
    arterial_NT = (hours_NT > from_N[:, None]) & (rng.random(hours_NT.shape) < TIMING.line_share)
    by_cuff = _read_off(PRESSURE, Occasions.at(made_NT & ~arterial_NT, hours_NT), courses, rng)
    by_line = _read_off(PRESSURE, Occasions.at(made_NT & arterial_NT, hours_NT), courses, rng)
    for name, frame in zip(PRESSURE, by_line, strict=True):
        by_cuff.append(frame.with_columns(itemid=pl.lit(ARTERIAL_ITEMS[name])))
    return by_cuff


def _asked(
    habit: Habit,
    stays: pl.DataFrame,
    latents_ND: Array,
    mix: CaseMix,
    shape: tuple[int, ...],
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """In which of its draws a panel is asked for: none, or the first and some of the later ones."""
    odds_N = habit.log_odds + habit.call_N(stays, latents_ND) + TIMING.lab_rate_log_odds * np.log(mix.lab_rate)
    again_N = TIMING.least_again + (1 - TIMING.least_again) * _chance(odds_N)
    asked_NT = rng.random(shape) < again_N[:, None]
    asked_NT[:, 0] = True
    return asked_NT & (rng.random(shape[0]) < _chance(odds_N))[:, None]


def _mean_call(habits: Sequence[Habit], stays: pl.DataFrame, latents_ND: Array) -> Array:
    """What calls for all of these panels together."""
    calls = [habit.call_N(stays, latents_ND) for habit in habits]
    mean_N: Array = np.mean(calls, axis=0)
    return mean_N


def _chance(log_odds: Array) -> Array:
    """The probability of these log-odds."""
    probability: Array = 1 / (1 + np.exp(-log_odds))
    return probability


def _read_off(
    names: Sequence[str], when: Occasions, courses: Mapping[str, Array], rng: np.random.Generator
) -> list[pl.DataFrame]:
    """A table for each concept, measured on the same occasions."""
    sample: dict[str, Array] = {}
    frames = []
    for name in names:
        shown = SHOWN[name]
        sample[name] = measured(shown, courses[name][when.stay_E], when.functions_EB, sample, rng)
        values_E = written(shown, sample[name])
        if shown.artefact:
            values_E = np.where(rng.random(len(values_E)) < TIMING.artefact_share, shown.artefact, values_E)
        frames.append(_frame(shown, when, values_E))
    return frames


def _frame(shown: Shown, when: Occasions, values_E: Array) -> pl.DataFrame:
    """One concept's measurements; the text has the concept's digits, or its words."""
    number = pl.Series("valuenum", values_E)
    text = number.cast(pl.Int64).cast(pl.String) if shown.digits == 0 else number.cast(pl.String)
    if words := WORDS.get(shown.name):
        text = text.replace_strict({str(int(shown.least) + step): word for step, word in enumerate(words)})
    return pl.DataFrame({"stay": when.stay_E, "hours": when.hours_E, "valuenum": number, "value": text}).with_columns(
        pl.lit(shown.item_id).alias("itemid"), pl.lit(shown.unit or None, pl.String).alias("valueuom")
    )


def _in_celsius(events: pl.DataFrame, stays: pl.DataFrame) -> pl.DataFrame:
    """Temperatures in degrees Celsius where the care unit charts them so."""
    rows = np.flatnonzero(stays["careunit"].is_in(CELSIUS_CARE_UNITS).to_numpy())
    is_celsius = (pl.col("itemid") == SHOWN["temperature"].item_id) & pl.col("stay").is_in(rows)
    degrees = ((pl.col("valuenum") - 32) / 1.8).round(1)
    return events.with_columns(
        valuenum=pl.when(is_celsius).then(degrees).otherwise("valuenum"),
        value=pl.when(is_celsius).then(degrees.cast(pl.String)).otherwise("value"),
        itemid=pl.when(is_celsius).then(CELSIUS_ITEM).otherwise("itemid"),
        valueuom=pl.when(is_celsius).then(pl.lit(CELSIUS_UNIT)).otherwise("valueuom"),
    )


def _with_keys(stays: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Give events the keys of their stay, turn hours into times, and order them by stay and time."""
    keys = stays.select("subject_id", "hadm_id", "stay_id", "admittime", "intime")[events["stay"].to_numpy()]
    return (
        pl.concat([events, keys], how="horizontal")
        .with_columns(
            charttime=after("intime", pl.col("hours")).dt.truncate("1m"),
            storetime=after("intime", pl.col("stored")).dt.truncate("1m"),
        )
        .sort("stay", "charttime", "itemid", maintain_order=True)
    )
