"""One finished run for the tests that read runs: two small hospitals, the second without any ECG."""

import shutil
from pathlib import Path

import pytest

from simulation.run import run
from tests.hospitals import write_hospital

PLAN = """
name: tiny <study>
ecg: {name: resnet, sizes: {width: 8, num_tokens: 8}}
ehr: {name: ft_transformer, sizes: {width: 8, num_heads: 2}}
encoders: {num_rounds: 1, batch_size: 32, client_lr: 0.003}
attention: {width: 8, training: {num_rounds: 1, batch_size: 32}}
"""


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, not to be changed."""
    folder = tmp_path_factory.mktemp("study")
    sites = [
        write_hospital(folder, "hospital_a", num_stays=120, min_cell=3),
        write_hospital(folder, "hospital_b", num_stays=80, ecg_share=0.0, first_id=10_001, min_cell=3),
    ]
    plan = folder / "plan.yaml"
    plan.write_text(PLAN, encoding="utf-8")
    return run(sites, plan, folder / "run")


@pytest.fixture
def finished_run(first_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, free to be changed."""
    return Path(shutil.copytree(first_run, tmp_path / "runs" / "first"))
