"""Codes of diagnoses_icd as prefixes without dots, by version: whether an admission has one of a group."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from client.mimic_iv.event_pass import BAD_ID, MAX_LINES, BadLines
from client.mimic_iv.files import LINE, Columns, collect, collect_all
from client.mimic_iv.tables import Source, open_table
from client.mimic_iv.unreadable import refuse_empty, refuse_unreadable
from client.site import EhrData

DIAGNOSES_ICD: Columns = {"hadm_id": pl.Int64, "icd_code": pl.String, "icd_version": pl.Int64}
Prefixes = Mapping[int, tuple[str, ...]]


def spans(text: str) -> tuple[str, ...]:
    """Prefixes from a short list in which ``I60-I69`` stands for all between.

    Example:
        >>> spans("G45 I60-I62 4254-4256")
        ('G45', 'I60', 'I61', 'I62', '4254', '4255', '4256')
    """
    prefixes: list[str] = []
    for part in text.split():
        first, _, last = part.partition("-")
        letters = "" if first[0].isdigit() else first[0]
        width = len(first) - len(letters)
        stop = int((last or first)[len(letters) :])
        prefixes += [f"{letters}{number:0{width}}" for number in range(int(first[len(letters) :]), stop + 1)]
    return tuple(prefixes)


def read_groups(
    ehr: EhrData, admissions: pl.DataFrame, groups: Mapping[str, Prefixes], max_bad_fraction: float
) -> tuple[pl.DataFrame, dict[str, Any], BadLines]:
    """For each of the ``admissions`` (by ``hadm_id``) that has codes, whether one is in a group; how many rows of
    diagnoses_icd were read: rows = id_unreadable + icd_version_unreadable + other_admissions + used; and the lines of
    the unreadable ones.

    Raises:
        DataError: the table is missing, empty or damaged, or too many ids or versions cannot be read.
    """
    source = open_table(ehr, "diagnoses_icd")
    rows = source.scan(DIAGNOSES_ICD)
    own = rows.drop_nulls("icd_version").join(admissions.lazy().select("hadm_id").unique(), on="hadm_id", how="semi")
    lost = {"hadm_id": pl.col("hadm_id").is_null()}
    lost["icd_version"] = ~lost["hadm_id"] & pl.col("icd_version").is_null()
    counted = rows.select(pl.len().alias("rows"), *(is_lost.sum().alias(column) for column, is_lost in lost.items()))
    used, met = collect_all([own, counted], source.path)
    num_rows, *nums_lost = met.row(0)
    refuse_empty(source, num_rows)
    for column, num_lost in zip(lost, nums_lost, strict=True):
        refuse_unreadable(source, column, num_lost, num_rows, max_bad_fraction)
    counts = {
        "file": source.path.name,
        "rows": num_rows,
        BAD_ID: nums_lost[0],
        "icd_version_unreadable": nums_lost[1],
        "other_admissions": num_rows - sum(nums_lost) - used.height,
        "used": used.height,
    }
    return _groups_by_admission(used, groups), counts, _bad_lines(source) if sum(nums_lost) else []


def _bad_lines(source: Source) -> BadLines:
    """The lines without a readable admission or version: a second reading, no more than the first ``MAX_LINES``."""
    raw = source.raw(DIAGNOSES_ICD, with_lines=True)
    without_id = pl.col("hadm_id").is_null()
    bad = raw.select(LINE, *source.typed(raw, DIAGNOSES_ICD)).filter(without_id | pl.col("icd_version").is_null())
    reason = pl.when(without_id).then(pl.lit(BAD_ID)).otherwise(pl.lit("icd_version_unreadable"))
    lines = collect(bad.select(LINE, reason=reason).bottom_k(MAX_LINES, by=LINE), source.path)
    return lines.sort(LINE).rows()


def _groups_by_admission(diagnoses: pl.DataFrame, groups: Mapping[str, Prefixes]) -> pl.DataFrame:
    """For each admission (``hadm_id``) and group, whether one of its codes begins with a prefix of the group.

    Each code is looked at once: admissions have many, and there are few.
    """
    key = ["icd_code", "icd_version"]
    code = pl.col("icd_code").str.replace_all(".", "", literal=True).str.strip_chars().str.to_uppercase()
    is_in = (_is_in(code, prefixes).alias(name) for name, prefixes in groups.items())
    in_groups = diagnoses.select(key).unique().with_columns(is_in)
    joined = diagnoses.lazy().join(in_groups.lazy(), on=key, how="left")
    return joined.group_by("hadm_id").agg(pl.col(*groups).any()).collect(engine="streaming")


def _is_in(code: pl.Expr, prefixes: Prefixes) -> pl.Expr:
    """Whether a code begins with a prefix of its version."""
    return pl.any_horizontal(
        (pl.col("icd_version") == version) & pl.any_horizontal(code.str.starts_with(prefix) for prefix in of_version)
        for version, of_version in prefixes.items()
    )
