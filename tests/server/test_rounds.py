"""Totals over few hospitals: who is told how many stand behind them, and when nothing is asked at all."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from lemof_model.errors import TooLittleDataError
from lemof_model.features import schema_digest
from lemof_model.study import Study
from protocol.messages import Answer, CensusRequest, MetaRequest, Refusal, Request
from protocol.stages import STAGES
from server.coordinator import State, take_census
from server.rounds import Rounds
from server.run_store import RunStore
from tests.studies import tiny_study

COUNTS = {f"{split}/{modality}": 60 for split in ("train", "stack") for modality in ("ecg", "ehr")}


class Hospitals:
    """Hospitals that count their stays and do nothing else; those named in ``without_ecg`` have none."""

    def __init__(self, names: str, without_ecg: str = "") -> None:
        self.names, self.without_ecg = names, without_ecg
        self.requests: list[Request] = []

    def sites(self) -> list[str]:
        return list(self.names)

    def ask(self, stage: str, requests: Mapping[str, Request]) -> dict[str, Answer | Refusal]:
        self.requests += [next(iter(requests.values()))]
        return {site: self.answer(site, request) for site, request in requests.items()}

    def answer(self, site: str, request: Request) -> Answer:
        stage, known = STAGES[request.stage], COUNTS if request.stage == "census" else {"ecg": 60, "ehr": 60}
        counts = {name: n for name, n in known.items() if site not in self.without_ecg or name.endswith("ehr")}
        arrays = {
            f"{group}/{name}": np.zeros(form.shape)
            for group, forms in stage.forms(request).items()
            for name, form in forms.items()
            if group in counts and name != "noise"
        }
        return Answer(
            stage=request.stage, round=request.round, site=site, plan_digest=request.study.digest,
            release=request.release, source_digest=request.source_digest, sums=arrays, counts=counts,
        )  # fmt: skip


def rounds_of(hospitals: Hospitals, folder: Path, study: Study) -> Rounds:
    store = RunStore(folder)
    store.begin(study, "")
    return Rounds(study, hospitals, store)


def test_two_hospitals_are_not_even_asked_unless_the_plan_allows_it(tmp_path: Path) -> None:
    hospitals = Hospitals("ab")
    rounds = rounds_of(hospitals, tmp_path / "refused", tiny_study(few_sites="refuse"))
    with pytest.raises(TooLittleDataError, match=r"census needs 3 sites, got 2\. .*few_sites: allow in the plan"):
        rounds.ask(CensusRequest, schema_digest=schema_digest())
    assert hospitals.requests == []
    take_census(rounds_of(hospitals, tmp_path / "allowed", tiny_study()), State())
    assert hospitals.requests[0].num_sites == 2


def test_a_block_that_two_hospitals_can_train_stops_a_study_that_does_not_allow_it(tmp_path: Path) -> None:
    rounds = rounds_of(Hospitals("abcd", without_ecg="cd"), tmp_path, tiny_study(few_sites="refuse"))
    with pytest.raises(TooLittleDataError, match=r"sums of train/ecg from 3 sites at least \(few_sites\), got 2 of 4"):
        take_census(rounds, State())
    assert not list((tmp_path / "state").glob("*census*")), "a round that is refused is not kept"


def test_a_block_that_two_hospitals_can_train_is_named_and_stated_to_every_site(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hospitals = Hospitals("abcd", without_ecg="cd")
    rounds = rounds_of(hospitals, tmp_path, tiny_study())
    take_census(rounds, State())
    assert rounds.few_sites == {"ecg": ["a", "b"]}
    assert "only a and b can train the ecg block" in caplog.text
    model = {"meta/ecg": np.zeros(4), "meta/ehr": np.zeros(4)}
    rounds.ask(MetaRequest, needs=["ecg", "ehr"], model=model)
    rounds.ask(MetaRequest, needs=["ehr"], model=model)
    assert [request.num_sites for request in hospitals.requests] == [4, 2, 4]


def test_with_three_hospitals_nobody_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rounds = rounds_of(Hospitals("abc"), tmp_path, tiny_study(few_sites="refuse"))
    take_census(rounds, State())
    assert rounds.few_sites == {} and "few:" not in caplog.text
    assert json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[0])["stage"] == "census"
