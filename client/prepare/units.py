"""Units that are not known, or not what they are said to be.

A value is in the unit that its row spells; where the row spells none, in the unit of its item. What a table cannot be
used with is refused: too many values with a unit that nobody knows for their concept; too many outside of all limits;
or a median (of all values of an item that are in one unit) where no hospital's lies, but would in another unit. The
hospital's word in ``data.ehr.units`` settles what a median cannot.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl

from lemof_model.errors import DataError, Problem
from lemof_model.items import Concept, Item, ItemId, StoredConcept, Unit
from readers.tables.source import Source
from readers.tables.unreadable import is_too_many
from readers.tables.words import STRANGE_TEXT

BINS_PER_E = 100  # bins of raw values are 1 % wide
NUM_FOR_MEDIAN = 20  # fewer values tell nothing of a unit
NUM_FOR_USUAL = 100  # fewer may be one unusual patient's
NUM_LOST = 5  # so many values outside of all limits, and in those of another unit, are no chance
MAX_LOST = 0.5  # share of an item's values outside of all limits; po2 in MIMIC-IV has 0.08
MAX_EXPLAINED = 0.2  # the same, where another unit explains it
OUT_OF_RANGE, UNKNOWN = "out_of_range", "unit_unknown"
JUDGED = ("used", OUT_OF_RANGE, UNKNOWN)


@dataclass(frozen=True)
class Part:
    """The values of an item that are in one unit, because their rows spell it or because they spell none.

    Attributes:
        spellings: how the rows spell it, in plain form; none where they do not.
        units: the unit; the two in either of which values without one may come; nothing where it is not known.
        is_settled: whether the hospital has said what these spellings mean.
        num, num_lost: all values, and those outside of the limits.
        median, median_lost: of the raw values; None of too few.
    """

    concept: StoredConcept
    item_id: ItemId
    spellings: tuple[str, ...]
    units: tuple[Unit, ...]
    is_settled: bool
    num: int = 0
    num_lost: int = 0
    median: float | None = None
    median_lost: float | None = None

    @property
    def own(self) -> Item:
        """The item."""
        return self.concept.own_items(self.item_id)[0]

    @property
    def unit(self) -> str:
        """The unit's name."""
        return self.units[0].name

    @property
    def is_confirmed(self) -> bool:
        """Whether the hospital says of the unit what the schema does."""
        return (self.is_settled or self.own.is_stated) and self.unit in self.own.schema_units

    def is_usual(self) -> bool:
        """Whether the median lies where medians do, as far as is known."""
        return self.median is None or any(_is_usual(self.concept.concept, unit, self.median) for unit in self.units)

    def looks_like(self) -> str | None:
        """Another unit, in which the median would be usual, where it is not in its own; None if there is none."""
        return self._other_unit(self.median)

    def lost_look_like(self) -> str | None:
        """The same of the values outside of the limits."""
        return self._other_unit(self.median_lost)

    def _other_unit(self, median: float | None) -> str | None:
        """Another unit than its own in which a median is usual, the schema's before others."""
        concept = self.concept.concept
        if median is None or any(_is_usual(concept, unit, median) for unit in self.units):
            return None
        return next((name for name, unit in self.concept.units.items() if _is_usual(concept, unit, median)), None)


def value_bin(value: str) -> pl.Expr:
    """What a summary groups by so that medians can be told: the ``bin`` of the raw value."""
    return (pl.col(value).log() * BINS_PER_E).round().cast(pl.Int32, strict=False).alias("bin")


def parts_of(summary: pl.DataFrame, concepts: Sequence[StoredConcept]) -> list[Part]:
    """The values of each item by their unit, in the order of the items; those of an unknown unit by its spelling.

    ``summary`` counts values by ``item``, ``spelling``, ``fate`` and ``bin``.
    """
    judged = summary.filter(pl.col("fate").is_in(JUDGED)).with_columns(num=pl.col("num") - pl.col("num_again"))
    met = judged.select("item", "spelling").unique().sort("item", "spelling")
    spelled = dict(met.group_by("item", maintain_order=True).agg("spelling").iter_rows())
    found = [
        part
        for concept in concepts
        for item_id in concept.item_ids
        if item_id in spelled
        for part in _parts_of(concept, item_id, spelled[item_id])
    ]
    place = [(part.item_id, text, n) for n, part in enumerate(found) for text in part.spellings or (None,)]
    places = pl.DataFrame(
        place, {"item": summary.schema["item"], "spelling": pl.String, "part": pl.UInt32}, orient="row"
    )
    judged = judged.join(places, on=["item", "spelling"], nulls_equal=True)
    lost = judged.filter(pl.col("fate") == OUT_OF_RANGE)
    nums, nums_lost = (dict(rows.group_by("part").agg(pl.col("num").sum()).iter_rows()) for rows in (judged, lost))
    medians, medians_lost = _medians(judged, NUM_FOR_MEDIAN), _medians(lost, NUM_LOST)
    return [
        Part(
            part.concept,
            part.item_id,
            part.spellings,
            part.units,
            part.is_settled,
            nums[n],
            nums_lost.get(n, 0),
            medians.get(n),
            medians_lost.get(n),
        )
        for n, part in enumerate(found)
    ]


