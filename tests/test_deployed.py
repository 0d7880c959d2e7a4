"""The study over the network: a real ``flower-superlink``, three real ``lemof-client --site``, ``flwr run``."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from client import cli
from lemof_model.errors import ConfigError
from protocol.plan import dump_plan
from protocol.source import PACKAGES, source_digest
from server.report.run_files import describe_run
from server.run import run_plan
from simulation.local_transport import LocalTransport
from tests.flower_deployment import JOINED, deployment, free_address, run_study
from tests.studies import outcome, tiny_study
from tests.test_engines import forget, three_hospitals, tiny_plan

MARK = """
from pathlib import Path
Path({path!r}).touch()
"""
STRANGER = """
import json
import time
from pathlib import Path
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

client = ClientApp()
app = ServerApp()

@client.query()
@client.train()
def read(message: Message, context: Context) -> Message:
    Path({marker!r}).write_text(Path(str(context.node_config["site"])).read_text())
    return Message(RecordDict({{"metrics": MetricRecord({{"read": 1}})}}), reply_to=message)

@app.main()
def main(grid: Grid, context: Context) -> None:
    kinds = ("query.hello", "query.census", "train", "query")
    content = RecordDict({{"metrics": MetricRecord({{"round": 1}})}})
    messages = [Message(content, node, kind) for node in grid.get_node_ids() for kind in kinds]
    kind_of = dict(zip(grid.push_messages(messages), [message.metadata.message_type for message in messages]))
    told = []
    while kind_of:
        for reply in grid.pull_messages(kind_of):
            kind = kind_of.pop(reply.metadata.reply_to_message_id)
            told.append([kind, reply.error.reason if reply.has_error() else ""])
        time.sleep(0.2)
    Path({out!r}).write_text(json.dumps(told))
"""
STRANGERS_PROJECT = """
[project]
name = "stranger"
version = "1.0.0"
description = ""
license = "MIT"

[tool.flwr.app]
publisher = "somebody"

[tool.flwr.app.components]
serverapp = "stranger:app"
clientapp = "stranger:client"
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
    local = run_plan(plan, folder / "local", LocalTransport(federation.sites, memory=folder / "told"))
    assert outcome(folder / "deployed") == outcome(local)


def allow(federation: Federation, plan: Path) -> None:
    """Let the hospitals tell of their held-out patients once more."""
    for site in federation.sites:
        assert cli.run(["--site", str(site), "told", "allow", "--plan", str(plan), "--yes"]) == 0


def altered_project(repository: Path, folder: Path) -> Path:
    """A copy of the source that travels, with the hospital's door opened and a mark set by whoever imports it."""
    for package in PACKAGES:
        shutil.copytree(repository / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, folder)
    door = folder / "client/door/egress.py"
    opened = door.read_text().replace("too_small = held_back(hospital, limits, groups)", "too_small = set[str]()")
    assert opened != door.read_text()
    door.write_text(opened)
    for name in ("packets", "egress", "stages"):
        path = folder / f"client/door/{name}.py"
        path.write_text(path.read_text() + MARK.format(path=str(folder / f"{name} was imported")))
    return folder


def marks(folder: Path) -> list[str]:
    """What has been imported of an altered bundle."""
    return [path.name for path in folder.glob("* was imported")]


def test_an_altered_bundle_that_states_the_right_digest_changes_nothing(
    federation: Federation, repository: Path
) -> None:
    project, plan = altered_project(repository, federation.folder / "hidden"), tiny_plan(federation.folder)
    path = project / "protocol/source.py"
    path.write_text(path.read_text() + f"\n\ndef source_digest() -> str:\n    return {source_digest()!r}\n")
    forget(federation.sites)
    allow(federation, plan)
    assert run_study(project, federation.environment, plan, federation.folder / "as_hidden") == "finished:completed"
    assert marks(project) == []
    assert outcome(federation.folder / "as_hidden") == outcome(federation.folder / "deployed")


