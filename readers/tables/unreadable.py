"""What is there in a table and cannot be read: a few such rows are counted, too many stop the preparation."""

import re
from collections.abc import Mapping
from typing import Any

from lemof_model.errors import DataError
from readers.tables.source import Source

HANDFUL = 10  # so few bad rows stop nothing, however small the table
RAISE = ", or raise prepare.max_bad_fraction"  # no advice where half of a table or more would be lost


def is_too_many(num_bad: int, num_rows: int, max_bad_fraction: float) -> bool:
    """Whether so many rows of so many cannot be used that the preparation must stop."""
    return num_bad > max(max_bad_fraction * num_rows, HANDFUL)


def form_of(text: str | None) -> str:
    """The form of a text without its content: digits as 9, letters as a.

    Example:
        >>> form_of("02/01/2150 8h15"), form_of(None)
        ('99/99/9999 9a99', '(empty)')
    """
    shown = re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "9", (text or "")[:30]))
    return re.sub(r"[^9a /:.,+-]", "?", shown) or "(empty)"


def refuse_unreadable(
    source: Source,
    column: str,
    num_bad: int,
    num_rows: int,
    max_bad_fraction: float,
    *,
    rule: str = "a whole number",
    first: Mapping[str, Any] | None = None,
) -> None:
    """Stop for too many numbers that cannot be read; ``first`` has the ``line`` and the ``form`` of one.

    Raises:
        DataError: they are too many.
    """
    if not is_too_many(num_bad, num_rows, max_bad_fraction):
        return
    rule = "there" if column in source.text_ids else rule
    where = f" (first: line {first['line']:,}, form {first['form']!r})" if first else ""
    remedy = "Mend the export" + RAISE * (2 * num_bad < num_rows)
    raise DataError(
        rule=f"{column} must be {rule}",
        got=f"{num_bad:,} of {num_rows:,} rows in which it is not{where} from {source.label}",
        fix=f"{remedy}.",
        code="E105",
    )


def refuse_empty(source: Source, num_rows: int) -> None:
    """Stop for a table of a header alone.

    Raises:
        DataError: it has no row.
    """
    if not num_rows:
        raise DataError(
            rule="The table must have rows", got=f"none from {source.label}", fix="Export it again.", code="E106"
        )
