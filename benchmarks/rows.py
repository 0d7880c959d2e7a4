"""What every benchmark ends with: a table, a list in JSON, and an exit status that says whether all of it holds."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One measurement: ours (``value`` in ``unit``) against another made in the same run, and ``ratio`` between them.

    A row without a ``goal`` always holds.
    """

    what: str
    against: str
    value: float | None
    unit: str
    ratio: float | None = None
    goal: str | None = None
    holds: bool = True


def finish(rows: Sequence[Row], json_file: Path | None) -> int:
    """Print the rows to stdout and write them to ``json_file``; the exit status: 1 if one does not hold, else 0."""
    table = Table("what", "value", "unit", "against", "ratio", "goal", "holds")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        holds = ("yes" if row.holds else "NO") if row.goal else ""
        value = "none" if row.value is None else f"{row.value:,.0f}" if row.value >= 1000 else f"{row.value:.4g}"
        table.add_row(row.what, value, row.unit, row.against, ratio, row.goal, holds)
    Console(width=max(Console().width, 180)).print(table)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    return int(not all(row.holds for row in rows))
