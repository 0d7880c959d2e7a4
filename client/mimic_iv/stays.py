"""ICU stays: icustays, patients and admissions joined, and who is in the cohort.

Every ICU stay is accounted for: it is in the cohort, or dropped for the first rule that it breaks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import polars.selectors as cs

from client.mimic_iv.event_pass import BAD_ID, BAD_TIME, MAX_LINES, BadLines, bad_times_message
from client.mimic_iv.files import LINE, TIME, Columns, collect, is_unreadable, unique_rows
from client.mimic_iv.tables import Source, open_table
from client.mimic_iv.unreadable import is_too_many, refuse_empty, refuse_unreadable
from client.site import SiteConfig
from lemof_model.errors import DataError
from lemof_model.study import CohortSpec

ICUSTAYS: Columns = {
    "subject_id": pl.Int64,
    "hadm_id": pl.Int64,
    "stay_id": pl.Int64,
    "first_careunit": pl.String,
    "intime": TIME,
    "outtime": TIME,
}
PATIENTS: Columns = {"subject_id": pl.Int64, "gender": pl.String, "anchor_age": pl.Int64, "anchor_year": pl.Int64}
ADMISSIONS: Columns = {
    "subject_id": pl.Int64,
    "hadm_id": pl.Int64,
    "admittime": TIME,
    "dischtime": TIME,
    "deathtime": TIME,
    "admission_type": pl.String,
    "admission_location": pl.String,
    "insurance": pl.String,
    "marital_status": pl.String,
    "race": pl.String,
    "hospital_expire_flag": pl.Int64,
}


KEYS = {"icustays": "stay_id", "patients": "subject_id", "admissions": "hadm_id"}
READ: dict[str, Columns] = {"icustays": ICUSTAYS, "patients": PATIENTS, "admissions": ADMISSIONS}
MAX_STAY_DAYS, MAX_AGE_YEARS = 1000, 120  # beyond them a clock is wrong: MIMIC-IV's longest stays are half of it
BAD_TIMES = "intime or outtime missing, or outtime before intime"
TOO_LONG = f"longer than {MAX_STAY_DAYS:,} days"
NOT_FOUND = "patient or admission not found, or age unknown"
NO_KEY, REPEATED = "stay_id missing or unreadable", "stay_id repeated"
DATA_REASONS = (NO_KEY, BAD_TIMES, TOO_LONG, NOT_FOUND)  # by which no plan leaves a stay out


@dataclass(frozen=True)
class StayTables:
    """The three tables that say who was in intensive care, and when; each key is there once.

    ``counts`` has rows, unreadable ids, numbers and times, and repeated keys of each table; ``bad_lines`` the lines of
    all of these, each once.
    """

    icustays: pl.DataFrame
    patients: pl.DataFrame
    admissions: pl.DataFrame
    counts: dict[str, dict[str, Any]] = field(kw_only=True, default_factory=dict)
    bad_lines: dict[str, BadLines] = field(kw_only=True, default_factory=dict)


def read_stay_tables(site: SiteConfig) -> StayTables:
    """Read the three tables.

    Raises:
        DataError: a table is missing, empty or damaged, a key is repeated, or too many numbers or times of it cannot
            be read.
    """
    tables, counts, bad_lines = {}, {}, {}
    for name, columns in READ.items():
        source, limit = open_table(site.data.ehr, name), site.prepare.max_bad_fraction
        whole = _with_stored(source, columns)
        refuse_empty(source, whole.height)
        key = KEYS[name]
        lines = {
            BAD_ID if column == key else f"{column}_unreadable": _lines_of_bad_numbers(whole, column, source, limit)
            for column in _of_type(columns, pl.Int64)
        }
        lines[BAD_TIME] = _lines_of_bad_times(whole, source, _of_type(columns, TIME), limit)
        tables[name], num_again = unique_rows(whole.select(list(columns)), key, source.path, site.prepare.on_duplicate)
        counts[name] = {
            "file": source.path.name,
            "rows": whole.height,
            **{reason: len(its) for reason, its in lines.items()},
            "duplicates": num_again,
            "used": tables[name].height,
        }
        lines["repeated"] = whole.drop_nulls(key).filter(~pl.col(key).is_first_distinct())[LINE].to_list()
        first_reason = {line: reason for reason, its in reversed(lines.items()) for line in its}
        bad_lines[name] = sorted(first_reason.items())[:MAX_LINES]
    return StayTables(**tables, counts=counts, bad_lines=bad_lines)


def _of_type(columns: Columns, kind: type[pl.DataType] | pl.DataType) -> list[str]:
    """The columns of a type."""
    return [column for column, its in columns.items() if its == kind]


def _stored(column: str) -> str:
    """Where the text of a column is kept."""
    return f"{column}_stored"


def _with_stored(source: Source, columns: Columns) -> pl.DataFrame:
    """A whole table with its lines, and the text of every number and time."""
    raw = source.raw(dict.fromkeys(columns, pl.String), with_lines=True)
    raw = raw.with_columns((cs.by_name(_of_type(columns, pl.Int64)) & cs.string()).str.strip_chars())
    judged = [*_of_type(columns, pl.Int64), *_of_type(columns, TIME)]
    texts = [pl.col(column).cast(pl.String, strict=False).alias(_stored(column)) for column in judged]
    return collect(raw.select(LINE, *source.typed(raw, columns), *texts), source.path)


def _lines_of_bad_numbers(whole: pl.DataFrame, column: str, source: Source, max_bad_fraction: float) -> list[int]:
    """The lines with a number that is there and cannot be read. One that is not there is no fault, unless it is the
    key.

    Raises:
        DataError: they are too many.
    """
    number = pl.col(column)
    is_bad = number.is_null() if column == KEYS[source.name] else is_unreadable(number, pl.col(_stored(column)))
    bad = whole.filter(is_bad).select(LINE, _stored(column))
    refuse_unreadable(source, column, bad.height, whole.height, max_bad_fraction, first=bad.head(1).rows())
    return bad[LINE].to_list()


def _lines_of_bad_times(
    whole: pl.DataFrame, source: Source, times: Sequence[str], max_bad_fraction: float
) -> list[int]:
    """The lines with a time that is there and cannot be read.

    Raises:
        DataError: they are too many of the times that are there; few admissions have a ``deathtime``.
    """
    is_bad = {time: is_unreadable(pl.col(time), pl.col(_stored(time))) for time in times}
    for time in times:
        bad = whole.filter(is_bad[time])
        num_there = whole.height - whole[_stored(time)].null_count()
        if is_too_many(bad.height, num_there, max_bad_fraction):
            first = bad.row(0, named=True)
            raise DataError(bad_times_message(source, [time], bad.height, num_there, first))
    return whole.filter(pl.any_horizontal(pl.lit(False), *is_bad.values()))[LINE].to_list()


def select_stays(tables: StayTables, spec: CohortSpec) -> tuple[pl.DataFrame, list[dict[str, str | int]]]:
    """The cohort's stays in the order of ``stay_id``, and the attrition table from all ICU stays down to them.

    ``row`` is the stay's row in every array. ``age`` counts years at admission: anchor_age + year of admission -
    anchor_year (MIT-LCP/mimic-code, demographics/age.sql).
    """
    joined = (
        tables.icustays.join(tables.patients, on="subject_id", how="left")
        .join(tables.admissions, on=["subject_id", "hadm_id"], how="left")
        .with_columns(age=pl.col("anchor_age") + pl.col("admittime").dt.year() - pl.col("anchor_year"))
    )
    stay_hours = (pl.col("outtime") - pl.col("intime")).dt.total_seconds() / 3600
    rules = {
        BAD_TIMES: stay_hours.is_null() | (stay_hours < 0),
        TOO_LONG: stay_hours > MAX_STAY_DAYS * 24,
        NOT_FOUND: pl.col("age").is_null() | (pl.col("age") > MAX_AGE_YEARS),
        f"younger than {spec.min_age_years} years": pl.col("age") < spec.min_age_years,
        f"shorter than {spec.min_stay_hours:g} hours": stay_hours < spec.min_stay_hours,
    }
    first_broken = pl.coalesce(pl.when(broken).then(pl.lit(reason)) for reason, broken in rules.items())
    judged = joined.with_columns(dropped_for=first_broken)
    stays = judged.filter(pl.col("dropped_for").is_null()).sort("stay_id").with_row_index("row")
    lost = tables.counts.get("icustays", {})
    without_key = {NO_KEY: lost.get(BAD_ID, 0), REPEATED: lost.get("duplicates", 0)}
    num_rows = tables.icustays.height + sum(without_key.values())
    counts = {
        "all ICU stays": num_rows,
        **{reason: num for reason, num in without_key.items() if num},
        **{reason: int((judged["dropped_for"] == reason).sum()) for reason in rules},
        "in the cohort": stays.height,
    }
    assert sum(counts.values()) == 2 * num_rows, "a stay was lost or counted twice"
    return stays.drop("dropped_for"), [{"reason": reason, "num_stays": count} for reason, count in counts.items()]


def with_left_out(stays: pl.DataFrame, tables: StayTables) -> pl.DataFrame:
    """The cohort's stays and, without a ``row``, those of icustays that were left out: ids and ``intime``."""
    known = stays.select("row", "subject_id", "stay_id", "intime")
    left_out = tables.icustays.join(known, on="stay_id", how="anti").select(list(known.columns[1:]))
    return pl.concat([known, left_out], how="diagonal")


def with_outcomes(stays: pl.DataFrame) -> pl.DataFrame:
    """Add lengths of stay and deaths, as ``client.cohort.STAY_COLUMNS`` has them. An impossible length is unknown."""
    days = 24 * 3600
    is_dead = pl.col("deathtime").is_not_null()
    hospital_los_days = (pl.col("dischtime") - pl.col("admittime")).dt.total_seconds() / days
    return stays.with_columns(
        icu_los_days=(pl.col("outtime") - pl.col("intime")).dt.total_seconds() / days,
        hospital_los_days=pl.when(hospital_los_days.is_between(0, MAX_STAY_DAYS)).then(hospital_los_days),
        died_in_icu=pl.col("deathtime").is_between("intime", "outtime").fill_null(False),
        died_in_hospital=is_dead | (pl.col("hospital_expire_flag") == 1).fill_null(False),
    )
