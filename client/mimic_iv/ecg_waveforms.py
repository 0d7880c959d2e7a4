"""One ECG record to 12 x 1000 int16 microvolts at 100 Hz, and all chosen records to ``ecg.npy``.

Leads go by name, never by position (MIMIC-IV-ECG stores aVF before aVL). In order: gaps are interpolated lead by lead;
500 Hz becomes 100 Hz by a polyphase filter; values are clipped to +-3 mV, where artefacts begin
(AI4HealthUOL/ECG-MIMIC); a lead without a signal is zero. A record that breaks a rule is rejected with the reason, and
its stay counts as one without ECG: most of the faults checked here pass wfdb in silence.

Most records are one header and one .dat file in format 16. Those are read directly, in 0.1 ms instead of wfdb's 7 ms;
anything else goes through wfdb, and both give the same numbers.

Shape letters: C leads, T time.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from scipy.signal import resample_poly

from lemof_model.features import ECG_HZ, ECG_LEADS, ECG_SECONDS

LIMIT_UV = 3000
FLAT_UV = 1.0  # standard deviation below which a lead holds no signal
INVALID = -32768  # WFDB format 16 marks a missing sample so

_RECORD_LINE = re.compile(r"\S+ (\d+) (\d+) (\d+)(?: .*)?")
_SIGNAL_LINE = re.compile(r"(\S+\.dat) 16 (\d+(?:\.\d+)?)\((-?\d+)\)/(\S+) 16 0 -?\d+ (-?\d+) 0 (\S+)")


class RejectedRecordError(Exception):
    """A record that cannot be used; the message is the reason, one of a few fixed texts."""


@dataclass(frozen=True)
class RawRecord:
    """A record as stored: samples_TC are integers, to be read as (sample - baseline) / gain in units."""

    sampling_rate_hz: float
    names: tuple[str, ...]
    units: tuple[str, ...]
    gain_C: NDArray[np.float64]
    baseline_C: NDArray[np.float64]
    checksum_C: NDArray[np.int64]
    samples_TC: NDArray[np.int16]


def read_ecg(path: Path, accept_hz: tuple[int, ...]) -> NDArray[np.int16]:
    """Read one record (path without suffix) and bring it into the cohort's form.

    Shape:
        result: (12, 1000) microvolts, leads in the order of ``ECG_LEADS``

    Raises:
        RejectedRecordError: the record breaks a rule.
    """
    record = read_plain(path) or read_with_wfdb(path)
    columns = _lead_columns(record)
    _check(record, columns, accept_hz)
    samples_CT = np.ascontiguousarray(record.samples_TC.T[columns])
    scale_C1 = 1000.0 / record.gain_C[columns, None]
    microvolts_CT = (samples_CT - record.baseline_C[columns, None]) * scale_C1
    if (samples_CT == INVALID).any():
        microvolts_CT = _without_gaps(microvolts_CT, samples_CT == INVALID)
    is_flat_C = microvolts_CT.std(axis=1) < FLAT_UV
    if is_flat_C.all():
        raise RejectedRecordError("no lead has a signal")
    resampled_CT = resample_poly(microvolts_CT, ECG_HZ, int(record.sampling_rate_hz), axis=1)
    resampled_CT[is_flat_C] = 0.0
    return np.rint(np.clip(resampled_CT, -LIMIT_UV, LIMIT_UV)).astype(np.int16)


def write_ecgs(
    target: Path, root: Path, record_paths: Iterable[str], accept_hz: tuple[int, ...]
) -> tuple[dict[str, int], dict[str, str]]:
    """Read records one after the other into ``target`` (ecg.npy), never holding more than one.

    Returns:
        the row of each record that was read, and the reason for each that was rejected.
    """
    row_of: dict[str, int] = {}
    rejected: dict[str, str] = {}
    shape = (len(ECG_LEADS), ECG_HZ * ECG_SECONDS)
    with target.open("wb") as file:
        _write_header(file, 0, shape)
        for record_path in record_paths:
            try:
                ecg = read_ecg(root / record_path, accept_hz)
            except RejectedRecordError as error:
                rejected[record_path] = str(error)
            else:
                row_of[record_path] = len(row_of)
                file.write(ecg.tobytes())
        file.seek(0)
        _write_header(file, len(row_of), shape)  # numpy pads headers so that the first axis can grow
    return row_of, rejected


def read_plain(path: Path) -> RawRecord | None:
    """Read a record of one .dat file in format 16 without wfdb; None when it is anything else."""
    try:
        text = path.with_name(f"{path.name}.hea").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    first, *others = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")] or [""]
    head = _RECORD_LINE.fullmatch(first)
    signals = [_SIGNAL_LINE.fullmatch(line) for line in others]
    matched = [signal for signal in signals if signal]
    if head is None or len(matched) != len(signals) or len(matched) != int(head[1]):
        return None
    files, gains, baselines, units, checksums, names = zip(*(signal.groups() for signal in matched), strict=True)
    try:
        samples = np.fromfile(path.with_name(files[0]), "<i2")
    except OSError:
        return None
    if len(set(files)) > 1 or samples.size != int(head[1]) * int(head[3]) or "0" in gains:
        return None
    return RawRecord(
        sampling_rate_hz=float(head[2]),
        names=names,
        units=units,
        gain_C=np.array(gains, np.float64),
        baseline_C=np.array(baselines, np.float64),
        checksum_C=np.array(checksums, np.int64),
        samples_TC=samples.reshape(int(head[3]), -1),
    )


def read_with_wfdb(path: Path) -> RawRecord:
    """Read any WFDB record as stored."""
    import wfdb  # half a second to import, and seldom needed

    try:
        record = wfdb.rdrecord(str(path), physical=False, return_res=16)
        return RawRecord(
            sampling_rate_hz=float(record.fs),
            names=tuple(record.sig_name),
            units=tuple(record.units),
            gain_C=np.array(record.adc_gain, np.float64),
            baseline_C=np.array(record.baseline, np.float64),
            checksum_C=np.array(record.checksum, np.int64),
            samples_TC=record.d_signal,
        )
    except FileNotFoundError:
        raise RejectedRecordError("file missing") from None
    except Exception:  # a damaged file can make wfdb raise anything; what it raised helps no one
        raise RejectedRecordError("file damaged") from None


def _lead_columns(record: RawRecord) -> list[int]:
    """The column of each lead, found by name; upper and lower case are one."""
    names = [name.upper() for name in record.names]
    if any(names.count(lead.upper()) != 1 for lead in ECG_LEADS):
        raise RejectedRecordError("a lead missing or repeated")
    return [names.index(lead.upper()) for lead in ECG_LEADS]


def _check(record: RawRecord, columns: list[int], accept_hz: tuple[int, ...]) -> None:
    """Reject what would be read as something that it is not."""
    sums_C = record.samples_TC.sum(axis=0, dtype=np.int64)
    if record.sampling_rate_hz not in accept_hz:
        raise RejectedRecordError("sampling frequency not accepted")
    if len(record.samples_TC) != record.sampling_rate_hz * ECG_SECONDS:
        raise RejectedRecordError("not 10 seconds long")
    if any(record.units[column] != "mV" for column in columns):
        raise RejectedRecordError("unit not mV")
    if ((sums_C - record.checksum_C) % 65536).any():
        raise RejectedRecordError("checksum wrong")


def _without_gaps(signal_CT: NDArray[np.float64], is_gap_CT: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Interpolate missing samples linearly in each lead; a lead with none at all is zero."""
    filled_CT = np.zeros_like(signal_CT)
    time = np.arange(signal_CT.shape[1])
    for filled_T, signal_T, is_gap_T in zip(filled_CT, signal_CT, is_gap_CT, strict=True):
        if not is_gap_T.all():
            filled_T[:] = np.interp(time, time[~is_gap_T], signal_T[~is_gap_T])
    return filled_CT


def _write_header(file: BinaryIO, num_records: int, shape: tuple[int, ...]) -> None:
    """The header of ecg.npy for so many records."""
    npy.write_array_header_1_0(
        file, {"descr": npy.dtype_to_descr(np.dtype(np.int16)), "fortran_order": False, "shape": (num_records, *shape)}
    )
