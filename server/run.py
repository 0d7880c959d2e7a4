"""A whole run over some transport: plan in, run folder out. Every engine comes through here."""

import dataclasses
from pathlib import Path

from lemof_model.errors import LemofError
from protocol.plan import load_plan
from server.coordinator import run_study
from server.report.page import write_report
from server.run_store import FAILURE, ON_THE_COMMAND_LINE, Asked, RunStore, note
from server.transport import Transport


def run_plan(
    plan: Path,
    out: Path,
    transport: Transport,
    resume: bool = False,
    *,
    is_simulation: bool = False,
    asked: Asked = ON_THE_COMMAND_LINE,
) -> Path:
    """Read the plan, run or resume the study, write the report; returns the run folder.

    In a simulation all hospitals are in one hand, so totals over one or two of them are allowed whatever the plan says.
    Why a study failed is noted in the folder; ``asked`` is how the person at work named plan and folder.
    """
    study = load_plan(plan, asked.plan)
    if is_simulation:
        study = dataclasses.replace(study, few_sites="allow")
    store = RunStore(out, resume, asked)
    with store.alone():
        try:
            run_study(study, transport, store)
        except Exception as error:
            bug = f"a bug in lemof ({type(error).__name__}); its log has the lines"
            note(out, FAILURE, str(error) if isinstance(error, LemofError) else bug)
            raise
        write_report(out)
    return out
