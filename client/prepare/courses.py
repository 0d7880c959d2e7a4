"""Courses in intensive care: rows of stays that are one stay.

MIMIC-IV joins only consecutive rows of its transfers, so five minutes in a discharge lounge or two hours in theatre
are the end of one row and the beginning of the next; other hospitals write a row for each bed. Rows of one admission
that overlap, or are no further apart than the plan's ``merge_within_hours``, are one stay: with the first row's id,
``intime`` and care unit, and the last one's end. See docs/decisions/0009-one-course-one-stay.md.
"""

from dataclasses import dataclass

import polars as pl

MAX_STAY_DAYS = 1000  # beyond it a clock is wrong: MIMIC-IV's longest stays are half of it
OVERLAPPING = "ICU stays that overlap in one admission, taken for one"
IN_ANOTHER = "ICU stays that begin during another one of the patient, in another admission, left out"
ADJOINING_ANOTHER = "ICU stays that go on with one of another admission of the patient, counted as two"


@dataclass(frozen=True)
class Courses:
    """What ``courses_of`` made of the rows of stays.

    Attributes:
        stays: one row for each course, with the columns of the rows.
        members: each row (patient, admission, stay, ``intime``) with the ``stay_id`` of its ``course``.
        num_merged, num_within: rows that went on with a course, and those that lay within one of another admission.
        contradictions: what was met that contradicts itself, with how many.
    """

    stays: pl.DataFrame
    members: pl.DataFrame
    num_merged: int
    num_within: int
    contradictions: dict[str, int]


def courses_of(icustays: pl.DataFrame, admissions: pl.DataFrame, merge_within_hours: float) -> Courses:
    """Join the rows of a course. A row without an admission, or whose times cannot be right, stays alone.

    A course of which one row has no end has none. Two of a patient are held against each other where ``admissions`` has
    both.

    Example:
        >>> from datetime import datetime
        >>> day = lambda number: datetime(2150, 1, number)
        >>> rows = pl.DataFrame({"subject_id": 1, "hadm_id": 11, "stay_id": [5, 6, 7], "careunit_kind": list("ABC"),
        ...                      "intime": [day(1), day(3), day(9)], "outtime": [day(3), day(4), day(10)]})
        >>> courses_of(rows, rows, 6).stays.select("stay_id", "careunit_kind", pl.col("outtime").dt.day()).rows()
        [(5, 'A', 4), (7, 'C', 10)]
    """
    is_sound = _is_sound()
    admission = ["subject_id", "hadm_id"]
    sound = icustays.filter(is_sound).sort(*admission, "intime", "stay_id")
    reached = pl.col("outtime").cum_max().shift().forward_fill().over(admission)
    apart_hours = (pl.col("intime") - reached).dt.total_seconds() / 3600
    sound = sound.with_columns(apart_hours=apart_hours, begins=~(apart_hours <= merge_within_hours).fill_null(False))
    sound = sound.with_columns(course=pl.col("begins").cum_sum())
    end = pl.when(pl.col("outtime").is_not_null().all()).then(pl.col("outtime").max()).alias("outtime")
    others = [pl.col(name).first() for name in icustays.columns if name != "outtime"]
    joined = sound.group_by("course", maintain_order=True).agg(*others, end)
    whole = pl.concat([joined.select(icustays.columns), icustays.filter(~is_sound)])
    admitted = joined.join(admissions, on=admission, how="semi", maintain_order="left")
    gap_hours = _hours_since_other_admissions(admitted)
    within = admitted.filter(gap_hours < 0)
    own = ["subject_id", "hadm_id", "stay_id", "intime"]
    course_of = joined.select("course", pl.col("stay_id").alias("id"))
    members = sound.select(*own, "course").join(course_of, on="course").select(*own, course="id")
    alone = icustays.filter(~is_sound).select(*own, course="stay_id")
    contradictions = {
        OVERLAPPING: int((sound["apart_hours"] < 0).sum()),
        IN_ANOTHER: within.height,
        ADJOINING_ANOTHER: int(gap_hours.is_between(0, merge_within_hours).sum()),
    }
    stays = whole.join(within, on="stay_id", how="anti", maintain_order="left")
    num_merged = sound.height - joined.height
    return Courses(stays, pl.concat([members, alone]), num_merged, within.height, contradictions)


def _is_sound() -> pl.Expr:
    """Whether a row has an admission and times that can be right; its end may not be known."""
    hours = (pl.col("outtime") - pl.col("intime")).dt.total_seconds() / 3600
    is_there = pl.all_horizontal(pl.col("subject_id", "hadm_id", "stay_id", "intime").is_not_null())
    return is_there & hours.is_between(0, MAX_STAY_DAYS * 24).fill_null(True)


def _hours_since_other_admissions(courses: pl.DataFrame) -> pl.Series:
    """Hours from the end of the patient's earlier courses to the beginning of each: negative where it lies within one.
    Those of one admission are joined already, so what is near is of another."""
    reached = pl.col("outtime").cum_max().shift().forward_fill().over("subject_id")
    hours = (pl.col("intime") - reached).dt.total_seconds() / 3600
    placed = courses.with_row_index("place").sort("subject_id", "intime", "stay_id").with_columns(hours=hours)
    return placed.sort("place")["hours"]
