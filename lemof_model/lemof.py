"""The assembled model: stage by stage from level log-odds to the final prediction.

A model is one flat dict of arrays, the same in a request, in ``model/`` of a run and here:

    scaling/mean, scaling/scale                 numeric features, from the federated sums
    ecg/..., ehr/...                            weights of the two modality networks; with folds ecg/0/... and so on
    meta/ecg, meta/ehr                          G over three level predictions (eq. 4): three weights, intercept
    background/ecg, background/ehr              mean inputs of those, the Shapley background
    best_level                                  (2,) ecg and ehr, counted from 1
    omega_1                                     G over [meta_ecg, best_ecg, meta_ehr, best_ehr] (eq. 8), and has_ecg
    attention/0/..., attention/1/...            the two cross-fit heads (eq. 10-12); with folds two of each network,
                                                attention/0/0/... and so on
    final                                       G over [omega_1, omega_2] (eq. 13)

Shapes: N stays, K levels. Log-odds everywhere; a modality that a stay lacks has log-odds 0.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lemof_model import logistic
from lemof_model.attention import CrossModalAttention
from lemof_model.encoders.registry import build_network
from lemof_model.pyramid import ModalityNetwork
from lemof_model.study import MODALITIES, AttentionSpec, EncoderSpec, Study
from lemof_model.training import derive_seed, from_arrays, to_arrays

Float = NDArray[np.float64]
Model = Mapping[str, NDArray[Any]]

LOG_ODDS_LIMIT = 8.0
NUM_HEADS = 2
VARIANTS = ("ecg_single", "ehr_single", "m1", "m2", "full")
REFERENCES = ("gbdt_ehr", "local_only")
SCORED = (*VARIANTS, *REFERENCES)
COMPARED = tuple(name for name in SCORED if name != "full")
"""What the full model is compared with, over the same stays."""
POPULATIONS = ("with_ecg", "all")


def part(model: Model, prefix: str) -> dict[str, NDArray[Any]]:
    """The arrays below ``prefix/``, without it.

    Example:
        >>> part({"ecg/a": np.ones(1), "ehr/a": np.zeros(1)}, "ecg")
        {'a': array([1.])}
    """
    return {name[len(prefix) + 1 :]: value for name, value in model.items() if name.startswith(f"{prefix}/")}


def prefixed(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The inverse of ``part``."""
    return {f"{prefix}/{name}": value for name, value in arrays.items()}


def networks_of(study: Study, modality: str) -> tuple[str, ...]:
    """The networks of a modality: one, or one for each fold.

    Example:
        >>> networks_of(Study(), "ecg"), networks_of(Study(folds=2), "ecg")
        (('ecg',), ('ecg/0', 'ecg/1'))
    """
    return tuple(f"{modality}/{number}" for number in range(study.folds)) or (modality,)


def heads_of(study: Study) -> tuple[str, ...]:
    """The attention heads: one for each half of the patients that a network learns nothing of.

    Example:
        >>> heads_of(Study()), heads_of(Study(folds=2))[1:3]
        (('attention/0', 'attention/1'), ('attention/0/1', 'attention/1/0'))
    """
    return tuple(f"{of}/{half}" for of in networks_of(study, "attention") for half in range(NUM_HEADS))


def modality_of(block: str) -> str:
    """The modality of a network, or ``attention``."""
    return block.split("/")[0]


def network_number(block: str, study: Study) -> int:
    """Which network of its modality a block is, or reads.

    Example:
        >>> network_number("ehr", Study()), network_number("attention/2/1", Study(folds=4))
        (0, 2)
    """
    return int(block.split("/")[1]) if study.folds else 0


def half_of(head: str) -> int:
    """The half that a head is trained on."""
    return int(head.split("/")[-1])


def initial_networks(study: Study) -> dict[str, NDArray[Any]]:
    """First weights of all modality networks, a function of the study's seed."""
    arrays: dict[str, NDArray[Any]] = {}
    for modality in MODALITIES:
        for block in networks_of(study, modality):
            seed = derive_seed(study.seed, "initial", *block.split("/"))
            arrays |= prefixed(block, to_arrays(build_network(modality, getattr(study, modality), seed)))
    return arrays


def network(study: Study, block: str, model: Model) -> ModalityNetwork:
    """A modality network with the model's weights."""
    modality = modality_of(block)
    built = build_network(modality, getattr(study, modality))
    from_arrays(built, part(model, block))
    return built


def build_head(study: Study, best_level: NDArray[np.int64], seed: int = 0) -> CrossModalAttention:
    """An attention head for the two best levels."""
    specs = [(modality, getattr(study, modality)) for modality in MODALITIES]
    widths = (_token_widths(modality, spec.name, tuple(spec.sizes.items())) for modality, spec in specs)
    ecg, ehr = (of_levels[level - 1] for of_levels, level in zip(widths, best_level.tolist(), strict=True))
    spec: AttentionSpec = study.attention
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CrossModalAttention(ecg, ehr, width=spec.width, dropout=spec.dropout)


