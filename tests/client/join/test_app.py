"""The ClientApp of a hospital: its name, its answers, and what it tells when something goes wrong."""

import logging
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from client.door import stages
from client.join.app import app, make_app
from lemof_model.study import Study
from protocol.messages import (
    REQUESTS,
    WIRE_VERSION,
    Answer,
    ImportanceRequest,
    Packet,
    Refusal,
    Request,
    answer_from_packet,
)
from protocol.records import packet_to_recorddict, recorddict_to_packet
from protocol.source import source_digest
from tests.hospitals import write_hospital

PATIENT = 10_014_729


@pytest.fixture(autouse=True)
def flower_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages can be made only where Flower has told who sends them."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def site_file(tmp_path: Path) -> Path:
    return write_hospital(tmp_path, num_stays=10)


def reply_to(packet: Packet | None, stage: str, site_file: Path, client_app: ClientApp = app) -> Packet:
    """What the app answers to a message of this stage."""
    content = packet_to_recorddict(packet) if packet else RecordDict()
    context = Context(run_id=1, node_id=1, node_config={"site": str(site_file)}, state=RecordDict(), run_config={})
    return recorddict_to_packet(client_app(Message(content, 1, f"query.{stage}"), context).content)


def request() -> ImportanceRequest:
    return ImportanceRequest(study=Study(), round=4, release=version("lemof"), source_digest=source_digest())


def test_hello_tells_the_name_of_the_site_file(site_file: Path) -> None:
    said = {"site": "hospital_a", "release": version("lemof"), "source_digest": source_digest()}
    assert reply_to(None, "hello", site_file).config == said


def test_the_simulation_may_choose_the_site_file_itself(site_file: Path) -> None:
    chosen = make_app(lambda context: site_file)
    assert reply_to(None, "hello", Path("nowhere"), chosen).config["site"] == "hospital_a"


@pytest.mark.parametrize("stage", REQUESTS)
def test_every_stage_is_answered_by_stages(stage: str, site_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(site: Any, asked: Request, memory: None) -> Answer:
        return Answer(
            stage=stage, round=asked.round, site=site.site.name, plan_digest=asked.study.digest, sums={}, counts={}
        )

    monkeypatch.setattr(stages, "answer", answer)
    answered = answer_from_packet(reply_to(request().to_packet(), stage, site_file))
    assert isinstance(answered, Answer)
    assert (answered.site, answered.round, answered.plan_digest) == ("hospital_a", 4, Study().digest)


@pytest.mark.parametrize(
    ("changes", "wire_version", "remedy"),
    [
        ({"release": "9.1.0"}, WIRE_VERSION, r"At the hospital run: git fetch --tags && git checkout v9\.1\.0"),
        ({"source_digest": "ab" * 32}, WIRE_VERSION, "Both say the same version, so one of the two was altered"),
        ({}, 99, "wire 99.* at the coordinator"),
        ({"release": "1.0; rm -rf ~", "source_digest": "\x1b[2J"}, WIRE_VERSION, r"lemof \? \(source \?, wire"),
    ],
)
def test_another_release_is_refused_before_anything_is_read(
    changes: dict[str, str], wire_version: int, remedy: str, site_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "answer", lambda *_: pytest.fail("something was computed"))
    packet = request().to_packet()
    packet.config.update(changes)
    packet.metrics["wire_version"] = wire_version
    refusal = answer_from_packet(reply_to(packet, "importance", site_file))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.site, refusal.round) == (8, "hospital_a", 4)
    assert re.search(remedy, refusal.reason)
    assert source_digest()[:12] in refusal.reason and version("lemof") in refusal.reason


def test_a_bug_is_refused_without_its_text(
    site_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(site: Any, asked: Request, memory: None) -> Answer:
        raise KeyError(f"patient {PATIENT}")

    monkeypatch.setattr(stages, "answer", answer)
    with caplog.at_level(logging.ERROR):
        refusal = answer_from_packet(reply_to(request().to_packet(), "importance", site_file))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.stage, refusal.round) == (1, "importance", 4)
    assert "KeyError" in refusal.reason
    assert "test_app.py" in caplog.text
    assert str(PATIENT) not in refusal.reason + caplog.text
