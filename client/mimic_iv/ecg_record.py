"""One ECG record to 12 x 1000 int16 microvolts at 100 Hz.

Leads go by name, never by position (MIMIC-IV-ECG stores aVF before aVL). In order: gaps are interpolated lead by lead;
500 Hz becomes 100 Hz by a polyphase filter; values are clipped to +-3 mV, where artefacts begin
(AI4HealthUOL/ECG-MIMIC); a lead without a signal is zero. A record that breaks a rule is rejected with the reason:
most of the faults checked here pass wfdb in silence.

Most records are one header and one .dat file in format 16. Those are read directly; anything else goes through wfdb,
and both give the same numbers.

Shape letters: C leads, T time.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.mimic_iv.ecg_faults import Reason, RejectedRecordError
from client.mimic_iv.ecg_header import MAX_UNUSABLE_LEADS, Layout, layout_of, parse_plain_header
from client.mimic_iv.ecg_resampling import resampler_of
from client.site import EcgData
from lemof_model.features import ECG_HZ, ECG_LEADS, ECG_SECONDS

ECG_SHAPE = (len(ECG_LEADS), ECG_HZ * ECG_SECONDS)
LIMIT_UV = 3000
INVALID = -32768  # WFDB format 16 marks a missing sample so
PLAUSIBLE_UV = (20.0, 30_000.0)  # height of the median lead: a wrong unit is a thousandfold, a real ECG 0.3 to 5 mV


@dataclass(frozen=True, eq=False)
class RawRecord:
    """A record as stored, its leads in the order of ``layout.leads``; what ``is_gap_CT`` marks was not measured."""

    layout: Layout
    samples_CT: NDArray[Any]
    is_gap_CT: NDArray[np.bool_] | None
    checksum_C: NDArray[np.uint16]


def read_ecg(ecg: EcgData, path: str) -> NDArray[np.int16]:
    """Read one record (its path in the record list, without suffix) and bring it into the cohort's form.

    For one thread: the working space is shared by all calls in a process.

    Shape:
        result: (12, 1000) microvolts, leads in the order of ``ECG_LEADS``

    Raises:
        RejectedRecordError: the record breaks a rule.
    """
    record = _read_raw(ecg, path)
    layout, samples_CT = record.layout, record.samples_CT
    sum_C = samples_CT.astype(np.uint16, copy=False).sum(axis=1, dtype=np.uint16)  # a checksum counts modulo 65536
    if (wrong := sum_C != record.checksum_C).any():
        raise RejectedRecordError(Reason.CHECKSUM, " ".join(ECG_LEADS[lead] for lead in layout.leads[wrong]))
    num_absent = len(ECG_LEADS) - len(layout.leads)
    if has_flat_leads(samples_CT, layout.sampling_rate_hz, MAX_UNUSABLE_LEADS - num_absent):
        raise RejectedRecordError(Reason.FLAT)
    resampler = resampler_of(layout.sampling_rate_hz)
    signal_CT = np.subtract(
        samples_CT, layout.baseline_C1, out=resampler.signal_CT[: len(layout.leads)], casting="same_kind"
    )
    if record.is_gap_CT is not None:
        _fill_gaps(signal_CT, record.is_gap_CT)
    height_C = (signal_CT.max(axis=1) - signal_CT.min(axis=1)) * layout.microvolts_per_unit_C1[:, 0]
    if np.count_nonzero(height_C) < len(ECG_LEADS) - MAX_UNUSABLE_LEADS:
        raise RejectedRecordError(Reason.FLAT)
    height = float(np.median(height_C[height_C > 0]))
    if not PLAUSIBLE_UV[0] <= height <= PLAUSIBLE_UV[1]:
        raise RejectedRecordError(Reason.AMPLITUDE, f"{height / 1000:.3g} mV in the median lead")
    microvolts_CT = resampler.resample(len(layout.leads)) * layout.microvolts_per_unit_C1
    microvolts_CT[height_C == 0] = 0.0
    result_CT: NDArray[np.int16] = np.rint(np.clip(microvolts_CT, -LIMIT_UV, LIMIT_UV)).astype(np.int16)
    if num_absent == 0:
        return result_CT
    all_leads_CT = np.zeros(ECG_SHAPE, np.int16)
    all_leads_CT[layout.leads] = result_CT
    return all_leads_CT


def has_flat_leads(samples_CT: NDArray[Any], sampling_rate_hz: int, num_allowed: int) -> bool:
    """Whether more leads than allowed stand at one number for a second or longer; a gap is a number too.

    Such a stretch holds at least one whole block of half a second without a change: almost every record ends there.
    """
    changes_CT = samples_CT[:, 1:] != samples_CT[:, :-1]
    half = sampling_rate_hz // 2
    num_blocks = changes_CT.shape[1] // half
    moves_in_each_C = changes_CT[:, : num_blocks * half].reshape(-1, num_blocks, half).any(axis=2).all(axis=1)
    if np.count_nonzero(~moves_in_each_C) <= num_allowed:
        return False
    edges = [np.concatenate([[-1], np.flatnonzero(changes_T), [len(changes_T)]]) for changes_T in changes_CT]
    return sum(int(np.diff(edge).max()) >= sampling_rate_hz for edge in edges) > num_allowed


def _read_raw(ecg: EcgData, path: str) -> RawRecord:
    """Read header and samples."""
    header_file = os.path.join(ecg.root, f"{path}.hea")
    text = _read_inside(ecg, header_file).decode("utf-8", errors="replace")
    header = parse_plain_header(text, ecg)
    if header is None:
        return _read_with_wfdb(ecg, header_file.removesuffix(".hea"), text)
    layout = header.layout
    num_bytes = 2 * layout.num_signals * layout.num_samples
    content = _read_inside(ecg, os.path.join(os.path.dirname(header_file), header.file), num_bytes)
    samples_TC = np.frombuffer(content, "<i2").reshape(layout.num_samples, layout.num_signals)
    samples_CT = samples_TC.T[layout.columns]
    has_gap = samples_CT.min() == INVALID
    return RawRecord(layout, samples_CT, samples_CT == INVALID if has_gap else None, header.checksum_C)


def _read_with_wfdb(ecg: EcgData, path: str, text: str) -> RawRecord:
    """Read any WFDB record as stored; every file that its header names is looked at first."""
    import wfdb  # half a second to import, and seldom needed

    lines = [line for line in text.splitlines()[1:] if line.strip() and not line.startswith("#")]
    for name in {line.split()[0] for line in lines}:
        _inside(ecg, os.path.join(os.path.dirname(path), name))
    record = None
    try:
        record = wfdb.rdrecord(path, physical=False, return_res=32)
    except FileNotFoundError:
        raise RejectedRecordError(Reason.MISSING) from None
    except Exception:  # its header may tell what is wrong, and wfdb takes long over a header
        record = None
    try:
        head = record or wfdb.rdheader(path)
        layout = layout_of(
            ecg,
            sampling_rate_hz=float(head.fs),
            num_samples=int(head.sig_len),
            names=head.sig_name,
            units=head.units,
            gains=head.adc_gain,
            baselines=head.baseline,
        )
        if record is None:
            raise RejectedRecordError(Reason.DAMAGED)
        samples_CT = record.d_signal.T[layout.columns]
        is_gap_CT = np.isnan(record.dac().T[layout.columns])
        checksum_C = np.array(record.checksum)[layout.columns].astype(np.uint16)
    except RejectedRecordError:
        raise
    except FileNotFoundError:
        raise RejectedRecordError(Reason.MISSING) from None
    except Exception:  # a damaged file can make wfdb raise anything; what it raised helps no one
        raise RejectedRecordError(Reason.DAMAGED) from None
    return RawRecord(layout, samples_CT, is_gap_CT if is_gap_CT.any() else None, checksum_C)


def _fill_gaps(signal_CT: NDArray[np.float32], is_gap_CT: NDArray[np.bool_]) -> None:
    """Interpolate missing samples linearly in each lead; a lead with none at all becomes zero."""
    time = np.arange(signal_CT.shape[1])
    for signal_T, is_gap_T in zip(signal_CT, is_gap_CT, strict=True):
        known = ~is_gap_T
        signal_T[:] = np.interp(time, time[known], signal_T[known]) if known.any() else 0.0


def _read_inside(ecg: EcgData, file: str, num_bytes: int | None = None) -> bytes:
    """The content of a file under ``data.ecg.root``, which must be of this size."""
    try:
        with open(_inside(ecg, file), "rb", buffering=0) as opened:
            if num_bytes is not None and (found := os.fstat(opened.fileno()).st_size) != num_bytes:
                raise RejectedRecordError(Reason.SIZE, f"{found:,} bytes, header says {num_bytes:,}")
            return opened.read()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no path at all
        raise RejectedRecordError(Reason.MISSING) from None
    except OSError as error:
        raise RejectedRecordError(Reason.UNREADABLE, error.strerror or "") from None


def _inside(ecg: EcgData, file: str) -> str:
    """The file, unless its real place is not under ``data.ecg.root``: a link or ``..`` would lead out of it."""
    if not _real_path(file).startswith(os.path.join(_real_path(str(ecg.root)), "")):
        raise RejectedRecordError(Reason.OUTSIDE)
    return file


@lru_cache(maxsize=8192)
def _real_path(path: str) -> str:
    """``os.path.realpath``, looking at each folder once for all the files in it."""
    parent, name = os.path.split(path)
    if name in ("", ".", "..") or os.path.islink(path):
        return os.path.realpath(path)
    return os.path.join(_real_path(parent), name)
