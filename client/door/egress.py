"""The door: a request comes in by ``admit``, what leaves goes by ``release``, and nothing else makes an ``Answer``.

What a stage has summed up comes as groups: one group of patients each (site x split x modality, or site x subgroup x
label). The door leaves out every group with too few patients, and every group whose rest within a larger one would
have too few, or a subtraction would tell what was left out (``minimum.py``); it says which. Of the others nothing
leaves but what the stage declares, in the shapes and types declared, finite, within the norm that clipping and noise
allow, and all of it no larger than the site allows.
Refusals are made here too: a message that could hold a path or a limit of the hospital goes to the hospital's log, and
a fixed sentence leaves.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.cohort.hospital import Hospital
from client.door.minimum import held_back
from client.site import Limits, SiteConfig
from lemof_model.errors import DoorError, LemofError, NotAllowedError, TooLittleDataError, VersionError
from lemof_model.features import schema_digest
from lemof_model.study import FEW_SITES, Study
from protocol.asking import check_request
from protocol.messages import Answer, CensusRequest, Packet, Refusal, Request
from protocol.release import Form, Group
from protocol.source import source_digest, versions
from protocol.stage import Forms
from protocol.stages import STAGES

log = logging.getLogger("lemof.door")

MAX_COUNT = 2**31 - 1
LEAST_CLIP = 1e-6

_NOTHING_SENT = "Nothing was sent. This is not what the plan implies: install the same lemof release on both sides."


def admit(site: SiteConfig, request: Request) -> None:
    """Refuse a request that the hospital does not take part in, before anything is computed.

    Raises:
        NotAllowedError: a stage that the site file forbids, or a total over too few hospitals.
        VersionError: the columns of a cohort do not mean the same on both sides.
        DoorError: the request asks for what no answer may hold, or brings numbers that are none.
    """
    limits = site.limits
    if request.stage not in limits.stages:
        raise NotAllowedError(
            rule="A stage must be among those that the hospital allows (limits.stages)",
            got=f"a request for {request.stage}",
            fix="Nothing was sent. Leave the hospital out of the study, or ask it to allow the stage.",
        )
    if request.num_sites < FEW_SITES and "refuse" in (request.study.few_sites, limits.few_sites):
        raise NotAllowedError(
            rule=f"At least {FEW_SITES} hospitals must stand behind a total",
            got=f"{request.num_sites} in {request.stage}: each would learn what the others hold",
            fix="Nothing was sent. Invite more, or say few_sites: allow in the plan and limits.few_sites: allow in "
            "every site file.",
        )
    if isinstance(request, CensusRequest) and request.schema_digest != schema_digest():
        raise VersionError(
            rule=f"The feature schema digest must be {schema_digest()[:12]}",
            got=f"{request.schema_digest[:12]} from the coordinator",
            fix="Install the same lemof release on both sides.",
        )
    if site.privacy is not None:
        _require_clipping(request.study)
    check_request(request)


def _require_clipping(study: Study) -> None:
    """Refuse a plan under which gradients are not clipped, before any noise is drawn."""
    for section, spec in (("encoders", study.encoders), ("attention.training", study.attention.training)):
        if spec.max_grad_norm < LEAST_CLIP:
            raise DoorError(
                rule=f"{section}.max_grad_norm must be from {LEAST_CLIP:g} to 1e+06 where a hospital has a privacy "
                "budget",
                got=f"{spec.max_grad_norm:g} from the plan",
                fix="Nothing was sent. Change the plan.",
            )


def release(
    hospital: Hospital,
    limits: Limits,
    request: Request,
    groups: Sequence[Group],
    max_norms: Mapping[str, float] | None = None,
) -> Answer:
    """Check every group and make the answer of those that may leave.

    Under a privacy budget ``max_norms`` has the norm that clipping and noise keep each array below, by ``group/name``
    (``Stage.norms``).

    Raises:
        TooLittleDataError: no group is large enough, and something is to be fitted; counts alone are just left out.
        DoorError: an array or a count is not on the list, not finite or out of bounds, or the answer is too large.
    """
    forms = STAGES[request.stage].forms(request)
    for group in groups:  # the names of those that are left out leave too
        _check_name(group, request.stage, forms)
    too_small = held_back(hospital, limits, groups)
    passed = [group for group in groups if group.name not in too_small]
    left_out = tuple(group.name for group in groups if group.name in too_small)
    if left_out:
        log.debug(
            "held back in %s: %s (fewer patients than limits.min_patients = %d or limits.min_cell = %d, or a rest "
            "that has fewer)", request.stage, ", ".join(left_out), limits.min_patients, limits.min_cell,
        )  # fmt: skip
    if not passed and any(group.minimum == "patients" for group in groups):
        error = TooLittleDataError(
            rule=f"A group must have at least {limits.min_patients} patients (limits.min_patients; limits.min_cell is "
            f"{limits.min_cell})",
            got=f"fewer in every one of {request.stage}",
            fix="Nothing was sent.",
        )
        error.told_outside = f"Too few patients in every group that was asked for ({', '.join(left_out)}); " \
            "nothing was sent."  # fmt: skip
        raise error
    for group in passed:
        _check_arrays(group, request.stage, forms[group.name], max_norms)
    sums = {f"{group.name}/{name}": value for group in passed for name, value in _counted(group, limits).items()}
    num_bytes = sum(value.nbytes for value in sums.values())
    if num_bytes > limits.max_update_mb * 1_000_000:
        raise DoorError(
            rule="An answer must be no larger than the hospital allows (limits.max_update_mb)",
            got=f"{num_bytes / 1e6:.1f} MB in {request.stage}",
            fix="Nothing was sent. Use a smaller model, or ask the hospital.",
        )
    return Answer(
        stage=request.stage,
        round=request.round,
        site=hospital.name,
        plan_digest=request.study.digest,
        release=versions()["lemof"],
        source_digest=source_digest(),
        cohort_digest=hashlib.sha256(f"{request.study.digest}{hospital.cohort_digest}".encode()).hexdigest(),
        sums=sums,
        counts={group.name: group.num_stays for group in passed},
        too_small=left_out,
    )


def refuse(site: str, request: Request, error: LemofError) -> Refusal:
    """The refusal that the coordinator gets; the whole message goes to the hospital's own log."""
    return _refusal(site, request.stage, request.round, request.study.digest, error)


