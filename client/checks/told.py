"""What the hospital has told, for its own people, and whether a plan may be told beside it."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from client.checks.findings import Finding, failures
from client.cohort.hospital import open_hospital
from client.door.memory import ALLOWED, HELD_OUT, PLAN, RUN, read_memory
from client.door.told import Told
from client.site import SiteConfig, load_study
from lemof_model.errors import OtherPlanError, ToldBeforeError, printable
from lemof_model.study import Study
from protocol.stages import STAGES


def told_of(site: SiteConfig, study: Study) -> Told:
    """The site in a study, with its own memory.

    Raises:
        DataError: no cohort, or one for another plan.
    """
    return Told(site, open_hospital(site, study), site.memory)


def check_told(site: SiteConfig, plan: Path) -> Iterator[Finding]:
    """The verdict that a census of the plan would get now. Nothing is remembered.

    Raises:
        ToldBeforeError: it would be refused.
    """
    name, study = "told before", load_study(plan)
    try:
        told = told_of(site, study)
    except OtherPlanError:
        return  # another check tells
    verdict, num = told.verdict(), told.num_allowed()
    if num and verdict.problems:
        yield Finding(name, "ok", "allowed once, by a person here")
    elif verdict.differences:
        raise ToldBeforeError(*verdict.problems)
    elif verdict.num_runs:
        (finding,) = failures(name, ToldBeforeError(*verdict.problems))
        yield dataclasses.replace(finding, result="warn", exit_status=0)  # a run that is going on needs nothing
    else:
        yield Finding(name, "ok", "every group differs from what was told by nobody or by enough patients")


def list_of(site: SiteConfig) -> dict[str, Any]:
    """The studies with the groups of each stage by size, and what else was remembered, in order.

    Raises:
        MemoryDamagedError: the memory was changed or cut.
    """
    memory = read_memory(site.memory)
    studies = []
    for line in memory.lines(PLAN):
        stages: dict[str, list[tuple[int, int]]] = {name: [] for name in STAGES}
        for stage, asks, _, number in line["told"]:
            stages.setdefault(f"{stage} on {asks}" if asks else stage, []).append(memory.size(number))
        told = {
            stage: {
                "groups": len(sizes),
                "patients": [min(p for p, _ in sizes), max(p for p, _ in sizes)],
                "stays": [min(s for _, s in sizes), max(s for _, s in sizes)],
            }
            for stage, sizes in stages.items()
            if sizes
        }
        studies.append({"study": line["study"], "name": printable(line["name"]), "at": line["at"], "stages": told})
    events = [
        f"{line['at'][:16]}  {printable(line['name'])} ({line['study'][:12]}): {_SAID[line['kind']]}"
        + (f" {line['run'][:12]}" if "run" in line else "")
        for kind in (ALLOWED, RUN, HELD_OUT)
        for line in memory.lines(kind)
    ]
    return {"site": site.site.name, "studies": studies, "events": sorted(events)}


_SAID = {
    ALLOWED: "a person here let it through once",
    RUN: "began, by permission, run",
    HELD_OUT: "held-out patients were told of in run",
}


def rows_of(found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The same for a table: study, stage, groups, patients and stays from the smallest group to the largest."""
    for study in found["studies"]:
        name = f"{study['name']} ({study['study'][:12]}) {study['at'][:10]}"
        for stage, told in study["stages"].items():
            spans = (f"{low:,} to {high:,}" for low, high in (told["patients"], told["stays"]))
            yield name, stage, f"{told['groups']:,}", *spans
            name = ""
