"""One handler per stage of the protocol: a request in, sums over this hospital's stays out.

A handler sees one hospital and one request; it keeps nothing between calls but the cache of what is frozen, so a
request that is repeated gets the same answer, to the bit. What it returns are groups of patients; ``egress.release``
alone decides what leaves. A hospital with a privacy budget has handlers of its own (``private_stages.py``).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from client import egress, frozen, membership, private_stages
from client.egress import Group
from client.hospital import Hospital, open_hospital
from client.references import reference_scores
from client.site import SiteConfig
from lemof_model import importance, lemof, logistic, metrics, training
from lemof_model.errors import DoorError, LemofError, VersionError
from lemof_model.features import schema_digest
from lemof_model.stays import Rows, feature_sums
from lemof_model.study import MODALITIES, SPLITS
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
)

LEARNER_SPLIT = "stack"


def answer(site: SiteConfig, request: Request) -> Answer | Refusal:
    """Answer a request, or say why not. Nothing that a user can mend is raised."""
    torch.set_num_threads(1)  # one thread under every engine: equal bits, and no two processes fighting for cores
    try:
        egress.admit(site.limits, request)
        with threadpool_limits(1):  # numpy's too: its sums depend on how many threads share them
            hospital = open_hospital(site, request.study)
            if isinstance(request, CensusRequest):
                _check_schema(request)
            if site.privacy is not None:
                return private_stages.answer(site, hospital, request)
            groups = hospital.own(HANDLERS[type(request)](hospital, request))
            return egress.release(hospital, site.limits, request, groups)
    except LemofError as error:
        return egress.refuse(site.site.name, request, error)


def _check_schema(request: CensusRequest) -> None:
    """Both sides must mean the same by the columns of a cohort."""
    if request.schema_digest != schema_digest():
        raise VersionError(
            f"The feature schema digest must be {schema_digest()[:12]}, got {request.schema_digest[:12]} from the "
            "coordinator. Install the same lemof release on both sides."
        )


def census(hospital: Hospital, request: CensusRequest) -> list[Group]:
    """Counts by split, label and modality."""
    groups = []
    for split in SPLITS:
        for modality in MODALITIES:
            rows = hospital.stays.rows(split, modality)
            groups.append(_group(hospital, f"{split}/{modality}", rows, "patients"))
            for label in (0, 1):
                labelled = rows[hospital.stays.long_stay_N[rows] == label]
                whole = f"{split}/{modality}"
                groups.append(_group(hospital, f"{whole}/{label}", labelled, "cell", within=(whole,)))
    return groups


def statistics(hospital: Hospital, request: StatisticsRequest) -> list[Group]:
    """Count, x and x^2 of every numeric feature on ``train``."""
    rows = hospital.stays.rows("train")
    sums = feature_sums(hospital.stays.features_NF[rows])
    return [_group(hospital, "ehr", rows, "patients", sums, counted_by="num_present")]


def encoders(hospital: Hospital, request: EncodersRequest) -> list[Group]:
    """Tuning loss of the weights that came; then one round of training, weights times stays."""
    groups, label = [], hospital.stays.long_stay_N
    for modality in MODALITIES:
        network = lemof.network(hospital.study, modality, request.model)
        batch_of = frozen.batches_of(hospital, modality, request.model)
        tuning = hospital.stays.rows("tuning", modality)
        loss = training.loss_of(training.log_odds(network, batch_of, tuning), label[tuning])
        groups.append(_group(hospital, f"tuning/{modality}", tuning, "cell", {"loss": np.asarray(loss)}))
        rows = hospital.stays.rows("train", modality)
        if modality in request.blocks.split() and len(rows):
            groups.append(_trained(hospital, request, modality, network, batch_of, rows, rows))
    return groups


def meta(hospital: Hospital, request: MetaRequest) -> list[Group]:
    """Newton sums of both modality meta-learners (eq. 4), and of their inputs."""
    level, groups = frozen.levels(hospital, request.model), []
    for modality in MODALITIES:
        rows = hospital.stays.rows(LEARNER_SPLIT, modality)
        inputs = lemof.g_inputs(level[modality][rows], hospital.study)
        sums = _newton_sums(hospital, request.model[f"meta/{modality}"], inputs, rows)
        sums["inputs"] = inputs.sum(axis=0)
        groups.append(_group(hospital, modality, rows, "patients", sums))
    return groups


def level_importance(hospital: Hospital, request: ImportanceRequest) -> list[Group]:
    """Summed absolute Shapley values of the level predictions (eq. 5)."""
    level, groups = frozen.levels(hospital, request.model), []
    for modality in MODALITIES:
        rows = hospital.stays.rows(LEARNER_SPLIT, modality)
        inputs = lemof.g_inputs(level[modality][rows], hospital.study)
        theta, background = request.model[f"meta/{modality}"], request.model[f"background/{modality}"]
        sums = {"abs_shap": importance.importance_sums(theta, inputs, background)}
        groups.append(_group(hospital, modality, rows, "patients", sums))
    return groups


def attention(hospital: Hospital, request: AttentionRequest) -> list[Group]:
    """Both cross-fit heads: tuning loss, then a round of training on their folds; omega_1's Newton sums ride along."""
    stays, label = hospital.stays, hospital.stays.long_stay_N
    stack, tuning = stays.rows(LEARNER_SPLIT), stays.rows("tuning")
    level, tokens = frozen.levels(hospital, request.model), frozen.Tokens(hospital, request.model)
    theta = request.model["omega_1"]
    inputs = lemof.omega_1_rows(level, request.model, hospital.study, has_indicator=len(theta) == 6)[stack]
    groups = [_group(hospital, "omega_1", stack, "patients", _newton_sums(hospital, theta, inputs, stack))]
    for fold in range(lemof.NUM_HEADS):
        block, head = f"attention/{fold}", lemof.attention_head(hospital.study, request.model, fold)
        loss = training.loss_of(training.log_odds(head, tokens.batch, tuning), label[tuning])
        groups.append(_group(hospital, f"tuning/{block}", tuning, "cell", {"loss": np.asarray(loss)}))
        rows = stack[stays.fold_N[stack] == fold]
        if block in request.blocks.split() and len(rows):
            groups.append(_trained(hospital, request, block, head, tokens.batch, rows, stack))
    return groups


