"""Digest of the source that is running, so that both sides can tell whether they run the same. The same file in
client and server."""

import hashlib
from functools import cache
from pathlib import Path

PACKAGES = ("client", "lemof_model", "server")


@cache
def source_digest() -> str:
    """sha256 (hex) of every Python file of the three packages that travel, by name."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted(path for package in PACKAGES for path in (root / package).rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
