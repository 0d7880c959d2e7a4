"""What a hospital tells twice: two plans, two models, two runs, and the memory that they are held against."""

import dataclasses
import json
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from client import cli
from client.cohort.hospital import open_hospital
from client.door import stages
from client.door.memory import HELD_OUT, KEY, PLAN, TOLD, open_memory, read_memory
from client.door.planned import groups_in, planned
from client.door.told import asks_of
from client.site import SiteConfig, load_site
from lemof_model.errors import MemoryDamagedError
from lemof_model.features import schema_digest
from lemof_model.splits import patient_hash_of, split_of
from lemof_model.study import SplitSpec, Study, Target
from protocol.messages import Answer, CensusRequest, EvaluationRequest, Refusal, Request, StatisticsRequest
from protocol.method import requests_of
from protocol.plan import dump_plan
from tests.hospitals import write_hospital
from tests.protocol.test_stages import whole_model
from tests.studies import tiny_study

MINIMUM = 11
RUNS = [f"{number:032x}" for number in range(1, 10)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hospital(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def site_file(prepared: Path, tmp_path: Path) -> Path:
    """A hospital that has told nothing yet."""
    shutil.copytree(prepared.parent, tmp_path / "site")
    return tmp_path / "site" / prepared.name


@pytest.fixture
def site(site_file: Path) -> SiteConfig:
    return load_site(site_file)


@pytest.fixture(autouse=True)
def _without_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the references, which take time."""
    monkeypatch.setattr("client.door.view.reference_scores", lambda hospital: {})
    monkeypatch.setattr("lemof_model.lemof.SCORED", ("ecg_single", "ehr_single", "m1", "m2", "full"))


def hospital(folder: Path, **changes: Any) -> Path:
    return write_hospital(folder, num_stays=400, min_patients=MINIMUM, min_cell=MINIMUM, **changes)


def census_of(study: Study, run: str = RUNS[0]) -> CensusRequest:
    return CensusRequest(study=study, round=1, run=run, schema_digest=schema_digest())


def held_out_of(
    study: Study, number: float = 0.5, run: str = RUNS[0], edges: Mapping[str, Any] = MappingProxyType({})
) -> EvaluationRequest:
    """The question about held-out patients, of the model of a number."""
    model = {**whole_model(study), "final": np.array([number, 0.5, 0.0]), **edges}
    return EvaluationRequest(study=study, round=30, run=run, model=model, split="held_out")


def refused(reply: Answer | Refusal) -> bool:
    """Whether it is a refusal in the fixed words; any other is a failure of the test."""
    if isinstance(reply, Answer):
        return False
    assert reply.reason.startswith("What is asked must differ from all that the hospital has told before"), reply.reason
    return True


# --- two plans --------------------------------------------------------------------------------------------------------


def split_a_hair_later(site: SiteConfig) -> tuple[Study, Study]:
    """Plans with ``splits.train`` .451 and .4515, under a salt for which that moves one patient or two."""
    patients = np.unique(patients_of(site))
    for number in range(100):
        first, second = (
            SplitSpec(salt=str(number), train=train, stack=0.7 - train, tuning=0.1, held_out=0.2)
            for train in (0.451, 0.4515)
        )
        if (split_of(patients, first) != split_of(patients, second)).any():
            return tiny_study(splits=first), tiny_study(splits=second)
    raise AssertionError("no salt moves anybody")


def an_hour_longer(site: SiteConfig) -> tuple[Study, Study]:
    """Plans with thresholds an hour apart, and somebody's stay between them."""
    los_days = pd.read_parquet(site.prepare.output / "stays.parquet")["icu_los_days"]
    threshold = float(los_days[(los_days > 3) & (los_days < 4)].min()) - 1 / 48
    return (
        tiny_study(target=Target(threshold_days=threshold)),
        tiny_study(target=Target(threshold_days=threshold + 1 / 24)),
    )


def with_the_dead(site: SiteConfig) -> tuple[Study, Study]:
    return tiny_study(target=Target(deaths="keep")), tiny_study(target=Target(deaths="exclude"))


def patients_of(site: SiteConfig) -> Any:
    return pd.read_parquet(site.prepare.output / "stays.parquet")["patient_hash"].to_numpy()


PAIRS = [split_a_hair_later, an_hour_longer, with_the_dead]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("is_turned", [False, True])
def test_of_two_plans_that_few_patients_tell_apart_the_second_is_refused(
    site: SiteConfig, pair: Any, is_turned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = pair(site)[:: -1 if is_turned else 1]
    assert isinstance(stages.answer(site, census_of(first)), Answer)
    before = read_memory(site.memory).lines(PLAN)
    reply = stages.answer(site, census_of(second, RUNS[1]))
    assert refused(reply) and isinstance(reply, Refusal)
    assert not re.search(r"\d", reply.reason), "a number of patients has left"
    found = re.search(rf"got (\d+) of {MINIMUM} in census", caplog.text)
    assert found and 1 <= int(found[1]) < MINIMUM and "[E903]" in caplog.text
    assert read_memory(site.memory).lines(PLAN) == before, "what was refused was not told"
    assert isinstance(stages.answer(site, census_of(first, RUNS[2])), Answer), "the first stays free"


@pytest.mark.parametrize("pair", PAIRS)
def test_who_leaves_the_census_out_gets_no_further(site: SiteConfig, pair: Any) -> None:
    first, second = pair(site)
    assert isinstance(stages.answer(site, StatisticsRequest(study=first, round=2)), Answer)
    assert refused(stages.answer(site, StatisticsRequest(study=second, round=2)))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 8},
        {"name": "another"},
        {"target": Target(threshold_days=1.5)},
        {"splits": SplitSpec(train=0.3, stack=0.3, tuning=0.2, held_out=0.2, salt="another")},
    ],
)
def test_plans_that_nobody_or_many_tell_apart_are_answered(site: SiteConfig, changes: dict[str, Any]) -> None:
    few = site.limits.model_copy(update={"min_patients": 2, "min_cell": 2})
    for study in (tiny_study(), tiny_study(**changes)):
        reply = stages.answer(site.model_copy(update={"limits": few}), census_of(study))
        assert isinstance(reply, Answer), reply


