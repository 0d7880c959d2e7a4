"""ECG records into ``ecg.npy``: ours, ours with every record read by wfdb, and the loop that everybody writes.

Each has one thread and is given its processor time, so that other work on the machine counts for none; they take turns,
block by block. Reading, checks, resampling and writing count for all.
"""

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import polars as pl
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from client.site import EcgData, load_site
from lemof_model.features import ECG_HZ, ECG_LEADS
from readers.ecg import record as ecg_record
from readers.ecg import samples as ecg_samples
from readers.ecg.waveforms import write_ecgs

BLOCK = 250
NUM_FLIPPED = 20


class Ingest(NamedTuple):
    """Records per second of one core, and whether ours are what they should be; a difference is in microvolts."""

    ours: float
    through_wfdb: float
    reference: float
    num_compared: int
    greatest_difference: float
    num_flipped: int
    num_flipped_rejected: int


def compare_ingest(site_file: Path) -> Ingest:
    """Read every record of the hospital's list, all three ways."""
    ecg = load_site(site_file).data.ecg
    assert ecg is not None
    listed = pl.read_csv(ecg.record_list)["path"].to_list()
    paths = [path for path in listed if "//" not in path]  # the others lead to the same files
    seconds = np.zeros(3)
    num_compared, greatest = 0, 0
    with threadpool_limits(1), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for warm_up in (True, False):
            for start in range(0, 1 if warm_up else len(paths), BLOCK):
                block = paths[start : start + (10 if warm_up else BLOCK)]
                found = _all_three(folder, ecg, block)
                seconds += 0 if warm_up else found[0]
                num_compared += 0 if warm_up else found[1]
                greatest = max(greatest, found[2])
        num_rejected = _flipped(folder / "flipped", ecg, paths[:NUM_FLIPPED])
    ours, through_wfdb, reference = (len(paths) / seconds).tolist()
    return Ingest(ours, through_wfdb, reference, num_compared, greatest, len(paths[:NUM_FLIPPED]), num_rejected)


def _all_three(folder: Path, ecg: EcgData, block: Sequence[str]) -> tuple[NDArray[np.float64], int, int]:
    """Seconds of the three ways, how many records were compared, and the greatest difference from wfdb and scipy."""
    times = [time.process_time()]
    kept, ours = _ingest(folder, ecg, block)
    times.append(time.process_time())
    with mock.patch.object(ecg_record, "read_samples", ecg_samples.read_with_wfdb):
        kept_by_wfdb, by_wfdb = _ingest(folder, ecg, block)
    times.append(time.process_time())
    expected = _reference(folder / "reference.npy", ecg.root, block)
    times.append(time.process_time())
    assert kept == kept_by_wfdb and (ours == by_wfdb).all(), "wfdb's samples must be ours"
    rows = [block.index(path) for path in kept]
    difference = np.abs(ours.astype(np.int64) - expected[rows]).max(initial=0)
    return np.diff(times), len(kept), int(difference)


def _ingest(folder: Path, ecg: EcgData, paths: Sequence[str]) -> tuple[list[str], NDArray[np.int16]]:
    """Ours: the records that were accepted, and the store."""
    row_of, _ = write_ecgs(folder, ecg, paths, workers=1)
    return list(row_of), np.load(folder / "ecg.npy")


def _reference(file: Path, root: Path, paths: Sequence[str]) -> NDArray[np.int16]:
    """``wfdb.rdsamp`` and ``resample_poly``, leads by name, gaps interpolated, clipped as ours. wfdb checks nothing."""
    import wfdb
    from scipy.signal import resample_poly

    store = np.lib.format.open_memmap(file, "w+", np.int16, (len(paths), len(ECG_LEADS), 10 * ECG_HZ))
    for row, path in enumerate(paths):
        signal_TC, fields = wfdb.rdsamp(str(root / path))
        signal_CT = signal_TC.T[[fields["sig_name"].index(lead) for lead in ECG_LEADS]] * 1000
        for lead_T in signal_CT:
            is_gap_T = np.isnan(lead_T)
            if is_gap_T.any():
                lead_T[is_gap_T] = np.interp(np.flatnonzero(is_gap_T), np.flatnonzero(~is_gap_T), lead_T[~is_gap_T])
        resampled_CT = resample_poly(signal_CT, ECG_HZ, int(fields["fs"]), axis=1)
        store[row] = np.rint(np.clip(resampled_CT, -ecg_record.LIMIT_UV, ecg_record.LIMIT_UV))
    store.flush()
    return np.asarray(store)


def _flipped(folder: Path, ecg: EcgData, paths: Sequence[str]) -> int:
    """How many records are rejected of some in which one bit was turned."""
    rng = np.random.default_rng(0)
    for path in paths:
        target = folder / path
        target.parent.mkdir(parents=True)
        shutil.copy(ecg.root / f"{path}.hea", f"{target}.hea")
        samples = bytearray((ecg.root / f"{path}.dat").read_bytes())
        samples[rng.integers(len(samples))] ^= 1 << int(rng.integers(8))
        Path(f"{target}.dat").write_bytes(samples)
    row_of, _ = _ingest(folder, ecg.model_copy(update={"root": folder}), paths)
    return len(paths) - len(row_of)
