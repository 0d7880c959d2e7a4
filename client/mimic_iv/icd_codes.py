"""Codes of diagnoses_icd as prefixes without dots, by version: whether an admission has one of a group."""

from collections.abc import Mapping

import polars as pl

from client.mimic_iv.tables import Columns

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


def groups_by_admission(diagnoses: pl.LazyFrame, groups: Mapping[str, Prefixes]) -> pl.LazyFrame:
    """For each admission (``hadm_id``) and group, whether one of its codes begins with a prefix of the group."""
    code = pl.col("icd_code").str.replace_all(".", "", literal=True).str.strip_chars().str.to_uppercase()
    return (
        diagnoses.with_columns(icd_code=code)
        .group_by("hadm_id")
        .agg(_is_in(prefixes).any().alias(name) for name, prefixes in groups.items())
    )


def _is_in(prefixes: Prefixes) -> pl.Expr:
    """Whether a code begins with a prefix of its version."""
    return pl.any_horizontal(
        (pl.col("icd_version") == version)
        & pl.any_horizontal(pl.col("icd_code").str.starts_with(prefix) for prefix in of_version)
        for version, of_version in prefixes.items()
    )
