"""Generated ECGs beside real ones: what the project's delineator measures on 200 of each, as quartiles.

    python docs/generated_hospitals/compare_with_ludb.py FOLDER/ludb-1.0.1

LUDB (Kalyakulina et al., PhysioNet, doi 10.13026/eegm-h675) has 200 twelve-lead records of ten seconds at 500 Hz from
hospital patients and volunteers. The gains in its headers stretch every lead to a range of 1 mV; only the stored
integers obey Einthoven's rule, and read as microvolts they give the usual voltages, so that is how they are read here.
"""

import sys
from dataclasses import astuple
from pathlib import Path

import numpy as np
import wfdb

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from simulation.synthetic.delineation import MEASURES, measure
from simulation.synthetic.heart import draw_hearts
from simulation.synthetic.recording import GAIN_PER_MV, draw_ecg
from simulation.synthetic.signals import LEADS, NUM_SAMPLES

NUM_RECORDS = 200


def main(folder: Path) -> None:
    """Print one line for each measure."""
    real_NM = np.array([astuple(measure(read(folder / "data" / str(number)))) for number in range(1, NUM_RECORDS + 1)])
    rng = np.random.default_rng(7)
    conduction_N, repolarisation_N, rhythm_N = rng.standard_normal((3, NUM_RECORDS))
    hearts = draw_hearts(conduction_N, repolarisation_N, rhythm_N, rng)
    rates_bpm = np.clip(85 + 13 * rng.standard_normal(NUM_RECORDS), 45, 140)
    drawn = (draw_ecg(heart, rate, rng) for heart, rate in zip(hearts, rates_bpm, strict=True))
    drawn_NM = np.array([astuple(measure(adc)) for adc in drawn])
    print(f"{'':14}{'LUDB: 10 %, quartiles, 90 %':>52}{'missing':>9}{'generated':>52}{'missing':>9}")
    for column, name in enumerate(MEASURES):
        line = f"{name:14}"
        for values_N in (real_NM[:, column], drawn_NM[:, column]):
            spread = np.nanquantile(values_N, (0.1, 0.25, 0.5, 0.75, 0.9))
            line += "  " + "".join(f"{value:10.3f}" for value in spread) + f"{np.isnan(values_N).mean():9.2f}"
        print(line)


def read(path: Path) -> np.ndarray:
    """One record of LUDB in the project's leads and units, (S, 12) int16."""
    record = wfdb.rdrecord(str(path), physical=False)
    columns = [record.sig_name.index(lead.lower()) for lead in LEADS]
    microvolts_SL = record.d_signal[:NUM_SAMPLES, columns]
    return np.asarray(np.rint(microvolts_SL * (GAIN_PER_MV / 1000)), np.int16)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
