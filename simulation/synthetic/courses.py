"""The courses of vitals and laboratory values: what a chart shows of a stay's latents, hour by hour.

On its working scale (the logarithm where ``log``) the value of a concept, t hours after ICU admission, is

    value(t) = base + Phi(t) . (A z + own) + measurement_sd e,    own_b ~ N(0, tau_b^2),  e standard normal

with the stay's latents z and eight functions of time Phi: the level, three forms of a course (a trend over the day, an
answer to treatment around hour 8, a relapse from hour 20) and the waves of the day and of ten hours. Latents move the
level by ``loads``; how far those named trend, response and relapse move a concept is its ``course``. Everything before
clipping and rounding is linear and normal, so it can be measured back exactly (``posterior``). Two concepts correlate
through shared latents, through ``kin`` (a part of own that they share) or because one follows from others of the same
sample. Centres and spreads are near those of the first days of the open MIMIC-IV demo.
Letters in shapes: N stays, D latents, B functions of time, E measurements.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulation.synthetic.process import LATENTS

Array = NDArray[np.float64]

COURSE_LATENTS = (("trend", 1.0), ("response", -1.0), ("relapse", 1.0))  # rows 1, 2, 3 of A; response is improvement
COURSE_HOURS = ((12.0, 12.0), (8.0, 3.0), (20.0, 2.0))  # where each form begins (relapse) or is centred, and its width
WAVE_HOURS = (24.0, 10.0)
NUM_FUNCTIONS = 1 + len(COURSE_LATENTS) + 2 * len(WAVE_HOURS)

Pairs = tuple[tuple[str, float], ...]


def of(**weights: float) -> Pairs:
    """Names and weights as a tuple.

    Example:
        >>> of(shock=-8.0, strain=2.0)
        (('shock', -8.0), ('strain', 2.0))
    """
    return tuple(weights.items())


@dataclass(frozen=True)
class Shown:
    """How one concept is shown: MIMIC item id and unit, centre, what moves it, spread and rounding.

    ``loads`` are per unit of a latent, ``course`` per unit of trend, response and relapse. ``own_sd`` is the stay's own
    level, ``wander_sd`` its own course; concepts of one ``kin`` share the part ``kin_share`` of both. A concept that
    ``follows`` others of the same sample is the weighted sum of their measured values, plus its own part.
    ``every_hours`` is how often a bedside measures it; ``artefact`` a typing error that some values are replaced by.
    """

    name: str
    item_id: int
    unit: str
    base: float
    own_sd: float
    wander_sd: float
    measurement_sd: float
    loads: Pairs = ()
    course: float = 0.0
    kin: str = ""
    kin_share: float = 0.0
    follows: Pairs = ()
    digits: int = 0
    every_hours: int = 1
    log: bool = False
    artefact: float = 0.0
    least: float = -np.inf
    most: float = np.inf

    @property
    def slopes_BD(self) -> Array:
        """What the latents do to the coefficients of the functions of time: the matrix A."""
        slopes_BD = np.zeros((NUM_FUNCTIONS, len(LATENTS)))
        for name, slope in self.loads:
            slopes_BD[0, LATENTS.index(name)] = slope
        for row, (name, sign) in enumerate(COURSE_LATENTS, start=1):
            slopes_BD[row, LATENTS.index(name)] = sign * self.course
        return slopes_BD

    @property
    def own_sd_B(self) -> Array:
        """Standard deviations of the stay's own coefficients."""
        return np.array([self.own_sd] + [self.wander_sd] * (NUM_FUNCTIONS - 1))


