"""What the status of an infusion or a procedure says, in plain form: that it was given, or that it was not."""

import re
from collections.abc import Sequence

# What a status says of a row. MetaVision's own: MIT-LCP/mimic-code#47 (what is rewritten was never given; a pause or a
# stop ends a row that was). Others: the status of an administration in FHIR, the actions of medication records.
GIVEN = frozenset(
    "finishedrunning|changedose/rate|changed|stopped|paused|bolus|flushed|running|active|in progress|completed|complete"
    "|given|given by other|finished|started|restarted|continued|infusing|new bag|new syringe|rate change|rate verify"
    "|rate/dose change|rate/dose verify|bolus from bag|started bolus|finished bolus|on hold|reported".split("|")
)
NOT_GIVEN = frozenset(
    "held|mar hold|missed|omitted|aborted|planned|scheduled|pending|due|ordered|not started".split("|")
)
TAKEN_BACK = re.compile(r"\b(rewritten|cancell?ed|deleted|void(ed)?|in error|not (given|done|administered)|refused)\b")


def plain_status(text: str) -> str:
    """A status in small letters, with blanks for marks between words, and not more than one.

    Example:
        >>> plain_status(" Entered-in-Error"), plain_status("FinishedRunning")
        ('entered in error', 'finishedrunning')
    """
    return re.sub(r"[\s_-]+", " ", re.sub(r"[\[\](){}]", "", text).strip().lower())


def is_given(status: str, not_given: Sequence[str] = ()) -> bool | None:
    """Whether a row of this plain status was given; None if nobody knows. ``not_given`` are a hospital's own words.

    Example:
        >>> is_given("finishedrunning"), is_given("rewritten"), is_given("canceled entry"), is_given("storniert")
        (True, False, False, None)
    """
    if status in NOT_GIVEN or status in {plain_status(word) for word in not_given} or TAKEN_BACK.search(status):
        return False
    return True if status in GIVEN else None
