"""Level importance (paper, stage 2, eq. 5-6): Shapley values of the level predictions for G, and the best level.

In log-odds G is linear, so the Shapley value of level k against a background b is exactly ``w_k (x_k - b_k)``; the
three add up to the log-odds minus the log-odds at the background. NOTE[DIFF]: eq. 6 has |phi| without saying over whom;
here it is the mean over all hospitals' ``stack`` stays, with one background for the whole federation.
"""

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def shap_values(theta: Float, rows_NK: Float, background_K: Float) -> Float:
    """Shapley values ``shap_value_NK`` in log-odds.

    Example:
        >>> shap_values(np.array([2.0, 1.0, 0.5]), np.array([[1.0, 3.0]]), np.array([0.0, 1.0])).tolist()
        [[2.0, 2.0]]
    """
    return np.asarray((rows_NK - background_K) * theta[:-1], dtype=np.float64)


def importance_sums(theta: Float, rows_NK: Float, background_K: Float) -> Float:
    """Sum of absolute Shapley values by level: what a site sends."""
    return np.asarray(np.abs(shap_values(theta, rows_NK, background_K)).sum(axis=0), dtype=np.float64)


def best_level(level_importance_K: Float) -> int:
    """Level (from 1) with the largest importance; the lower level wins a tie.

    Example:
        >>> best_level(np.array([0.1, 0.5, 0.5]))
        2
    """
    return int(np.argmax(level_importance_K)) + 1


def under(other_theta: Float, theta: Float, level_importance_K: Float) -> Float:
    """What the importance found with ``theta`` would be with other coefficients (of one set, or of many draws).

    Mean |phi_k| is ``|w_k| E|x_k - b_k|``, and the second factor does not depend on the coefficients; so nothing more
    is asked of the sites.
    """
    weight_K = np.abs(theta[:-1])
    spread_K = np.divide(level_importance_K, weight_K, out=np.zeros_like(weight_K), where=weight_K > 0)
    return np.asarray(np.abs(other_theta[..., :-1]) * spread_K)


def winner_counts(
    theta: Float, hessian: Float, level_importance_K: Float, *, num_draws: int, rng: np.random.Generator
) -> list[int]:
    """How often each level wins when the coefficients are drawn from N(theta, H^-1): the stability of the choice."""
    draws = rng.multivariate_normal(theta, np.linalg.inv(hessian), size=num_draws, method="cholesky")
    winners = np.argmax(under(draws, theta, level_importance_K), axis=1)
    return [int(n) for n in np.bincount(winners, minlength=len(level_importance_K))]
