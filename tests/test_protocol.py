"""The federated study against the same study done plainly: one hospital, two halves, pooled rows, stops, absences.

A long file, because its tests share one run.
"""

import csv
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from client.cohort import frozen
from client.cohort.hospital import Hospital, open_hospital
from client.site import load_site
from lemof_model import lemof, training
from lemof_model.encoders.registry import build_network
from lemof_model.errors import ConfigError, NetworkError, TooLittleDataError
from lemof_model.study import (
    MODALITIES,
    AttentionSpec,
    EncoderSpec,
    EvaluationSpec,
    LogisticSpec,
    StrategySpec,
    Study,
    TrainingSpec,
)
from protocol.messages import Answer, AttentionRequest, EncodersRequest, Refusal, Request
from protocol.plan import load_plan
from server.blocks import Model
from server.rounds import Rounds
from server.run_store import RunStore
from tests.hospitals import write_hospital
from tests.studies import Watched, outcome, refusal, run_tiny, simulated, tiny_study

FULL_BATCH = TrainingSpec(num_rounds=1, batch_size=10_000, optimizer="sgd", client_lr=0.1, max_grad_norm=0.0)


class Run(NamedTuple):
    """A finished run: its study, hospitals, folder, what went by, and the model."""

    study: Study
    sites: list[Path]
    out: Path
    watched: Watched
    model: Model

    def hospitals(self, names: Sequence[str] = ("a", "b", "c")) -> list[Hospital]:
        return [open_hospital(load_site(path), self.study) for path in self.sites if path.parent.name in names]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three hospitals; c has no ECG at all."""
    folder = tmp_path_factory.mktemp("hospitals")
    return [
        write_hospital(folder, "a", first_id=1),
        write_hospital(folder, "b", first_id=1_000, seed=1, num_stays=70),
        write_hospital(folder, "c", first_id=5_000, ecg_share=0.0, num_stays=60),
    ]


@pytest.fixture(scope="module")
def run(sites: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The tiny study from census to the end, with references."""
    out, study = tmp_path_factory.mktemp("run") / "run", tiny_study()
    watched = Watched(simulated(sites, out))
    return Run(study, sites, out, watched, run_tiny(study, watched, out))


@pytest.fixture
def without_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out each hospital's own references, which take time and touch nothing that is federated."""

    def nothing(hospital: Hospital) -> dict[str, NDArray[np.float64]]:
        return {name: np.full(len(hospital.stays.split_N), np.nan) for name in lemof.REFERENCES}

    monkeypatch.setattr("client.door.view.reference_scores", nothing)


# --- one hospital is a plain loop -------------------------------------------------------------------------------------


def plain_loop(
    model: torch.nn.Module, batch_of: Callable[[Any], Any], label_N: NDArray[np.int8], rows: NDArray[np.int64],
    spec: TrainingSpec, seeds: Sequence[int],
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """What PyTorch's own tutorial would write, with an optimiser that starts afresh in every round."""
    matrices = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv1d)}
    for number, seed in enumerate(seeds, start=1):
        decays = [p for p in model.parameters() if id(p) in matrices]
        others = [p for p in model.parameters() if not any(p is q for q in decays)]
        groups: list[dict[str, Any]] = [{"params": decays}, {"params": others, "weight_decay": 0.0}]
        lr = training.round_lr(spec, number)
        optimizer = torch.optim.AdamW(groups, lr=lr, weight_decay=spec.weight_decay, fused=True)
        model.train()
        torch.manual_seed(training.derive_seed(seed, "dropout"))
        shuffle = np.random.default_rng(training.derive_seed(seed, "batches"))
        for _ in range(spec.num_epochs):
            order = shuffle.permutation(rows)
            for begin in range(0, len(order), spec.batch_size):
                batch = order[begin : begin + spec.batch_size]
                logit = model(batch_of(batch))
                target = torch.tensor(label_N[batch], dtype=torch.float32)[:, None].expand_as(logit)
                loss = functional.binary_cross_entropy_with_logits(logit, target, reduction="sum") / len(batch)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), spec.max_grad_norm)
                optimizer.step()
    return training.to_arrays(model)


