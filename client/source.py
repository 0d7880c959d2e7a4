"""What is running: a digest of the source, so that both sides can tell whether they run the same, and versions. The
same file in client and server."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("client", "lemof_model", "server")
LIBRARIES = ("lemof", "torch", "numpy", "flwr")


@cache
def source_digest() -> str:
    """sha256 (hex) of every Python file of the three packages that travel, by name."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted(path for package in PACKAGES for path in (root / package).rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of this package and of the libraries that decide results."""
    return {name: version(name) for name in LIBRARIES}
