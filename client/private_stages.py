"""The stages of a hospital with a privacy budget: a request in, noisy sums out, everything charged to the ledger.

Same stages, same groups, same keys as ``stages.py``; but what a patient can add to a sum is bounded before it is
summed, every sum gets noise for that bound, and no number of stays is used but the noisy ones of the census. A patient
has one stay (``hospital.py``), so one stay more or less is one patient more or less; ``docs/privacy.md`` derives each
sensitivity.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from client import accounting, egress, frozen, membership
from client.askable import check_model
from client.dp_sgd import Block, train_private
from client.egress import Group
from client.hospital import Hospital
from client.ledger import Ledger, open_ledger
from client.norms import norms_of
from client.privacy import LOSS_LIMIT, RADIUS, Noise, clip_rows
from client.site import SiteConfig
from lemof_model import importance, lemof, logistic, metrics, training
from lemof_model.errors import BudgetError, DoorError, LemofError, TooLittleDataError
from lemof_model.membership import LEARNERS, NUM_BINS
from lemof_model.stays import Rows
from lemof_model.study import MODALITIES, SPLITS, Study
from protocol.messages import (
    Answer,
    AttentionRequest,
    CensusRequest,
    EncodersRequest,
    EvaluationRequest,
    FinalRequest,
    ImportanceRequest,
    MetaRequest,
    Refusal,
    Request,
    StatisticsRequest,
    answer_from_packet,
)

Float = NDArray[np.float64]
Sums = dict[str, NDArray[Any]]

NUM_COARSE_BINS = 20


def answer(site: SiteConfig, hospital: Hospital, request: Request) -> Answer | Refusal:
    """Answer a request within the site's budget: the noisy sums and their price are on disk before they are returned.

    The same request again gets the same bytes. What fails after noise was drawn is charged as well, in fixed words:
    that it failed may tell something of the sums.

    Raises:
        BudgetError: what is asked would pass the budget; nothing is charged.
    """
    assert site.privacy is not None
    check_model(request, is_whole=True)
    _check_plan(request.study)
    with open_ledger(site.privacy.ledger, site.privacy.budget) as ledger:
        if (stored := ledger.stored(request)) is not None:
            return answer_from_packet(stored)
        noise = Noise(_schedule(ledger, request))
        ledger.epsilon_after(request.study, _training_charges(noise, request))  # before anything is computed
        given: Answer | Refusal
        schedule = None
        try:
            groups = groups_of(hospital, request, noise)
            if isinstance(request, CensusRequest):
                curves = {"before": ledger.curves(), "own": ledger.curves(request.study)}
                counts = {group.name: group.num_stays for group in groups}
                schedule = accounting.with_counts(noise.schedule, request.study, site.privacy.budget, counts, **curves)
            norms = norms_of(request, noise.schedule)
            released = egress.release(hospital, site.limits, request, hospital.own(groups), norms)
        except Exception as error:
            if not noise.charges:
                raise
            given = _refused(site, request, error)
        else:
            given = dataclasses.replace(
                released,
                cohort_digest="",  # equal digests would tell that a guessed cohort is the right one
                epsilon=ledger.epsilon_after(request.study, noise.charges),
                delta=site.privacy.delta,
            )
        ledger.append(request, noise.charges, given.to_packet(), schedule)
        return given


def _refused(site: SiteConfig, request: Request, error: Exception) -> Refusal:
    """The refusal of an answer that noise was drawn for. Its words are the same whatever the sums were; only too small
    a group, which the noisy counts tell anyway, has its own."""
    known = error if isinstance(error, LemofError) else LemofError(f"{type(error).__name__} in lemof.")
    refusal = egress.refuse(site.site.name, request, known)
    if isinstance(error, TooLittleDataError) and not isinstance(error, BudgetError):
        return refusal
    return dataclasses.replace(refusal, code=DoorError.exit_status, reason=LemofError.told_outside or "")


def _check_plan(study: Study) -> None:
    """Refuse a plan whose numbers no study has, before any noise is drawn: they would strain what holds the budget."""
    limits = {
        "num_rounds": (1, 10_000), "num_epochs": (1, 10_000), "batch_size": (1, 1_000_000), "max_grad_norm": (1e-6, 1e6)
    }  # fmt: skip
    for section, spec in (("encoders", study.encoders), ("attention.training", study.attention.training)):
        for name, (least, most) in limits.items():
            if not least <= getattr(spec, name) <= most:
                raise DoorError(
                    f"{section}.{name} must be from {least:g} to {most:g} where a hospital has a privacy budget, got "
                    f"{getattr(spec, name):g} from the plan. Nothing was sent. Change the plan."
                )
    if study.evaluation.num_bins > 100_000:
        raise DoorError(
            f"evaluation.num_bins must be at most 100,000 where a hospital has a privacy budget, got "
            f"{study.evaluation.num_bins:,} from the plan. Nothing was sent. Change the plan."
        )


def groups_of(hospital: Hospital, request: Request, noise: Noise) -> list[Group]:
    """The noisy groups of one stage, before the door; ``noise`` knows what they cost."""
    return HANDLERS[type(request)](hospital, request, noise)


def _schedule(ledger: Ledger, request: Request) -> accounting.Schedule:
    """The noise of all releases of this study: a census makes it, of what is left of the budget."""
    if isinstance(request, CensusRequest):
        own = ledger.curves(request.study)
        return accounting.schedule(request.study, ledger.budget, before=ledger.curves(), own=own)
    schedule = ledger.schedule(request.study)
    if schedule is None:
        raise DoorError(f"{request.stage} must come after this study's census, got it before. Begin a new run.")
    return schedule


def _training_charges(noise: Noise, request: Request) -> list[accounting.Charge]:
    """What the stages that take long will cost at least."""
    split = {"encoders": "train", "attention": "stack"}.get(request.stage)
    return [noise.schedule.sgd[request.stage].charge(split)] if split and getattr(request, "blocks", "") else []


def census(hospital: Hospital, request: CensusRequest, noise: Noise) -> list[Group]:
    """Noisy counts by split, label and modality: one vector a split, a patient with an ECG is in two places."""
    groups, stays = [], hospital.stays
    for split in SPLITS:
        rows = {(m, label): stays.rows(split, m) for m in MODALITIES for label in (0, 1)}
        true = [float((stays.long_stay_N[found] == label).sum()) for (_, label), found in rows.items()]
        noisy = noise.vector(split, "census", np.array(true), sensitivity=math.sqrt(len(MODALITIES)))
        counts = dict(zip(rows, np.maximum(noisy.round(), 0).astype(int).tolist(), strict=True))
        if not hospital.has_ecgs:  # known of the hospital, not of a patient: noise must not make up any
            counts |= {("ecg", label): 0 for label in (0, 1)}
        for modality in MODALITIES:
            name = f"{split}/{modality}"
            groups.append(_group(name, counts[modality, 0] + counts[modality, 1], "patients"))
            groups += [_group(f"{name}/{label}", counts[modality, label], "cell") for label in (0, 1)]
    return groups


def statistics(hospital: Hospital, request: StatisticsRequest, noise: Noise) -> list[Group]:
    """Nothing: other hospitals' sums, or published values, scale the features as well."""
    return []


