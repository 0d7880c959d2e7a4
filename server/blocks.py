"""Blocks of weights trained over rounds: networks and attention heads, with Flower's strategy and the best round."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemof_model import lemof
from lemof_model.study import TrainingSpec
from protocol.messages import Request
from server.aggregation import BlockStrategy
from server.newton_stage import NewtonStage
from server.rounds import Rounds
from server.run_store import Round
from server.suspicion import JUMP, Apart, furthest

Model = dict[str, NDArray[Any]]

log = logging.getLogger("lemof")


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
    judges: frozenset[str] = frozenset()
    is_done: bool = False
    stood: Mapping[str, Apart] = field(default_factory=dict)
    present: frozenset[str] = frozenset()
    suspicions: list[dict[str, Any]] = field(default_factory=list)

    def judge(self, reply: Round, round_number: int, patience: int, first_judged: int = 0) -> None:
        """Read the tuning loss of the weights that were sent, those after ``round_number`` rounds; rounds before
        ``first_judged`` are not compared.

        Losses are compared over the same sites only: a round that one of the judges so far missed is not judged, and
        when a new one comes in the comparison begins anew. Without any judge the latest round is kept.
        """
        group = f"tuning/{self.name}"
        present = frozenset(reply.answered(group))
        loss = float(reply.sums[f"{group}/loss"]) / reply.counts[group] if present else np.nan
        self.losses.append(loss)
        if not first_judged and present == self.present:
            self._suspect(round_number)
        self.present = present
        if round_number < first_judged:
            return
        if present > self.judges:
            self.judges, self.best_loss = present, np.inf
        if present == self.judges and not loss >= self.best_loss:
            self.best_round, self.best_weights = round_number, self.weights
            self.best_loss = loss if present else np.inf
        self.is_done = bool(patience) and round_number - self.best_round >= patience

    def step(self, reply: Round, round_number: int) -> None:
        """Next weights from the mean of the sites', unless no site could train the block."""
        count = reply.counts.get(self.name, 0)
        self.stood = {site: Apart(*how) for site, how in reply.apart.get(self.name, {}).items()}
        if count:
            mean = {name: reply.sums[f"{self.name}/weights/{name}"] / count for name in self.weights}
            self.weights = self.strategy.next_weights(round_number, self.weights, mean)

    def _suspect(self, round_number: int) -> None:
        """Name who stood apart in a round, if the same sites' loss of its weights has jumped."""
        if len(self.losses) < 2 or not self.stood or not self.losses[-1] > JUMP * self.losses[-2]:
            return
        site = furthest(self.stood)
        _, times, cosine = self.stood[site]
        self.suspicions.append({"round": round_number, "site": site, "times": times, "cosine": cosine})
        log.warning("suspicion: the tuning loss of %s jumped from %.3f to %.3f in round %d of its training. The update "
                    "of %s was furthest from the others' mean (%.2g times as long, cosine %.2f): it may err, or have "
                    "other patients.", self.name, *self.losses[-2:], round_number, site, times, cosine)  # fmt: skip


def train_blocks(
    rounds: Rounds,
    model: Model,
    kind: type[Request],
    names: Sequence[str],
    spec: TrainingSpec,
    notes: dict[str, Any],
    ride: NewtonStage | None = None,
) -> Model:
    """Gradient rounds of some blocks, the best round of each kept; a Newton search may ride along to its end.

    The message of round r brings the tuning loss of the weights after round r - 1, so one more message than rounds is
    sent; it trains nothing. With a hospital that has a privacy budget losses are noisy, and the noise may be larger
    than what rounds gain: all rounds are run, and only those of the last quarter are compared.
    """
    is_private = bool(rounds.privacy)
    patience, first_judged = (0, spec.num_rounds - spec.num_rounds // 4) if is_private else (spec.patience, 0)
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
        needs = [b.name for b in active] + ([ride.name] if ride is not None and not ride.is_done else [])
        named = " ".join(b.name for b in active)
        reply = rounds.ask(kind, sites=sites, needs=needs, blocks=named, number=number, model=model)
        if ride is not None:
            ride.advance(reply, ride.name)
        for block in blocks:
            if not block.is_done and number <= spec.num_rounds + 1:
                block.judge(reply, number - 1, patience, first_judged)
        for block in active:
            if not block.is_done:
                block.step(reply, number)
        finished = number > spec.num_rounds or all(b.is_done for b in blocks)
        if finished and (ride is None or ride.is_done):
            break
    for block in blocks:
        model |= lemof.prefixed(block.name, block.best_weights)
        notes[block.name] = {"tuning_loss": block.losses, "best_round": block.best_round}
        if block.suspicions:
            notes[block.name]["suspicions"] = block.suspicions
    return model
