"""A whole run: what its folder says while it is at work and when it has failed, and how messages name what came."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from lemof_model.errors import ConfigError, NetworkError
from protocol.messages import Answer, Refusal, Request
from protocol.plan import dump_plan
from server.report.run_files import describe_run
from server.run import run_plan
from server.run_store import WAITING, WITH_FLWR_RUN, RunStore, note
from tests.studies import tiny_study


class NobodyAnswers:
    """Three hospitals that are away."""

    def sites(self) -> list[str]:
        return ["a", "b", "c"]

    def ask(self, stage: str, requests: Mapping[str, Request]) -> dict[str, Answer | Refusal]:
        return {site: Refusal(stage=stage, round=1, site=site, code=7, reason="away") for site in requests}


class Falls(NobodyAnswers):
    """A transport with a bug."""

    def ask(self, stage: str, requests: Mapping[str, Request]) -> dict[str, Answer | Refusal]:
        raise ZeroDivisionError("of patient 17")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(dump_plan(tiny_study()))
    return path


def test_a_study_that_failed_says_so_and_why(plan: Path, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="resume=true to --run-config"):
        run_plan(plan, tmp_path / "run", NobodyAnswers(), asked=WITH_FLWR_RUN)
    status = describe_run(tmp_path / "run")["status"]
    assert status.startswith("failed: census needs answers from 2 sites at least") and "b: away" in status


def test_a_bug_is_noted_without_its_text(plan: Path, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run_plan(plan, tmp_path / "run", Falls())
    assert (
        describe_run(tmp_path / "run")["status"] == "failed: a bug in lemof (ZeroDivisionError); its log has the lines"
    )


def test_a_run_says_for_whom_it_waits(plan: Path, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    store.begin(tiny_study(), "")
    with store.alone():
        note(store.out, WAITING, "b, c (encoders)")
        status = describe_run(store.out)["status"]
        assert status.startswith("running, waiting since 20") and status.endswith(" for b, c (encoders)")
        note(store.out, WAITING, "")
        assert describe_run(store.out)["status"] == "running"


def test_who_uses_flwr_run_is_told_its_keys(plan: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'^plan="\.\.\." of --run-config must name a study plan') as told:
        run_plan(Path("none"), tmp_path / "run", NobodyAnswers(), asked=WITH_FLWR_RUN)
    assert "--plan" not in str(told.value)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.docx").touch()
    with pytest.raises(ConfigError, match=r'^out="\.\.\." of --run-config must be .* add resume=true to') as told:
        run_plan(plan, tmp_path / "full", NobodyAnswers(), asked=WITH_FLWR_RUN)
    assert "--out" not in str(told.value) and "--resume" not in str(told.value)
