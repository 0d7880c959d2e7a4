"""What every test needs: quiet libraries, one compute thread, and the real demo data where it is at hand."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Before torch and flwr are imported: the same environment that the Makefile gives.
for line in (ROOT / ".ci/environment").read_text().splitlines():
    name, value = line.split("=", 1)
    os.environ.setdefault(name, value)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def mimic_demo() -> Path:
    """The folder that holds ``mimic-iv-demo-2.2`` and ``mimic-iv-ecg-demo-0.1``; the test is skipped without it."""
    folder = os.environ.get("LEMOF_MIMIC_DEMO")
    if not folder:
        pytest.skip("LEMOF_MIMIC_DEMO is not set: it names the folder that holds mimic-iv-demo-2.2")
    for part in ("mimic-iv-demo-2.2", "mimic-iv-ecg-demo-0.1"):
        if not (Path(folder) / part).is_dir():
            pytest.fail(f"LEMOF_MIMIC_DEMO must hold {part}, got {folder}. Correct or unset it.")
    return Path(folder).resolve()
