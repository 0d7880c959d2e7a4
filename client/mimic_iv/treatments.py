"""Ventilation, vasopressors and renal replacement: what was given from one time to another, cut to the first day.

A treatment counts by its own times. Its row is often stored when it ends, yet everyone at the bedside sees it run, so
``storetime`` is not looked at; what lies behind the prediction is cut off.
"""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from client.mimic_iv.event_pass import (
    HOURS_BEFORE,
    EventTable,
    OnRows,
    Outcome,
    Rules,
    run_pass,
    seconds_since_admission,
)
from client.mimic_iv.tables import open_table
from client.site import SiteConfig
from lemof_model.concepts import TREATMENTS

INTERVALS = EventTable("stay_id", ("starttime", "endtime"))
INTERVAL_COLUMNS = {"row": pl.UInt32, "treatment": pl.UInt8, "itemid": pl.Int64, "begin": pl.Int32, "end": pl.Int32}


def read_treatments(
    table: str,
    site: SiteConfig,
    stays: pl.DataFrame,
    window_hours: int,
    target: Path,
    on_rows: OnRows = lambda _: None,
) -> Outcome:
    """One pass over inputevents or procedureevents: the treatments of the cohort's first days go to ``target``."""
    begin, end = seconds_since_admission("starttime"), seconds_since_admission("endtime")
    first, last = -HOURS_BEFORE * 3600, window_hours * 3600
    items = [
        {"itemid": item_id, "treatment": code}
        for code, treatment in enumerate(TREATMENTS)
        if treatment.table == table
        for item_id in treatment.item_ids
    ]
    rules = Rules(
        items=pl.DataFrame(items, schema={"itemid": pl.Int64, "treatment": pl.UInt8}),
        dropped={"ends_before_it_begins": end < begin, "outside_first_day": (end < first) | (begin > last)},
        kept=[
            pl.col("row").cast(pl.UInt32),
            "treatment",
            "itemid",
            begin.clip(first, last).cast(pl.Int32).alias("begin"),
            end.clip(first, last).cast(pl.Int32).alias("end"),
        ],
    )
    source = open_table(site.data.ehr, table)
    return run_pass(
        source, INTERVALS, rules, stays, target, max_bad_fraction=site.prepare.max_bad_fraction, on_rows=on_rows
    )


def treatment_features(intervals: pl.DataFrame, tables: frozenset[str], num_stays: int) -> NDArray[np.float32]:
    """The columns of all treatments: 0 where one was not given, NaN everywhere if the site lacks its table.

    Hours are those in which at least one of its items ran: overlaps count once.

    Shape:
        intervals: rows of ``INTERVAL_COLUMNS``; result: (num_stays, number of summaries)
    """
    begin_after = pl.max_horizontal("begin", pl.col("end").cum_max().shift().over("row", "treatment"))
    by_stay = (
        intervals.sort("row", "treatment", "begin", "end", "itemid")
        .with_columns(seconds=(pl.col("end") - begin_after).clip(lower_bound=0))
        .group_by("row", "treatment")
        .agg(given=pl.lit(1.0), hours=pl.col("seconds").sum() / 3600, drugs=pl.col("itemid").n_unique())
    )
    columns = []
    for code, treatment in enumerate(TREATMENTS):
        mine = by_stay.filter(pl.col("treatment") == code)
        for summary in treatment.summaries:
            column = np.full(num_stays, 0.0 if treatment.table in tables else np.nan, np.float32)
            column[mine["row"].to_numpy()] = mine[summary].to_numpy()
            columns.append(column)
    return np.stack(columns, axis=1)