@lru_cache(maxsize=32)
def _token_widths(modality: str, name: str, sizes: tuple[tuple[str, float], ...]) -> tuple[int, int, int]:
    """The widths of an encoder's tokens by level; asked for in every round of a head, and only an encoder knows."""
    return build_network(modality, EncoderSpec(name, dict(sizes))).encoder.token_widths


def initial_heads(study: Study, best_level: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """First weights of the cross-fit heads."""
    arrays: dict[str, NDArray[Any]] = {}
    for name in heads_of(study):
        head = build_head(study, best_level, derive_seed(study.seed, "initial", *name.split("/")))
        arrays |= prefixed(name, to_arrays(head))
    return arrays


def attention_head(study: Study, model: Model, name: str) -> CrossModalAttention:
    """A head with the model's weights."""
    head = build_head(study, model["best_level"])
    from_arrays(head, part(model, name))
    return head


def g_inputs(log_odds: Float, study: Study) -> Float:
    """What a logistic learner reads: clipped log-odds, or probabilities (the paper's literal form)."""
    if study.logistic.inputs == "probability":
        return logistic.sigmoid(log_odds)
    return np.clip(log_odds, -LOG_ODDS_LIMIT, LOG_ODDS_LIMIT)


def input_range(study: Study) -> tuple[float, float]:
    """Smallest and largest number that a logistic learner may read.

    Example:
        >>> input_range(Study())
        (-8.0, 8.0)
    """
    return (0.0, 1.0) if study.logistic.inputs == "probability" else (-LOG_ODDS_LIMIT, LOG_ODDS_LIMIT)


def meta_log_odds(level_logit_NK: Float, modality: str, model: Model, study: Study) -> Float:
    """Meta prediction of a modality (eq. 4), 0 where the modality is missing (NaN levels)."""
    present = ~np.isnan(level_logit_NK[:, 0])
    out = np.zeros(len(level_logit_NK))
    out[present] = logistic.decision(model[f"meta/{modality}"], g_inputs(level_logit_NK[present], study))
    return out


def omega_1_rows(levels: Mapping[str, Float], model: Model, study: Study, *, has_indicator: bool) -> Float:
    """Inputs of omega_1: z = [meta_ecg, best_ecg, meta_ehr, best_ehr] (eq. 8), and ``has_ecg`` where it varies."""
    columns = []
    for index, modality in enumerate(MODALITIES):
        best = levels[modality][:, int(model["best_level"][index]) - 1]
        columns += [meta_log_odds(levels[modality], modality, model, study), np.nan_to_num(best, nan=0.0)]
    rows = g_inputs(np.column_stack(columns), study)
    if has_indicator:
        rows = np.column_stack([rows, ~np.isnan(levels["ecg"][:, 0])])
    return rows


def has_indicator(model: Model) -> bool:
    """Whether omega_1 reads ``has_ecg``: the number of coefficients tells."""
    return len(model["omega_1"]) == 6


def omega_1_log_odds(levels: Mapping[str, Float], model: Model, study: Study) -> Float:
    """omega_1 (M1)."""
    rows = omega_1_rows(levels, model, study, has_indicator=has_indicator(model))
    return logistic.decision(model["omega_1"], rows)


def cross_fit(omega_2_N2: Float, fold_N: NDArray[np.int64], in_stack_N: NDArray[np.bool_]) -> Float:
    """omega_2 of each stay: on ``stack`` from the head that did not see the patient, else the mean of both halves'.

    Head f is trained on half f, so a stack stay of half f is read from head 1 - f.
    """
    unseen = omega_2_N2[np.arange(len(fold_N)), 1 - fold_N]
    return np.where(in_stack_N, unseen, omega_2_N2.mean(axis=1))


def final_rows(omega_1_N: Float, omega_2_N: Float, study: Study) -> Float:
    """Inputs of the integrated decision: u = [omega_1, omega_2] (eq. 13)."""
    return g_inputs(np.column_stack([omega_1_N, omega_2_N]), study)


def predict(levels: Mapping[str, Float], omega_2_N: Float, model: Model, study: Study) -> dict[str, Float]:
    """Log-odds of the five variants from cached levels and omega_2; ``ecg_single`` is NaN without an ECG."""
    omega_1 = omega_1_log_odds(levels, model, study)
    ecg = meta_log_odds(levels["ecg"], "ecg", model, study)
    return {
        "ecg_single": np.where(np.isnan(levels["ecg"][:, 0]), np.nan, ecg),
        "ehr_single": meta_log_odds(levels["ehr"], "ehr", model, study),
        "m1": omega_1,
        "m2": omega_2_N,
        "full": logistic.decision(model["final"], final_rows(omega_1, omega_2_N, study)),
    }
