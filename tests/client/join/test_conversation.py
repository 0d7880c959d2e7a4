"""What is told at a hospital while it takes part in a study."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from client.door import egress, stages
from client.door.packets import own_release
from client.join.conversation import Conversation
from client.site import SiteConfig, load_site
from lemof_model.errors import DataError
from lemof_model.features import schema_digest
from lemof_model.study import Study
from protocol.messages import (
    Answer,
    CensusRequest,
    EncodersRequest,
    EvaluationRequest,
    IntervalsRequest,
    Refusal,
    Request,
)
from tests.hospitals import write_hospital

RUN = 7


class Told(list[str]):
    """What was told, without the time."""

    def note(self, text: str) -> None:
        self.append(text[len("12:00  ") :])


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def talk(told: Told) -> Iterator[Conversation]:
    door = logging.getLogger("lemof.door")
    before = door.level, door.propagate, door.handlers[:]
    yield Conversation(told.note)
    door.level, door.propagate, door.handlers[:] = before


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    return load_site(write_hospital(tmp_path, num_stays=10))


def request(number: int = 3, kind: type[Request] = EncodersRequest, **fields: object) -> Request:
    release = {"release": own_release().version, "source_digest": own_release().source_digest}
    return kind(study=Study(name="trial"), round=number, **release, **fields)  # type: ignore[arg-type]


def answer_round(talk: Conversation, site: SiteConfig, asked: Request, run_id: int = RUN) -> None:
    """A request comes and is answered."""
    talk.asked(run_id, site, asked.to_packet())
    answer = Answer(
        stage=asked.stage, round=asked.round, site="a", plan_digest="", sums={"w": np.zeros(125_000)}, counts={}
    )  # fmt: skip
    talk.answered(answer, 1.23)


def test_a_study_begins_once_and_each_round_is_told(talk: Conversation, site: SiteConfig, told: Told) -> None:
    for number in (3, 4):
        answer_round(talk, site, request(number))
    digests = rf"plan '{Study(name='trial').digest[:12]}', {own_release()}"
    assert told[0].startswith(f"study 'trial' began: {digests}. Stages that this hospital answers: census, statistics")
    assert told[1:] == ["round  3  encoders answered: 1.2 s, 1.0 MB", "round  4  encoders answered: 1.2 s, 1.0 MB"]


def test_a_study_ends_with_its_last_question_or_before(talk: Conversation, site: SiteConfig, told: Told) -> None:
    answer_round(talk, site, request())
    talk.ended()
    assert (
        told[-1] == "study 'trial' has ended: it failed or was stopped before its last question; ask the coordinator."
    )
    answer_round(talk, site, request(), run_id=8)
    talk.ended(is_lost=True)
    assert told[-1] == "study 'trial' has ended: the server has lost it; ask the coordinator."
    answer_round(talk, site, request(1, EvaluationRequest, split="held_out"), run_id=9)
    answer_round(talk, site, request(2, IntervalsRequest), run_id=9)
    talk.ended()
    talk.ended()
    assert told[-1] == "study 'trial' has ended: its last question was answered."
    assert [line[:13] for line in told].count("study 'trial'") == 6


def test_a_study_that_answers_nothing_is_not_complete_because_the_one_before_was(
    talk: Conversation, site: SiteConfig, told: Told
) -> None:
    answer_round(talk, site, request(9, IntervalsRequest))
    talk.asked(8, site, request().to_packet())
    assert told[-2] == "study 'trial' has ended: its last question was answered."
    talk.ended()
    assert told[-1].startswith("study 'trial' has ended: it failed or was stopped before its last question")


def test_what_the_door_declines_is_told_once_with_what_stays_here(
    talk: Conversation, site: SiteConfig, told: Told
) -> None:
    for number in (3, 4, 5):
        error = DataError(rule="The cohort must be whole", got=f"a damaged one at /{'x' if number < 5 else 'y'}")
        refusal = egress.refuse("a", request(number), error)
        talk.answered(refusal, 0.1)
        assert isinstance(refusal, Refusal) and "/x" not in refusal.reason
    place = "declined encoders: The cohort must be whole, got a damaged one at"
    assert told == [f"{place} /x.", f"{place} /y."]


def test_what_the_door_holds_back_is_told_with_the_limits(talk: Conversation, tmp_path: Path, told: Told) -> None:
    path = write_hospital(tmp_path / "small", num_stays=30, min_cell=20)
    asked = CensusRequest(study=Study(few_sites="allow"), round=1, num_sites=1, schema_digest=schema_digest())
    assert isinstance(stages.answer(load_site(path), asked), Answer)
    assert told[0].startswith("held back in census: ") and "limits.min_cell = 20" in told[0]
    assert "train/ecg/1" in told[0]


def test_another_release_begins_nothing_and_a_name_cannot_write_on_the_terminal(
    talk: Conversation, site: SiteConfig, told: Told
) -> None:
    packet = request().to_packet()
    talk.asked(RUN, site, packet._replace(config=packet.config | {"release": "9.9"}))
    assert (told, talk.is_open) == ([], False)
    packet.config["study"] = '{"name": "\\u001b[2Jall is well"}'
    talk.asked(RUN, site, packet)
    assert told[0].startswith("study '?[2Jall is well' began")


def test_a_foreign_message_is_told(talk: Conversation, told: Told) -> None:
    talk.declined(RUN, "train", "KeyError")
    assert told == ["declined a message of run 7 that is no request of a LeMoF study ('train'): KeyError"]
