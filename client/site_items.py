"""What a site file says of item ids and units: held against the schema as it is read, and against the items of its
layout once this is known."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lemof_model.concepts import TREATMENTS
from lemof_model.errors import ConfigError, nearest, problems_in, shown
from lemof_model.features import MEASURED
from lemof_model.items import DROP, RINSED_IN, Concept, ItemId, StoredConcept, StoredTreatment, Treatment
from lemof_model.spellings import plain

Items = dict[str, dict[ItemId, str | None]]
Units = dict[ItemId, str | dict[str, str]]
Stored = StoredConcept | StoredTreatment
KINDS: dict[str, Concept | Treatment] = {
    **{concept.name: concept for concept in MEASURED},
    **{treatment.name: treatment for treatment in TREATMENTS},
}


def read_items(said: Any) -> Items:
    """Further item ids of concepts and treatments, with their unit or drug; None where the usual one is meant.

    Raises:
        ValueError: it is no concept, or a unit or drug that it does not know; names the key.
    """
    if not isinstance(said, Mapping):
        raise ConfigError(
            rule="data.ehr.items must be a section by measurement or treatment",
            got=f"{shown(said)}",
            fix="For example: {temperature: {226329: degC}}.",
        )
    items: Items = {}
    for name, its in said.items():
        if name not in KINDS:
            raise ConfigError(
                rule=f"data.ehr.items.{name} must be a measurement or treatment of docs/features.md",
                got=shown(name),
                fix=did_you_mean(str(name), KINDS),
            )
        items[name] = {}
        for item_id, of_item in _pairs(name, its):
            _require_id(f"data.ehr.items.{name}", item_id)
            _require_name(f"data.ehr.items.{name}.{item_id}", KINDS[name], of_item)
            items[name][item_id] = of_item
    return items


def read_units(said: Any) -> Units:
    """The units of item ids, or what their spellings mean.

    Raises:
        ValueError: an item id is none, or dialects of one spelling mean different units; names the key.
    """
    if not isinstance(said, Mapping):
        raise ConfigError(
            rule="data.ehr.units must be a section by item id", got=f"{shown(said)}", fix="For example: {223761: degC}."
        )
    for item_id, of_item in said.items():
        _require_id("data.ehr.units", item_id)
        named = of_item if isinstance(of_item, Mapping) else {None: of_item}
        for spelling, name in named.items():
            if not isinstance(name, str):
                key = f"data.ehr.units.{item_id}" + ("" if spelling is None else f".{spelling!r}")
                raise ConfigError(
                    rule=f"{key} must be a unit, or what each spelling of one means", got=f"{shown(name)}"
                )
        _require_one_meaning(item_id, named)
    return {
        item_id: {str(spelling): name for spelling, name in of_item.items()}
        if isinstance(of_item, Mapping)
        else of_item
        for item_id, of_item in said.items()
    }


def require_items(items: Items, units: Units, stored: Mapping[str, Sequence[Stored]]) -> None:
    """Refuse what a site file says of items that its layout has in another way; ``stored`` is what it has, by table.

    Raises:
        ConfigError: the layout lacks a concept, or an item id is none of its kind, or another concept has it, or no
            concept has it or knows the unit; names the key.
    """
    kinds = {one.name: one for of_table in stored.values() for one in of_table}
    owners = {item_id: name for name, kind in kinds.items() for item_id in kind.item_ids}
    is_number = all(isinstance(item_id, int) for item_id in owners)
    try:
        for name, its in items.items():
            if name not in kinds:
                raise ConfigError(
                    rule=f"data.ehr.items.{name} must be left out: no table of this layout has it",
                    got=f"{shown(its)}",
                    fix=f"Known: {', '.join(kinds)}.",
                )
            for item_id, of_item in its.items():
                _require_kind(f"data.ehr.items.{name}", item_id, is_number=is_number)
                if not kinds[name].has(item_id, of_item):
                    _require_free(name, item_id, owners)
                    owners[item_id] = name
        for item_id, of_units in units.items():
            _require_kind("data.ehr.units", item_id, is_number=is_number)
            _require_units(item_id, of_units, owners)
    except ValueError as error:
        raise ConfigError(*problems_in(error)) from None


def _require_units(item_id: ItemId, said: str | Mapping[str, str], owners: Mapping[ItemId, str]) -> None:
    """Refuse units that the concept of an item does not know."""
    kind = KINDS.get(owners.get(item_id, ""))
    if not isinstance(kind, Concept):
        raise ConfigError(
            rule=f"data.ehr.units.{item_id} must be left out: no feature reads this item id",
            got=f"{shown(said)}",
            fix=f"Name what it measures in data.ehr.items: {{CONCEPT: {{{item_id}: UNIT}}}}.",
        )
    for spelling, name in (said if isinstance(said, Mapping) else {None: said}).items():
        key = f"data.ehr.units.{item_id}" + ("" if spelling is None else f".{spelling!r}")
        if name != DROP:
            _require_name(key, kind, name, may_be_none=False)


def _pairs(name: str, its: Any) -> list[tuple[Any, Any]]:
    """Item ids with what is said of them; a list says nothing."""
    if isinstance(its, Mapping):
        return list(its.items())
    if isinstance(its, list):
        return [(item_id, None) for item_id in its]
    raise ConfigError(
        rule=f"data.ehr.items.{name} must be item ids",
        got=f"{shown(its)}",
        fix="Write {ITEM_ID: UNIT}, or [ITEM_ID] for the usual unit.",
    )


def _require_id(key: str, item_id: Any) -> None:
    """Refuse what can be an item id in no layout."""
    is_number = isinstance(item_id, int) and not isinstance(item_id, bool) and item_id > 0
    if not is_number and not (isinstance(item_id, str) and item_id):
        raise ConfigError(
            rule=f"{key} must be by item id, a whole number above 0", got=f"{shown(item_id)}", fix="Correct it."
        )


def _require_kind(key: str, item_id: ItemId, *, is_number: bool) -> None:
    """Refuse a name where the layout's items are numbers, and a number where they are names."""
    if isinstance(item_id, int) != is_number:
        rule = "a whole number above 0" if is_number else "a name"
        raise ConfigError(rule=f"{key} must be by item id, {rule}", got=f"{shown(item_id)}", fix="Correct it.")


