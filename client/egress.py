"""The door: everything that leaves a hospital passes ``release``, and nothing else makes an ``Answer``.

What a stage has summed up comes as groups: one group of patients each (site x split x modality, or site x subgroup x
label). The door leaves out every group with too few patients, and every group whose rest within a larger one that may
leave would have too few (or a subtraction would tell what was left out), and says so. It refuses values that are not
finite and answers larger than the site allows. Refusals are made here too: a message that could hold a path or a limit
of the hospital goes to the hospital's log, and a fixed sentence leaves. Noise and the privacy ledger belong at this
same place.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from client.hospital import Hospital
from client.site import Limits
from client.source import source_digest
from lemof_model.errors import DoorError, LemofError, TooLittleDataError
from lemof_model.wire import Answer, Refusal, Request

log = logging.getLogger("lemof")


@dataclass(frozen=True)
class Group:
    """Sums over one group of patients, before the door.

    ``minimum`` says which limit of the site file the group is under: ``patients`` for anything a learner or a level is
    fitted with, ``cell`` for counts, losses and histograms. ``within`` names the groups that it is a part of.
    ``counted_by`` names the array that counts the stays behind each element of the others: an element with too few is 0
    in all of them.
    """

    name: str
    num_patients: int
    num_stays: int
    minimum: Literal["patients", "cell"]
    sums: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    within: tuple[str, ...] = ()
    counted_by: str = ""


def release(hospital: Hospital, limits: Limits, request: Request, groups: Sequence[Group]) -> Answer:
    """Check every group and make the answer of those that may leave.

    Raises:
        TooLittleDataError: no group is large enough, and something is to be fitted; counts alone are just left out.
        DoorError: a value is not finite, or the answer is too large.
    """
    passed = _large_enough(groups, limits)
    if not passed and any(group.minimum == "patients" for group in groups):
        raise TooLittleDataError(
            f"{request.stage} needs at least {limits.min_patients} patients in a group (limits.min_patients; "
            f"limits.min_cell is {limits.min_cell}), got fewer in every one. Nothing was sent."
        )
    sums = {f"{group.name}/{name}": value for group in passed for name, value in _counted(group, limits).items()}
    for name, value in sums.items():
        if not np.isfinite(value).all():
            raise DoorError(
                f"{request.stage} must send finite numbers, got NaN or infinity in {name}. Nothing was sent. "
                "A learning rate that is too high does this."
            )
    num_bytes = sum(value.nbytes for value in sums.values())
    if num_bytes > limits.max_update_mb * 1_000_000:
        raise DoorError(
            f"An answer must be no larger than the hospital allows (limits.max_update_mb), got "
            f"{num_bytes / 1e6:.1f} MB in {request.stage}. Nothing was sent. Use a smaller model, or ask the hospital."
        )
    left_out = {group.name for group in groups} - {group.name for group in passed}
    return Answer(
        stage=request.stage,
        round=request.round,
        site=hospital.name,
        plan_digest=request.study.digest,
        source_digest=source_digest(),
        cohort_digest=hashlib.sha256(f"{request.study.digest}{hospital.cohort_digest}".encode()).hexdigest(),
        sums=sums,
        counts={group.name: group.num_stays for group in passed},
        too_small=tuple(group.name for group in groups if group.name in left_out),
    )


def refuse(site: str, request: Request, error: LemofError) -> Refusal:
    """The refusal that the coordinator gets; the whole message goes to the hospital's own log."""
    log.warning("%s, round %d: %s", request.stage, request.round, error)
    return Refusal(
        stage=request.stage,
        round=request.round,
        site=site,
        code=error.exit_status,
        reason=error.told_outside or str(error),
        plan_digest=request.study.digest,
        source_digest=source_digest(),
    )


def _large_enough(groups: Sequence[Group], limits: Limits) -> list[Group]:
    """Groups with enough patients whose rest, within each group they are part of, is nobody or enough as well."""
    minimum = {"patients": limits.min_patients, "cell": limits.min_cell}
    large = {group.name: group for group in groups if group.num_patients >= minimum[group.minimum]}

    def rest_is_safe(group: Group) -> bool:
        wholes = [large[name] for name in group.within if name in large]
        return all(
            whole.num_stays == group.num_stays or whole.num_patients - group.num_patients >= minimum[group.minimum]
            for whole in wholes
        )

    return [group for group in large.values() if rest_is_safe(group)]


def _counted(group: Group, limits: Limits) -> Mapping[str, NDArray[Any]]:
    """The group's sums, without elements that too few stays stand behind."""
    if not group.counted_by:
        return group.sums
    enough = group.sums[group.counted_by] >= limits.min_cell
    return {name: np.where(enough, value, 0.0) for name, value in group.sums.items()}
