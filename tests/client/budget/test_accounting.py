"""Epsilon is what an independent accountant finds, and a schedule fills its budget and never passes it."""

import json
import math

import numpy as np
import pytest

from client.budget import accounting
from client.budget.accounting import ORDERS, PARTS, Budget, Charge, Schedule
from lemof_model.errors import BudgetError
from lemof_model.study import AttentionSpec, Study, TrainingSpec
from protocol.noise_limits import sgd_rate, times_released
from tests.client.budget.golden_epsilon import COUNTS, DELTA, GOLDEN, charges_of

CASES = json.loads(GOLDEN.read_text())["cases"]
NOTHING = accounting.no_curves()


def planned(study: Study, budget: Budget, before: accounting.Curves = NOTHING) -> Schedule:
    found = accounting.schedule(study, budget, before=before, own=NOTHING)
    return accounting.with_counts(found, study, budget, COUNTS, before=before, own=NOTHING)


def whole(study: Study, schedule: Schedule) -> list[Charge]:
    return [charge for _, _, charges in charges_of(study, schedule) for charge in charges]


@pytest.mark.parametrize("case", CASES, ids=[case["what"] for case in CASES])
def test_epsilon_is_that_of_dp_accounting(case) -> None:
    charges = [
        Charge(**{name: c[name] for name in c if name != "times"}) for c in case["charges"] for _ in range(c["times"])
    ]
    curves = accounting.rdp(charges)
    assert list(curves) == list(PARTS)
    found = {part: accounting.epsilon_of(curve, DELTA) for part, curve in curves.items()}
    assert found == pytest.approx(case["epsilon"], rel=1e-6)
    assert accounting.spent(charges, DELTA) == max(found.values())


def test_conversion_is_that_of_opacus() -> None:
    from opacus.accountants.analysis.rdp import get_privacy_spent

    for curve in (0.01 * np.array(ORDERS), 0.3 * np.array(ORDERS)):
        theirs, _ = get_privacy_spent(orders=list(ORDERS), rdp=curve, delta=1e-6)
        assert accounting.epsilon_of(curve, 1e-6) == pytest.approx(theirs, rel=1e-12)
    assert accounting.epsilon_of(NOTHING["train"], 1e-5) == 0.0
    assert accounting.epsilon_of(np.full(len(ORDERS), 1e-9), 0.5) == 0.0  # never below


def test_parts_compose_in_parallel_and_charges_within_one_add_up() -> None:
    one = Charge("train", "gaussian", 3.0)
    alone = accounting.spent([one], DELTA)
    assert (
        accounting.spent([one, Charge("tuning", "gaussian", 3.0), Charge("held_out", "gaussian", 4.0)], DELTA) == alone
    )
    folds = [Charge("stack/0", "gaussian", 3.0), Charge("stack/1", "gaussian", 3.0)]
    assert accounting.spent(folds, DELTA) == alone
    assert accounting.spent([Charge("stack", "gaussian", 3.0)], DELTA) == alone
    twice = accounting.spent([Charge("stack", "gaussian", 3.0), *folds], DELTA)
    assert (
        twice
        == accounting.spent([one, one], DELTA)
        == accounting.spent([Charge("train", "gaussian", 3.0, 1.0, 2)], DELTA)
    )
    assert twice == pytest.approx(accounting.spent([Charge("train", "gaussian", 3.0 / math.sqrt(2))], DELTA))
    assert twice > alone


@pytest.mark.parametrize("epsilon", [1.0, 2.0, 4.0, 8.0])
def test_a_schedule_fills_every_part_and_never_passes(epsilon: float) -> None:
    study = Study()
    curves = accounting.rdp(whole(study, planned(study, Budget(epsilon, DELTA, epsilon))))
    for part in PARTS:
        found = accounting.epsilon_of(curves[part], DELTA)
        assert epsilon * (1 - 1e-3) <= found <= epsilon, part


def test_golden_noise_of_the_default_plan() -> None:
    """The noise of DP-SGD over 750 and 375 stays; made by the code, read by eye: it falls as epsilon grows."""
    found = {e: planned(Study(), Budget(e, DELTA, e)).sgd for e in (1, 8)}
    assert found[1]["encoders"].noise_multiplier > 4 * found[8]["encoders"].noise_multiplier > 4
    for sgd in found.values():
        assert [found.steps for found in sgd.values()] == [12, 4 * 3]
        assert sgd["encoders"].sample_rate == pytest.approx(64 / 750)
        assert sgd["attention"].sample_rate == pytest.approx(64 / 187.5)


def test_a_second_study_gets_what_the_first_left() -> None:
    first, second = (
        Study(),
        Study(encoders=TrainingSpec(num_rounds=3), attention=AttentionSpec(training=TrainingSpec(num_rounds=2))),
    )
    budget = Budget(8.0, DELTA, 6.0)
    charges = whole(first, planned(first, budget))
    assert accounting.spent(charges, DELTA) == pytest.approx(6.0, rel=1e-3)
    assert accounting.spent(charges, DELTA) <= 6.0
    later = whole(second, planned(second, budget, accounting.rdp(charges)))
    together = accounting.rdp(charges + later)
    for part in PARTS:
        assert 8.0 * (1 - 1e-3) <= accounting.epsilon_of(together[part], DELTA) <= 8.0
    assert accounting.spent(later, DELTA) < 6.0
    with pytest.raises(BudgetError, match="must leave something for train, got nothing left under epsilon 8"):
        planned(second, budget, together)


def test_one_study_spends_no_more_than_its_share() -> None:
    study, budget = Study(), Budget(8.0, DELTA, 1.5)
    assert accounting.spent(whole(study, planned(study, budget)), DELTA) == pytest.approx(1.5, rel=1e-3)
    with pytest.raises(BudgetError):  # the study has been here before, and has spent its share
        accounting.schedule(study, budget, before=NOTHING, own=accounting.rdp(whole(study, planned(study, budget))))


def test_few_stays_are_all_sampled() -> None:
    spec = TrainingSpec(batch_size=64, num_epochs=2)
    assert sgd_rate(spec, 40) == sgd_rate(spec, 0) == (1.0, 2)
    assert sgd_rate(spec, 640) == (0.1, 20)


def test_the_shares_of_a_split_add_up_to_its_budget() -> None:
    for split, rest in (("train", True), ("stack", True), ("tuning", False), ("held_out", False)):
        total = sum(share.share for share in times_released(Study()) if share.split == split)
        assert total < 1 if rest else total == pytest.approx(1)


def test_a_schedule_survives_json() -> None:
    schedule = planned(Study(), Budget(2.0, DELTA, 2.0))
    assert Schedule.from_json(json.loads(json.dumps(schedule.to_json()))) == schedule
