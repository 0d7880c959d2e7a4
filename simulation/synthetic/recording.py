"""From a heart's signal to a record on disk: noise of electrodes and muscle, defects, and the files of WFDB.

Noise arises at nine electrodes, and leads are differences of electrodes: so it obeys the same rules as the signal, and
an electrode that comes loose spoils every lead that it has a part in.
Letters in shapes: S samples, L twelve leads, E electrodes (right arm, left arm, left leg, V1 to V6).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulation.synthetic.heart import Heart
from simulation.synthetic.signals import LEADS, LIMB_FROM_I_II, NUM_SAMPLES, SAMPLING_RATE_HZ, draw_signal

GAIN_PER_MV = 200.0
NUM_ELECTRODES = 9
LIMB_FROM_ARMS_LEG = LIMB_FROM_I_II @ np.array([[-1, 1, 0], [-1, 0, 1]], np.float32)
LEADS_FROM_ELECTRODES_LE = np.block(
    [[LIMB_FROM_ARMS_LEG, np.zeros((6, 6))], [np.full((6, 3), -1 / 3), np.eye(6)]]  # chest against the limbs' mean
).astype(np.float32)
NOT_RECORDED = np.iinfo(np.int16).min  # the format's own mark of a sample that is missing


@dataclass(frozen=True)
class RecordingModel:
    """All parameters of a recording: sizes of noise in mV at an electrode, and the shares of records with a defect."""

    wander_mv: float = 0.035
    muscle_mv: float = 0.010
    mains_mv: float = 0.006
    mains_hz: float = 60.0
    log_record_sd: float = 0.6
    log_electrode_sd: float = 0.4
    mains_share: float = 0.25
    loose_share: float = 0.02
    loose_mv: float = 0.6
    swapped_arms_share: float = 0.01
    flat_share: float = 0.01
    gap_share: float = 0.02
    gap_samples: tuple[int, int] = (50, 400)


RECORDING = RecordingModel()


def draw_ecg(heart: Heart, rate_bpm: float, rng: np.random.Generator) -> np.ndarray:
    """One recorded ECG of a heart at this rate: (S, L) int16 in ADC units."""
    return record(draw_signal(heart, rate_bpm, rng), rng)


def record(signal_SL: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add noise and, rarely, a defect to a signal in mV; (S, L) int16 in ADC units."""
    noisy_SL = signal_SL + _noise(rng) @ LEADS_FROM_ELECTRODES_LE.T
    if rng.random() < RECORDING.swapped_arms_share:
        noisy_SL = swap_arms(noisy_SL)
    adc_SL: np.ndarray = np.clip(np.rint(noisy_SL * GAIN_PER_MV), -32_000, 32_000).astype(np.int16)
    if rng.random() < RECORDING.flat_share:
        adc_SL[:, rng.integers(len(LEADS))] = 0
    if rng.random() < RECORDING.gap_share:
        start = rng.integers(NUM_SAMPLES - RECORDING.gap_samples[1])
        adc_SL[start : start + rng.integers(*RECORDING.gap_samples), rng.integers(len(LEADS))] = NOT_RECORDED
    return adc_SL


def swap_arms(signal_SL: np.ndarray) -> np.ndarray:
    """The record as if the electrodes of the two arms had been exchanged: the chest leads stay as they are."""
    lead_i, lead_ii = signal_SL[:, 0], signal_SL[:, 1]
    return np.concatenate([np.stack([-lead_i, lead_ii - lead_i], 1) @ LIMB_FROM_I_II.T, signal_SL[:, 6:]], axis=1)


def _noise(rng: np.random.Generator) -> np.ndarray:
    """What the electrodes add, (S, E) mV: wander by breath and drift, muscle, sometimes mains or a loose contact.

    Muscle is white noise differenced over 6 ms and averaged over 4: most of it lies between 20 and 150 Hz.
    """
    size_E = np.exp(
        RECORDING.log_record_sd * rng.standard_normal() + RECORDING.log_electrode_sd * rng.standard_normal(9)
    )
    white_SE = rng.standard_normal((NUM_SAMPLES + 4, NUM_ELECTRODES), np.float32)
    muscle_SE = white_SE[4:] + white_SE[3:-1] - white_SE[1:-3] - white_SE[:-4]
    noise_SE = muscle_SE * np.float32(0.5 * RECORDING.muscle_mv) * size_E.astype(np.float32)
    noise_SE += _sines(rng.uniform([0.03, 0.08, 0.2], [0.08, 0.2, 0.4]), RECORDING.wander_mv, rng)
    if rng.random() < RECORDING.mains_share:
        noise_SE += _sines(np.array([RECORDING.mains_hz]), RECORDING.mains_mv, rng)
    if rng.random() < RECORDING.loose_share:
        noise_SE[:, rng.integers(NUM_ELECTRODES)] += loose_electrode(rng)
    return noise_SE


def _sines(frequencies_hz: np.ndarray, size_mv: float, rng: np.random.Generator) -> np.ndarray:
    """One sine of each frequency at each electrode, its size and phase chance; (S, E)."""
    seconds_S = np.arange(NUM_SAMPLES, dtype=np.float32) / np.float32(SAMPLING_RATE_HZ)
    turns_SF = np.float32(2 * np.pi) * np.outer(seconds_S, frequencies_hz.astype(np.float32))
    waves_SF = np.concatenate([np.sin(turns_SF), np.cos(turns_SF)], axis=1)
    size_FE = size_mv * rng.standard_normal((2 * len(frequencies_hz), NUM_ELECTRODES), np.float32)
    return np.asarray(waves_SF @ size_FE)


def loose_electrode(rng: np.random.Generator) -> np.ndarray:
    """An electrode without a hold on the skin: it jumps, falls back and crackles; (S,)."""
    jumps_S = np.where(rng.random(NUM_SAMPLES) < 0.004, rng.standard_normal(NUM_SAMPLES), 0.0)
    fading_T = np.exp(-np.arange(600) / 150)
    crackle_S = 0.15 * rng.standard_normal(NUM_SAMPLES)
    return RECORDING.loose_mv * (2 * np.convolve(jumps_S, fading_T)[:NUM_SAMPLES] + crackle_S)


def write_ecg(folder: Path, name: str, adc: np.ndarray, subject_id: int) -> None:
    """Write ``NAME.hea`` and ``NAME.dat``: the very bytes of ``wfdb.wrsamp``, without its pandas look-ups per line."""
    lines = [f"{name} {len(LEADS)} {SAMPLING_RATE_HZ} {len(adc)}"]
    for lead, first, total in zip(LEADS, adc[0], adc.sum(axis=0, dtype=np.int64), strict=True):
        lines.append(f"{name}.dat 16 {GAIN_PER_MV}(0)/mV 16 0 {first} {total % 65_536} 0 {lead}")
    lines.append(f"# <subject_id>: {subject_id}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n", encoding="utf-8")
    adc.astype("<i2").tofile(folder / f"{name}.dat")
