"""Laboratory values of labevents, joined by patient and time: emergency values often carry no admission.

A value counts by ``charttime``, when the sample was taken; one that was reported (``storetime``) after the prediction
time is not yet known then, and is left out. So is one whose ``storetime`` cannot be read; an empty one tells nothing.
"""

from pathlib import Path

import polars as pl

from client.layouts.mimic_iv.event_pass import EventTable, OnRows, Outcome, seconds_since_admission
from client.layouts.mimic_iv.files import TIME
from client.layouts.mimic_iv.measurements import UNIT, read_measurements
from client.layouts.mimic_iv.tables import open_table
from client.site import SiteConfig
from lemof_model.concepts import LABS

LABEVENTS = EventTable(
    "subject_id", ("charttime",), {"valuenum": pl.Float64}, optional={"storetime": TIME}, hints={UNIT: pl.String}
)


def read_labs(
    site: SiteConfig, stays: pl.DataFrame, window_hours: int, target: Path, on_rows: OnRows = lambda _: None
) -> Outcome:
    """One pass over labevents: the laboratory values of the cohort's first days (see ``measurements``)."""
    return read_measurements(
        open_table(site.data.ehr, "labevents"),
        LABEVENTS,
        LABS,
        stays,
        target,
        site,
        window_hours=window_hours,
        also_dropped={"stored_late": seconds_since_admission("storetime") > window_hours * 3600},
        on_rows=on_rows,
    )
