"""What a reader of ECGs must know of a hospital's records; the site file says it (``data.ecg``)."""

from pathlib import Path
from typing import Literal, Protocol


class Settings(Protocol):
    """Where the records lie, and what is made of those that differ from MIMIC-IV-ECG's own.

    Attributes:
        root: the folder that paths of records start at.
        accept_hz: sampling rates that are resampled; others are refused.
        on_missing_lead: whether a record without a lead is skipped, or up to 5 of its leads are zero.
        units: ``uV`` takes the numbers of all records as microvolts, whatever their headers say.
    """

    @property
    def root(self) -> Path: ...  # noqa: D102
    @property
    def accept_hz(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def on_missing_lead(self) -> Literal["skip", "zero"]: ...  # noqa: D102
    @property
    def units(self) -> Literal["mV", "uV"]: ...  # noqa: D102
    def model_dump_json(self) -> str: ...  # noqa: D102
    def __hash__(self) -> int: ...
