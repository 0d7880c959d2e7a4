"""The federated Newton search against scikit-learn on the pooled rows."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from lemof_model import logistic
from lemof_model.logistic import LogisticSums, Newton


def level_rows(seed: int, num_stays: int = 400, spread: float = 0.05) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Three log-odds of one latent risk, nearly equal: what the levels of one encoder look like."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(-0.6, 1.2, num_stays)
    rows = risk[:, None] * [0.6, 0.9, 1.0] + spread * rng.normal(size=(num_stays, 3))
    return rows, (rng.random(num_stays) < expit(risk)).astype(np.int8)


def sklearn_theta(
    rows: NDArray[np.float64], labels: NDArray[np.int8], c: float, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    fitted = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-12, max_iter=200)
    fitted.fit(rows, labels, sample_weight=weights)
    return np.append(fitted.coef_[0], fitted.intercept_)


def search_of(rows: NDArray[np.float64], labels: NDArray[np.int8], c: float = 1.0) -> Newton:
    search = logistic.start(rows.shape[1], c)
    while not search.is_done and search.num_steps < 8:
        search = search.advance(logistic.sums(search.theta, rows, labels))
    return search


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [0.5, 0.05, 1e-4])
@pytest.mark.parametrize("c", [0.1, 1.0, 100.0])
def test_newton_equals_scikit_learn_in_eight_steps(seed: int, spread: float, c: float) -> None:
    rows, labels = level_rows(seed, spread=spread)
    search = search_of(rows, labels, c)
    assert search.is_done and search.num_steps <= 8
    np.testing.assert_allclose(search.theta, sklearn_theta(rows, labels, c), rtol=0, atol=1e-8)


def test_rows_may_be_weighted() -> None:
    rows, labels = level_rows(3)
    weights = np.random.default_rng(1).integers(0, 4, len(labels)).astype(np.float64)
    found = logistic.fit(rows, labels, 1.0, weights)
    np.testing.assert_allclose(found, sklearn_theta(rows, labels, 1.0, weights), rtol=0, atol=1e-8)


def test_sums_over_three_sites_are_the_sums_over_the_whole() -> None:
    rows, labels = level_rows(0)
    theta = np.array([0.4, -1.0, 0.3, 0.2])
    cuts = [slice(0, 30), slice(30, 250), slice(250, None)]
    parts = [logistic.sums(theta, rows[cut], labels[cut]) for cut in cuts]
    whole = logistic.sums(theta, rows, labels)
    for name in LogisticSums._fields:
        added = sum(getattr(part, name) for part in parts)
        np.testing.assert_allclose(added, getattr(whole, name), rtol=1e-12, atol=1e-12)


def test_sums_are_those_of_a_slow_loop_and_of_finite_differences() -> None:
    rows, labels = level_rows(2, num_stays=25)
    theta = np.array([0.4, -1.0, 0.3, 0.2])

    def loss(at: NDArray[np.float64]) -> float:
        total = 0.0
        for x, y in zip(rows, labels, strict=True):
            p = expit(x @ at[:3] + at[3])
            total -= np.log(p if y else 1.0 - p)
        return total

    found, step = logistic.sums(theta, rows, labels), 1e-5 * np.eye(4)
    gradient = [(loss(theta + d) - loss(theta - d)) / 2e-5 for d in step]
    np.testing.assert_allclose(float(found.loss), loss(theta), rtol=1e-12)
    np.testing.assert_allclose(found.gradient, gradient, rtol=1e-6, atol=1e-7)
    hessian = [
        (logistic.sums(theta + d, rows, labels).gradient - logistic.sums(theta - d, rows, labels).gradient) / 2e-5
        for d in step
    ]
    np.testing.assert_allclose(found.hessian, hessian, rtol=1e-6, atol=1e-7)


def test_a_step_that_raises_the_loss_is_halved_until_it_does_not() -> None:
    rows, labels = np.array([[-1.0], [1.0], [2.0], [3.0]]), np.array([0, 1, 0, 1], np.int8)
    far = Newton(np.array([-6.0, 6.0]), ridge=1e-3)  # where the loss is flat a whole Newton step goes much too far
    first = far.advance(logistic.sums(far.theta, rows, labels))
    second = first.advance(logistic.sums(first.theta, rows, labels))
    assert first.step is not None and second.step is not None
    before, after = (float(logistic.sums(theta, rows, labels).loss) for theta in (far.theta, first.theta))
    assert after > before and second.anchor is not None
    np.testing.assert_array_equal(second.anchor, far.theta)
    np.testing.assert_allclose(second.theta, far.theta + first.step / 2.0)
    np.testing.assert_allclose(second.step, first.step / 2.0)
    search = second
    while not search.is_done and search.num_steps < 60:
        search = search.advance(logistic.sums(search.theta, rows, labels))
    assert search.is_done
    np.testing.assert_allclose(search.theta, sklearn_theta(rows, labels, 1e3), rtol=0, atol=1e-8)


def test_without_history_goes_on_from_the_coefficients_with_other_sites() -> None:
    rows, labels = level_rows(4)
    search = logistic.start(3, 1.0)
    for _ in range(2):
        search = search.advance(logistic.sums(search.theta, rows, labels))
    rest, rest_labels = rows[:150], labels[:150]
    again = search.without_history()
    np.testing.assert_array_equal(again.theta, search.theta)
    assert again.num_steps == 0 and again.anchor is None and again.ridge == search.ridge
    while not again.is_done:
        again = again.advance(logistic.sums(again.theta, rest, rest_labels))
    np.testing.assert_allclose(again.theta, sklearn_theta(rest, rest_labels, 1.0), rtol=0, atol=1e-8)


def test_separation_is_told() -> None:
    rows = np.linspace(-1.0, 1.0, 40)[:, None]
    labels = (rows[:, 0] > 0).astype(np.int8)
    for scale in (0.1, 1.0, 10.0):
        assert logistic.num_errors(logistic.fit(scale * rows, labels, 1.0), scale * rows, labels) == 0
    rows, labels = level_rows(0)
    theta = logistic.fit(rows, labels, 1.0)
    wrong = sum((row @ theta[:-1] + theta[-1] > 0) != bool(label) for row, label in zip(rows, labels, strict=True))
    assert logistic.num_errors(theta, rows, labels) == wrong > 0


def test_a_search_out_of_steps_gives_the_best_point_it_knows() -> None:
    rows, labels = np.array([[-1.0], [1.0], [2.0], [3.0]]), np.array([0, 1, 0, 1], np.int8)
    far = Newton(np.array([-6.0, 6.0]), ridge=1e-3)
    first = far.advance(logistic.sums(far.theta, rows, labels))
    np.testing.assert_array_equal(first.found, far.theta)
    assert not np.array_equal(first.found, first.theta)


def test_the_ridge_leaves_the_intercept_alone() -> None:
    labels = np.array([1] * 30 + [0] * 10, np.int8)
    theta = logistic.fit(np.zeros((40, 1)), labels, 1e-6)
    np.testing.assert_allclose(theta, [0.0, np.log(3.0)], atol=1e-8)


def test_sigmoid_does_not_overflow() -> None:
    np.testing.assert_allclose(logistic.sigmoid(np.array([-1e4, 0.0, 1e4])), [0.0, 0.5, 1.0])


def from_the_mean() -> Newton:
    return Newton(np.array([1 / 3, 1 / 3, 1 / 3, 0.0]), 1.0)


def test_a_noisy_step_without_noise_goes_most_of_the_way_to_the_optimum() -> None:
    rows, labels = level_rows(0, spread=0.5)
    start, optimum = from_the_mean(), sklearn_theta(rows, labels, 1.0)
    after = start.advance_noisy(logistic.sums(start.theta, rows, labels), 0.0, 0.0)
    assert after.is_done and after.num_steps == 1
    assert np.linalg.norm(after.found - optimum) < 0.2 * np.linalg.norm(start.theta - optimum)


def test_a_hessian_that_noise_made_indefinite_still_goes_down() -> None:
    rows, labels = level_rows(0)
    found = logistic.sums(np.zeros(4), rows, labels)
    search = logistic.start(3, 1.0).advance_noisy(found._replace(hessian=found.hessian - 90.0 * np.eye(4)), 0.0, 0.0)
    assert search.hessian is not None and np.linalg.eigvalsh(search.hessian).min() >= search.ridge - 1e-9
    assert search.theta @ found.gradient < 0


def test_a_noisy_step_is_no_longer_than_one() -> None:
    """Log-odds that are far too sure have next to no curvature, and Newton's own step would leave the earth."""
    rows, labels = level_rows(0)
    search = from_the_mean()
    after = search.advance_noisy(logistic.sums(search.theta, 20 * rows, 1 - labels), 0.0, 0.0)
    assert np.linalg.norm(after.theta - search.theta) == pytest.approx(logistic.NOISY_STEP)


