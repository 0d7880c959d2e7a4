"""A 12-lead ECG that shows a stay's cardiac burden: a sum-of-Gaussians beat, repeated at the heart rate.

Burden c widens the QRS complex, lowers the ST segment, flattens and inverts the T wave and raises the heart rate;
blurred severity u raises the rate a little. Eight leads are drawn, the other four follow from I and II.
Letters in shapes: S samples, W waves, L leads.
"""

from pathlib import Path

import numpy as np
import wfdb

SAMPLING_RATE_HZ = 500
NUM_SAMPLES = 5000
GAIN_PER_MV = 200.0
LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")  # the order of MIMIC-IV-ECG
RECORD_FIELDS = ("record_name", "n_sig", "fs", "sig_len", "comments")
LEAD_FIELDS = (
    *("file_name", "fmt", "adc_gain", "baseline", "units", "adc_res", "adc_zero"),
    *("init_value", "checksum", "block_size", "sig_name"),
)
FLAT_SHARE, GAP_SHARE = 0.01, 0.02

WAVES = ("P", "Q", "R", "S", "ST", "T")
OFFSET_SECONDS = np.array([-0.16, -0.028, 0.0, 0.028, 0.13, 0.29])
WIDTH_SECONDS = np.array([0.024, 0.010, 0.012, 0.012, 0.050, 0.048])
AMPLITUDE_MV = np.array(  # rows P Q R S ST T; columns I II V1 V2 V3 V4 V5 V6
    [
        [0.07, 0.11, 0.05, 0.06, 0.06, 0.06, 0.06, 0.06],
        [-0.05, -0.06, 0.00, 0.00, -0.03, -0.06, -0.08, -0.08],
        [0.55, 0.85, 0.20, 0.40, 0.80, 1.25, 1.30, 1.00],
        [-0.10, -0.15, -0.85, -1.10, -0.70, -0.35, -0.20, -0.10],
        [0.50, 0.70, 0.20, 0.40, 0.70, 1.00, 1.00, 0.80],
        [0.20, 0.28, 0.06, 0.30, 0.38, 0.38, 0.32, 0.24],
    ]
)


def draw_ecg(cardiac: float, ecg_severity: float, rng: np.random.Generator) -> np.ndarray:
    """One ECG in ADC units, int16, shape (S, 12): hidden burden, the heart's own ways, recording noise."""
    own = rng.standard_normal(5)
    heart_rate_bpm = np.clip(82 + 7 * cardiac + 6 * ecg_severity + 9 * own[0], 40, 170)
    widening = np.clip(1.05 + 0.10 * cardiac + 0.10 * own[1], 0.75, 1.8)
    gain_WL = AMPLITUDE_MV * np.exp(0.15 * rng.standard_normal(8) + 0.15 * own[2])
    gain_WL[4] *= 0.02 - 0.06 * cardiac + 0.06 * own[3]
    gain_WL[5] *= 1.0 - 0.45 * cardiac + 0.45 * own[4]
    rr_seconds = 60 / heart_rate_bpm
    drawn_SL = _waves(rr_seconds, widening, rng) @ gain_WL.astype(np.float32)
    drawn_SL += 0.012 * rng.standard_normal(drawn_SL.shape, np.float32) + _wander(rng)
    return _record(drawn_SL, rng)


def _waves(rr_seconds: float, widening: float, rng: np.random.Generator) -> np.ndarray:
    """Each wave of every beat at unit height, shape (S, W)."""
    seconds_S = np.arange(NUM_SAMPLES, dtype=np.float32) / SAMPLING_RATE_HZ
    intervals = rr_seconds * (1 + 0.03 * rng.standard_normal(int(12 / rr_seconds) + 3))
    beats = np.cumsum(intervals).astype(np.float32) - np.float32(rr_seconds * (1 + rng.random()))
    following = np.clip(np.searchsorted(beats, seconds_S), 1, len(beats) - 1)
    is_qrs = np.array([False, True, True, True, False, False])
    offset = np.where(is_qrs, OFFSET_SECONDS * widening, OFFSET_SECONDS)
    offset[4:] = offset[4:] * np.sqrt(rr_seconds / 0.75) + 0.03 * (widening - 1)
    width = np.where(is_qrs, WIDTH_SECONDS * widening, WIDTH_SECONDS)
    waves_SW = np.zeros((NUM_SAMPLES, len(WAVES)), np.float32)
    for beat_S in (beats[following - 1], beats[following]):
        for wave in range(len(WAVES)):
            distance_S = (seconds_S - beat_S - np.float32(offset[wave])) / np.float32(width[wave])
            waves_SW[:, wave] += np.exp(np.float32(-0.5) * distance_S * distance_S)
    return waves_SW


def _wander(rng: np.random.Generator) -> np.ndarray:
    """Slow baseline drift by breathing, one size per lead, shape (S, 8)."""
    seconds_S = np.arange(NUM_SAMPLES, dtype=np.float32) / SAMPLING_RATE_HZ
    drift_S = np.sin(2 * np.pi * (rng.uniform(0.15, 0.35) * seconds_S + rng.random()))
    return (drift_S[:, None] * rng.normal(0, 0.05, 8)).astype(np.float32)


def _record(drawn_SL: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """All twelve leads in ADC units; rarely a lead is flat or has a gap (the format's own mark for no value)."""
    lead_i, lead_ii = drawn_SL[:, 0], drawn_SL[:, 1]
    limb = [lead_i, lead_ii, lead_ii - lead_i, -(lead_i + lead_ii) / 2, lead_ii - lead_i / 2, lead_i - lead_ii / 2]
    leads_mv = np.column_stack([*limb, drawn_SL[:, 2:]])
    adc = np.clip(np.round(leads_mv * GAIN_PER_MV), -32_000, 32_000).astype(np.int16)
    if rng.random() < FLAT_SHARE:
        adc[:, rng.integers(len(LEADS))] = 0
    if rng.random() < GAP_SHARE:
        start = rng.integers(NUM_SAMPLES - 400)
        adc[start : start + rng.integers(50, 400), rng.integers(len(LEADS))] = np.iinfo(np.int16).min
    return adc


def write_ecg(folder: Path, name: str, adc: np.ndarray, subject_id: int) -> None:
    """Write ``NAME.hea`` and ``NAME.dat``: the very bytes of ``wfdb.wrsamp``, six times as fast.

    wfdb writes the header; which fields it must hold is stated here instead of being searched for in each record.
    """
    num_leads = len(LEADS)
    record = wfdb.Record(
        record_name=name,
        n_sig=num_leads,
        fs=SAMPLING_RATE_HZ,
        sig_len=len(adc),
        file_name=[f"{name}.dat"] * num_leads,
        fmt=["16"] * num_leads,
        adc_gain=[GAIN_PER_MV] * num_leads,
        baseline=[0] * num_leads,
        units=["mV"] * num_leads,
        adc_res=[16] * num_leads,
        adc_zero=[0] * num_leads,
        init_value=adc[0].tolist(),
        checksum=[int(total) % 65_536 for total in adc.sum(axis=0, dtype=np.int64)],
        block_size=[0] * num_leads,
        sig_name=list(LEADS),
        comments=[f"<subject_id>: {subject_id}"],
    )
    folder.mkdir(parents=True, exist_ok=True)
    record.wr_header_file(list(RECORD_FIELDS), {field: list(range(num_leads)) for field in LEAD_FIELDS}, str(folder))
    adc.astype("<i2").tofile(folder / f"{name}.dat")