VITALS = (
    Shown("heart_rate", 220045, "bpm", 89, 7.5, 3.7, 4.5, artefact=999, least=25, most=220, course=4.5,
          loads=of(rate=10.5, severity=2, shock=2.5, inflammation=2)),
    Shown("sbp", 220179, "mmHg", 112, 9, 5.5, 9.5, artefact=999, least=40, most=250, course=-5, kin="pressure",
          kin_share=0.7, loads=of(shock=-9, strain=-3, frailty=2, severity=-1)),
    Shown("dbp", 220180, "mmHg", 61, 6, 3.6, 7, artefact=999, least=20, most=150, course=-3, kin="pressure",
          kin_share=0.7, loads=of(shock=-4.5, strain=2, frailty=-1.5)),
    Shown("mbp", 220181, "mmHg", -2.8, 2, 0, 3.5, artefact=999, least=25, most=190,
          follows=(("sbp", 1 / 3), ("dbp", 2 / 3))),
    Shown("resp_rate", 220210, "insp/min", 19.4, 2.3, 1.2, 3.0, artefact=120, least=4, most=60, course=1.3,
          loads=of(respiratory=2.1, severity=0.4, rate=0.3, neuro=-0.3)),
    Shown("temperature", 223761, "°F", 98.3, 0.55, 0.22, 0.3, digits=1, every_hours=4, artefact=37, least=90, most=108,
          course=0.25, loads=of(inflammation=0.55, rate=0.12, frailty=-0.1)),
    Shown("spo2", 220277, "%", 97.6, 1.2, 0.6, 1.6, least=60, most=100, course=-0.6,
          loads=of(respiratory=-1.15, strain=-0.3, shock=-0.2)),
    Shown("glucose", 225664, "mg/dL", 4.92, 0.25, 0.09, 0.11, every_hours=5, log=True, artefact=9999, least=20,
          course=0.06, kin="glucose", kin_share=0.9, loads=of(inflammation=0.1, severity=0.08, frailty=0.04)),
    Shown("height", 226730, "cm", 171, 10, 0, 0, every_hours=48, least=125, most=225),
    Shown("weight", 226512, "kg", 4.36, 0.25, 0, 0, digits=1, every_hours=48, log=True, least=30, most=300),
    Shown("gcs_eye", 220739, "", 3.7, 0.6, 0.25, 0.3, every_hours=4, least=1, most=4, course=-0.3, kin="awake",
          kin_share=0.6, loads=of(neuro=-0.85, respiratory=-0.15, severity=-0.1)),
    Shown("gcs_verbal", 223900, "", 4.3, 1.9, 0.4, 0.5, every_hours=4, least=1, most=5, course=-0.5, kin="awake",
          kin_share=0.6, loads=of(neuro=-2.1, respiratory=-0.8, severity=-0.3)),
    Shown("gcs_motor", 223901, "", 6.5, 1.0, 0.25, 0.4, every_hours=4, least=1, most=6, course=-0.3, kin="awake",
          kin_share=0.6, loads=of(neuro=-1.1, severity=-0.1)),
    Shown("fio2", 223835, "", 3.9, 0.16, 0.13, 0.2, every_hours=4, log=True, artefact=10, least=21, most=100,
          course=0.09, loads=of(respiratory=0.2, strain=0.03)),
    Shown("rass", 228096, "", -0.4, 0.9, 0.4, 0.6, every_hours=4, least=-5, most=4, course=-0.35, kin="awake",
          kin_share=0.5, loads=of(neuro=-0.85, respiratory=-0.25, severity=-0.1)),
)  # fmt: skip

