"""The study over the network: a real ``flower-superlink``, three real ``lemof-client --site``, ``flwr run``."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from server.run import run_plan
from simulation.local_transport import LocalTransport
from tests.flower_deployment import JOINED, deployment, free_address, run_study
from tests.studies import outcome
from tests.test_engines import forget, three_hospitals, tiny_plan

# A bundle whose two sides do nothing but tell which files they are.
TELLING_STAGES = """
from lemof_model.wire import Refusal

def answer(site, request):
    return Refusal(stage=request.stage, round=request.round, site=site.site.name, code=7, reason=__file__)
"""
TELLING_RUN = """
import json
from lemof_model.wire import ImportanceRequest
from server.plan import load_plan

def run_plan(plan, out, transport, resume):
    request = ImportanceRequest(study=load_plan(plan), round=1)
    answers = transport.ask("importance", {site: request for site in transport.sites()})
    out.write_text(json.dumps({"server": __file__} | {site: answer.reason for site, answer in answers.items()}))
"""


class Federation(NamedTuple):
    """Three hospitals that have joined, and what is needed to run a study over them."""

    folder: Path
    sites: list[Path]
    environment: dict[str, str]


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("deployed")
    sites, address = three_hospitals(folder), free_address()
    for site in sites:
        config = yaml.safe_load(site.read_text()) | {"server": {"address": address}}
        site.write_text(yaml.safe_dump(config))
    with deployment(folder / "processes", sites, address) as environment:
        yield Federation(folder, sites, environment)


def test_the_deployed_study_gives_the_bytes_of_the_local_engine(federation: Federation, repository: Path) -> None:
    folder, plan = federation.folder, tiny_plan(federation.folder)
    assert run_study(repository, federation.environment, plan, folder / "deployed") == "finished:completed"
    assert "  census      3 of 3 sites" in (folder / "deployed.log").read_text()
    forget(federation.sites)
    local = run_plan(plan, folder / "local", LocalTransport(federation.sites))
    assert outcome(folder / "deployed") == outcome(local)


@pytest.mark.slow
def test_the_bundle_runs_on_both_sides_not_what_is_installed(federation: Federation, repository: Path) -> None:
    project, out = federation.folder / "project", federation.folder / "files.json"
    for package in ("client", "lemof_model", "server"):
        shutil.copytree(repository / package, project / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, project)
    (project / "client/stages.py").write_text(TELLING_STAGES)
    (project / "server/run.py").write_text(TELLING_RUN)
    plan = tiny_plan(federation.folder)
    assert run_study(project, federation.environment, plan, out) == "finished:completed"
    files = json.loads(out.read_text())
    homes = {site.parent.name: site.parent / ".flower" / site.parent.name for site in federation.sites}
    homes["server"] = Path(federation.environment["FLWR_HOME"])
    assert files.keys() == homes.keys()
    for name, file in files.items():
        assert Path(file).is_relative_to(homes[name] / "apps"), name


@pytest.mark.slow
def test_a_coordinator_that_cannot_start_ends_the_run_as_failed(federation: Federation, repository: Path) -> None:
    plan = Path("plan.yaml")
    assert run_study(repository, federation.environment, plan, federation.folder / "none") == "finished:failed"


@pytest.mark.slow
def test_a_killed_node_is_started_again_and_rejoins(federation: Federation) -> None:
    log = federation.folder / "processes/c.log"
    os.kill(process_with(f'site="{federation.sites[2]}"'), signal.SIGKILL)
    deadline = time.monotonic() + 60
    while log.read_text().count(JOINED) < 2:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    assert "connection of c ended (its process died); trying again in 2 s." in log.read_text()


def process_with(argument: str) -> int:
    """The process that was started with this argument."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if argument in arguments:
            return int(folder.name)
    raise AssertionError(f"no process with {argument}")
