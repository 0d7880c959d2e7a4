"""What a request may bring: every array of its model, by name, with the shape that the plan implies and in bounds.

The shapes come from the study and the schema alone. So nothing that a coordinator sends can take on the length of a
hospital's data, overflow before noise is added, or put a score into a bin that depends on other stays' scores.
"""

import numpy as np

from client.allowed import OMEGA_1_SIZES, best_levels, head_shapes, network_shapes
from lemof_model import lemof
from lemof_model.errors import DoorError
from lemof_model.stays import NUMERIC_COLUMNS
from lemof_model.study import MODALITIES, NUM_LEVELS
from protocol.messages import Request

MOST = 1e6
MOST_SCALING = 1e9

NEEDED = {
    "census": (),
    "statistics": (),
    "encoders": ("scaling", "ecg", "ehr"),
    "meta": ("scaling", "ecg", "ehr", "meta"),
    "importance": ("scaling", "ecg", "ehr", "meta", "background"),
    "attention": ("scaling", "ecg", "ehr", "meta", "best_level", "omega_1", "attention"),
    "final": ("scaling", "ecg", "ehr", "meta", "best_level", "omega_1", "attention", "final"),
    "evaluation": ("scaling", "ecg", "ehr", "meta", "best_level", "omega_1", "attention", "final"),
}
"""Parts of the model (first words of its names) that a stage reads: all of each, or none of the answer."""


def check_model(request: Request, *, is_whole: bool) -> None:
    """Refuse arrays that the plan does not imply; with ``is_whole`` also a model that lacks what the stage reads.

    Raises:
        DoorError: names the first one that is wrong, and nothing of the hospital.
    """
    shapes = _shapes(request)
    for name, value in request.model.items():
        allowed = shapes.get(name, ())
        if value.dtype.kind not in "fiu" or value.shape not in allowed:
            raise DoorError(
                f"{request.stage} must come with the plan's arrays, got {name} of {value.dtype} and shape "
                f"{value.shape} from the coordinator. Nothing was sent. Ask with the model of this plan."
            )
        most = MOST_SCALING if name.startswith("scaling/") else MOST
        if not np.isfinite(value).all() or (np.abs(value.astype(np.float64)) > most).any():
            raise DoorError(
                f"{request.stage} must come with finite numbers up to {most:g}, got NaN, infinity or more in {name} "
                "from the coordinator. Nothing was sent. A learning rate that is too high does this."
            )
        if name.startswith("edges/") and (np.diff(value) < 0).any():
            raise DoorError(
                f"{name} must be in rising order, got others from the coordinator. Nothing was sent. Sort them."
            )
    needed = [name for name in shapes if name.split("/")[0] in NEEDED[request.stage]] if is_whole else []
    missing = [name for name in needed if name not in request.model]
    if missing:
        raise DoorError(
            f"{request.stage} must come with the whole model so far, got none of {missing[0]} from the coordinator. "
            "Nothing was sent."
        )


def _shapes(request: Request) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Name of each array that a model may have -> its possible shapes."""
    study = request.study
    text = study.to_json()
    shapes: dict[str, tuple[tuple[int, ...], ...]] = {
        "best_level": ((len(MODALITIES),),),
        "omega_1": tuple((size,) for size in OMEGA_1_SIZES),
        "final": ((3,),),
    }
    shapes |= {f"scaling/{name}": ((len(NUMERIC_COLUMNS),),) for name in ("mean", "scale")}
    for modality in MODALITIES:
        shapes |= {f"meta/{modality}": ((NUM_LEVELS + 1,),), f"background/{modality}": ((NUM_LEVELS,),)}
        shapes |= {f"{modality}/{name}": (shape,) for name, shape in network_shapes(text, modality).items()}
    for population in lemof.POPULATIONS:
        for name in lemof.SCORED:
            shapes[f"calibration/{population}/{name}"] = ((2,),)
            shapes[f"edges/{population}/{name}"] = ((study.evaluation.num_bins + 1,),)
    if "best_level" in request.model:
        levels = best_levels(request.model)
        heads = {f"attention/{fold}": head_shapes(text, levels) for fold in range(lemof.NUM_HEADS)}
        shapes |= {f"{head}/{name}": (shape,) for head, of in heads.items() for name, shape in of.items()}
    return shapes
