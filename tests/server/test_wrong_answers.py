"""One hospital that errs: what it sends is held against what its stage declares, and is never added or kept."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from client.cohort.hospital import Hospital
from client.door import stages
from client.site import load_site
from lemof_model import lemof
from lemof_model.errors import AnswerError, DataError, ToldBeforeError
from lemof_model.logistic import LogisticSums, Newton
from lemof_model.stays import scaling_from
from lemof_model.study import EncoderSpec, StrategySpec, Study, TrainingSpec
from protocol.answering import Counted, check_answer
from protocol.messages import Answer, Refusal, Request
from protocol.release import MOST
from protocol.source import source_digest, versions
from server.aggregation import add
from server.coordinator import run_study
from server.report.page import write_report
from server.rounds import Rounds
from server.run_store import RunStore
from server.suspicion import apart, furthest
from simulation.local_transport import LocalTransport
from tests.hospitals import write_hospital
from tests.protocol.test_stages import every_request
from tests.studies import Watched, outcome, tiny_study

SITES, DELTA = "abc", 1e-5
Asked = list[tuple[Request, dict[str, Answer]]]


def study_of() -> Study:
    """One round of the smallest networks."""
    training = TrainingSpec(num_rounds=1, batch_size=16, client_lr=3e-3)
    study = tiny_study(ehr=EncoderSpec("mlp", {"width": 16}), encoders=training)
    return dataclasses.replace(study, attention=dataclasses.replace(study.attention, training=training))


@pytest.fixture(autouse=True, scope="module")
def _without_references() -> Iterator[None]:
    """Leave out each hospital's own references, which take time."""

    def nothing(hospital: Hospital) -> dict[str, Any]:
        return {name: np.full(len(hospital.stays.split_N), np.nan) for name in lemof.REFERENCES}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("client.door.view.reference_scores", nothing)
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three hospitals, and p, which has a privacy budget."""
    folder = tmp_path_factory.mktemp("hospitals")
    found = [write_hospital(folder, name, first_id=1_000 * i, seed=i) for i, name in enumerate(SITES, 1)]
    private = write_hospital(folder, "p", first_id=9_000, num_stays=300)
    site = yaml.safe_load(private.read_text())
    private.write_text(yaml.safe_dump({**site, "privacy": {"epsilon": 20.0, "delta": DELTA}}))
    return [*found, private]


@pytest.fixture(scope="module")
def asked(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """A request of every stage, and what each hospital answers."""
    found: Asked = []
    told = tmp_path_factory.mktemp("told")
    for number, request in enumerate(every_request(study_of()), 1):
        stated = dataclasses.replace(request, round=number, release=versions()["lemof"], source_digest=source_digest())
        answers = {f.parent.name: stages.answer(load_site(f), stated, told / f.parent.name) for f in files}
        assert all(isinstance(answer, Answer) for answer in answers.values()), answers
        found.append((stated, answers))  # type: ignore[arg-type]
    return found


def counted_of(asked: Asked) -> dict[str, Counted]:
    """What each hospital said at the census."""
    (_, census), *_ = asked
    return {s: Counted(a.counts, a.too_small, a.cohort_digest, a.delta) for s, a in census.items()}


def of_stage(asked: Asked, name: str, split: str = "") -> tuple[Request, dict[str, Answer]]:
    """The last request of a stage, or that of a split."""
    return next((r, a) for r, a in reversed(asked) if r.stage == name and split in ("", getattr(r, "split", "")))


def test_what_hospitals_send_is_what_their_stages_declare(asked: Asked) -> None:
    counted = counted_of(asked)
    for request, answers in asked:
        for site, answer in answers.items():
            check_answer(answer, request, counted[site] if request.stage != "census" else None)


# --- the faults that were found ---------------------------------------------------------------------------------------


def changed(answer: Answer, key: str, change: Callable[[Any], Any]) -> Answer:
    """The answer with some arrays changed: those whose names end so."""
    sums = {name: np.asarray(change(value)) if name.endswith(key) else value for name, value in answer.sums.items()}
    assert any(name.endswith(key) for name in sums), key
    return dataclasses.replace(answer, sums=sums)


CASES = {
    "weights x 1e9": ("encoders", "", lambda a: changed(a, "weight", lambda v: v * 1e9), "mean of e.*hold no number"),
    "weights x 100": ("encoders", "", lambda a: changed(a, "weight", lambda v: v * 100), "round of training can reach"),
    "negated weights": ("encoders", "", lambda a: changed(a, "weight", np.negative), "round of training can reach"),
    "Newton gradient + 1e6": ("meta", "", lambda a: changed(a, "gradient", lambda v: v + 1e6), "gradient must be what"),
    "a negated Hessian": ("final", "", lambda a: changed(a, "hessian", np.negative), "no negative eigenvalue"),
    "a Hessian that is not symmetric": (
        "attention", "", lambda a: changed(a, "hessian", lambda v: v + np.triu(v, 1)), "hessian must be symmetric"),
    "importance [0, 0, 1e9]": (
        "importance", "", lambda a: changed(a, "abs_shap", lambda v: np.array([0.0, 0.0, 1e9])), "abs_shap must be"),
    "histograms x 1000": (
        "evaluation", "held_out", lambda a: changed(a, "histogram", lambda v: v * 1000), "histogram must count each"),
    "histograms of fewer stays": (
        "evaluation", "tuning", lambda a: changed(a, "histogram", lambda v: v * 0), "histogram must count every stay"),
    "a tuning loss of -1e9": ("encoders", "", lambda a: changed(a, "loss", lambda v: v * 0 - 1e9), "loss must be what"),
    "a scalar for a matrix": (
        "meta", "", lambda a: changed(a, "ecg/hessian", lambda v: np.asarray(v[0, 0])), r"shape \(4, 4\), got float64"),
    "a scalar for weights": (
        "encoders", "", lambda a: changed(a, "weight", lambda v: np.asarray(1.0)), "must bring e.*as float64 of shape"),
    "NaN": ("statistics", "", lambda a: changed(a, "x2", lambda v: v * np.nan), "must bring finite numbers up to"),
    "squares that are too small": (
        "statistics", "", lambda a: changed(a, "x2", lambda v: v / 1e6), "x2 must not be too small for x"),
    "sums of placements x 1000": (
        "intervals", "", lambda a: changed(a, "pooled", lambda v: v * 1000), "pooled must be what its stays can add"),
    "patients that are none": (
        "intervals", "", lambda a: changed(a, "num_patients", lambda v: v * 0), "num_patients must count patients"),
    "an array is missing": (
        "meta", "", lambda a: dataclasses.replace(a, sums={k: v for k, v in a.sums.items() if "loss" not in k}),
        "must bring every listed array, got none of ecg/loss"),
    "more stays than at the census": (
        "final", "", lambda a: dataclasses.replace(a, counts={"final": 10_000}), "no more stays of final than the"),
    "a later delta": ("meta", "", lambda a: dataclasses.replace(a, delta=1e-5, epsilon=1.0), "fixed at the census"),
}  # fmt: skip


class Told:
    """Hospitals that answer what they are told to."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = answers

    def sites(self) -> list[str]:
        return sorted(self.answers)

    def ask(self, stage: str, requests: Mapping[str, Request]) -> dict[str, Answer | Refusal]:
        return {site: self.answers[site] for site in requests}


