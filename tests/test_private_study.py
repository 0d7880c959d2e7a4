"""Studies with hospitals that have a privacy budget: they end, stay within it, and survive being killed.

A hospital's ledger is the judge throughout: what left is in it, and what it claims to have spent is what its charges
give.
"""

import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from client.budget import accounting
from client.budget.ledger import Entry, read_ledger
from client.budget.statement import verify
from client.cohort.hospital import Hospital
from client.door import stages
from client.site import load_site
from lemof_model import lemof
from lemof_model.errors import BudgetError, LemofError
from lemof_model.features import DISEASES, schema_digest
from lemof_model.study import AttentionSpec, EncoderSpec, Study, TrainingSpec
from protocol.messages import Answer, CensusRequest, Refusal
from protocol.plan import dump_plan
from protocol.source import source_digest
from server.report import words
from server.report.page import write_report
from server.run_store import RunStore
from tests.hospitals import write_hospital
from tests.studies import Watched, outcome, run_tiny, simulated, tiny_study

DELTA = 1e-5


def write_sites(folder: Path, budgets: Mapping[str, dict[str, float]]) -> list[Path]:
    """Three hospitals, c without ECG; those named in ``budgets`` with a privacy section, and with so many stays that at
    epsilon 8 every noisy count that a stage needs is eight deviations or more above its minimum."""
    files = [
        write_hospital(folder, name, first_id=first_id, ecg_share=share, num_stays=300 if name in budgets else 90)
        for name, first_id, share in (("a", 1, 0.7), ("b", 1_000, 0.7), ("c", 5_000, 0.0))
    ]
    for file in files:
        if file.parent.name in budgets:
            site = yaml.safe_load(file.read_text())
            file.write_text(yaml.safe_dump({**site, "privacy": {"delta": DELTA, **budgets[file.parent.name]}}))
    return files


def study_of(name: str = "private", **changes: Any) -> Study:
    """One round of encoders, three of attention."""
    training = TrainingSpec(num_rounds=1, batch_size=16, client_lr=3e-3)
    known = {
        "name": name,
        "ehr": EncoderSpec("mlp", {"width": 16}),
        "encoders": training,
        "attention": AttentionSpec(width=4, dropout=0.1, training=dataclasses.replace(training, num_rounds=3)),
    }
    return tiny_study(**known | changes)


@pytest.fixture(autouse=True, scope="module")
def _without_references() -> Iterator[None]:
    """Leave out the references of hospitals without a budget, which take time."""

    def nothing(hospital: Hospital) -> dict[str, Any]:
        return {name: np.full(len(hospital.stays.split_N), np.nan) for name in lemof.REFERENCES}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("client.door.view.reference_scores", nothing)
        yield


def entries_of(site_file: Path) -> list[Entry]:
    """What a hospital's ledger says."""
    site = load_site(site_file)
    assert site.privacy is not None
    return read_ledger(site.privacy.ledger, site.prepare.output)


