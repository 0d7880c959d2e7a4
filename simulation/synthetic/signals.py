"""The electrical signal of a heart in twelve leads: a dipole that moves in space, seen from where the electrodes are.

Each wave of a beat is a direction in space and a bell in time whose two sides may differ. Beats are laid down at the
intervals of the rhythm, and the dipole's path becomes leads by the matrix of Dower (1980), turned and stretched a
little for each body. Lead I and II give the other four limb leads by Einthoven's and Goldberger's rules.
Letters in shapes: S samples, T samples around one beat, B beats, W waves, D directions (x left, y down, z back),
L the eight independent leads.
"""

from dataclasses import dataclass

import numpy as np

from simulation.synthetic.heart import LEFT_BLOCK, RIGHT_BLOCK, Heart

SAMPLING_RATE_HZ = 500
NUM_SAMPLES = 5000
LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")  # the order of MIMIC-IV-ECG
V5 = 6  # among the eight
SECONDS_T = np.arange(-200, 400) / SAMPLING_RATE_HZ  # around the onset of a QRS
TURNS = np.radians(np.arange(0.0, 360.0, 0.5))
DOWER_LD = np.array(  # rows I II V1 V2 V3 V4 V5 V6
    [
        *[(0.632, -0.235, 0.059), (0.235, 1.066, -0.132), (-0.515, 0.157, -0.917), (0.044, 0.164, -1.387)],
        *[(0.882, 0.098, -1.277), (1.213, 0.127, -0.601), (1.125, 0.127, -0.086), (0.831, 0.076, 0.230)],
    ]
)
LIMB_FROM_I_II = np.array([[1, 0], [0, 1], [-1, 1], [-0.5, -0.5], [-0.5, 1], [1, -0.5]], np.float32)


Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Wave:
    """A bell at ``centre``, its width (standard deviation) before and after, and its dipole in mV at the top.

    Times are in units of what the wave is drawn on: the QRS, the QT interval or a second.
    """

    centre: float
    before: float
    after: float
    dipole: Vector


@dataclass(frozen=True)
class Complex:
    """The waves of a QRS, and the T wave that a detour of the QRS adds; a quarter of it begins with the ST segment."""

    qrs: tuple[Wave, ...]
    added_t: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class SignalModel:
    """All parameters of the signal: its waves, and how the rhythm varies."""

    p: tuple[Wave, ...] = (  # seconds from the onset of P
        Wave(0.040, 0.016, 0.018, (0.04, 0.095, -0.06)),
        Wave(0.068, 0.018, 0.017, (0.075, 0.065, 0.055)),
    )
    normal: Complex = Complex(
        (
            Wave(0.17, 0.060, 0.075, (-0.14, -0.05, -0.30)),
            Wave(0.42, 0.100, 0.095, (0.90, 0.66, 0.00)),
            Wave(0.56, 0.085, 0.085, (0.76, 0.36, 0.62)),
            Wave(0.75, 0.090, 0.090, (-0.18, -0.22, 0.50)),
        )
    )
    right_block: Complex = Complex(
        (
            Wave(0.13, 0.048, 0.060, (-0.14, -0.05, -0.30)),
            Wave(0.29, 0.065, 0.065, (0.95, 0.68, 0.00)),
            Wave(0.39, 0.060, 0.070, (0.68, 0.30, 0.36)),
            Wave(0.64, 0.100, 0.090, (-0.30, -0.14, -0.50)),
            Wave(0.82, 0.075, 0.070, (-0.22, -0.10, -0.32)),
        ),
        added_t=(0.05, 0.0, 0.16),
    )
    left_block: Complex = Complex(
        (
            Wave(0.17, 0.065, 0.080, (0.20, 0.08, 0.08)),
            Wave(0.38, 0.100, 0.095, (0.80, 0.42, 0.55)),
            Wave(0.63, 0.120, 0.095, (0.80, 0.28, 0.85)),
            Wave(0.83, 0.065, 0.065, (0.15, 0.0, 0.35)),
        ),
        added_t=(-0.30, -0.11, -0.28),
    )
    ectopic: Complex = Complex(  # before it is turned to the direction of its focus
        (Wave(0.30, 0.12, 0.12, (1.30, 0.10, 0.35)), Wave(0.62, 0.13, 0.14, (0.95, 0.10, -0.35))),
        added_t=(-0.5, 0.0, 0.0),
    )
    ectopic_qrs_ms: float = 150.0
    ectopic_qt_seconds: float = 0.04  # added to the usual
    st: Wave = Wave(0.07, 0.03, 0.06, (0.8, 0.5, -0.1))  # seconds from the end of the QRS
    t: Wave = Wave(0.80, 0.16, 0.10, (0.30, 0.22, -0.17))  # parts of the QT interval
    f_waves_mv: Vector = (-0.015, 0.05, -0.05)
    f_waves_hz: tuple[float, float] = (4.8, 7.2)
    fibrillation_rr_sd: float = 0.2
    breath_hz: tuple[float, float] = (0.2, 0.35)
    breath_size: float = 0.03


