"""The chart pass as others would write it: the same aggregates of the same rows, without the quality counts.

Each takes a chartevents table and the cohort's stays and returns a row for each stay and concept: ``min``, ``max``,
``mean``, ``first``, ``last`` and ``count`` over the first day. Of values at one time ``first`` is the smallest and
``last`` the largest.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray

from client.layouts.mimic_iv.items import VITALS

COLUMNS = ["stay_id", "itemid", "charttime", "valuenum"]
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
CHUNK_ROWS = 1_000_000
HOURS_BEFORE = 6


def chart_items() -> pl.DataFrame:
    """Every item of chartevents and unit of it: the place of its concept in the schema, limits and conversion."""
    rows = [
        (item.item_id, place, item.low, item.high, item.factor, item.offset)
        for place, concept in enumerate(VITALS)
        for item in concept.items
    ]
    numbers = dict.fromkeys(("low", "high", "factor", "offset"), pl.Float64)
    return pl.DataFrame(rows, {"itemid": pl.Int64, "concept": pl.UInt8, **numbers}, orient="row", strict=False)


def with_pandas(table: Path, stays: pl.DataFrame, window_hours: int) -> pl.DataFrame:
    """Chunk by chunk; what falls into a first day is kept, for the days of stays may be cut by a chunk's end."""
    items = chart_items().to_pandas()
    wanted = stays.select("row", "stay_id", "intime").to_pandas()
    numbers = {"stay_id": "int64", "itemid": "int64", "valuenum": "float64", "charttime": "str"}
    days = []
    for chunk in pd.read_csv(table, usecols=COLUMNS, dtype=numbers, chunksize=CHUNK_ROWS):
        events = chunk[chunk["itemid"].isin(items["itemid"])].merge(wanted, on="stay_id")
        events["charttime"] = pd.to_datetime(events["charttime"], format=TIME_FORMAT)
        hours = (events["charttime"] - events["intime"]).dt.total_seconds() / 3600
        day = events[hours.between(-HOURS_BEFORE, window_hours)].merge(items, on="itemid")
        day = day[(day["valuenum"] > day["low"]) & (day["valuenum"] <= day["high"])]
        day["value"] = day["valuenum"] * day["factor"] + day["offset"]
        days.append(day[["row", "concept", "charttime", "value"]])
    ordered = pd.concat(days).sort_values(["row", "concept", "charttime", "value"])
    values = ordered.groupby(["row", "concept"])["value"].agg(["min", "max", "mean", "first", "last", "count"])
    return pl.from_pandas(values.reset_index())


def with_polars(table: Path, stays: pl.DataFrame, window_hours: int) -> pl.DataFrame:
    """One lazy query over the table, streaming."""
    items = chart_items()
    time = pl.col("charttime")
    is_first, is_last = time == time.min(), time == time.max()
    return (
        pl.scan_csv(table, schema_overrides={"itemid": pl.Int64, "stay_id": pl.Int64, "valuenum": pl.Float64})
        .select(COLUMNS)
        .filter(pl.col("itemid").is_in(items["itemid"].unique().to_list()))
        .join(stays.lazy().select("row", "stay_id", "intime"), on="stay_id")
        .with_columns(time.str.to_datetime(TIME_FORMAT, time_unit="us"))
        .filter((time - pl.col("intime")).is_between(pl.duration(hours=-HOURS_BEFORE), pl.duration(hours=window_hours)))
        .join(items.lazy(), on="itemid")
        .filter(pl.col("valuenum") > pl.col("low"), pl.col("valuenum") <= pl.col("high"))
        .with_columns(value=pl.col("valuenum") * pl.col("factor") + pl.col("offset"))
        .group_by("row", "concept")
        .agg(
            pl.col("value").min().alias("min"),
            pl.col("value").max().alias("max"),
            pl.col("value").mean().alias("mean"),
            pl.col("value").filter(is_first).min().alias("first"),
            pl.col("value").filter(is_last).max().alias("last"),
            pl.len().alias("count"),
        )
        .collect(engine="streaming")
    )


def as_features(days: pl.DataFrame, num_stays: int) -> NDArray[np.float32]:
    """The rows in the order of the schema, for each stay; NaN where nothing was measured, but a count of 0."""
    columns = []
    for place, concept in enumerate(VITALS):
        rows = days.filter(pl.col("concept") == place)
        for aggregate in concept.concept.aggregates:
            column = np.full(num_stays, 0.0 if aggregate == "count" else np.nan, np.float32)
            column[rows["row"].to_numpy()] = rows[aggregate].to_numpy()
            columns.append(column)
    return np.stack(columns, axis=1)
