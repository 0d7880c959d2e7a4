"""What a site file says of item ids and units, held against the schema."""

from collections.abc import Iterable, Mapping
from typing import Any

from lemof_model.concepts import TREATMENTS
from lemof_model.errors import ConfigError, nearest, shown
from lemof_model.features import MEASURED
from lemof_model.items import DROP, RINSED_IN, Concept, Treatment
from lemof_model.spellings import plain

Items = dict[str, dict[int, str | None]]
Units = dict[int, str | dict[str, str]]
KINDS: dict[str, Concept | Treatment] = {
    **{concept.name: concept for concept in MEASURED},
    **{treatment.name: treatment for treatment in TREATMENTS},
}


def read_items(said: Any) -> Items:
    """Further item ids of concepts and treatments, with their unit or drug; None where the usual one is meant.

    Raises:
        ConfigError: it is no concept, a unit that it does not know, or an item id that another one has; names the key.
    """
    if not isinstance(said, Mapping):
        raise ConfigError(
            rule="data.ehr.items must be a section by measurement or treatment",
            got=shown(said),
            fix="For example: {temperature: {226329: degC}}.",
        )
    owners = {item_id: name for name, kind in KINDS.items() for item_id in kind.item_ids}
    items: Items = {}
    for name, its in said.items():
        if name not in KINDS:
            raise ConfigError(
                rule=f"data.ehr.items.{name} must be a measurement or treatment of docs/features.md",
                got=shown(name),
                fix=_did_you_mean(str(name), KINDS),
            )
        items[name] = {}
        for item_id, of_item in _pairs(name, its):
            _require_id(f"data.ehr.items.{name}", item_id)
            _require_name(f"data.ehr.items.{name}.{item_id}", KINDS[name], of_item)
            if not _is_known(KINDS[name], item_id, of_item):
                _require_free(name, item_id, owners)
                owners[item_id] = name
                items[name][item_id] = of_item
    return items


def read_units(said: Any, items: Items) -> Units:
    """The units of item ids, or what their spellings mean.

    Raises:
        ConfigError: no concept has the item id, or does not know the unit; names the key.
    """
    if not isinstance(said, Mapping):
        raise ConfigError(
            rule="data.ehr.units must be a section by item id", got=shown(said), fix="For example: {223761: degC}."
        )
    for item_id, of_item in said.items():
        _require_id("data.ehr.units", item_id)
        concept = next((one for one in MEASURED if item_id in (*one.item_ids, *items.get(one.name, {}))), None)
        if concept is None:
            raise ConfigError(
                rule=f"data.ehr.units.{item_id} must be left out: no feature reads this item id",
                got=shown(of_item),
                fix=f"Name what it measures in data.ehr.items: {{CONCEPT: {{{item_id}: UNIT}}}}.",
            )
        named = of_item if isinstance(of_item, Mapping) else {None: of_item}
        _require_one_meaning(item_id, named)
        for spelling, name in named.items():
            key = f"data.ehr.units.{item_id}" + ("" if spelling is None else f".{spelling!r}")
            if name != DROP:
                _require_name(key, concept, name, may_be_none=False)
    return {
        item_id: {str(spelling): name for spelling, name in of_item.items()}
        if isinstance(of_item, Mapping)
        else of_item
        for item_id, of_item in said.items()
    }


def _pairs(name: str, its: Any) -> list[tuple[Any, Any]]:
    """Item ids with what is said of them; a list says nothing."""
    if isinstance(its, Mapping):
        return list(its.items())
    if isinstance(its, list):
        return [(item_id, None) for item_id in its]
    raise ConfigError(
        rule=f"data.ehr.items.{name} must be item ids",
        got=shown(its),
        fix="Write {ITEM_ID: UNIT}, or [ITEM_ID] for the usual unit.",
    )


def _is_known(kind: Concept | Treatment, item_id: int, of_item: str | None) -> bool:
    """Whether the schema has an item id of its own accord, and says the same of it."""
    if isinstance(kind, Treatment):
        return any(item_id in item_ids for drug, item_ids in kind.drugs if drug == (of_item or ""))
    unit = kind.unit_called(kind.unit if of_item is None else of_item)
    return any(unit == item.unit and item.sign > 0 for item in kind.own_items(item_id))


def _require_id(key: str, item_id: Any) -> None:
    """Refuse what is no item id."""
    if not isinstance(item_id, int) or isinstance(item_id, bool) or item_id <= 0:
        raise ConfigError(
            rule=f"{key} must be by item id, a whole number above 0", got=shown(item_id), fix="Correct it."
        )


def _require_free(name: str, item_id: int, owners: Mapping[int, str]) -> None:
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
        known = [drug for drug, _ in kind.drugs]
        is_known = ("" if name is None else name) in known
        rule = f"one of {', '.join(known)}" if len(known) > 1 else "left empty ([ITEM_ID])"
    else:
        known = [unit or "units" for unit in kind.units] + ([RINSED_IN] if kind.table == "outputevents" else [])
        is_known = (name is None and may_be_none) or (
            isinstance(name, str) and (name in known or kind.unit_called(name) is not None)
        )
        rule = f"one of {', '.join(known)}"
    if not is_known:
        raise ConfigError(rule=f"{key} must be {rule}", got=shown(name), fix=_did_you_mean(str(name or ""), known))


def _require_one_meaning(item_id: int, named: Mapping[Any, Any]) -> None:
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


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name."""
    close = nearest(name, list(known))
    return f"Did you mean {close}?" if close else ""
