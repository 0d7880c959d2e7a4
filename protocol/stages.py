"""The stages of the study, each declared once: what is asked, what is read of the model, and what leaves.

    census -> statistics -> encoders -> meta -> importance -> attention (omega_1 rides along) -> final -> evaluation
    -> intervals

Everything that has to know of a stage reads its declaration here: the hospital's engine and door, the check of a
request, the plan of noise, the dry run, the site file's list of stages, the report's audit, and a table of the docs.
The file is a long one, so that all that may leave stands in one.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from lemof_model import delong, importance, lemof, membership, metrics, training
from lemof_model.errors import DoorError
from lemof_model.features import DISEASES
from lemof_model.stays import AGE_LIMIT_YEARS, NUMERIC_COLUMNS, Rows, Stays, feature_terms
from lemof_model.study import MODALITIES, NUM_LEVELS, SPLITS, Study
from protocol.kinds import RADIUS, Counts, Histogram, Newton, Placements, Sums, Trained
from protocol.messages import (
    AttentionRequest,
    CensusRequest,
    EncodersRequest,
    EvaluationRequest,
    FinalRequest,
    ImportanceRequest,
    IntervalsRequest,
    MetaRequest,
    StatisticsRequest,
)
from protocol.release import MOST, MOST_SCALING, Part, Share, View
from protocol.stage import Stage, by_name

# --- census: who takes part -------------------------------------------------------------------------------------------


def networks_of(study: Study) -> list[str]:
    """All modality networks."""
    return [block for modality in MODALITIES for block in lemof.networks_of(study, modality)]


def taught(stays: Stays, study: Study, block: str) -> Rows:
    """The stays that teach a network: those of ``train``, or of all folds but its own."""
    rows = stays.rows(study.learnt_splits[0], lemof.modality_of(block))
    return rows[stays.network_N[rows] != lemof.network_number(block, study)] if study.folds else rows


def _census_groups(split: str, request: Any) -> list[str]:
    is_empty = split == "train" and request.study.folds > 0
    return [] if is_empty else [f"{split}/{m}{label}" for m in MODALITIES for label in ("", "/0", "/1")]


def _cells(group: str) -> Sequence[str]:
    return [f"{group}/{label}" for label in (0, 1)] if group.count("/") == 1 else ()


def census_part(view: View, group: str) -> Part:
    """The stays of a group of the census: a split and modality, and perhaps an outcome."""
    split, modality, *label = group.split("/")
    rows = view.stays.rows(split, modality)
    return Part(rows[view.stays.long_stay_N[rows] == int(label[0])] if label else rows)


CENSUS = Stage(
    request=CensusRequest,
    does=("counting stays",),
    says="counts of stays by split, outcome and modality; in a study with folds also of those that teach each network",
    reads=(),
    releases=(
        *(
            Counts(groups=partial(_census_groups, split), part=census_part, cells=_cells, most_cells=len(MODALITIES),
                   whole=lambda group: group.replace("/ecg", "/ehr"), minimum="cell",
                   share=Share(split, "census", share))
            for split, share in zip(SPLITS, (0.05, 0.03, 0.1, 0.1), strict=True)
        ),
        Counts(groups=lambda request: networks_of(request.study) if request.study.folds else (), minimum="patients",
               part=lambda view, block: Part(taught(view.stays, view.study, block)), rest="cell",
               cells=lambda _: (), most_cells=0, whole=lambda block: f"stack/{lemof.modality_of(block)}"),
    ),
)  # fmt: skip


# --- statistics: mean and scale of the features -----------------------------------------------------------------------


def _terms(view: View, group: str) -> Part:
    rows = view.stays.rows(view.study.learnt_splits[0])
    return Part(rows, feature_terms(view.stays.features_NF[rows]))


TERM_LIMITS = {"num_present": (0.0, 1.0), "x": (-MOST_SCALING, MOST_SCALING), "x2": (0.0, MOST_SCALING**2)}
"""What a stay adds for a feature: more could stand in no request."""

STATISTICS = Stage(
    request=StatisticsRequest,
    does=("means and scales of the features",),
    says="count, value and squared value of each numeric feature that was measured in at least min_cell stays",
    reads=(),
    finds=("scaling",),
    begin=lambda study, model: {f"scaling/{name}": np.full(len(NUMERIC_COLUMNS), value, np.float32)
                                for name, value in (("mean", 0.0), ("scale", 1.0))},
    releases=(  # without a share: other hospitals' sums, or published values, scale the features of one with a budget
        Sums(groups=lambda request: ("ehr",), part=_terms, minimum="patients", counted_by="num_present",
             counted=lambda r, _: f"{r.study.learnt_splits[0]}/ehr", limits=lambda *_: TERM_LIMITS, squares=("x", "x2"),
             arrays=dict.fromkeys(TERM_LIMITS, len(NUMERIC_COLUMNS))),
    ),
)  # fmt: skip


# --- encoders: rounds of both modality networks -----------------------------------------------------------------------

LOSS_LIMIT = 3.0
"""Public limit of a stay's tuning loss, summed over the outputs of a network (chance level of three: 2.1)."""