def test_a_patient_more_at_the_next_preparation_is_seen_and_other_rows_are_not(site_file: Path, tmp_path: Path) -> None:
    site, study = load_site(site_file), tiny_study()
    assert isinstance(stages.answer(site, census_of(study)), Answer)

    def prepare(**changes: Any) -> None:
        made = hospital(tmp_path / str(changes), **changes).parent / "cohort"
        shutil.rmtree(site.prepare.output)
        made.rename(site.prepare.output)

    wanted = split_of(np.array([patient_hash_of(n) for n in range(400)], np.uint64), study.splits) == 0
    prepare(without=int(np.flatnonzero(wanted)[20]))
    assert refused(stages.answer(site, census_of(study, RUNS[1])))
    prepare()
    assert isinstance(stages.answer(site, census_of(study, RUNS[2])), Answer)
    turned = pd.read_parquet(site.prepare.output / "stays.parquet")
    hours = turned["intime"] + pd.Timedelta(hours=1)
    turned.assign(intime=hours).to_parquet(site.prepare.output / "stays.parquet")
    assert isinstance(stages.answer(site, census_of(study, RUNS[3])), Answer)


def test_another_site_file_for_the_same_cohort_finds_the_same_memory(site_file: Path, tmp_path: Path) -> None:
    first, second = with_the_dead(load_site(site_file))
    assert isinstance(stages.answer(load_site(site_file), census_of(first)), Answer)
    config = yaml.safe_load(site_file.read_text()) | {"prepare": {"output": str(site_file.parent / "cohort")}}
    copied = tmp_path / "copied" / "site.yaml"
    copied.parent.mkdir()
    copied.write_text(yaml.safe_dump(config))
    assert refused(stages.answer(load_site(copied), census_of(second, RUNS[1])))