def test_no_step_is_taken_where_noise_hides_what_it_would_gain() -> None:
    rows, labels = level_rows(0)
    start = from_the_mean()
    total = logistic.sums(start.theta, rows, labels)
    hold = float(np.trace(total.hessian)) / 4 / 2
    little, much = (start.advance_noisy(total, share * hold * logistic.EXPECTED_MOVE, 0.0) for share in (0.99, 1.01))
    assert np.abs(little.theta - start.theta).max() > 1e-3 and little.is_done
    np.testing.assert_array_equal(much.theta, start.theta)
    assert much.is_done and much.num_steps == 1


def test_noise_moves_a_coefficient_no_further_than_expected_however_much_there_is_of_it() -> None:
    """The noise of gradient and Hessian grows together; a step that heeds it stays near where it began."""
    rows, labels = level_rows(0, num_stays=200)
    radius, rng, start = 3.0, np.random.default_rng(0), from_the_mean()
    parts = logistic.sums(start.theta, rows, labels)
    for multiplier in (10.0, 1000.0):
        found = []
        for _ in range(200):
            noise, deviation = rng.normal(size=(4, 4)), multiplier * radius**2 / 4
            upper = np.triu(noise, 1) / np.sqrt(2)
            hessian = parts.hessian + deviation * (upper + upper.T + np.diag(np.diag(noise)))
            gradient = parts.gradient + multiplier * radius * rng.normal(size=4)
            total = LogisticSums(gradient, hessian, parts.loss)
            found.append(start.advance_noisy(total, multiplier * radius, deviation).found)
        assert np.std(found, axis=0).max() < logistic.EXPECTED_MOVE