def _require_free(name: str, item_id: ItemId, owners: Mapping[ItemId, str]) -> None:
    """Refuse an item id that something reads already."""
    if item_id not in owners:
        return
    is_own = owners[item_id] == name
    how = f"Say its unit in data.ehr.units: {{{item_id}: UNIT}}" if isinstance(KINDS[name], Concept) else "Take it out"
    raise ConfigError(
        rule=f"data.ehr.items.{name} must hold item ids that nothing else reads",
        got=f"{item_id}, which {'it has' if is_own else f'{owners[item_id]} has'}",
        fix=f"{how if is_own else 'Take it out'}.",
    )


def _require_name(key: str, kind: Concept | Treatment, name: Any, *, may_be_none: bool = True) -> None:
    """Refuse what is no unit of a concept, or no drug of a treatment."""
    if isinstance(kind, Treatment):
        known = list(kind.drugs)
        is_known = ("" if name is None else name) in known
        rule = f"one of {', '.join(known)}" if len(known) > 1 else "left empty ([ITEM_ID])"
    else:
        known = [unit or "units" for unit in kind.units] + ([RINSED_IN] if kind.kind == "output" else [])
        is_known = (name is None and may_be_none) or (
            isinstance(name, str) and (name in known or kind.unit_called(name) is not None)
        )
        rule = f"one of {', '.join(known)}"
    if not is_known:
        raise ConfigError(rule=f"{key} must be {rule}", got=shown(name), fix=did_you_mean(str(name or ""), known))


def _require_one_meaning(item_id: ItemId, named: Mapping[Any, Any]) -> None:
    """Refuse dialects of one spelling that are said to mean different units."""
    meant: dict[str, Any] = {}
    for spelling, name in named.items():
        before = name if spelling is None else meant.setdefault(plain(str(spelling)), name)
        if before != name:
            raise ConfigError(
                rule=f"data.ehr.units.{item_id} must give each spelling one meaning",
                got=f"{before!r} and {name!r} of {str(spelling)!r}: capitals, blanks and signs make no difference",
                fix="Keep one of them.",
            )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name."""
    close = nearest(name, list(known))
    return f"Did you mean {close}?" if close else ""