def asking(asked: Asked, request: Request, answers: Mapping[str, Answer], folder: Path) -> Any:
    """The round that a coordinator makes of some answers."""
    store = RunStore(folder)
    store.begin(request.study, "")
    rounds = Rounds(request.study, Told(answers), store)
    rounds.counted, rounds._number = counted_of(asked), request.round - 1
    known = ("study", "round", "num_sites", "run", "release", "source_digest", "wire_version")
    fields = {f.name: getattr(request, f.name) for f in dataclasses.fields(request) if f.name not in known}
    return rounds.ask(type(request), sites=sorted(answers), keep_sites=True, **fields)


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_answer_is_that_hospitals_refusal_of_the_round(asked: Asked, tmp_path: Path, name: str) -> None:
    stage, split, wrong, rule = CASES[name]
    request, answers = of_stage(asked, stage, split)
    given = {site: wrong(answers[site]) if site == "b" else answers[site] for site in SITES}
    found = asking(asked, request, given, tmp_path)
    assert found.answered() == ["a", "c"]
    refused = found.sites["b"].refused
    assert re.search(rule, refused) and "from b. Nothing of the answer was used" in refused
    sums, counts = add([answers["a"], answers["c"]])
    assert found.counts == counts
    for key, value in sums.items():
        np.testing.assert_array_equal(found.sums[key], value)
    assert "b" in json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[-1])["refused"]