SIGNAL = SignalModel()


def draw_signal(heart: Heart, rate_bpm: float, rng: np.random.Generator) -> np.ndarray:
    """What noiseless electrodes record from one heart in ten seconds.

    Shape:
        result: (S, 12) float32, mV, leads in the order of ``LEADS``
    """
    rr_seconds = 60.0 / rate_bpm
    body_DL = _body(heart)
    p_TD, normal_TD, ventricular_TD = _beat(heart, rr_seconds, body_DL)
    usual_TD = normal_TD if heart.is_af else p_TD + normal_TD
    # An early beat of an atrial focus has its own P; one of a ventricular focus has no P and its own QRS.
    early_TD = normal_TD - p_TD if heart.has_atrial_focus else ventricular_TD
    onset_B, is_early_B = _rhythm(heart, rr_seconds, rng)
    size_B = 1 + SIGNAL.breath_size * _breath(onset_B, rng)
    margin = len(SECONDS_T)
    start_B = np.rint(onset_B * SAMPLING_RATE_HZ + SECONDS_T[0] * SAMPLING_RATE_HZ).astype(int) + margin
    dipole_SD = np.zeros((margin + NUM_SAMPLES + margin, 3))
    for start, is_early, size in zip(start_B, is_early_B, size_B, strict=True):
        if 0 <= start < margin + NUM_SAMPLES:
            dipole_SD[start : start + margin] += size * (early_TD if is_early else usual_TD)
    dipole_SD = dipole_SD[margin:-margin]
    if heart.is_af:
        dipole_SD += _f_waves(heart, rng)
    leads_SL = (dipole_SD @ body_DL).astype(np.float32)
    return np.concatenate([leads_SL[:, :2] @ LIMB_FROM_I_II.T, leads_SL[:, 2:]], axis=1)