LOSSES = Share("tuning", "losses", 0.4)
LOSS_LIMITS = {"loss": (0.0, MOST)}
"""Without a budget a loss is not shortened; a network whose stays lose more on average is lost."""


def _tuning_losses(view: View, modality: str, model: Any, batch_of: Any) -> Part:
    rows = view.stays.rows("tuning", modality)
    log_odds, label = training.log_odds(model, batch_of, rows), view.stays.long_stay_N[rows]
    total = {"loss": np.asarray(training.loss_of(log_odds, label))}
    return Part(rows, {"loss": training.losses(log_odds, label)}, total=total)


def _network_losses(view: View, group: str) -> Part:
    block = group.removeprefix("tuning/")
    return _tuning_losses(view, lemof.modality_of(block), *view.network(block))


def _trained_network(view: View, block: str) -> Part:
    return Part(taught(view.stays, view.study, block), view.network(block))


@lru_cache(maxsize=32)
def _network_shapes(study_json: str, modality: str) -> Mapping[str, tuple[int, ...]]:
    study = Study.from_json(study_json)
    return shapes_of(lemof.part(lemof.initial_networks(study), lemof.networks_of(study, modality)[0]))


def shapes_of(arrays: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of each array."""
    return {name: value.shape for name, value in arrays.items()}


def network_shapes(request: Any, block: str) -> Mapping[str, tuple[int, ...]]:
    """Shapes of a modality network's weights."""
    return _network_shapes(request.study.to_json(), lemof.modality_of(block))


ENCODERS = Stage(
    request=EncodersRequest,
    does=("training the encoders",),
    says="network weights times number of stays; tuning loss",
    reads=("scaling", "ecg", "ehr"),
    finds=MODALITIES,
    begin=lambda study, model: lemof.initial_networks(study),
    times=lambda study, num_steps: study.encoders.num_rounds + 1,
    releases=(
        Sums(groups=lambda request: [f"tuning/{block}" for block in networks_of(request.study)], part=_network_losses,
             counted=lambda _, group: f"tuning/{lemof.modality_of(group.removeprefix('tuning/'))}", minimum="cell",
             share=LOSSES, arrays={"loss": 0}, bound=lambda *_: LOSS_LIMIT, limits=lambda *_: LOSS_LIMITS,
             messages=lambda study: study.encoders.num_rounds + 1),
        Trained(blocks=networks_of, part=_trained_network, minimum="patients", rest="cell",
                counted=lambda request, block: block if request.study.folds else f"train/{block}",
                patients="train", split="train", spec=lambda study: study.encoders, shapes=network_shapes,
                sampled=lambda view: view.stays.rows("train")),
    ),
)  # fmt: skip


# --- meta: the meta prediction of each modality (eq. 4), and the background of Shapley values -------------------------


LEARNER_SPLIT = "stack"
"""What a learner is fitted on: rows that no encoder has learnt."""


def level_inputs(view: View, modality: str) -> Part:
    """What the learner of a modality reads on ``stack``."""
    rows = view.stays.rows(LEARNER_SPLIT, modality)
    return Part(rows, view.bounded(lemof.g_inputs(view.levels[modality][rows], view.study)))


def _input_vectors(view: View, modality: str) -> Part:
    part = level_inputs(view, modality)
    return Part(part.rows, {"inputs": part.each})


def _of_stack(modality: str) -> dict[str, Any]:
    """What all releases about the ``stack`` stays of one modality share."""
    return {"groups": lambda request: (modality,), "counted": lambda *_: f"stack/{modality}", "minimum": "patients"}


META = Stage(
    request=MetaRequest,
    does=("weighing the levels of each encoder",),
    says="gradient, Hessian, loss and number of errors of two logistic learners; sums of their inputs",
    reads=("scaling", "ecg", "ehr", "meta"),
    finds=("meta", "background"),
    begin=lambda study, model: {f"background/{m}": np.zeros(NUM_LEVELS) for m in MODALITIES},
    times=lambda study, num_steps: num_steps,
    releases=tuple(
        release
        for share in (Share("stack", "meta", 0.25),)
        for m in MODALITIES
        for release in (
            Newton(**_of_stack(m), part=level_inputs, share=share, theta=f"meta/{m}",
                   start=(1 / NUM_LEVELS,) * NUM_LEVELS),
            Sums(**_of_stack(m), part=_input_vectors, share=share, arrays={"inputs": NUM_LEVELS},
                 bound=lambda *_: RADIUS, limits=lambda r, _: {"inputs": lemof.input_range(r.study)}),
        )
    ),
)  # fmt: skip


# --- importance: Shapley values (eq. 5), which choose the best level of each modality ---------------------------------


def _shapley(view: View, modality: str) -> Part:
    rows, inputs, *_ = level_inputs(view, modality)
    theta, background = (view.request.model[f"{what}/{modality}"] for what in ("meta", "background"))
    return Part(rows, {"abs_shap": np.abs(importance.shap_values(theta, inputs, background))})


def _shapley_bound(request: Any, modality: str) -> float:
    """``w (x - b)`` has no norm above ``max |w| (norm(x) + norm(b))``."""
    theta, background = (request.model[f"{what}/{modality}"] for what in ("meta", "background"))
    return float(np.abs(theta[:-1]).max() * (RADIUS + np.linalg.norm(background)))


def _shapley_limits(request: Any, modality: str) -> dict[str, tuple[Any, Any]]:
    """``abs(w (x - b))`` by level, with the limits of an input."""
    theta, background = (request.model[f"{what}/{modality}"] for what in ("meta", "background"))
    furthest = np.max([np.abs(limit - background) for limit in lemof.input_range(request.study)], axis=0)
    return {"abs_shap": (0.0, np.abs(theta[:-1]) * furthest)}


IMPORTANCE = Stage(
    request=ImportanceRequest,
    does=("ranking the levels",),
    says="absolute Shapley values of three levels for each modality",
    reads=("scaling", "ecg", "ehr", "meta", "background"),
    finds=("best_level",),
    begin=lambda study, model: {"best_level": np.array([NUM_LEVELS] * len(MODALITIES))},
    releases=tuple(
        Sums(**_of_stack(m), part=_shapley, share=Share("stack", "importance", 0.04), arrays={"abs_shap": NUM_LEVELS},
             bound=_shapley_bound, limits=_shapley_limits)
        for m in MODALITIES
    ),
)  # fmt: skip


# --- attention: rounds of the cross-fit heads (eq. 10-12); omega_1 (eq. 8) rides along --------------------------------


def best_levels(model: Mapping[str, Any]) -> tuple[int, ...]:
    """The best level of each modality in a request's model.

    Raises:
        DoorError: they are missing, or not whole numbers from 1 to 3.
    """
    best, known = model.get("best_level"), set(range(1, NUM_LEVELS + 1))
    is_pair = best is not None and best.dtype.kind in "iu" and best.shape == (len(MODALITIES),)
    if best is None or not is_pair or not set(best.tolist()) <= known:
        raise DoorError(
            rule="best_level must be two levels from 1 to 3", got="others from the coordinator", fix="Nothing was sent."
        )
    return tuple(best.tolist())


@lru_cache(maxsize=32)
def _head_shapes(study_json: str, best: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
    study = Study.from_json(study_json)
    return shapes_of(lemof.part(lemof.initial_heads(study, np.array(best)), lemof.heads_of(study)[0]))


def head_shapes(request: Any, head: str) -> Mapping[str, tuple[int, ...]]:
    """Shapes of a head's weights, between the best levels."""
    return _head_shapes(request.study.to_json(), best_levels(request.model))


def omega_1_inputs(view: View, group: str) -> Part:
    """What omega_1 reads on ``stack``; with ``has_ecg`` where the coefficients have a place for it."""
    rows, model = view.stays.rows(LEARNER_SPLIT), view.request.model
    has_indicator = lemof.has_indicator(model)
    inputs = lemof.omega_1_rows(view.levels, model, view.study, has_indicator=has_indicator)
    return Part(rows, view.bounded(inputs[rows]))


def _head_losses(view: View, group: str) -> Part:
    return _tuning_losses(view, "ehr", *view.head(group.removeprefix("tuning/")))


def _half(half: int, view: View) -> Rows:
    stack: Rows = view.stays.rows("stack")
    of_half: Rows = stack[view.stays.fold_N[stack] == half]
    return of_half


def _trained_head(view: View, head: str) -> Part:
    """A head is trained on its half of the stays that its network learnt nothing of; together they tell of all of
    ``stack``, so the limit is held over that."""
    rows = _half(lemof.half_of(head), view)
    rows = rows[view.stays.network_N[rows] == lemof.network_number(head, view.study)]
    return Part(rows, view.head(head), (view.stays.rows("stack"),))


def _heads_of_half(half: int, study: Study) -> list[str]:
    return [head for head in lemof.heads_of(study) if lemof.half_of(head) == half]


ATTENTION = Stage(
    request=AttentionRequest,
    does=("training the attention",),
    says="weights of two heads (with folds two over each network) times number of stays; tuning loss; of a third "
    "learner, omega_1, the same as above",
    reads=("scaling", "ecg", "ehr", "meta", "best_level", "omega_1", "attention"),
    finds=("omega_1", "attention"),
    begin=lambda study, model: lemof.initial_heads(study, model["best_level"]),
    times=lambda study, num_steps: max(study.attention.training.num_rounds + 1, num_steps),
    releases=(
        Newton(groups=lambda request: ("omega_1",), part=omega_1_inputs, minimum="patients", theta="omega_1",
               start=(0.0, 0.0, 1.0, 0.0), has_ecg=True, share=Share("stack", "omega_1", 0.15),
               counted=lambda *_: "stack/ehr"),  # every stay has an EHR: its meta prediction
        Sums(groups=lambda request: [f"tuning/{head}" for head in lemof.heads_of(request.study)], part=_head_losses,
             minimum="cell", share=LOSSES, arrays={"loss": 0}, bound=lambda *_: LOSS_LIMIT,
             limits=lambda *_: LOSS_LIMITS, counted=lambda *_: "tuning/ehr",
             messages=lambda study: study.attention.training.num_rounds + 1),
        *(
            Trained(blocks=partial(_heads_of_half, half), part=_trained_head, minimum="patients",
                    counted=lambda *_: "stack/ehr", patients=f"stack/{half}", split="stack",
                    spec=lambda study: study.attention.training, shapes=head_shapes, sampled=partial(_half, half),
                    num_folds=lemof.NUM_HEADS)
            for half in range(lemof.NUM_HEADS)
        ),
    ),
)  # fmt: skip


# --- final: the integrated decision (eq. 13) --------------------------------------------------------------------------


def final_inputs(view: View, group: str) -> Part:
    """What the decision reads on ``stack``: omega_2 is that of the head that did not see the patient."""
    rows, model = view.stays.rows(LEARNER_SPLIT), view.request.model
    omega_1 = lemof.omega_1_log_odds(view.levels, model, view.study)[rows]
    omega_2 = lemof.cross_fit(view.omega_2(rows), view.stays.fold_N[rows], np.ones(len(rows), bool))
    return Part(rows, view.bounded(lemof.final_rows(omega_1, omega_2, view.study)))


FINAL = Stage(
    request=FinalRequest,
    does=("fitting the last decision",),
    says="of the last logistic learner the same as of those above",
    reads=("scaling", "ecg", "ehr", "meta", "best_level", "omega_1", "attention", "final"),
    finds=("final",),
    times=lambda study, num_steps: num_steps,
    releases=(
        Newton(groups=lambda request: ("final",), part=final_inputs, minimum="patients", theta="final",
               start=(1.0, 0.0), share=Share("stack", "final", 0.15), counted=lambda *_: "stack/ehr"),
    ),
)  # fmt: skip


# --- evaluation: score histograms, on tuning and then on held_out, with the audit of the model ------------------------

JUDGED = ("tuning", "held_out")
AGES = (f"age:under_{AGE_LIMIT_YEARS}", f"age:{AGE_LIMIT_YEARS}_and_over")
STRATA = (*(f"disease:{name}" for name in DISEASES), "sex:female", "sex:male", *AGES)
"""Groups that an evaluation is stratified by."""


def _scored_groups(split: str, members: Sequence[str], request: Any) -> list[str]:
    """The members' groups by population and outcome, if the request is about this split."""
    named = [f"{p}/{member}/{label}" for p in lemof.POPULATIONS for member in members for label in (0, 1)]
    return named if request.split == split else []


def _scores_in(view: View, split: str, population: str) -> dict[str, Any]:
    """Scores in a population: the ECG alone has none among all stays, where it would tell of the few with an ECG whom
    ``with_ecg`` may be too small to tell of."""
    scores = dict(view.scores(split))
    if population == "all":
        scores["ecg_single"] = np.full(len(scores["ecg_single"]), np.nan)
    return scores


def _scored(split: str, view: View, group: str) -> Part:
    """The scores of a group's stays, and the bins of each."""
    (population, member, label), stays, rows = group.split("/"), view.stays, view.stays.rows(split)
    included = stays.long_stay_N[rows] == int(label)
    if population == "with_ecg":
        included &= stays.has_ecg_N[rows]
    if member != "all":
        included &= view.subgroups[member][rows]
    scores, equal = _scores_in(view, split, population), metrics.bin_edges(view.study.evaluation)
    edges = [view.request.model.get(f"edges/{population}/{variant}", equal) for variant in scores]
    return Part(rows[included], (np.stack([score[included] for score in scores.values()]), edges))


def _counted_by_outcome(request: Any, group: str) -> str:
    population, _, label = group.split("/")
    return f"{request.split}/{'ecg' if population == 'with_ecg' else 'ehr'}/{label}"


def _always_scored(group: str) -> list[int]:
    """Places of the variants that every stay of a group has; a hospital may be without its references."""
    with_ecg = group.startswith("with_ecg/")
    return [lemof.SCORED.index(name) for name in lemof.VARIANTS if with_ecg or name != "ecg_single"]


def _scores_of(split: str, members: Sequence[str], share: float | None) -> Histogram:
    """A stay is in one bin of every variant in one population or both, and in those of references without a budget."""
    return Histogram(
        groups=partial(_scored_groups, split, members), part=partial(_scored, split), minimum="cell",
        counted=_counted_by_outcome, share=None if share is None else Share(split, "evaluation", share),
        shape=lambda request: (len(lemof.SCORED), request.study.evaluation.num_bins),
        is_equal=lambda request: request.split == "tuning", num_noisy=len(lemof.VARIANTS),
        most_bins=len(lemof.VARIANTS) * len(lemof.POPULATIONS),
        complete=_always_scored,
    )  # fmt: skip


def _margins(split: str, view: View, group: str) -> Part:
    """Margins of a network's members, or of others. The limit is held over either outcome: the scores are counted by
    outcome, and would tell the small one as what is left."""
    stays, rows, model = view.stays, view.stays.rows(split), view.request.model
    if group.split("/")[1] == "encoders":
        log_odds = lemof.omega_1_log_odds(view.levels_of_all, model, view.study)[rows]
    else:
        log_odds = view.omega_2(rows).mean(axis=1)
    label = stays.long_stay_N[rows]
    each = membership.margins(log_odds, label)[None], [membership.EDGES]
    return Part(rows, each, (rows[label == 0], rows[label == 1]))


def _margins_of(split: str, groups: Sequence[str], share: float) -> Histogram:
    """A stay is in one bin of each group; in a study with folds ``stack`` taught the encoders as well."""

    def there(study: Study) -> str:
        return study.learnt_splits[0] if split == "train" else split

    return Histogram(
        groups=lambda request: groups if request.split == "held_out" else (),
        part=lambda view, group: _margins(there(view.study), view, group),
        minimum="cell", share=Share(split, "membership", share),
        counted=lambda request, _: f"{there(request.study)}/ehr",
        shape=lambda request: (membership.NUM_BINS,), most_bins=len(groups),
    )  # fmt: skip


HELD_OUT = _scores_of("held_out", ("all",), 0.72)


def _even(study: Study, model: Any) -> dict[str, Any]:
    """Edges, placements and AUROCs before any answer."""
    found: dict[str, Any] = {}
    tables = delong.even(len(lemof.SCORED), study.evaluation.num_bins)
    for population in lemof.POPULATIONS:
        found |= {f"edges/{population}/{name}": metrics.bin_edges(study.evaluation) for name in lemof.SCORED}
        found |= {f"placement/{population}": tables.placement, f"auroc/{population}": tables.auroc}
    return found


EVALUATION = Stage(
    request=EvaluationRequest,
    does=("training references; cuts on tuning patients", "evaluating on held-out patients"),
    says="score histograms by outcome, for all stays, diseases and subgroups; on held-out patients also two of the "
    "membership audit for each learner",
    reads=("scaling", "ecg", "ehr", "meta", "best_level", "omega_1", "attention", "final"),
    finds=("calibration", "edges", "placement", "auroc"),
    begin=_even,
    probes=tuple({"split": split} for split in JUDGED),
    releases=(
        _scores_of("tuning", ("all",), 0.5),
        HELD_OUT,
        _scores_of("held_out", STRATA, None),
        _margins_of("train", ("membership/encoders/members",), 0.05),
        _margins_of("stack", ("membership/attention/members",), 0.03),
        _margins_of("held_out", tuple(f"membership/{network}/others" for network in membership.NETWORKS), 0.15),
    ),
)


# --- intervals: how sure the AUROCs on held_out are, and their differences --------------------------------------------


def _placed(view: View, population: str) -> Part:
    """The scores of a population on ``held_out``. The limit is held over either outcome, whose sums stand apart."""
    stays, rows = view.stays, view.stays.rows("held_out")
    included = stays.has_ecg_N[rows] if population == "with_ecg" else np.ones(len(rows), bool)
    scores = _scores_in(view, "held_out", population)
    edges = [view.request.model[f"edges/{population}/{variant}"] for variant in scores]
    label, rows = stays.long_stay_N[rows[included]], rows[included]
    each = np.stack([score[included] for score in scores.values()]), edges
    return Part(rows, each, (rows[label == 0], rows[label == 1]))


INTERVALS = Stage(
    request=IntervalsRequest,
    does=("intervals on held-out patients",),
    says="sums over patients of squared placements of each score among the other outcome's, and of their differences",
    reads=(*EVALUATION.reads, "edges", "placement", "auroc"),
    releases=(
        Placements(
            groups=lambda request: lemof.POPULATIONS, part=_placed, minimum="cell", scores=HELD_OUT,
            counted=lambda _, population: f"held_out/{'ecg' if population == 'with_ecg' else 'ehr'}",
            full=lemof.SCORED.index("full"), share=Share("held_out", "intervals", 0.03),
        ),
    ),
)  # fmt: skip

LEMOF = (CENSUS, STATISTICS, ENCODERS, META, IMPORTANCE, ATTENTION, FINAL, EVALUATION, INTERVALS)
"""The method of the paper (docs/method.md, section 2): the order is written here alone (``method.py``)."""
METHODS = (LEMOF,)
STAGES = by_name(stage for method in METHODS for stage in method)
"""All that a hospital can be asked."""
WIDTH = max(len(does) for stage in STAGES.values() for does in stage.does)
