"""The header of an ECG record: what its samples mean, checked once for all records that say the same.

The headers of one machine differ in record name, first samples and checksums alone. The rest, the signal block, is
parsed and checked once and then found in a cache: parsing is what makes reading a WFDB record slow.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from client.mimic_iv.ecg_faults import Reason, RejectedRecordError
from client.site import EcgData
from lemof_model.features import ECG_LEADS, ECG_SECONDS

MAX_UNUSABLE_LEADS = 5  # one more that is missing or flat, and the record is rejected
_PLAIN_RECORD = re.compile(r"(\d+) (\d+) (\d+)(?: .*)?")
_PLAIN_GAIN = re.compile(r"([-+]?\d+(?:\.\d+)?)\(([-+]?\d+)\)/(\S+)")

Signal = tuple[str, ...]  # format, gain, zero, block size, name


@dataclass(frozen=True, eq=False)
class Layout:
    """What the samples of a record mean, lead by lead in the order of ``ECG_LEADS``.

    Attributes:
        leads: index into ``ECG_LEADS`` of the leads that the record has (all, unless missing ones may be zero).
        columns: where in the file each of them is; microvolts = (sample - baseline) * microvolts_per_unit.
    """

    sampling_rate_hz: int
    num_samples: int
    num_signals: int
    leads: NDArray[np.int64]
    columns: NDArray[np.int64]
    baseline_C1: NDArray[np.float32]
    microvolts_per_unit_C1: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Header:
    """A header: its layout, and what differs from record to record."""

    layout: Layout
    file: str
    checksum_C: NDArray[np.uint16]


def parse_plain_header(text: str, ecg: EcgData) -> Header | None:
    """A header of one .dat file in format 16; None when it is anything else, which wfdb may understand.

    Raises:
        RejectedRecordError: the header breaks a rule.
    """
    first, *lines = [line for line in text.splitlines() if line and not line.startswith("#")] or [""]
    rows = [line.split(None, 8) for line in lines]
    if not rows or {len(row) for row in rows} != {9}:
        return None
    files, formats, gains, _, zeros, _, checksums, block_sizes, names = zip(*rows, strict=True)
    signals = tuple(zip(formats, gains, zeros, block_sizes, names, strict=True))
    layout = _plain_layout(first.partition(" ")[2].strip(), signals, ecg)
    if layout is None or len(set(files)) > 1:
        return None
    try:
        checksum_C = np.array([int(checksums[column]) % 65536 for column in layout.columns], np.uint16)
    except ValueError:
        return None
    return Header(layout, files[0], checksum_C)


@lru_cache(maxsize=256)
def _plain_layout(record: str, signals: tuple[Signal, ...], ecg: EcgData) -> Layout | None:
    """The layout of a signal block; None unless every signal is in format 16, without skew, offset or blocks."""
    head = _PLAIN_RECORD.fullmatch(record)
    gains = [_PLAIN_GAIN.fullmatch(gain) for _, gain, *_ in signals]
    matched = [gain for gain in gains if gain]
    is_plain = all((kind, zero, size) == ("16", "0", "0") for kind, _, zero, size, _ in signals)
    if head is None or len(matched) < len(signals) or not is_plain or int(head[1]) != len(signals):
        return None
    return layout_of(
        ecg,
        sampling_rate_hz=float(head[2]),
        num_samples=int(head[3]),
        names=[name.strip() for *_, name in signals],
        units=[gain[3] for gain in matched],
        gains=[float(gain[1]) for gain in matched],
        baselines=[float(gain[2]) for gain in matched],
    )


def layout_of(
    ecg: EcgData,
    *,
    sampling_rate_hz: float,
    num_samples: int,
    names: Sequence[str],
    units: Sequence[str],
    gains: Sequence[float],
    baselines: Sequence[float],
) -> Layout:
    """Check what a header says and find the leads by name, upper and lower case being one.

    Raises:
        RejectedRecordError: the header breaks a rule.
    """
    if num_samples == 0:
        raise RejectedRecordError(Reason.EMPTY)
    if sampling_rate_hz not in ecg.accept_hz:
        raise RejectedRecordError(Reason.RATE, f"{sampling_rate_hz:g} Hz")
    if num_samples != sampling_rate_hz * ECG_SECONDS:
        raise RejectedRecordError(Reason.DURATION, f"{num_samples / sampling_rate_hz:g} s")
    columns, leads = _lead_columns([name.upper() for name in names], ecg)
    if ecg.units == "mV" and (others := {units[column] for column in columns} - {"mV"}):
        raise RejectedRecordError(Reason.UNIT, ", ".join(sorted(others)))
    gain_C = np.array(gains)[columns]
    if not (gain_C > 0).all():
        raise RejectedRecordError(Reason.GAIN, f"{gain_C.min():g}")
    microvolts_per_physical = 1000.0 if ecg.units == "mV" else 1.0
    return Layout(
        sampling_rate_hz=int(sampling_rate_hz),
        num_samples=num_samples,
        num_signals=len(names),
        leads=np.array(leads),
        columns=np.array(columns),
        baseline_C1=np.array(baselines, np.float32)[columns, None],
        microvolts_per_unit_C1=(microvolts_per_physical / gain_C[:, None]).astype(np.float32),
    )


def _lead_columns(names: list[str], ecg: EcgData) -> tuple[list[int], list[int]]:
    """The column of each lead that is there, and which lead it is."""
    count = {lead: names.count(lead.upper()) for lead in ECG_LEADS}
    if repeated := [lead for lead in ECG_LEADS if count[lead] > 1]:
        raise RejectedRecordError(Reason.LEAD_REPEATED, " ".join(repeated))
    missing = [lead for lead in ECG_LEADS if count[lead] == 0]
    if len(missing) > (MAX_UNUSABLE_LEADS if ecg.on_missing_lead == "zero" else 0):
        raise RejectedRecordError(Reason.LEAD_MISSING, " ".join(missing))
    leads = [index for index, lead in enumerate(ECG_LEADS) if count[lead]]
    return [names.index(ECG_LEADS[index].upper()) for index in leads], leads