class Kept(Watched):
    """Keeps every answer."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.answers: dict[str, list[Answer | Refusal]] = {}

    def instead(self, site: str, answer: Answer | Refusal) -> Answer | Refusal:
        self.answers.setdefault(site, []).append(answer)
        return answer


def metrics_of(run: Path) -> Any:
    return json.loads((run / "metrics.json").read_text())


# --- one hospital with a budget among three ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Study, Kept, Path]:
    """A finished study in which only hospital a has a budget."""
    folder = tmp_path_factory.mktemp("mixed")
    sites, study = write_sites(folder, {"a": {"epsilon": 8.0}}), study_of()
    kept = Kept(simulated(sites, folder / "run"))
    run_tiny(study, kept, folder / "run")
    return sites, study, kept, folder / "run"


def test_a_study_ends_within_the_budget_and_says_what_it_cost(mixed: tuple[list[Path], Study, Kept, Path]) -> None:
    sites, _, kept, run = mixed
    entries = entries_of(sites[0])
    epsilon = entries[-1].epsilon
    assert verify(entries) == pytest.approx(epsilon, rel=1e-12) and 0.9 * 8.0 < epsilon <= 8.0
    assert metrics_of(run)["privacy"] == {"a": {"epsilon": epsilon, "delta": DELTA}}
    assert len(entries) == len(kept.answers["a"]) and all(isinstance(answer, Answer) for answer in kept.answers["a"])
    assert not (sites[1].parent / "ledger.jsonl").exists()
    spent = [answer.epsilon for answer in kept.answers["a"] if isinstance(answer, Answer)]
    assert spent == sorted(spent) and spent[-1] == epsilon
    metrics = metrics_of(run)["variants"]["full"]["all"]
    assert metrics["pooled"]["n"] > 0 and metrics["sites"].keys() == {"a", "b", "c"}
    page = write_report(run).read_text()
    assert page.count("at delta 1e-05") == 1 and words.NOISY in page and "out of steps" not in page
    assert page.count("one noisy step, as planned") == 4 and page.count("not known: noise") == 6
    for population, table in metrics_of(run)["differences"].items():
        names = {"full-ehr_single", "full-m1", "full-m2"} | ({"full-ecg_single"} if population == "with_ecg" else set())
        assert table.keys() == names
    differences = [d for table in metrics_of(run)["differences"].values() for d in table.values()]
    known = [(of["auroc"], *of["auroc_ci"]) for of in (metrics["pooled"], *differences) if of["auroc_ci"]]
    assert known and all(low <= value <= high for value, low, high in known)  # none where noise ate the counts
    assert all(high - low > 0.2 for _, low, high in known)  # noise is in it
    newton = json.loads((run / "model/card.json").read_text())["stages"]["final"]
    assert newton["num_steps"] == 1


def test_what_leaves_a_hospital_with_a_budget(mixed: tuple[list[Path], Study, Kept, Path]) -> None:
    """No statistics, no exact number of stays, nothing by disease, no digest of the cohort."""
    _, _, kept, _ = mixed
    by_stage = {(answer.stage, answer.round): answer for answer in kept.answers["a"] if isinstance(answer, Answer)}
    assert {stage for stage, _ in by_stage} == {request.stage for request in kept.requests}
    arrays = {name for answer in by_stage.values() for name in answer.sums}
    assert not [name for name in arrays if any(disease in name for disease in DISEASES)]
    assert {answer.cohort_digest for answer in by_stage.values()} == {""}
    [statistics] = [answer for (stage, _), answer in by_stage.items() if stage == "statistics"]
    assert not statistics.sums and not statistics.counts
    [census] = [answer for (stage, _), answer in by_stage.items() if stage == "census"]
    for (stage, _), answer in by_stage.items():
        if stage == "encoders":
            assert all(answer.counts[m] == census.counts[f"train/{m}"] for m in ("ecg", "ehr") if m in answer.counts)
        if stage in ("meta", "final"):
            assert set(answer.counts.values()) <= {census.counts["stack/ehr"], census.counts["stack/ecg"]}
            assert all(float(v) == 0 for name, v in answer.sums.items() if name.endswith(("/loss", "/num_errors")))
    rides = [answer for (stage, _), answer in by_stage.items() if stage == "attention" and "omega_1" in answer.counts]
    assert len(rides) == 1 < sum(stage == "attention" for stage, _ in by_stage)


def test_a_hospital_that_its_own_noise_left_out_is_not_waited_for(tmp_path: Path) -> None:
    """A census can put it below the minimum of stays and not below that of ECGs."""

    class Unlucky(Watched):
        def instead(self, site: str, answer: Answer | Refusal) -> Answer | Refusal:
            if site == "a" and isinstance(answer, Answer) and answer.stage == "census":
                kept = {name: n for name, n in answer.counts.items() if not name.startswith("train/ehr")}
                return dataclasses.replace(answer, counts=kept, too_small=("train/ehr",))
            return answer

    transport = Unlucky(simulated(write_sites(tmp_path, {"a": {"epsilon": 8.0}}), tmp_path / "run"))
    run_tiny(study_of(), transport, tmp_path / "run")
    assert metrics_of(tmp_path / "run")["variants"]["full"]["all"]["sites"].keys() == {"b", "c"}


def test_the_same_study_again_costs_nothing_and_gets_the_same_bytes(
    mixed: tuple[list[Path], Study, Kept, Path], tmp_path: Path
) -> None:
    sites, study, _, run = mixed
    before = (sites[0].parent / "ledger.jsonl").read_bytes()
    run_tiny(study, sites, tmp_path / "again")
    assert outcome(tmp_path / "again") == outcome(run)
    assert (sites[0].parent / "ledger.jsonl").read_bytes() == before


# --- budgets end ------------------------------------------------------------------------------------------------------


def test_a_second_study_goes_on_from_the_first_and_a_third_is_declined(tmp_path: Path) -> None:
    """A study may spend up to 20 of 28; the second gets what is left. The third goes on without the hospital, of which
    nothing leaves but a fixed sentence."""
    sites = write_sites(tmp_path, {"a": {"epsilon": 28.0, "study_epsilon": 20.0}})
    ledger, spent = sites[0].parent / "ledger.jsonl", [0.0]
    for name in ("first", "second"):
        run_tiny(study_of(name), sites, tmp_path / name)
        spent.append(verify(entries_of(sites[0])))
        assert metrics_of(tmp_path / name)["privacy"]["a"]["epsilon"] == pytest.approx(spent[-1])
    assert 18.0 < spent[1] <= 20.0 < 27.6 < spent[2] <= 28.0
    before = ledger.read_bytes()
    kept = Kept(simulated(sites, tmp_path / "third"))
    run_tiny(study_of("third"), kept, tmp_path / "third")
    assert ledger.read_bytes() == before
    [declined] = kept.answers["a"]
    assert isinstance(declined, Refusal) and (declined.code, declined.reason) == (9, BudgetError.told_outside)
    assert metrics_of(tmp_path / "third")["privacy"] == {}
    assert json.loads((tmp_path / "third/model/card.json").read_text())["sites"] == ["b", "c"]


def test_where_all_have_budgets_the_study_ends_and_its_noise_is_of_no_seed(tmp_path: Path) -> None:
    """The same plan, hospitals and seed under two fresh ledgers."""
    models, study = [], study_of()
    for name in ("one", "two"):
        sites = write_sites(tmp_path / name, {key: {"epsilon": 8.0} for key in "abc"})
        models.append(run_tiny(study, sites, tmp_path / name / "run"))
        assert metrics_of(tmp_path / name / "run")["privacy"].keys() == {"a", "b", "c"}
        assert all(verify(entries_of(site)) <= 8.0 for site in sites)
    trained = [name for name in models[0] if name.startswith("ehr/")]
    differing = [name for name in trained if (models[0][name] != models[1][name]).any()]
    assert set(differing) == set(trained)
    np.testing.assert_array_equal(models[0]["scaling/mean"], models[1]["scaling/mean"])  # published


def test_a_plan_without_clipping_is_declined(tmp_path: Path) -> None:
    sites = write_sites(tmp_path, {"a": {"epsilon": 8.0}})
    kept = Kept(simulated(sites, tmp_path / "run"))
    loose = dataclasses.replace(study_of().encoders, max_grad_norm=0.0)
    run_tiny(study_of(encoders=loose), kept, tmp_path / "run")
    [refused] = kept.answers["a"]
    assert isinstance(refused, Refusal) and "encoders.max_grad_norm must be from 1e-06" in refused.reason


def test_what_fails_after_noise_was_drawn_is_charged_once_and_refused_in_fixed_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a census that fails for some noisy counts could be asked again and again, and tell the true ones."""
    site = load_site(write_sites(tmp_path, {"a": {"epsilon": 8.0}})[0])
    assert site.privacy is not None
    request = CensusRequest(
        study=study_of(), round=1, num_sites=3, source_digest=source_digest(), schema_digest=schema_digest()
    )

    def fail(*_: object, **__: object) -> None:
        raise OverflowError("1234 stays")

    with monkeypatch.context() as patch:
        patch.setattr(accounting, "with_counts", fail)
        refused = stages.answer(site, request)
    assert isinstance(refused, Refusal) and refused.reason == LemofError.told_outside
    [entry] = read_ledger(site.privacy.ledger, site.prepare.output)
    assert entry.charges and 0 < verify([entry]) < 8.0
    assert stages.answer(site, request) == refused, "the same request gets the same refusal"
    assert len(read_ledger(site.privacy.ledger, site.prepare.output)) == 1


