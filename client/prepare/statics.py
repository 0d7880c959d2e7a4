"""Statics: what is known of a stay when it begins. Nothing here looks at its end or at its diagnoses."""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from client.prepare.stays import StayTables
from lemof_model.categories import CATEGORY_WORDS, category_of, is_understood
from lemof_model.features import STATICS
from readers.tables.unreadable import form_of


def with_statics(stays: pl.DataFrame, tables: StayTables) -> pl.DataFrame:
    """Add the statics of the schema to the stays; categorical ones become category names.

    Earlier admissions and ICU stays (courses, not rows) are those of the same patient that began before
    this one did. Comorbidities are added by ``comorbidities``.
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


def told_of_stays(stays: pl.DataFrame) -> dict[str, Any]:
    """What a person should know of the stays that ``select_stays`` found (JSON values): how many died in the hospital;
    and for each categorical static, in how many stays it has a word that no category knows, and the form of the most
    frequent one. Those count as ``other``, though the hospital meant something."""
    unknown = {}
    for name in CATEGORY_WORDS:
        words = stays[name].drop_nulls().value_counts(name="num").sort("num", name, descending=[True, False])
        met = [(word, num) for word, num in words.iter_rows() if not is_understood(name, word)]
        if met:
            unknown[name] = {"num": sum(num for _, num in met), "form": form_of(met[0][0])}
    num_died = int(stays["died_in_hospital"].sum())
    return {"deaths": {"num": stays.height, "num_died": num_died}, "words_not_understood": unknown}


def _category(name: str) -> pl.Expr:
    """The category that a raw text belongs to."""
    return (
        pl.col(name)
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