@pytest.mark.parametrize(
    ("stage", "key", "change", "rule"),
    [
        ("meta", "gradient", lambda v: v + 1e9, "within what clipping and noise allow"),
        ("meta", "noise", np.negative, "variances of one multiplier"),
        ("meta", "noise", lambda v: v * 0, "variances of one multiplier"),
        ("meta", "hessian", lambda v: v + np.triu(v, 1), "hessian must be symmetric"),
        ("encoders", "loss", lambda v: v - 1e9, "within what clipping and noise allow"),
        ("encoders", "weight", lambda v: v * 1e9, "within what clipping and noise allow"),
        ("importance", "abs_shap", lambda v: v + 1e9, "within what clipping and noise allow"),
        ("evaluation", "histogram", lambda v: v * 1e9, "within what clipping and noise allow"),
        ("evaluation", "all/0/histogram", lambda v: v + 1.0, "histogram must hold noisy scores alone"),
        ("intervals", "noise", np.negative, "noise must be a variance"),
        ("intervals", "noise", lambda v: v * 0, "noise must be a variance"),
        ("intervals", "pooled", lambda v: v + 1.0, "pooled must hold noisy sums alone"),
    ],
)  # fmt: skip
def test_with_a_budget_sums_are_held_to_clipping_and_the_most_noise_there_may_be(
    asked: Asked, stage: str, key: str, change: Callable[[Any], Any], rule: str
) -> None:
    request, answers = of_stage(asked, stage)
    with pytest.raises(AnswerError, match=rule):
        check_answer(changed(answers["p"], key, change), request, counted_of(asked)["p"])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_weights_reach_as_far_as_the_steps_of_a_round(
    asked: Asked, files: list[Path], optimizer: Any, mu: float
) -> None:
    request, _ = of_stage(asked, "encoders")
    training = TrainingSpec(num_rounds=1, num_epochs=3, batch_size=8, client_lr=0.5, optimizer=optimizer)
    strategy = StrategySpec("fedprox", mu) if mu else StrategySpec()
    study = dataclasses.replace(request.study, encoders=training, strategy=strategy)
    request = dataclasses.replace(request, study=study)
    answer = stages.answer(load_site(files[0]), request)
    assert isinstance(answer, Answer)
    check_answer(answer, request)
    with pytest.raises(AnswerError, match=r"mean of e.*must be what a round of training can reach, got other sums"):
        check_answer(changed(answer, "weight", lambda v: v * 30), request)
    unbounded = dataclasses.replace(training, optimizer="sgd", max_grad_norm=0.0)
    request = dataclasses.replace(request, study=dataclasses.replace(study, encoders=unbounded))
    check_answer(changed(answer, "weight", lambda v: v * 30), request)


def test_a_budget_that_is_no_longer_told_of_is_refused(asked: Asked) -> None:
    request, answers = of_stage(asked, "meta")
    changes: list[dict[str, Any]] = [{"delta": 0.0, "epsilon": 0.0}, {"delta": 1e-3}]
    for change in changes:
        with pytest.raises(AnswerError, match=r"fixed at the census, got another delta in meta from p\. .* new run"):
            check_answer(dataclasses.replace(answers["p"], **change), request, counted_of(asked)["p"])


