"""The door: everything that leaves a hospital passes ``release``, and nothing else makes an ``Answer``.

What a stage has summed up comes as groups: one group of patients each (site x split x modality, or site x subgroup x
label). The door leaves out every group with too few patients and says so; it refuses values that are not finite and
answers larger than the site allows. Noise and the privacy ledger belong at this same place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from client.site import Limits
from client.source import source_digest
from lemof_model.errors import LemofError, TooLittleDataError
from lemof_model.wire import Answer, Request


@dataclass(frozen=True)
class Group:
    """Sums over one group of patients, before the door.

    ``minimum`` says which limit of the site file the group is under: ``patients`` for anything a learner or a level is
    fitted with, ``cell`` for counts, losses and histograms.
    """

    name: str
    num_patients: int
    num_stays: int
    minimum: Literal["patients", "cell"]
    sums: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def release(site: str, limits: Limits, request: Request, groups: Sequence[Group]) -> Answer:
    """Check every group and make the answer of those that may leave.

    Raises:
        TooLittleDataError: no group is large enough, and something is to be fitted; counts alone are just left out.
        LemofError: a value is not finite, or the answer is too large.
    """
    minimum = {"patients": limits.min_patients, "cell": limits.min_cell}
    passed = [group for group in groups if group.num_patients >= minimum[group.minimum]]
    too_small = tuple(group.name for group in groups if group.num_patients < minimum[group.minimum])
    if not passed and any(group.minimum == "patients" for group in groups):
        raise TooLittleDataError(
            f"{request.stage} needs at least {limits.min_patients} patients in a group (limits.min_patients; "
            f"limits.min_cell is {limits.min_cell}), got fewer in every one. Nothing was sent."
        )
    sums = {f"{group.name}/{name}": value for group in passed for name, value in group.sums.items()}
    for name, value in sums.items():
        if not np.isfinite(value).all():
            raise LemofError(
                f"{request.stage} must send finite numbers, got NaN or infinity in {name}. Nothing was sent. "
                "A learning rate that is too high does this; tell the coordinator."
            )
    num_bytes = sum(value.nbytes for value in sums.values())
    if num_bytes > limits.max_update_mb * 1_000_000:
        raise LemofError(
            f"An answer must be at most {limits.max_update_mb} MB (limits.max_update_mb), got "
            f"{num_bytes / 1e6:.1f} MB in {request.stage}. Nothing was sent. Raise the limit if the study is trusted."
        )
    return Answer(
        stage=request.stage,
        round=request.round,
        site=site,
        plan_digest=request.study.digest,
        source_digest=source_digest(),
        sums=sums,
        counts={group.name: group.num_stays for group in passed},
        too_small=too_small,
    )
