"""Units that are not what they are said to be: an item is judged by the median of its raw values, from a summary that
counts them in bins 1 % wide.

Values of one item are judged apart by how the table spells their unit (``valueuom``): some may be in another unit than
the rest. The spelling itself decides nothing; ``mg/dl`` and ``mg/dL`` have like medians.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
import polars as pl

from client.mimic_iv.tables import Source
from lemof_model.concepts import Concept, Unit
from lemof_model.errors import DataError

BINS_PER_E = 100  # bins of raw values are 1 % wide
NUM_FOR_MEDIAN = 20  # fewer values tell nothing of a unit
NUM_FOR_PART = 100  # fewer, of one spelling among several, may be one patient's
MAX_SPELLINGS = 256  # MIMIC-IV has a dozen in the laboratory values that are read
MAX_LETTERS = 20


class Spellings:
    """The spellings of units that one pass has met, in small letters, at most ``MAX_SPELLINGS``. Further ones count as
    none, and so does what is too long for a unit or has no letter: free text then neither fills a summary nor gets into
    a message.

    Example:
        >>> Spellings().kept(pl.Series(["mg/dL", "141", None, "mg/dl", "haemolysed, please send again"])).to_list()
        ['mg/dl', None, None, 'mg/dl', None]
    """

    def __init__(self) -> None:
        self._met: set[str] = set()
        self._lock = Lock()  # a streaming engine calls from several threads

    def kept(self, spelled: pl.Series) -> pl.Series:
        """A block of spellings, null where they count as none."""
        spelled = _plain(spelled)
        unknown = spelled.unique().drop_nulls()
        with self._lock:
            unknown = unknown.filter(~unknown.is_in(list(self._met)))
            is_unit = (unknown.str.len_chars() <= MAX_LETTERS) & unknown.str.contains(r"[\p{L}%]")
            self._met.update(unknown.filter(is_unit).sort().head(MAX_SPELLINGS - len(self._met)))
            met = list(self._met)
        if unknown.is_empty():
            return spelled
        return spelled.zip_with(spelled.is_in(met), pl.Series([None], dtype=pl.String))


def _plain(spelled: pl.Series) -> pl.Series:
    """Small letters, and u for micro: ``mg/dl`` and ``mg/dL`` are one spelling."""
    return spelled.str.strip_chars().str.to_lowercase().str.replace_all("[\u00b5\u03bc]", "u")


def unit_keys(value: str, unit: str | None) -> list[pl.Expr]:
    """What a summary groups by so that units can be judged: the ``bin`` of the raw value and, where the table has a
    column for its unit, the ``spelling``. For one pass only."""
    place = (pl.col(value).log() * BINS_PER_E).round().cast(pl.Int32, strict=False).alias("bin")
    if unit is None:
        return [place]
    kept = pl.col(unit).map_batches(Spellings().kept, return_dtype=pl.String, is_elementwise=True)
    return [place, kept.alias("spelling")]


def require_units(summary: pl.DataFrame, concepts: Sequence[Concept], source: Source, stated: Collection[int]) -> None:
    """Refuse a table in which the median of an item, or of those of its values that spell their unit alike, lies where
    no hospital's does, but would in another unit. The site has said the unit of the items in ``stated``, and is taken
    at its word if all values of one look alike (a liver unit's bilirubin does look like another unit);
    ``unusual_medians`` tells it all the same.

    Raises:
        DataError: names the items and units.
    """
    whole = {item_id: median for (item_id,), median in _medians(summary, NUM_FOR_MEDIAN, "itemid").items()}
    parts: dict[int, dict[str | None, float]] = {}
    if "spelling" in summary.columns:
        for (item_id, spelling), median in _medians(summary, NUM_FOR_PART, "itemid", "spelling").items():
            parts.setdefault(item_id, {})[spelling] = median
    problems = [
        f"{got}, from {source.label}. {remedy} [E205]"
        for concept in concepts
        for item_id in (concept.item_ids if concept.usual else ())
        if item_id in whole
        for got, remedy, is_whole in _surprises(
            concept, item_id, whole[item_id], parts.get(item_id, {None: whole[item_id]})
        )
        if not (is_whole and item_id in stated)
    ]
    if problems:
        raise DataError("\n".join(problems))


def _surprises(
    concept: Concept, item_id: int, whole: float, parts: Mapping[str | None, float]
) -> Iterator[tuple[str, str, bool]]:
    """What is wrong with an item's unit, the remedy, and whether all of its values look so, or those of a spelling."""
    declared = _declared(concept, item_id)
    alike = {spelling: _unit_like(concept, item_id, median) for spelling, median in parts.items()}
    others = {spelling: unit for spelling, unit in alike.items() if unit and unit not in declared}
    if others and len({*alike.values(), _unit_like(concept, item_id, whole)} - {None}) == 1:
        unit = next(iter(others.values()))
        got = (
            f"itemid {item_id} must be in {declared[0]}, got a median of {_rounded(whole):,g}, which looks like {unit}"
        )
        remedy = f"Set data.ehr.units: {{{item_id}: {unit}}} if it is, {{{item_id}: {declared[0]}}} if it is not."
        yield got, remedy, True
        return
    for spelling, unit in others.items():
        whose = "whose unit is empty" if spelling is None else f"whose unit is {_shown(spelling)!r}"
        got = (
            f"itemid {item_id} must be in one unit ({declared[0]}), got values {whose} with a median of "
            f"{_rounded(parts[spelling]):,g}, which looks like {unit}"
        )
        yield got, "Mend the export: all values of an item in one unit.", False


def unusual_medians(summary: pl.DataFrame, concept: Concept) -> dict[int, dict[str, Any]]:
    """The items of a concept whose median is not usual in their unit: the unit, the median, and from where to where it
    usually lies."""
    medians = _medians(summary, NUM_FOR_PART, "itemid")
    unusual = {}
    for item_id in concept.item_ids if concept.usual else ():
        units = [concept.units[name] for name in _declared(concept, item_id)]
        median = medians.get((item_id,))
        if median is not None and not any(_is_usual(concept, unit, median) for unit in units):
            low, high = (_rounded((end - units[0].offset) / units[0].factor) for end in concept.usual or ())
            unusual[item_id] = {"unit": units[0].name, "median": _rounded(median), "low": low, "high": high}
    return unusual


def _declared(concept: Concept, item_id: int) -> list[str]:
    """The unit of an item; two, where values may come in either."""
    return [item.unit.name for item in concept.items if item.item_id == item_id]


def _unit_like(concept: Concept, item_id: int, median: float) -> str | None:
    """The unit in which a median is usual, the declared one before others; None where it is in none."""
    names = [*_declared(concept, item_id), *concept.units]
    return next((name for name in names if _is_usual(concept, concept.units[name], median)), None)


def _is_usual(concept: Concept, unit: Unit, median: float) -> bool:
    """Whether a median in some unit lies where medians of the concept do."""
    low, high = concept.usual or (-np.inf, np.inf)
    return bool(low <= median * unit.factor + unit.offset <= high)


def _rounded(median: float) -> float:
    """A median as exactly as it is known."""
    return float(f"{median:.3g}")


def _shown(spelling: str) -> str:
    """A spelling in a message, digits as 9: the column may hold what it should not."""
    return re.sub(r"\d", "9", spelling)


def _medians(summary: pl.DataFrame, least: int, *keys: str) -> dict[tuple[Any, ...], float]:
    """The median (to 1 %) of the raw values of each group that has at least so many, whether they were used or not."""
    num = (pl.col("num") - pl.col("num_again")).sum()
    bins = summary.drop_nulls("bin").group_by(*keys, "bin").agg(num.alias("num")).sort(*keys, "bin")
    reached = bins.with_columns(
        before=pl.col("num").cum_sum().over(keys) - pl.col("num"), total=pl.col("num").sum().over(keys)
    )
    middle = reached.filter((2 * pl.col("before") < pl.col("total")) & (pl.col("total") >= least))
    last = middle.group_by(*keys).agg(pl.col("bin").max())
    return {tuple(group): float(np.exp(place / BINS_PER_E)) for *group, place in last.iter_rows()}
