"""Which signals of a record are the twelve leads, by the descriptions that machines and converters write.

The list is closed: what is not on it is another signal (Frank's VX to VZ, a pressure, an inverted -aVR) and left alone.
"""

from collections.abc import Sequence

from client.prepare.ecg.faults import Reason, RejectedRecordError
from client.site import EcgData
from lemof_model.features import ECG_LEADS

MAX_UNUSABLE_LEADS = 5  # one more that is missing or flat, and the record is rejected

_BEFORE = (
    "", "lead ", "lead_", "lead-", "lead", "ecg ", "ecg_", "ecg-", "ekg ", "ekg_", "ecg lead ", "ecg_lead_",
    "mdc_ecg_lead_", "mdc_ecg_elec_potl_",
)  # fmt: skip
_OTHER_NAMES = {  # in Latin countries; in DICOM; by the electrode (IEC 60601-2-25)
    "I": ("di", "lead i (einthoven)"), "II": ("dii",), "III": ("diii",),
    **{f"V{number}": (f"c{number}",) for number in range(1, 7)},
}  # fmt: skip
LEAD_OF = {
    before + name: lead
    for lead in ECG_LEADS
    for name in (lead.lower(), *_OTHER_NAMES.get(lead, ()))
    for before in _BEFORE
}


def lead_of(description: str) -> str | None:
    """The lead that a description stands for; upper and lower case are one, and so are I, I. and I:

    Example:
        >>> lead_of("MDC_ECG_LEAD_AVR"), lead_of("Lead I"), lead_of("v4."), lead_of("-aVR"), lead_of("VX")
        ('aVR', 'I', 'V4', None, None)
    """
    return LEAD_OF.get(" ".join(description.casefold().split()).rstrip(".:"))


def lead_columns(descriptions: Sequence[str]) -> dict[str, int]:
    """The column of each lead that is there, in the order of ``ECG_LEADS``.

    Raises:
        RejectedRecordError: a lead is there twice, or no signal has a description.
    """
    found = [lead_of(description) for description in descriptions]
    if not any(descriptions):
        raise RejectedRecordError(Reason.UNNAMED)
    if repeated := [lead for lead in ECG_LEADS if found.count(lead) > 1]:
        raise RejectedRecordError(Reason.LEAD_REPEATED, " ".join(repeated))
    return {lead: found.index(lead) for lead in ECG_LEADS if lead in found}


def require_leads(there: Sequence[str], ecg: EcgData) -> None:
    """Refuse a record that lacks more leads than the site allows.

    Raises:
        RejectedRecordError: with the leads that are missing.
    """
    missing = [lead for lead in ECG_LEADS if lead not in there]
    if len(missing) > MAX_UNUSABLE_LEADS:
        raise RejectedRecordError(Reason.LEADS_MISSING, " ".join(missing))
    if missing and ecg.on_missing_lead == "skip":
        raise RejectedRecordError(Reason.LEAD_MISSING, " ".join(missing))
