"""Membership inference: can the released model tell the patients that trained it from others?

The attack reads the signed margin of a stay, ``(2 y - 1) x log-odds``: a model is surer of what it has seen (the loss
attack of Yeom et al. 2018). Hospitals count margins of their own members and of ``held_out`` patients in public bins,
once for what the encoders learnt (omega_1, members from ``train``) and once for the attention heads (omega_2, members
from ``stack``; in a study with folds those of both are from ``stack``); from the added counts come the attack's AUROC
and its true-positive rate where false positives are few (Carlini et al. 2022). An AUROC of 0.5, and a true-positive
rate that equals the false-positive rate, tell nothing.

Shapes: N stays, B bins.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemof_model import delong, metrics

Float = NDArray[np.float64]

NETWORKS = {"encoders": "train", "attention": "stack"}
"""The networks that are attacked, by the stage that trains them, and the split that holds their members."""

NUM_BINS = 200
EDGES: Float = np.linspace(-8.0, 8.0, NUM_BINS + 1)
"""Bins of the margin, the same for every study; beyond them a margin is in the last one."""

FALSE_POSITIVE_RATE = 0.01
MIN_FALSE_POSITIVES = 10


def margins(log_odds_N: Float, labels_N: NDArray[Any]) -> Float:
    """How sure a model is of the right label, in log-odds.

    Example:
        >>> margins(np.array([1.5, 1.5]), np.array([1, 0])).tolist()
        [1.5, -1.5]
    """
    return np.asarray((2.0 * labels_N - 1.0) * log_odds_N)


def attack(members_B: NDArray[Any], others_B: NDArray[Any]) -> dict[str, Any] | None:
    """How well a threshold on the margin tells members from others; None without both.

    The true-positive rate is read at the lowest cut that calls no more others members than 1 in 100, or than ten of
    them where that is more; ``false_positive_rate`` is the share that this cut does call. Its interval is Wilson's,
    with the cut held fixed. Noisy counts below 0 count as 0.

    Example:
        >>> found = attack(np.array([0, 50, 50]), np.array([50, 45, 5]))
        >>> found["auroc"], found["max_false_positive_rate"], found["true_positive_rate"]
        (0.85, 0.1, 0.5)
    """
    members, others = np.maximum(members_B, 0.0), np.maximum(others_B, 0.0)
    num_members, num_others = float(members.sum()), float(others.sum())
    if num_members < 1 or num_others < 1:
        return None
    allowed = min(max(FALSE_POSITIVE_RATE, MIN_FALSE_POSITIVES / num_others), 1.0)
    called_others = np.append(np.cumsum(others[::-1])[::-1], 0.0)
    called_members = np.append(np.cumsum(members[::-1])[::-1], 0.0)
    cut = int(np.argmax(called_others <= allowed * num_others + 1e-9))
    rate = called_members[cut] / num_members
    return {
        "num_members": round(num_members),
        "num_others": round(num_others),
        "auroc": float(metrics.auroc(others, members)),
        "auroc_ci": delong.interval_of_counts(others, members),
        "max_false_positive_rate": allowed,
        "false_positive_rate": float(called_others[cut] / num_others),
        "true_positive_rate": float(rate),
        "true_positive_rate_ci": list(_wilson(rate, num_members)),
    }


def _wilson(rate: float, num: float) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    z2 = metrics.Z_95**2
    middle = (rate + z2 / (2 * num)) / (1 + z2 / num)
    half = metrics.Z_95 / (1 + z2 / num) * math.sqrt(rate * (1 - rate) / num + z2 / (4 * num**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)
