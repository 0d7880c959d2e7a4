"""How high a hospital's ECGs are: a gain that is wrong for a whole site, or for one machine of it, makes every beat
five or ten times too high or too low, and no single record tells that from a sick heart.

The height of a record is the median of the ranges in stretches of 2 s, over stretches and leads: each holds a beat at
any rate, an artefact spoils one of five, and slow wander counts for little.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemof_model.features import ECG_HZ
from readers.ecg.faults import RejectedRecordError
from readers.ecg.files import read_header_file
from readers.ecg.header import Header, parse_header
from readers.ecg.settings import Settings

USUAL_MV = (0.5, 2.0)
"""Between these lies the median height of a site. Of LUDB's 200 people (stored integers as microvolts) 96.5 % do, and
their median is 1.17 mV; that of records from CinC 2021 is 0.95 (Georgia), 1.07 (PTB-XL) and 1.19 mV (Chapman). Low
voltage is less than 0.5 mV in the limb leads and 1 mV in the others (J Electrocardiol 2008;41:281); in the limb leads
3 % of 9,832 surgical patients had it (IJERPH 2021;18:12867): no hospital has it in half of its patients."""

LIKELY_MV = (0.3, 3.2)
"""Between these lies nearly every single record: all of LUDB, 0.35 to 3.1 mV."""

MAX_UNLIKELY = 0.1  # share of records outside LIKELY_MV beyond which a part of the site is in doubt
ENOUGH_RECORDS = 10  # whose median is within a quarter of the site's: heights of people spread by a third
MAX_RECORDS = 2000  # looked at, evenly over all
STRETCH = 2 * ECG_HZ


def height_mv(ecg_CT: NDArray[np.int16]) -> float:
    """The height of one record in the cohort's form; leads without a signal do not count.

    Example:
        >>> beats_T = np.where(np.arange(1000) % 100 == 50, 900, -100)
        >>> height_mv(np.tile(beats_T, (12, 1)).astype(np.int16))
        1.0
    """
    range_CS = np.ptp(ecg_CT[ecg_CT.any(axis=1)].reshape(-1, ecg_CT.shape[1] // STRETCH, STRETCH), axis=2)
    return float(np.median(np.median(range_CS, axis=1))) / 1000


def height_facts(records: Iterable[tuple[float, str]]) -> dict[str, Any]:
    """What is kept of the heights of some records, each with the gain that its header states (empty: several): how many
    they are, their median, how many are lower and higher than any usual one, and number and median by gain."""
    heights = defaultdict(list)
    for height, gain in records:
        heights[gain].append(height)
    of_all = np.array([height for group in heights.values() for height in group])
    groups = {gain: group for gain, group in sorted(heights.items()) if gain and len(group) >= ENOUGH_RECORDS}
    return {
        "records": len(of_all),
        "median_mv": round(float(np.median(of_all)), 3) if len(of_all) else None,
        "low": int((of_all < LIKELY_MV[0]).sum()),
        "high": int((of_all > LIKELY_MV[1]).sum()),
        "by_gain": {gain: [len(group), round(float(np.median(group)), 3)] for gain, group in groups.items()},
    }


def measure_heights(ecg: Settings, store: Path, row_of: Mapping[str, int]) -> dict[str, Any]:
    """The facts of a prepared ``ecg.npy``; ``row_of`` says which record, by its path, each row is."""
    signals_NCT, paths = np.load(store, mmap_mode="r"), list(row_of)
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), MAX_RECORDS)).astype(int))
    of_chosen = {path: row_of[path] for path in (paths[place] for place in chosen)}
    return height_facts((height_mv(signals_NCT[row]), _gain_of(ecg, path)) for path, row in of_chosen.items())


def _gain_of(ecg: Settings, path: str) -> str:
    """What the header of a record says; nothing where it has gone since the record was read, or is in segments."""
    try:
        header = parse_header(read_header_file(ecg, path), ecg)
    except RejectedRecordError:
        return ""
    return header.layout.gain if isinstance(header, Header) else ""
