"""What is on the disk when it is said to be: files written whole or not at all, and files that one process holds."""

import fcntl
import os
from pathlib import Path
from typing import IO, Any


def sync(*paths: Path) -> None:
    """Put files, or the names in folders, on the disk.

    Raises:
        OSError: the disk is full or gone.
    """
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """A file that is on the disk, with its name, when this returns; the earlier one stays until then.

    Raises:
        OSError: the disk is full, or may not be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    sync(partial)
    partial.replace(path)
    sync(path.parent)


def hold(file: IO[Any], *, shared: bool = False, wait: bool = False) -> bool:
    """Whether this process holds an open file now, until it is closed: alone, or with others that share it.

    Raises:
        OSError: the disk cannot lock files.
    """
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    return True
