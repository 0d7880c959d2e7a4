"""What is made of patients' data is for its owner alone, whatever the umask: files 0600, folders 0700."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FILE = 0o600


@contextmanager
def owner_only() -> Iterator[None]:
    """Every file and folder that this process, or one that it starts, makes in the block is for its owner alone."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def write_owner_only(path: Path, text: str) -> None:
    """Write a text file that its owner alone can read; one that is there already is narrowed first."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, FILE))
    with suppress(PermissionError):  # of another owner's, who let us write
        path.chmod(FILE)
    path.write_text(text, encoding="utf-8")
