"""Statics: what is known of a stay when it begins. Nothing here looks at its end or at its diagnoses."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from client.mimic_iv.stays import StayTables
from lemof_model.categories import CATEGORY_WORDS, category_of
from lemof_model.features import STATICS

RAW_COLUMNS = {
    "sex": "gender",
    "admission_type": "admission_type",
    "admission_location": "admission_location",
    "careunit_kind": "first_careunit",
    "insurance": "insurance",
    "marital_status": "marital_status",
    "race": "race",
}


def with_statics(stays: pl.DataFrame, tables: StayTables) -> pl.DataFrame:
    """Add the statics of the schema to the stays; categorical ones as category names.

    Earlier admissions and ICU stays are those of the same patient that began before this one did. Comorbidities are
    added by ``comorbidities``.
    """
    return (
        stays.with_columns(_category(name) for name in CATEGORY_WORDS)
        .with_columns(
            icu_admission_hour=pl.col("intime").dt.hour(),
            hours_to_icu=(pl.col("intime") - pl.col("admittime")).dt.total_seconds() / 3600,
        )
        .join(_num_earlier(stays, tables.admissions, "admittime", "num_earlier_admissions"), on="row")
        .join(_num_earlier(stays, tables.icustays, "intime", "num_earlier_icu_stays"), on="row")
        .join(_hours_since_discharge(stays, tables.admissions), on="row", how="left")
        .sort("row")
    )


def static_features(stays: pl.DataFrame) -> NDArray[np.float32]:
    """The statics as columns of ``features.npy``: numbers (NaN outside their plausible range), and codes of categories.

    Shape:
        stays: N rows with statics; result: (N, number of statics)
    """
    columns = []
    for feature in STATICS:
        column = stays[feature.name]
        if feature.kind == "categorical":
            column = column.replace_strict({name: code for code, name in enumerate(feature.categories)})
        values = column.cast(pl.Float32).fill_null(float("nan")).to_numpy()
        if feature.low is not None and feature.high is not None:
            values = np.where((values >= feature.low) & (values <= feature.high), values, np.float32(np.nan))
        columns.append(values)
    return np.stack(columns, axis=1)


def _category(name: str) -> pl.Expr:
    """The category that a raw text belongs to."""
    return (
        pl.col(RAW_COLUMNS[name])
        .map_elements(lambda raw: category_of(name, raw), return_dtype=pl.String, skip_nulls=False)
        .alias(name)
    )


def _num_earlier(stays: pl.DataFrame, events: pl.DataFrame, time: str, name: str) -> pl.DataFrame:
    """For each row, how many of the patient's events began before its own."""
    earlier = events.select("subject_id", event_time=time)
    return (
        stays.select("row", "subject_id", time)
        .join(earlier, on="subject_id", how="left")
        .group_by("row")
        .agg((pl.col("event_time") < pl.col(time)).sum().alias(name))
    )


def _hours_since_discharge(stays: pl.DataFrame, admissions: pl.DataFrame) -> pl.DataFrame:
    """For each row, hours from the end of the patient's last earlier admission to this one; no row where none ended."""
    return (
        stays.select("row", "subject_id", begin="admittime")
        .join(admissions.select("subject_id", end="dischtime"), on="subject_id")
        .filter(pl.col("end") < pl.col("begin"))
        .group_by("row")
        .agg(hours_since_discharge=(pl.col("begin") - pl.col("end")).min().dt.total_seconds() / 3600)
    )
