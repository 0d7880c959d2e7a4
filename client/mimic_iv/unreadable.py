"""What is there in a table and cannot be read: a few such rows are counted, too many stop the preparation."""

from collections.abc import Sequence

import polars as pl

from client.mimic_iv.tables import Source, form_of, is_too_many
from lemof_model.errors import DataError


def is_unreadable(value: pl.Expr, stored: pl.Expr) -> pl.Expr:
    """Whether a value is empty though its stored text is not; null where both are. Only texts of empty values are
    looked at: most are not."""
    return pl.when(value.is_null()).then(stored).str.strip_chars() != ""


def refuse_unreadable(
    source: Source,
    column: str,
    num_bad: int,
    num_rows: int,
    max_bad_fraction: float,
    *,
    rule: str = "a whole number",
    first: Sequence[tuple[int, str | None]] = (),
) -> None:
    """Stop for too many numbers that cannot be read; ``first`` has the line and the text of one, told by its form.

    Raises:
        DataError: they are too many.
    """
    if not is_too_many(num_bad, num_rows, max_bad_fraction):
        return
    where = "".join(f" (first: line {line:,}, form {form_of(text)!r})" for line, text in first)
    raise DataError(
        f"{column} must be {rule}, got {num_bad:,} of {num_rows:,} rows in which it is not{where} from {source.label}. "
        "Mend the export, or raise prepare.max_bad_fraction. [E105]"
    )


def refuse_empty(source: Source, num_rows: int) -> None:
    """Stop for a table of a header alone.

    Raises:
        DataError: it has no row.
    """
    if not num_rows:
        raise DataError(f"The table must have rows, got none from {source.label}. Export it again. [E106]")
