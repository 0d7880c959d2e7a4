"""What a study would take from this hospital: every stage on its own data, through the same door, and nothing sent.

The coordinator is played here: it asks with an untrained model. Names, shapes, types, sizes and counts are those of a
real study; values are not, and are not shown. A privacy budget is planned as the study would plan it now; the ledger is
read and not written.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from client.budget import accounting
from client.budget.ledger import read_ledger, require_same_splits
from client.budget.noise import Noise
from client.cohort.hospital import Hospital, open_hospital
from client.door import budgeted, egress, stages
from client.site import Privacy, SiteConfig
from lemof_model.errors import DiskError, LemofError
from lemof_model.study import Study
from protocol.messages import Answer, CensusRequest, EvaluationRequest, Request
from protocol.method import Method, requests_of
from protocol.owner_only import write_owner_only
from protocol.progress import Shown
from protocol.stages import LEMOF, STAGES, WIDTH

NUM_REQUESTS = sum(len(stage.probes) for stage in LEMOF)


def dry_run(site: SiteConfig, study: Study, shown: Shown | None = None, method: Method = LEMOF) -> dict[str, Any]:
    """Everything that would leave, stage by stage, as plain values; nothing is sent, charged or stored. Each stage is
    told to ``shown``.

    Raises:
        DataError: no cohort, or one for another plan.
        BudgetError: nothing is left of the privacy budget, or it is kept for other splits.
    """
    torch.set_num_threads(1)
    with threadpool_limits(1):
        hospital = open_hospital(site, study)
        budget = _Plan(site.privacy, site.prepare.output, study) if site.privacy else None
        found = []
        asked = requests_of(study, is_private=budget is not None, method=method)
        for number, (request, times) in enumerate(asked, start=1):
            doing = STAGES[request.stage].doing(request)
            if shown:
                shown.begin(number, doing)
            found.append(_stage(site, hospital, request, times, budget))
            if shown:
                shown.end(number, f"{doing:{WIDTH}}")
    told = {
        "site": site.site.name,
        "study": study.name,
        "plan_digest": study.digest,
        "note": "Exact counts of this hospital, for its own eyes: do not pass this file on.",
        "num_stays": len(hospital.stays.split_N),
        "num_stays_left_out": hospital.num_left_out,
        "has_ecgs": hospital.has_ecgs,
        "stages": found,
        "bytes_at_most": sum(stage["times"] * stage["bytes"] for stage in found),
    }
    return told | ({"privacy": budget.describe()} if budget else {})


class _Plan:
    """The noise that a study would begin with now, from what the ledger leaves; it grows by the counts of a census."""

    def __init__(self, privacy: Privacy, cohort: Path, study: Study) -> None:
        entries = read_ledger(privacy.ledger, cohort)
        require_same_splits(entries, study.splits)
        self._privacy, self._study = privacy, study
        self._before = accounting.rdp(charge for entry in entries for charge in entry.charges)
        mine = (entry for entry in entries if entry.study == study.digest)
        self._own = accounting.rdp(charge for entry in mine for charge in entry.charges)
        self.schedule = accounting.schedule(study, privacy.budget, before=self._before, own=self._own)

    def count(self, counts: dict[str, int]) -> None:
        """Plan DP-SGD, as a census does."""
        known = {"before": self._before, "own": self._own}
        self.schedule = accounting.with_counts(self.schedule, self._study, self._privacy.budget, counts, **known)

    def describe(self) -> dict[str, Any]:
        """The budget, and what has been spent of it."""
        delta = self._privacy.delta
        spent = max(accounting.epsilon_of(curve, delta) for curve in self._before.values())
        budget = self._privacy.budget
        return {"epsilon": budget.epsilon, "study_epsilon": budget.study_epsilon, "delta": delta, "spent": spent}


def _stage(site: SiteConfig, hospital: Hospital, request: Request, times: int, budget: _Plan | None) -> dict[str, Any]:
    """What would leave at one request, or why nothing would."""
    name = request.stage + (f" on {request.split}" if isinstance(request, EvaluationRequest) else "")
    noise = Noise(budget.schedule) if budget else None
    told: dict[str, Any] = {"stage": name, "times": times, "bytes": 0, "groups": {}, "left_out": [], "arrays": []}
    try:
        egress.admit(site, request)
        if noise is None:
            groups, most = stages.groups_of(hospital, request), None
        else:
            groups = budgeted.groups_of(hospital, request, noise)
            if budget and isinstance(request, CensusRequest):
                budget.count(noise.counts)
            most = budgeted.norms_of(request, noise)
        answer = egress.release(hospital, site.limits, request, groups, most)
        told |= _contents(answer)
    except LemofError as error:
        told |= {"refused": str(error), "rule": error.rule, "fix": error.fix}
    if noise is not None:
        told["charges"] = [dataclasses.asdict(charge) for charge in noise.charges]
    return told


def _contents(answer: Answer) -> dict[str, Any]:
    """An answer without its values: groups with their counts, and arrays by name, shape, type and size."""
    arrays = [
        {"name": name, "shape": list(value.shape), "dtype": value.dtype.name, "bytes": value.nbytes}
        for name, value in answer.sums.items()
    ]
    num_bytes = sum(value.nbytes for value in answer.sums.values())
    return {"bytes": num_bytes, "groups": dict(answer.counts), "left_out": list(answer.too_small), "arrays": arrays}


def write(text: str, folder: Path) -> Path:
    """Write ``dry-run.json`` beside the site file.

    Raises:
        DiskError: it cannot be written.
    """
    path = folder / "dry-run.json"
    try:
        write_owner_only(path, f"{text}\n")
    except OSError as error:
        raise DiskError(
            rule=f"{path} must be writable", got=f"{error.strerror}", fix="Free space or mend permissions."
        ) from None
    return path


def lines_of(told: dict[str, Any]) -> Iterator[str]:
    """The same for people: a few plain lines, and behind an empty one all of it."""
    yield from _summary_of(told)
    yield from _lists_of(told)


def _summary_of(told: dict[str, Any]) -> Iterator[str]:
    """What would leave, in a few lines."""
    answers = [stage for stage in told["stages"] if "refused" not in stage]
    counts = [count for stage in answers for count in stage["groups"].values()]
    num_held_back = sum(len(stage["left_out"]) for stage in answers)
    yield (
        f"What {told['site']} would send in study {told['study']} (plan {told['plan_digest'][:12]}). Nothing is sent."
    )
    yield (
        f"Leaves: counts of stays, sums over them, and network weights times their number; at most "
        f"{told['bytes_at_most']:,} bytes in {sum(stage['times'] for stage in answers)} answers. No row, id or time."
    )
    smallest = f", the smallest of size {min(counts):,}" if counts else ""
    yield (
        f"Groups of stays: {len(counts)} would leave{smallest}; {num_held_back} would be held back, too small or "
        "leaving a rest that is."
    )
    if not told["has_ecgs"]:
        yield "ECG: this hospital has none, so it has no groups of stays with an ECG."
    declined: dict[str, list[str]] = {}
    for stage in told["stages"]:
        if "refused" in stage:
            declined.setdefault(f"{stage['rule']}. {stage['fix']}", []).append(stage["stage"])
    if not declined:
        yield "Declined: no stage."
    for reason, names in declined.items():
        yield f"Declined: {', '.join(names)}: {reason}"
    yield _budget_of(told) if "privacy" in told else "Privacy budget: none, so each sum is exact (docs/privacy.md)."


def _budget_of(told: dict[str, Any]) -> str:
    """The budget in a sentence."""
    privacy = told["privacy"]
    left_out = told["num_stays_left_out"]
    one = f"; {left_out:,} stays are left out, for a patient has one" if left_out else ""
    return (
        f"Privacy: epsilon {privacy['spent']:.3f} of {privacy['epsilon']:g} is spent, at delta "
        f"{privacy['delta']:g}; a study may spend up to {privacy['study_epsilon']:g}{one}. Nothing was charged."
    )


def _lists_of(told: dict[str, Any]) -> Iterator[str]:
    """Every stage with its counts, arrays and charges."""
    for stage in told["stages"]:
        yield ""
        yield f"{stage['stage']}: at most {stage['times']} x {stage['bytes']:,} bytes"
        if "refused" in stage:
            yield f"  REFUSED, nothing would leave: {stage['refused']}"
        yield from (f"  count  {name} = {count:,}" for name, count in stage["groups"].items())
        if stage["left_out"]:
            yield f"  held back, too small or leaving a rest that is: {', '.join(stage['left_out'])}"
        for array in stage["arrays"]:
            yield f"  array  {array['name']}  {array['dtype']} {tuple(array['shape'])}  {array['bytes']:,} bytes"
        for charge in stage.get("charges", ()):
            steps = f" x {charge['steps']} at rate {charge['sample_rate']:.4f}" if charge["sample_rate"] < 1 else ""
            yield f"  charge {charge['split']}: noise {charge['noise_multiplier']:.3f} of the sensitivity{steps}"
    yield ""
    yield f"All rounds of the study: at most {told['bytes_at_most']:,} bytes."
