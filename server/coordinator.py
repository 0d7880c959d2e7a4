"""How the coordinator does each stage of a method (docs/method.md, section 2), in its order (``protocol/method.py``).

    census -> statistics -> encoders (rounds) -> meta (Newton) -> importance -> attention (rounds, omega_1 rides along)
    -> final (Newton) -> evaluation on tuning -> evaluation on held_out, once -> intervals

Each step asks rounds (``rounds.py``), turns their sums into parameters, and adds these to the state. Networks are
trained and logistic learners fitted in one way, whatever the stage; the others have a step of their own.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lemof_model import importance, lemof, published
from lemof_model.features import schema_digest
from lemof_model.stays import scaling_from
from lemof_model.study import FEW_SITES, MODALITIES, Study
from lemof_model.training import derive_seed
from protocol import method, stages
from protocol.answering import Counted
from protocol.kinds import Newton, Trained
from protocol.messages import CensusRequest, EvaluationRequest, ImportanceRequest, IntervalsRequest, StatisticsRequest
from protocol.source import source_digest, versions
from protocol.stage import Stage
from protocol.stages import META, STAGES
from server import evaluation, intervals
from server.blocks import Model, train_blocks
from server.newton_stage import NewtonStage
from server.rounds import Rounds
from server.run_store import Round, RunStore
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
        searches: the finished searches of logistic learners, by their name in the model.
        ranking: the importance of the levels.
        cuts: the cuts of every variant and population.
        held_out: the score histograms on ``held_out``.
        metrics: the evaluation on ``held_out``.
    """

    model: Model = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    has_indicator: bool = False
    searches: Mapping[str, NewtonStage] = field(default_factory=dict)
    ranking: Mapping[str, Any] = field(default_factory=dict)
    cuts: dict[str, Any] = field(default_factory=dict)
    held_out: Round | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)


Step = Callable[[Rounds, State], State]


def run_study(study: Study, transport: Transport, store: RunStore, steps: Sequence[Step] | None = None) -> Model:
    """Run the study to its end, or go on with it; the run folder then holds model, metrics and importance. ``steps``
    are those of another method than LeMoF."""
    store.begin(study, source_digest())
    rounds, state = Rounds(study, transport, store), State()
    for step in LEMOF if steps is None else steps:
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
    splits = rounds.study.learnt_splits
    rounds.num_able = {f"{split}/ehr": rounds.study.min_sites for split in splits}
    needs = [f"{split}/{modality}" for split in splits for modality in MODALITIES]
    counted = rounds.ask(CensusRequest, schema_digest=schema_digest(), keep_sites=True, needs=needs)
    rounds.sites = counted.answered(f"{splits[0]}/ehr")
    told = {site: counted.sites[site] for site in rounds.sites}
    rounds.counted = {s: Counted(of.counts, of.too_small, of.cohort_digest, of.delta) for s, of in told.items()}

    def num_able(*groups: str) -> int:
        return min(len(set(rounds.sites).intersection(counted.answered(group))) for group in groups)

    learners = [(group, one) for stage in STAGES.values() for group, one in stage.learners.items()]
    rounds.num_able = {group: num_able(one.counted(None, group)) for group, one in learners}
    for modality in MODALITIES:
        groups = {f"{split}/{modality}" for split in splits}
        blocks = lemof.networks_of(rounds.study, modality) if rounds.study.folds else ()
        rounds.num_able |= {modality: num_able(*groups), **{block: num_able(*groups, block) for block in blocks}}
        able = [s for s in rounds.sites if {*groups, *blocks} <= set(counted.sites[s].counts)]
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


def trained(stage: Stage, blocks: Sequence[str] = ()) -> Step:
    """Networks of a stage (all of them, or these) by gradient rounds; a logistic learner of it rides along.

    Raises:
        TypeError: more than one learner, or one whose group has another name.
    """
    if len(stage.learners) > 1 or any(group != one.theta for group, one in stage.learners.items()):
        raise TypeError(f"stage {stage.name}: one learner may ride along, in a group of its name in the model")

    def step(rounds: Rounds, state: State) -> State:
        assert stage.trained is not None
        model, notes = {**state.model, **stage.begin(rounds.study, state.model)}, dict(state.notes)
        searches = _searches(stage, rounds, state)
        ride = next(iter(searches.values()), None)
        spec = stage.trained.spec(rounds.study)
        model = train_blocks(rounds, model, stage.request, blocks or stage.blocks(rounds.study), spec, notes, ride)
        return _fitted(replace(state, model=model, notes=notes), searches)

    return step


