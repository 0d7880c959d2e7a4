"""Measure an ECG back from what was written: rate, rhythm, intervals, axis, ST and T.

The steps are the usual ones: filter; find the QRS complexes where all leads together change fastest; line the beats up
and take the median of those that look alike; find where waves begin and end on that median beat by how fast it changes.
Nothing here knows how the signal was drawn. What cannot be measured is NaN.
Letters in shapes: S samples, L the eight independent leads, B beats, T samples around a beat.
"""

from dataclasses import dataclass, fields

import numpy as np
from scipy import fft
from scipy.ndimage import maximum_filter1d, uniform_filter1d
from scipy.signal import find_peaks

RATE_HZ = 500
GAIN_PER_MV = 200.0
NOT_RECORDED = np.iinfo(np.int16).min
COLUMNS = (0, 1, 6, 7, 8, 9, 10, 11)  # of the eight independent leads among MIMIC-IV-ECG's twelve
LEAD_I, LEAD_II, V1, V5 = 0, 1, 2, 6  # among the eight
UPRIGHT_T = (0, 1, 4, 5, 6, 7)  # I, II, V3 to V6: where a healthy T wave is upright
LATERAL = (5, 6, 7)  # V4 to V6
BEFORE, AFTER = 230, 320  # samples of a beat before and after its steepest point
NEAR = 45  # samples about that point by which beats are compared
REACH = 15  # samples by which a beat is shifted to lie on the others


@dataclass(frozen=True)
class Measured:
    """What one record shows; NaN where it does not.

    ``odd_share`` and ``early_share`` are the parts of beats whose QRS looks unlike the median's and that come after
    less than 82 % of the median interval; ``rr_jump`` is the median change from one interval to the next, as a part of
    the median interval; ``f_mv`` is how much the 300 ms before a QRS differ from beat to beat in II and V1.
    """

    rate_bpm: float = np.nan
    sdnn_ms: float = np.nan
    rr_jump: float = np.nan
    odd_share: float = np.nan
    early_share: float = np.nan
    f_mv: float = np.nan
    p_mv: float = np.nan
    pr_ms: float = np.nan
    qrs_ms: float = np.nan
    axis_degrees: float = np.nan
    qrs_mv: float = np.nan
    r_v5_mv: float = np.nan
    st_mv: float = np.nan
    t_mv: float = np.nan
    t_v5_mv: float = np.nan
    qt_ms: float = np.nan
    qtc_ms: float = np.nan


MEASURES = tuple(measure.name for measure in fields(Measured))


def measure(adc_SL: np.ndarray) -> Measured:
    """Measure one record of ten seconds at 500 Hz: int16 ADC units, (S, 12) in the order of MIMIC-IV-ECG."""
    leads_SL, is_good_L = _leads(adc_SL)
    at_B = _qrs_times(leads_SL[:, is_good_L]) if is_good_L.any() else np.array([])
    at_B = at_B[(at_B >= NEAR + REACH) & (at_B < len(leads_SL) - NEAR - REACH)]
    if len(at_B) < 4:
        return Measured()
    at_B, is_odd_B = _lined_up(leads_SL[:, is_good_L], at_B)
    rhythm = _rhythm(at_B, is_odd_B)
    is_whole_B = (at_B >= BEFORE) & (at_B < len(leads_SL) - AFTER) & ~is_odd_B
    if is_whole_B.sum() < 2:
        return Measured(**rhythm)
    leads_SL[:, ~is_good_L] = np.nan
    beats_BTL = leads_SL[at_B[is_whole_B, None] + np.arange(-BEFORE, AFTER)]
    return Measured(**rhythm, **_waves(beats_BTL, 60.0 / rhythm["rate_bpm"]))


