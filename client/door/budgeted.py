"""A hospital with a privacy budget: the same stages with noise, everything charged to the ledger before it leaves.

What a patient can add to a sum is bounded before it is summed, every sum gets noise for that bound, and no number of
stays is used but the noisy ones of the census. A patient has one stay (``hospital.py``), so one stay more or less is
one patient more or less; ``docs/privacy.md`` derives each sensitivity.
"""

import dataclasses

from client.budget import accounting
from client.budget.ledger import Ledger, open_ledger, require_no_folds
from client.budget.noise import Noise
from client.cohort.hospital import Hospital
from client.door import egress
from client.door.view import HospitalView
from client.site import SiteConfig
from lemof_model.errors import BudgetError, DoorError, LemofError, TooLittleDataError
from protocol.messages import Answer, CensusRequest, Refusal, Request, answer_from_packet
from protocol.release import Group, Reach
from protocol.stages import STAGES


def answer(site: SiteConfig, hospital: Hospital, request: Request) -> Answer | Refusal:
    """Answer a request within the site's budget: the noisy sums and their price are on disk before they are returned.

    The same request again gets the same bytes. What fails after noise was drawn is charged as well, in fixed words:
    that it failed may tell something of the sums.

    Raises:
        NotAllowedError: the plan has folds.
        BudgetError: what is asked would pass the budget; nothing is charged.
        LedgerError: the cohort is counted by another ledger.
    """
    assert site.privacy is not None
    require_no_folds(request.study)
    with open_ledger(site.privacy.ledger, site.privacy.budget, hospital.folder) as ledger:
        if (stored := ledger.stored(request)) is not None:
            return answer_from_packet(stored)
        noise = Noise(_schedule(ledger, request))
        ledger.epsilon_after(request.study, _training_charges(noise, request))  # before anything is computed
        given: Answer | Refusal
        schedule = None
        try:
            groups = groups_of(hospital, request, noise)
            if isinstance(request, CensusRequest):
                curves = {"before": ledger.curves(), "own": ledger.curves(request.study)}
                schedule = accounting.with_counts(
                    noise.schedule, request.study, site.privacy.budget, noise.counts, **curves
                )
            released = egress.release(hospital, site.limits, request, groups, norms_of(request, noise))
        except Exception as error:
            if not noise.charges:
                raise
            given = _refused(site, request, error)
        else:
            given = dataclasses.replace(
                released,
                cohort_digest="",  # equal digests would tell that a guessed cohort is the right one
                epsilon=ledger.epsilon_after(request.study, noise.charges),
                delta=site.privacy.delta,
            )
        ledger.append(request, noise.charges, given.to_packet(), schedule)
        return given


def _refused(site: SiteConfig, request: Request, error: Exception) -> Refusal:
    """The refusal of an answer that noise was drawn for. Its words are the same whatever the sums were; only too small
    a group, which the noisy counts tell anyway, has its own."""
    known = error if isinstance(error, LemofError) else LemofError(rule=f"{type(error).__name__} in lemof.")
    refusal = egress.refuse(site.site.name, request, known)
    if isinstance(error, TooLittleDataError) and not isinstance(error, BudgetError):
        return refusal
    return dataclasses.replace(refusal, code=DoorError.exit_status, reason=LemofError.told_outside or "")


def groups_of(hospital: Hospital, request: Request, noise: Noise) -> list[Group]:
    """The noisy groups of one stage, before the door; ``noise`` knows what they cost."""
    return STAGES[request.stage].noisy(HospitalView(hospital, request, is_private=True), noise)


def norms_of(request: Request, noise: Noise) -> dict[str, float]:
    """The largest norm of every array that may leave under this noise, by ``group/name``."""
    return STAGES[request.stage].norms(request, Reach(noise.schedule.noise, noise.counts, noise.schedule.sgd))


def _schedule(ledger: Ledger, request: Request) -> accounting.Schedule:
    """The noise of all releases of this study: a census makes it, of what is left of the budget."""
    if isinstance(request, CensusRequest):
        own = ledger.curves(request.study)
        return accounting.schedule(request.study, ledger.budget, before=ledger.curves(), own=own)
    schedule = ledger.schedule(request.study)
    if schedule is None:
        raise DoorError(
            rule=f"{request.stage} must come after this study's census", got="it before", fix="Begin a new run."
        )
    return schedule


def _training_charges(noise: Noise, request: Request) -> list[accounting.Charge]:
    """What the stages that take long will cost at least."""
    trained = STAGES[request.stage].trained
    if trained is None or not getattr(request, "blocks", ""):
        return []
    return [noise.schedule.sgd[request.stage].charge(trained.split)]
