"""A whole run over some transport: plan in, run folder out. Every engine comes through here."""

from pathlib import Path

from server.coordinator import run_study
from server.plan import load_plan
from server.report.page import write_report
from server.run_store import RunStore
from server.transport import Transport


def run_plan(plan: Path, out: Path, transport: Transport, resume: bool = False) -> Path:
    """Read the plan, run or resume the study, write the report; returns the run folder."""
    study = load_plan(plan)
    run_study(study, transport, RunStore(out, resume))
    write_report(out)
    return out
