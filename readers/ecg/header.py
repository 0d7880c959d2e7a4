"""The header of an ECG record, by WFDB's header(5): what its samples mean, checked once for all that say the same.

Only what decides the signal is read. Of the record line these are the number of signals, the sampling rate and the
number of samples: name, counter, time and date may be written in any way. wfdb reads them too, and raises for a date in
words or a dot in the name.

The headers of one machine differ in file, first samples and checksums alone. The rest, the signal block, is parsed and
checked once and then found in a cache: parsing is what makes reading a WFDB record slow.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lemof_model.ecg_leads import MICROVOLTS
from lemof_model.features import ECG_LEADS, ECG_SECONDS
from readers.ecg.faults import Reason, RejectedRecordError
from readers.ecg.leads import lead_columns, require_leads
from readers.ecg.settings import Settings
from readers.tables.unreadable import form_of

RATES_HZ = range(50, 20_001)  # what data.ecg.accept_hz may list
DEFAULT_HZ = 250.0
UNSTATED = -1

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RATE = re.compile(rf"({_NUMBER})(?:[/(].*)?")
_FORMAT = re.compile(r"(\d+)(?:x(\d*))?(?::(\d*))?(?:\+(\d*))?")
_GAIN = re.compile(rf"({_NUMBER})?(?:\(({_NUMBER})?\))?(?:/(.*))?")
_MULTI = re.compile(r".*/(\d+)")
# After file, format and gain each number may be missing, with those behind it; then comes the description.
_SIGNAL = re.compile(r"(\S+)\s+(\S+)(?:\s+(\S+))?" + r"(?:\s+([-+]?\d+(?:\.0*)?)(?!\S))?" * 5 + r"(?:\s+(.*))?")

Signal = tuple[str, str, str, str]  # format, gain, zero, description


class Storage(NamedTuple):
    """How the samples of a signal are stored: WFDB's format, samples in a frame, frames by which it lags, and bytes in
    front of the first sample."""

    kind: str
    samples_per_frame: int
    skew: int
    byte_offset: int


@dataclass(frozen=True, eq=False)
class Layout:
    """What the samples of a record mean, lead by lead in the order of ``ECG_LEADS``.

    Attributes:
        num_frames: samples of each signal; None where the header leaves it to the size of the file.
        leads: index into ``ECG_LEADS`` of the leads that the record has (all, unless missing ones may be zero).
        columns: which signal each of them is; microvolts = (sample - baseline) * microvolts_per_unit.
        microvolts_per_physical: of the median lead, by its header; NaN where that names no unit that is known.
        gain: gain and unit of all leads, as ``1000/mV``; empty where they differ.
        storage: of all signals.
        plain_offset: bytes in front of the samples where all signals are in format 16 without skew; else None.
    """

    sampling_rate_hz: int
    num_frames: int | None
    num_signals: int
    leads: NDArray[np.int64]
    columns: NDArray[np.int64]
    baseline_C1: NDArray[np.float32]
    microvolts_per_unit_C1: NDArray[np.float32]
    microvolts_per_physical: float
    gain: str
    storage: tuple[Storage, ...]
    plain_offset: int | None


@dataclass(frozen=True, eq=False)
class Header:
    """A header: its layout, and what differs from record to record: for each signal its file and its first value, for
    each lead the checksum of its samples modulo 65536, or ``UNSTATED``."""

    layout: Layout
    files: tuple[str, ...]
    first_values: tuple[str, ...]
    checksum_C: NDArray[np.int32]


@dataclass(frozen=True)
class SegmentedHeader:
    """The header of a record in segments: each has a name (``~`` is a gap) and a number of samples."""

    sampling_rate_hz: int
    num_frames: int
    segments: tuple[tuple[str, int], ...]


def parse_header(text: str, ecg: Settings, *, is_segment: bool = False) -> Header | SegmentedHeader:
    """Parse and check a header. A segment may be of any length and lack any lead.

    Raises:
        RejectedRecordError: the header breaks a rule.
    """
    try:
        return _parse(text, ecg, is_segment=is_segment)
    except (ValueError, OverflowError):  # digits without end, or what only looks like a number
        raise RejectedRecordError(Reason.SIGNAL_LINE, "a number") from None


def _parse(text: str, ecg: Settings, *, is_segment: bool) -> Header | SegmentedHeader:
    """``parse_header``; a number that is none raises as Python does."""
    text = text.replace("\r", "\n") if "\r" in text else text  # no other character ends a line, a NEL least of all
    lines = [line for raw in text.lstrip("\ufeff").split("\n") if (line := raw.strip()) and line[0] != "#"]
    if not lines:
        raise RejectedRecordError(Reason.RECORD_LINE, "none")
    name, *record = lines[0].split(None, 4)[:4]
    if "/" in name and (multi := _MULTI.fullmatch(name)):
        return _parse_segments(record, int(multi[1]), lines[1:], ecg)
    rows = [line.split(None, 8) for line in lines[1:]]
    if not record or str(len(rows)) != record[0]:
        rows = rows[: _num_signals(record, len(rows))]
    stated: list[int | None]
    try:
        files, formats, gains, _, zeros, first_values, checksums, blocks, names = zip(*rows, strict=True)
        stated = [int(checksum) for checksum in checksums]
        is_whole = set(blocks) == {"0"}
    except ValueError:  # not nine fields in each line, or words where numbers would be
        is_whole = False
    if not is_whole:
        columns = zip(*map(_split, lines[1 : len(rows) + 1]), strict=True)
        files, formats, gains, _, zeros, first_values, checksums, _, names = columns
        first_values = tuple(first or zero or "0" for first, zero in zip(first_values, zeros, strict=True))
        stated = [int(float(checksum)) if checksum else None for checksum in checksums]
    layout = _layout(tuple(record), tuple(zip(formats, gains, zeros, names, strict=True)), ecg, is_segment)
    return Header(layout, files, first_values, _checksums(stated, layout))


def require_duration(num_frames: int, sampling_rate_hz: float) -> None:
    """Refuse a record that is not exactly 10 s long.

    Raises:
        RejectedRecordError: it is not.
    """
    if num_frames == 0:
        raise RejectedRecordError(Reason.EMPTY)
    if num_frames != sampling_rate_hz * ECG_SECONDS:
        raise RejectedRecordError(Reason.DURATION, f"{num_frames / sampling_rate_hz:g} s")


def _num_signals(record: Sequence[str], num_lines: int) -> int:
    """How many signals the record line says there are; more lines than that are none of the record's."""
    if not record or not record[0].isdecimal():
        raise RejectedRecordError(Reason.RECORD_LINE, "number of signals")
    if not 0 < int(record[0]) <= num_lines:
        raise RejectedRecordError(Reason.NUM_SIGNALS, f"{num_lines} of {int(record[0])}")
    return int(record[0])