def _rhythm(heart: Heart, rr_seconds: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """When each QRS begins, in seconds from the start of the record, and which beats come early."""
    num_beats = int(14 / rr_seconds) + 6
    if heart.is_af:
        varied_B = np.maximum(SIGNAL.fibrillation_rr_sd * rng.standard_normal(num_beats), -0.45)
        rr_B = rr_seconds * (1 + varied_B)
    else:  # breathing, the slow waves of the blood pressure and chance; the parts of the variance add up to 1
        seconds_B = np.arange(num_beats) * rr_seconds
        slow_B = np.sin(2 * np.pi * (0.1 * seconds_B + rng.random()))
        chance_B = rng.standard_normal(num_beats)
        varied_B = np.sqrt(0.7) * _breath(seconds_B, rng) + np.sqrt(0.5) * slow_B + np.sqrt(0.4) * chance_B
        rr_B = rr_seconds + min(heart.sdnn_ms / 1000, 0.12 * rr_seconds) * varied_B
    is_early_B = rng.random(num_beats) < heart.ectopic_share
    is_early_B[1:] &= ~is_early_B[:-1]
    is_early_B[0] = False
    if heart.is_af and heart.has_atrial_focus:
        is_early_B[:] = False
    # After a ventricular beat the next one keeps its usual time; after an atrial one the pause is short.
    shortened_B = is_early_B * (1 - heart.coupling) * rr_seconds
    rr_B += (0.15 if heart.has_atrial_focus else 1.0) * np.roll(shortened_B, 1) - shortened_B
    return np.cumsum(rr_B) - rr_seconds * (2 + rng.random()), is_early_B


def _breath(seconds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Breathing as a sine of height 1."""
    return np.asarray(np.sin(2 * np.pi * (rng.uniform(*SIGNAL.breath_hz) * seconds + rng.random())))


def _beat(heart: Heart, rr_seconds: float, body_DL: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P wave, conducted QRS with ST and T, and ventricular beat: each (T, D), around the onset of the QRS."""
    shape = {LEFT_BLOCK: SIGNAL.left_block, RIGHT_BLOCK: SIGNAL.right_block}.get(heart.block, SIGNAL.normal)
    qrs_seconds, ectopic_seconds = heart.qrs_ms / 1000, SIGNAL.ectopic_qrs_ms / 1000
    qt_seconds = heart.qtc_ms / 1000 * np.cbrt(rr_seconds)
    ectopic_qt_seconds = qt_seconds + SIGNAL.ectopic_qt_seconds
    p_TD = heart.p_scale * _path(SIGNAL.p, -heart.pr_ms / 1000, 1.0)
    qrs_TD = _along_axis(_path(shape.qrs, 0.0, qrs_seconds), heart.axis_degrees, body_DL)
    t_D = heart.t_scale * _turn(heart.t_turn_degrees_D) @ SIGNAL.t.dipole
    normal_TD = qrs_TD + _recovery(qrs_seconds, qt_seconds, t_D, shape.added_t)
    ectopic_TD = _path(SIGNAL.ectopic.qrs, 0.0, ectopic_seconds)
    ectopic_TD += _recovery(ectopic_seconds, ectopic_qt_seconds, np.zeros(3), SIGNAL.ectopic.added_t)
    ectopic_TD = ectopic_TD @ _turn(heart.focus_turn_degrees_D).T
    st_D = np.array(SIGNAL.st.dipole)
    st_D *= heart.st_mv / (st_D @ body_DL[:, V5])
    st_TD = np.outer(_bell(SIGNAL.st, qrs_seconds, 1.0), st_D)
    return heart.voltage * p_TD, heart.voltage * normal_TD + st_TD, heart.voltage * ectopic_TD


def _recovery(qrs_seconds: float, qt_seconds: float, t_D: np.ndarray, added_t: Vector) -> np.ndarray:
    """The T wave, with what a detour of the QRS adds to it and to the ST segment before it; (T, D)."""
    st_T, t_T = _bell(SIGNAL.st, qrs_seconds, 1.0), _bell(SIGNAL.t, 0.0, qt_seconds)
    return np.outer(t_T, t_D + added_t) + np.outer(st_T, 0.25 * np.array(added_t))


def _path(waves: tuple[Wave, ...], start_seconds: float, unit_seconds: float) -> np.ndarray:
    """The dipole's path through some waves, (T, D)."""
    bells_TW = np.stack([_bell(wave, start_seconds, unit_seconds) for wave in waves], axis=1)
    return np.asarray(bells_TW @ np.array([wave.dipole for wave in waves]))


def _bell(wave: Wave, start_seconds: float, unit_seconds: float) -> np.ndarray:
    """A wave at unit height, (T,)."""
    away_T = (SECONDS_T - start_seconds) / unit_seconds - wave.centre
    return np.asarray(np.exp(-0.5 * (away_T / np.where(away_T < 0, wave.before, wave.after)) ** 2))


def _along_axis(qrs_TD: np.ndarray, axis_degrees: float, body_DL: np.ndarray) -> np.ndarray:
    """Turn a QRS in the frontal plane to where leads I and aVF show this axis, to half a degree."""
    x, y, z = qrs_TD.sum(axis=0)
    cos, sin = np.cos(TURNS), np.sin(TURNS)
    lead_i, lead_ii = body_DL[:, :2].T @ np.stack([x * cos - y * sin, x * sin + y * cos, np.full(len(TURNS), z)])
    shown = np.arctan2(2 / np.sqrt(3) * (lead_ii - lead_i / 2), lead_i)
    best = np.cos(shown - np.radians(axis_degrees)).argmax()
    return np.asarray(qrs_TD @ _turn((0.0, 0.0, np.degrees(TURNS[best]))).T)


def _body(heart: Heart) -> np.ndarray:
    """What each of the eight leads sees of a dipole in this body, (D, L)."""
    return np.asarray((DOWER_LD @ _turn(heart.torso_turn_degrees_D)).T * heart.lead_gain_L)


def _turn(degrees_D: np.ndarray | Vector) -> np.ndarray:
    """The matrix of turns about x, y and z, one after the other."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians(degrees_D)), np.sin(np.radians(degrees_D))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _f_waves(heart: Heart, rng: np.random.Generator) -> np.ndarray:
    """The flutter of fibrillating atria: two waves that drift apart, each with its overtone; (S, D)."""
    seconds_S = np.arange(NUM_SAMPLES) / SAMPLING_RATE_HZ
    wave_S = np.zeros(NUM_SAMPLES)
    for _ in range(2):
        wander_S = 0.25 * np.sin(2 * np.pi * (rng.uniform(0.2, 0.6) * seconds_S + rng.random()))
        turns_S = 2 * np.pi * (rng.uniform(*SIGNAL.f_waves_hz) * seconds_S + wander_S + rng.random())
        wave_S += 0.5 * (np.sin(turns_S) + 0.35 * np.sin(2 * turns_S))
    return np.outer(wave_S, heart.p_scale * heart.voltage * np.array(SIGNAL.f_waves_mv))