def _leads(adc_SL: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The eight leads in mV, from 0.5 to 75 Hz without mains, and which of them can be used."""
    raw_SL = adc_SL[:, COLUMNS].astype(np.float32) / np.float32(GAIN_PER_MV)
    for lead, column in enumerate(COLUMNS):
        is_gap_S = adc_SL[:, column] == NOT_RECORDED
        if is_gap_S.any() and not is_gap_S.all():
            at_S = np.arange(len(adc_SL))
            raw_SL[:, lead] = np.interp(at_S, at_S[~is_gap_S], raw_SL[~is_gap_S, lead])
    first_L, last_L = raw_SL[:100].mean(axis=0), raw_SL[-100:].mean(axis=0)
    raw_SL -= first_L + np.linspace(0, 1, len(raw_SL), dtype=np.float32)[:, None] * (last_L - first_L)
    leads_SL = fft.irfft(fft.rfft(raw_SL, axis=0) * PASSED_S[:, None], len(raw_SL), axis=0)
    roughness_L = np.median(np.abs(raw_SL[8::7] - 2 * raw_SL[4:-4:7] + raw_SL[:-8:7]), axis=0)
    height_L = np.ptp(leads_SL, axis=0)
    is_rough_L = roughness_L > np.maximum(0.05, 5 * np.median(roughness_L))
    return leads_SL, (height_L > 0.05) & (height_L < np.maximum(6.0, 4 * np.median(height_L))) & ~is_rough_L


def _passed(num_samples: int) -> np.ndarray:
    """How much of each frequency the filter lets through."""
    hz_S = fft.rfftfreq(num_samples, 1 / RATE_HZ)
    high_S, low_S = 1 - np.exp(-((hz_S / 0.5) ** 4)), np.exp(-((hz_S / 75) ** 4))
    return np.asarray(high_S * low_S * (1 - np.exp(-(((hz_S - 60) / 0.7) ** 2))), np.float32)


PASSED_S = _passed(5000)


def _qrs_times(leads_SL: np.ndarray) -> np.ndarray:
    """Samples about which the leads together change fastest."""
    change_S = np.sqrt(((leads_SL[8:] - leads_SL[:-8]) ** 2).sum(axis=1))
    change_S = uniform_filter1d(np.pad(change_S, 4), 45)
    usual_height = np.median(change_S.reshape(5, -1).max(axis=1))
    peaks, _ = find_peaks(change_S, height=0.4 * usual_height, distance=RATE_HZ // 4)
    return np.asarray(peaks)


def _lined_up(leads_SL: np.ndarray, at_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shift each beat to where its QRS lies best on the median's; their times, and which look odd."""
    near_U = np.arange(-NEAR, NEAR + 1)
    template_UL = _median(leads_SL[at_B[:, None] + near_U])
    wide_U = np.arange(-NEAR - REACH, NEAR + REACH + 1)
    shifted_BKLU = np.lib.stride_tricks.sliding_window_view(leads_SL[at_B[:, None] + wide_U], len(near_U), axis=1)
    match_BK = np.tensordot(shifted_BKLU, template_UL.T, axes=2)
    at_B = at_B + match_BK.argmax(axis=1) - REACH
    size_B = np.sqrt((leads_SL[at_B[:, None] + near_U] ** 2).sum(axis=(1, 2)))
    size = np.sqrt((template_UL**2).sum())
    is_odd_B = (match_BK.max(axis=1) < 0.8 * size * size_B) | (size_B > 1.8 * size) | (size_B < 0.5 * size)
    return at_B, is_odd_B


def _rhythm(at_B: np.ndarray, is_odd_B: np.ndarray) -> dict[str, float]:
    """What the times of the beats show."""
    rr_B = np.diff(at_B) / RATE_HZ
    usual = np.median(rr_B)
    is_usual_B = ~is_odd_B[1:] & ~is_odd_B[:-1] & (np.abs(rr_B / usual - 1) < 0.18)
    return {
        "rate_bpm": 60 / rr_B.mean(),
        "sdnn_ms": 1000 * rr_B[is_usual_B].std(ddof=1) if is_usual_B.sum() > 2 else np.nan,
        "rr_jump": np.median(np.abs(np.diff(rr_B))) / usual,
        "odd_share": is_odd_B.mean(),
        "early_share": (rr_B < 0.82 * usual).mean(),
    }


def _waves(beats_BTL: np.ndarray, rr_seconds: float) -> dict[str, float]:
    """What the median beat shows, and how the time before the QRS differs from beat to beat."""
    beat_TL = _median(beats_BTL)
    known_TL = np.nan_to_num(beat_TL)
    speed_T = uniform_filter1d(np.sqrt((np.gradient(known_TL, axis=0) ** 2).sum(axis=1)), 5)
    begin, end = _qrs_span(speed_T)
    beat_TL = beat_TL - beat_TL[begin - 10 : begin - 3].mean(axis=0)
    qrs_TL = beat_TL[begin:end]
    area_i, area_ii = qrs_TL[:, LEAD_I].sum(), qrs_TL[:, LEAD_II].sum()
    before_BTL = beats_BTL[:, begin - 140 : begin - 5, (LEAD_II, V1)]
    before_BTL = uniform_filter1d(before_BTL - before_BTL.mean(axis=1, keepdims=True), 15, axis=1)
    p_wave = _p_wave(beat_TL, begin, rr_seconds)
    next_p_seconds = rr_seconds - max(0.17, p_wave.get("pr_ms", 0.0) / 1000)
    return {
        **p_wave,
        **_recovery(beat_TL, begin, end, rr_seconds, next_p_seconds),
        "f_mv": _mean(before_BTL.std(axis=0).mean(axis=0)),
        "qrs_ms": (end - begin) * 1000 / RATE_HZ,
        "axis_degrees": np.degrees(np.arctan2(2 / np.sqrt(3) * (area_ii - area_i / 2), area_i)),
        "qrs_mv": _mean(np.ptp(qrs_TL, axis=0)),
        "r_v5_mv": qrs_TL[:, V5].max(),
    }


def _qrs_span(speed_T: np.ndarray) -> tuple[int, int]:
    """Where the QRS begins and ends: about its fastest point, until the beat has become slow for 8 ms."""
    fastest = BEFORE - 40 + int(speed_T[BEFORE - 40 : BEFORE + 40].argmax())
    limit = max(0.06 * speed_T[fastest], 2.0 * np.quantile(speed_T, 0.1))
    slowest_T = maximum_filter1d(speed_T, 4, origin=-2)  # over the next 8 ms
    slow_before = np.flatnonzero(slowest_T[fastest - 70 : fastest - 3] < limit)
    slow_after = np.flatnonzero(
        slowest_T[fastest : fastest + 100] < max(limit, 1.4 * speed_T[fastest + 15 :][:85].min())
    )
    begin = fastest - 70 + int(slow_before[-1]) + 3 if len(slow_before) else fastest - 40
    end = fastest + int(slow_after[0]) if len(slow_after) else fastest + 60
    return begin, end


def _recovery(beat_TL: np.ndarray, begin: int, end: int, rr_seconds: float, next_p_seconds: float) -> dict[str, float]:
    """ST 60 ms after the QRS, T wave, and the QT interval, whose end is where the steepest tangent meets the base.

    T is looked for from 240 ms after the beginning of the QRS (at 60 bpm) to the next P wave. A QT
    interval is given only where T stands out and the interval is one that a heart can have.
    """
    st_mv = _mean(beat_TL[end + 25 : end + 36, LATERAL].mean(axis=0))
    first = max(end + 40, begin + int(RATE_HZ * 0.24 * np.cbrt(rr_seconds)))
    last = min(len(beat_TL), begin + int(RATE_HZ * min(0.62, next_p_seconds)))
    if last - first < 20:
        return {"st_mv": st_mv}
    known_TL = np.nan_to_num(beat_TL)
    upright_T = known_TL[first:last, UPRIGHT_T].mean(axis=1)
    largest = int(np.abs(upright_T).argmax())
    found = {"st_mv": st_mv, "t_mv": upright_T[largest], "t_v5_mv": beat_TL[first + largest, V5]}
    size_T = np.sqrt((known_TL[first:last] ** 2).sum(axis=1))
    top = first + int(size_T.argmax())
    along_T = uniform_filter1d(known_TL @ known_TL[top], 9) / size_T.max()
    falling_T = np.gradient(along_T)[top : min(top + 70, len(along_T) - 1)]
    at = top + int(falling_T.argmin())
    if top == first or size_T.max() < 0.16 or falling_T.min() >= 0:
        return found
    qt_seconds = (at - along_T[at] / falling_T.min() - begin) / RATE_HZ
    qtc_seconds = qt_seconds / np.cbrt(rr_seconds)
    return found | {"qt_ms": 1000 * qt_seconds, "qtc_ms": 1000 * qtc_seconds} if 0.3 < qtc_seconds < 0.65 else found


def _p_wave(beat_TL: np.ndarray, begin: int, rr_seconds: float) -> dict[str, float]:
    """Height of P in leads I and II; the PR interval begins where its steepest tangent meets the base."""
    first = begin - int(RATE_HZ * min(0.36, 0.45 * rr_seconds))
    p_T = uniform_filter1d(np.nan_to_num(beat_TL[:, (LEAD_I, LEAD_II)]).mean(axis=1), 9)[first : begin - 8]
    tops, shapes = find_peaks(p_T, prominence=0.005)
    if not len(tops):
        return {"p_mv": 0.0}
    clearest = int(shapes["prominences"].argmax())
    top, height = tops[clearest], shapes["prominences"][clearest]
    start = max(0, top - 35)
    rising_T = np.gradient(p_T[start : top + 1])
    at = start + int(rising_T.argmax())
    onset = at - (p_T[at] - p_T[top] + height) / rising_T.max()
    return {"p_mv": height, "pr_ms": (begin - first - onset) * 1000 / RATE_HZ}


def _median(beats_BTL: np.ndarray) -> np.ndarray:
    """The median over beats; sorting few is faster than numpy's median."""
    sorted_BTL = np.sort(beats_BTL, axis=0)
    middle = (len(beats_BTL) - 1) // 2
    return np.asarray(sorted_BTL[middle : len(beats_BTL) - middle].mean(axis=0))


def _mean(values: np.ndarray) -> float:
    """The mean of what is known; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan
