"""Files under ``data.ecg.root``, and none other: neither a path of the record list nor a header leads out of it."""

import io
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import PureWindowsPath

from readers.ecg.faults import Reason, RejectedRecordError
from readers.ecg.settings import Settings


def read_header_file(ecg: Settings, path: str) -> str:
    """The text of a record's header: UTF-8, else what Windows wrote where an old export has a degree or micro sign.

    Raises:
        RejectedRecordError: it cannot be read, or the path is none.
    """
    try:
        content = read_inside(ecg, os.path.join(ecg.root, f"{path}.hea"), Reason.HEADER_MISSING)
    except RejectedRecordError as error:
        raise RejectedRecordError(_path_fault(path, error.reason), error.detail) from None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def read_inside(ecg: Settings, file: str, missing: Reason, needed: Callable[[int], int] = lambda size: size) -> bytes:
    """The first bytes of a file: ``needed`` says how many, given its size. ``missing`` is the reason where it is not
    there.

    Raises:
        RejectedRecordError: it cannot be read, or lies outside the root.
    """
    try:
        with open(_inside(ecg, file), "rb", buffering=0) as opened:
            size = os.fstat(opened.fileno()).st_size
            if (num_bytes := needed(size)) == size:
                return opened.read()
            with io.BufferedReader(opened) as buffered:  # without it fewer may come, where a disk is far away
                return buffered.read(num_bytes)
    except (OSError, ValueError) as error:
        raise _fault(error, missing) from None


def size_inside(ecg: Settings, file: str, missing: Reason) -> int:
    """The bytes of a file; raises as ``read_inside`` does."""
    try:
        return os.stat(_inside(ecg, file)).st_size
    except (OSError, ValueError) as error:
        raise _fault(error, missing) from None


def _fault(error: OSError | ValueError, missing: Reason) -> RejectedRecordError:
    """What the disk says, as a reason; a ValueError says that it is no path at all."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | ValueError):
        return RejectedRecordError(missing)
    return RejectedRecordError(Reason.UNREADABLE, error.strerror or "")


def _inside(ecg: Settings, file: str) -> str:
    """The file, unless its real place is not under ``data.ecg.root``: a link or ``..`` would lead out of it."""
    if not _real_path(file).startswith(os.path.join(_real_path(str(ecg.root)), "")):
        raise RejectedRecordError(Reason.OUTSIDE)
    return file


def _path_fault(path: str, reason: Reason) -> Reason:
    """What is wrong with a path of the record list that led to no header."""
    if reason not in (Reason.HEADER_MISSING, Reason.OUTSIDE):
        return reason
    if os.path.isabs(path) or PureWindowsPath(path).drive:
        return Reason.ABSOLUTE
    if "\\" in path:
        return Reason.BACKSLASH
    return Reason.SUFFIX if path.lower().endswith((".hea", ".dat", ".mat")) else reason


@lru_cache(maxsize=8192)
def _real_path(path: str) -> str:
    """``os.path.realpath``, looking at each folder once for all the files in it."""
    parent, name = os.path.split(path)
    if name in ("", ".", "..") or os.path.islink(path):
        return os.path.realpath(path)
    return os.path.join(_real_path(parent), name)