def fitted(stage: Stage) -> Step:
    """Logistic learners of a stage by Newton steps, all of them in one message a step."""

    def step(rounds: Rounds, state: State) -> State:
        model, searches = dict(state.model), _searches(stage, rounds, state)
        while open_ones := {group: one for group, one in searches.items() if not one.is_done}:
            model |= {one.name: one.search.theta for one in searches.values()}
            known = [set(one.members) for one in searches.values() if one.members is not None]
            sites = sorted(set.union(*known)) if known else None
            reply = rounds.ask(stage.request, sites=sites, needs=list(open_ones), keep_sites=True, model=model)
            for group, one in open_ones.items():
                one.advance(reply, group)
        return _fitted(state, searches)

    return step


def _searches(stage: Stage, rounds: Rounds, state: State) -> dict[str, NewtonStage]:
    """A search for each learner of a stage, by its group."""
    found = {}
    for group, learner in stage.learners.items():
        start = learner.first(has_indicator=state.has_indicator)[:-1].tolist()
        noisy_start = start if rounds.privacy else None
        found[group] = NewtonStage(learner.theta, len(start), rounds.study, noisy_start=noisy_start)
    return found


def _fitted(state: State, searches: Mapping[str, NewtonStage]) -> State:
    """The state with what searches found."""
    by_name = {one.name: one for one in searches.values()}
    theta = {name: one.search.found for name, one in by_name.items()}
    notes = {name: one.describe() for name, one in by_name.items()}
    return replace(
        state, model=state.model | theta, notes={**state.notes, **notes}, searches={**state.searches, **by_name}
    )


def meta(rounds: Rounds, state: State) -> State:
    """Both modality meta-learners (eq. 4); their mean inputs are the Shapley background."""
    state = fitted(META)(rounds, state)
    means = {f"background/{group}": state.searches[f"meta/{group}"].mean("inputs", group) for group in META.learners}
    return replace(state, model=state.model | means)


def level_importance(rounds: Rounds, state: State) -> State:
    """Mean absolute Shapley value by level (eq. 5), the best level (eq. 6), and how stable that choice is. Noise of a
    hospital with a privacy budget may make sums negative, and how far it sways the choice is not known."""
    model = state.model
    reply = rounds.ask(ImportanceRequest, model=model, keep_sites=True, needs=MODALITIES)
    ranking: dict[str, Any] = {}
    for modality in MODALITIES:
        total, stage = reply.sums[f"{modality}/abs_shap"], state.searches[f"meta/{modality}"]
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


def evaluate(rounds: Rounds, state: State) -> State:
    """Platt's pair, bin edges and the three cuts of every variant and population, from ``tuning``; then the metrics on
    ``held_out``, once."""
    tuning = rounds.ask(EvaluationRequest, split="tuning", model=state.model, keep_sites=True)
    found, cuts = evaluation.calibrate_and_cut(tuning, rounds.study)
    model = state.model | found
    reply = rounds.ask(EvaluationRequest, split="held_out", model=model, keep_sites=True)
    metrics = evaluation.metrics_of(reply, rounds.study, model, cuts, rounds.privacy)
    return replace(state, model=model, cuts=cuts, held_out=reply, metrics=metrics)


def with_intervals(rounds: Rounds, state: State) -> State:
    """The same metrics, with intervals: every hospital gets the pooled placement tables, which are no part of the
    finished model."""
    assert state.held_out is not None
    tables = intervals.tables_of(state.held_out, rounds.study)
    told = rounds.ask(IntervalsRequest, model=state.model | tables, keep_sites=True)
    metrics = evaluation.metrics_of(state.held_out, rounds.study, state.model, state.cuts, rounds.privacy, told)
    return replace(state, metrics=metrics)


def steps(of: method.Method) -> tuple[Step, ...]:
    """How the coordinator does each stage of a method."""
    by_name = {
        "census": take_census, "statistics": statistics, "meta": meta, "importance": level_importance,
        "evaluation": evaluate, "intervals": with_intervals,
    }  # fmt: skip
    return method.steps_of(of, by_name, {Trained: trained, Newton: fitted}, who="the coordinator")


LEARNING = steps(method.LEARNING)
LEMOF = steps(stages.LEMOF)