def _split(line: str) -> tuple[str, ...]:
    """The nine fields of a signal line, empty where they are missing."""
    matched = _SIGNAL.fullmatch(line)
    if matched is None:
        raise RejectedRecordError(Reason.SIGNAL_LINE)
    return tuple(field or "" for field in matched.groups())


def _checksums(stated: Sequence[int | None], layout: Layout) -> NDArray[np.int32]:
    """The checksum of each lead. A header without number of samples says nothing by them; neither does one in which
    they are all 0, the placeholder of writers that do not compute them."""
    checksums = [UNSTATED if checksum is None else checksum % 65536 for checksum in stated]
    checksum_C = np.array(checksums, np.int32)[layout.columns]
    if layout.num_frames is None or (checksum_C <= 0).all():
        checksum_C[:] = UNSTATED
    return checksum_C


@lru_cache(maxsize=256)
def _layout(record: tuple[str, ...], signals: tuple[Signal, ...], ecg: Settings, is_segment: bool) -> Layout:
    """The layout of a signal block, in the order in which its rules are checked."""
    rate, num_frames = _rate_and_length(record)
    _require_rate(rate, ecg)
    if num_frames is not None and not is_segment:
        require_duration(num_frames, rate)
    column_of = lead_columns([description for *_, description in signals])
    if not is_segment:
        require_leads(list(column_of), ecg)
    storage = tuple(_storage(kind) for kind, *_ in signals)
    calibrations = [_calibration(gain, zero) for _, gain, zero, _ in (signals[column] for column in column_of.values())]
    physical = [MICROVOLTS.get(unit.casefold(), np.nan) for *_, unit in calibrations]
    unknown = {unit for (*_, unit), microvolts in zip(calibrations, physical, strict=True) if microvolts != microvolts}
    if unknown and ecg.units == "mV":
        raise RejectedRecordError(Reason.UNIT, ", ".join(sorted(map(_shown, unknown))))
    gain_C = np.array([gain for gain, *_ in calibrations])
    if not (gain_C > 0).all():
        raise RejectedRecordError(Reason.GAIN, f"{gain_C.min():g}")
    factor_C = np.array(physical) if ecg.units == "mV" else np.ones(len(physical))
    is_plain = {(one.kind, one.samples_per_frame, one.skew) for one in storage} == {("16", 1, 0)}
    return Layout(
        sampling_rate_hz=int(rate),
        num_frames=num_frames,
        num_signals=len(signals),
        leads=np.array([ECG_LEADS.index(lead) for lead in column_of], np.int64),
        columns=np.array(list(column_of.values()), np.int64),
        baseline_C1=np.array([baseline for _, baseline, _ in calibrations], np.float32)[:, None],
        microvolts_per_unit_C1=(factor_C / gain_C).astype(np.float32)[:, None],
        microvolts_per_physical=median(physical) if physical else np.nan,
        gain=gains.pop() if len(gains := {f"{gain:g}/{unit}" for gain, _, unit in calibrations}) == 1 else "",
        storage=storage,
        plain_offset=storage[0].byte_offset if is_plain and len({one.byte_offset for one in storage}) == 1 else None,
    )


