"""Vitals: bedside values of chartevents, joined to their stay by ``stay_id``."""

from pathlib import Path

import polars as pl

from client.layouts.mimic_iv.event_pass import EventTable, OnRows, Outcome
from client.layouts.mimic_iv.measurements import UNIT, read_measurements
from client.layouts.mimic_iv.tables import open_table
from client.site import SiteConfig
from lemof_model.concepts import VITALS

CHARTEVENTS = EventTable("stay_id", ("charttime",), {"valuenum": pl.Float64}, hints={UNIT: pl.String})


def read_vitals(
    site: SiteConfig, stays: pl.DataFrame, window_hours: int, target: Path, on_rows: OnRows = lambda _: None
) -> Outcome:
    """One pass over chartevents: the vitals of the cohort's first days (see ``measurements``)."""
    source = open_table(site.data.ehr, "chartevents")
    return read_measurements(
        source, CHARTEVENTS, VITALS, stays, target, site, window_hours=window_hours, on_rows=on_rows
    )
