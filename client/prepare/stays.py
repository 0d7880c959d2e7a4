"""ICU stays, their patients and admissions joined, and who is in the cohort.

Every ICU stay is accounted for: it is in the cohort, or dropped for the first rule that it breaks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from client.prepare.courses import MAX_STAY_DAYS, Courses, courses_of
from client.prepare.deaths import contradictions_of, hours_at_most, with_ends
from client.prepare.event_pass import BAD_ID, BadLines, FirstBad
from client.prepare.whole_tables import WholeTable, read_whole
from client.site import Prepare
from lemof_model.study import CohortSpec

MAX_AGE_YEARS = 120
BAD_TIMES = "intime or outtime missing, or outtime before intime"
TOO_LONG = f"longer than {MAX_STAY_DAYS:,} days"
NOT_FOUND = "patient or admission not found, or age unknown"
NO_KEY, REPEATED = "stay_id missing or unreadable", "stay_id repeated"
JOINED = "joined to the row before"
WITHIN = "begins during another stay of the patient, in another admission"
DEAD_BEFORE = "dead before ICU admission"
DATA_REASONS = (NO_KEY, WITHIN, BAD_TIMES, TOO_LONG, NOT_FOUND, DEAD_BEFORE)  # by which no plan leaves a stay out


Frames = tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]


@dataclass(frozen=True)
class StayTables:
    """Who was in intensive care, and when: three tables of which each key is there once. Ids are whole numbers, or text
    at a hospital whose ids are texts; times are local; words are as the hospital writes them.

    Attributes:
        icustays: ``subject_id``, ``hadm_id``, ``stay_id``, ``careunit_kind`` (words), ``intime``, ``outtime``. A row
            for each stay in an intensive care unit; once there are ``courses``, for each course.
        patients: ``subject_id``, ``sex`` (words); ``dod``, the day of death, where it is known.
        admissions: ``subject_id``, ``hadm_id``, ``admittime``, ``dischtime``, ``deathtime`` (of deaths in hospital),
            ``age`` (whole years at admission), ``hospital_expire_flag`` (1: died in the hospital, 0: left it alive),
            and words: ``admission_type``, ``admission_location``, ``insurance``, ``marital_status``, ``race``.
        keys: each raw table and its key, that of the stays first.
        counts, bad_lines, first_bad: of each raw table: rows, unreadable ids, numbers and times, and repeated keys; the
            lines of all of these, each once; line and form of the first of each kind.
    """

    icustays: pl.DataFrame
    patients: pl.DataFrame
    admissions: pl.DataFrame
    keys: Mapping[str, str] = field(kw_only=True, default_factory=lambda: {"icustays": "stay_id"})
    counts: dict[str, dict[str, Any]] = field(kw_only=True, default_factory=dict)
    bad_lines: dict[str, BadLines] = field(kw_only=True, default_factory=dict)
    first_bad: dict[str, FirstBad] = field(kw_only=True, default_factory=dict)
    courses: Courses | None = field(kw_only=True, default=None)


def read_stay_tables(
    raw: Mapping[str, WholeTable], make: Callable[[dict[str, pl.DataFrame]], Frames], rules: Prepare
) -> StayTables:
    """Read the raw tables of stays, patients and admissions, that of the stays first, and ``make`` the three frames of
    ``StayTables`` of them.

    Raises:
        DataError: a table is empty or damaged, a key is repeated, or too many numbers or times cannot be read.
    """
    read = read_whole(raw, rules)
    return StayTables(
        *make({name: one.table for name, one in read.items()}),
        keys={name: table.key for name, table in raw.items()},
        counts={name: one.counts for name, one in read.items()},
        bad_lines={name: one.bad_lines for name, one in read.items()},
        first_bad={name: one.first_bad for name, one in read.items()},
    )


def with_courses(tables: StayTables, spec: CohortSpec) -> StayTables:
    """The tables with one row of stays for each course in intensive care (see ``courses``)."""
    if tables.courses is not None:
        return tables
    courses = courses_of(tables.icustays, tables.admissions, spec.merge_within_hours)
    return replace(tables, icustays=courses.stays, courses=courses)


def select_stays(tables: StayTables, spec: CohortSpec) -> tuple[pl.DataFrame, list[dict[str, str | int]]]:
    """The cohort's stays in the order of ``stay_id``, and the attrition table from all rows of stays down to them.

    ``row`` is the stay's row in every array. Lengths end at death (see ``deaths``): who is dead at the prediction is
    not predicted.
    """
    tables = with_courses(tables, spec)
    stay_hours = (pl.col("outtime") - pl.col("intime")).dt.total_seconds() / 3600
    prediction = pl.col("intime") + pl.duration(hours=spec.window_hours)
    rules = {
        BAD_TIMES: stay_hours.is_null() | (stay_hours < 0),
        TOO_LONG: stay_hours > MAX_STAY_DAYS * 24,
        NOT_FOUND: pl.col("age").is_null() | (pl.col("age") > MAX_AGE_YEARS),
        DEAD_BEFORE: pl.col("died_until") < pl.col("intime"),
        f"younger than {spec.min_age_years} years": pl.col("age") < spec.min_age_years,
        f"dead at the prediction, {spec.window_hours} hours after ICU admission": pl.col("died_until") <= prediction,
        f"shorter than {spec.min_stay_hours:g} hours": hours_at_most() < spec.min_stay_hours,
    }
    first_broken = pl.coalesce(pl.when(broken).then(pl.lit(reason)) for reason, broken in rules.items())
    judged = _joined(tables).with_columns(dropped_for=first_broken)
    stays = judged.filter(pl.col("dropped_for").is_null()).sort("stay_id").with_row_index("row")
    before = _left_out_before(tables, spec)
    num_rows = judged.height + sum(before.values())
    always = [reason for reason in rules if reason != DEAD_BEFORE]
    dropped = {reason: int((judged["dropped_for"] == reason).sum()) for reason in rules}
    counts = {
        "all ICU stays": num_rows,
        **before,
        **{reason: num for reason, num in dropped.items() if num or reason in always},
        "in the cohort": stays.height,
    }
    assert sum(counts.values()) == 2 * num_rows, "a stay was lost or counted twice"
    return stays.drop("dropped_for"), [{"reason": reason, "num_stays": count} for reason, count in counts.items()]


def _left_out_before(tables: StayTables, spec: CohortSpec) -> dict[str, int]:
    """Rows of stays that are no stay of their own: without a key, repeated, or part of another."""
    assert tables.courses is not None, "with_courses comes first"
    lost = tables.counts.get(next(iter(tables.keys)), {})
    of_one = f"{JOINED}: same admission, at most {spec.merge_within_hours:g} hours apart"
    counts = {
        NO_KEY: lost.get(BAD_ID, 0),
        REPEATED: lost.get("duplicates", 0),
        of_one: tables.courses.num_merged,
        WITHIN: tables.courses.num_within,
    }
    return {reason: num for reason, num in counts.items() if num}


def _joined(tables: StayTables) -> pl.DataFrame:
    """Every course with its patient and admission, and its ends."""
    found = tables.icustays.join(tables.patients, on="subject_id", how="left").join(
        tables.admissions, on=["subject_id", "hadm_id"], how="left"
    )
    return with_ends(found, tables.admissions)


def contradictions_in(tables: StayTables, spec: CohortSpec) -> dict[str, int]:
    """What of all ICU stays, deaths and admissions contradicts itself, with how many stays."""
    tables = with_courses(tables, spec)
    assert tables.courses is not None
    return {**tables.courses.contradictions, **contradictions_of(_joined(tables))}


def with_left_out(stays: pl.DataFrame, tables: StayTables) -> pl.DataFrame:
    """The cohort's stays, each with the ids of all its rows, and, without a ``row``, those that were left
    out: ids and ``intime``."""
    assert tables.courses is not None, "with_courses comes first"
    rows = tables.courses.members
    mine = stays.select("row", pl.col("stay_id").alias("course"), pl.col("intime").alias("begin"))
    joined = rows.join(mine, on="course", how="left", maintain_order="left")
    return joined.select("row", "subject_id", "hadm_id", "stay_id", pl.coalesce("begin", "intime").alias("intime"))