def final(hospital: Hospital, request: FinalRequest) -> list[Group]:
    """Newton sums of the integrated decision (eq. 13), on the omega_2 of the head that did not see the patient."""
    stack, model = hospital.stays.rows(LEARNER_SPLIT), request.model
    omega_1 = lemof.omega_1_log_odds(frozen.levels(hospital, model), model, hospital.study)[stack]
    heads = frozen.omega_2(hospital, model, stack)
    omega_2 = lemof.cross_fit(heads, hospital.stays.fold_N[stack], np.ones(len(stack), bool))
    inputs = lemof.final_rows(omega_1, omega_2, hospital.study)
    return [_group(hospital, "final", stack, "patients", _newton_sums(hospital, model["final"], inputs, stack))]


def evaluation(hospital: Hospital, request: EvaluationRequest) -> list[Group]:
    """Score histograms by label for each variant, population and group; on ``held_out`` with bootstrap histograms."""
    if request.split not in ("tuning", "held_out"):
        raise DoorError(f"evaluation must be on tuning or held_out, got {request.split!r}.")
    rows, study, model = hospital.stays.rows(request.split), hospital.study, request.model
    stays = hospital.stays.select(rows)
    level = {m: value[rows] for m, value in frozen.levels(hospital, model).items()}
    omega_2 = frozen.omega_2(hospital, model, rows).mean(axis=1)
    scores = lemof.predict(level, omega_2, model, study)
    scores |= {name: value[rows] for name, value in reference_scores(hospital).items()}
    scores_VN = np.stack([scores[name] for name in lemof.SCORED])
    held_out = request.split == "held_out"
    weights = _bootstrap_weights(hospital, stays.patient_N) if held_out and study.evaluation.num_bootstraps else None
    groups = []
    for population in lemof.POPULATIONS:
        included = stays.has_ecg_N if population == "with_ecg" else np.ones(len(rows), bool)
        equal = metrics.bin_edges(study.evaluation)
        edges = [model.get(f"edges/{population}/{name}", equal) for name in lemof.SCORED]
        named = {"all": included}
        if held_out:
            named |= {name: included & member[rows] for name, member in hospital.groups.items()}
        for name, member in named.items():
            by_label = [np.flatnonzero(member & (stays.long_stay_N == label)) for label in (0, 1)]
            for label, index in enumerate(by_label):
                sums: dict[str, NDArray[Any]] = {"histogram": metrics.histograms(scores_VN[:, index], edges)}
                if weights is not None and name == "all":
                    sums["bootstrap"] = metrics.bootstrap_histograms(scores_VN[:, index], edges, weights[:, index])
                group = _group(hospital, f"{population}/{name}/{label}", rows[index], "cell", sums)
                if name == "all":  # both labels together are counted with losses and margins
                    group = replace(group, num_others=hospital.stays.num_patients(rows[by_label[1 - label]]))
                else:
                    unnamed = np.flatnonzero(included & _unnamed(hospital, name)[rows] & (stays.long_stay_N == label))
                    num_others = hospital.stays.num_patients(rows[unnamed])
                    group = replace(group, within=(f"{population}/all/{label}",), num_others=num_others)
                groups.append(group)
    return groups + (membership.audit(hospital, model) if held_out else [])


