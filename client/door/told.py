"""What a hospital tells twice must not tell what few patients are: the verdict on a plan, and on a second model.

**A plan** is judged at its census, whole, or at whatever comes first. Two answers of one kind can be subtracted; so for
every group that the plan will ask (``planned.py``) the patients who are not in it as they were in an earlier one, or
with another label, must be none or at least the group's own minimum. What has passed is remembered before anything of
it leaves, and free from then on.

**held_out** is told to one model of a run: later questions about it must come with the same parameters, and each of
them in the same words. Another model, in this or any other run, reads the same patients again.

Either takes a permission of a person at the hospital (``lemof-client told allow``): one for a run, or for a model.
"""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from client.budget.ledger import request_digest
from client.cohort.hospital import Hospital
from client.door.memory import ALLOWED, HELD_OUT, PLAN, RUN, Line, Memory, open_memory, read_memory
from client.door.planned import kind_of, planned
from client.site import SiteConfig
from lemof_model.errors import DoorError, Problem
from protocol.messages import (
    NO_RUN,
    Answer,
    CensusRequest,
    EvaluationRequest,
    IntervalsRequest,
    Request,
    StatisticsRequest,
)
from protocol.stages import EVALUATION, STAGES

log = logging.getLogger("lemof.door")

ALLOW = "Nothing was sent. To let it through once: lemof-client --site SITE told allow --plan PLAN.yaml"


class Difference(NamedTuple):
    """A group that would be told again with a few patients more, less, or with another label."""

    stage: str
    group: str
    num_patients: int
    minimum: int
    before: str


class Verdict(NamedTuple):
    """What stands against a plan: groups that differ too little, and to how many runs its held-out patients were
    told."""

    differences: tuple[Difference, ...]
    num_runs: int

    @property
    def problems(self) -> list[Problem]:
        """The same for people at the hospital; empty if nothing does."""
        found = []
        if self.differences:
            worst = min(self.differences, key=lambda one: one.num_patients)
            found.append(
                Problem(
                    "A group must differ from all that was told before by no patient, or by at least its minimum",
                    f"{worst.num_patients} of {worst.minimum} in {worst.stage} {worst.group} (study {worst.before}), "
                    f"and such differences in {len(self.differences)} groups",
                    ALLOW,
                    "E903",
                )
            )
        if self.num_runs:
            found.append(
                Problem(
                    "Held-out patients must be told of to one model of one run",
                    f"another, after {self.num_runs} run{'s' * (self.num_runs != 1)} with these patients and labels",
                    ALLOW,
                    "E904",
                )
            )
        return found


def is_of_held_out(request: Request) -> bool:
    """Whether a request reads a model's scores of held-out patients."""
    is_scored = isinstance(request, EvaluationRequest) and request.split != "tuning"
    return is_scored or isinstance(request, IntervalsRequest)


def asks_of(request: Request) -> str:
    """Which of its stage's questions a request is; empty where there is one."""
    return " ".join(str(getattr(request, name)) for name in STAGES[request.stage].probes[0])


