"""A method on one hospital alone: how its stages are done on rows at hand, with nobody to ask.

What a network is trained on and a learner fitted on is what the stages declare (``protocol/stages.py``), in the order
of the method: a hospital alone differs from a federation in whose numbers come together only.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from client.cohort.frozen import Tokens, batches_of, levels, omega_2
from client.cohort.hospital import Hospital
from lemof_model import importance, lemof, logistic, training
from lemof_model.stays import Rows, feature_sums, scaling_from
from lemof_model.study import MODALITIES, TrainingSpec
from protocol import method
from protocol.kinds import Newton, Trained
from protocol.release import Part, Release, View
from protocol.stage import Stage
from protocol.stages import CENSUS, ENCODERS, META, STATISTICS

Float = NDArray[np.float64]

MIN_ROWS = 2


class Alone:
    """One hospital and the model that it finds, as the stages' releases see it (``protocol.release.View``).

    Attributes:
        model: all parameters so far; what is frozen is read when the steps before have found it.
        usable: the modalities that something can be learnt of.
    """

    def __init__(self, hospital: Hospital) -> None:
        self.hospital, self.name, self.study = hospital, hospital.name, hospital.study
        self.stays = hospital.stays
        self.model: dict[str, NDArray[Any]] = {}
        self.request = SimpleNamespace(study=self.study, model=self.model)
        self.usable = [m for m in MODALITIES if all(self._can_learn(split, m) for split in self.study.learnt_splits)]

    def _can_learn(self, split: str, modality: str) -> bool:
        return has_both_classes(self.stays.long_stay_N[self.stays.rows(split, modality)])

    def take(self, steps: Sequence["Step"]) -> None:
        """Find what the steps of a method find."""
        for step in steps:
            step(self)

    def part(self, release: Release, group: str) -> Part:
        """The stays of a group, and what a release reads of each; none that learns asks for scores or draws."""
        return release.part(cast(View, self), group)

    def has(self, group: str) -> bool:
        """Whether something can be learnt of a group."""
        return not set(MODALITIES).intersection(group.split("/")) - set(self.usable)

    def bounded(self, rows_NP: Float) -> Float:
        """Rows of a learner, as they are."""
        return rows_NP

    def network(self, block: str) -> tuple[Any, Any]:
        """A modality network with its weights so far, and how its inputs are read."""
        return lemof.network(self.study, block, self.model), batches_of(self.hospital, block, self.model)

    def head(self, name: str) -> tuple[Any, Any]:
        """An attention head with its weights so far, and how its inputs are read."""
        tokens = Tokens(self.hospital, self.model, lemof.network_number(name, self.study), kind="tokens-local")
        return lemof.attention_head(self.study, self.model, name), tokens.batch

    @cached_property
    def levels(self) -> Mapping[str, Float]:
        """Level log-odds of every stay by modality."""
        return levels(self.hospital, self.model, kind="levels-local")

    @cached_property
    def outside_train(self) -> Rows:
        """The stays that are scored."""
        return np.concatenate([self.stays.rows(split) for split in ("stack", "tuning", "held_out")])

    @cached_property
    def _omega_2(self) -> Float:
        out = np.full((len(self.stays.split_N), lemof.NUM_HEADS), np.nan)
        out[self.outside_train] = omega_2(self.hospital, self.model, self.outside_train, kind="tokens-local")
        return out

    def omega_2(self, rows: Rows) -> Float:
        """Log-odds of both heads for some rows outside ``train``, (len(rows), 2)."""
        assert np.isin(rows, self.outside_train).all(), "what heads make of train tells nothing"
        return self._omega_2[rows]


Step = Callable[[Alone], None]


def has_both_classes(labels: NDArray[np.int8]) -> bool:
    """Whether something can be learnt from these labels at all."""
    return len(labels) >= MIN_ROWS and len(np.unique(labels)) == 2


def census(alone: Alone) -> None:
    """Count nobody: a hospital knows its stays."""


def statistics(alone: Alone) -> None:
    """Mean and scale of every numeric feature on what teaches the networks."""
    train = alone.stays.features_NF[alone.stays.rows(alone.study.learnt_splits[0])]
    alone.model |= lemof.prefixed("scaling", scaling_from(feature_sums(train)))


def trained(stage: Stage) -> Step:
    """Networks of a stage, each for the plan's rounds; then its logistic learners."""

    def step(alone: Alone) -> None:
        alone.model |= stage.begin(alone.study, alone.model)
        for release in stage.releases:
            if isinstance(release, Trained):
                for block in filter(alone.has, release.blocks(alone.study)):
                    part, spec = alone.part(release, block), release.spec(alone.study)
                    kept = _rounds(alone, block, part.each, part.rows, spec)
                    alone.model |= lemof.prefixed(block, kept)
        fitted(stage)(alone)

    return step


def fitted(stage: Stage) -> Step:
    """Logistic learners of a stage, on what they read."""

    def step(alone: Alone) -> None:
        has_ecg, label = alone.stays.has_ecg_N[alone.stays.rows("stack")], alone.stays.long_stay_N
        for group, learner in stage.learners.items():
            if alone.has(group):
                alone.model[learner.theta] = learner.first(has_indicator=len(np.unique(has_ecg)) == 2)
                part = alone.part(learner, group)
                alone.model[learner.theta] = logistic.fit(part.each, label[part.rows], alone.study.logistic.c)

    return step


def meta(alone: Alone) -> None:
    """The meta-learners; their mean inputs are the Shapley background."""
    fitted(META)(alone)
    for group, learner in META.learners.items():
        if alone.has(group):
            alone.model[f"background/{group}"] = alone.part(learner, group).each.mean(axis=0)


def level_importance(alone: Alone) -> None:
    """The best levels."""
    best = []
    for group, learner in META.learners.items():
        theta, background = alone.model[learner.theta], alone.model[f"background/{group}"]
        rows = alone.part(learner, group).each
        best.append(importance.best_level(importance.importance_sums(theta, rows, background)))
    alone.model["best_level"] = np.array(best)


def _rounds(
    alone: Alone, block: str, network: tuple[Any, Any], rows: Rows, spec: TrainingSpec
) -> dict[str, NDArray[Any]]:
    """Train round by round, with the plan's patience, and return the weights of the round with the best loss on the
    hospital's own ``tuning``."""
    model, batch_of = network
    best_loss, best_round, kept = np.inf, 0, training.to_arrays(model)
    modality = "ecg" if lemof.modality_of(block) == "ecg" else "ehr"
    label, tuning = alone.stays.long_stay_N, alone.stays.rows("tuning", modality)
    for number in range(1, spec.num_rounds + 1):
        seed = training.derive_seed(alone.study.seed, alone.name, "local_only", block, number)
        training.train(model, batch_of, label, rows, spec, seed=seed, number=number)
        loss = training.loss_of(training.log_odds(model, batch_of, tuning), label[tuning]) if len(tuning) else -number
        if loss < best_loss:
            best_loss, best_round, kept = loss, number, training.to_arrays(model)
        if spec.patience and number - best_round >= spec.patience:
            break
    return kept


def steps(of: method.Method) -> tuple[Step, ...]:
    """How a hospital alone does each stage of a method."""
    by_name: dict[str, Step] = {
        "census": census, "statistics": statistics, "meta": meta, "importance": level_importance,
    }  # fmt: skip
    return method.steps_of(of, by_name, {Trained: trained, Newton: fitted}, who="a hospital alone")


LEMOF = steps(method.LEARNING)
EHR_ALONE = steps((CENSUS, STATISTICS, ENCODERS, META))
