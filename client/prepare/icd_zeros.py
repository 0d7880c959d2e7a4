"""ICD-9 codes that have lost their leading zeros: 0389 is sepsis, 389 hearing loss, and nobody can tell which it was.

So nothing is padded: a table that went through numbers is refused. About 3 in 100 ICD-9 codes of intensive care begin
with 0, so among 200 right ones hardly ever none does.
"""

import polars as pl

from lemof_model.errors import DataError
from readers.tables.source import Source
from readers.tables.unreadable import form_of, is_too_many

ENOUGH_CODES = 200
MAX_ZERO = 1 / 3  # beyond it somebody has padded the codes: 04019 is no hypertension
FEW = 3  # fewer codes of one or two digits may be anything
SHORT, DECIMAL = r"^\d{1,2}(\.\d*)?$", r"^\d{4,}\.\d*$"
OF_9 = r"^(\d|[Vv]|[Ee][089])"  # what is none of ICD-9, I509 and E119, has its own word: num_of_another_version
REMEDY = (
    "Export icd_code from the source as text, zeros included (SQL: CAST(icd_code AS VARCHAR); pandas: dtype=str). "
    "Zeros that are lost cannot be put back: 389 is hearing loss, 0389 sepsis."
)


def codes_of(rows: pl.LazyFrame) -> pl.LazyFrame:
    """How often each code is there in each version."""
    return rows.drop_nulls("icd_version").group_by("icd_version", "icd_code").agg(pl.len().alias("num"))


def refuse_numeric_codes(source: Source, stored: pl.DataType) -> None:
    """Refuse a column of codes that is stored as numbers.

    Raises:
        DataError: it is.
    """
    if stored.is_numeric():
        raise DataError(
            rule="icd_code must be text", got=f"numbers ({stored}) from {source.label}", fix=REMEDY, code="E112"
        )


def refuse_lost_zeros(source: Source, codes: pl.DataFrame) -> None:
    """Refuse texts that were numbers once; ``codes`` are those of ``codes_of``.

    Raises:
        DataError: ICD-9 codes are decimal numbers or shorter than any code; or there are many, and none begins with 0,
            or a third.
    """
    plain = pl.col("icd_code").str.strip_chars()
    of_9 = codes.filter(pl.col("icd_version") == 9).select("num", code=plain).filter(pl.col("code").str.contains(OF_9))
    num_all = int(of_9["num"].sum())
    num_zero = _num(of_9, "^0")
    num_decimal, num_short = _num(of_9, DECIMAL), _num(of_9, SHORT)
    for form, what, num, is_lost in (
        (DECIMAL, "that are decimal numbers", num_decimal, _is_much(num_decimal, num_all)),
        (SHORT, "of one or two digits", num_short, _is_much(num_short, num_all) or (num_short >= FEW and not num_zero)),
    ):
        if is_lost:
            first = of_9.filter(pl.col("code").str.contains(form))["code"].min()
            raise DataError(
                rule="ICD-9 codes must have three digits before the dot, and their zeros",
                got=f"{num:,} of {num_all:,} {what} (such as form {form_of(str(first))!r}) from {source.label}",
                fix=REMEDY,
                code="E112",
            )
    if num_all >= ENOUGH_CODES and not 0 < num_zero < MAX_ZERO * num_all:
        raise DataError(
            rule="Some ICD-9 codes must begin with 0, and most must not",
            got=f"{num_zero:,} of {num_all:,} that do from {source.label}",
            fix=REMEDY,
            code="E112",
        )


def num_of_another_version(codes: pl.DataFrame) -> int:
    """How many codes begin as no code of their version does: with a letter in ICD-9 (but V, and E of causes), with a
    digit in ICD-10."""
    code = pl.col("icd_code").str.strip_chars()
    is_other = (
        pl.when(pl.col("icd_version") == 9).then(~code.str.contains(OF_9)).otherwise(~code.str.contains("^[A-Za-z]"))
    )
    return int(codes.filter(code != "").filter(is_other)["num"].sum())


def _num(codes: pl.DataFrame, form: str) -> int:
    """How many codes have a form."""
    return int(codes.filter(pl.col("code").str.contains(form))["num"].sum())


def _is_much(num: int, num_all: int) -> bool:
    """Whether so many of so many are no accident."""
    return is_too_many(num, num_all, 0.01) or 2 * num > max(num_all, 1)
