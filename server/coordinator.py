"""The whole study on one screen: stage after stage, as in the table of the method (docs/method.md, section 3).

    census -> statistics -> encoders (rounds) -> meta (Newton) -> importance -> attention (rounds, omega_1 rides along)
    -> final (Newton) -> evaluation on tuning -> evaluation on held_out, once

Each step asks rounds (``rounds.py``), turns their sums into parameters, and adds these to the state.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lemof_model import importance, lemof, published
from lemof_model.features import schema_digest
from lemof_model.stays import scaling_from
from lemof_model.study import FEW_SITES, MODALITIES, NUM_LEVELS, Study
from lemof_model.training import derive_seed
from protocol.messages import (
    AttentionRequest,
    CensusRequest,
    EncodersRequest,
    EvaluationRequest,
    FinalRequest,
    ImportanceRequest,
    MetaRequest,
    StatisticsRequest,
)
from protocol.source import source_digest, versions
from server import evaluation
from server.blocks import Model, train_blocks
from server.newton_stage import NewtonStage
from server.rounds import Rounds
from server.run_store import RunStore
from server.transport import Transport

NUM_STABILITY_DRAWS = 1000

log = logging.getLogger("lemof")


@dataclass(frozen=True)
class State:
    """What a study has found so far.

    Attributes:
        model: every parameter.
        notes: of the stages, for the model card.
        has_indicator: whether having an ECG varies among the stays that the learners are fitted on.
        searches: the finished searches of the modality meta-learners.
        ranking: the importance of the levels.
        cuts: the cuts of every variant and population.
        metrics: the evaluation on ``held_out``.
    """

    model: Model = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    has_indicator: bool = False
    searches: Mapping[str, NewtonStage] = field(default_factory=dict)
    ranking: Mapping[str, Any] = field(default_factory=dict)
    cuts: dict[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)


Step = Callable[[Rounds, State], State]


def run_study(study: Study, transport: Transport, store: RunStore) -> Model:
    """Run the study to its end, or go on with it; the run folder then holds model, metrics and importance."""
    store.begin(study, source_digest())
    rounds, state = Rounds(study, transport, store), State()
    for step in LEMOF:
        state = step(rounds, state)
    card = {
        "plan_digest": study.digest, "source_digest": source_digest(), "versions": versions(), "sites": rounds.sites,
        "stages": state.notes, "cuts": state.cuts, "few_sites": rounds.few_sites,
    }  # fmt: skip
    store.write_model(state.model, card)
    store.write_json("importance.json", state.ranking)
    store.write_json("metrics.json", state.metrics)
    store.write_timings()
    return state.model


def take_census(rounds: Rounds, state: State) -> State:
    """Fix the participants, and find whether having an ECG varies among the stays that the learners are fitted on."""
    needs = ("train/ehr", "train/ecg", "stack/ehr", "stack/ecg")
    rounds.num_able = dict.fromkeys(("train/ehr", "stack/ehr"), rounds.study.min_sites)
    counted = rounds.ask(CensusRequest, schema_digest=schema_digest(), keep_sites=True, needs=needs)
    rounds.sites = counted.answered("train/ehr")
    rounds.cohorts = {site: counted.sites[site].cohort_digest for site in rounds.sites}

    def num_able(modality: str, *splits: str) -> int:
        return min(len(set(rounds.sites).intersection(counted.answered(f"{split}/{modality}"))) for split in splits)

    rounds.num_able = {modality: num_able(modality, "train", "stack") for modality in MODALITIES}
    rounds.num_able |= dict.fromkeys(("omega_1", "final"), num_able("ehr", "stack"))
    for modality in MODALITIES:
        able = [s for s in rounds.sites if {f"train/{modality}", f"stack/{modality}"} <= set(counted.sites[s].counts)]
        if len(able) < FEW_SITES:
            rounds.few_sites[modality] = able
            log.warning("few: only %s can train the %s block; its totals tell each what the others hold.",
                        " and ".join(able), modality)  # fmt: skip
    with_ecg, stays = (sum(counted.sites[s].counts.get(f"stack/{m}", 0) for s in rounds.sites) for m in MODALITIES)
    return replace(state, has_indicator=with_ecg != stays)


def statistics(rounds: Rounds, state: State) -> State:
    """Mean and scale of every numeric feature from the federated sums. A hospital with a privacy budget sends none;
    where too few others are left to stand behind a total, published values do."""
    total = rounds.ask(StatisticsRequest)
    if rounds.privacy and len(total.answered("ehr")) < rounds.study.fewest_sites:
        scaling = published.scaling()
    else:
        scaling = scaling_from({name.removeprefix("ehr/"): value for name, value in total.sums.items()})
    return replace(state, model=state.model | lemof.prefixed("scaling", scaling))


def encoders(rounds: Rounds, state: State) -> State:
    """Both modality networks by gradient rounds."""
    model, notes = state.model | lemof.initial_networks(rounds.study), dict(state.notes)
    model = train_blocks(rounds, model, EncodersRequest, MODALITIES, rounds.study.encoders, notes)
    return replace(state, model=model, notes=notes)


def meta(rounds: Rounds, state: State) -> State:
    """Both modality meta-learners (eq. 4) in one message a step; their mean inputs are the Shapley background."""
    model, notes = dict(state.model), dict(state.notes)
    mean = [1 / NUM_LEVELS] * NUM_LEVELS if rounds.privacy else None
    stages = {m: NewtonStage(f"meta/{m}", NUM_LEVELS, rounds.study, noisy_start=mean) for m in MODALITIES}
    while not all(stage.is_done for stage in stages.values()):
        for stage in stages.values():
            model[stage.name] = stage.search.theta
        known = [set(stage.members) for stage in stages.values() if stage.members is not None]
        sites = sorted(set.union(*known)) if known else None
        open_ones = {modality: stage for modality, stage in stages.items() if not stage.is_done}
        reply = rounds.ask(MetaRequest, sites=sites, needs=list(open_ones), keep_sites=True, model=model)
        for modality, stage in open_ones.items():
            stage.advance(reply, modality)
            model[f"background/{modality}"] = reply.sums[f"{modality}/inputs"] / reply.counts[modality]
    for stage in stages.values():
        model[stage.name] = stage.search.found
        notes[stage.name] = stage.describe()
    return replace(state, model=model, notes=notes, searches=stages)


def level_importance(rounds: Rounds, state: State) -> State:
    """Mean absolute Shapley value by level (eq. 5), the best level (eq. 6), and how stable that choice is. Noise of a
    hospital with a privacy budget may make sums negative, and how far it sways the choice is not known."""
    model = state.model
    reply = rounds.ask(ImportanceRequest, model=model, keep_sites=True, needs=MODALITIES)
    ranking: dict[str, Any] = {}
    for modality in MODALITIES:
        total, stage = reply.sums[f"{modality}/abs_shap"], state.searches[modality]
        theta, hessian = stage.search.found, stage.search.hessian
        assert hessian is not None
        rng = np.random.default_rng(derive_seed(rounds.study.seed, "stability", modality))
        without = {
            site: importance.best_level(
                importance.under(
                    stage.without(site, modality),
                    theta,
                    np.maximum(total - reply.sites[site].sums[f"{modality}/abs_shap"], 0.0),
                )
            )
            for site in reply.answered(modality)
            if site in (stage.members or []) and len(stage.members or []) > 1
        }
        ranking[modality] = {
            "level_importance": (np.maximum(total, 0.0) / reply.counts[modality]).tolist(),
            "best_level": importance.best_level(total),
            "num_stays": reply.counts[modality],
            "background": model[f"background/{modality}"].tolist(),
            "coef": theta[:-1].tolist(),
            "winners_in_draws": None
            if rounds.privacy
            else importance.winner_counts(theta, hessian, total, num_draws=NUM_STABILITY_DRAWS, rng=rng),
            "best_level_without_site": without,
        }
    best = np.array([ranking[m]["best_level"] for m in MODALITIES], dtype=np.int64)
    return replace(state, model=model | {"best_level": best}, ranking=ranking)


def attention(rounds: Rounds, state: State) -> State:
    """Two cross-fit attention heads (eq. 10-12) by gradient rounds; omega_1 (eq. 8) rides along by Newton steps."""
    model, notes = state.model | lemof.initial_heads(rounds.study, state.model["best_level"]), dict(state.notes)
    num_inputs = 5 if state.has_indicator else 4
    meta_ehr = np.eye(num_inputs)[2].tolist() if rounds.privacy else None  # every stay has an EHR
    ride = NewtonStage("omega_1", num_inputs, rounds.study, noisy_start=meta_ehr)
    names = [f"attention/{fold}" for fold in range(lemof.NUM_HEADS)]
    spec = rounds.study.attention.training
    model = train_blocks(rounds, model, AttentionRequest, names, spec, notes, ride)
    model["omega_1"] = ride.search.found
    return replace(state, model=model, notes=notes | {"omega_1": ride.describe()})


def final(rounds: Rounds, state: State) -> State:
    """The integrated decision (eq. 13) by Newton steps."""
    model = dict(state.model)
    stage = NewtonStage("final", 2, rounds.study, noisy_start=[1.0, 0.0] if rounds.privacy else None)  # omega_1
    while not stage.is_done:
        model["final"] = stage.search.theta
        stage.advance(rounds.ask(FinalRequest, sites=stage.members, needs=["final"], model=model), "final")
    model["final"] = stage.search.found
    return replace(state, model=model, notes={**state.notes, "final": stage.describe()})


def calibration(rounds: Rounds, state: State) -> State:
    """Platt's pair, bin edges and the three cuts of every variant and population, from ``tuning``."""
    tuning = rounds.ask(EvaluationRequest, split="tuning", model=state.model, keep_sites=True)
    found, cuts = evaluation.calibrate_and_cut(tuning, rounds.study)
    return replace(state, model=state.model | found, cuts=cuts)


def held_out(rounds: Rounds, state: State) -> State:
    """The metrics, once."""
    reply = rounds.ask(EvaluationRequest, split="held_out", model=state.model, keep_sites=True)
    metrics = evaluation.metrics_of(reply, rounds.study, state.model, state.cuts, rounds.privacy)
    return replace(state, metrics=metrics)


LEARNING: tuple[Step, ...] = (take_census, statistics, encoders, meta, level_importance, attention, final)
"""Every parameter, from ``train`` and ``stack``."""

LEMOF: tuple[Step, ...] = (*LEARNING, calibration, held_out)
"""The method. A study by another one is another list."""
