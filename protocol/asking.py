"""What a request may bring: every array of its model, by name, with the shape that the plan implies and in bounds.

The shapes come from the study and the schema alone. So nothing that a coordinator sends can take on the length of a
hospital's data, overflow before noise is added, or put a score into a bin that depends on other stays' scores.
"""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemof_model import lemof
from lemof_model.errors import DoorError
from lemof_model.stays import NUMERIC_COLUMNS
from lemof_model.study import MODALITIES, NUM_LEVELS, Study
from protocol.kinds import Newton, Trained
from protocol.messages import Request
from protocol.release import MOST, MOST_SCALING
from protocol.stages import STAGES

RUN = r"[0-9a-f]{16,64}"
LIMITS = {
    "num_rounds": (1, 10_000), "num_epochs": (1, 10_000), "batch_size": (1, 1_000_000), "max_grad_norm": (0, 1e6),
    "num_bins": (4, 100_000), "width": (1, 4_096), "max_steps": (1, 1_000),
}  # fmt: skip
"""What no study has more of, wherever in a plan it stands: more would strain the hospital that computes it."""
MOST_SIZE = 4_096
"""Of an encoder's sizes."""
MOST_ROUNDS = 1_000_000
"""Of a stage's training, with those that a learner goes on for."""

Shapes = dict[str, tuple[tuple[int, ...], ...]]


def check_request(request: Request) -> None:
    """Refuse what no answer may hold, arrays that the plan does not imply, and a model without what the stage reads.

    Raises:
        DoorError: names the first thing that is wrong, and nothing of the hospital.
    """
    if not re.fullmatch(RUN, request.run):
        raise DoorError(
            rule="A run must be named by 16 to 64 hexadecimal digits",
            got="something else from the coordinator",
            fix="Nothing was sent. Begin a new run.",
        )
    _check_sizes(request.study)
    number = getattr(request, "number", 1)
    if not 1 <= number <= MOST_ROUNDS:
        raise DoorError(
            rule=f"number of {request.stage} must be from 1 to {MOST_ROUNDS}",
            got=f"{number} from the coordinator",
            fix="Nothing was sent.",
        )
    stage = STAGES[request.stage]
    shapes = shapes_of_model(request) if request.model or stage.reads else {}
    for name, value in request.model.items():
        allowed = shapes.get(name, ())
        if value.dtype.kind not in ("iu" if name == "best_level" else "f") or value.shape not in allowed:
            raise DoorError(
                rule=f"{request.stage} must come with the plan's arrays",
                got=f"{name} of {value.dtype} and shape {value.shape} from the coordinator",
                fix="Nothing was sent. Ask with the model of this plan.",
            )
        most = MOST_SCALING if name.startswith("scaling/") else MOST
        if not np.isfinite(value).all() or (np.abs(value.astype(np.float64)) > most).any():
            raise DoorError(
                rule=f"{request.stage} must come with finite numbers up to {most:g}",
                got=f"NaN, infinity or more in {name} from the coordinator",
                fix="Nothing was sent. A learning rate that is too high does this.",
            )
        if name.startswith("edges/") and (np.diff(value) < 0).any():
            raise DoorError(
                rule=f"{name} must be in rising order",
                got="others from the coordinator",
                fix="Nothing was sent. Sort them.",
            )
        if name.startswith(("placement/", "auroc/")) and not _are_shares(name, value):
            raise DoorError(
                rule=f"{name} must be shares from 0 to 1, of a table falling for short stays and rising for long ones",
                got="others from the coordinator",
                fix="Nothing was sent. Make them of the histograms.",
            )
    missing = [name for name in shapes if name.split("/")[0] in stage.reads and name not in request.model]
    if missing:
        raise DoorError(
            rule=f"{request.stage} must come with the whole model so far",
            got=f"none of {missing[0]} from the coordinator",
            fix="Nothing was sent.",
        )
    stage.forms(request)


def _are_shares(name: str, value: NDArray[Any]) -> bool:
    """Whether placements and AUROCs are what histograms give: shares, and placements in the order of the bins."""
    within = bool(((value >= 0) & (value <= 1)).all())
    if name.startswith("auroc/"):
        return within
    short, long = value
    return within and bool((np.diff(short) <= 0).all() and (np.diff(long) >= 0).all())


def _check_sizes(study: Study) -> None:
    """Refuse a plan whose numbers no study has, before anything is made of them."""
    sections = {
        "encoders": study.encoders, "attention": study.attention, "attention.training": study.attention.training,
        "logistic": study.logistic, "evaluation": study.evaluation,
    }  # fmt: skip
    encoders = {modality: getattr(study, modality).sizes for modality in MODALITIES}
    sizes = [(f"{m}.sizes.{name}", size, (0, MOST_SIZE)) for m, of in encoders.items() for name, size in of.items()]
    limited = [(at, of, name) for at, of in sections.items() for name in LIMITS if hasattr(of, name)]
    named = [(f"{at}.{name}", getattr(of, name), LIMITS[name]) for at, of, name in limited]
    for name, value, (least, most) in (*named, *sizes):
        if not least <= value <= most:
            raise DoorError(
                rule=f"{name} must be from {least:g} to {most:g}",
                got=f"{value:g} from the plan",
                fix="Nothing was sent. Change the plan.",
            )


def shapes_of_model(request: Request) -> Shapes:
    """Name of each array that a model may have -> its possible shapes."""
    num_bins = request.study.evaluation.num_bins
    shapes: Shapes = {"best_level": ((len(MODALITIES),),)}
    shapes |= {f"scaling/{name}": ((len(NUMERIC_COLUMNS),),) for name in ("mean", "scale")}
    shapes |= {f"background/{modality}": ((NUM_LEVELS,),) for modality in MODALITIES}
    for population in lemof.POPULATIONS:
        shapes |= {f"calibration/{population}/{name}": ((2,),) for name in lemof.SCORED}
        shapes |= {f"edges/{population}/{name}": ((num_bins + 1,),) for name in lemof.SCORED}
        shapes[f"placement/{population}"] = ((2, len(lemof.SCORED), num_bins),)
        shapes[f"auroc/{population}"] = ((len(lemof.SCORED),),)
    for stage in STAGES.values():
        is_known = "best_level" not in stage.reads or "best_level" in request.model
        for release in stage.releases:
            if isinstance(release, Newton):
                shapes[release.theta] = tuple((size,) for size in release.sizes)
            if isinstance(release, Trained) and is_known:
                named = {block: release.shapes(request, block) for block in release.blocks(request.study)}
                shapes |= {f"{block}/{name}": (shape,) for block, of in named.items() for name, shape in of.items()}
    return shapes
