"""What may leave, stage by stage: the exact names, shapes and types that the plan implies, and nothing else.

The list is made from the study, the schema and the few public values of a request (which blocks, which best levels,
whether omega_1 has an indicator), never from what was computed. So no array has an axis whose length depends on how
many stays or patients there are, and an answer has one possible size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.hospital import AGE_LIMIT_YEARS
from lemof_model import lemof, membership
from lemof_model.errors import DoorError
from lemof_model.features import DISEASES
from lemof_model.stays import NUMERIC_COLUMNS
from lemof_model.study import MODALITIES, NUM_LEVELS, SPLITS, Study
from protocol.messages import (
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

STRATA = (
    *(f"disease:{name}" for name in DISEASES),
    "sex:female",
    "sex:male",
    f"age:under_{AGE_LIMIT_YEARS}",
    f"age:{AGE_LIMIT_YEARS}_and_over",
)
"""Groups that an evaluation is stratified by."""

OMEGA_1_SIZES = (5, 6)
MAX_COUNT = 2**31 - 1
SUM = ("float64",)
COUNTS = ("int32", "float64")  # float64 where noise was added
DRAWS = ("uint8", "uint16", "uint32")


@dataclass(frozen=True)
class Form:
    """Shape and possible types of an array."""

    shape: tuple[int, ...]
    dtypes: tuple[str, ...] = SUM

    def fits(self, value: Any) -> bool:
        """Whether a value is such an array."""
        return isinstance(value, np.ndarray) and value.shape == self.shape and value.dtype.name in self.dtypes

    def __str__(self) -> str:
        return f"{' or '.join(self.dtypes)} of shape {self.shape}"


Forms = dict[str, dict[str, Form]]
"""The arrays of each group that an answer may have."""


def forms_of(request: Request) -> Forms:
    """What the answer to a request may hold: groups, and below each its arrays.

    Raises:
        DoorError: the request asks for something that no answer may hold.
    """
    match request:
        case CensusRequest():
            return {name: {} for name in _census_groups()}
        case StatisticsRequest():
            return {"ehr": {name: Form((len(NUMERIC_COLUMNS),)) for name in ("num_present", "x", "x2")}}
        case EncodersRequest():
            sizes = {f"{m}": network_shapes(request.study.to_json(), m) for m in MODALITIES}
            return _trained(request.blocks, sizes)
        case MetaRequest():
            inputs = {"inputs": Form((NUM_LEVELS,))}
            return {m: _newton(NUM_LEVELS + 1) | inputs for m in MODALITIES}
        case ImportanceRequest():
            return {m: {"abs_shap": Form((NUM_LEVELS,))} for m in MODALITIES}
        case AttentionRequest():
            return _attention(request)
        case FinalRequest():
            return {"final": _newton(3)}
        case EvaluationRequest():
            return _evaluation(request)
    raise DoorError(f"A stage must be one of the study's, got {request.stage!r}. Nothing was sent.")


def _census_groups() -> list[str]:
    """Split x modality, and each of these by label."""
    return [f"{split}/{m}{label}" for split in SPLITS for m in MODALITIES for label in ("", "/0", "/1")]


def _trained(blocks: str, sizes: Mapping[str, Mapping[str, tuple[int, ...]]]) -> Forms:
    """Tuning losses of every block, and the weights of those asked for."""
    unknown = sorted(set(blocks.split()) - set(sizes))
    if unknown:
        raise DoorError(
            f"blocks must be among {', '.join(sizes)}, got {', '.join(unknown)!r} from the coordinator. Nothing was "
            "sent. The plan asks for something that this release does not let out."
        )
    forms: Forms = {f"tuning/{block}": {"loss": Form(())} for block in sizes}
    for block in blocks.split():
        forms[block] = {f"weights/{name}": Form(shape) for name, shape in sizes[block].items()}
    return forms


def _newton(size: int) -> dict[str, Form]:
    """Sums of a logistic learner with so many coefficients."""
    return {
        "gradient": Form((size,)),
        "hessian": Form((size, size)),
        "loss": Form(()),
        "noise": Form((2,)),
        "num_errors": Form((), ("int64", "float64")),
    }


def _attention(request: AttentionRequest) -> Forms:
    """Both heads between the best levels, and omega_1's sums."""
    best, theta = best_levels(request.model), request.model.get("omega_1")
    if theta is None or theta.shape not in [(size,) for size in OMEGA_1_SIZES]:
        raise DoorError("omega_1 must have 5 or 6 coefficients, got others from the coordinator. Nothing was sent.")
    shapes = head_shapes(request.study.to_json(), best)
    sizes = {f"attention/{fold}": shapes for fold in range(lemof.NUM_HEADS)}
    return {"omega_1": _newton(len(theta))} | _trained(request.blocks, sizes)


def best_levels(model: Mapping[str, NDArray[Any]]) -> tuple[int, ...]:
    """The best level of each modality in a request's model.

    Raises:
        DoorError: they are missing, or not whole numbers from 1 to 3.
    """
    best, known = model.get("best_level"), set(range(1, NUM_LEVELS + 1))
    if (
        best is None
        or best.dtype.kind not in "iu"
        or best.shape != (len(MODALITIES),)
        or not set(best.tolist()) <= known
    ):
        raise DoorError("best_level must be two levels from 1 to 3, got others from the coordinator. Nothing was sent.")
    return tuple(best.tolist())


def _evaluation(request: EvaluationRequest) -> Forms:
    """Score histograms by population, group and label; on ``held_out`` also those of bootstrap draws and margins."""
    spec, held_out = request.study.evaluation, request.split == "held_out"
    if request.split not in ("tuning", "held_out"):
        raise DoorError(f"evaluation must be on tuning or held_out, got {request.split!r}. Nothing was sent.")
    for name, edges in lemof.part(request.model, "edges").items():
        if edges.shape != (spec.num_bins + 1,):
            raise DoorError(
                f"edges/{name} must be the plan's {spec.num_bins + 1} (evaluation.num_bins), got an array of shape "
                f"{edges.shape} from the coordinator. Nothing was sent. Ask with the plan's bins."
            )
    shape = (len(lemof.SCORED), spec.num_bins)
    histogram, draws = Form(shape, COUNTS), Form((spec.num_bootstraps, *shape), DRAWS)
    forms: Forms = {}
    for population in lemof.POPULATIONS:
        for label in (0, 1):
            forms[f"{population}/all/{label}"] = {"histogram": histogram}
            if held_out:
                forms[f"{population}/all/{label}"]["bootstrap"] = draws
                forms |= {f"{population}/{name}/{label}": {"histogram": histogram} for name in STRATA}
    if held_out:
        margin = {"histogram": Form((membership.NUM_BINS,), COUNTS)}
        forms |= {f"membership/{what}/{who}": margin for what in membership.LEARNERS for who in ("members", "others")}
    return forms


@lru_cache(maxsize=32)
def network_shapes(study_json: str, modality: str) -> dict[str, tuple[int, ...]]:
    """Shapes of a modality network's weights."""
    return _shapes(lemof.part(lemof.initial_networks(Study.from_json(study_json)), modality))


@lru_cache(maxsize=32)
def head_shapes(study_json: str, best_level: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes of an attention head's weights."""
    heads = lemof.initial_heads(Study.from_json(study_json), np.array(best_level))
    return _shapes(lemof.part(heads, "attention/0"))


def _shapes(arrays: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in arrays.items()}
