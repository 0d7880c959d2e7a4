"""Vitals: bedside values of chartevents, joined to their stay by ``stay_id``."""

import polars as pl

from client.mimic_iv.measurements import by_hour, items_of
from client.mimic_iv.tables import TIME, Columns, collect, find_table, scan
from client.site import EhrData
from lemof_model.features import VITALS

CHARTEVENTS: Columns = {"stay_id": pl.Int64, "itemid": pl.Int64, "charttime": TIME, "valuenum": pl.Float64}


def vitals_by_hour(ehr: EhrData, stays: pl.DataFrame, window_hours: int) -> pl.DataFrame:
    """One pass over chartevents: the vitals of the cohort's first days by hour (see ``measurements.by_hour``)."""
    path = find_table(ehr, "chartevents")
    items = items_of(VITALS)
    events = (
        scan(path, CHARTEVENTS)
        .filter(pl.col("itemid").is_in(items["itemid"].to_list()))
        .join(stays.lazy().select("row", "stay_id", "intime"), on="stay_id")
    )
    return collect(by_hour(events, items, window_hours), path)
