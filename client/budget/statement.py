"""The statement of a privacy ledger: what was spent on what, what is left, and whether it all adds up."""

from collections.abc import Sequence
from typing import Any

from client.budget import accounting
from client.budget.accounting import PARTS, Budget
from client.budget.ledger import RESTORE_HELP, Entry
from lemof_model.errors import LedgerError


def verify(entries: Sequence[Entry]) -> float:
    """Recompute the epsilon of every entry from the charges up to it; the last one.

    Raises:
        LedgerError: an entry states another epsilon, or other splits than the first.
    """
    curves, epsilon = accounting.no_curves(), 0.0
    for line, entry in enumerate(entries, start=2):
        for part, added in accounting.rdp(entry.charges).items():
            curves[part] = curves[part] + added
        epsilon = max(accounting.epsilon_of(curve, entry.delta) for curve in curves.values())
        if abs(epsilon - entry.epsilon) > 1e-6:
            raise LedgerError(
                rule=f"Line {line} of the ledger must state epsilon {epsilon:.6f}, which its charges give",
                got=f"{entry.epsilon:.6f}",
                fix=RESTORE_HELP,
            )
        if entry.splits != entries[0].splits:
            raise LedgerError(
                rule=f"Line {line} of the ledger must have the splits of line 2", got="others", fix=RESTORE_HELP
            )
    return epsilon


def statement(entries: Sequence[Entry], budget: Budget) -> dict[str, Any]:
    """What was spent by part of the patients and by stage, by study, and what is left.

    A patient is in one part: the hospital's epsilon is the largest of them. Stages of one part stand each alone; the
    part's own epsilon is less than their sum.
    """
    delta = budget.delta
    by_stage = {
        stage: accounting.rdp(charge for entry in entries if entry.stage == stage for charge in entry.charges)
        for stage in dict.fromkeys(entry.stage for entry in entries)
    }
    parts: dict[str, Any] = {}
    for part in PARTS:
        stages = {stage: accounting.epsilon_of(curves[part], delta) for stage, curves in by_stage.items()}
        epsilon = accounting.epsilon_of(sum((c[part] for c in by_stage.values()), accounting.no_curves()[part]), delta)
        left = max(0.0, budget.epsilon - epsilon)
        parts[part] = {"epsilon": epsilon, "left": left, "stages": {name: e for name, e in stages.items() if e}}
    studies = []
    for digest in dict.fromkeys(entry.study for entry in entries):
        own = [entry for entry in entries if entry.study == digest]
        epsilon = accounting.spent((charge for entry in own for charge in entry.charges), delta)
        studies.append(
            {"study": digest, "name": own[0].study_name, "num_answers": len(own), "epsilon": epsilon,
             "first": own[0].at, "last": own[-1].at}
        )  # fmt: skip
    spent = max(part["epsilon"] for part in parts.values())
    return {
        "epsilon": spent, "left": max(0.0, budget.epsilon - spent), "delta": delta,
        "budget": {"epsilon": budget.epsilon, "study_epsilon": budget.study_epsilon}, "num_answers": len(entries),
        "splits": entries[0].splits if entries else None, "parts": parts, "studies": studies,
    }  # fmt: skip


def rows_of(found: dict[str, Any]) -> list[list[str]]:
    """The statement as a table: a row for each stage, then what the parts cost together and what is left of each."""
    parts = found["parts"]
    stages = dict.fromkeys(stage for part in parts.values() for stage in part["stages"])
    rows = [["", *PARTS]]
    for stage in stages:
        rows.append([stage, *(_epsilon(parts[part]["stages"].get(stage)) for part in PARTS)])
    rows.append(["together", *(_epsilon(parts[part]["epsilon"]) for part in PARTS)])
    rows.append(["left", *(_epsilon(parts[part]["left"]) for part in PARTS)])
    return rows


def _epsilon(value: float | None) -> str:
    """An epsilon for reading."""
    return "-" if value is None else f"{value:.3f}"
