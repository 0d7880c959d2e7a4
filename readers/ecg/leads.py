"""Which signals of a record are the twelve leads, and whether enough of them are there."""

from collections.abc import Sequence

from lemof_model.ecg_leads import lead_of
from lemof_model.features import ECG_LEADS
from readers.ecg.faults import Reason, RejectedRecordError
from readers.ecg.settings import Settings

MAX_UNUSABLE_LEADS = 5  # one more that is missing or flat, and the record is rejected


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


def require_leads(there: Sequence[str], ecg: Settings) -> None:
    """Refuse a record that lacks more leads than the site allows.

    Raises:
        RejectedRecordError: with the leads that are missing.
    """
    missing = [lead for lead in ECG_LEADS if lead not in there]
    if len(missing) > MAX_UNUSABLE_LEADS:
        raise RejectedRecordError(Reason.LEADS_MISSING, " ".join(missing))
    if missing and ecg.on_missing_lead == "skip":
        raise RejectedRecordError(Reason.LEAD_MISSING, " ".join(missing))
