"""The samples of an ECG record as they are stored, lead by lead, with its checksums verified.

Most records are one file in format 16, with or without a preamble (as .mat files have). Those are read directly. All
else goes through wfdb, which knows every format: it is given a header of our own, one for each file, with the fields
that it needs and none of those that it refuses. Both give the same numbers.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemof_model.features import ECG_LEADS
from readers.ecg.faults import Reason, RejectedRecordError
from readers.ecg.files import read_inside, size_inside
from readers.ecg.header import UNSTATED, Header, Layout, Storage
from readers.ecg.settings import Settings

BYTES_PER_SAMPLE: dict[str, int | Fraction] = {  # by format: signal(5)
    "8": 1, "16": 2, "24": 3, "32": 4, "61": 2, "80": 1, "160": 2,
    "212": Fraction(3, 2), "310": Fraction(4, 3), "311": Fraction(4, 3),
}  # fmt: skip
COMPRESSED, DIFFERENCES = ("508", "516", "524"), "8"
INVALID = {  # the sample that stands for a missing one; differences (8) have none
    "8": 0, "80": -(2**7), "508": -(2**7), "310": -(2**9), "311": -(2**9), "212": -(2**11), "16": -(2**15),
    "61": -(2**15), "160": -(2**15), "516": -(2**15), "24": -(2**23), "524": -(2**23), "32": -(2**31),
}  # fmt: skip
PADDING = 3  # bytes that the last word of a packed format may hold beyond the last sample


@dataclass(frozen=True, eq=False)
class RawRecord:
    """A record as stored, its leads in the order of ``layout.leads``; what ``is_gap_CT`` marks was not measured.
    ``is_verified`` tells whether its header states checksums, which then hold."""

    layout: Layout
    samples_CT: NDArray[Any]
    is_gap_CT: NDArray[np.bool_] | None
    is_verified: bool


def read_samples(ecg: Settings, folder: str, header: Header) -> RawRecord:
    """Read the signal files, which lie in the header's folder.

    Raises:
        RejectedRecordError: a file is missing, damaged or of another size than the header says.
    """
    if header.layout.plain_offset is not None and len(set(header.files)) == 1:
        return _read_plain(ecg, os.path.join(folder, header.files[0]), header, header.layout.plain_offset)
    return read_with_wfdb(ecg, folder, header)


def _read_plain(ecg: Settings, file: str, header: Header, offset: int) -> RawRecord:
    """One file in format 16."""
    layout = header.layout

    def needed(size: int) -> int:
        return offset + 2 * layout.num_signals * _num_frames(header, size, offset, 2 * layout.num_signals)

    content = read_inside(ecg, file, Reason.SIGNALS_MISSING, needed)
    samples_TC = np.frombuffer(content, "<i2", offset=offset).reshape(-1, layout.num_signals)
    samples_CT = samples_TC.T.take(layout.columns, axis=0)
    sum_C = samples_CT.view(np.uint16).sum(axis=1, dtype=np.uint16)  # a checksum counts modulo 65536
    is_verified = _verify(header, sum_C)
    has_gap = samples_CT.min() == INVALID["16"]
    return RawRecord(layout, samples_CT, samples_CT == INVALID["16"] if has_gap else None, is_verified)


def _num_frames(header: Header, size: int, offset: int, bytes_per_frame: Fraction | int) -> int:
    """Frames of a file of so many bytes. One that is longer than the header says may hold other records too: then every
    checksum must be stated, or garbage would pass."""
    num_frames = header.layout.num_frames
    if num_frames is None:
        num_frames = max((size - offset) // bytes_per_frame, 0)
    needed = offset + math.ceil(num_frames * bytes_per_frame)
    allowed = needed + (0 if isinstance(bytes_per_frame, int) else PADDING)
    if size < needed or (size > allowed and (header.checksum_C == UNSTATED).any()):
        raise RejectedRecordError(Reason.SIZE, f"{size:,} bytes, header says {needed:,}")
    if num_frames == 0:
        raise RejectedRecordError(Reason.EMPTY)
    return num_frames


def _verify(header: Header, sum_C: NDArray[np.integer[Any]]) -> bool:
    """Whether every lead has a checksum; those that are stated must be its sum."""
    is_right_C = sum_C == header.checksum_C
    if is_right_C.all():
        return True
    is_stated_C = header.checksum_C != UNSTATED
    if (wrong := is_stated_C & ~is_right_C).any():
        raise RejectedRecordError(Reason.CHECKSUM, " ".join(ECG_LEADS[lead] for lead in header.layout.leads[wrong]))
    return bool(is_stated_C.all())


def read_with_wfdb(ecg: Settings, folder: str, header: Header) -> RawRecord:
    """Any format, any files; files that hold no lead are left alone.

    Raises:
        RejectedRecordError: as ``read_samples``.
    """
    layout = header.layout
    found: dict[int, tuple[NDArray[Any], NDArray[np.bool_]]] = {}
    for name in dict.fromkeys(header.files[column] for column in layout.columns):
        signals = [signal for signal, file in enumerate(header.files) if file == name]
        found |= _decode(ecg, os.path.join(folder, name), header, signals)
    of_leads = [found[column] for column in layout.columns.tolist()]
    is_verified = _verify(header, np.array([int(samples_T.sum()) % 65536 for samples_T, _ in of_leads]))
    aligned = [
        _frames(samples_T, is_gap_T, layout.storage[column])
        for (samples_T, is_gap_T), column in zip(of_leads, layout.columns, strict=True)
    ]
    if len({len(samples_T) for samples_T, _ in aligned}) > 1:
        raise RejectedRecordError(Reason.SIZE, "files of several lengths, the header does not say which")
    is_gap_CT = np.stack([is_gap_T for _, is_gap_T in aligned])
    samples_CT = np.stack([samples_T for samples_T, _ in aligned])
    return RawRecord(layout, samples_CT, is_gap_CT if is_gap_CT.any() else None, is_verified)


def _decode(
    ecg: Settings, file: str, header: Header, signals: Sequence[int]
) -> dict[int, tuple[NDArray[Any], NDArray[np.bool_]]]:
    """The stored samples of each signal of a file, and which of them are marked as missing."""
    stored = [header.layout.storage[signal] for signal in signals]
    if len({(one.kind, one.byte_offset) for one in stored}) > 1:
        raise RejectedRecordError(Reason.FORMAT, "several in one file")
    num_frames = _frames_in_file(header, size_inside(ecg, file, Reason.SIGNALS_MISSING), stored)
    first_values = [header.first_values[signal] for signal in signals]
    frames_TS = _read_frames(os.path.abspath(file), num_frames, stored, first_values)
    parts = np.split(frames_TS, np.cumsum([one.samples_per_frame for one in stored])[:-1], axis=1)
    mark = INVALID[stored[0].kind]
    return {
        signal: (np.nan_to_num(part.ravel(), nan=mark), np.isnan(part.ravel()))
        for signal, part in zip(signals, parts, strict=True)
    }


def _read_frames(
    file: str, num_frames: int, stored: Sequence[Storage], first_values: Sequence[str]
) -> NDArray[np.float64]:
    """A file as wfdb reads it, one frame a row, NaN where a sample is marked as missing. wfdb takes half a millisecond
    for a signal line, so the signals of a file are one to it unless each is decoded by itself."""
    import wfdb  # half a second to import, and seldom needed

    kind, widths, firsts = stored[0].kind, [one.samples_per_frame for one in stored], [0] * len(stored)
    if kind == DIFFERENCES:
        firsts = [_first_value(field) for field in first_values]
    elif kind not in COMPRESSED:
        widths, firsts = [sum(widths)], [0]
    lines = [f"record {len(widths)} 250 {num_frames}"]
    for width, first in zip(widths, firsts, strict=True):
        lines.append(f"signals {kind}x{width}+{stored[0].byte_offset} 1(0)/mV 0 0 {first} 0 0 signal")
    with TemporaryDirectory() as scratch:
        Path(scratch, "record.hea").write_text("\n".join(lines) + "\n", encoding="ascii")
        Path(scratch, "signals").symlink_to(file)
        try:
            found = wfdb.rdrecord(f"{scratch}/record", smooth_frames=False).e_p_signal
            return np.hstack([signal_T.reshape(num_frames, -1) for signal_T in found])
        except Exception:  # a damaged file can make wfdb raise anything; what it raised helps no one
            raise RejectedRecordError(Reason.DAMAGED, f"format {kind}") from None


def _first_value(field: str) -> int:
    """The initial value of a signal that is stored as differences."""
    try:
        return int(field)
    except ValueError:
        raise RejectedRecordError(Reason.SIGNAL_LINE, "initial value") from None


def _frames_in_file(header: Header, size: int, stored: Sequence[Storage]) -> int:
    """How many frames a file of such signals holds."""
    kind = stored[0].kind
    if kind in BYTES_PER_SAMPLE:
        per_frame = BYTES_PER_SAMPLE[kind] * sum(one.samples_per_frame for one in stored)
        return _num_frames(header, size, stored[0].byte_offset, per_frame)
    if kind not in COMPRESSED:
        raise RejectedRecordError(Reason.FORMAT_UNKNOWN, kind)
    if header.layout.num_frames is None:
        raise RejectedRecordError(Reason.LENGTH, f"format {kind}")
    return header.layout.num_frames


def _frames(
    samples_T: NDArray[Any], is_gap_T: NDArray[np.bool_], storage: Storage
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """One sample a frame: moved forward by the skew, behind which nothing was measured; several are averaged towards
    zero, as wfdb does it. A frame with a gap in it is one: wfdb averages the mark of the gap."""
    num = storage.samples_per_frame
    if late := min(storage.skew * num, len(samples_T)):
        samples_T = np.append(samples_T[late:], np.full(late, samples_T[-1]))
        is_gap_T = np.append(is_gap_T[late:], np.ones(late, np.bool_))
    if num == 1:
        return samples_T, is_gap_T
    return np.trunc(samples_T.reshape(-1, num).mean(axis=1)), np.any(is_gap_T.reshape(-1, num), axis=1)