def encoders(hospital: Hospital, request: EncodersRequest, noise: Noise) -> list[Group]:
    """Noisy tuning losses of the weights that came; then one round of DP-SGD of both networks, one mechanism."""
    counts, networks, batches = noise.schedule.counts, {}, {}
    for modality in MODALITIES:
        if counts[f"train/{modality}"] or counts[f"tuning/{modality}"]:
            networks[modality] = lemof.network(hospital.study, modality, request.model)
            batches[modality] = frozen.batches_of(hospital, modality, request.model)
    groups = []
    if request.number <= hospital.study.encoders.num_rounds + 1:
        groups = _tuning_losses(hospital, networks, batches, noise, by_modality=True)
    wanted = [m for m in networks if m in request.blocks.split()]
    rows = {modality: hospital.stays.rows("train", modality) for modality in wanted}
    blocks = {m: Block(networks[m], batches[m], rows[m]) for m in wanted}
    sizes = {m: (counts[f"train/{m}"],) * 2 for m in wanted}
    return groups + _trained(hospital, request, noise, "train", blocks, hospital.stays.rows("train"), sizes)


def meta(hospital: Hospital, request: MetaRequest, noise: Noise) -> list[Group]:
    """Noisy Newton sums of both modality meta-learners, and of their inputs."""
    level, groups = frozen.levels(hospital, request.model), []
    for modality in _present(noise, "stack"):
        rows = hospital.stays.rows("stack", modality)
        inputs = _clipped(lemof.g_inputs(level[modality][rows], hospital.study))
        sums = _newton_sums(hospital, request.model[f"meta/{modality}"], inputs, rows, noise, "meta")
        sums["inputs"] = noise.vector("stack", "meta", inputs.sum(axis=0), sensitivity=RADIUS)
        groups.append(_group(modality, noise.schedule.counts[f"stack/{modality}"], "patients", sums))
    return groups


