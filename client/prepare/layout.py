"""The contract between preparation and a layout: how a hospital's tables lie, and what they call things.

Preparation knows what a stay, a measurement, an interval and an ECG are, and judges them all alike. A layout says where
they stand: it opens tables (``Source``) and names their columns and items. It judges nothing: it changes no value, and
leaves out no row but of other things than it is asked for. Times are local; time zero of a stay is its ``intime``.
Values are as they are stored, in the unit that the row spells, or else in that of the item; types are those that the
classes below state, and what cannot be read as one is null and counted.

    stays        who was in intensive care, and when: the three frames of ``StayTables``, with their columns
    diagnoses    ``hadm_id``, ``icd_code`` (text, zeros and all), ``icd_version`` (9 or 10): codes of admissions
    events       what was measured: ``Events``, a row with a key to a stay, an item, a time, a value, a unit in words
    intervals    what was given: ``Intervals``, a row with a key to a stay, an item, a begin and an end (or none yet)
    ecg_records  ``subject_id``, ``study_id``, ``ecg_time``, ``path`` under data.ecg.root: a row for each record
    checks       every table, as ``lemof-client check`` looks at it

Once read, ids and items are Int64 (or String, where a hospital's ids or a layout's items are texts), times
Datetime("us") without a zone, values Float64, words String, flags Int64 0 or 1, ages whole years.

Columns keep the names that the layout gives them, and messages speak of them by these; only ids, stays, codes and
records have the names above.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from client.prepare.measurements import Events
from client.prepare.stays import StayTables
from client.prepare.treatments import Intervals
from client.site import EcgData, EhrData, SiteConfig
from lemof_model.items import StoredConcept, StoredTreatment
from readers.tables.files import Columns
from readers.tables.source import Source

Stored = Mapping[str, Sequence[StoredConcept | StoredTreatment]]
"""What each table stores, by its name: concepts and treatments with their items."""


@dataclass(frozen=True)
class TableCheck:
    """A table to be looked at.

    Attributes:
        name: the layout's name of it.
        find: opens it; None where the hospital may lack it, and does. Raises a DataError where it must be there.
        columns: those that it must have.
        reads: what is read of it as events or intervals, once it is open; None for a table of stays or codes.
        is_of_codes: whether it is that of ``diagnoses``.
        without_hints: what is not known where it lacks hints.
    """

    name: str
    find: Callable[[], Source | None]
    columns: Columns
    reads: Callable[[Source], Events | Intervals] | None = None
    is_of_codes: bool = False
    without_hints: str = ""


class Layout(Protocol):
    """How the tables of some hospitals lie."""

    @property
    def name(self) -> str:
        """What ``data.ehr.layout`` calls it."""
        ...

    @property
    def stored(self) -> Stored:
        """What each table stores, before a hospital adds to it or takes from it."""
        ...

    def require_root(self, ehr: EhrData) -> None:
        """Refuse a folder that is not there, or is another, in one message: not one for each table."""
        ...

    def sources(self, ehr: EhrData) -> Sequence[Source]:
        """Every raw table that is there: a cohort is made again when one has changed.

        Raises:
            DataError: one that must be there is not.
        """
        ...

    def stays(self, site: SiteConfig) -> StayTables:
        """Who was in intensive care, and when (``read_stay_tables``)."""
        ...

    def diagnoses(self, ehr: EhrData) -> Source:
        """The codes of admissions."""
        ...

    def events(self, ehr: EhrData) -> Sequence[Events]:
        """Each table of measurements that is there, with the items that the hospital declares."""
        ...

    def intervals(self, ehr: EhrData) -> Sequence[Intervals]:
        """Each table of treatments that is there, with the items that the hospital declares."""
        ...

    def ecg_records(self, ecg: EcgData) -> Source:
        """The record list, whether it is there or not."""
        ...

    def checks(self, ehr: EhrData) -> Sequence[TableCheck]:
        """Every table."""
        ...
