"""The whole study on one screen: stage after stage, as in the table of the method (docs/method.md, section 3).

    census -> statistics -> encoders (rounds) -> meta (Newton) -> importance -> attention (rounds, omega_1 rides along)
    -> final (Newton) -> evaluation on tuning -> evaluation on held_out, once

Each stage asks rounds (``rounds.py``), turns their sums into parameters, and adds these to the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemof_model import importance, lemof, logistic
from lemof_model.features import schema_digest
from lemof_model.logistic import LogisticSums, Newton
from lemof_model.stays import scaling_from
from lemof_model.study import MODALITIES, NUM_LEVELS, Study, TrainingSpec
from lemof_model.training import derive_seed
from lemof_model.wire import (
    AttentionRequest,
    CensusRequest,
    EncodersRequest,
    EvaluationRequest,
    FinalRequest,
    ImportanceRequest,
    MetaRequest,
    Request,
    StatisticsRequest,
)
from server import evaluation
from server.aggregation import BlockStrategy
from server.rounds import Rounds
from server.run_store import Round, RunStore
from server.transport import Transport

Model = dict[str, NDArray[Any]]

NUM_STABILITY_DRAWS = 1000


def run_study(study: Study, transport: Transport, store: RunStore) -> Model:
    """Run the study to its end, or go on with it; the run folder then holds model, metrics and importance."""
    store.begin(study)
    rounds = Rounds(study, transport, store)
    notes: dict[str, Any] = {}

    has_indicator = take_census(rounds)
    model: Model = statistics(rounds) | lemof.initial_networks(study)
    model = train_blocks(rounds, model, EncodersRequest, MODALITIES, study.encoders, notes)
    model, searches = meta(rounds, model, notes)
    model, ranking = level_importance(rounds, model, searches)
    model = attention(rounds, model, notes, has_indicator=has_indicator)
    model = final(rounds, model, notes)
    model, cuts = calibration(rounds, model)
    held_out = rounds.ask(EvaluationRequest, split="held_out", model=model, keep_sites=True)

    store.write_model(model, {"plan_digest": study.digest, "sites": rounds.sites, "stages": notes, "cuts": cuts})
    store.write_json("importance.json", ranking)
    store.write_json("metrics.json", evaluation.metrics_of(held_out, study, model, cuts))
    store.write_timings()
    return model


def take_census(rounds: Rounds) -> bool:
    """Fix the participants. Returns whether having an ECG varies among the stays that the learners are fitted on."""
    needs = ("train/ehr", "train/ecg", "stack/ehr", "stack/ecg")
    counted = rounds.ask(CensusRequest, schema_digest=schema_digest(), keep_sites=True, needs=needs)
    rounds.sites = counted.answered("train/ehr")
    return counted.counts.get("stack/ecg", 0) != counted.counts.get("stack/ehr", 0)


def statistics(rounds: Rounds) -> Model:
    """Mean and scale of every numeric feature from the federated sums."""
    total = rounds.ask(StatisticsRequest)
    sums = {name.removeprefix("ehr/"): value for name, value in total.sums.items()}
    return lemof.prefixed("scaling", scaling_from(sums))


@dataclass
class Block:
    """One block of weights on its way through the rounds: Flower's strategy, and the best round so far."""

    name: str
    weights: Model
    strategy: BlockStrategy
    best_loss: float = np.inf
    best_round: int = 0
    best_weights: Model = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    is_done: bool = False

    def judge(self, reply: Round, round_number: int, patience: int) -> None:
        """Read the tuning loss of the weights that were sent, those after ``round_number`` rounds."""
        count = reply.counts.get(f"tuning/{self.name}", 0)
        loss = float(reply.sums[f"tuning/{self.name}/loss"]) / count if count else np.nan
        self.losses.append(loss)
        if not loss >= self.best_loss:  # NaN (no tuning stays anywhere) keeps the latest
            self.best_loss = np.inf if np.isnan(loss) else loss
            self.best_round, self.best_weights = round_number, self.weights
        self.is_done = bool(patience) and round_number - self.best_round >= patience

    def step(self, reply: Round, round_number: int) -> None:
        """Next weights from the mean of the sites', unless no site could train the block."""
        count = reply.counts.get(self.name, 0)
        if count:
            mean = {name: reply.sums[f"{self.name}/weights/{name}"] / count for name in self.weights}
            self.weights = self.strategy.next_weights(round_number, self.weights, mean)


def train_blocks(
    rounds: Rounds,
    model: Model,
    kind: type[Request],
    names: Sequence[str],
    spec: TrainingSpec,
    notes: dict[str, Any],
    ride: "NewtonStage | None" = None,
) -> Model:
    """Gradient rounds of some blocks, the best round of each kept; a Newton search may ride along to its end.

    The message of round r brings the tuning loss of the weights after round r - 1, so one more message than rounds is
    sent; it trains nothing.
    """
    blocks = [Block(name, lemof.part(model, name), BlockStrategy(rounds.study.strategy)) for name in names]
    number = 0
    while True:
        number += 1
        active = [b for b in blocks if not b.is_done] if number <= spec.num_rounds else []
        for block in blocks:
            model |= lemof.prefixed(block.name, block.weights)
        if ride is not None:
            model[ride.name] = ride.search.theta
        sites = ride.members if ride is not None and not active else None
        needs = [ride.name] if ride is not None and not ride.is_done else []
        reply = rounds.ask(kind, sites=sites, needs=needs, blocks=" ".join(b.name for b in active), model=model)
        if ride is not None:
            ride.advance(reply, ride.name)
        for block in blocks:
            if not block.is_done and number <= spec.num_rounds + 1:
                block.judge(reply, number - 1, spec.patience)
        for block in active:
            if not block.is_done:
                block.step(reply, number)
        finished = number > spec.num_rounds or all(b.is_done for b in blocks)
        if finished and (ride is None or ride.is_done):
            break
    for block in blocks:
        model |= lemof.prefixed(block.name, block.best_weights)
        notes[block.name] = {"tuning_loss": block.losses, "best_round": block.best_round}
    return model


