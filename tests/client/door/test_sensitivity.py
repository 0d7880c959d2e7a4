"""What one patient can change in a release, measured: a hospital with and without that patient and all their stays.

The noise is taken away and what would have been made noisy is kept. Three things must hold, for patients of all splits:
no release moves by more than the sensitivity that its noise is scaled by; releases about other splits do not move (so
they compose in parallel); and nothing but what gets noise depends on the patient.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from client.budget import accounting
from client.budget.accounting import Budget, Schedule
from client.budget.noise import Noise
from client.cohort.hospital import Hospital, open_hospital
from client.door import budgeted
from client.door.view import HospitalView
from client.site import load_site
from lemof_model import lemof
from lemof_model.splits import fold_of, patient_hash_of, split_of
from lemof_model.study import MODALITIES, SPLITS, EncoderSpec, Study, TrainingSpec
from protocol.kinds import RADIUS
from protocol.messages import EncodersRequest, EvaluationRequest, Request, StatisticsRequest
from protocol.release import Share
from protocol.stages import STAGES as DECLARED
from server.blocks import Model
from tests.hospitals import write_hospital
from tests.inputs import ill_conditioned
from tests.protocol.test_stages import every_request
from tests.studies import tiny_study

NUM_STAYS = 70
PATIENTS_PER_SPLIT = 3
ROUNDING = 1e-9
"""Of a sum in float64 over one stay more; what the others add to it keeps its bits (docs/decisions/0022)."""

BUDGET = Budget(8.0, 1e-5, 8.0)
SPLIT_COUNTS = [f"{split}/{modality}" for split in SPLITS for modality in MODALITIES]


class Empty:
    """No noise, and Poisson samples of nobody."""

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        return np.zeros(shape)

    def bernoulli(self, q: float, n: int) -> NDArray[np.bool_]:
        return np.zeros(n, bool)


class Everybody(Empty):
    """No noise, and Poisson samples of everybody."""

    def bernoulli(self, q: float, n: int) -> NDArray[np.bool_]:
        return np.ones(n, bool)


class Release(NamedTuple):
    """A vector on its way to its noise."""

    split: str
    name: str
    value: NDArray[np.float64]
    sensitivity: float


class Kept(Noise):
    """Keeps what comes to be made noisy and hands on zeros: what then leaves must not know the patient."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule, Empty())  # type: ignore[arg-type]
        self.releases: list[Release] = []

    def vector(self, share: Share, value: NDArray[np.float64], *, sensitivity: float) -> NDArray[np.float64]:
        self.releases.append(Release(share.split, share.name, np.array(value), sensitivity))
        return super().vector(share, np.zeros(np.shape(value)), sensitivity=sensitivity)

    def symmetric(self, share: Share, value_PP: NDArray[np.float64], *, sensitivity: float) -> NDArray[np.float64]:
        self.releases.append(Release(share.split, f"{share.name} Hessian", np.array(value_PP), sensitivity))
        return super().symmetric(share, np.zeros(value_PP.shape), sensitivity=sensitivity)


def hospital_without(folder: Path, patient: int, study: Study) -> Hospital:
    """The hospital under a budget, as it is read from its files; without a patient, unless that is 0."""
    site = write_hospital(folder, f"without_{patient}", num_stays=NUM_STAYS, without=patient)
    config = yaml.safe_load(site.read_text()) | {"privacy": {"epsilon": BUDGET.epsilon, "delta": BUDGET.delta}}
    site.write_text(yaml.safe_dump(config))
    return dataclasses.replace(open_hospital(load_site(site), study), name="hospital")


def schedule_for(study: Study) -> Schedule:
    """A plan of noise with made-up counts: the same for neighbours, as a released census is."""
    nothing = accounting.no_curves()
    planned = accounting.schedule(study, BUDGET, before=nothing, own=nothing)
    counts = {f"{s}/{m}{label}": 16 for s in SPLITS for m in MODALITIES for label in ("", "/0", "/1")}
    return accounting.with_counts(planned, study, BUDGET, counts, before=nothing, own=nothing)