LABS = (
    Shown("sodium", 50983, "mEq/L", 138, 3.8, 0.7, 1.2, loads=of(frailty=-0.8, liver=-0.8, renal=-0.6, neuro=0.5)),
    Shown("potassium", 50971, "mEq/L", 4.1, 0.36, 0.15, 0.26, digits=1, least=1.5, course=0.06,
          loads=of(renal=0.26, strain=0.14)),
    # The anion gap is the sum of what is left: sodium + potassium - chloride - bicarbonate.
    Shown("chloride", 50902, "mEq/L", 0, 0, 0, 0.9,
          follows=of(sodium=1, potassium=1, bicarbonate=-1, anion_gap=-1)),
    Shown("bicarbonate", 50882, "mEq/L", 22.9, 2.6, 0.6, 0.9, least=4, most=49, course=-0.6, kin="buffer",
          kin_share=0.7, loads=of(shock=-1.4, renal=-1.0, liver=-0.3, respiratory=0.4)),
    Shown("anion_gap", 50868, "mEq/L", 15, 2.4, 0.8, 1.4, least=1, most=49, course=0.6, kin="buffer", kin_share=-0.4,
          loads=of(shock=1.2, renal=1.3, severity=0.5)),
    Shown("bun", 51006, "mg/dL", 2.95, 0.38, 0.04, 0.06, log=True, least=2, course=0.03,
          loads=of(renal=0.42, frailty=0.14, severity=0.03)),
    Shown("creatinine", 50912, "mg/dL", -0.05, 0.40, 0.05, 0.06, digits=1, log=True, least=0.2, course=0.05,
          loads=of(renal=0.55, shock=0.08, frailty=0.06)),
    Shown("glucose_lab", 50931, "mg/dL", 4.92, 0.25, 0.09, 0.12, log=True, least=20, course=0.06, kin="glucose",
          kin_share=0.9, loads=of(inflammation=0.1, severity=0.08, frailty=0.04)),
    Shown("calcium", 50893, "mg/dL", 8.3, 0.5, 0.12, 0.25, digits=1, least=4,
          loads=of(inflammation=-0.22, frailty=-0.12, shock=-0.12)),
    Shown("magnesium", 50960, "mg/dL", 2.0, 0.22, 0.07, 0.12, digits=1, least=0.7, loads=of(strain=0.13, renal=0.08)),
    Shown("phosphate", 50970, "mg/dL", 1.28, 0.24, 0.06, 0.1, digits=1, log=True, least=0.5, course=0.03,
          loads=of(renal=0.18, shock=0.05)),
    Shown("hematocrit", 51221, "%", 0.9, 0.6, 0, 0.7, digits=1, follows=of(hemoglobin=2.95)),
    Shown("hemoglobin", 51222, "g/dL", 10.6, 1.35, 0.35, 0.4, digits=1, least=3, course=-0.2,
          loads=of(frailty=-1.0, inflammation=-0.35, strain=-0.2)),
    Shown("platelets", 51265, "K/uL", 5.21, 0.38, 0.06, 0.07, log=True, least=5,
          loads=of(liver=-0.2, inflammation=0.08, severity=-0.06)),
    Shown("wbc", 51301, "K/uL", 2.42, 0.3, 0.07, 0.1, digits=1, log=True, least=0.2, course=0.07,
          loads=of(inflammation=0.3, severity=0.05)),
    Shown("rdw", 51277, "%", 14.5, 1.2, 0.08, 0.15, digits=1, least=11, loads=of(frailty=1.1, liver=0.35, strain=0.25)),
    Shown("inr", 51237, "", 0.22, 0.17, 0.03, 0.05, digits=1, log=True, least=0.8, course=0.03,
          loads=of(liver=0.16, shock=0.03, frailty=0.03)),
    Shown("pt", 51274, "sec", 2.4, 0.03, 0, 0.03, digits=1, log=True, least=8, follows=of(inr=0.95)),
    Shown("ptt", 51275, "sec", 3.4, 0.2, 0.06, 0.08, digits=1, log=True, least=18, most=150,
          loads=of(strain=0.17, liver=0.09)),
    Shown("bilirubin", 50885, "mg/dL", -0.75, 0.65, 0.06, 0.1, digits=1, log=True, least=0.1,
          loads=of(liver=0.72, inflammation=0.1)),
    Shown("alt", 50861, "IU/L", 3.2, 0.9, 0.1, 0.1, log=True, least=3, kin="transaminases", kin_share=0.85,
          loads=of(liver=0.75, shock=0.15)),
    Shown("ast", 50878, "IU/L", 3.45, 0.9, 0.1, 0.1, log=True, least=4, kin="transaminases", kin_share=0.85,
          loads=of(liver=0.7, shock=0.25, strain=0.15)),
    Shown("alp", 50863, "IU/L", 4.37, 0.42, 0.04, 0.06, log=True, least=15, loads=of(liver=0.28)),
    Shown("albumin", 50862, "g/dL", 3.3, 0.48, 0.08, 0.12, digits=1, least=1,
          loads=of(frailty=-0.3, inflammation=-0.25, liver=-0.15)),
    Shown("lactate", 50813, "mmol/L", 0.62, 0.32, 0.11, 0.13, digits=1, log=True, least=0.4, course=0.15,
          loads=of(shock=0.32, liver=0.08, severity=0.08)),
    # Henderson and Hasselbalch, with the van Slyke equation for the base excess, linear about 7.40, 0 and 40 mm Hg.
    Shown("ph", 50820, "units", 8.67, 0, 0, 0.012, digits=2, least=6.85, most=7.75,
          follows=of(base_excess=0.0151, pco2=-0.344)),
    Shown("pco2", 50818, "mm Hg", 3.7, 0.14, 0.06, 0.08, log=True, least=15, most=140, course=0.05,
          loads=of(respiratory=0.12, shock=-0.05, neuro=-0.02)),
    Shown("po2", 50821, "mm Hg", 4.9, 0.3, 0.2, 0.28, log=True, least=41, most=550, course=-0.12,
          loads=of(respiratory=-0.3)),
    Shown("base_excess", 50802, "mEq/L", -0.4, 2.6, 0.7, 1.0, least=-24, most=24, course=-0.9, kin="buffer",
          kin_share=0.7, loads=of(shock=-1.8, renal=-1.0, respiratory=0.4)),
    Shown("troponin_t", 51003, "ng/mL", -3.8, 0.9, 0.15, 0.12, digits=2, log=True, least=0.01, kin="cardiac",
          kin_share=0.5, loads=of(strain=1.1, shock=0.15, renal=0.15)),
    Shown("ck_mb", 50911, "ng/mL", 1.0, 0.85, 0.12, 0.1, log=True, least=1, kin="cardiac", kin_share=0.5,
          loads=of(strain=0.85, shock=0.15)),
    Shown("nt_probnp", 50963, "pg/mL", 8.6, 0.9, 0.05, 0.06, log=True, least=5, most=70_000,
          loads=of(strain=1.1, frailty=0.25, renal=0.2)),
    Shown("crp", 50889, "mg/L", 3.5, 0.8, 0.1, 0.06, digits=1, log=True, least=0.1, most=450,
          loads=of(inflammation=1.0)),
)  # fmt: skip

