"""Why an ECG record cannot be used: a fixed set of reasons, each with a code, and what to do about each code.

A reason names no patient. What is particular to one record (how many bytes, which leads) is its ``detail``, for the
person who looks at that record.
"""

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum

from lemof_model.errors import DataError

FEW = 10  # bad records that stop no preparation, however few ECGs a hospital has


class Reason(StrEnum):
    """The reason as it stands in counts, quarantine list and messages."""

    MISSING = "E202 file missing"
    UNREADABLE = "E202 file cannot be read"
    OUTSIDE = "E202 file outside data.ecg.root"
    DAMAGED = "E202 file damaged"
    EMPTY = "E202 no samples"
    SIZE = "E202 .dat of another size than its header says"
    CHECKSUM = "E202 checksum wrong"
    RATE = "E203 sampling rate not accepted"
    DURATION = "E203 not 10 seconds long"
    LEAD_MISSING = "E204 lead missing"
    LEAD_REPEATED = "E204 lead repeated"
    UNIT = "E205 unit not mV"
    GAIN = "E205 gain not positive"
    AMPLITUDE = "E205 amplitude impossible"
    FLAT = "E206 flat for a second in 6 leads or more"


ADVICE = {
    Reason.MISSING: "Copy the files again. In the record list a path ends without .hea, and has / between folders.",
    Reason.OUTSIDE: "In the record list a path has no / in front; links must not lead out of data.ecg.root.",
    Reason.DURATION: "Only records of exactly 10 s are used; export them whole.",
    "E202": "Copy the files again.",
    "E203": "List the rate in data.ecg.accept_hz to resample it.",
    "E204": "Leads are known by their names, I to III, aVR to aVF and V1 to V6: name them so. Set "
    "data.ecg.on_missing_lead: zero to keep records that lack up to 5.",
    "E205": "Set data.ecg.units: uV if the numbers of the whole site are microvolts.",
    "E206": "Such a record holds no usable signal; look at the export if there are many.",
}
"""By reason, or by the code of those that have no advice of their own."""


def advice_on(reason: str) -> str:
    """What to do about a reason."""
    return ADVICE.get(reason) or ADVICE[reason[:4]]


class RejectedRecordError(Exception):
    """A record that cannot be used; its text is the reason and the detail."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


def refuse_too_many(
    rejected: Mapping[str, str], num_chosen: int, max_bad_fraction: float, list_row_of: Mapping[str, int] | None = None
) -> None:
    """Stop a preparation when more records are bad than the site allows: a fraction of the chosen ones, or ten.

    ``list_row_of`` is the row of each path in the record list; it names a record without naming a patient.

    Raises:
        DataError: with the number of each reason, and what to do about the most frequent one.
    """
    allowed = max(int(max_bad_fraction * num_chosen), FEW)
    if len(rejected) <= allowed:
        return
    counts = Counter(rejected.values()).most_common()
    row = (list_row_of or {}).get(next(iter(rejected)))
    first = f"; first: row {row:,} of the record list" if row else ""
    reasons = ", ".join(f"{count:,} {reason[5:]}" for reason, count in counts)
    code = counts[0][0][:4]
    raise DataError(
        f"ECG records must be usable but for {allowed:,} of {num_chosen:,}, got {len(rejected):,} bad ones "
        f"({reasons}{first}). {advice_on(counts[0][0])} [{code}]"
    )
