"""What a concept and its units are (the data: ``concepts``), and how a hospital stores it: as items, each in a unit.

Which items these are is for a layout to say (``client/layouts``), and for the hospital to add to. The ids of a layout
are whole numbers or names; here they are only told apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lemof_model.spellings import NO_SPELLING, plain, spellings_of

Kind = Literal["vital", "lab", "output"]
ItemId = int | str
Aggregate = Literal["min", "max", "mean", "first", "last", "sum", "count"]
Summary = Literal["given", "hours", "drugs"]

NINES = (999.9, 999.99, 9999, 9999.9, 9999.99, 99_999, 99_999.9, 999_999, 999_999.9, 9_999_999, 99_999_999)
"""Numbers that many systems write where there is no value. No concept uses one, whatever its limits and the unit: of
true values so large, one in ten thousand is all nines."""


RINSED_IN = "mL rinsed in"
"""What a site file calls the unit of an item that is taken off."""

DROP = "drop"
"""What a site file says in place of a unit: such values are left out."""


@dataclass(frozen=True)
class Unit:
    """A unit that values come in: kept when ``low < value <= high``, then ``value * factor + offset``.

    Limits are in this unit, before conversion. mimic-code's limits leave out both ends; here the upper end is kept,
    because an SpO2 of 100 is a good one and no other value depends on it.
    """

    name: str
    low: float
    high: float
    factor: float = 1.0
    offset: float = 0.0

    @property
    def spellings(self) -> tuple[str, ...]:
        """How hospitals spell it, in plain form (``lemof_model.spellings``)."""
        return spellings_of(self.name)


@dataclass(frozen=True)
class Concept:
    """Something measured again and again: the units that it comes in, and how the first day sums it up.

    ``unit`` is the name of the one that all values are converted to. ``known_units`` are those that a row may spell, a
    layout name or a hospital declare for an item, in the order in which a surprising value is held against them.
    ``certain`` are units that a value without one is certainly in, where it lies in their limits and not in those of
    its item. ``usual`` is where the median of any hospital lies, in the concept's unit: outside of it the unit is not
    what it is said to be. ``codes`` are numbers that mean no value, beside ``NINES``.
    """

    name: str
    kind: Kind
    unit: str
    known_units: tuple[Unit, ...]
    aggregates: tuple[Aggregate, ...]
    certain: tuple[Unit, ...] = ()
    usual: tuple[float, float] | None = None
    codes: tuple[float, ...] = ()

    @property
    def is_score(self) -> bool:
        """Whether it is a bedside score, which has no unit that could be wrong."""
        return not self.unit and self.kind == "vital"

    @property
    def units(self) -> dict[str, Unit]:
        """Every unit that values of the concept may come in, by name."""
        return {unit.name: unit for unit in self.known_units}

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest value, itself left out, and the highest."""
        return self.units[self.unit].low, self.units[self.unit].high

    def unit_called(self, text: str) -> Unit | None:
        """The unit of this name or spelling; None if the concept does not know it.

        Example:
            >>> warmth = Concept("t", "vital", "degC", (Unit("degC", 10, 50),), ("mean",))
            >>> warmth.unit_called("\u00b0C").name, warmth.unit_called("mmHg")
            ('degC', None)
        """
        return unit_called(self.units, text)


def unit_called(units: Mapping[str, Unit], text: str) -> Unit | None:
    """The unit of this name or spelling, of some."""
    return units.get(text) or next((unit for unit in units.values() if plain(text) in unit.spellings), None)


@dataclass(frozen=True)
class Treatment:
    """Something given from one time to another: whether on the first day, for how many hours, with how many drugs.

    ``drugs`` are the drugs (or procedures) that are told apart; one without a name where none are.
    """

    name: str
    drugs: tuple[str, ...]
    summaries: tuple[Summary, ...]


@dataclass(frozen=True)
class Item:
    """One item id and the unit of those of its values that have none beside them. An item id whose values come in
    either of two units has an item for each, with limits that do not overlap.

    ``sign`` is -1 for what is taken off. ``meanings`` is what a hospital says that its spellings of units mean (None:
    such rows are left out); where it ``is_stated`` that the item comes in this unit, no row may spell another. Where a
    hospital says something, ``schema_units`` is what the schema does.
    """

    item_id: ItemId
    unit: Unit
    sign: int = 1
    meanings: tuple[tuple[str, Unit | None], ...] = ()
    is_stated: bool = False
    schema_units: tuple[str, ...] = ()

    @property
    def low(self) -> float:
        """Lower limit, itself left out."""
        return self.unit.low

    @property
    def high(self) -> float:
        """Upper limit, itself kept."""
        return self.unit.high

    @property
    def factor(self) -> float:
        """What a value is multiplied by."""
        return self.sign * self.unit.factor

    @property
    def offset(self) -> float:
        """What is then added."""
        return self.sign * self.unit.offset


