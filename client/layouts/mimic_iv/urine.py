"""Urine of outputevents, from ICU admission to the prediction; what was rinsed in is taken off."""

from pathlib import Path

import polars as pl

from client.layouts.mimic_iv.event_pass import EventTable, OnRows, Outcome, seconds_since_admission
from client.layouts.mimic_iv.measurements import UNIT, read_measurements
from client.layouts.mimic_iv.tables import open_table
from client.site import SiteConfig
from lemof_model.concepts import URINE

OUTPUTEVENTS = EventTable("stay_id", ("charttime",), {"value": pl.Float64}, hints={UNIT: pl.String})


def read_urine(
    site: SiteConfig, stays: pl.DataFrame, window_hours: int, target: Path, on_rows: OnRows = lambda _: None
) -> Outcome:
    """One pass over outputevents (see ``measurements``).

    The day begins at admission, not 6 h before: MIT-LCP/mimic-code, firstday/first_day_urine_output.sql.
    """
    return read_measurements(
        open_table(site.data.ehr, "outputevents"),
        OUTPUTEVENTS,
        (URINE,),
        stays,
        target,
        site,
        window_hours=window_hours,
        also_dropped={"outside_first_day": ~seconds_since_admission("charttime").is_between(0, window_hours * 3600)},
        on_rows=on_rows,
    )
