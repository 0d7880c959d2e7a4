"""Why an ECG record cannot be used: a fixed set of reasons, each with a code, and what to do about each of them.

A reason names no patient. What is particular to one record (how many bytes, which leads) is its ``detail``, for the
person who looks at that record. Where a header is at fault, the reason names its field as WFDB's header(5) does.
"""

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum

from lemof_model.errors import DataError

FEW = 10  # bad records that stop no preparation, however few ECGs a hospital has


class Reason(StrEnum):
    """The reason as it stands in counts, quarantine list and messages."""

    HEADER_MISSING = "E202 header file missing"
    SIGNALS_MISSING = "E202 signal file missing"
    SUFFIX = "E202 path with .hea, .dat or .mat at its end"
    BACKSLASH = "E202 path with backslashes"
    ABSOLUTE = "E202 absolute path"
    OUTSIDE = "E202 file outside data.ecg.root"
    UNREADABLE = "E202 file cannot be read"
    RECORD_LINE = "E202 record line of the header not readable"
    NUM_SIGNALS = "E202 fewer signal lines than the record line says"
    SIGNAL_LINE = "E202 signal line of the header not readable"
    FORMAT = "E202 format field of a signal line not readable"
    FORMAT_UNKNOWN = "E202 format of a signal line not known"
    LENGTH = "E202 number of samples not in the record line"
    SEGMENTS = "E202 segments that make no record"
    DAMAGED = "E202 signal file damaged"
    EMPTY = "E202 no samples"
    SIZE = "E202 signal file of another size than its header says"
    CHECKSUM = "E202 checksum wrong"
    RATE = "E203 sampling rate not accepted"
    RATE_BROKEN = "E203 sampling rate no whole number from 50 to 20,000"
    DURATION = "E203 not 10 seconds long"
    LEAD_MISSING = "E204 lead missing"
    LEADS_MISSING = "E204 more than 5 leads missing"
    LEAD_REPEATED = "E204 lead repeated"
    UNNAMED = "E204 signal lines without a description"
    UNIT = "E205 unit not known"
    GAIN_FIELD = "E205 gain field of a signal line not readable"
    GAIN = "E205 gain not positive"
    MICROVOLTS = "E205 numbers that look like microvolts under another unit"
    NO_MICROVOLTS = "E205 numbers that are no microvolts, which data.ecg.units says"
    AMPLITUDE = "E205 amplitude impossible"
    FLAT = "E206 flat for a second in 6 leads or more"

    @property
    def code(self) -> str:
        """The failure's number in the hospital guide."""
        return self.value[:4]

    @property
    def words(self) -> str:
        """The reason without its number."""
        return self.value[5:]


Rejection = tuple[str, str]  # reason, and what is particular to the record

_COPY = "Copy the files again."
_LEADS = "Leads are known by the descriptions in the signal lines, as I to III, aVR to aVF and V1 to V6: name them so."
_HEADER = "Is the header whole? Then mend it by WFDB's header(5)."

