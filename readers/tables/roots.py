"""A root one folder too deep or too high: where the tables, the record list or the records are that it was to hold.

Each question raises a ``DataError`` that names that folder, and passes where nothing is found near: the caller's own
message then says what is missing.
"""

import os
from collections.abc import Callable, Iterable
from itertools import chain, islice
from pathlib import Path

from lemof_model.errors import DataError

MOST_LOOKED_AT = 1000
NUM_RECORDS = 3


def refuse_other_record_list(root: Path, name: str, setting: str) -> None:
    """Refuse a root without the record list ``name`` where a folder near it has it."""
    refuse_other(root, setting, name, "E101", lambda folder: (folder / name).is_file())


def refuse_other_records(root: Path, paths: Iterable[str], setting: str) -> None:
    """Refuse a root without the first records of a list (by their paths) where a folder near it has one of them."""
    first = [f"{path}.hea" for path in islice(paths, NUM_RECORDS)]

    def has_one(folder: Path) -> bool:
        return any((folder / path).is_file() for path in first)

    refuse_other(root, setting, "the records of its list", "E202", has_one)


def refuse_other(root: Path, setting: str, what: str, code: str, is_right: Callable[[Path], bool]) -> None:
    """Refuse ``root`` (``setting`` is its name) if it is wrong and one of the two folders above it, or one up to two
    below it, is right."""
    root = Path(os.path.normpath(root.absolute()))
    if is_right(root):
        return
    below = islice(chain(root.glob("*/"), root.glob("*/*/")), MOST_LOOKED_AT)
    if found := [folder for folder in (*root.parents[:2], *sorted(below)) if is_right(folder)]:
        told = [_from(root, folder) for folder in found]
        advice = f"Found in {told[0]}: set {setting} to {found[0]}."
        if len(found) > 1:
            advice = f"Found in {len(found)} folders ({', '.join(told[:3])}...): set {setting} to the right one."
        raise DataError(rule=f"{setting} must hold {what}", got=f"none in {root}", fix=advice, code=code)


def _from(root: Path, folder: Path) -> str:
    """Where a folder is, seen from a root."""
    return f"{os.path.relpath(folder, root)}/"
