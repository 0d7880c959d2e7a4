"""Intervals of generated ECGs as NeuroKit2 reads them from the written files, beside the parameters that drew them.

    python -m venv nk && nk/bin/pip install neurokit2==0.2.13 wfdb==4.3.1
    nk/bin/python docs/generated_hospitals/neurokit_intervals.py

It draws 150 stays, writes one record of each into a temporary folder, reads it with wfdb, finds and delineates the
beats and prints, per method and lead, the median error, its spread (median distance from that), how many records are
within 20 ms (bpm for the rate) of it, and the correlation. PR only in sinus rhythm; QT only where T is upright and
there is no block. Method "dwt" takes P for the beginning of the QRS in lead II of many records, real ones too.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import neurokit2 as nk
import numpy as np
import wfdb

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from simulation.synthetic.heart import Heart, draw_hearts
from simulation.synthetic.recording import draw_ecg, write_ecg
from simulation.synthetic.signals import LEADS, SAMPLING_RATE_HZ

NUM_RECORDS = 150
MEASURES = ("rate_bpm", "pr_ms", "qrs_ms", "qt_ms")


def main() -> None:
    """Print one line for each lead and interval."""
    warnings.simplefilter("ignore")  # NeuroKit2 warns of every beat that it leaves out
    rng = np.random.default_rng(3)
    conduction_N, repolarisation_N, rhythm_N = rng.standard_normal((3, NUM_RECORDS))
    rate_bpm_N = np.clip(85 + 13 * rng.standard_normal(NUM_RECORDS), 50, 130)
    hearts = draw_hearts(conduction_N, repolarisation_N, rhythm_N, rng)
    expected_NM = np.array([expected(heart, rate) for heart, rate in zip(hearts, rate_bpm_N, strict=True)])
    with tempfile.TemporaryDirectory() as folder:
        for index, (heart, rate) in enumerate(zip(hearts, rate_bpm_N, strict=True)):
            write_ecg(Path(folder), str(index), draw_ecg(heart, rate, rng), 10_000_001 + index)
        records = [wfdb.rdrecord(f"{folder}/{index}").p_signal for index in range(NUM_RECORDS)]
    print(f"neurokit2 {nk.__version__}, {NUM_RECORDS} records")
    print("method      lead  measure    records  median   drawn   error  spread  within      r")
    for method, lead in (("prominence", "II"), ("prominence", "V5"), ("dwt", "II"), ("dwt", "V5")):
        read_NM = np.array([intervals(np.nan_to_num(record[:, LEADS.index(lead)]), method) for record in records])
        for column, measure in enumerate(MEASURES):
            read_N, drawn_N = read_NM[:, column], expected_NM[:, column]
            known_N = np.isfinite(read_N) & np.isfinite(drawn_N)
            error_N = (read_N - drawn_N)[known_N]
            away_N = np.abs(error_N - np.median(error_N))
            print(
                f"{method:12}{lead:6}{measure:10}{known_N.sum():8d}{np.median(read_N[known_N]):8.1f}"
                f"{np.median(drawn_N[known_N]):8.1f}{np.median(error_N):8.1f}{np.median(away_N):8.1f}"
                f"{np.mean(away_N < 20):8.2f}{np.corrcoef(read_N[known_N], drawn_N[known_N])[0, 1]:7.2f}"
            )


def expected(heart: Heart, rate_bpm: float) -> tuple[float, ...]:
    """What the parameters say of one record, in the order of ``MEASURES``."""
    return (
        rate_bpm,
        np.nan if heart.is_af else heart.pr_ms,
        heart.qrs_ms,
        heart.qtc_ms * np.cbrt(60 / rate_bpm) if heart.t_scale > 0.3 and not heart.block else np.nan,
    )


def intervals(lead_S: np.ndarray, method: str) -> tuple[float, ...]:
    """What NeuroKit2 reads from one lead: medians over its beats; NaN where it finds none."""
    clean_S = nk.ecg_clean(lead_S, sampling_rate=SAMPLING_RATE_HZ)
    try:
        _, found = nk.ecg_peaks(clean_S, sampling_rate=SAMPLING_RATE_HZ)
        peaks_B = found["ECG_R_Peaks"]
        _, waves = nk.ecg_delineate(clean_S, peaks_B, sampling_rate=SAMPLING_RATE_HZ, method=method)
    except Exception:  # a lead that shows no beats can make it raise anything
        return (np.nan,) * len(MEASURES)
    onset_B, offset_B = np.array(waves["ECG_R_Onsets"], float), np.array(waves["ECG_R_Offsets"], float)
    ms = 1000 / SAMPLING_RATE_HZ
    return (
        60_000 / (ms * float(np.diff(peaks_B).mean())),
        ms * float(np.nanmedian(onset_B - np.array(waves["ECG_P_Onsets"], float))),
        ms * float(np.nanmedian(offset_B - onset_B)),
        ms * float(np.nanmedian(np.array(waves["ECG_T_Offsets"], float) - onset_B)),
    )


if __name__ == "__main__":
    main()
