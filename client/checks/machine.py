"""The machine: versions, memory, and disk for the cohort."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import requires, version
from pathlib import Path

from client.checks.findings import Finding
from lemof_model.errors import DiskError, VersionError

PYTHON = (3, 11)
MEMORY_GB = 1.5  # measured: prepare stays below 1 GiB whatever the size of the tables
GB = 1e9
MEMINFO = Path("/proc/meminfo")


def check_versions() -> Iterator[Finding]:
    """Whether Python and the packages that this release pins exactly are the tested ones."""
    pins = re.findall(r"^([\w-]+)(?:\[[\w,]+\])?==([\w.]+)$", "\n".join(requires("lemof") or ()), re.MULTILINE)
    own = [
        f"Python {sys.version_info.major}.{sys.version_info.minor}",
        *(f"{name} {version(name)}" for name, _ in pins),
    ]
    wrong = [f"{name} {version(name)} (this release needs {pin})" for name, pin in pins if version(name) != pin]
    if sys.version_info < PYTHON:
        wrong.append(f"{own[0]} (needs 3.11 or newer)")
    if wrong:
        yield Finding("versions", "fail", ", ".join(wrong), "Run: make install", "E801", VersionError.exit_status)
    else:
        yield Finding("versions", "ok", ", ".join(own))


def check_memory() -> Iterator[Finding]:
    """Whether enough memory is free to prepare the cohort; told on Linux only."""
    if not MEMINFO.is_file():
        return
    free = re.search(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(), re.MULTILINE)
    free_gb = int(free[1]) * 1024 / GB if free else 0.0
    found = f"needs {MEMORY_GB} GB, free {free_gb:,.1f} GB"
    if free_gb < MEMORY_GB:
        yield Finding("memory", "warn", found, "Close other programs.", "E602")
    else:
        yield Finding("memory", "ok", found)


def check_disk(output: Path, needed_bytes: int) -> Iterator[Finding]:
    """Whether the cohort fits where it goes, and may be written there."""
    folder = existing_parent(output)
    free = shutil.disk_usage(folder).free
    found = f"needs {needed_bytes / GB:.1f} GB, free {free / GB:,.1f} GB"
    name = f"disk {folder}"
    if not os.access(folder, os.W_OK | os.X_OK):
        fix = "Mend the folder's permissions, or set prepare.output."
        yield Finding(name, "fail", "may not be written", fix, "E603", DiskError.exit_status)
    elif free < needed_bytes:
        fix = "Free space, or set prepare.output to another disk."
        yield Finding(name, "fail", found, fix, "E601", DiskError.exit_status)
    else:
        yield Finding(name, "ok", found)


def existing_parent(path: Path) -> Path:
    """The nearest folder above ``path`` that is there."""
    return next(parent for parent in path.parents if parent.is_dir())
