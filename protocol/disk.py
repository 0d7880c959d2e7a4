"""What is on the disk when it is said to be: files written whole or not at all, and files that one process holds."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lemof_model.errors import DiskError


@contextmanager
def told_of_disk(what: str, path: Path) -> Iterator[None]:
    """Turn an error of the disk into one that says what to do.

    Raises:
        DiskError: instead of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise DiskError(
            rule=f"{what} must be on a disk that can be written",
            got=f"{error.strerror} from {path}",
            fix="Make room or mend the permissions; nothing was sent.",
        ) from None


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