def test_the_groups_of_a_plan_are_those_of_its_answers(site: SiteConfig) -> None:
    """Who is in a group does not depend on the model, and all that leaves was judged."""
    study = tiny_study()
    opened = open_hospital(site, study)
    of_plan = {(asked.stage, asks_of(asked), one.name) for asked, one, _ in planned(opened, site.limits)}
    of_answers = set()
    for request, _ in requests_of(study):
        asked = dataclasses.replace(request, model=whole_model(study), round=1)
        found = {group.name: group for group in stages.groups_of(opened, asked)}
        there = groups_in(opened, request)
        assert there.keys() == found.keys()
        for name, group in found.items():
            np.testing.assert_array_equal(there[name].rows, group.rows)
            assert len(there[name].about) == len(group.about)
            for ours, theirs in zip(there[name].about, group.about, strict=True):
                np.testing.assert_array_equal(ours, theirs)
        reply = stages.answer(site, asked)
        assert isinstance(reply, Answer), reply
        asks = request.split if isinstance(request, EvaluationRequest) else ""
        of_answers |= {(request.stage, asks, name) for name in reply.counts}
    assert of_answers == of_plan


# --- held_out ---------------------------------------------------------------------------------------------------------


def test_of_five_models_in_one_run_held_out_is_told_to_the_first(site: SiteConfig) -> None:
    study = tiny_study()
    replies = [stages.answer(site, held_out_of(study, number)) for number in (0.1, 0.2, 0.3, 0.4, 0.5)]
    assert [refused(reply) for reply in replies] == [False, True, True, True, True]
    again = stages.answer(site, dataclasses.replace(held_out_of(study, 0.1), num_sites=4, round=31))
    assert isinstance(again, Answer) and isinstance(replies[0], Answer)
    for name, value in replies[0].sums.items():
        np.testing.assert_array_equal(again.sums[name], value)


def test_finer_bins_of_the_same_model_are_another_question(site: SiteConfig) -> None:
    study = tiny_study()
    edges = {"edges/all/full": np.linspace(-1, 1, study.evaluation.num_bins + 1)}
    assert isinstance(stages.answer(site, held_out_of(study)), Answer)
    assert refused(stages.answer(site, held_out_of(study, edges=edges)))


@pytest.mark.parametrize(
    ("budget", "changes"),
    [
        (None, {}),
        (None, {"seed": 8, "name": "another plan"}),
        ({"epsilon": 400.0, "study_epsilon": 50.0, "delta": 1e-5}, {"seed": 8, "name": "another plan"}),
    ],
)
def test_a_further_run_about_the_same_held_out_patients_takes_a_permission(
    site_file: Path, changes: dict[str, Any], budget: dict[str, float] | None, caplog: pytest.LogCaptureFixture
) -> None:
    if budget:
        site_file.write_text(yaml.safe_dump(yaml.safe_load(site_file.read_text()) | {"privacy": budget}))
    site, first, further = load_site(site_file), tiny_study(), tiny_study(**changes)

    def run(study: Study, run: str, number: float) -> Iterator[Answer | Refusal]:
        yield stages.answer(site, census_of(study, run))
        yield stages.answer(site, held_out_of(study, number, run))

    assert not any(map(refused, run(first, RUNS[0], 0.1)))
    assert not refused(stages.answer(site, census_of(first, RUNS[0]))), "the run itself may count again"
    assert all(map(refused, run(further, RUNS[1], 0.2))) and "[E904]" in caplog.text
    plan = site_file.parent / "plan.yaml"
    plan.write_text(dump_plan(further))
    assert cli.run(["--site", str(site_file), "told", "allow", "--plan", str(plan), "--yes"]) == 0
    assert not any(map(refused, run(further, RUNS[2], 0.3)))
    assert refused(stages.answer(site, held_out_of(further, 0.4, RUNS[2]))), "of one model"
    assert all(map(refused, run(further, RUNS[3], 0.5))), "and of one run"


