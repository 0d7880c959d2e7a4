"""Ids of patients, admissions, stays and items, as tables write them.

What is a whole number after blanks, leading zeros and ``.0`` are taken off is that number, in whatever table it stands:
pandas writes a column of ids with a gap as floats, other programs pad them. All else is text, and equal where the text
is (pseudonyms, UUIDs). A hospital has numbers or texts, column by column: ``text_ids`` decides it from the tables of
stays. Where a column is one of numbers, what is no whole number cannot be read, and is counted.
"""

from collections.abc import Iterable, Sequence

import polars as pl

from lemof_model.errors import DataError

IDS = ("subject_id", "hadm_id", "stay_id")
EXACT_IN_FLOATS = 2**53
# What programs write for nothing, in small letters.
NOTHING = ("", "null", "na", "n/a", "nan", "none", "nil", "<na>", r"\n", ".", "-", "?")
WHOLE = r"^\+?(-?)0*(\d+)(?:\.0*)?$"
# A spreadsheet's 1.00E+07 has lost digits: several patients may share it.
ROUNDED = r"^[+-]?\d+([.,]\d*)?[eE][+-]?\d+$"
FEW = 10  # so few texts, and no more than a hundredth, make no column one of texts
FEW_OF_ALL = 0.01


def as_number(name: str, stored: pl.DataType, label: str) -> pl.Expr:
    """An id, or another whole number, from what a file has stored; null where it is none.

    Raises:
        DataError: ids in 32-bit floats, which have rounded them.
    """
    column = pl.col(name)
    if stored == pl.Float32 and name in IDS:
        raise DataError(
            rule=f"{name} must be whole numbers or text",
            got=f"32-bit floats from {label}, which round a number above 16,777,216",
            fix="Export it as integers or text.",
            code="E105",
        )
    if stored.is_float():
        is_exact = (column == column.floor()) & (column.abs() <= EXACT_IN_FLOATS)
        return pl.when(is_exact).then(column).cast(pl.Int64, strict=False).alias(name)
    if stored == pl.Int64:
        return column
    if stored.is_integer() or stored == pl.Boolean:
        return column.cast(pl.Int64, strict=False)
    plain = column.cast(pl.String, strict=False).str.strip_chars()
    return plain.str.replace(r"\.0*$", "").cast(pl.Int64, strict=False)


def as_text(name: str, stored: pl.DataType, label: str) -> pl.Expr:
    """An id as text, whole numbers in one form; null where there is nothing.

    Raises:
        DataError: ids in 32-bit floats, which have rounded them.
    """
    if stored.is_numeric() and not stored.is_decimal():
        return as_number(name, stored, label).cast(pl.String)
    plain = pl.col(name).cast(pl.String, strict=False).str.strip_chars()
    return pl.when(~plain.str.to_lowercase().is_in(NOTHING)).then(plain.str.replace(WHOLE, "${1}${2}")).alias(name)


def text_ids(stored: Iterable[pl.DataFrame], names: Sequence[str] = IDS) -> frozenset[str]:
    """Which ids are text at a hospital, by how some tables have stored them.

    Example:
        >>> plain = pl.DataFrame({"subject_id": ["0012", "12.0", ""], "stay_id": ["A1", "A2", "A3"]})
        >>> sorted(text_ids([plain]))
        ['stay_id']
    """
    found: dict[str, list[pl.Series]] = {}
    for frame in stored:
        for name in set(names).intersection(frame.columns):
            found.setdefault(name, []).append(frame[name])
    return frozenset(name for name, columns in found.items() if _are_texts(columns))


def _are_texts(columns: Iterable[pl.Series]) -> bool:
    """Whether more than a few of some ids are neither whole numbers nor rounded ones."""
    num_there = num_texts = 0
    for column in columns:
        if column.dtype.is_numeric() and not column.dtype.is_decimal():
            num_there += column.len() - column.null_count()
            continue
        plain = column.cast(pl.String, strict=False).str.strip_chars().drop_nulls()
        plain = plain.filter(~plain.str.to_lowercase().is_in(NOTHING))
        num_there += plain.len()
        is_number = (
            plain.str.contains(WHOLE) & plain.str.replace(WHOLE, "${1}${2}").cast(pl.Int64, strict=False).is_not_null()
        )
        num_texts += int((~is_number & ~plain.str.contains(ROUNDED)).sum())
    return num_texts > max(FEW, FEW_OF_ALL * num_there) or 2 * num_texts > num_there