def test_of_a_group_that_the_census_held_back_only_its_whole_is_a_measure(asked: Asked) -> None:
    request, answers = of_stage(asked, "encoders")
    known = counted_of(asked)["p"]
    held_back = {group for group in known.counts if group.startswith(("tuning", "stack"))}
    told = {group: n for group, n in known.counts.items() if group not in held_back}
    counted = dataclasses.replace(known, counts=told, too_small=(*known.too_small, *held_back))
    sgd = dataclasses.replace(request.study.encoders, optimizer="sgd")
    study = dataclasses.replace(request.study, encoders=sgd, attention=dataclasses.replace(
        request.study.attention, training=sgd))  # fmt: skip
    for stage in ("encoders", "attention"):
        request, answers = of_stage(asked, stage)
        losses = {key: value for key, value in answers["p"].sums.items() if key.startswith("tuning/")}
        counts = {group: n for group, n in answers["p"].counts.items() if group.startswith("tuning/")}
        check_answer(dataclasses.replace(answers["p"], sums=losses, counts=counts),
                     dataclasses.replace(request, study=study), counted)  # fmt: skip
    assert counted.most("tuning/ehr/0") == 2**31 - 1 and known.most("tuning/ehr/0") == known.counts["tuning/ehr/0"]
    assert dataclasses.replace(counted, too_small=()).most("tuning/ehr") == 0


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"train/ehr": 10_000}, "stays of train/ehr must be those of its outcomes together"),
        ({"train/ehr": -1}, "train/ehr in one whole number"),
        ({"tuning/ecg": 60, "tuning/ecg/0": 30, "tuning/ecg/1": 30}, "tuning/ecg must be no more than of tuning/ehr"),
        ({"patients": 12}, "listed groups only, got 'patients' from a"),
    ],
)
def test_a_census_must_add_up(asked: Asked, change: dict[str, int], rule: str) -> None:
    (request, answers), *_ = asked
    with pytest.raises(AnswerError, match=rule):
        check_answer(dataclasses.replace(answers["a"], counts={**answers["a"].counts, **change}), request)


# --- a study with such a hospital -------------------------------------------------------------------------------------


class Erring(Watched):
    """Hospitals that send something else in one stage."""

    def __init__(self, inner: Any, sites: str, stage: str, wrong: Callable[[Answer], Answer]) -> None:
        super().__init__(inner)
        self.erring, self.stage, self.wrong = sites, stage, wrong

    def instead(self, site: str, answer: Answer | Refusal) -> Answer | Refusal:
        errs = site in self.erring and answer.stage == self.stage and isinstance(answer, Answer)
        return self.wrong(answer) if errs else answer  # type: ignore[arg-type]


def test_a_study_goes_on_without_the_hospital_and_after_it_was_mended(files: list[Path], tmp_path: Path) -> None:
    """Two of three err: too few are left, the round is not kept, and the same command goes on when they are mended."""
    study, wrong = study_of(), CASES["Newton gradient + 1e6"][2]

    def hospitals(run: str) -> LocalTransport:
        return LocalTransport(files[:3], memory=tmp_path / "told" / run)

    with pytest.raises(DataError, match=r"(?s)meta needs answers from 2 sites at least \(min_sites\), got 1 of 3.*"
                       "b: meta: ecg/gradient must be what its stays can add up to.*with --resume"):  # fmt: skip
        run_study(study, Erring(hospitals("stopped"), "bc", "meta", wrong), RunStore(tmp_path / "stopped"))
    kept = sorted(path.name.split("-")[1] for path in (tmp_path / "stopped/state").glob("*.safetensors"))
    assert kept == ["census.safetensors", "encoders.safetensors", "encoders.safetensors", "statistics.safetensors"]
    run_study(study, hospitals("stopped"), RunStore(tmp_path / "stopped", resume=True))
    run_study(study, hospitals("whole"), RunStore(tmp_path / "whole"))
    assert outcome(tmp_path / "stopped", "rounds.csv") == outcome(tmp_path / "whole", "rounds.csv")

    model = run_study(study, Erring(hospitals("without"), "b", "meta", wrong), RunStore(tmp_path / "without"))
    assert all(np.isfinite(value).all() for value in model.values())
    notes = json.loads((tmp_path / "without/model/card.json").read_text())["stages"]
    assert notes["meta/ecg"]["sites"] == ["a", "c"] and notes["final"]["sites"] == ["a", "b", "c"]


