"""A WFDB record in segments as one signal: each segment in microvolts by its own header, gaps marked.

In a fixed layout every segment has the same signals. In a variable one the first segment, of no samples, only lists the
signals; later ones may lack some. A lead counts as there when any segment has it.
"""

import os
from dataclasses import replace

import numpy as np

from lemof_model.features import ECG_LEADS
from readers.ecg.faults import Reason, RejectedRecordError
from readers.ecg.files import read_header_file
from readers.ecg.header import Header, Layout, SegmentedHeader, parse_header
from readers.ecg.leads import require_leads
from readers.ecg.samples import RawRecord, read_samples
from readers.ecg.settings import Settings

GAP = "~"


def read_segments(ecg: Settings, folder: str, header: SegmentedHeader) -> RawRecord:
    """Read every segment; their headers lie in the folder of the record's own, which is given from the root.

    Raises:
        RejectedRecordError: a segment breaks a rule, or they do not fit together.
    """
    signal_CT = np.zeros((len(ECG_LEADS), header.num_frames), np.float32)
    is_gap_CT = np.ones(signal_CT.shape, np.bool_)
    layouts: list[Layout] = []
    start, is_verified = 0, True
    for name, length in header.segments:
        record = _read_segment(ecg, folder, name, header.sampling_rate_hz, length) if name != GAP and length else None
        if record is not None:
            layout = record.layout
            part = np.s_[layout.leads, start : start + length]
            signal_CT[part] = (record.samples_CT - layout.baseline_C1) * layout.microvolts_per_unit_C1
            is_gap_CT[part] = False if record.is_gap_CT is None else record.is_gap_CT
            layouts.append(layout)
            is_verified &= record.is_verified
        start += length
    leads = np.unique(np.concatenate([layout.leads for layout in layouts])) if layouts else np.empty(0, np.int64)
    require_leads([ECG_LEADS[lead] for lead in leads], ecg)
    signal_CT[is_gap_CT] = 0.0
    whole = replace(
        layouts[0],
        num_frames=header.num_frames,
        leads=leads,
        baseline_C1=np.zeros((len(leads), 1), np.float32),
        microvolts_per_unit_C1=np.ones((len(leads), 1), np.float32),
    )
    is_gap_CT = is_gap_CT[leads]
    return RawRecord(whole, signal_CT[leads], is_gap_CT if is_gap_CT.any() else None, is_verified)


def _read_segment(ecg: Settings, folder: str, name: str, sampling_rate_hz: int, length: int) -> RawRecord | None:
    """One segment, which is a record of its own, of the length that the record's header says; None without leads."""
    header = parse_header(read_header_file(ecg, os.path.join(folder, name)), ecg, is_segment=True)
    if not isinstance(header, Header):
        raise RejectedRecordError(Reason.SEGMENTS, "a segment has segments")
    if header.layout.sampling_rate_hz != sampling_rate_hz:
        raise RejectedRecordError(Reason.SEGMENTS, f"one at {header.layout.sampling_rate_hz} Hz")
    if not len(header.layout.leads):
        return None
    record = read_samples(ecg, os.path.join(ecg.root, folder), header)
    if record.samples_CT.shape[1] != length:
        raise RejectedRecordError(Reason.SEGMENTS, f"one of {record.samples_CT.shape[1]:,} samples, not {length:,}")
    return record