@dataclass(frozen=True)
class StoredConcept:
    """A concept with the items that a hospital stores it as."""

    concept: Concept
    items: tuple[Item, ...]

    @property
    def name(self) -> str:
        """The concept's name."""
        return self.concept.name

    @property
    def unit(self) -> str:
        """The unit that all values are converted to."""
        return self.concept.unit

    @property
    def item_ids(self) -> tuple[ItemId, ...]:
        """The ids of the items, each once."""
        return tuple(dict.fromkeys(item.item_id for item in self.items))

    @property
    def units(self) -> dict[str, Unit]:
        """Every unit that values may come in, by name, those of the items first."""
        return {unit.name: unit for unit in (*(item.unit for item in self.items), *self.concept.known_units)}

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and highest value of any item after conversion."""
        items = self.items or tuple(Item(0, unit) for unit in self.concept.known_units)  # a hospital may drop all items
        ends = [end * item.factor + item.offset for item in items for end in (item.low, item.high)]
        return min(ends), max(ends)

    def own_items(self, item_id: ItemId) -> tuple[Item, ...]:
        """The one or two items of an item id."""
        return tuple(item for item in self.items if item.item_id == item_id)

    def units_without(self, item_id: ItemId) -> tuple[Unit, ...]:
        """The one or two units of values of an item that have none beside them; a value is in one of them at most. No
        unit where the hospital has said that such values are left out."""
        own = self.own_items(item_id)
        if (NO_SPELLING, None) in own[0].meanings:
            return ()
        is_open = len(own) == 1 and not own[0].is_stated and NO_SPELLING not in dict(own[0].meanings)
        others = tuple(unit for unit in self.concept.certain if unit.name != own[0].unit.name) if is_open else ()
        return (*(item.unit for item in own), *others)

    def units_spelled(self, item_id: ItemId) -> dict[str, Unit | None]:
        """What the spellings that the concept knows mean beside a value of an item: plain spelling -> unit."""
        item = self.own_items(item_id)[0]
        known = [item.unit] if item.is_stated else list(self.units.values())
        by_spelling: dict[str, Unit | None] = {spelling: unit for unit in known for spelling in unit.spellings}
        return {**by_spelling, **{spelling: unit for spelling, unit in item.meanings if spelling}}

    def declared(
        self, units: Mapping[ItemId, str | Mapping[str, str]], items: Mapping[ItemId, str | None]
    ) -> "StoredConcept":
        """What a hospital makes of it: with further ``items`` (item id -> unit, None for the concept's own), and with
        what ``units`` says of some: the unit of an item, or what its spellings mean (an empty one: values without)."""
        further = (self._item(item_id, name) for item_id, name in items.items() if not self.has(item_id, name))
        found: dict[ItemId, list[Item]] = {}
        for item in (*self.items, *further):
            found.setdefault(item.item_id, []).append(item)
        for item_id in found:
            if item_id in units:
                found[item_id] = self._stated(found[item_id], units[item_id])
        return replace(self, items=tuple(item for its in found.values() for item in its))

    def has(self, item_id: ItemId, name: str | None) -> bool:
        """Whether an item is there of its own accord, in this unit (None: the concept's own)."""
        unit = self.unit_called(self.unit if name is None else name)
        return any(unit == item.unit and item.sign > 0 for item in self.own_items(item_id))

    def unit_called(self, text: str) -> Unit | None:
        """``Concept.unit_called``, of these units."""
        return unit_called(self.units, text)

    def _item(self, item_id: ItemId, name: str | None) -> Item:
        """A further item in a unit."""
        sign = -1 if name == RINSED_IN else 1
        unit = self.unit_called(self.unit if name is None or sign < 0 else name)
        assert unit is not None, "the site file was checked"
        return Item(item_id, unit, sign)

    def _stated(self, own: Sequence[Item], said: str | Mapping[str, str]) -> list[Item]:
        """The items of an id as a hospital says that they come."""
        usual = tuple(item.unit.name for item in own)
        if isinstance(said, str):
            if said == DROP:
                return []
            unit = self.unit_called(said) or own[0].unit
            return [replace(own[0], unit=unit, is_stated=True, schema_units=usual)]
        meanings = {plain(spelling): self.unit_called(name) for spelling, name in said.items()}
        if without := meanings.get(NO_SPELLING):
            own = [replace(own[0], unit=without)]
        return [replace(item, meanings=tuple(meanings.items()), schema_units=usual) for item in own]


@dataclass(frozen=True)
class StoredTreatment:
    """A treatment with the items that a hospital stores it under: ``items`` has, for each of its drugs, the ids (a bag
    of another strength has another)."""

    treatment: Treatment
    items: tuple[tuple[ItemId, ...], ...]

    @property
    def name(self) -> str:
        """The treatment's name."""
        return self.treatment.name

    @property
    def drugs(self) -> tuple[tuple[str, tuple[ItemId, ...]], ...]:
        """Each drug with its items."""
        return tuple(zip(self.treatment.drugs, self.items, strict=True))

    @property
    def item_ids(self) -> tuple[ItemId, ...]:
        """The ids of all items."""
        return tuple(item_id for item_ids in self.items for item_id in item_ids)

    def has(self, item_id: ItemId, drug: str | None) -> bool:
        """Whether an item is there of its own accord, as this drug."""
        return any(item_id in item_ids for name, item_ids in self.drugs if name == (drug or ""))

    def declared(self, items: Mapping[ItemId, str | None]) -> "StoredTreatment":
        """The treatment at a hospital that stores it under further items, too (item id -> drug)."""
        more = [(item_id, drug) for item_id, drug in items.items() if not self.has(item_id, drug)]
        return replace(
            self,
            items=tuple(
                (*item_ids, *(item_id for item_id, name in more if (name or "") == drug))
                for drug, item_ids in self.drugs
            ),
        )