def plan_shaped(model: Model) -> Model:
    """Networks whose log-odds are what rounding leaves: a lying coordinator's, to see who else is in a batch."""
    networks = {name: value for name, value in model.items() if name.startswith(("ecg/", "ehr/", "attention/"))}
    return {**model, **ill_conditioned(networks)}


def steep(model: Model) -> Model:
    """Heads so steep that log-odds reach their limits: rows are longer than R, losses larger than their limit."""
    return {name: 50.0 * value if ".output." in name or "heads." in name else value for name, value in model.items()}


@pytest.fixture(scope="module")
def study() -> Study:
    return tiny_study()


@pytest.fixture(scope="module")
def requests(study: Study) -> list[Request]:
    asked = list(every_request(study))
    return [dataclasses.replace(request, model=steep(dict(request.model))) for request in asked]


def releases_of(
    hospital: Hospital, requests: list[Request], schedule: Schedule
) -> tuple[list[Release], list[dict[str, Any]]]:
    """All that gets noise over a whole study, and all that would leave with these parts taken out."""
    kept, left = [], []
    for request in requests:
        noise = Kept(schedule)
        for group in budgeted.groups_of(hospital, request, noise):
            left.append({"name": group.name, "n": group.public, **group.sums})
        kept += noise.releases
    return kept, left


@pytest.fixture(scope="module")
def everybody(tmp_path_factory: pytest.TempPathFactory, study: Study) -> Hospital:
    return hospital_without(tmp_path_factory.mktemp("everybody"), 0, study)


