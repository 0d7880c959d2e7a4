"""No learner may be fitted on rows that trained one of its inputs: shown by behaviour, on labels that are pure chance.

Encoders and attention heads are trained until they know their rows by heart. On the rows that a learner is fitted on,
its inputs must then know nothing; pointed at rows that its inputs were trained on, a learner fails the same check.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from client.cohort import frozen
from client.cohort.hospital import Hospital, open_hospital
from client.door import stages
from client.site import load_site
from lemof_model import lemof, training
from lemof_model.errors import LemofError
from lemof_model.study import AttentionSpec, EncoderSpec, SplitSpec, Study, TrainingSpec
from protocol.kinds import Newton
from protocol.messages import AttentionRequest, FinalRequest, MetaRequest
from protocol.release import Part, View
from protocol.stages import networks_of, taught
from server import coordinator
from server.blocks import Model
from server.rounds import Rounds
from server.run_store import RunStore
from simulation.local_transport import LocalTransport
from tests.hospitals import write_hospital
from tests.studies import tiny_study

BY_HEART = 0.95
MORE_THAN_TUNING = 120  # and fewer patients than a fold has


class Learnt(NamedTuple):
    """A hospital whose networks know their rows by heart, and the model."""

    hospital: Hospital
    study: Study
    model: Model


class Inputs(NamedTuple):
    """What a learner reads of the rows it is fitted on, and their labels."""

    rows_NP: NDArray[np.float64]
    label_N: NDArray[np.int8]


@pytest.fixture(scope="module", params=[0, 2], ids=["no_folds", "folds"])
def learnt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    """One hospital, every stage up to ``final``. No tuning loss leaves it, so no round before the last is kept."""
    folder = tmp_path_factory.mktemp("leak")
    site = write_hospital(folder, num_stays=700, signal=0.0, ecg_share=0.8, min_cell=MORE_THAN_TUNING)
    study = tiny_study(
        min_sites=1,
        folds=request.param,
        splits=SplitSpec(train=0.25, stack=0.5, tuning=0.1, held_out=0.15),
        ecg=EncoderSpec("resnet", {"width": 16, "num_tokens": 16, "dropout": 0, "augment": 0}),
        ehr=EncoderSpec("ft_transformer", {"width": 16, "num_heads": 2, "attention_dropout": 0, "ffn_dropout": 0}),
        encoders=TrainingSpec(num_rounds=1, num_epochs=40, batch_size=32, client_lr=5e-3, weight_decay=0.0),
        attention=AttentionSpec(
            width=64,
            dropout=0.0,
            training=TrainingSpec(num_rounds=1, num_epochs=100, batch_size=32, client_lr=5e-3, weight_decay=0.0),
        ),
    )
    rounds = Rounds(study, LocalTransport([site]), RunStore(folder / "run"))
    state = coordinator.State()
    for step in coordinator.LEARNING:
        state = step(rounds, state)
    return Learnt(open_hospital(load_site(site), study), study, state.model)


def inputs_of_learners(
    learnt: Learnt, monkeypatch: pytest.MonkeyPatch, *, with_final: bool = True
) -> dict[str, Inputs]:
    """What each learner is fitted on, caught where the sums are made."""
    caught: list[Inputs] = []
    newton_sums = Newton.sums

    def catch(release: Newton, view: View, group: str, part: Part):
        caught.append(Inputs(part.each, view.stays.long_stay_N[part.rows]))
        return newton_sums(release, view, group, part)

    shared: dict[str, Any] = {"study": learnt.study, "round": 1, "model": learnt.model}
    with monkeypatch.context() as patch:
        patch.setattr(Newton, "sums", catch)
        stages.groups_of(learnt.hospital, MetaRequest(**shared))
        stages.groups_of(learnt.hospital, AttentionRequest(**shared, blocks=""))
        if with_final:
            stages.groups_of(learnt.hospital, FinalRequest(**shared))
    return dict(zip(("meta/ecg", "meta/ehr", "omega_1", "final"), caught, strict=with_final))


# Coefficients behind each input, where it is not a network: a learner with p of them, fitted on the same rows, is too
# good there by about sqrt(p) standard errors and no more. That is the exception that the method makes (section 2, 4).
NUM_COEFFICIENTS = {
    "meta/ecg": (0, 0, 0),
    "meta/ehr": (0, 0, 0),
    "omega_1": (3, 0, 3, 0, 0),
    "final": (5 + 3 + 3, 0),
}


def check_that_inputs_know_nothing(name: str, inputs: Inputs) -> None:
    """AUROC 0.5 within 3 standard errors (those of the rank statistic under chance) for every input of a learner."""
    num_long = int(inputs.label_N.sum())
    num_short = len(inputs.label_N) - num_long
    standard_error = math.sqrt((num_long + num_short + 1) / (12 * num_long * num_short))
    for column, (values, num_coefficients) in enumerate(zip(inputs.rows_NP.T, NUM_COEFFICIENTS[name], strict=True)):
        away = abs(roc_auc_score(inputs.label_N, values) - 0.5) / standard_error
        allowed = 3.0 + math.sqrt(num_coefficients)
        assert away < allowed, f"input {column} of {name} is {away:.1f} standard errors from chance"


def test_networks_know_their_rows_by_heart(learnt: Learnt) -> None:
    hospital, study, model = learnt
    stays, label = hospital.stays, hospital.stays.long_stay_N
    for block in networks_of(study):
        rows = taught(stays, study, block)
        network, batch_of = lemof.network(study, block, model), frozen.batches_of(hospital, block, model)
        levels = training.log_odds(network, batch_of, rows)
        aurocs = [roc_auc_score(label[rows], levels[:, level]) for level in range(3)]
        assert min(aurocs) > BY_HEART, (block, aurocs)
    stack = stays.rows("stack")
    for name in lemof.heads_of(study):
        number = lemof.network_number(name, study)
        rows = stack[(stays.fold_N[stack] == lemof.half_of(name)) & (stays.network_N[stack] == number)]
        tokens, head = frozen.Tokens(hospital, model, number), lemof.attention_head(study, model, name)
        score = training.log_odds(head, tokens.batch, rows)[:, 0]
        assert roc_auc_score(label[rows], score) > BY_HEART, name


@pytest.mark.parametrize("learner", NUM_COEFFICIENTS)
def test_inputs_know_nothing_of_the_rows_that_a_learner_is_fitted_on(
    learnt: Learnt, monkeypatch: pytest.MonkeyPatch, learner: str
) -> None:
    inputs = inputs_of_learners(learnt, monkeypatch)[learner]
    assert len(inputs.label_N) > 250
    check_that_inputs_know_nothing(learner, inputs)


def read_from_encoders_that_saw(learnt: Learnt, monkeypatch: pytest.MonkeyPatch) -> Learnt:
    """The same, but learners read what the encoders make of the rows that taught them."""
    if not learnt.study.folds:
        monkeypatch.setattr("protocol.stages.LEARNER_SPLIT", "train")
        return learnt
    stays = learnt.hospital.stays
    other = dataclasses.replace(stays, network_N=(stays.network_N + 1) % learnt.study.folds)
    return learnt._replace(hospital=dataclasses.replace(learnt.hospital, stays=other))


@pytest.mark.parametrize("learner", ["meta/ecg", "meta/ehr", "omega_1"])
def test_a_learner_on_the_encoders_own_rows_is_caught(
    learnt: Learnt, monkeypatch: pytest.MonkeyPatch, learner: str
) -> None:
    leaking = read_from_encoders_that_saw(learnt, monkeypatch)
    with pytest.raises(AssertionError, match="standard errors from chance"):
        check_that_inputs_know_nothing(learner, inputs_of_learners(leaking, monkeypatch, with_final=False)[learner])


def test_a_final_decision_on_the_encoders_own_rows_is_refused_or_caught(
    learnt: Learnt, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaking = read_from_encoders_that_saw(learnt, monkeypatch)
    if learnt.study.folds:
        with pytest.raises(AssertionError, match="input 0 of final"):
            check_that_inputs_know_nothing("final", inputs_of_learners(leaking, monkeypatch)["final"])
    else:
        with pytest.raises(LemofError, match=r"Tokens must be of stays that taught the networks nothing"):
            inputs_of_learners(leaking, monkeypatch)


def test_a_final_decision_on_the_heads_own_rows_is_caught(learnt: Learnt, monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(omega_2_N2: NDArray[np.float64], fold_N: NDArray[np.int64], in_stack_N: object) -> NDArray[np.float64]:
        return omega_2_N2[np.arange(len(fold_N)), fold_N]

    monkeypatch.setattr(lemof, "cross_fit", seen)
    with pytest.raises(AssertionError, match="input 1 of final"):
        check_that_inputs_know_nothing("final", inputs_of_learners(learnt, monkeypatch)["final"])