def _rate_and_length(record: Sequence[str]) -> tuple[float, int | None]:
    """Sampling rate and number of samples of a record line; without a number (or with 0) the files tell it."""
    matched = _RATE.fullmatch(record[1]) if len(record) > 1 else None
    if len(record) > 1 and matched is None:
        raise RejectedRecordError(Reason.RECORD_LINE, "sampling frequency")
    try:
        num_frames = float(record[2]) if len(record) > 2 else 0.0
    except ValueError:
        num_frames = -1.0
    if num_frames < 0 or not num_frames.is_integer():
        raise RejectedRecordError(Reason.RECORD_LINE, "number of samples")
    return float(matched[1]) if matched else DEFAULT_HZ, int(num_frames) or None


def _require_rate(rate: float, ecg: Settings) -> None:
    """Refuse a rate that the site does not accept."""
    if rate not in ecg.accept_hz:
        reason = Reason.RATE if rate in RATES_HZ else Reason.RATE_BROKEN
        raise RejectedRecordError(reason, f"{rate:g} Hz")


def _storage(kind: str) -> Storage:
    """A signal line's format field."""
    matched = _FORMAT.fullmatch(kind)
    if matched is None:
        raise RejectedRecordError(Reason.FORMAT, f"form {form_of(kind)!r}")
    _, samples, skew, offset = matched.groups()
    return Storage(matched[1], max(int(samples or 1), 1), int(skew or 0), int(offset or 0))


def _calibration(gain: str, zero: str) -> tuple[float, float, str]:
    """Gain, baseline and unit of a signal line. By header(5) the baseline is the ADC zero, and the unit millivolt,
    where the gain field does not say; wfdb takes 200 where there is no gain, we take 0 as it stands."""
    matched = _GAIN.fullmatch(gain)
    if matched is None:
        raise RejectedRecordError(Reason.GAIN_FIELD, f"form {form_of(gain)!r}")
    return float(matched[1] or 0), float(matched[2] or zero or 0), matched[3] or "mV"


def _shown(unit: str) -> str:
    """A unit as it may stand in a message."""
    return "".join(letter if letter.isprintable() else "?" for letter in unit[:20])


def _parse_segments(record: Sequence[str], num_segments: int, lines: Sequence[str], ecg: Settings) -> SegmentedHeader:
    """The header of a record in segments."""
    rate, num_frames = _rate_and_length(record)
    _require_rate(rate, ecg)
    rows = [line.split() for line in lines[:num_segments]]
    if len(rows) < num_segments or any(len(row) < 2 or not row[1].isdecimal() for row in rows):
        raise RejectedRecordError(Reason.SEGMENTS, f"segment lines: {num_segments} must be there, with a length")
    segments = tuple((row[0], int(row[1])) for row in rows)
    total = sum(length for _, length in segments)
    if num_frames not in (None, total):
        raise RejectedRecordError(Reason.SEGMENTS, f"{total:,} samples, the record line says {num_frames:,}")
    require_duration(total, rate)
    return SegmentedHeader(int(rate), total, segments)