def patients_of(study: Study, split: str) -> Iterator[int]:
    """Some patients of a split; those with several stays, and of stack those of both folds, come first."""
    numbers = np.arange(1, 1 + NUM_STAYS * 19 // 20)
    hashes = np.array([patient_hash_of(int(n)) for n in numbers], np.uint64)
    mine = numbers[split_of(hashes, study.splits) == SPLITS.index(split)]
    several = [int(n) for n in mine if (n - 1) % 19 == 0]
    others = [int(n) for n in mine if n not in several]
    yield from (several + others)[:PATIENTS_PER_SPLIT]


def test_a_patient_of_train_moves_no_other_split_under_weights_made_for_it(
    everybody: Hospital, requests: list[Request], study: Study, tmp_path: Path
) -> None:
    """With inference in batches over all splits, such weights made rounding into log-odds of +-8."""
    shaped = [dataclasses.replace(request, model=plan_shaped(dict(request.model))) for request in requests]
    with_patient, _ = releases_of(everybody, shaped, schedule_for(study))
    for patient in patients_of(study, "train"):
        without_patient, _ = releases_of(hospital_without(tmp_path, patient, study), shaped, schedule_for(study))
        for one, other in zip(with_patient, without_patient, strict=True):
            same = one.split == "train" or one.value.tobytes() == other.value.tobytes()
            assert same, f"{one.split}/{one.name} moved with a patient of train"


@pytest.mark.parametrize("split", SPLITS)
def test_no_patient_moves_a_release_by_more_than_its_stated_sensitivity(
    split: str, everybody: Hospital, requests: list[Request], study: Study, tmp_path: Path
) -> None:
    schedule = schedule_for(study)
    with_patient, left = releases_of(everybody, requests, schedule)
    assert {release.split for release in with_patient} == set(SPLITS)
    largest: dict[str, float] = {}
    for patient in patients_of(study, split):
        neighbour = hospital_without(tmp_path, patient, study)
        assert len(everybody.stays.split_N) - len(neighbour.stays.split_N) == 1, "one stay of a patient counts"
        without_patient, left_without = releases_of(neighbour, requests, schedule)
        for one, other in zip(with_patient, without_patient, strict=True):
            assert (one.split, one.name, one.sensitivity) == (other.split, other.name, other.sensitivity)
            moved = float(np.linalg.norm(one.value - other.value))
            if one.split != split:
                same = one.value.tobytes() == other.value.tobytes()
                assert same, f"{one.split}/{one.name} moved with a patient of {split}"
            assert moved <= one.sensitivity * (1 + ROUNDING), f"{one.split}/{one.name}"
            if one.split == split:
                largest[one.name] = max(largest.get(one.name, 0.0), moved / one.sensitivity)
        for before, after in zip(left, left_without, strict=True):
            assert before.keys() == after.keys()
            for key, value in before.items():
                np.testing.assert_array_equal(value, after[key], err_msg=f"{before['name']} {key}")
    # the bounds are not idle: counts and histograms reach theirs, the others come near
    tight = {"census": 0.7, "losses": 0.7, "evaluation": 0.7, "membership": 1.0}
    assert largest.keys() == {release.name for release in with_patient if release.split == split}
    for name, share in largest.items():
        assert share >= tight.get(name, 0.02) - 1e-9, (name, share)


def test_a_patient_of_one_fold_does_not_move_the_head_of_the_other(
    everybody: Hospital, requests: list[Request], study: Study, tmp_path: Path
) -> None:
    """Each head is charged to its own fold alone."""
    (request,) = (request for request in requests if request.stage == "attention")
    schedule = schedule_for(study)

    def head(hospital: Hospital, fold: int) -> NDArray[np.float64]:
        noise = Noise(schedule, Everybody())  # type: ignore[arg-type]
        groups = budgeted.groups_of(hospital, request, noise)
        (mine,) = (group for group in groups if group.name == f"attention/{fold}")
        charged = [charge.split for charge in noise.charges if charge.mechanism == "subsampled_gaussian"]
        assert charged == ["stack/0", "stack/1"]
        return np.concatenate([np.ravel(value) for value in mine.sums.values()])

    for patient in list(patients_of(study, "stack"))[:2]:
        fold = int(fold_of(np.array([patient_hash_of(patient)], np.uint64), study.splits.salt)[0])
        neighbour = hospital_without(tmp_path, patient, study)
        np.testing.assert_allclose(head(everybody, 1 - fold), head(neighbour, 1 - fold), rtol=0, atol=1e-5)
        assert np.abs(head(everybody, fold) - head(neighbour, fold)).max() > 1e-3


def test_one_step_of_dp_sgd_moves_by_the_clip_at_most(everybody: Hospital, tmp_path: Path) -> None:
    """Plain gradient descent over a sample of everybody: the step tells the clipped sum of both networks."""
    lr, clip, batch = 0.5, 0.7, 64
    spec = TrainingSpec(
        num_rounds=2, batch_size=batch, optimizer="sgd", client_lr=lr, warmup_rounds=0, final_lr_share=1.0,
        weight_decay=0.0, max_grad_norm=clip,
    )  # fmt: skip
    study = tiny_study(
        encoders=spec, ecg=EncoderSpec("resnet", {"width": 8, "num_tokens": 4, "dropout": 0, "augment": 0})
    )
    (request,) = (request for request in every_request(study) if isinstance(request, EncodersRequest))
    schedule = schedule_for(study)
    assert (schedule.sgd["encoders"].sample_rate, schedule.sgd["encoders"].steps) == (1.0, 1)

    def clipped_sum(hospital: Hospital) -> NDArray[np.float64]:
        noise = Noise(schedule, Everybody())  # type: ignore[arg-type]
        groups = {g.name: g for g in budgeted.groups_of(hospital, request, noise)}
        steps = []
        for modality in MODALITIES:
            start = lemof.part(request.model, modality)
            factor = lemof.network(study, modality, request.model).encoder.lr_factor
            for name, value in groups[modality].sums.items():
                moved = start[name.removeprefix("weights/")] - value / groups[modality].num_stays
                steps.append(np.ravel(moved) / (lr * factor))
        return np.concatenate(steps) * schedule.counts["train/ehr"]

    whole = clipped_sum(dataclasses.replace(everybody, study=study))
    moves = []
    for patient in patients_of(study, "train"):
        neighbour = dataclasses.replace(hospital_without(tmp_path, patient, tiny_study()), study=study)
        moves.append(float(np.linalg.norm(whole - clipped_sum(neighbour))))
    assert max(moves) <= clip * (1 + 1e-3), moves
    assert max(moves) > 0.95 * clip, "the first gradients are longer than the clip"


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_what_leaves_is_within_the_norms_of_the_door(everybody: Hospital, optimizer: Any) -> None:
    """With true noise, over a whole study; what such a hospital never sends has no norm at all."""
    spec = TrainingSpec(num_rounds=2, batch_size=16, client_lr=3e-3, optimizer=optimizer)
    study = tiny_study(encoders=spec)
    hospital, schedule = dataclasses.replace(everybody, study=study), schedule_for(study)
    schedule = dataclasses.replace(schedule, counts=schedule.counts | dict.fromkeys(SPLIT_COUNTS, 20))
    for request in every_request(study):
        most = budgeted.norms_of(request, Noise(schedule))
        for group in budgeted.groups_of(hospital, request, Noise(schedule)):
            for name, value in group.sums.items():
                norm, key = float(np.linalg.norm(np.ravel(value))), f"{group.name}/{name}"
                assert norm <= most[key], (request.stage, key)
                assert most[key] < 1e6, (request.stage, key)
    statistics = budgeted.norms_of(StatisticsRequest(study=study, round=1), Noise(schedule))
    held_out = budgeted.norms_of(EvaluationRequest(study=study, round=1, split="held_out"), Noise(schedule))
    assert statistics == {} and not [key for key in held_out if "disease" in key]


def test_the_norms_of_the_door_are_not_idle(everybody: Hospital, study: Study) -> None:
    """What leaves comes within 500 times of its norm in one of three draws: one that is a thousand times too wide would
    let a sum out that was never clipped."""
    hospital, schedule = dataclasses.replace(everybody, study=study), schedule_for(study)
    for request in every_request(study):
        most, seen = budgeted.norms_of(request, Noise(schedule)), dict[str, float]()
        for group in (group for _ in range(3) for group in budgeted.groups_of(hospital, request, Noise(schedule))):
            for name, value in group.sums.items():
                key = f"{group.name}/{name}"
                seen[key] = max(seen.get(key, 0.0), float(np.linalg.norm(np.ravel(value))))
        idle = [key for key, norm in seen.items() if most[key] > 500 * norm]
        assert not idle, f"{request.stage}: norms that hold nothing back: {idle}"


def test_the_radius_is_that_of_the_rows_with_their_one() -> None:
    """R^2/4 is the largest p (1 - p) |[x, 1]|^2, and R the largest |p - y| |[x, 1]|: stated here once more."""
    x = np.sqrt(RADIUS**2 - 1.0)
    row = np.array([x, 1.0])
    assert np.linalg.norm(row) == pytest.approx(RADIUS)
    assert np.linalg.norm(0.25 * np.outer(row, row)) == pytest.approx(RADIUS**2 / 4)


def test_a_stay_adds_one_to_each_difference_of_placements_at_most(everybody: Hospital, study: Study) -> None:
    """Scores at the ends of the scale, and tables as steep as they can be: the bound is reached, and held."""
    (request,) = (request for request in every_request(study) if request.stage == "intervals")
    shape = request.model["placement/all"].shape
    steep_tables = np.stack([np.zeros(shape[1:]), np.ones(shape[1:])])
    steep_tables[1, :, : shape[2] // 2] = 0.0
    tables = {f"placement/{p}": steep_tables for p in lemof.POPULATIONS}
    aurocs = np.full(shape[1], 0.5)
    aurocs[lemof.SCORED.index("full")] = 0.0
    request = dataclasses.replace(request, model={**request.model, **tables, "auroc/all": aurocs})
    rows = everybody.stays.rows("held_out")
    scores = {name: np.full(len(rows), 8.0 if name == "full" else -8.0) for name in lemof.VARIANTS}
    view = HospitalView(everybody, request, is_private=True)
    view.scores = lambda split: scores  # type: ignore[method-assign]
    noise = Kept(schedule_for(study))
    DECLARED["intervals"].noisy(view, noise)
    (released,) = noise.releases
    num_long = int(everybody.stays.long_stay_N[rows].sum())
    of_all = released.value[lemof.POPULATIONS.index("all")]
    np.testing.assert_array_equal(of_all[1], [0, num_long, num_long, num_long])  # no score of the ECG alone there
    assert (of_all <= [[len(rows) - num_long], [num_long]]).all()
    assert released.sensitivity == pytest.approx(np.sqrt(8.0))
