"""One plan, three engines, one result: here this process against Flower's simulation; the third: ``test_deployed.py``.

Both compare the bytes of every file of the run folder that equal runs have in common.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lemof_model.errors import ConfigError
from protocol.plan import dump_plan
from server.run import run_plan
from simulation.cli import command as run_simulation
from simulation.flower_engine import ray_at_home
from simulation.local_transport import LocalTransport
from tests.hospitals import write_hospital
from tests.studies import outcome, tiny_study


def three_hospitals(folder: Path) -> list[Path]:
    """Site files of three hospitals; the last has no ECG at all."""
    return [
        write_hospital(folder, "a", num_stays=80),
        write_hospital(folder, "b", num_stays=70, first_id=1_000, seed=1),
        write_hospital(folder, "c", num_stays=60, first_id=5_000, ecg_share=0.0),
    ]


def tiny_plan(folder: Path) -> Path:
    """The plan file of the tiny study, for all three hospitals."""
    plan = folder / "plan.yaml"
    plan.write_text(dump_plan(tiny_study(min_sites=3, folds=2)))
    return plan


def run_simulated(folder: Path, plan: Path) -> subprocess.CompletedProcess[str]:
    """``lemof-sim run --engine flower`` in a process of its own: Ray leaves open what pytest would not forgive."""
    command = ["run", "--sites", f"{folder}/*/site.yaml", "--plan", str(plan), "--out", f"{folder}/simulated"]
    lemof_sim = Path(sys.executable).parent / "lemof-sim"
    return subprocess.run([str(lemof_sim), *command, "--engine", "flower"], capture_output=True, text=True, timeout=300)


def forget(sites: list[Path]) -> None:
    """Take away what the hospitals have kept, so that the next engine computes everything itself."""
    for site in sites:
        shutil.rmtree(site.parent / "cohort/.cache")


def test_flowers_simulation_gives_the_bytes_of_the_local_engine(tmp_path: Path) -> None:
    sites, plan = three_hospitals(tmp_path), tiny_plan(tmp_path)
    local = run_plan(plan, tmp_path / "local", LocalTransport(sites))
    forget(sites)
    simulated = run_simulated(tmp_path, plan)
    assert simulated.returncode == 0, simulated.stderr
    assert outcome(tmp_path / "simulated") == outcome(local)


@pytest.mark.slow
def test_an_error_of_the_coordinator_ends_the_simulation_with_its_status(tmp_path: Path) -> None:
    three_hospitals(tmp_path)
    (tmp_path / "simulated").mkdir()
    (tmp_path / "simulated/thesis.docx").touch()
    simulated = run_simulated(tmp_path, tiny_plan(tmp_path))
    assert simulated.returncode == ConfigError.exit_status
    assert "--out must be a new or an empty folder" in simulated.stderr


@pytest.mark.parametrize("engine", ["local", "flower"])
def test_a_quorum_that_the_hospitals_cannot_make_is_refused_at_once(
    tmp_path: Path, engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sites, plan = three_hospitals(tmp_path), tiny_plan(tmp_path)
    plan.write_text(plan.read_text().replace("min_sites: 3", "min_sites: 4"))
    named = [argument for site in sites for argument in ("--sites", str(site))]
    command = ["run", *named, "--plan", str(plan), "--out", str(tmp_path / "run"), "--engine", engine]
    assert run_simulation(command) == ConfigError.exit_status
    assert "min_sites must be at most 3, the number of hospitals that --sites names, got 4 from plan.yaml." in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


def test_ray_gets_a_home_of_its_own_and_leaves_none() -> None:
    before = dict(os.environ)
    with ray_at_home() as folder:
        assert os.environ["HOME"] == str(folder)
        assert (folder / "ray_bootstrap_config.yaml").read_text() == "{}\n"
    assert dict(os.environ) == before
    assert not folder.exists()
