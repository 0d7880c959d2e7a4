"""A hospital's answer to a request: sums over its stays, through the door.

What a stage sums is declared in ``protocol/stages.py``. Nothing is kept between requests but the cache of what is
frozen, so a request that is repeated gets the same answer, to the bit. What the stages give are groups of patients;
``egress.release`` alone decides what leaves.
"""

import torch
from threadpoolctl import threadpool_limits

from client.cohort.hospital import Hospital, open_hospital
from client.door import budgeted, egress
from client.door.view import HospitalView
from client.site import SiteConfig
from lemof_model.errors import LemofError, VersionError
from lemof_model.features import schema_digest
from protocol.messages import Answer, CensusRequest, Refusal, Request
from protocol.release import Group
from protocol.stages import STAGES


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
                return budgeted.answer(site, hospital, request)
            return egress.release(hospital, site.limits, request, groups_of(hospital, request))
    except LemofError as error:
        return egress.refuse(site.site.name, request, error)


def groups_of(hospital: Hospital, request: Request) -> list[Group]:
    """The exact groups of one stage, before the door."""
    return STAGES[request.stage].exact(HospitalView(hospital, request, is_private=False))


def _check_schema(request: CensusRequest) -> None:
    """Both sides must mean the same by the columns of a cohort."""
    if request.schema_digest != schema_digest():
        raise VersionError(
            rule=f"The feature schema digest must be {schema_digest()[:12]}",
            got=f"{request.schema_digest[:12]} from the coordinator",
            fix="Install the same lemof release on both sides.",
        )
