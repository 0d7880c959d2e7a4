"""What is running: a digest of the source, so that both sides can tell whether they run the same, and
versions.

A digest is taken of code alone: comments, docstrings and empty lines decide nothing.
"""

import hashlib
import io
import tokenize
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("client", "lemof_model", "protocol", "readers", "server")
LEFT_OUT = (
    "client/budget/statement.py",
    "client/checks/",
    "client/cli.py",
    "protocol/command_line.py",
    "protocol/page_parts.py",
    "protocol/pages.py",
    "protocol/progress.py",
    "protocol/stage_page.py",
    "server/cli.py",
    "server/report/",
)
"""Files and folders that only look and tell: they decide nothing that is computed, sent or refused. All others count,
so that a new file cannot be forgotten; none of those may lean on one of these, but ``server/run.py``, which has the
report written."""
LIBRARIES = ("lemof", "torch", "numpy", "flwr")

_LAYOUT = (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)


@cache
def source_digest(root: Path = ROOT) -> str:
    """sha256 (hex) of the code in ``PACKAGES`` that decides a study."""
    files = (path.relative_to(root).as_posix() for package in PACKAGES for path in (root / package).rglob("*.py"))
    return digest_of((name for name in files if not name.startswith(LEFT_OUT)), root)


def digest_of(names: Iterable[str], root: Path = ROOT) -> str:
    """sha256 (hex) of the code of these files, by name."""
    digest = hashlib.sha256()
    for name in sorted(names):
        code = code_of((root / name).read_text(encoding="utf-8")).encode()
        digest.update(f"{name}\0{len(code)}\0".encode() + code)
    return digest.hexdigest()


def code_of(source: str) -> str:
    """The lines of a Python file without comments, without strings that stand alone (docstrings), without empty ones.

    Example:
        >>> code_of("x = 1  # one\\n\\n'Of x.'\\ny = '#'\\n")
        "x = 1\\ny = '#'\\n"
    """
    lines, inside, before = source.split("\n"), set(), tokenize.NEWLINE
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type != tokenize.NL]
    for token, after in zip(tokens, [*tokens[1:], tokens[-1]], strict=True):
        (first, start), last = token.start, token.end[0]
        if token.type == tokenize.COMMENT:
            lines[first - 1] = lines[first - 1][:start]
            continue
        begins, ends = before in _LAYOUT, after.type in (tokenize.NEWLINE, tokenize.COMMENT)
        before = token.type
        if token.type == tokenize.STRING and begins and ends and token.string.lstrip("rRuUbB")[0] in "'\"":
            lines[first - 1 : last] = [""] * (last - first + 1)
        elif last > first:
            inside |= set(range(first - 1, last))
    kept = (line if i in inside else line.rstrip() for i, line in enumerate(lines) if line.strip() or i in inside)
    return "".join(f"{line}\n" for line in kept)


@cache
def versions() -> dict[str, str]:
    """Versions of this package and of the libraries that decide results."""
    return {name: version(name) for name in LIBRARIES}
