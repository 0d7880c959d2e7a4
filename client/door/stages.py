"""A hospital's answer to a request: sums over its stays, through the door.

What a stage sums is declared in ``protocol/stages.py``. Nothing is kept between requests but the cache of what is
frozen, so a request that is repeated gets the same answer, to the bit. What the stages give are groups of patients;
``egress.release`` alone decides what leaves.
"""

import dataclasses
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from client.cohort.hospital import Hospital, open_hospital
from client.door import budgeted, egress
from client.door.told import Told
from client.door.view import HospitalView
from client.site import SiteConfig
from lemof_model.errors import LemofError
from protocol.messages import NO_RUN, Answer, Refusal, Request
from protocol.release import Group
from protocol.stages import STAGES


def answer(site: SiteConfig, request: Request, memory: Path | None = None) -> Answer | Refusal:
    """Answer a request, or say why not. Nothing that a user can mend is raised.

    ``memory`` is the folder of what was told; None is the site's own. A simulation has one for each run.
    """
    torch.set_num_threads(1)  # one thread under every engine: equal bits, and no two processes fighting for cores
    try:
        egress.admit(site, request)
        with threadpool_limits(1):  # numpy's too: its sums depend on how many threads share them
            hospital = open_hospital(site, request.study)
            told = Told(site, hospital, memory or site.memory)
            plan = told.admit(request)
            found: Answer | Refusal
            if site.privacy is not None:
                # The ledger knows a request by its words: another run that asks the same gets the same.
                found = budgeted.answer(site, hospital, dataclasses.replace(request, run=NO_RUN))
            else:
                found = egress.release(hospital, site.limits, request, groups_of(hospital, request))
            if isinstance(found, Answer):
                told.keep(plan, request, found)
            return found
    except LemofError as error:
        return egress.refuse(site.site.name, request, error)


def groups_of(hospital: Hospital, request: Request) -> list[Group]:
    """The exact groups of one stage, before the door."""
    return STAGES[request.stage].exact(HospitalView(hospital, request, is_private=False))
