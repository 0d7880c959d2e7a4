"""The first day of each stay from its events: the aggregates of every concept, and the hourly grid.

Stays are taken in blocks, so memory does not grow with their number. ``first`` and ``last`` are by time, without a
sort: a time and a value make one integer, of which the smallest and the largest are kept. Of several values at one time
``first`` is the smallest and ``last`` the largest.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from client.prepare.event_pass import HOURS_BEFORE
from client.prepare.measurements import CODES, MILLIONTHS
from lemof_model.features import GCS_PARTS, GRID_CHANNELS, MEASURED
from readers.tables.files import collect_all

BLOCK_STAYS = 8_000
VALUE_BITS = 38  # values are below 2^37 millionths, seconds below 2^20: together they fit in 64 bits
HALF = 2 ** (VALUE_BITS - 1)


class FirstDays(NamedTuple):
    """Consecutive stays: aggregates (stays, columns of the measured concepts and the GCS total), hourly means, how many
    values of each measured concept repeat another of the same stay and time, and in how many stays its sum was below 0.
    """

    features: NDArray[np.float32]
    grid: NDArray[np.float32]
    repeated: NDArray[np.int64]
    below_zero: NDArray[np.int64]


def first_days(events: Sequence[Path], known: frozenset[str], num_stays: int, window_hours: int) -> Iterator[FirstDays]:
    """The blocks of all stays, in order, from the events that the passes wrote.

    A count is 0 where nothing was measured, everything else NaN; both are NaN where the concept is not ``known``:
    no table of the site could have it.
    """
    frame = pl.scan_parquet(list(events))
    for start in range(0, num_stays, BLOCK_STAYS):
        size = min(BLOCK_STAYS, num_stays - start)
        mine = frame.filter(pl.col("row").is_between(start, start + size - 1)).with_columns(pl.col("row") - start)
        day, hours, totals = collect_all([_by_day(mine), _by_hour(mine, window_hours), _gcs_totals(mine)], events[0])
        columns = np.hstack([_aggregates(day, known, size), _column(totals, "total", size, np.nan)[:, None]])
        yield FirstDays(columns, _grid(hours, size, window_hours), _repeated(day), _below_zero(day))


def _by_day(events: pl.LazyFrame) -> pl.LazyFrame:
    """Every aggregate of every concept and stay."""
    key = (pl.col("seconds").cast(pl.Int64) + HOURS_BEFORE * 3600) * 2**VALUE_BITS + (pl.col("millionths") + HALF)
    value = pl.col("millionths")
    return (
        events.with_columns(key=key)
        .group_by("row", "concept")
        .agg(
            min=value.min(),
            max=value.max(),
            sum=value.sum(),
            count=pl.len(),
            distinct=pl.col("key").n_unique(),
            first=pl.col("key").min(),
            last=pl.col("key").max(),
        )
        .with_columns((pl.col("first", "last") % 2**VALUE_BITS) - HALF)
        .with_columns(pl.col("min", "max", "sum", "first", "last") / MILLIONTHS)
        .with_columns(mean=pl.col("sum") / pl.col("count"), total=pl.col("sum"))
        # More may be rinsed in on a day than has come out; nobody makes less than no urine.
        .with_columns(sum=pl.col("sum").clip(lower_bound=0))
    )


def _by_hour(events: pl.LazyFrame, window_hours: int) -> pl.LazyFrame:
    """The mean of every channel of the grid in every hour from admission on."""
    channels = [code for code, concept in enumerate(MEASURED) if concept.name in GRID_CHANNELS]
    return (
        events.filter(pl.col("seconds").is_between(0, window_hours * 3600 - 1) & pl.col("concept").is_in(channels))
        .group_by("row", "concept", hour=pl.col("seconds") // 3600)
        .agg(mean=pl.col("millionths").sum() / MILLIONTHS / pl.len())
    )


def _gcs_totals(events: pl.LazyFrame) -> pl.LazyFrame:
    """The lowest sum of the three parts charted at one time."""
    parts = [CODES[name] for name in GCS_PARTS]
    return (
        events.filter(pl.col("concept").is_in(parts))
        .group_by("row", "seconds", "concept")
        .agg(pl.col("millionths").min())
        .group_by("row", "seconds")
        .agg(pl.col("millionths").sum(), num=pl.len())
        .filter(pl.col("num") == len(parts))
        .group_by("row")
        .agg(total=pl.col("millionths").min() / MILLIONTHS)
    )


def _aggregates(day: pl.DataFrame, known: frozenset[str], num_stays: int) -> NDArray[np.float32]:
    """The aggregates in the order of the schema."""
    columns = []
    for code, concept in enumerate(MEASURED):
        mine = day.filter(pl.col("concept") == code)
        for aggregate in concept.aggregates:
            is_known_zero = aggregate == "count" and concept.name in known
            columns.append(_column(mine, aggregate, num_stays, 0.0 if is_known_zero else np.nan))
    return np.stack(columns, axis=1)


def _repeated(day: pl.DataFrame) -> NDArray[np.int64]:
    """By concept, how many values are there again."""
    again = (day["count"].to_numpy().astype(np.int64) - day["distinct"].to_numpy()).astype(np.int64)
    return np.bincount(day["concept"].to_numpy(), again, len(MEASURED)).astype(np.int64)


def _below_zero(day: pl.DataFrame) -> NDArray[np.int64]:
    """By concept that is summed up, in how many stays less than nothing was left of it."""
    is_sum = [code for code, concept in enumerate(MEASURED) if "sum" in concept.aggregates]
    below = day.filter((pl.col("total") < 0) & pl.col("concept").is_in(is_sum))
    return np.bincount(below["concept"].to_numpy(), minlength=len(MEASURED)).astype(np.int64)


def _column(rows: pl.DataFrame, name: str, num_stays: int, otherwise: float) -> NDArray[np.float32]:
    """A value for each stay."""
    column = np.full(num_stays, otherwise, np.float32)
    column[rows["row"].to_numpy()] = rows[name].to_numpy()
    return column


def _grid(hours: pl.DataFrame, num_stays: int, window_hours: int) -> NDArray[np.float32]:
    """Hourly means on the grid, NaN where nothing was measured; hour 0 begins at admission."""
    channel_of = np.array([GRID_CHANNELS.index(c.name) if c.name in GRID_CHANNELS else -1 for c in MEASURED])
    grid = np.full((num_stays, window_hours, len(GRID_CHANNELS)), np.nan, np.float32)
    channel = channel_of[hours["concept"].to_numpy()]
    grid[hours["row"].to_numpy(), hours["hour"].to_numpy(), channel] = hours["mean"].to_numpy()
    return grid
