"""Shapley values of G against their definition and against the shap package."""

import itertools
import math
import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from lemof_model import importance, logistic

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # shap meets newer libraries than it was written for while it is imported
    import shap

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(60, 3)) * [1.0, 2.0, 0.5] + [0.2, -1.0, 0.0]
LABELS = (RNG.random(60) < logistic.sigmoid(ROWS.sum(axis=1))).astype(np.int8)
THETA = logistic.fit(ROWS, LABELS, 1.0)
BACKGROUND = ROWS.mean(axis=0)


def test_shapley_values_add_up_to_the_log_odds_minus_those_at_the_background() -> None:
    total = importance.shap_values(THETA, ROWS, BACKGROUND).sum(axis=1)
    base = logistic.decision(THETA, BACKGROUND[None])[0]
    np.testing.assert_allclose(total, logistic.decision(THETA, ROWS) - base, rtol=0, atol=1e-12)


def test_shapley_values_are_those_of_the_definition() -> None:
    """Mean over all orders of the levels of what a level adds when it comes in."""
    expected = np.zeros_like(ROWS)
    for order in itertools.permutations(range(3)):
        x = np.tile(BACKGROUND, (len(ROWS), 1))
        for level in order:
            before = logistic.decision(THETA, x)
            x[:, level] = ROWS[:, level]
            expected[:, level] += (logistic.decision(THETA, x) - before) / math.factorial(3)
    np.testing.assert_allclose(importance.shap_values(THETA, ROWS, BACKGROUND), expected, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_shapley_values_equal_those_of_the_shap_package() -> None:
    ours = importance.shap_values(THETA, ROWS, BACKGROUND)
    fitted = LogisticRegression().fit(ROWS, LABELS)
    fitted.coef_, fitted.intercept_ = THETA[None, :3], THETA[3:]
    masker = shap.maskers.Independent(ROWS, max_samples=len(ROWS))
    np.testing.assert_allclose(shap.LinearExplainer(fitted, masker).shap_values(ROWS), ours, rtol=0, atol=1e-9)
    exact = shap.explainers.Exact(lambda x: logistic.decision(THETA, np.asarray(x, np.float64)), masker)
    np.testing.assert_allclose(exact(ROWS).values, ours, rtol=0, atol=1e-9)


def test_federated_importance_is_that_of_the_pooled_rows() -> None:
    parts = [importance.importance_sums(THETA, rows, BACKGROUND) for rows in (ROWS[:7], ROWS[7:40], ROWS[40:])]
    pooled = np.abs(importance.shap_values(THETA, ROWS, BACKGROUND)).mean(axis=0)
    np.testing.assert_allclose(sum(parts) / len(ROWS), pooled, rtol=1e-12)


@pytest.mark.parametrize(
    ("values", "expected"), [([3.0, 2.0, 1.0], 1), ([1.0, 2.0, 3.0], 3), ([2.0, 2.0, 1.0], 1), ([0.0, 0.0, 0.0], 1)]
)
def test_the_lower_level_wins_a_tie(values: list[float], expected: int) -> None:
    assert importance.best_level(np.array(values)) == expected


def test_winner_counts_equal_importance_recomputed_for_every_draw() -> None:
    hessian = logistic.sums(THETA, ROWS, LABELS).hessian + np.diag([1.0, 1.0, 1.0, 0.0])
    total = importance.importance_sums(THETA, ROWS, BACKGROUND)

    def rng() -> np.random.Generator:
        return np.random.default_rng(5)

    found = importance.winner_counts(THETA, hessian, total, num_draws=300, rng=rng())
    draws = rng().multivariate_normal(THETA, np.linalg.inv(hessian), size=300, method="cholesky")
    winners = [importance.best_level(importance.importance_sums(draw, ROWS, BACKGROUND)) for draw in draws]
    assert found == [winners.count(level) for level in (1, 2, 3)]
    assert sum(count > 0 for count in found) > 1, "a choice that no draw doubts tests nothing"


def test_a_level_without_weight_never_wins() -> None:
    theta: NDArray[np.float64] = np.array([0.0, 1.0, 0.0, 0.0])
    counts = importance.winner_counts(
        theta, np.eye(4) * 1e6, np.array([0.0, 5.0, 0.0]), num_draws=50, rng=np.random.default_rng(0)
    )
    assert counts == [0, 50, 0]