# --- kill -9 ----------------------------------------------------------------------------------------------------------


SCRIPT = """
import sys
from pathlib import Path
from protocol.plan import load_plan
from tests.studies import run_tiny
print("begun", flush=True)
run_tiny(load_plan(Path(sys.argv[1])), [Path(file) for file in sys.argv[3:]], Path(sys.argv[2]), resume=True)
"""


def kill_and_resume(tmp_path: Path, repository: Path, num_kills: int, seed: int) -> None:
    """Run a study in a process that is killed ``num_kills`` times, each time later; look at ledger and run folder after
    each, and let it end."""
    sites, plan, run = write_sites(tmp_path, {"a": {"epsilon": 8.0}}), tmp_path / "plan.yaml", tmp_path / "run"
    plan.write_text(dump_plan(study_of()))
    ledger = load_site(sites[0]).privacy.ledger  # type: ignore[union-attr]
    rng = random.Random(seed)
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    command = [sys.executable, "-c", SCRIPT, str(plan), str(run), *map(str, sites)]
    for _ in range(num_kills):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, cwd=repository)
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        time.sleep(rng.uniform(0.0, 6.0))
        process.kill()
        process.wait()
        process.stdout.close()
        entries = entries_of(sites[0])
        verify(entries)
        answered = {(entry.stage, entry.round): entry.epsilon for entry in entries}
        for finished in finished_rounds(run):
            reply = finished.sites["a"]
            assert answered[finished.stage, finished.number] == reply.epsilon, "a round that the ledger does not know"
        answers = {path.stem for path in Path(f"{ledger}.answers").glob("*.npz")}
        assert {entry.request for entry in entries} <= answers
    run_tiny(study_of(), sites, run, resume=True)
    entries = entries_of(sites[0])
    assert verify(entries) <= 8.0 and metrics_of(run)["privacy"]["a"]["epsilon"] == entries[-1].epsilon
    assert len({entry.request for entry in entries}) == len(entries) == len(finished_rounds(run)), "charged twice"


def finished_rounds(run: Path) -> list[Any]:
    """Every round that a run folder holds."""
    files = sorted((run / "state").glob("*.safetensors")) if run.is_dir() else []
    store = RunStore(run, resume=True) if files else None
    names = (path.stem.split("-", 1) for path in files)
    return [store.next_stored(stage, int(number)) for number, stage in names if store is not None]


def test_a_study_that_is_killed_twice_goes_on_and_charges_once(tmp_path: Path, repository: Path) -> None:
    kill_and_resume(tmp_path, repository, num_kills=2, seed=1)


@pytest.mark.slow
def test_a_study_that_is_killed_twenty_times_goes_on_and_charges_once(tmp_path: Path, repository: Path) -> None:
    kill_and_resume(tmp_path, repository, num_kills=20, seed=2)
