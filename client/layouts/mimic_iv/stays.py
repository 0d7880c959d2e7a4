"""ICU stays: icustays, patients and admissions joined, and who is in the cohort.

Every ICU stay is accounted for: it is in the cohort, or dropped for the first rule that it breaks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import polars as pl

from client.layouts.mimic_iv.courses import MAX_STAY_DAYS, Courses, courses_of
from client.layouts.mimic_iv.deaths import contradictions_of, hours_at_most, with_ends
from client.layouts.mimic_iv.event_pass import BAD_ID, BAD_TIME, MAX_LINES, BadLines, FirstBad, bad_times_message
from client.layouts.mimic_iv.files import LINE, TIME, Columns, collect, day, is_unreadable, unique_rows
from client.layouts.mimic_iv.ids import text_ids
from client.layouts.mimic_iv.tables import Source, open_table
from client.layouts.mimic_iv.unreadable import form_of, is_too_many, refuse_empty, refuse_unreadable
from client.site import Prepare, SiteConfig
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
DAY_OF_DEATH: Columns = {"dod": pl.String}  # of patients; a table may lack it
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
FLAGS = ("hospital_expire_flag",)  # another number is another column's: codes of where patients went, say
MAX_AGE_YEARS = 120
BAD_TIMES = "intime or outtime missing, or outtime before intime"
TOO_LONG = f"longer than {MAX_STAY_DAYS:,} days"
NOT_FOUND = "patient or admission not found, or age unknown"
NO_KEY, REPEATED = "stay_id missing or unreadable", "stay_id repeated"
JOINED = "joined to the row before"
WITHIN = "begins during another stay of the patient, in another admission"
DEAD_BEFORE = "dead before ICU admission"
DATA_REASONS = (NO_KEY, WITHIN, BAD_TIMES, TOO_LONG, NOT_FOUND, DEAD_BEFORE)  # by which no plan leaves a stay out


@dataclass(frozen=True)
class StayTables:
    """The three tables that say who was in intensive care, and when; each key is there once.

    ``counts`` has rows, unreadable ids, numbers and times, and repeated keys of each table; ``bad_lines`` the lines of
    all of these, each once; ``first_bad`` line and form of the first of each kind. Once there are ``courses``, icustays
    has one row for each.
    """

    icustays: pl.DataFrame
    patients: pl.DataFrame
    admissions: pl.DataFrame
    counts: dict[str, dict[str, Any]] = field(kw_only=True, default_factory=dict)
    bad_lines: dict[str, BadLines] = field(kw_only=True, default_factory=dict)
    first_bad: dict[str, FirstBad] = field(kw_only=True, default_factory=dict)
    courses: Courses | None = field(kw_only=True, default=None)


def read_stay_tables(site: SiteConfig) -> StayTables:
    """Read the three tables; ids are numbers or text as all of them together tell (see ``ids``).

    Raises:
        DataError: a table is missing, empty or damaged, a key is repeated, or too many numbers or times of it cannot
            be read.
    """
    sources = {name: open_table(site.data.ehr, name) for name in READ}
    stored = {name: _stored_table(source) for name, source in sources.items()}
    texts = text_ids(stored.values())
    read = {name: _read_table(replace(sources[name], text_ids=texts), stored[name], site.prepare) for name in READ}
    return StayTables(
        *(read[name].table for name in READ),
        counts={name: one.counts for name, one in read.items()},
        bad_lines={name: one.bad_lines for name, one in read.items()},
        first_bad={name: one.first_bad for name, one in read.items()},
    )


class _Read(NamedTuple):
    """One table as its types, its counts, and what in it cannot be read."""

    table: pl.DataFrame
    counts: dict[str, Any]
    bad_lines: BadLines
    first_bad: FirstBad


def _stored_table(source: Source) -> pl.DataFrame:
    """A whole table with its lines, as it is stored."""
    optional = DAY_OF_DEATH if source.name == "patients" else {}
    raw = source.raw(dict.fromkeys(READ[source.name], pl.String), optional, with_lines=True)
    stored = collect(raw, source.path)
    refuse_empty(source, stored.height)
    return stored


def _read_table(source: Source, stored: pl.DataFrame, rules: Prepare) -> _Read:
    """A table as its types, each key once."""
    columns, key, limit = READ[source.name], KEYS[source.name], rules.max_bad_fraction
    whole = _with_stored(source, stored, columns)
    bad = {
        BAD_ID if column == key else f"{column}_unreadable": _bad_numbers(whole, column, source, limit)
        for column in _of_type(columns, pl.Int64)
    }
    bad[BAD_TIME] = _bad_times(whole, source, _of_type(columns, TIME), limit)
    if "dod" in whole.columns:
        bad["dod_unreadable"] = _bad_days(whole, source, limit)
    names = [name for name in whole.columns if name != LINE and not name.endswith(_stored(""))]
    table, num_again = unique_rows(whole.select(names), key, source.path, rules.on_duplicate)
    lines: dict[str, list[int]] = {reason: its[LINE].to_list() for reason, its in bad.items()}
    counts = {
        "file": source.path.name,
        "rows": whole.height,
        **{reason: len(its) for reason, its in lines.items()},
        "duplicates": num_again,
        "used": table.height,
    }
    lines["repeated"] = whole.drop_nulls(key).filter(~pl.col(key).is_first_distinct())[LINE].to_list()
    first_reason = {line: reason for reason, its in reversed(lines.items()) for line in its}
    first_bad = {reason: first for reason, its in bad.items() if (first := _first(its))}
    return _Read(table, counts, sorted(first_reason.items())[:MAX_LINES], first_bad)


def _of_type(columns: Columns, kind: type[pl.DataType] | pl.DataType) -> list[str]:
    """The columns of a type."""
    return [column for column, its in columns.items() if its == kind]


def _stored(column: str) -> str:
    """Where the text of a column is kept."""
    return f"{column}_stored"


def _with_stored(source: Source, stored: pl.DataFrame, columns: Columns) -> pl.DataFrame:
    """A whole table with its lines, and the text of every number and time."""
    typed = source.typed(stored.lazy(), columns)
    judged = [*_of_type(columns, pl.Int64), *_of_type(columns, TIME)]
    if "dod" in stored.columns:
        typed.append(day("dod", stored.schema["dod"], source.time_format))
        judged.append("dod")
    texts = [pl.col(column).cast(pl.String, strict=False).alias(_stored(column)) for column in judged]
    flags = [pl.when(pl.col(name).is_in([0, 1])).then(name) for name in FLAGS if name in columns]
    return stored.select(LINE, *typed, *texts).with_columns(flags)


def _bad_days(whole: pl.DataFrame, source: Source, max_bad_fraction: float) -> pl.DataFrame:
    """Line and text of the rows with a day of death that is there and cannot be read.

    Raises:
        DataError: they are too many of those that are there: the dead would pass for living.
    """
    bad = _told(whole, is_unreadable(pl.col("dod"), pl.col(_stored("dod"))), "dod")
    num_there = whole.height - whole[_stored("dod")].null_count()
    rule = f"a date as 2150-03-10, or match {source.time_format}"
    refuse_unreadable(source, "dod", bad.height, num_there, max_bad_fraction, rule=rule, first=_first(bad))
    return bad


def _told(whole: pl.DataFrame, is_bad: pl.Expr, column: str) -> pl.DataFrame:
    """Line and text of the rows of which something is bad."""
    return whole.filter(is_bad).select(LINE, text=_stored(column))


def _bad_numbers(whole: pl.DataFrame, column: str, source: Source, max_bad_fraction: float) -> pl.DataFrame:
    """Line and text of the rows with a number that is there and cannot be read. One that is not there is no fault,
    unless it is the key.

    Raises:
        DataError: they are too many.
    """
    number = pl.col(column)
    is_bad = number.is_null() if column == KEYS[source.name] else is_unreadable(number, pl.col(_stored(column)))
    bad = _told(whole, is_bad, column)
    rule = "0 or 1" if column in FLAGS else "a whole number"
    refuse_unreadable(source, column, bad.height, whole.height, max_bad_fraction, rule=rule, first=_first(bad))
    return bad


def _first(bad: pl.DataFrame) -> dict[str, Any] | None:
    """Line and form of the first of some bad rows."""
    return {"line": bad[LINE][0], "form": form_of(bad["text"][0])} if bad.height else None


def _bad_times(whole: pl.DataFrame, source: Source, times: Sequence[str], max_bad_fraction: float) -> pl.DataFrame:
    """Line and text of the rows with a time that is there and cannot be read.

    Raises:
        DataError: they are too many of the times that are there; few admissions have a ``deathtime``.
    """
    is_bad = {time: is_unreadable(pl.col(time), pl.col(_stored(time))) for time in times}
    num_there = {time: whole.height - whole[_stored(time)].null_count() for time in times}
    num_bad = {time: whole.select(is_so.sum()).item() for time, is_so in is_bad.items()}
    for time in times:
        if is_too_many(num_bad[time], num_there[time], max_bad_fraction):
            first = whole.filter(is_bad[time]).row(0, named=True)
            are_others_read = any(2 * num_bad[other] < num_there[other] for other in times if other != time)
            raise DataError(
                bad_times_message(
                    source, [time], num_bad[time], num_there[time], first, are_others_read=are_others_read
                )
            )
    text = pl.coalesce(pl.when(is_so).then(_stored(time)) for time, is_so in is_bad.items()) if times else pl.lit("")
    any_bad = pl.any_horizontal(pl.lit(False), *is_bad.values())
    return whole.filter(any_bad).select(LINE, text=text)


def with_courses(tables: StayTables, spec: CohortSpec) -> StayTables:
    """The tables with one row of icustays for each course in intensive care (see ``courses``)."""
    if tables.courses is not None:
        return tables
    courses = courses_of(tables.icustays, tables.admissions, spec.merge_within_hours)
    return replace(tables, icustays=courses.stays, courses=courses)


def select_stays(tables: StayTables, spec: CohortSpec) -> tuple[pl.DataFrame, list[dict[str, str | int]]]:
    """The cohort's stays in the order of ``stay_id``, and the attrition table from all rows of icustays down to them.

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
    """Rows of icustays that are no stay of their own: without a key, repeated, or part of another."""
    assert tables.courses is not None, "with_courses comes first"
    lost = tables.counts.get("icustays", {})
    of_one = f"{JOINED}: same admission, at most {spec.merge_within_hours:g} hours apart"
    counts = {
        NO_KEY: lost.get(BAD_ID, 0),
        REPEATED: lost.get("duplicates", 0),
        of_one: tables.courses.num_merged,
        WITHIN: tables.courses.num_within,
    }
    return {reason: num for reason, num in counts.items() if num}