def level_importance(hospital: Hospital, request: ImportanceRequest, noise: Noise) -> list[Group]:
    """Noisy sums of absolute Shapley values ``|w (x - b)|``, of norm ``max |w| (R + |b|)`` at most."""
    level, groups = frozen.levels(hospital, request.model), []
    for modality in _present(noise, "stack"):
        rows = hospital.stays.rows("stack", modality)
        inputs = _clipped(lemof.g_inputs(level[modality][rows], hospital.study))
        theta, background = request.model[f"meta/{modality}"], request.model[f"background/{modality}"]
        most = float(np.abs(theta[:-1]).max() * (RADIUS + np.linalg.norm(background)))
        total = importance.importance_sums(theta, inputs, background)
        sums: Sums = {"abs_shap": noise.vector("stack", "importance", total, sensitivity=most)}
        groups.append(_group(modality, noise.schedule.counts[f"stack/{modality}"], "patients", sums))
    return groups


def attention(hospital: Hospital, request: AttentionRequest, noise: Noise) -> list[Group]:
    """Noisy tuning losses of both heads, then DP-SGD of each on its fold; omega_1's noisy sums ride on the first
    message."""
    study, stays, counts = hospital.study, hospital.stays, noise.schedule.counts
    stack, num_stack, groups = stays.rows("stack"), counts["stack/ehr"], []
    tokens = frozen.Tokens(hospital, request.model)
    if request.number == 1:
        theta, level = request.model["omega_1"], frozen.levels(hospital, request.model)
        inputs = _clipped(lemof.omega_1_rows(level, request.model, study, has_indicator=len(theta) == 6)[stack])
        sums = _newton_sums(hospital, theta, inputs, stack, noise, "omega_1")
        groups.append(_group("omega_1", num_stack, "patients", sums))
    names = [f"attention/{fold}" for fold in range(lemof.NUM_HEADS)]
    heads = {name: lemof.attention_head(study, request.model, fold) for fold, name in enumerate(names)}
    if request.number <= study.attention.training.num_rounds + 1:
        groups += _tuning_losses(hospital, heads, dict.fromkeys(names, tokens.batch), noise, by_modality=False)
    for fold, name in enumerate(names):
        rows = stack[stays.fold_N[stack] == fold]
        blocks = {name: Block(heads[name], tokens.batch, rows)} if name in request.blocks.split() else {}
        sizes = {name: (num_stack // lemof.NUM_HEADS, num_stack)}
        groups += _trained(hospital, request, noise, f"stack/{fold}", blocks, rows, sizes)
    return groups


def final(hospital: Hospital, request: FinalRequest, noise: Noise) -> list[Group]:
    """Noisy Newton sums of the integrated decision."""
    stack, model = hospital.stays.rows("stack"), request.model
    omega_1 = lemof.omega_1_log_odds(frozen.levels(hospital, model), model, hospital.study)[stack]
    heads = frozen.omega_2(hospital, model, stack)
    omega_2 = lemof.cross_fit(heads, hospital.stays.fold_N[stack], np.ones(len(stack), bool))
    inputs = _clipped(lemof.final_rows(omega_1, omega_2, hospital.study))
    sums = _newton_sums(hospital, model["final"], inputs, stack, noise, "final")
    return [_group("final", noise.schedule.counts["stack/ehr"], "patients", sums)]


def evaluation(hospital: Hospital, request: EvaluationRequest, noise: Noise) -> list[Group]:
    """Noisy score histograms of the variants by label and population, coarse; nothing by disease or subgroup, no
    bootstrap, no references (their rows are zero)."""
    if request.split not in ("tuning", "held_out"):
        raise DoorError(f"evaluation must be on tuning or held_out, got {request.split!r}.")
    rows, study, model = hospital.stays.rows(request.split), hospital.study, request.model
    stays = hospital.stays.select(rows)
    level = {m: value[rows] for m, value in frozen.levels(hospital, model).items()}
    scores = lemof.predict(level, frozen.omega_2(hospital, model, rows).mean(axis=1), model, study)
    equal, cells = metrics.bin_edges(study.evaluation), []
    for population in lemof.POPULATIONS:
        edges = [model.get(f"edges/{population}/{name}", equal) for name in lemof.VARIANTS]
        included = stays.has_ecg_N if population == "with_ecg" else np.ones(len(rows), bool)
        for label in (0, 1):
            index = np.flatnonzero(included & (stays.long_stay_N == label))
            counted = metrics.histograms(np.stack([scores[name][index] for name in lemof.VARIANTS]), edges)
            cells.append((population, label, counted))
    starts = coarse_starts(study.evaluation.num_bins, is_equal=request.split == "tuning")
    coarse = np.stack([np.add.reduceat(counted, starts, axis=1) for _, _, counted in cells]).astype(np.float64)
    most = math.sqrt(len(lemof.POPULATIONS) * len(lemof.VARIANTS))
    noisy = noise.vector(request.split, "evaluation", coarse, sensitivity=most)
    groups = []
    for (population, label, _), histogram in zip(cells, noisy, strict=True):
        fine = np.zeros((len(lemof.SCORED), study.evaluation.num_bins))
        fine[: len(lemof.VARIANTS)] = spread(histogram, starts, study.evaluation.num_bins)
        modality = "ecg" if population == "with_ecg" else "ehr"
        num_stays = noise.schedule.counts[f"{request.split}/{modality}/{label}"]
        groups.append(_group(f"{population}/all/{label}", num_stays, "cell", {"histogram": fine}))
    return groups + (_membership(hospital, model, noise) if request.split == "held_out" else [])


def _membership(hospital: Hospital, model: lemof.Model, noise: Noise) -> list[Group]:
    """Noisy histograms of the membership audit. A member is in one of them, a ``held_out`` patient in one for each
    learner."""
    starts = coarse_starts(NUM_BINS, is_equal=True)
    by_split: dict[str, list[tuple[str, NDArray[Any]]]] = {}
    for group in membership.audit(hospital, model):
        _, learner, who = group.name.split("/")
        split = LEARNERS[learner] if who == "members" else "held_out"
        by_split.setdefault(split, []).append((group.name, np.add.reduceat(group.sums["histogram"], starts)))
    groups = []
    for split, counted in by_split.items():
        coarse = np.stack([histogram for _, histogram in counted]).astype(np.float64)
        noisy = noise.vector(split, "membership", coarse, sensitivity=math.sqrt(len(counted)))
        for (name, _), histogram in zip(counted, noisy, strict=True):
            sums: Sums = {"histogram": spread(histogram, starts, NUM_BINS)}
            groups.append(_group(name, noise.schedule.counts[f"{split}/ehr"], "cell", sums))
    return groups


def coarse_starts(num_bins: int, *, is_equal: bool) -> NDArray[np.int64]:
    """Where each of 20 coarse bins begins among the request's bins. Bins of equal width are merged more finely towards
    log-odds 0, where scores are; others have been fitted to the scores already.

    Example:
        >>> coarse_starts(400, is_equal=True)[[0, 1, 9, 10, 11, 19]].tolist()
        [0, 38, 198, 200, 202, 362]
    """
    place = np.linspace(-1.0, 1.0, NUM_COARSE_BINS + 1)
    if is_equal:
        place = np.sign(place) * place**2
    starts = np.unique(np.round((place[:-1] + 1) / 2 * num_bins).astype(np.int64))
    return starts[starts < num_bins]


def spread(coarse: Float, starts: NDArray[np.int64], num_bins: int) -> Float:
    """Coarse counts, divided evenly among the bins that they were added up from."""
    widths = np.diff(np.append(starts, num_bins))
    return np.asarray(np.repeat(coarse / widths, widths, axis=-1))


def _group(name: str, num_stays: int, minimum: Literal["patients", "cell"], sums: Sums | None = None) -> Group:
    """A group for the door, which knows its noisy size alone."""
    return Group(name, num_stays, num_stays, minimum, sums or {})


def _present(noise: Noise, split: str) -> list[str]:
    """Modalities that the noisy census found anybody with."""
    return [modality for modality in MODALITIES if noise.schedule.counts[f"{split}/{modality}"]]


def _clipped(rows_NP: Float) -> Float:
    """Inputs of a logistic learner whose rows ``[x, 1]`` are of norm ``RADIUS`` at most; no number at all is 0."""
    return clip_rows(np.nan_to_num(rows_NP, nan=0.0))


def _newton_sums(hospital: Hospital, theta: Float, inputs: Float, rows: Rows, noise: Noise, name: str) -> Sums:
    """Noisy gradient (a stay adds ``(p - y) [x, 1]``) and Hessian (``p (1 - p) [x, 1] [x, 1]^T``). The loss and the
    number of errors, which nothing needs when steps are fixed, do not leave: they are 0. ``noise`` is the variance of
    the noise in a coordinate of the gradient and in a diagonal element of the Hessian: the server's steps heed it."""
    found = logistic.sums(theta, inputs, hospital.stays.long_stay_N[rows])
    return {
        "gradient": noise.vector("stack", name, found.gradient, sensitivity=RADIUS),
        "hessian": noise.symmetric("stack", name, found.hessian, sensitivity=RADIUS**2 / 4),
        "noise": (noise.schedule.noise[f"stack/{name}"] * np.array([RADIUS, RADIUS**2 / 4])) ** 2,
        "loss": np.zeros(()),
        "num_errors": np.zeros((), np.int64),
    }


def _tuning_losses(
    hospital: Hospital, models: dict[str, Any], batches: dict[str, Any], noise: Noise, *, by_modality: bool
) -> list[Group]:
    """Noisy tuning loss of each block, as one vector: a stay adds ``LOSS_LIMIT`` at most in each place."""
    if not models:
        return []
    totals, label = [], hospital.stays.long_stay_N
    modality_of = {block: block if by_modality else "ehr" for block in models}
    for block, model in models.items():
        rows = hospital.stays.rows("tuning", modality_of[block])
        logit = np.nan_to_num(training.log_odds(model, batches[block], rows), nan=0.0, posinf=1e6, neginf=-1e6)
        loss_N = (np.logaddexp(0.0, logit) - logit * label[rows][:, None]).sum(axis=1)
        totals.append(float(np.minimum(loss_N, LOSS_LIMIT).sum()))
    most = LOSS_LIMIT * math.sqrt(len(models))
    noisy = noise.vector("tuning", "losses", np.array(totals), sensitivity=most)
    sizes = {block: noise.schedule.counts[f"tuning/{modality}"] for block, modality in modality_of.items()}
    return [
        _group(f"tuning/{block}", sizes[block], "cell", {"loss": np.asarray(loss)})
        for block, loss in zip(models, noisy, strict=True)
    ]


def _trained(
    hospital: Hospital,
    request: EncodersRequest | AttentionRequest,
    noise: Noise,
    part: str,
    blocks: dict[str, Block],
    rows: Rows,
    sizes: Mapping[str, tuple[int, int]],
) -> list[Group]:
    """One round of DP-SGD of these blocks over ``rows``, the stays of ``part``; weights times noisy numbers of stays.

    ``sizes`` has two of these for each block: what its weights are multiplied by, and what its minimum counts.
    """
    if not blocks:
        return []
    is_head = request.stage == "attention"
    spec = hospital.study.attention.training if is_head else hospital.study.encoders
    sgd, counts = noise.sgd(part, request.stage), noise.schedule.counts
    num_stays = counts["stack/ehr"] / lemof.NUM_HEADS if is_head else counts["train/ehr"]
    train_private(
        blocks, hospital.stays.long_stay_N, rows, spec, noise_multiplier=sgd.noise_multiplier,
        sample_rate=sgd.sample_rate, steps=sgd.steps, batch_size=max(sgd.sample_rate * num_stays, 1.0),
        random=noise.random, number=request.number, proximal_mu=hospital.study.strategy.proximal_mu,
    )  # fmt: skip
    groups = []
    for name, block in blocks.items():
        times, num_patients = sizes[name]
        weights = training.to_arrays(block.model).items()
        sums: Sums = {f"weights/{key}": value.astype(np.float64) * times for key, value in weights}
        groups.append(Group(name, num_patients, times, "patients", sums))
    return groups


HANDLERS: dict[type[Request], Callable[[Hospital, Any, Noise], list[Group]]] = {
    CensusRequest: census,
    StatisticsRequest: statistics,
    EncodersRequest: encoders,
    MetaRequest: meta,
    ImportanceRequest: level_importance,
    AttentionRequest: attention,
    FinalRequest: final,
    EvaluationRequest: evaluation,
}