class Told:
    """One hospital in one study, and the memory in ``folder``.

    ``admit`` a request, and ``keep`` the answer before it leaves.
    """

    def __init__(self, site: SiteConfig, hospital: Hospital, folder: Path) -> None:
        self._folder, self._hospital, self._limits = folder, hospital, site.limits
        self._study, self._is_private = hospital.study, site.privacy is not None

    def admit(self, request: Request) -> Line:
        """Refuse a request that would tell what few patients are; judge its plan where that has not been done. Returns
        the line of its plan.

        Raises:
            ToldBeforeError: it would; nothing is told or remembered.
            MemoryDamagedError, DiskError: of the memory.
        """
        memory = read_memory(self._folder)
        plan = self._plan(memory)
        if plan is None or isinstance(request, CensusRequest):
            with open_memory(self._folder) as memory:
                plan = self._pass(memory, request)
        if is_of_held_out(request):
            _telling(memory, plan, request)
        return plan

    def keep(self, plan: Line, request: Request, answer: Answer) -> None:
        """Remember an answer that is about to leave, as far as the line of its plan does not say it.

        Raises:
            ToldBeforeError: meanwhile another model was told of the held-out patients.
            DoorError: a group that the plan was not judged with.
        """
        known = {group for stage, asks, group, _ in plan["told"] if (stage, asks) == (request.stage, asks_of(request))}
        if not self._is_private and (strange := sorted(answer.counts.keys() - known)):
            raise DoorError(
                rule=f"{request.stage} must send groups that the whole plan was judged with",
                got=f"{strange[0]!r}",
                fix="Nothing was sent. Ask for all blocks of the stage.",
            )
        if is_of_held_out(request) and answer.counts:
            with open_memory(self._folder) as memory:
                told = _telling(memory, plan, request)
                if told is not None:
                    memory.append(HELD_OUT, self._study, **told)

    def verdict(self) -> Verdict:
        """What stands against the plan in a run to come; nothing is remembered."""
        return self._judged(read_memory(self._folder))[0]

    def num_allowed(self) -> int:
        """Permissions of the study that nothing has used."""
        return read_memory(self._folder).num_allowed(self._study)

    def allow(self, verdict: Verdict) -> None:
        """Let the plan through once; a person has seen the verdict."""
        seen = {"differences": [list(one) for one in verdict.differences], "runs": verdict.num_runs}
        with open_memory(self._folder) as memory:
            memory.append(ALLOWED, self._study, **seen)
        found = "; ".join(problem.found for problem in verdict.problems)
        log.warning("allowed once: study %s (plan %s). %s", self._study.name, self._study.digest[:12], found)

    def _pass(self, memory: Memory, request: Request) -> Line:
        """The line of a plan that may go on, remembered with the permission that it took."""
        verdict, plan = self._judged(memory, request.run)
        if not isinstance(request, CensusRequest):
            verdict = verdict._replace(num_runs=0)  # of a run that has begun: its question about held_out will tell
        uses = int(bool(verdict.problems))
        memory.require_allowed(self._study, uses, verdict.problems)
        if self._plan(memory) is None:
            memory.append(PLAN, self._study, **plan, uses=uses)
            uses = 0
        if verdict.num_runs:
            memory.append(RUN, self._study, run=request.run, uses=uses)
        return plan

    def _plan(self, memory: Memory) -> Line | None:
        """The line of the study on this cohort under these limits; None before it was judged."""
        of = self._of(memory)
        return next((line for line in memory.lines(PLAN, self._study) if line["of"] == of), None)

    def _of(self, memory: Memory) -> str:
        """What a plan's line stands for beside its study."""
        limits = (self._limits.min_patients, self._limits.min_cell, self._limits.stages, self._is_private)
        return memory.mark(self._hospital.cohort_digest, *map(str, limits))

    def _judged(self, memory: Memory, run: str = "") -> tuple[Verdict, Line]:
        """What stands against the study in a run, and the line of its plan."""
        differences: list[Difference] = []
        plan = self._plan(memory)
        if plan is None:
            before, told = _before(memory), []
            place_N = memory.add_hospital(self._hospital)
            for asked, group, minimum in () if self._is_private else planned(self._hospital, self._limits):
                number = memory.add_set(place_N[group.rows])
                told.append([asked.stage, asks_of(asked), group.name, number])
                for earlier, name in before.get(kind_of(asked.stage, group.name), {}).items():
                    if 0 < (num_patients := memory.num_apart(number, earlier)) < minimum:
                        differences.append(Difference(asked.stage, group.name, num_patients, minimum, name))
            held_out = memory.add_set(place_N[self._hospital.stays.rows("held_out")])
            plan = {"of": self._of(memory), "told": told, "held_out": held_out}
        others = {(one["study"], one["run"]) for one in memory.lines(HELD_OUT) if one["set"] == plan["held_out"]}
        has_passed = any(line["run"] == run for line in memory.lines(RUN, self._study))
        num_runs = 0 if has_passed or (self._study.digest, run) in others else len(others)
        return Verdict(tuple(differences), num_runs), plan


def _before(memory: Memory) -> dict[str, dict[int, str]]:
    """The sets that were told of each kind, and the name of the first study of each."""
    found: dict[str, dict[int, str]] = {}
    for plan in memory.lines(PLAN):
        for stage, _, group, number in plan["told"]:
            found.setdefault(kind_of(stage, group), {}).setdefault(number, plan["name"])
    return found


def _telling(memory: Memory, plan: Line, request: Request) -> Line | None:
    """What to remember of a model's scores of held-out patients, with the permissions that it takes; None if they were
    told.

    Raises:
        ToldBeforeError: more than there are.
    """
    said = _said_in(request)
    told = [line for line in memory.lines(HELD_OUT) if line["set"] == plan["held_out"]]
    if any(all(line[name] == value for name, value in said.items()) for line in told):
        return None
    runs = {(line["study"], line["run"]) for line in told}
    own = [line for line in told if (line["study"], line["run"]) == (request.study.digest, request.run)]
    if own:
        is_free = all(line["model"] == said["model"] and line["asks"] != said["asks"] for line in own)
    else:
        is_free = not runs or any(line["run"] == request.run for line in memory.lines(RUN, request.study))
    uses = int(not is_free)
    memory.require_allowed(request.study, uses, Verdict((), len(runs)).problems)
    return {"run": request.run, "set": plan["held_out"], **said, "uses": uses}


def _said_in(request: Request) -> Mapping[str, str]:
    """A question about held-out patients: which one, with which parameters, and all that it says but the number of its
    round and of the hospitals, which no answer depends on."""
    model = {name: value for name, value in request.model.items() if name.split("/")[0] in EVALUATION.reads}
    plain = dataclasses.replace(request, round=0, num_sites=0, run=NO_RUN)
    parameters = StatisticsRequest(study=request.study, round=0, model=model)
    return {"asks": asks_of(request), "model": request_digest(parameters), "request": request_digest(plain)}