def _parts_of(concept: StoredConcept, item_id: ItemId, spellings: Sequence[str | None]) -> list[Part]:
    """The spellings of an item that were met, by what they mean."""
    own, known = concept.own_items(item_id), concept.units_spelled(item_id)
    said = dict(own[0].meanings)
    groups: dict[tuple[str, bool], tuple[tuple[Unit, ...], list[str]]] = {}
    for spelling in spellings:
        unit = known.get(spelling or "")
        units = concept.units_without(item_id)[: len(own)] if spelling is None else (unit,) if unit else ()
        group = f"in {unit.name}" if unit and spelling else f"spelled {spelling}"
        texts = groups.setdefault((group, (spelling or "") in said), (units, []))[1]
        texts += [spelling] if spelling else []
    return [
        Part(concept, item_id, tuple(texts), units, is_settled) for (_, is_settled), (units, texts) in groups.items()
    ]


def require_units(parts: Sequence[Part], source: Source, item: str, max_bad_fraction: float) -> None:
    """Refuse a table of which much of an item is lost to its unit, or would be used in a wrong one.

    Raises:
        DataError: names the items, spellings and units.
    """
    problems: list[Problem] = []
    for _, group in groupby(parts, key=lambda part: part.item_id):
        mine = list(group)
        problems += _unknown(mine, item, max_bad_fraction, source.label)
        lost, surprises = list(_lost(mine, item, source.label)), list(_surprises(mine, item, source.label))
        problems += lost if lost and mine[0].own.is_stated else surprises or lost
    if problems:
        raise DataError(*problems)


def unusual_medians(parts: Sequence[Part], concept: StoredConcept) -> dict[str, dict[str, Any]]:
    """The items of a concept whose median is not usual in their unit: the unit, the median, and from where to where it
    usually lies."""
    unusual: dict[str, dict[str, Any]] = {}
    for part in sorted((part for part in parts if part.concept is concept and part.units), key=lambda part: -part.num):
        if part.num >= NUM_FOR_USUAL and not part.is_usual() and str(part.item_id) not in unusual:
            unit = part.units[0]
            low, high = (_rounded((end - unit.offset) / unit.factor) for end in concept.concept.usual or ())
            told = {"unit": unit.name, "median": _rounded(part.median or 0.0), "low": low, "high": high}
            unusual[str(part.item_id)] = told
    return unusual


def num_by_unit(parts: Sequence[Part], concept: StoredConcept) -> dict[str, dict[str, int]]:
    """For each item how many of its values are in which unit: spelled, without one, or unknown (as it is spelled)."""
    told: dict[str, dict[str, int]] = {}
    for part in parts:
        if part.concept is concept:
            name = "without a unit" if not part.spellings else part.unit if part.units else ""
            name = name or (f"unknown: {shown(part.spellings[0])}" if not part.units else "no unit")
            counts = told.setdefault(str(part.item_id), {})
            counts[name] = counts.get(name, 0) + part.num
    return told


def shown(spelling: str) -> str:
    """A spelling in a message, digits as 9: the column may hold what it should not."""
    return re.sub(r"\d", "9", spelling)


def _unknown(mine: Sequence[Part], item: str, max_bad_fraction: float, label: str) -> Iterator[Problem]:
    """What is told of too many values of an item whose unit is not known, and that nobody has said to leave out."""
    strange = sorted((part for part in mine if not part.units and not part.is_settled), key=lambda part: -part.num)
    num, num_all = (sum(part.num for part in parts) for parts in (strange, mine))
    is_most = num >= NUM_LOST and num > MAX_LOST * num_all
    if not (is_most or is_too_many(num, num_all, max_bad_fraction)):
        return
    concept, item_id, own = strange[0].concept, strange[0].item_id, strange[0].own
    (first, *_) = strange[0].spellings
    told = ", ".join(repr(shown(part.spellings[0])) for part in strange[:3])
    key = first if first == shown(first) and first != STRANGE_TEXT else "SPELLING"
    got = f"{told} in {num:,} of {num_all:,} values ({num / num_all:.1%}), from {label}"
    if own.is_stated:
        unit = own.unit.name or "units"
        yield Problem(
            f"{item} {item_id} must be in {unit}, as data.ehr.units says",
            got,
            f"If the rows are right, say it of those without a unit only: {{{item_id}: {{'': {_word(unit)}}}}}; if "
            f"not, what they mean: {{{item_id}: {{{_quoted(key)}: {_word(unit)}}}}}.",
            "E205",
        )
        return
    known = ", ".join(name or "units" for name in concept.units)
    yield Problem(
        f"{item} {item_id} must be in a unit that is known for {concept.name} ({known})",
        got,
        f"Set data.ehr.units: {{{item_id}: {{{_quoted(key)}: UNIT}}}} (or drop in place of UNIT), or mend the export.",
        "E205",
    )