def test_a_strangers_app_is_answered_by_nobody_and_told(federation: Federation) -> None:
    project, out = federation.folder / "stranger", federation.folder / "stranger.json"
    project.mkdir()
    marker = project / "was run"
    (project / "stranger.py").write_text(STRANGER.format(marker=str(marker), out=str(out)))
    (project / "pyproject.toml").write_text(STRANGERS_PROJECT)
    assert run_study(project, federation.environment, None, out) == "finished:completed"
    none = "The hospital answers requests of a LeMoF study alone; this is none."
    told = [*[[kind, none] for kind in ("query", "query.census", "train")], ["query.hello", ""]]
    assert sorted(json.loads(out.read_text())) == sorted(told * 3)
    assert not marker.exists()
    for site in "abc":
        log = (federation.folder / f"processes/{site}.log").read_text()
        assert "that is no request of a LeMoF study ('train')" in log


@pytest.mark.slow
def test_an_altered_bundle_is_refused_by_name_before_anything_is_computed(
    federation: Federation, repository: Path
) -> None:
    project, plan = altered_project(repository, federation.folder / "altered"), tiny_plan(federation.folder)
    out = federation.folder / "as_altered"
    assert run_study(project, federation.environment, plan, out) == "finished:failed"
    assert marks(project) == []
    code = rf"\(source {source_digest()[:12]}, wire \d\)"
    rule = rf"must run the coordinator's release, got lemof {version('lemof')} {code} at the hospital and lemof \S+ \("
    remedy = "Both say the same version, so one of the two was altered"
    hospital_log, log = federation.folder / "processes/a.log", out.with_suffix(".log")
    for text in (hospital_log.read_text(), describe_run(out)["status"], log.read_text()):
        assert re.search(rule, text) and remedy in text, text


@pytest.mark.slow
def test_a_coordinator_that_cannot_start_ends_the_run_as_failed(federation: Federation, repository: Path) -> None:
    plan = Path("plan.yaml")
    assert run_study(repository, federation.environment, plan, federation.folder / "none") == "finished:failed"


@pytest.mark.slow
def test_a_killed_node_is_started_again_and_rejoins(federation: Federation) -> None:
    log = federation.folder / "processes/c.log"
    os.kill(answering_process(federation.sites[2]), signal.SIGKILL)
    deadline = time.monotonic() + 60
    while log.read_text().count(JOINED) < 2:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    ended = "connection of c ended (its process was killed; if nobody did, memory was short); trying again in 2 s."
    assert ended in log.read_text()


@pytest.mark.slow
def test_a_second_client_of_one_site_file_is_refused(federation: Federation) -> None:
    lemof_client = Path(sys.executable).parent / "lemof-client"
    second = subprocess.run([lemof_client, "--site", federation.sites[0]], capture_output=True, text=True, timeout=60)
    assert second.returncode == ConfigError.exit_status
    assert "a must join once, got one that has already joined as process" in second.stderr


@pytest.mark.slow
def test_a_client_killed_in_a_study_leaves_no_process_behind_and_costs_its_wait_once(
    federation: Federation, repository: Path
) -> None:
    plan, out = federation.folder / "two.yaml", federation.folder / "without_c"
    plan.write_text(dump_plan(tiny_study(min_sites=2)))
    allow(federation, plan)
    log, answering = federation.folder / "processes/c.log", answering_process(federation.sites[2])
    num_answered = log.read_text().count("statistics answered")
    with ThreadPoolExecutor() as pool:
        study = pool.submit(run_study, repository, federation.environment, plan, out)
        deadline = time.monotonic() + 120
        while log.read_text().count("statistics answered") == num_answered:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(parent_of(answering), signal.SIGKILL)
        time.sleep(10)
        assert not Path(f"/proc/{answering}").exists()
        assert study.result() == "finished:completed"
    lines = [json.loads(line) for line in (out / "audit.jsonl").read_text().splitlines()]
    (waited,) = [line["round"] for line in lines if line["seconds"] > 30]
    assert waited in (2, 3), "the answer may have been on its way"
    asked = [line for line in lines[waited - 1 :] if "c" in line["bytes"]]
    assert len(asked) > 5 and all("c" in line["refused"] for line in asked)


def answering_process(site_file: Path) -> int:
    """The process that answers for a site file."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            arguments = (folder / "cmdline").read_text().split("\0")
            if str(site_file) in arguments and "from client.join.node import main; main()" in arguments:
                return int(folder.name)
    raise AssertionError(f"nobody answers for {site_file}")


def parent_of(process: int) -> int:
    """The process that started another."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