class NewtonStage:
    """A Newton search over rounds. Its sites are fixed at the first step; when one leaves (or, where the search rides
    along, comes back), it starts again with the new set from the current coefficients."""

    def __init__(self, name: str, num_inputs: int, study: Study) -> None:
        self.name = name
        self.search: Newton = logistic.start(num_inputs, study.logistic.c)
        self.members: list[str] | None = None
        self._max_steps = study.logistic.max_steps

    @property
    def is_done(self) -> bool:
        """Converged, or out of steps."""
        return self.search.is_done or self.search.num_steps >= self._max_steps

    def advance(self, reply: Round, group: str) -> None:
        """Take the step that the group's sums give, unless the search has ended."""
        if self.is_done:
            return
        members = reply.answered(group)
        if self.members is not None and members != self.members:
            self.search = self.search.without_history()
        self.members = members
        parts = (reply.sums[f"{group}/{part}"] for part in ("gradient", "hessian", "loss"))
        self.search = self.search.advance(LogisticSums(*parts))

    def describe(self) -> dict[str, Any]:
        """What the card says of the search."""
        theta = self.search.theta
        return {
            "coef": theta[:-1].tolist(), "intercept": float(theta[-1]), "num_steps": self.search.num_steps,
            "converged": self.search.is_done, "separated": logistic.is_separated(theta), "sites": self.members,
        }  # fmt: skip


def meta(rounds: Rounds, model: Model, notes: dict[str, Any]) -> tuple[Model, dict[str, Newton]]:
    """Both modality meta-learners (eq. 4) in one message a step; their mean inputs are the Shapley background."""
    stages = {m: NewtonStage(f"meta/{m}", NUM_LEVELS, rounds.study) for m in MODALITIES}
    while not all(stage.is_done for stage in stages.values()):
        for stage in stages.values():
            model[stage.name] = stage.search.theta
        known = [set(stage.members) for stage in stages.values() if stage.members is not None]
        sites = sorted(set.union(*known)) if known else None
        reply = rounds.ask(MetaRequest, sites=sites, needs=MODALITIES, model=model)
        for modality, stage in stages.items():
            stage.advance(reply, modality)
            model[f"background/{modality}"] = reply.sums[f"{modality}/inputs"] / reply.counts[modality]
    for stage in stages.values():
        model[stage.name] = stage.search.theta
        notes[stage.name] = stage.describe()
    return model, {modality: stage.search for modality, stage in stages.items()}


def level_importance(rounds: Rounds, model: Model, searches: dict[str, Newton]) -> tuple[Model, dict[str, Any]]:
    """Mean absolute Shapley value by level (eq. 5), the best level (eq. 6), and how stable that choice is."""
    reply = rounds.ask(ImportanceRequest, model=model, keep_sites=True, needs=MODALITIES)
    ranking: dict[str, Any] = {}
    for modality in MODALITIES:
        total, key = reply.sums[f"{modality}/abs_shap"], f"{modality}/abs_shap"
        search = searches[modality]
        assert search.hessian is not None
        rng = np.random.default_rng(derive_seed(rounds.study.seed, "stability", modality))
        without = {
            site: importance.best_level(total - reply.sites[site].sums[key])
            for site in reply.answered(modality)
            if len(reply.answered(modality)) > 1
        }
        ranking[modality] = {
            "level_importance": (total / reply.counts[modality]).tolist(),
            "best_level": importance.best_level(total),
            "num_stays": reply.counts[modality],
            "background": model[f"background/{modality}"].tolist(),
            "coef": search.theta[:-1].tolist(),
            "winners_in_draws": importance.winner_counts(
                search.theta, search.hessian, total, num_draws=NUM_STABILITY_DRAWS, rng=rng
            ),
            "best_level_without_site": without,
        }
    model["best_level"] = np.array([ranking[m]["best_level"] for m in MODALITIES], dtype=np.int64)
    return model, ranking


def attention(rounds: Rounds, model: Model, notes: dict[str, Any], *, has_indicator: bool) -> Model:
    """Two cross-fit attention heads (eq. 10-12) by gradient rounds; omega_1 (eq. 8) rides along by Newton steps."""
    model |= lemof.initial_heads(rounds.study, model["best_level"])
    ride = NewtonStage("omega_1", 5 if has_indicator else 4, rounds.study)
    names = [f"attention/{fold}" for fold in range(lemof.NUM_HEADS)]
    spec = rounds.study.attention.training
    model = train_blocks(rounds, model, AttentionRequest, names, spec, notes, ride)
    model["omega_1"] = ride.search.theta
    notes["omega_1"] = ride.describe()
    return model


def final(rounds: Rounds, model: Model, notes: dict[str, Any]) -> Model:
    """The integrated decision (eq. 13) by Newton steps."""
    stage = NewtonStage("final", 2, rounds.study)
    while not stage.is_done:
        model["final"] = stage.search.theta
        stage.advance(rounds.ask(FinalRequest, sites=stage.members, needs=["final"], model=model), "final")
    model["final"] = stage.search.theta
    notes["final"] = stage.describe()
    return model


def calibration(rounds: Rounds, model: Model) -> tuple[Model, dict[str, Any]]:
    """Platt's pair, bin edges and the three cuts of every variant and population, from ``tuning``."""
    tuning = rounds.ask(EvaluationRequest, split="tuning", model=model, keep_sites=True)
    found, cuts = evaluation.calibrate_and_cut(tuning, rounds.study)
    return model | found, cuts
