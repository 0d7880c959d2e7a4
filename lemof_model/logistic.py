"""G, the logistic learner of the paper (eq. 3), fitted by Newton steps from sums alone.

A hospital computes ``sums`` over its rows; the server adds them and steps (``Newton``). The result is the optimum on
all hospitals' rows, as one scikit-learn ``LogisticRegression(C=c)`` on the pooled rows finds it: the ridge ``1 / c`` is
added once, by the server, and leaves the intercept alone.

Shapes: N rows, P inputs; ``theta`` is ``(P + 1,)``, weights first, intercept last. All float64.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

EXPECTED_MOVE = 0.25
"""How far a coefficient is thought to lie from a noisy step's start: what is expected before sums are seen."""

NOISY_STEP = 1.0
"""The longest noisy step: where log-odds are too sure of themselves a Hessian is nearly 0, and a step from it wild."""


class LogisticSums(NamedTuple):
    """What a site sends of its rows: all of it adds up across sites."""

    gradient: Float
    hessian: Float
    loss: Float


def decision(theta: Float, rows_NP: Float) -> Float:
    """Log-odds of each row, ``w x + b``.

    Column by column: of a matrix times a vector the last rows are added up in another order than those before them.
    """
    log_odds = np.zeros(len(rows_NP))
    for weight, x_N in zip(theta[:-1], rows_NP.T, strict=True):
        log_odds += weight * x_N
    return np.asarray(log_odds + theta[-1], dtype=np.float64)


def sigmoid(log_odds: Float) -> Float:
    """Probability of log-odds, without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -log_odds)), dtype=np.float64)


def sums(theta: Float, rows_NP: Float, labels_N: NDArray[np.generic], weights_N: Float | None = None) -> LogisticSums:
    """Gradient, Hessian and value of the summed logistic loss at ``theta``, without ridge; rows may be weighted.

    Example:
        >>> parts = sums(np.zeros(2), np.array([[1.0], [-1.0]]), np.array([1, 0]))
        >>> parts.gradient.tolist(), round(float(parts.loss), 4)
        ([-1.0, 0.0], 1.3863)
    """
    design = np.column_stack([rows_NP, np.ones(len(rows_NP))])
    labels = labels_N.astype(np.float64)
    log_odds = decision(theta, rows_NP)
    probability = sigmoid(log_odds)
    weights = np.ones(len(design)) if weights_N is None else weights_N
    return LogisticSums(
        gradient=design.T @ (weights * (probability - labels)),
        hessian=(design.T * (weights * probability * (1.0 - probability))) @ design,
        loss=np.asarray(weights @ (np.logaddexp(0.0, log_odds) - labels * log_odds)),
    )


@dataclass(frozen=True)
class Newton:
    """A Newton search for the ridge optimum, one answer at a time; immutable.

    ``theta`` is where sums are wanted next. A step that raised the loss is halved (line search). ``is_done`` when the
    squared Newton decrement is so small that the step just taken ends within 1e-9 of the optimum.

    Attributes:
        anchor: the best point with known loss; ``step`` leads from it to ``theta``.
        hessian: with ridge, at ``anchor``: its inverse is the covariance of the coefficients.
    """

    theta: Float
    ridge: float
    anchor: Float | None = None
    anchor_loss: float = np.inf
    step: Float | None = None
    hessian: Float | None = None
    num_steps: int = 0
    is_done: bool = False

    def advance(self, total: LogisticSums) -> "Newton":
        """Take the next step from the sums of all sites at ``self.theta``."""
        loss = float(total.loss) + 0.5 * self.ridge * float(self.theta[:-1] @ self.theta[:-1])
        shared = {"ridge": self.ridge, "num_steps": self.num_steps + 1}
        if self.anchor is not None and self.step is not None and loss > self.anchor_loss + 1e-9 * abs(self.anchor_loss):
            half = np.asarray(self.step / 2.0, dtype=np.float64)
            return Newton(
                self.anchor + half, anchor=self.anchor, anchor_loss=self.anchor_loss, step=half, hessian=self.hessian,
                **shared,  # type: ignore[arg-type]
            )  # fmt: skip
        penalty = np.append(np.full(len(self.theta) - 1, self.ridge), 0.0)
        hessian = total.hessian + np.diag(penalty)
        gradient = total.gradient + penalty * self.theta
        step = np.asarray(-np.linalg.solve(hessian, gradient), dtype=np.float64)
        decrement = float(-gradient @ step)
        return Newton(
            self.theta + step, anchor=self.theta, anchor_loss=loss, step=step, hessian=hessian,
            is_done=decrement < 1e-9, **shared,  # type: ignore[arg-type]
        )  # fmt: skip

    def advance_noisy(self, total: LogisticSums, gradient_deviation: float, hessian_deviation: float) -> "Newton":
        """Take the one step from sums that are noisy, no longer than ``NOISY_STEP``, and end.

        A second step would halve the budget of the first. A ridge holds the coefficients to where they are: the
        gradient's noise over ``EXPECTED_MOVE``, and the largest eigenvalue that the Hessian's noise alone would have
        (semicircle law; ``hessian_deviation`` is that of a diagonal element, ``1 / sqrt 2`` of it beside the diagonal).
        Where it is more than half of the mean eigenvalue, no step is taken: what it would gain is less than its noise.
        """
        num = len(self.theta)
        penalty = np.append(np.full(num - 1, self.ridge), 0.0)
        hold = gradient_deviation / EXPECTED_MOVE + hessian_deviation * float(np.sqrt(2 * num))
        value_P, vector_PP = np.linalg.eigh(total.hessian)
        hessian = (vector_PP * np.maximum(value_P, 0.0)) @ vector_PP.T + np.diag(penalty + max(hold, self.ridge))
        step = -np.linalg.solve(hessian, total.gradient + penalty * self.theta)
        step *= min(1.0, NOISY_STEP / max(float(np.linalg.norm(step)), NOISY_STEP))
        if hold > np.trace(total.hessian) / num / 2:
            step = np.zeros(num)
        return Newton(
            self.theta + step, self.ridge, anchor=self.theta, hessian=hessian, num_steps=self.num_steps + 1,
            is_done=True,
        )  # fmt: skip

    @property
    def found(self) -> Float:
        """The optimum, or, while it is not reached, the best point whose loss is known (a noisy step knows none)."""
        return self.theta if self.is_done or self.anchor is None else self.anchor

    def without_history(self) -> "Newton":
        """Start again from the current coefficients: the set of sites has changed, and so has the loss."""
        return Newton(self.theta, self.ridge)


def start(num_inputs: int, c: float) -> Newton:
    """Begin at zero coefficients with scikit-learn's ``C``."""
    return Newton(np.zeros(num_inputs + 1), 1.0 / c)


def num_errors(theta: Float, rows_NP: Float, labels_N: NDArray[np.generic]) -> int:
    """Rows on the wrong side of 0. None at all, over all sites: the inputs separate the labels, and without a ridge
    the coefficients would grow for ever."""
    return int(((decision(theta, rows_NP) > 0) != labels_N.astype(bool)).sum())


def fit(
    rows_NP: Float, labels_N: NDArray[np.generic], c: float, weights_N: Float | None = None, max_steps: int = 30
) -> Float:
    """Fit G on rows at hand; the federated search with one site."""
    search = start(rows_NP.shape[1], c)
    while not search.is_done and search.num_steps < max_steps:
        search = search.advance(sums(search.theta, rows_NP, labels_N, weights_N))
    return search.found