ADVICE = {
    Reason.HEADER_MISSING: "Copy the files again. Is data.ecg.root the folder that the record list's paths start at?",
    Reason.SIGNALS_MISSING: "The first word of a signal line names its file, beside the header: is it there under that "
    "name?",
    Reason.SUFFIX: "In the record list a path ends without .hea, .dat or .mat: take it off.",
    Reason.BACKSLASH: "In the record list a path has / between its folders: write one for each backslash.",
    Reason.ABSOLUTE: "In the record list a path starts at data.ecg.root, not at / or a drive: cut off the rest.",
    Reason.OUTSIDE: "In the record list a path starts at data.ecg.root, and neither .. nor a link leads out of it.",
    Reason.UNREADABLE: "Mend the permissions, or copy the files again.",
    Reason.RECORD_LINE: f"{_HEADER} Its first line is: name, number of signals, sampling rate, number of samples.",
    Reason.NUM_SIGNALS: f"{_HEADER} The record line must say how many signal lines follow.",
    Reason.SIGNAL_LINE: f"{_HEADER} A signal line begins with file, format and gain.",
    Reason.FORMAT: f"{_HEADER} The second word of a signal line is: format, samples per frame, skew and byte offset, "
    "as in 16x2:3+24; format and offset are the same for all signals of a file.",
    Reason.FORMAT_UNKNOWN: "Write the signals in format 16.",
    Reason.LENGTH: "Write the number of samples into the record line: a compressed format does not tell it.",
    Reason.SEGMENTS: "Segments must be there, at one rate and as long as the header says; or write each record as one.",
    Reason.DAMAGED: _COPY,
    Reason.EMPTY: _COPY,
    Reason.SIZE: _COPY,
    Reason.CHECKSUM: f"{_COPY} If the export has written wrong checksums into every header, write them anew or leave "
    "them out.",
    Reason.RATE: "List the rate in data.ecg.accept_hz to resample it.",
    Reason.RATE_BROKEN: "Resample these records at the hospital, or mend the sampling rate in their record lines.",
    Reason.DURATION: "Only records of exactly 10 s are used; export them whole.",
    Reason.LEAD_MISSING: f"{_LEADS} Set data.ecg.on_missing_lead: zero to keep records that lack up to 5.",
    Reason.LEADS_MISSING: _LEADS,
    Reason.LEAD_REPEATED: f"{_LEADS} Each may be there once.",
    Reason.UNNAMED: f"{_LEADS} A description is the last field of its line.",
    Reason.UNIT: "Write the unit behind the gain as mV, uV, nV or V, in the header of each record.",
    Reason.GAIN_FIELD: f"{_HEADER} The third word of a signal line is: gain, baseline and unit, as in 1000(0)/mV.",
    Reason.GAIN: "Write the machine's gain into the signal lines; by WFDB a gain of 0 means that nobody calibrated.",
    Reason.MICROVOLTS: "Set data.ecg.units: uV if the numbers of the whole site are microvolts.",
    Reason.NO_MICROVOLTS: "Take data.ecg.units: uV out of the site file: in the unit of their headers these records "
    "have the usual height.",
    Reason.AMPLITUDE: "Are gain and unit in the signal lines those of the machine?",
    Reason.FLAT: "Such a record holds no usable signal; look at the export if there are many.",
}


def told_of(reason: str, detail: str) -> str:
    """A rejection in words.

    Example:
        >>> told_of(Reason.UNIT, "mmHg"), told_of(Reason.FLAT, "")
        ('E205 unit not known: mmHg', 'E206 flat for a second in 6 leads or more')
    """
    return f"{reason}: {detail}" if detail else f"{reason}"


class RejectedRecordError(Exception):
    """A record that cannot be used; its text is the reason and the detail."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(told_of(reason, detail))
        self.reason = reason
        self.detail = detail


def refuse_too_many(
    rejected: Mapping[str, Rejection],
    num_chosen: int,
    max_bad_fraction: float,
    list_row_of: Mapping[str, int] | None = None,
) -> None:
    """Stop a preparation when more records are bad than the site allows: a fraction of the chosen ones, or ten.

    ``rejected`` has reason and detail of each; ``list_row_of`` is the row of each path in the record list, which names
    a record without naming a patient.

    Raises:
        DataError: with the number of each reason, the first record of the most frequent one, and what to do about it.
    """
    allowed = max(int(max_bad_fraction * num_chosen), FEW)
    if len(rejected) <= allowed:
        return
    counts = Counter(Reason(reason) for reason, _ in rejected.values()).most_common()
    worst = counts[0][0]
    path, detail = next((path, detail) for path, (reason, detail) in rejected.items() if reason == worst)
    row = (list_row_of or {}).get(path)
    first = f"; first: {told_of(f'row {row:,} of the record list', detail)}" if row else ""
    reasons = ", ".join(f"{count:,} {reason.words}" for reason, count in counts)
    raise DataError(
        rule=f"ECG records must be usable but for {allowed:,} of {num_chosen:,}",
        got=f"{len(rejected):,} bad ones ({reasons}{first})",
        fix=ADVICE[worst],
        code=worst.code,
    )