def test_two_runs_that_began_before_either_was_told_get_one_answer(site: SiteConfig) -> None:
    study = tiny_study()
    for run in RUNS[:2]:
        assert not refused(stages.answer(site, census_of(study, run)))
    replies = [stages.answer(site, held_out_of(study, number, run)) for number, run in enumerate(RUNS[:2], start=1)]
    assert [refused(reply) for reply in replies] == [False, True]


@pytest.mark.parametrize("run", ["", "0" * 15, "g" * 32, "0" * 65, "../../etc/passwd0", "0" * 32 + "\n"])
def test_a_run_that_is_no_run_is_refused(site: SiteConfig, run: str) -> None:
    reply = stages.answer(site, census_of(tiny_study(), run))
    assert isinstance(reply, Refusal) and "A run must be named by 16 to 64 hexadecimal digits" in reply.reason


# --- the people at the hospital ---------------------------------------------------------------------------------------


def findings(site_file: Path, plan: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    cli.run(["--site", str(site_file), "check", "--no-server", "--json", "--plan", str(plan)])
    told = json.loads(capsys.readouterr().out)["findings"]
    return [finding for finding in told if finding["check"] == "told before"]


def test_check_tells_the_verdict_and_allow_shows_the_number_and_asks(
    site_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = load_site(site_file)
    first, second = with_the_dead(site)
    plan, allow = (
        tmp_path / "plan.yaml",
        ["--site", str(site_file), "told", "allow", "--plan", str(tmp_path / "plan.yaml")],
    )
    plan.write_text(dump_plan(second))
    (before,) = findings(site_file, plan, capsys)
    assert before["result"] == "ok" and not site.memory.exists(), "nothing was remembered"
    assert isinstance(stages.answer(site, census_of(first)), Answer)
    (found,) = findings(site_file, plan, capsys)
    assert (found["result"], found["code"], found["exit_status"]) == ("fail", "E903", 3)
    assert re.search(rf"got \d+ of {MINIMUM} in census", found["found"])

    for typed, status in (("n\n", 3), ("y\n", 0)):
        monkeypatch.setattr("click.termui.visible_prompt_func", lambda text, typed=typed: typed)
        assert cli.run(allow) == status
        assert re.search(rf"got \d+ of {MINIMUM} in census", capsys.readouterr().err)
        assert refused(stages.answer(site, census_of(second, RUNS[1]))) == bool(status)
    assert cli.run(allow) == 0 and "Nothing stands against study tiny" in capsys.readouterr().err
    assert findings(site_file, plan, capsys)[0]["result"] == "ok"


def test_told_lists_studies_stages_sizes_runs_and_permissions(
    site_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--site", str(site_file), "told"]
    assert cli.run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"site": "hospital_a", "studies": [], "events": []}
    site, study = load_site(site_file), tiny_study()
    assert isinstance(stages.answer(site, held_out_of(study)), Answer)
    assert cli.run([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (listed,) = told["studies"]
    stays = open_hospital(site, study).stays
    train = stays.rows("train")
    assert listed["stages"]["statistics"] == {
        "groups": 1, "patients": [stays.num_patients(train)] * 2, "stays": [len(train)] * 2,
    }  # fmt: skip
    assert {"census", "evaluation on tuning", "evaluation on held_out"} <= set(listed["stages"])
    assert len(told["events"]) == 1 and "held-out patients were told of in run 000000000000" in told["events"][0]
    assert cli.run(command) == 0
    assert f"tiny ({study.digest[:12]})" in capsys.readouterr().err


# --- the memory -------------------------------------------------------------------------------------------------------


def test_the_memory_is_its_owners_alone_and_tells_no_patient(site: SiteConfig) -> None:
    stages.answer(site, census_of(tiny_study()))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (site.memory, *site.memory.iterdir())}
    assert modes == {site.memory.name: 0o700, TOLD: 0o600, KEY: 0o600}
    memory = read_memory(site.memory)
    stored = {int(one) for kind in memory._stays for one in kind}
    assert len(stored) > 700 and not stored & set(patients_of(site).tolist())
    other = site.memory.with_name("other")
    stages.answer(site, census_of(tiny_study()), other)
    assert not stored & {int(one) for kind in read_memory(other)._stays for one in kind}, "another key, other hashes"


def test_equal_sets_are_kept_once(site: SiteConfig) -> None:
    for seed in (7, 8):
        stages.answer(site, census_of(tiny_study(seed=seed)))
    first, second = read_memory(site.memory).lines(PLAN)
    assert first["told"] == second["told"] and len(first["told"]) > len(first["sets"]) and second["sets"] == []


def test_the_beginning_of_a_line_is_cut_and_any_other_damage_is_refused(site: SiteConfig) -> None:
    study, path = tiny_study(), site.memory / TOLD
    stages.answer(site, held_out_of(study))
    content = path.read_bytes()
    path.write_bytes(content + content.splitlines(keepends=True)[1][:100])
    assert len(read_memory(site.memory).lines(PLAN)) == 1
    assert isinstance(stages.answer(site, census_of(study)), Answer)
    assert path.read_bytes() == content
    lines = content.splitlines(keepends=True)
    damaged = [
        content.replace(b'"tiny"', b'"tony"'), b"".join([*lines[:1], *lines[2:]]), content.replace(b"1", b"2", 1),
        b"".join([lines[0], b"{}\n", *lines[1:]]), b"\xff\n", b"[1]\n",
    ]  # fmt: skip
    for one in damaged:
        path.write_bytes(one)
        with pytest.raises(MemoryDamagedError, match="must be as it was written"):
            read_memory(site.memory)
        reply = stages.answer(site, census_of(study))
        assert isinstance(reply, Refusal) and "memory of what it told is not as it must be" in reply.reason
    path.write_bytes(content)
    (site.memory / KEY).write_bytes(b"0" * 32)
    with pytest.raises(MemoryDamagedError, match="key must be the one"), open_memory(site.memory):
        pass
    for name in (KEY, TOLD):
        kept = (site.memory / name).rename(site.memory / "kept")
        with pytest.raises(MemoryDamagedError, match="must be there together"):
            read_memory(site.memory)
        kept.rename(site.memory / name)


def test_a_disk_that_fails_is_told_and_nothing_leaves(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tiny_study()
    stages.answer(site, census_of(study))
    content = (site.memory / TOLD).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("client.door.memory.os.fsync", lambda descriptor: fail())
        reply = stages.answer(site, held_out_of(study))
    assert isinstance(reply, Refusal) and reply.code == 6
    assert (site.memory / TOLD).read_bytes() == content and not read_memory(site.memory).lines(HELD_OUT)
    assert isinstance(stages.answer(site, held_out_of(study)), Answer)


def fail() -> None:
    raise OSError(28, "No space left on device")


def test_a_hospital_with_a_budget_remembers_runs_and_no_groups(site_file: Path) -> None:
    config = yaml.safe_load(site_file.read_text()) | {"privacy": {"epsilon": 50.0, "delta": 1e-5}}
    site_file.write_text(yaml.safe_dump(config))
    site, study = load_site(site_file), tiny_study()
    requests: list[Request] = [census_of(study), held_out_of(study)]
    for request in requests:
        assert isinstance(stages.answer(site, request), Answer)
    memory = read_memory(site.memory)
    assert [line["told"] for line in memory.lines(PLAN)] == [[]] and len(memory.lines(HELD_OUT)) == 1
    again = stages.answer(site, census_of(tiny_study(), RUNS[0]))
    assert isinstance(again, Answer)


def test_a_label_that_turned_is_one_patient_apart(site: SiteConfig) -> None:
    memory, numbers, labels = read_memory(site.memory), [], []
    for days in (3.0, 3.5):
        opened = open_hospital(site, tiny_study(target=Target(threshold_days=days)))
        numbers.append(memory.add_set(memory.add_hospital(opened)))
        labels.append(opened.stays.long_stay_N)
    turned = patients_of(site)[labels[0] != labels[1]]
    assert len(turned) > 5 and memory.num_apart(*numbers) == len(set(turned.tolist()))
    assert memory.size(numbers[0]) == memory.size(numbers[1])
