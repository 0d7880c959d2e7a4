"""The privacy ledger: that it is as it was written and the cohort's own, goes with the plan, and has something left."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from client.budget import accounting
from client.budget.ledger import read_ledger, require_no_folds, require_same_splits
from client.budget.statement import verify
from client.budget.tie import stated
from client.checks.findings import Finding, failures
from client.site import Privacy, load_study
from lemof_model.errors import BudgetError
from lemof_model.study import Study


def check_ledger(privacy: Privacy, cohort: Path, plan: Path | None) -> Iterator[Finding]:
    """Whether a new study, that of the plan if there is one, could begin on what is left. Nothing is changed.

    Raises:
        NotAllowedError: the plan has folds.
        LedgerError: a line was changed, moved or cut, or the cohort has another ledger.
    """
    study = load_study(plan)
    if plan is not None:
        require_no_folds(study)
    name, entries = "privacy ledger", read_ledger(privacy.ledger, cohort)
    epsilon = verify(entries)
    try:
        if plan is not None:
            require_same_splits(entries, study.splits)
        before = accounting.rdp(charge for entry in entries for charge in entry.charges)
        accounting.schedule(Study(), privacy.budget, before=before, own=accounting.no_curves())
    except BudgetError as error:
        (finding,) = failures(name, error)
        yield dataclasses.replace(finding, result="warn", exit_status=0)
    else:
        spent = f"epsilon {epsilon:.3f} of {privacy.epsilon:g} spent in {len(entries):,} answers"
        yield Finding(name, "ok", f"{spent}; {stated(cohort)}")