def _unnamed(hospital: Hospital, name: str) -> NDArray[np.bool_]:
    """Stays in no group of this one's kind, where each is in one at most: what is left when all of them are added."""
    kind = name.partition(":")[0]
    if kind == "disease":  # a stay may be in several
        return np.zeros(len(hospital.stays.patient_N), bool)
    of_kind = [member for other, member in hospital.groups.items() if other.startswith(f"{kind}:")]
    return np.asarray(~np.any(of_kind, axis=0), bool)


def _group(
    hospital: Hospital,
    name: str,
    rows: Rows,
    minimum: Literal["patients", "cell"],
    sums: dict[str, NDArray[Any]] | None = None,
    *,
    within: tuple[str, ...] = (),
    counted_by: str = "",
) -> Group:
    """A group of patients for the door."""
    return Group(name, hospital.stays.num_patients(rows), len(rows), minimum, sums or {}, within, counted_by)


def _trained(
    hospital: Hospital,
    request: EncodersRequest | AttentionRequest,
    block: str,
    model: Any,
    batch_of: Any,
    rows: Rows,
    about: Rows,
) -> Group:
    """Train one block on ``rows`` and return its weights times stays. The minimum counts the patients of ``about``."""
    study = hospital.study
    spec = study.encoders if request.stage == "encoders" else study.attention.training
    seed = training.derive_seed(study.seed, hospital.name, request.stage, block, request.round)
    known: dict[str, Any] = {"seed": seed, "number": request.number, "proximal_mu": study.strategy.proximal_mu}
    training.train(model, batch_of, hospital.stays.long_stay_N, rows, spec, **known)
    sums: dict[str, NDArray[Any]] = {
        f"weights/{name}": value.astype(np.float64) * len(rows) for name, value in training.to_arrays(model).items()
    }
    return Group(block, hospital.stays.num_patients(about), len(rows), "patients", sums)


def _newton_sums(hospital: Hospital, theta: NDArray[np.float64], inputs: Any, rows: Rows) -> dict[str, NDArray[Any]]:
    """Gradient, Hessian and loss of a logistic learner over these rows, and how many it has on the wrong side."""
    label = hospital.stays.long_stay_N[rows]
    sums = logistic.sums(theta, inputs, label)._asdict()
    return {**sums, "num_errors": np.asarray(logistic.num_errors(theta, inputs, label))}


def _bootstrap_weights(hospital: Hospital, patient_N: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Poisson(1) weights ``(draws, N)`` by patient, the same for every variant.

    The cohort's own digest, which never leaves, is part of the seed: whoever knew the weights could solve the draws for
    each patient's score and label.
    """
    seed = training.derive_seed(hospital.study.seed, hospital.name, "bootstrap", hospital.cohort_digest)
    rng = np.random.default_rng(seed)
    patients, position = np.unique(patient_N, return_inverse=True)
    drawn = rng.poisson(1.0, (hospital.study.evaluation.num_bootstraps, len(patients)))
    return drawn[:, position].astype(np.uint8)


HANDLERS: dict[type[Request], Callable[[Hospital, Any], list[Group]]] = {
    CensusRequest: census,
    StatisticsRequest: statistics,
    EncodersRequest: encoders,
    MetaRequest: meta,
    ImportanceRequest: level_importance,
    AttentionRequest: attention,
    FinalRequest: final,
    EvaluationRequest: evaluation,
}