SHOWN = {shown.name: shown for shown in (*VITALS, *LABS)}


def functions_at(hours: Array) -> Array:
    """Phi(t): level, trend, response, relapse, and cosine and sine of 24 h and of 10 h.

    Shape:
        hours since ICU admission (...), result (..., B)
    """
    trend, response, relapse = ((hours - start) / length for start, length in COURSE_HOURS)
    angles = [2 * np.pi * hours / period for period in WAVE_HOURS]
    functions = [np.ones_like(hours), np.clip(trend, -1, 1), np.exp(-(response**2) / 2), np.clip(relapse, 0, 1)]
    functions += [wave(angle) for angle in angles for wave in (np.cos, np.sin)]
    return np.stack(functions, axis=-1)


def draw_coefficients(name: str, latents_ND: Array, rng: np.random.Generator, kin_NB: Array | None = None) -> Array:
    """The coefficients A z + own of one concept in N stays, shape (N, B); ``kin_NB`` is what its kin share."""
    shown = SHOWN[name]
    own_NB = rng.standard_normal((len(latents_ND), NUM_FUNCTIONS))
    if kin_NB is not None:
        own_NB = shown.kin_share * kin_NB + np.sqrt(1 - shown.kin_share**2) * own_NB
    return latents_ND @ shown.slopes_BD.T + shown.own_sd_B * own_NB


def draw_courses(latents_ND: Array, heart_rate_NB: Array, rng: np.random.Generator) -> dict[str, Array]:
    """The coefficients of every concept in N stays, each (N, B); the heart rate's are given: the ECG shows them too."""
    shared = {kin: rng.standard_normal((len(latents_ND), NUM_FUNCTIONS)) for kin in _kins()}
    others = [name for name in SHOWN if name != "heart_rate"]
    drawn = {name: draw_coefficients(name, latents_ND, rng, shared.get(SHOWN[name].kin)) for name in others}
    return {"heart_rate": heart_rate_NB} | drawn


def _kins() -> list[str]:
    """The names of all kin, in the order of the table."""
    return list(dict.fromkeys(shown.kin for shown in SHOWN.values() if shown.kin))


def heart_rate_at(coefficients_NB: Array, hours: Array) -> Array:
    """The heart rate in beats per minute at the given hours, without the error of a measurement.

    Shape:
        coefficients (N, B) with hours (N,), or (N, 1, B) with (N, T); result as hours
    """
    shown = SHOWN["heart_rate"]
    rate: Array = shown.base + (functions_at(hours) * coefficients_NB).sum(axis=-1)
    return np.clip(rate, shown.least, shown.most)


def measured(
    shown: Shown, coefficients_EB: Array, functions_EB: Array, sample: Mapping[str, Array], rng: np.random.Generator
) -> Array:
    """Measured values of a concept on its working scale, shape (E,); ``sample`` holds those that it may follow."""
    values_E: Array = shown.base + (coefficients_EB * functions_EB).sum(axis=-1)
    for name, weight in shown.follows:
        values_E += weight * sample[name]
    return values_E + shown.measurement_sd * rng.standard_normal(len(values_E))


def written(shown: Shown, values_E: Array) -> Array:
    """Values as they are written: back from the working scale, within what can be, rounded."""
    natural = np.exp(values_E) if shown.log else values_E
    rounded: Array = np.round(np.clip(natural, shown.least, shown.most), shown.digits)
    return rounded