@pytest.mark.usefixtures("without_references")
def test_one_hospital_gives_the_weights_of_a_plain_loop_to_the_bit(sites: list[Path], tmp_path: Path) -> None:
    spec = TrainingSpec(num_rounds=3, num_epochs=2, batch_size=16, client_lr=3e-3)
    study = tiny_study(
        min_sites=1,
        ecg=EncoderSpec("resnet", {"width": 8, "num_tokens": 4, "dropout": 0.3}),
        ehr=EncoderSpec("ft_transformer", {"width": 8, "num_heads": 2}),
        encoders=spec,
        attention=AttentionSpec(width=4, dropout=0.2, training=spec),
    )
    watched = Watched(simulated(sites[:1], tmp_path / "run"))
    model = run_tiny(study, watched, tmp_path / "run")
    hospital = open_hospital(load_site(sites[0]), study)
    stays = hospital.stays

    def seeds(stage: str, block: str) -> list[int]:
        return [training.derive_seed(study.seed, "a", stage, block, number) for number in rounds_of(watched, stage)[:3]]

    sent = [request.model for request in watched.requests if request.stage == "encoders"][3]
    for modality in MODALITIES:
        seed = training.derive_seed(study.seed, "initial", modality)
        network = build_network(modality, getattr(study, modality), seed)
        batch_of = frozen.batches_of(hospital, modality, model)
        rows, stage_seeds = stays.rows("train", modality), seeds("encoders", modality)
        assert_same_bits(
            plain_loop(network, batch_of, stays.long_stay_N, rows, spec, stage_seeds), lemof.part(sent, modality)
        )

    sent = [request.model for request in watched.requests if request.stage == "attention"][3]
    tokens, stack = frozen.Tokens(hospital, model), stays.rows("stack")
    for fold in range(2):
        block = f"attention/{fold}"
        head = lemof.build_head(
            study, model["best_level"], training.derive_seed(study.seed, "initial", "attention", fold)
        )
        rows = stack[stays.fold_N[stack] == fold]
        expected = plain_loop(head, tokens.batch, stays.long_stay_N, rows, spec, seeds("attention", block))
        assert_same_bits(expected, lemof.part(sent, block))


def rounds_of(watched: Watched, stage: str) -> list[int]:
    return [number for name, number, _ in watched.asked if name == stage]


def assert_same_bits(expected: dict[str, NDArray[Any]], got: dict[str, NDArray[Any]]) -> None:
    assert expected.keys() == got.keys() and expected
    for name, value in expected.items():
        assert value.dtype == got[name].dtype
        np.testing.assert_array_equal(value, got[name], err_msg=name)


# --- two halves are one whole -----------------------------------------------------------------------------------------


