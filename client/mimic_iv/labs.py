"""Laboratory values of labevents, joined by patient and time: emergency values often carry no admission.

A value counts by ``charttime``, when the sample was taken; one that was reported (``storetime``) after the prediction
time is not yet known then, and is left out.
"""

import polars as pl

from client.mimic_iv.measurements import by_hour, items_of
from client.mimic_iv.tables import TIME, Columns, collect, find_table, scan
from client.site import EhrData
from lemof_model.features import LABS

LABEVENTS: Columns = {"subject_id": pl.Int64, "itemid": pl.Int64, "charttime": TIME, "valuenum": pl.Float64}


def labs_by_hour(ehr: EhrData, stays: pl.DataFrame, window_hours: int) -> pl.DataFrame:
    """One pass over labevents: the laboratory values of the cohort's first days by hour."""
    path = find_table(ehr, "labevents")
    items = items_of(LABS)
    prediction_time = pl.col("intime") + pl.duration(hours=window_hours)
    events = (
        scan(path, LABEVENTS, optional={"storetime": TIME})
        .filter(pl.col("itemid").is_in(items["itemid"].to_list()))
        .join(stays.lazy().select("row", "subject_id", "intime"), on="subject_id")
        .filter(pl.col("storetime").is_null() | (pl.col("storetime") <= prediction_time))
    )
    return collect(by_hour(events, items, window_hours), path)
