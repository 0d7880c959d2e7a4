"""A whole run over some transport: plan in, run folder out. Every engine comes through here."""

import dataclasses
from pathlib import Path

from server.coordinator import run_study
from server.plan import load_plan
from server.report.page import write_report
from server.run_store import RunStore
from server.transport import Transport


def run_plan(plan: Path, out: Path, transport: Transport, resume: bool = False, *, is_simulation: bool = False) -> Path:
    """Read the plan, run or resume the study, write the report; returns the run folder.

    In a simulation all hospitals are in one hand, so totals over one or two of them are allowed whatever the plan says.
    """
    study = load_plan(plan)
    if is_simulation:
        study = dataclasses.replace(study, few_sites="allow")
    store = RunStore(out, resume)
    with store.alone():
        run_study(study, transport, store)
        write_report(out)
    return out
