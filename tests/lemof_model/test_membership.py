"""The membership attack, held against rows, and against models that do and do not know their rows by heart."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from lemof_model import membership, metrics

RNG = np.random.default_rng(0)


def histogram(margin_N: np.ndarray) -> np.ndarray:
    """Stays per bin of their margin, as hospitals count them."""
    return metrics.histograms(margin_N[None], [membership.EDGES])[0]


def test_margins_are_what_the_right_label_gets() -> None:
    log_odds, label = np.array([2.0, -1.0, 3.0]), np.array([1, 0, 0], np.int8)
    assert membership.margins(log_odds, label).tolist() == [2.0, 1.0, -3.0]


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_the_attack_is_that_on_the_rows(shift: float) -> None:
    members, others = RNG.normal(shift, 1.0, 3000), RNG.normal(0.0, 1.0, 2000)
    found = membership.attack(histogram(members), histogram(others))
    assert found is not None
    truth = np.repeat([1, 0], [len(members), len(others)])
    scores = np.concatenate([members, others])
    assert (found["num_members"], found["num_others"]) == (3000, 2000)
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-3)
    low, high = found["auroc_ci"]
    assert low < found["auroc"] < high and high - low < 0.04
    false_rate, true_rate, _ = roc_curve(truth, scores)
    assert found["max_false_positive_rate"] == 0.01 and found["false_positive_rate"] <= 0.01
    expected = np.interp(found["false_positive_rate"], false_rate, true_rate)
    assert found["true_positive_rate"] == pytest.approx(expected, abs=0.01)
    assert found["true_positive_rate_ci"][0] < found["true_positive_rate"] < found["true_positive_rate_ci"][1]


def test_with_few_others_the_smallest_rate_is_ten_of_them() -> None:
    found = membership.attack(histogram(RNG.normal(size=90)), histogram(np.linspace(-3.0, 3.0, 80)))
    assert found is not None
    assert found["max_false_positive_rate"] == 10 / 80
    assert 8 / 80 < found["false_positive_rate"] <= 10 / 80


def test_nobody_can_be_attacked_where_there_are_no_members_or_no_others() -> None:
    some, none = histogram(np.zeros(5)), np.zeros(membership.NUM_BINS)
    assert membership.attack(some, none) is None and membership.attack(none, some) is None


def test_noisy_counts_below_nought_count_as_none() -> None:
    members = histogram(RNG.normal(size=500)).astype(np.float64)
    noisy = np.where(members == 0, -3.0, members)
    assert membership.attack(noisy, members) == membership.attack(members, members)
