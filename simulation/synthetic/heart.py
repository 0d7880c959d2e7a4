"""What an ECG can show of a stay's hidden state: intervals, axis, block, ST and T, rhythm, and the body's own shape.

Conduction is written into local detail (QRS width, PR interval, axis, bundle-branch block), repolarisation into the
shape of ST and T and the QT interval, rhythm into the whole record (variability, ectopic beats, atrial fibrillation).
Every measure also has a part of the stay's own that no latent explains.
Letters in shapes: N stays, D directions of space (x left, y down, z back), L the eight independent leads.
"""

from dataclasses import dataclass

import numpy as np

NO_BLOCK, RIGHT_BLOCK, LEFT_BLOCK = 0, 1, 2


@dataclass(frozen=True)
class Line:
    """``mean + slope * latent + own_sd * own``, where ``own`` is a standard normal, kept from ``low`` to ``high``."""

    latent: str
    mean: float
    slope: float
    own_sd: float
    low: float = -9.0
    high: float = 9.0


@dataclass(frozen=True)
class HeartModel:
    """All parameters of the hearts. A block or atrial fibrillation is there where its line is above zero.

    Not tied to a latent: the share of low voltage, P amplitude, the focus of ectopic beats and the body's shape.
    """

    qrs_ms: Line = Line("conduction", 92.0, 12.0, 7.0, 64.0, 132.0)
    pr_ms: Line = Line("conduction", 160.0, 14.0, 18.0, 105.0, 320.0)
    axis_degrees: Line = Line("conduction", 28.0, -22.0, 25.0, -100.0, 150.0)
    block: Line = Line("conduction", -1.75, 1.0, 0.5)
    blocked_qrs_ms: Line = Line("conduction", 128.0, 7.0, 8.0, 122.0, 175.0)
    left_block_share: float = 0.45
    blocked_qtc_ms: float = 20.0
    t_scale: Line = Line("repolarisation", 0.85, -0.55, 0.32, -1.5, 2.5)
    st_mv: Line = Line("repolarisation", -0.01, -0.045, 0.035, -0.35, 0.3)
    qtc_ms: Line = Line("repolarisation", 432.0, 16.0, 16.0, 345.0, 590.0)
    log_sdnn_ms: Line = Line("rhythm", 3.3, -0.55, 0.25, 1.4, 4.9)
    ectopic_log_odds: Line = Line("rhythm", -3.8, 1.8, 0.4, -9.0, -0.9)
    fibrillation: Line = Line("rhythm", -1.4, 1.0, 0.35)
    atrial_focus_share: float = 0.25
    ectopic_coupling: tuple[float, float] = (0.55, 0.75)
    focus_turn_degrees: tuple[tuple[float, float, float], ...] = ((0, -27, 59), (0, -30, -54), (0, 44, -153))
    focus_turn_sd: float = 12.0
    low_voltage_share: float = 0.04
    low_voltage: float = 0.45
    log_voltage_sd: float = 0.22
    log_p_sd: float = 0.25
    t_turn_degrees: float = 14.0
    torso_turn_degrees: float = 8.0
    log_limb_gain_sd: float = 0.05
    log_chest_gain_sd: float = 0.12


HEART = HeartModel()


@dataclass(frozen=True)
class Heart:
    """One stay's heart and body: what all its ECGs have in common.

    ``st_mv`` is the ST shift 60 ms after the QRS as V5 sees it, depression negative; ``t_scale`` multiplies a healthy
    T wave, negative where it is inverted; ``voltage`` multiplies P, QRS and T. A beat is ectopic with probability
    ``ectopic_share`` and then comes after the part ``coupling`` of a usual interval, from a direction of its own.
    """

    qrs_ms: float
    pr_ms: float
    axis_degrees: float
    block: int
    t_scale: float
    st_mv: float
    qtc_ms: float
    sdnn_ms: float
    is_af: bool
    ectopic_share: float
    has_atrial_focus: bool
    coupling: float
    focus_turn_degrees_D: np.ndarray
    voltage: float
    p_scale: float
    t_turn_degrees_D: np.ndarray
    torso_turn_degrees_D: np.ndarray
    lead_gain_L: np.ndarray


def draw_hearts(
    conduction_N: np.ndarray, repolarisation_N: np.ndarray, rhythm_N: np.ndarray, rng: np.random.Generator
) -> list[Heart]:
    """Draw the heart of every stay from its three latents."""
    latents = {"conduction": conduction_N, "repolarisation": repolarisation_N, "rhythm": rhythm_N}
    num_stays = len(conduction_N)

    def along(line: Line) -> np.ndarray:
        own_N = rng.standard_normal(num_stays)
        value_N = line.mean + line.slope * latents[line.latent] + line.own_sd * own_N
        return np.asarray(np.clip(value_N, line.low, line.high))

    def spread(sd: float | np.ndarray, *shape: int) -> np.ndarray:
        return np.asarray(sd * rng.standard_normal((num_stays, *shape)))

    has_block = along(HEART.block) > 0
    side = np.where(rng.random(num_stays) < HEART.left_block_share, LEFT_BLOCK, RIGHT_BLOCK)
    is_low = rng.random(num_stays) < HEART.low_voltage_share
    log_gain_sd_L = np.repeat([HEART.log_limb_gain_sd, HEART.log_chest_gain_sd], (2, 6))
    columns = {
        "qrs_ms": np.where(has_block, along(HEART.blocked_qrs_ms), along(HEART.qrs_ms)),
        "pr_ms": along(HEART.pr_ms),
        "axis_degrees": along(HEART.axis_degrees),
        "block": np.where(has_block, side, NO_BLOCK),
        "t_scale": along(HEART.t_scale),
        "st_mv": along(HEART.st_mv),
        "qtc_ms": along(HEART.qtc_ms) + has_block * HEART.blocked_qtc_ms,
        "sdnn_ms": np.exp(along(HEART.log_sdnn_ms)),
        "is_af": along(HEART.fibrillation) > 0,
        "ectopic_share": 1 / (1 + np.exp(-along(HEART.ectopic_log_odds))),
        "has_atrial_focus": rng.random(num_stays) < HEART.atrial_focus_share,
        "coupling": rng.uniform(*HEART.ectopic_coupling, num_stays),
        "focus_turn_degrees_D": rng.choice(HEART.focus_turn_degrees, num_stays) + spread(HEART.focus_turn_sd, 3),
        "voltage": np.where(is_low, HEART.low_voltage, 1.0) * np.exp(spread(HEART.log_voltage_sd)),
        "p_scale": np.exp(spread(HEART.log_p_sd)),
        "t_turn_degrees_D": spread(HEART.t_turn_degrees, 3),
        "torso_turn_degrees_D": spread(HEART.torso_turn_degrees, 3),
        "lead_gain_L": np.exp(spread(log_gain_sd_L, 8)),
    }
    return [Heart(**{name: column[stay] for name, column in columns.items()}) for stay in range(num_stays)]
