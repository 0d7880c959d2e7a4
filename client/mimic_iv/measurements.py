"""What vitals and laboratory values have in common: item ids to concepts, limits, units, and sums by the hour.

One streaming pass leaves a row for each stay, concept and hour; the first day's aggregates (here) and the hourly grid
(``grid``) both come from it. Sums are whole millionths, so that no order of threads changes a bit of them.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lemof_model.features import CONCEPTS, Concept

HOURS_BEFORE = 6  # the first day begins 6 h before admission: MIT-LCP/mimic-code, concepts/firstday
MILLIONTHS = 1e6

_CODES = {concept.name: code for code, concept in enumerate(CONCEPTS)}


def items_of(concepts: Sequence[Concept]) -> pl.DataFrame:
    """One row for each item id and unit: its concept, limits and conversion; ``is_first`` marks each id once."""
    return (
        pl.DataFrame(
            [
                {"itemid": item.item_id, "concept": _CODES[concept.name]}
                | {"low": float(item.low), "high": float(item.high), "factor": item.factor, "offset": item.offset}
                for concept in concepts
                for item in concept.items
            ]
        )
        .cast({"concept": pl.UInt8})
        .with_columns(is_first=pl.col("itemid").is_first_distinct())
    )


def by_hour(events: pl.LazyFrame, items: pl.DataFrame, window_hours: int) -> pl.LazyFrame:
    """Sum up the first day's events by stay, concept and hour since admission.

    ``events`` has ``row``, ``intime``, ``itemid``, ``charttime`` and ``valuenum``; kept are those from 6 h before
    admission to the prediction time, both included. An event whose time cannot be read is counted at hour null.
    Out of the limits of every unit of its item (or not a number): counted in ``num_out_of_range``, not used.
    """
    seconds = (pl.col("charttime") - pl.col("intime")).dt.total_seconds()
    in_range = (pl.col("valuenum") > pl.col("low")) & (pl.col("valuenum") <= pl.col("high"))
    value = pl.when(in_range).then(pl.col("valuenum") * pl.col("factor") + pl.col("offset"))
    is_event = pl.col("is_first") & pl.col("valuenum").is_not_null()
    return (
        events.with_columns(seconds=seconds)
        .filter(pl.col("seconds").is_null() | pl.col("seconds").is_between(-HOURS_BEFORE * 3600, window_hours * 3600))
        .join(items.lazy(), on="itemid")
        .select("row", "concept", hour=(pl.col("seconds") // 3600).cast(pl.Int16), value=value, is_event=is_event)
        .group_by("row", "concept", "hour")
        .agg(
            min=pl.col("value").min(),
            max=pl.col("value").max(),
            millionths=(pl.col("value") * MILLIONTHS).round().cast(pl.Int64).sum(),
            num_values=pl.col("value").count(),
            num_out_of_range=pl.col("is_event").sum() - pl.col("value").count(),
        )
    )


def first_day_features(hours: pl.DataFrame, num_stays: int) -> NDArray[np.float32]:
    """The aggregates of every concept over the first day, in the order of the schema; NaN where nothing was measured.

    Shape:
        hours: rows of ``by_hour``; result: (num_stays, number of aggregates)
    """
    day = (
        hours.filter(pl.col("hour").is_not_null() & (pl.col("num_values") > 0))
        .group_by("row", "concept")
        .agg(pl.col("min").min(), pl.col("max").max(), pl.col("millionths").sum(), pl.col("num_values").sum())
        .with_columns(mean=pl.col("millionths") / MILLIONTHS / pl.col("num_values"))
    )
    columns = []
    for concept in CONCEPTS:
        rows = day.filter(pl.col("concept") == _CODES[concept.name])
        for aggregate in concept.aggregates:
            column = np.full(num_stays, np.nan, np.float32)
            column[rows["row"].to_numpy()] = rows[aggregate].to_numpy()
            columns.append(column)
    return np.stack(columns, axis=1)


def counts_by_concept(hours: pl.DataFrame) -> dict[str, dict[str, int]]:
    """For each concept, how many values of the first days were used, out of range, or without a readable time."""
    is_timed = pl.col("hour").is_not_null()
    totals = hours.group_by("concept").agg(
        used=pl.col("num_values").filter(is_timed).sum(),
        out_of_range=pl.col("num_out_of_range").filter(is_timed).sum(),
        time_unreadable=(pl.col("num_values") + pl.col("num_out_of_range")).filter(~is_timed).sum(),
    )
    by_code = {row.pop("concept"): row for row in totals.to_dicts()}
    nothing = {"used": 0, "out_of_range": 0, "time_unreadable": 0}
    return {name: by_code.get(code, nothing) for name, code in _CODES.items()}
