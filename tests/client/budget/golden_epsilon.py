"""Makes ``golden_epsilon.json``: what whole studies cost, as dp-accounting counts it. Two commands, two environments:

    python -m tests.client.budget.golden_epsilon                         # the project's: writes the charges
    VENV/bin/python tests/client/budget/golden_epsilon.py                # dp-accounting's: adds epsilon to them

where VENV is an environment of its own: python -m venv VENV && VENV/bin/pip install dp-accounting==0.6.0
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).with_suffix(".json")
DELTA = 1e-5
COUNTS = {"train/ehr": 750, "stack/ehr": 375}


def charges_of(study: Any, schedule: Any) -> list[tuple[str, int, list[Any]]]:
    """Stage, round and charges of every answer of a whole study, in the order of the protocol."""
    answers: list[tuple[str, list[Any]]] = []

    def add(stage: str, *released: str, num: int = 1, sgd: tuple[str, ...] = ()) -> None:
        charges = [schedule.charge(*name.rsplit("/", 1)) for name in released for _ in range(num)]
        answers.append((stage, charges + [schedule.sgd[stage].charge(part) for part in sgd]))

    add("census", "train/census", "stack/census", "tuning/census", "held_out/census")
    for last in [False] * study.encoders.num_rounds + [True]:
        add("encoders", "tuning/losses", sgd=() if last else ("train",))
    add("meta", "stack/meta", num=6)
    add("importance", "stack/importance", num=2)
    for number in range(study.attention.training.num_rounds + 1):
        omega_1 = ("stack/omega_1",) * 2 if number == 0 else ()
        is_last = number == study.attention.training.num_rounds
        add("attention", "tuning/losses", *omega_1, sgd=() if is_last else ("stack/0", "stack/1"))
    add("final", "stack/final", num=2)
    add("evaluation", "tuning/evaluation")
    add("evaluation", "held_out/evaluation", "held_out/membership", "train/membership", "stack/membership")
    add("intervals", "held_out/intervals")
    return [(stage, number, charges) for number, (stage, charges) in enumerate(answers, start=1)]


def write_charges() -> None:
    """Whole studies under several budgets, and a second study after a first."""
    from dataclasses import asdict

    from client.budget import accounting
    from client.budget.accounting import ORDERS, Budget, Charge
    from lemof_model.study import AttentionSpec, Study, TrainingSpec

    def whole(study: Study, budget: Budget, before: list[Charge]) -> list[Charge]:
        nothing, spent = accounting.no_curves(), accounting.rdp(before)
        planned = accounting.schedule(study, budget, before=spent, own=nothing)
        planned = accounting.with_counts(planned, study, budget, COUNTS, before=spent, own=nothing)
        return [charge for _, _, charges in charges_of(study, planned) for charge in charges]

    short = Study(encoders=TrainingSpec(num_rounds=5), attention=AttentionSpec(training=TrainingSpec(num_rounds=3)))
    cases = {f"default study, epsilon {e}": whole(Study(), Budget(e, DELTA, e), []) for e in (1, 2, 4, 8)}
    first = whole(Study(), Budget(8, DELTA, 5), [])
    cases["two studies, 5 of 8 each at most"] = first + whole(short, Budget(8, DELTA, 5), first)
    counted = []
    for what, charges in cases.items():
        times: dict[Charge, int] = {}
        for charge in charges:
            times[charge] = times.get(charge, 0) + 1
        counted.append({"what": what, "charges": [{**asdict(c), "times": n} for c, n in times.items()]})
    GOLDEN.write_text(json.dumps({"delta": DELTA, "orders": ORDERS, "cases": counted}) + "\n")


def add_epsilon() -> None:
    """The same charges through dp-accounting: same orders, its own conversion, one accountant for each part."""
    import dp_accounting
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    golden = json.loads(GOLDEN.read_text())
    for case in golden["cases"]:
        accountants = {
            part: RdpAccountant(golden["orders"]) for part in ("train", "stack/0", "stack/1", "tuning", "held_out")
        }
        for charge in case["charges"]:
            event = GaussianDpEvent(charge["noise_multiplier"])
            if charge["mechanism"] == "subsampled_gaussian":
                event = PoissonSampledDpEvent(charge["sample_rate"], event)
            for part, accountant in accountants.items():
                if part == charge["split"] or part.startswith(charge["split"] + "/"):
                    accountant.compose(event, charge["steps"] * charge["times"])
        case["epsilon"] = {part: accountant.get_epsilon(golden["delta"]) for part, accountant in accountants.items()}
    golden["dp_accounting"] = getattr(dp_accounting, "__version__", "")
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    (add_epsilon if find_spec("dp_accounting") else write_charges)()