def _joined(tables: StayTables) -> pl.DataFrame:
    """Every course with its patient and admission, and its ends. ``age`` counts years at admission: anchor_age + year
    of admission - anchor_year (MIT-LCP/mimic-code, demographics/age.sql)."""
    found = tables.icustays.join(tables.patients, on="subject_id", how="left").join(
        tables.admissions, on=["subject_id", "hadm_id"], how="left"
    )
    age = pl.col("anchor_age") + pl.col("admittime").dt.year() - pl.col("anchor_year")
    return with_ends(found.with_columns(age=age), tables.admissions)


def contradictions_in(tables: StayTables, spec: CohortSpec) -> dict[str, int]:
    """What of all ICU stays, deaths and admissions contradicts itself, with how many stays."""
    tables = with_courses(tables, spec)
    assert tables.courses is not None
    return {**tables.courses.contradictions, **contradictions_of(_joined(tables))}


def with_left_out(stays: pl.DataFrame, tables: StayTables) -> pl.DataFrame:
    """The cohort's stays, each with the ids of all its rows of icustays, and, without a ``row``, those that were left
    out: ids and ``intime``."""
    assert tables.courses is not None, "with_courses comes first"
    rows = tables.courses.members
    mine = stays.select("row", pl.col("stay_id").alias("course"), pl.col("intime").alias("begin"))
    joined = rows.join(mine, on="course", how="left", maintain_order="left")
    return joined.select("row", "subject_id", "stay_id", pl.coalesce("begin", "intime").alias("intime"))