class Turned(Watched):
    """Hospital b walks away from where training leads, within what a round can reach."""

    def instead(self, site: str, answer: Answer | Refusal) -> Answer | Refusal:
        if site != "b" or answer.stage != "encoders" or isinstance(answer, Refusal):
            return answer
        came, sums = self.requests[-1].model, dict(answer.sums)
        for key in (key for key in sums if key.startswith("ehr/weights/")):
            before = answer.counts["ehr"] * came[key.replace("/weights/", "/", 1)]
            sums[key] = before - 4.0 * (sums[key] - before)
        return dataclasses.replace(answer, sums=sums)


def test_who_stood_furthest_from_the_others_is_named_where_the_loss_jumps(
    files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    at_once: dict[str, Any] = {"num_rounds": 1, "warmup_rounds": 0, "final_lr_share": 1.0}
    training = TrainingSpec(**at_once, num_epochs=3, batch_size=16, client_lr=0.2)
    study = dataclasses.replace(study_of(), encoders=training)
    run_study(study, LocalTransport(files[:3], memory=tmp_path / "1"), RunStore(tmp_path / "honest"))
    assert "suspicion" not in (tmp_path / "honest/model/card.json").read_text()

    out = tmp_path / "turned"
    run_study(study, Turned(LocalTransport(files[:3], memory=tmp_path / "2")), RunStore(out))
    notes = json.loads((out / "model/card.json").read_text())["stages"]
    (found,) = notes["ehr"]["suspicions"]
    assert (found["round"], found["site"]) == (1, "b") and found["times"] > 3
    assert "suspicions" not in notes["ecg"]
    assert "of b was furthest from the others' mean" in caplog.text and " b did not answer" not in caplog.text
    write_report(out)
    assert "EHR encoder, round 1: b, whose update was" in (out / "report.html").read_text(encoding="utf-8")
    run_study(study, Turned(LocalTransport(files[:3], memory=tmp_path / "2")), RunStore(out, resume=True))
    assert json.loads((out / "model/card.json").read_text())["stages"] == notes, "read from disk it is the same"


@pytest.mark.parametrize("wrong", [-1.0, 40.0, 0.0])
def test_a_site_stands_apart_by_the_length_or_the_direction_of_its_update(wrong: float) -> None:
    rng = np.random.default_rng(0)
    came, way = {"w": rng.normal(size=50).astype(np.float32)}, rng.normal(size=50)
    answers = []
    for site, num in (("a", 30), ("b", 50), ("c", 40), ("d", 35)):
        update = (way if site != "c" else wrong * way) + 0.2 * rng.normal(size=50)
        sums = {"ehr/weights/w": num * (came["w"] + update)}
        answers.append(Answer(stage="encoders", round=1, site=site, plan_digest="", sums=sums, counts={"ehr": num}))
    stood = apart("ehr", came, answers)
    assert furthest(stood) == "c" and set(stood) == set("abcd")
    if wrong:
        assert stood["c"].cosine * wrong > 0.8 and stood["c"].times == pytest.approx(abs(wrong), rel=0.1)
    assert apart("ehr", came, answers[:2]) == {}


# --- 300 mutated answers, 300 mutated requests ------------------------------------------------------------------------


ODD = st.sampled_from([0.0, -1.0, 1e3, -1e3, 1e9, 1e300, -1e300, 0.999, 1.001, np.nan, np.inf, -np.inf])


def bent(value: Any, how: int, odd: float, place: int) -> Any:
    """An array that is not what it was."""
    with np.errstate(all="ignore"):
        if how == 0:
            return value * odd
        if how == 1:
            return value + odd
        if how == 2 and value.size:
            copy = np.array(value, np.float64)
            copy.flat[place % copy.size] = odd
            return copy.astype(value.dtype) if np.isfinite(odd) and abs(odd) < 2**31 else copy
        forms = [value.reshape(-1), np.asarray(odd), value[..., None], value.astype(np.float32), value.astype(bool),
                 value.astype(object), value.astype(str), value.T + 0, value[::-1] if value.ndim else value, None,
                 value.astype(complex), np.zeros((0,)), value.tolist()]  # fmt: skip
        return forms[place % len(forms)]


@st.composite
def mutations(draw: Any) -> Callable[[Any], Any]:
    """Something that is done to a message."""
    kind, place, how, odd = draw(st.integers(0, 9)), draw(st.integers(0, 10_000)), draw(st.integers(0, 3)), draw(ODD)

    def arrays_of(arrays: Mapping[str, Any]) -> dict[str, Any]:
        names = sorted(arrays)
        if not names:
            return {"stray": np.zeros(3)}
        name = names[place % len(names)]
        if kind == 0:
            return {key: value for key, value in arrays.items() if key != name}
        if kind == 1:
            return {**arrays, ("stray", "", "ehr", "ehr/", f"{name}/x")[place % 5]: np.zeros(3)}
        return {**arrays, name: bent(arrays[name], how, odd, place)}

    def of_answer(answer: Answer) -> Answer:
        if kind <= 5 or not answer.counts:
            return dataclasses.replace(answer, sums=arrays_of(answer.sums))
        group = sorted(answer.counts)[place % len(answer.counts)]
        if kind == 6:
            num = answer.counts[group]
            values: tuple[Any, ...] = (-1, 0, 1, num + 1, num * 1000, 2**40, 2.5, True, "7", None)
            return dataclasses.replace(answer, counts={**answer.counts, group: values[place % len(values)]})
        if kind == 7:
            left_out = ((group,), ("stray",), (group, group), (7,), (["x"],))
            return dataclasses.replace(answer, too_small=(*answer.too_small, *left_out[place % 5]))
        if kind == 8:
            return dataclasses.replace(answer, delta=odd, epsilon=abs(odd))
        counts = {key: n for key, n in answer.counts.items() if key != group}
        return dataclasses.replace(answer, counts=counts)

    def of_request(request: Any) -> Any:
        if kind <= 5:
            model = {key: np.asarray(value) for key, value in arrays_of(request.model).items()}  # as they travel
            return dataclasses.replace(request, model=model)
        fields = [f.name for f in dataclasses.fields(request) if f.name not in ("study", "model")]
        name = fields[place % len(fields)]
        numbers, words = (-1, 0, 1, 2, 10**6, 2**31, 2**63, -(2**40)), ("", "ehr", "ehr ehr", "x", "tuning", "\n")
        odd_ones: tuple[Any, ...] = numbers if isinstance(getattr(request, name), int) else words
        return dataclasses.replace(request, **{name: odd_ones[place % len(odd_ones)]})

    return lambda message: of_answer(message) if isinstance(message, Answer) else of_request(message)


def stated_bounds(answer: Answer, before: Answer, counted: Counted) -> None:
    """What an answer that was taken must still be, written out once more."""
    assert answer.delta == before.delta
    assert set(answer.sums) == {key for key in before.sums if any(key.startswith(f"{g}/") for g in answer.counts)}
    for key, value in answer.sums.items():
        assert value.shape == before.sums[key].shape and np.isfinite(value).all(), key
        group = group_of(key, answer.counts)
        num, name = answer.counts[group], key.removeprefix(f"{group}/")
        assert isinstance(num, int) and 0 <= num <= max(counted.counts.values())
        if name.startswith("weights/"):
            assert np.abs(value / max(num, 1)).max() <= MOST
        if answer.delta:
            assert np.linalg.norm(value) < 1e9 * max(num, 1)
            continue
        if name in ("loss", "abs_shap", "num_present", "x2", "num_errors", "histogram"):
            assert (value >= -1e-6).all(), key
        if name == "histogram":
            assert (value.reshape(-1, value.shape[-1]).sum(axis=1) <= num).all()
        if name in ("gradient", "inputs"):
            assert np.abs(value).max() <= 8.0 * num * (1 + 1e-6)
        if name == "hessian":
            assert np.linalg.eigvalsh(value).min() >= -1e-9 * np.trace(value) and np.trace(value) >= 0


def next_model(request: Request, sums: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    """What the coordinator makes of a round's totals: means, scales, and Newton's steps."""
    found: dict[str, Any] = {key: value / max(counts[group_of(key, counts)], 1) for key, value in sums.items()}
    if request.stage == "statistics":
        found |= scaling_from({key.removeprefix("ehr/"): value for key, value in sums.items()})
    for group in (key.removesuffix("/gradient") for key in sums if key.endswith("/gradient")):
        theta = request.model[f"meta/{group}" if request.stage == "meta" else group]
        deviation = np.sqrt(sums.get(f"{group}/noise", np.zeros(2)))
        total = LogisticSums(*(sums[f"{group}/{name}"] for name in LogisticSums._fields))
        search = Newton(theta, ridge=1.0)
        found[group] = (search.advance_noisy(total, *deviation) if deviation.any() else search.advance(total)).theta
    return found


def group_of(key: str, counts: Mapping[str, int]) -> str:
    """The group of an array."""
    return max((group for group in counts if key.startswith(f"{group}/")), key=len)


def test_no_mutated_answer_is_taken_in_silence_or_ends_in_a_traceback(asked: Asked) -> None:
    counted, taken = counted_of(asked), [0, 0]

    @settings(max_examples=300, derandomize=True, deadline=None, database=None)
    @given(st.integers(1, len(asked) - 1), st.sampled_from([*SITES, "p"]), mutations())
    def mutated(number: int, site: str, mutation: Callable[[Any], Any]) -> None:
        request, answers = asked[number]
        answer = mutation(answers[site])
        taken[0] += 1
        try:
            check_answer(answer, request, counted[site])
        except AnswerError as error:
            assert error.rule and error.got.endswith(f"from {site}") and error.fix
            return
        taken[1] += 1
        stated_bounds(answer, answers[site], counted[site])
        total = add([answer, *(answers[other] for other in SITES if other != site)])
        assert all(np.isfinite(value).all() for value in next_model(request, *total).values())

    mutated()
    assert taken[0] >= 300 and taken[1] < taken[0] / 3, taken


def test_no_mutated_request_ends_in_a_traceback_or_an_answer_that_is_not_as_declared(
    asked: Asked, files: list[Path], tmp_path: Path
) -> None:
    site = load_site(files[0])
    tried = [0, 0]

    @settings(max_examples=300, derandomize=True, deadline=None, database=None)
    @given(st.integers(0, len(asked) - 1), mutations())
    def mutated(number: int, mutation: Callable[[Any], Any]) -> None:
        request = mutation(asked[number][0])
        tried[0] += 1
        answer = stages.answer(site, request, tmp_path)
        if isinstance(answer, Answer):
            tried[1] += 1
            check_answer(answer, request, counted_of(asked)["a"] if request.stage != "census" else None)
        else:
            assert ", got " in answer.reason or answer.reason == ToldBeforeError.told_outside
            assert "must" in answer.reason

    mutated()
    assert tried[0] >= 300 and 0 < tried[1] < tried[0], tried