def _lost(mine: Sequence[Part], item: str, label: str) -> Iterator[Problem]:
    """What is told of an item of which much lies outside of its limits."""
    num, num_all = sum(part.num_lost for part in mine), sum(part.num for part in mine)
    part = max((part for part in mine if part.units), key=lambda part: part.num_lost, default=None)
    if num < NUM_LOST or part is None:
        return
    like = part.lost_look_like()
    share = num / num_all
    is_much = share > MAX_EXPLAINED if like else share > MAX_LOST and num_all >= NUM_FOR_MEDIAN
    is_agreed = part.is_confirmed or (like is None and (part.own.is_stated or part.is_settled))
    if not is_much or is_agreed or part.concept.concept.is_score:
        return
    limits = " or ".join(f"{unit.low:g} to {unit.high:g} {unit.name}".rstrip() for unit in part.units)
    what = f", which look like {like}" if like else ""
    yield Problem(
        f"{item} {part.item_id} must lie within {limits}",
        f"{num:,} of {num_all:,} values ({share:.1%}) outside{what}, from {label}",
        _remedy_of_loss(part, like),
        "E205",
    )


def _remedy_of_loss(part: Part, like: str | None) -> str:
    """What to do about values outside of all limits."""
    if like is None:
        unit = _word(part.unit or "units")
        return (
            f"Set data.ehr.units: {{{part.item_id}: UNIT}} if they are in another unit, {{{part.item_id}: {unit}}} if "
            f"they are right, {{{part.item_id}: drop}} if the item is another one here."
        )
    if part.spellings:
        return _say(part, like)
    again = "in place of what it says" if part.own.is_stated or part.is_settled else "if it is"
    return f"Set data.ehr.units: {{{part.item_id}: {_word(like)}}} {again}."


def _surprises(mine: Sequence[Part], item: str, label: str) -> Iterator[Problem]:
    """What is told of an item whose values, or those in one unit, look like another unit."""
    for part in mine:
        like = part.looks_like() if part.units and not part.is_settled else None
        if like is None:
            continue
        item_id, unit = part.item_id, part.unit
        where = f" where it says {' or '.join(map(shown, part.spellings))}" if part.spellings else ""
        lost = f" ({part.num_lost / part.num:.1%} of values outside of its limits)" if part.num_lost else ""
        got = f"a median of {_rounded(part.median or 0.0):,g}{where}, which looks like {like}{lost}, from {label}"
        if part.spellings:
            yield Problem(f"{item} {item_id} must be in {unit}", got, _say(part, like), "E205")
        elif part.own.is_stated and not part.is_confirmed:
            yield Problem(
                f"{item} {item_id} must be in {unit}, as data.ehr.units says",
                got,
                "Take it out of data.ehr.units, or say it again of values without a unit: "
                f"{{{item_id}: {{'': {_word(unit)}}}}}.",
                "E205",
            )
        elif not part.own.is_stated:
            where, key = ("", "{}") if len(mine) == 1 else (" where it says none", "{{'': {}}}")
            yield Problem(
                f"{item} {item_id} must be in {unit}{where}",
                got,
                f"Set data.ehr.units: {{{item_id}: {key.format(_word(like))}}} if it is, "
                f"{{{item_id}: {key.format(_word(unit))}}} if it is not.",
                "E205",
            )


def _say(part: Part, like: str) -> str:
    """How a hospital says what a spelling means."""
    spelling = _quoted(part.spellings[0])
    return (
        f"Set data.ehr.units: {{{part.item_id}: {{{spelling}: {_word(like)}}}}} if it means that, "
        f"{{{part.item_id}: {{{spelling}: {_word(part.unit)}}}}} if it is right."
    )


def _quoted(text: str) -> str:
    """A text as a site file has it in quotes."""
    return "'" + text.replace("'", "''") + "'"


def _word(unit: str) -> str:
    """A unit as a site file has it: a percent sign stands in quotes."""
    return _quoted(unit) if unit.startswith("%") else unit


def _is_usual(concept: Concept, unit: Unit, median: float) -> bool:
    """Whether a median in some unit lies where medians of the concept do."""
    low, high = concept.usual or (-np.inf, np.inf)
    return bool(low <= median * unit.factor + unit.offset <= high)


def _rounded(median: float) -> float:
    """A median as exactly as it is known."""
    return float(f"{median:.3g}")


def _medians(judged: pl.DataFrame, least: int) -> dict[int, float]:
    """The median (to 1 %) of the raw values of each part that has at least so many."""
    bins = judged.drop_nulls("bin").group_by("part", "bin").agg(pl.col("num").sum()).sort("part", "bin")
    reached = bins.with_columns(
        before=pl.col("num").cum_sum().over("part") - pl.col("num"), total=pl.col("num").sum().over("part")
    )
    middle = reached.filter((2 * pl.col("before") < pl.col("total")) & (pl.col("total") >= least))
    last = middle.group_by("part").agg(pl.col("bin").max())
    return {part: float(np.exp(place / BINS_PER_E)) for part, place in last.iter_rows()}
