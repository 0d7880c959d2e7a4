"""One ECG record to 12 x 1000 int16 microvolts at 100 Hz.

Leads go by name, never by position (MIMIC-IV-ECG stores aVF before aVL). In order: gaps are interpolated lead by lead;
500 Hz becomes 100 Hz by a polyphase filter; values are clipped to +-3 mV, where artefacts begin
(AI4HealthUOL/ECG-MIMIC); a lead without a signal is zero. A record that breaks a rule is rejected with the reason:
most of the faults checked here pass wfdb in silence. What a header means and how samples are stored: ``header``,
``samples`` and ``segments``.

Shape letters: C leads, T time.
"""

import os
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lemof_model.features import ECG_HZ, ECG_LEADS, ECG_SECONDS
from readers.ecg.faults import Reason, RejectedRecordError
from readers.ecg.files import read_header_file
from readers.ecg.header import Header, Layout, parse_header, require_duration
from readers.ecg.leads import MAX_UNUSABLE_LEADS
from readers.ecg.resampling import resampler_of
from readers.ecg.samples import RawRecord, read_samples
from readers.ecg.segments import read_segments
from readers.ecg.settings import Settings

ECG_SHAPE = (len(ECG_LEADS), ECG_HZ * ECG_SECONDS)
LIMIT_UV = 3000
PLAUSIBLE_UV = (20.0, 30_000.0)  # height of the median lead: a wrong unit is a thousandfold, a real ECG 0.3 to 5 mV
LIKELY_UV = (200.0, 10_000.0)  # a height that numbers under another unit must have for that unit to be named


class EcgRecord(NamedTuple):
    """A record in the cohort's form, (12, 1000) microvolts; what its header says; whether that states checksums."""

    ecg_CT: NDArray[np.int16]
    layout: Layout
    is_verified: bool


def read_ecg(ecg: Settings, path: str) -> NDArray[np.int16]:
    """The signal of ``read_record`` alone."""
    return read_record(ecg, path).ecg_CT


def read_record(ecg: Settings, path: str) -> EcgRecord:
    """Read one record (its path in the record list, without suffix) and bring it into the cohort's form.

    For one thread: the working space is shared by all calls in a process.

    Shape:
        ecg_CT: (12, 1000) microvolts, leads in the order of ``ECG_LEADS``

    Raises:
        RejectedRecordError: the record breaks a rule.
    """
    record = _read_raw(ecg, path)
    layout, samples_CT = record.layout, record.samples_CT
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
    height_uv = median([height for height in height_C.tolist() if height > 0] or [0.0])
    if not PLAUSIBLE_UV[0] <= height_uv <= PLAUSIBLE_UV[1]:
        raise _impossible(height_uv, layout.microvolts_per_physical, ecg)
    microvolts_CT = resampler.resample(len(layout.leads)) * layout.microvolts_per_unit_C1
    microvolts_CT[height_C == 0] = 0.0
    result_CT: NDArray[np.int16] = np.rint(np.clip(microvolts_CT, -LIMIT_UV, LIMIT_UV)).astype(np.int16)
    if num_absent:
        all_leads_CT = np.zeros(ECG_SHAPE, np.int16)
        all_leads_CT[layout.leads] = result_CT
        result_CT = all_leads_CT
    return EcgRecord(result_CT, layout, record.is_verified)


def _impossible(height_uv: float, microvolts_per_physical: float, ecg: Settings) -> RejectedRecordError:
    """The rejection of a height that no ECG has: the unit, where the same numbers in another one look like an ECG."""
    found = f"{height_uv / 1000:.3g} mV in the median lead"
    is_header_right = LIKELY_UV[0] <= height_uv * microvolts_per_physical <= LIKELY_UV[1]
    if ecg.units == "uV":
        return RejectedRecordError(Reason.NO_MICROVOLTS if is_header_right else Reason.AMPLITUDE, found)
    is_microvolts = LIKELY_UV[0] <= height_uv / microvolts_per_physical <= LIKELY_UV[1]
    return RejectedRecordError(Reason.MICROVOLTS if is_microvolts else Reason.AMPLITUDE, found)


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


def _read_raw(ecg: Settings, path: str) -> RawRecord:
    """Read header and samples."""
    header, folder = parse_header(read_header_file(ecg, path), ecg), os.path.dirname(path)
    if not isinstance(header, Header):
        return read_segments(ecg, folder, header)
    record = read_samples(ecg, os.path.join(ecg.root, folder), header)
    require_duration(record.samples_CT.shape[1], record.layout.sampling_rate_hz)
    return record


def _fill_gaps(signal_CT: NDArray[np.float32], is_gap_CT: NDArray[np.bool_]) -> None:
    """Interpolate missing samples linearly in each lead; a lead with none at all becomes zero."""
    time = np.arange(signal_CT.shape[1])
    for signal_T, is_gap_T in zip(signal_CT, is_gap_CT, strict=True):
        known = ~is_gap_T
        signal_T[:] = np.interp(time, time[known], signal_T[known]) if known.any() else 0.0
