"""Codes of diagnoses as prefixes without dots, by version: whether an admission has one of a group."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from client.prepare.event_pass import BAD_ID, MAX_LINES, BadRows, FirstBad
from client.prepare.icd_zeros import (
    codes_of,
    num_of_another_version,
    refuse_lost_zeros,
    refuse_numeric_codes,
)
from lemof_model.icd import VERSIONS, Prefixes
from readers.tables.files import LINE, Columns, collect, collect_all
from readers.tables.ids import NOTHING
from readers.tables.source import Source
from readers.tables.unreadable import form_of, refuse_empty, refuse_unreadable

DIAGNOSES: Columns = {"hadm_id": pl.Int64, "icd_code": pl.String, "icd_version": pl.Int64}
REASONS = {"hadm_id": BAD_ID, "icd_version": "icd_version_unreadable", "icd_code": "icd_code_missing"}
RULES = {"hadm_id": "a whole number", "icd_version": "9 or 10", "icd_code": "there"}


def read_groups(
    source: Source, admissions: pl.DataFrame, groups: Mapping[str, Prefixes], max_bad_fraction: float
) -> tuple[pl.DataFrame, dict[str, Any], BadRows]:
    """For each of the ``admissions`` (by ``hadm_id``) that has codes, whether one is in a group; how many rows of codes
    were read: rows = id_unreadable + icd_version_unreadable + other_admissions + used; and the unreadable ones.

    Raises:
        DataError: the table is missing, empty or damaged, too many ids or versions cannot be read, or codes have lost
            their zeros.
    """
    if admissions.schema["hadm_id"] == pl.String:
        source = replace(source, text_ids=frozenset(["hadm_id"]))
    own = admissions.lazy().select("hadm_id").unique()
    used, codes, lost = _read(source, own)
    if any(lost.values()) and source.path.suffix != ".parquet":
        source = replace(source, is_careful=True)
        used, codes, lost = _read(source, own)
    num_rows = lost.pop("rows")
    refuse_empty(source, num_rows)
    bad = _bad_rows(source) if any(lost.values()) else BadRows([], {})
    for column, num_lost in lost.items():
        first = bad.first.get(REASONS[column])
        refuse_unreadable(source, column, num_lost, num_rows, max_bad_fraction, rule=RULES[column], first=first)
    refuse_lost_zeros(source, codes)
    counts = {
        "file": source.path.name,
        "rows": num_rows,
        **{REASONS[column]: num for column, num in lost.items()},
        "other_admissions": num_rows - sum(lost.values()) - used.height,
        "used": used.height,
    }
    if num_other := num_of_another_version(codes):
        counts["codes_of_another_version"] = num_other
    return _groups_by_admission(used, groups), counts, bad


def is_lost() -> dict[str, pl.Expr]:
    """Whether a row lacks a readable admission, a version that there is, or a code; each for the first of these."""
    without_id = pl.col("hadm_id").is_null()
    without_version = ~pl.col("icd_version").is_in(VERSIONS).fill_null(False)
    return {
        "hadm_id": without_id,
        "icd_version": ~without_id & without_version,
        "icd_code": ~without_id & ~without_version & without_code(),
    }


def without_code() -> pl.Expr:
    """Whether a row has no code, or a word for none."""
    return pl.col("icd_code").cast(pl.String).str.strip_chars().str.to_lowercase().is_in(NOTHING).fill_null(True)


def _read(source: Source, own: pl.LazyFrame) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    """The rows of some admissions, all codes with their numbers, and how many rows there are and are lost."""
    raw = source.raw(DIAGNOSES)
    refuse_numeric_codes(source, raw.collect_schema()["icd_code"])
    rows = raw.select(source.typed(raw, DIAGNOSES))
    whole = rows.filter(pl.col("icd_version").is_in(VERSIONS) & ~without_code()).join(own, on="hadm_id", how="semi")
    counted = rows.select(pl.len().alias("rows"), *(is_so.sum().alias(column) for column, is_so in is_lost().items()))
    used, codes, met = collect_all([whole, codes_of(rows), counted], source.path)
    return used, codes, dict(met.row(0, named=True))


def _bad_rows(source: Source) -> BadRows:
    """The lines without a readable admission or version: a second reading, no more than the first ``MAX_LINES``; and
    line and form of the first of each."""
    raw = source.raw(DIAGNOSES, with_lines=True)
    stored = {f"{column}_stored": pl.col(column).cast(pl.String, strict=False) for column in REASONS}
    rows = raw.select(LINE, *source.typed(raw, DIAGNOSES), **stored)
    reason = pl.coalesce(pl.when(is_so).then(pl.lit(REASONS[column])) for column, is_so in is_lost().items())
    bad = rows.select(LINE, *stored, reason=reason).drop_nulls("reason").bottom_k(MAX_LINES, by=LINE)
    lines = collect(bad, source.path).sort(LINE)
    first_bad: FirstBad = {}
    for column, why in REASONS.items():
        for line, text in lines.filter(pl.col("reason") == why).head(1).select(LINE, f"{column}_stored").iter_rows():
            first_bad[why] = {"line": line, "form": form_of(text)}
    return BadRows(lines.select(LINE, "reason").rows(), first_bad)


def _groups_by_admission(diagnoses: pl.DataFrame, groups: Mapping[str, Prefixes]) -> pl.DataFrame:
    """For each admission (``hadm_id``) and group, whether one of its codes begins with a prefix of the group.

    Each code is looked at once: admissions have many, and there are few.
    """
    key = ["icd_code", "icd_version"]
    code = pl.col("icd_code").str.replace_all(r"[.\s]", "").str.to_uppercase()
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