@pytest.fixture(params=[1.0, 0.6], ids=["every stay has an ECG", "some stays lack one"])
def whole_and_halves(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[list[Path], list[Path]]:
    def write(name: str, share: tuple[int, int]) -> Path:
        return write_hospital(tmp_path, name, ecg_share=request.param, share=share, num_stays=90)

    return [write("whole", (0, 1))], [write("half_0", (0, 2)), write("half_1", (1, 2))]


def mean_of_one_round(
    sites: Sequence[Path], study: Study, out: Path, kind: type[Request], model: Model, names: Sequence[str]
) -> Model:
    """Weights after one round from ``model``, as the server averages them."""
    reply = Rounds(study, simulated(sites, out), RunStore(out)).ask(kind, model=model, blocks=" ".join(names))
    prefixes = [(name, f"{name}/weights/") for name in names]
    return {
        f"{name}/{key.removeprefix(prefix)}": value / reply.counts[name]
        for name, prefix in prefixes
        for key, value in reply.sums.items()
        if key.startswith(prefix)
    }


@pytest.mark.usefixtures("without_references")
def test_a_full_batch_step_of_two_halves_is_that_of_the_whole(
    whole_and_halves: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    whole, halves = whole_and_halves
    attention = AttentionSpec(width=4, dropout=0.0, training=FULL_BATCH)
    study = tiny_study(min_sites=1, encoders=FULL_BATCH, attention=attention)
    model = run_tiny(study, whole, tmp_path / "run")
    heads = [f"attention/{fold}" for fold in range(2)]
    for kind, names in ((EncodersRequest, MODALITIES), (AttentionRequest, heads)):
        start = {key: value for name in names for key, value in lemof.prefixed(name, lemof.part(model, name)).items()}
        one = mean_of_one_round(whole, study, tmp_path / f"{kind.stage}-1", kind, model, names)
        two = mean_of_one_round(halves, study, tmp_path / f"{kind.stage}-2", kind, model, names)
        assert one.keys() == two.keys() == start.keys()
        assert max(np.abs(one[key] - start[key]).max() for key in start) > 1e-3
        for key in start:
            np.testing.assert_allclose(two[key], one[key], rtol=0, atol=1e-6, err_msg=key)


# --- nothing but the plan and the cohorts decides ---------------------------------------------------------------------


class Reversed(Watched):
    """Asks, answers and lists its sites in the opposite order."""

    def sites(self) -> list[str]:
        return self.inner.sites()[::-1]

    def ask(self, stage: str, requests: Any) -> dict[str, Answer | Refusal]:
        answers = super().ask(stage, dict(reversed(requests.items())))
        return dict(reversed(answers.items()))


def test_the_order_of_sites_changes_no_bit(run: Run, tmp_path: Path) -> None:
    run_tiny(run.study, Reversed(simulated(run.sites[::-1], tmp_path / "run")), tmp_path / "run")
    assert outcome(tmp_path / "run", "rounds.csv") == outcome(run.out, "rounds.csv")


def test_one_seed_gives_the_same_bytes_and_another_seed_does_not(run: Run, tmp_path: Path) -> None:
    run_tiny(run.study, run.sites, tmp_path / "again")
    assert outcome(tmp_path / "again", "rounds.csv") == outcome(run.out, "rounds.csv")
    other = run_tiny(dataclasses.replace(run.study, seed=8), run.sites, tmp_path / "other")
    assert any((other[name] != run.model[name]).any() for name in other if name.startswith("ehr/"))
    assert any((other[name] != run.model[name]).any() for name in other if name.startswith("attention/"))


# --- Newton stages and importance are those of the pooled rows --------------------------------------------------------


class PooledRows(NamedTuple):
    """Inputs of the learners on all hospitals' ``stack`` rows, recomputed from the released model."""

    level: dict[str, NDArray[np.float64]]
    omega_1: NDArray[np.float64]
    final: NDArray[np.float64]
    label: NDArray[np.int8]


def clip(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(log_odds, -8.0, 8.0)


def pooled_rows(hospitals: Sequence[Hospital], model: Model) -> PooledRows:
    levels: dict[str, list[NDArray[np.float64]]] = {m: [] for m in MODALITIES}
    heads, folds, labels = [], [], []
    for hospital in hospitals:
        rows = hospital.stays.rows("stack")
        for modality in MODALITIES:
            levels[modality].append(frozen.levels(hospital, model)[modality][rows])
        heads.append(frozen.omega_2(hospital, model, rows))
        folds.append(hospital.stays.fold_N[rows])
        labels.append(hospital.stays.long_stay_N[rows])
    level = {modality: np.concatenate(parts) for modality, parts in levels.items()}
    has_ecg = ~np.isnan(level["ecg"]).any(axis=1)
    columns = []
    for index, modality in enumerate(MODALITIES):
        theta = model[f"meta/{modality}"]
        best = level[modality][:, int(model["best_level"][index]) - 1]
        columns += [clip(level[modality]) @ theta[:3] + theta[3], best]
    z = clip(np.column_stack(columns))
    z[~has_ecg, :2] = 0.0
    z = np.column_stack([z, has_ecg])
    fold = np.concatenate(folds)
    two = np.concatenate(heads)
    omega_2 = np.where(fold == 0, two[:, 1], two[:, 0])
    u = clip(np.column_stack([z @ model["omega_1"][:-1] + model["omega_1"][-1], omega_2]))
    return PooledRows(level, z, u, np.concatenate(labels))


def sklearn_theta(rows: NDArray[np.float64], labels: NDArray[np.int8], c: float = 1.0) -> NDArray[np.float64]:
    fitted = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-12, max_iter=200).fit(rows, labels)
    return np.append(fitted.coef_[0], fitted.intercept_)


def test_newton_stages_equal_scikit_learn_on_the_pooled_rows(run: Run) -> None:
    pooled = pooled_rows(run.hospitals(), run.model)
    has_ecg = ~np.isnan(pooled.level["ecg"][:, 0])
    assert 0 < has_ecg.sum() < len(has_ecg)
    expected = {
        "meta/ecg": sklearn_theta(clip(pooled.level["ecg"][has_ecg]), pooled.label[has_ecg]),
        "meta/ehr": sklearn_theta(clip(pooled.level["ehr"]), pooled.label),
        "omega_1": sklearn_theta(pooled.omega_1, pooled.label),
        "final": sklearn_theta(pooled.final, pooled.label),
    }
    for name, theta in expected.items():
        np.testing.assert_allclose(run.model[name], theta, rtol=0, atol=1e-8, err_msg=name)
    card = read_json(run.out / "model/card.json")["stages"]
    for name in expected:
        assert card[name]["converged"] and card[name]["num_steps"] <= 8


def test_importance_equals_that_of_the_pooled_rows(run: Run) -> None:
    pooled, ranking = pooled_rows(run.hospitals(), run.model), read_json(run.out / "importance.json")
    for index, modality in enumerate(MODALITIES):
        rows = clip(pooled.level[modality][~np.isnan(pooled.level[modality][:, 0])])
        importance = np.abs((rows - rows.mean(axis=0)) * run.model[f"meta/{modality}"][:3]).mean(axis=0)
        np.testing.assert_allclose(ranking[modality]["level_importance"], importance, rtol=1e-9)
        np.testing.assert_allclose(ranking[modality]["background"], rows.mean(axis=0), rtol=1e-9, atol=1e-12)
        assert ranking[modality]["best_level"] == run.model["best_level"][index] == 1 + int(np.argmax(importance))
        assert ranking[modality]["num_stays"] == len(rows)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


# --- stops and resumes ------------------------------------------------------------------------------------------------


class StopsAt(Watched):
    """Breaks down before a given round."""

    def __init__(self, inner: Any, number: int) -> None:
        super().__init__(inner)
        self.number = number

    def before(self, stage: str, request: Request) -> None:
        if request.round == self.number:
            raise KeyboardInterrupt


def test_a_run_that_stops_again_and_again_ends_with_the_same_bytes(run: Run, tmp_path: Path) -> None:
    out, num_rounds = tmp_path / "run", len(run.watched.asked)
    for number in range(2, num_rounds + 1, 3):
        stopping = StopsAt(simulated(run.sites, out), number)
        with pytest.raises(KeyboardInterrupt):
            run_tiny(run.study, stopping, out, resume=number > 2)
        assert [asked[1] for asked in stopping.asked] == list(range(max(number - 3, 1), number + 1))
        assert len(list((out / "state").glob("*.safetensors"))) == number - 1
    run_tiny(run.study, run.sites, out, resume=True)
    assert outcome(out, "rounds.csv") == outcome(run.out, "rounds.csv")


def test_a_finished_run_is_resumed_without_asking_anyone(run: Run) -> None:
    before = outcome(run.out, "rounds.csv")
    nobody = StopsAt(simulated(run.sites, run.out), number=-1)
    run_tiny(run.study, nobody, run.out, resume=True)
    assert nobody.asked == []
    assert outcome(run.out, "rounds.csv") == before


def test_attendance_lost_with_the_machine_is_written_again(run: Run) -> None:
    before = (run.out / "rounds.csv").read_bytes()
    (run.out / "rounds.csv").unlink()
    run_tiny(run.study, run.sites, run.out, resume=True)
    assert (run.out / "rounds.csv").read_bytes() == before


def test_a_run_is_not_resumed_with_another_plan_nor_overwritten(run: Run) -> None:
    with pytest.raises(ConfigError, match="its own plan"):
        run_tiny(dataclasses.replace(run.study, seed=99), run.sites, run.out, resume=True)
    with pytest.raises(ConfigError, match="--resume"):
        run_tiny(run.study, run.sites, run.out)


# --- sites that are absent, leave or refuse ---------------------------------------------------------------------------


class Absent(Watched):
    """A site that does not answer some stages; ``when`` counts the rounds of a stage from 1."""

    def __init__(self, inner: Any, site: str, when: dict[str, set[int]]) -> None:
        super().__init__(inner)
        self.site, self.when = site, when

    def instead(self, site: str, answer: Answer | Refusal) -> Answer | Refusal:
        nth = sum(stage == answer.stage for stage, _, _ in self.asked)
        return refusal(answer) if site == self.site and nth in self.when.get(answer.stage, ()) else answer


EVER = set(range(1, 100))


def attendance_of(out: Path) -> list[dict[str, str]]:
    with (out / "rounds.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("without_references")
def test_a_run_with_absences_is_repeated_from_its_attendance(sites: list[Path], tmp_path: Path) -> None:
    study = tiny_study(min_sites=1)
    away = {"encoders": {1}, "meta": {2}, "attention": {2}, "final": {3}, "evaluation": {2}}
    run_tiny(study, Absent(simulated(sites, tmp_path / "first"), "b", away), tmp_path / "first")
    attendance = tmp_path / "first/rounds.csv"
    run_tiny(study, simulated(sites, tmp_path / "second", attendance), tmp_path / "second")
    assert outcome(tmp_path / "first") == outcome(tmp_path / "second")
    first, second = (attendance_of(tmp_path / name) for name in ("first", "second"))
    assert [{**row, "reason": ""} for row in first] == [{**row, "reason": ""} for row in second]
    assert sum(row["answered"] == "0" for row in first) == 5


@pytest.mark.usefixtures("without_references")
def test_a_site_that_leaves_newton_restarts_the_stage_without_it(sites: list[Path], tmp_path: Path) -> None:
    study = tiny_study(min_sites=1)
    away = {"meta": set(range(2, 100)), "final": set(range(3, 100))}
    watched = Absent(simulated(sites, tmp_path / "run"), "b", away)
    model = run_tiny(study, watched, tmp_path / "run")
    run = Run(study, sites, tmp_path / "run", watched, model)
    rest, everyone = pooled_rows(run.hospitals(["a", "c"]), model), pooled_rows(run.hospitals(), model)
    has_ecg = ~np.isnan(rest.level["ecg"][:, 0])
    expected = {
        "meta/ecg": sklearn_theta(clip(rest.level["ecg"][has_ecg]), rest.label[has_ecg]),
        "meta/ehr": sklearn_theta(clip(rest.level["ehr"]), rest.label),
        "omega_1": sklearn_theta(everyone.omega_1, everyone.label),
        "final": sklearn_theta(rest.final, rest.label),
    }
    for name, theta in expected.items():
        np.testing.assert_allclose(model[name], theta, rtol=0, atol=1e-8, err_msg=name)
    card = read_json(tmp_path / "run/model/card.json")["stages"]
    assert (card["meta/ecg"]["sites"], card["meta/ehr"]["sites"]) == (["a"], ["a", "c"])
    assert all("b" not in asked for stage, _, asked in watched.asked if stage == "meta" and asked != ("a", "b", "c"))


@pytest.mark.usefixtures("without_references")
def test_a_site_that_refuses_is_left_out_and_a_missing_quorum_stops_the_study(
    sites: list[Path], tmp_path: Path
) -> None:
    study = tiny_study(min_sites=2)
    run_tiny(study, Absent(simulated(sites, tmp_path / "goes_on"), "c", {"encoders": EVER}), tmp_path / "goes_on")
    assert (tmp_path / "goes_on/metrics.json").is_file()

    with pytest.raises(NetworkError, match="encoders needs sums of ecg from 2 sites at least") as caught:
        run_tiny(study, Absent(simulated(sites, tmp_path / "ecg"), "b", {"encoders": {2}}), tmp_path / "ecg")

    study = tiny_study(min_sites=3)
    with pytest.raises(NetworkError, match="b: the line is dead") as caught:
        run_tiny(study, Absent(simulated(sites, tmp_path / "stops"), "b", {"encoders": {2}}), tmp_path / "stops")
    assert caught.value.exit_status == 7 and "--resume" in str(caught.value)
    kept = sorted(path.name for path in (tmp_path / "stops/state").glob("*.safetensors"))
    assert kept == ["0001-census.safetensors", "0002-statistics.safetensors", "0003-encoders.safetensors"]
    run_tiny(study, sites, tmp_path / "stops", resume=True)
    run_tiny(study, sites, tmp_path / "straight")
    assert outcome(tmp_path / "stops", "rounds.csv") == outcome(tmp_path / "straight", "rounds.csv")


@pytest.mark.usefixtures("without_references")
@pytest.mark.parametrize("stage", ["meta", "importance"])
def test_a_stage_waits_for_the_only_site_with_an_ecg(tmp_path: Path, stage: str) -> None:
    sites = [
        write_hospital(tmp_path, "ecg", num_stays=80),
        write_hospital(tmp_path, "other", num_stays=50, first_id=1_000, ecg_share=0.0),
        write_hospital(tmp_path, "third", num_stays=50, first_id=2_000, ecg_share=0.0),
    ]
    study = tiny_study(min_sites=2)
    with pytest.raises(NetworkError, match=f"{stage} needs sums of ecg from 1 sites at least(.|\n)*--resume"):
        run_tiny(study, Absent(simulated(sites, tmp_path / "run"), "ecg", {stage: {1}}), tmp_path / "run")
    run_tiny(study, sites, tmp_path / "run", resume=True)
    assert (tmp_path / "run/metrics.json").is_file()


@pytest.mark.usefixtures("without_references")
def test_the_quorum_counts_the_sites_that_can_train(tmp_path: Path) -> None:
    sites = [
        write_hospital(tmp_path, "large", num_stays=80),
        write_hospital(tmp_path, "small", num_stays=60, first_id=1_000, min_patients=40),
    ]
    with pytest.raises(TooLittleDataError, match="census needs sums of train/ehr from 2 sites at least"):
        run_tiny(tiny_study(min_sites=2), sites, tmp_path / "run")


# --- missing ECG ------------------------------------------------------------------------------------------------------


def test_a_hospital_without_ecg_takes_part_in_every_stage(run: Run) -> None:
    answered = {r["stage"] for r in attendance_of(run.out) if r["site"] == "c" and r["answered"] == "1"}
    assert answered == {
        "census",
        "statistics",
        "encoders",
        "meta",
        "importance",
        "attention",
        "final",
        "evaluation",
        "intervals",
    }
    card = read_json(run.out / "model/card.json")["stages"]
    assert "c" not in card["meta/ecg"]["sites"] and "c" in card["meta/ehr"]["sites"]
    assert len(run.model["omega_1"]) == 6
    variants = read_json(run.out / "metrics.json")["variants"]
    assert variants["ecg_single"]["all"] is None
    assert variants["full"]["with_ecg"]["sites"]["c"] is None
    assert variants["full"]["all"]["sites"]["c"]["n"] > 0


@pytest.mark.usefixtures("without_references")
def test_the_indicator_is_dropped_where_every_stay_has_an_ecg(tmp_path: Path) -> None:
    sites = [write_hospital(tmp_path, name, first_id=i * 1_000 + 1, ecg_share=1.0) for i, name in enumerate("ab")]
    assert len(run_tiny(tiny_study(), sites, tmp_path / "run")["omega_1"]) == 5


# --- budget, strategies, plans ----------------------------------------------------------------------------------------


NEWTON = {"gradient", "hessian", "loss", "num_errors"}
WHAT_LEAVES = {
    "census": set(),
    "statistics": {"ehr/num_present", "ehr/x", "ehr/x2"},
    "encoders": {f"{m}/weights/*" for m in MODALITIES} | {f"tuning/{m}/loss" for m in MODALITIES},
    "meta": {f"{m}/{name}" for m in MODALITIES for name in (*NEWTON, "inputs")},
    "importance": {f"{m}/abs_shap" for m in MODALITIES},
    "attention": {f"attention/{fold}/weights/*" for fold in (0, 1)}
    | {f"tuning/attention/{fold}/loss" for fold in (0, 1)}
    | {f"omega_1/{name}" for name in NEWTON},
    "final": {f"final/{name}" for name in NEWTON},
    "evaluation": {"*/histogram"},
    "intervals": {f"*/{name}" for name in ("pooled", "own", "num_patients")},
}


def test_these_names_leave_a_hospital_and_no_others(run: Run) -> None:
    sent: dict[str, set[str]] = {stage: set() for stage in WHAT_LEAVES}
    for path in (run.out / "state").glob("*.safetensors"):
        names = {name.removeprefix("sum/") for name in load_file(path) if name.startswith("sum/")}
        sent[path.stem.split("-")[1]] |= names
    for stage, names in sent.items():
        expected = WHAT_LEAVES[stage]
        assert all(any(fnmatch(name, pattern) for pattern in expected) for name in names), (stage, names)
        assert all(any(fnmatch(name, pattern) for name in names) for pattern in expected), (stage, names)


def test_a_study_needs_few_messages(run: Run) -> None:
    spent = run.study.encoders.num_rounds + run.study.attention.training.num_rounds
    assert len(run.watched.asked) <= spent + 24


@pytest.mark.usefixtures("without_references")
def test_fedprox_and_fedadam_give_other_weights_than_fedavg(sites: list[Path], tmp_path: Path) -> None:
    def first_means(strategy: StrategySpec) -> Model:
        out = tmp_path / strategy.name
        watched = Watched(simulated(sites, out))
        run_tiny(tiny_study(strategy=strategy), watched, out)
        return dict([request.model for request in watched.requests if request.stage == "encoders"][1])

    average = first_means(StrategySpec())
    for strategy in (StrategySpec("fedprox", proximal_mu=1.0), StrategySpec("fedadam", server_lr=0.02)):
        other = first_means(strategy)
        differences = [float(np.abs(other[name] - average[name]).max()) for name in average if "weight" in name]
        assert max(differences) > 1e-4, strategy.name


@pytest.mark.usefixtures("without_references")
def test_the_literal_reading_of_the_paper_runs(sites: list[Path], tmp_path: Path) -> None:
    study = tiny_study(
        logistic=LogisticSpec(inputs="probability"),
        evaluation=EvaluationSpec(num_bins=40, calibration="none"),
    )
    model = run_tiny(study, sites, tmp_path / "run")
    pairs = [value.tolist() for name, value in model.items() if name.startswith("calibration/")]
    assert pairs and all(pair == [1.0, 0.0] for pair in pairs)
    assert all(0.0 < value < 1.0 for value in model["background/ehr"])


@pytest.fixture(scope="module")
def plans(request: pytest.FixtureRequest) -> Iterator[Path]:
    yield request.config.rootpath / "site_configs/plans"


@pytest.mark.parametrize("name", ["default", "quick", "paper"])
def test_the_plans_load(plans: Path, name: str) -> None:
    study = load_plan(plans / f"{name}.yaml")
    assert study.name == name
    assert (study.logistic.inputs == "probability") == (study.evaluation.calibration == "none") == (name == "paper")


def test_a_census_with_too_few_patients_is_told_and_not_kept(tmp_path: Path) -> None:
    sites = [write_hospital(tmp_path, name, first_id=i * 1_000 + 1, ecg_share=0.0) for i, name in enumerate("ab")]
    told = (
        r"census needs sums of train/ecg from 1 sites at least .*, got 0 of 2\.\n  a has none of train/ecg\.\n  b has"
    )
    with pytest.raises(TooLittleDataError, match=told):
        run_tiny(tiny_study(), sites, tmp_path / "run")
    assert not list((tmp_path / "run/state").glob("*.safetensors")), "a resumed run asks again"