def refuse_packet(site: str, packet: Packet, error: LemofError) -> Refusal:
    """The refusal of a request that was not even read."""
    stage, number = str(packet.config.get("stage", "")), packet.metrics.get("round", 0)
    return _refusal(site, stage, int(number), str(packet.config.get("plan_digest", "")), error)


def _refusal(site: str, stage: str, number: int, plan_digest: str, error: LemofError) -> Refusal:
    """Tell the hospital the whole message, and the coordinator what may leave of it."""
    log.warning("declined %s: %s", stage, error)
    return Refusal(
        stage=stage,
        round=number,
        site=site,
        code=error.exit_status,
        reason=error.told_outside or str(error),
        plan_digest=plan_digest,
        release=versions()["lemof"],
        source_digest=source_digest(),
    )


def _check_name(group: Group, stage: str, forms: Forms) -> None:
    """Refuse a group that is not on the list of the stage, and a count that is more than a count."""
    if group.name not in forms:
        raise DoorError(rule=f"{stage} must send listed groups only", got=f"{group.name!r}", fix=_NOTHING_SENT)
    if not isinstance(group.num_stays, int | np.integer) or not 0 <= group.num_stays <= MAX_COUNT:
        raise DoorError(
            rule=f"{stage} must count the stays of {group.name} in one whole number",
            got=_kind(group.num_stays),
            fix=_NOTHING_SENT,
        )


def _check_arrays(group: Group, stage: str, forms: Mapping[str, Form], max_norms: Mapping[str, float] | None) -> None:
    """Refuse an array of a group that is not on the list, not as listed, not finite, or larger than noise makes it."""
    for name, value in group.sums.items():
        key, form = f"{group.name}/{name}", forms.get(name)
        if form is None:
            raise DoorError(rule=f"{stage} must send listed arrays only", got=f"{key!r}", fix=_NOTHING_SENT)
        if not form.fits(value):
            raise DoorError(rule=f"{stage} must send {key} as {form}", got=_kind(value), fix=_NOTHING_SENT)
        if not np.isfinite(value).all():
            raise DoorError(
                rule=f"{stage} must send finite numbers",
                got=f"NaN or infinity in {key}",
                fix="Nothing was sent. A learning rate that is too high does this.",
            )
        if max_norms is not None and not np.linalg.norm(np.ravel(value)) <= max_norms.get(key, -1.0):
            raise DoorError(
                rule=f"{stage} must send {key} within the norm that clipping and noise allow",
                got="a larger one",
                fix=_NOTHING_SENT,
            )


def _kind(value: Any) -> str:
    """What a value is, without telling the value."""
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _counted(group: Group, limits: Limits) -> Mapping[str, NDArray[Any]]:
    """The group's sums, without elements that too few stays stand behind."""
    if not group.counted_by:
        return group.sums
    enough = group.sums[group.counted_by] >= limits.min_cell
    return {name: np.where(enough, value, 0.0) for name, value in group.sums.items()}
