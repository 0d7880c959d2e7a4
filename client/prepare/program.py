"""What of the program decides the bytes of a cohort: preparation, the layout of its tables, and all that both lean on,
found by following imports. So a new file cannot be forgotten, and training is no part of it."""

import ast
import inspect
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from protocol.source import ROOT, digest_of

START = "client/prepare/prepare.py"
NOT_FOLLOWED = ("client/site.py", "protocol/source.py", "lemof_model/study.py")
"""What they read (site file, plan) stands in a cohort's key as values already, with all defaults."""


def file_of(layout: object) -> str:
    """The file that a layout is written in, relative to the project's root."""
    return os.path.relpath(inspect.getfile(type(layout)), ROOT)


@cache
def source_digest(layout: str, root: Path = ROOT) -> str:
    """sha256 (hex) of the code that a cohort is made by, with the layout in this file."""
    return digest_of(files_of_preparation(layout, root), root)


def files_of_preparation(layout: str, root: Path = ROOT) -> set[str]:
    """The files that preparation consists of with the layout in this file, relative to ``root``."""
    found: set[str] = set()
    open_ones = {START, layout}
    while open_ones:
        name = open_ones.pop()
        found.add(name)
        open_ones |= set(_imported(name, root)) - found - set(NOT_FOLLOWED)
    return found


def _imported(name: str, root: Path) -> Iterator[str]:
    """The files of the project that a file imports, wherever in it."""
    modules: list[str] = []
    for node in ast.walk(ast.parse((root / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(Path(name).parts[: -node.level]) if node.level else ""
            module = ".".join(part for part in (above, node.module) if part)
            modules += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    for module in modules:
        path = module.replace(".", "/")
        yield from (file for file in (f"{path}.py", f"{path}/__init__.py") if (root / file).is_file())
