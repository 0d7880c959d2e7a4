"""Metrics from score histograms: one function per metric. What a hospital sends of its scores are counts per bin.

Bins lie between log-odds -limit and +limit; scores outside fall into the end bins. On ``tuning`` they are equal; on
``held_out`` they are fine where the tuning scores of that variant were, and every cut is an edge (``fine_edges``).
Within a bin scores count as tied, so the AUROC differs from the rank AUROC of the scores by at most ``auroc_bound``;
counts at a cut are exact. Scores are counted as they are: calibration never changes their order, it only gives each bin
another log-odds (``log_odds_B``, from the bin's middle), which Brier score, calibration error and slope read.

Shapes: V variants, N stays, B bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemof_model import logistic
from lemof_model.study import EvaluationSpec

Float = NDArray[np.float64]

NUM_ECE_BINS = 10
Z_95 = 1.959963984540054
FEWEST_OF_AN_OUTCOME = 5
"""Stays of each outcome without which nothing is measured: with fewer, one stay moves an AUROC by more than a fifth."""


def are_enough(num_stays: float, num_positive: float) -> bool:
    """Whether there are enough long and enough short stays for a metric.

    Example:
        >>> are_enough(10, 5), are_enough(3, 2), are_enough(100, 96)
        (True, False, False)
    """
    return round(min(num_positive, num_stays - num_positive)) >= FEWEST_OF_AN_OUTCOME


def bin_edges(spec: EvaluationSpec) -> Float:
    """The ``num_bins + 1`` edges; 0 is one of them.

    Example:
        >>> bin_edges(EvaluationSpec(num_bins=4, limit=2.0)).tolist()
        [-2.0, -1.0, 0.0, 1.0, 2.0]
    """
    return np.linspace(-spec.limit, spec.limit, spec.num_bins + 1)


def fine_edges(counts_B: NDArray[Any], edges: Float, cuts: Sequence[float]) -> Float:
    """As many edges again, most of them where ``counts_B`` lie (and a quarter of their range beyond), the cuts among
    them.

    Example:
        >>> edges = bin_edges(EvaluationSpec(num_bins=8, limit=4.0))
        >>> fine_edges(np.array([0, 0, 0, 0, 5, 5, 0, 0]), edges, [0.0, 1.0, 4.0]).tolist()
        [-4.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.5, 4.0, 4.0]
    """
    used = np.flatnonzero(counts_B)
    low, high = (edges[used[0]], edges[used[-1] + 1]) if len(used) else (edges[0], edges[-1])
    margin = (high - low) / 4.0
    inner = np.linspace(max(low - margin, edges[0]), min(high + margin, edges[-1]), len(edges) - 2 - len(cuts))
    return np.sort(np.concatenate([edges[[0, -1]], inner, cuts]))


def bulk(counts_B: Float) -> Float:
    """The counts without the half per cent at either end: where noise was added, no bin is empty by itself.

    Example:
        >>> bulk(np.array([0.4, 0.0, 50.0, 49.2, 0.4])).tolist()
        [0.0, 0.0, 50.0, 49.2, 0.0]
    """
    below = np.cumsum(counts_B)
    inside = (below > 0.005 * below[-1]) & (below - counts_B < 0.995 * below[-1])
    return np.asarray(np.where(inside, counts_B, 0.0))


def nonnegative(counts_B: Float) -> Float:
    """The nearest counts of the same total that are not negative, as noise can make them; others stay as they are.

    To set negative counts to 0 alone would leave the noise of empty bins that went up, and call it stays.

    Example:
        >>> nonnegative(np.array([5.0, 1.0, -2.0])).tolist()
        [4.0, 0.0, 0.0]
    """
    if (counts_B >= 0).all():
        return counts_B
    largest = np.sort(counts_B)[::-1]
    shift = (np.cumsum(largest) - max(float(counts_B.sum()), 0.0)) / np.arange(1, len(counts_B) + 1)
    return np.asarray(np.maximum(counts_B - shift[np.flatnonzero(largest >= shift)[-1]], 0.0))


def middles(edges: Float) -> Float:
    """Log-odds in the middle of each bin."""
    return np.asarray((edges[:-1] + edges[1:]) / 2.0)


def calibrate(log_odds: Float, pair: NDArray[Any]) -> Float:
    """``a * log_odds + b``."""
    return np.asarray(pair[0] * log_odds + pair[1])


def bins(log_odds: Float, edges: Float) -> NDArray[np.int64]:
    """Bin of each score; a score equal to an edge belongs above it."""
    return np.searchsorted(edges[1:-1], log_odds, side="right")


def histograms(scores_VN: Float, edges_V: Sequence[Float]) -> NDArray[np.int32]:
    """Stays per bin of each variant, each over its own edges, ``(V, B)``; NaN scores are not counted.

    Example:
        >>> histograms(np.array([[-9.0, 0.0, 0.5, np.nan]]), [np.array([-1.0, 0.0, 1.0])]).tolist()
        [[1, 2]]
    """
    rows = [
        np.bincount(bins(s[~np.isnan(s)], edges), minlength=len(edges) - 1)
        for s, edges in zip(scores_VN, edges_V, strict=True)
    ]
    return np.stack(rows).astype(np.int32)


def auroc(negative: NDArray[Any], positive: NDArray[Any]) -> Float:
    """AUROC of histograms by label ``(..., B)``, ties within a bin counted half; NaN without both classes."""
    n, p = np.asarray(negative, np.float64), np.asarray(positive, np.float64)
    below = np.cumsum(n, axis=-1) - 0.5 * n
    pairs = n.sum(axis=-1) * p.sum(axis=-1)
    area = (p * below).sum(axis=-1)
    return np.asarray(np.divide(area, pairs, out=np.full_like(area, np.nan), where=pairs > 0))


def auroc_bound(negative: NDArray[Any], positive: NDArray[Any]) -> float:
    """How far the histogram AUROC can be from the rank AUROC: half the share of pairs that fall into one bin."""
    n, p = np.asarray(negative, np.float64), np.asarray(positive, np.float64)
    return float(0.5 * (n * p).sum() / (n.sum() * p.sum()))


def auprc(negative: NDArray[Any], positive: NDArray[Any]) -> float:
    """Average precision, walking down from the highest bin."""
    p, n = np.cumsum(positive[::-1]).astype(np.float64), np.cumsum(negative[::-1]).astype(np.float64)
    if p[-1] == 0:
        return float("nan")
    precision = np.divide(p, p + n, out=np.zeros_like(p), where=p + n > 0)
    return float((np.diff(p, prepend=0.0) / p[-1]) @ precision)


def auprc_bound(negative: NDArray[Any], positive: NDArray[Any]) -> float:
    """How far the average precision of the histogram can be from that of the scores.

    Within a bin of p long and n short stays, above which are T long and F short ones, the j-th long stay is reached
    with a precision of ``(T + p) / (T + p + F)`` at most (all long ones first, tied) and of ``(T + j) / (T + j + F +
    n)`` at least (all short ones first); the latter is concave in j, so their sum is at least its integral from 1/2 to
    p + 1/2, ``p - c log((T + 1/2 + p + c) / (T + 1/2 + c))`` with ``c = F + n``.
    """
    p, n = (np.asarray(counts, np.float64)[::-1] for counts in (positive, negative))
    total = p.sum()
    if not total:
        return float("nan")
    t, f = np.cumsum(p), np.cumsum(n)
    used = p > 0
    p, n, t, f = p[used], n[used], t[used], f[used]
    most = float((p * t / (t + f - n)).sum() / total)
    least = float((p - f * np.log1p(p / (t - p + 0.5 + f))).sum() / total)
    found = auprc(negative, positive)
    return max(most - found, found - least)


def brier(negative: NDArray[Any], positive: NDArray[Any], log_odds_B: Float) -> float:
    """Mean squared error of the bins' probabilities."""
    probability = logistic.sigmoid(log_odds_B)
    total = negative.sum() + positive.sum()
    return float((negative @ probability**2 + positive @ (1.0 - probability) ** 2) / total)


def ece(negative: NDArray[Any], positive: NDArray[Any], log_odds_B: Float) -> float:
    """Expected calibration error over ten equal bins of probability."""
    probability = logistic.sigmoid(log_odds_B)
    cell = np.minimum((probability * NUM_ECE_BINS).astype(int), NUM_ECE_BINS - 1)
    gap = np.bincount(cell, weights=probability * (negative + positive) - positive, minlength=NUM_ECE_BINS)
    return float(np.abs(gap).sum() / (negative.sum() + positive.sum()))


def ece_bound(negative: NDArray[Any], positive: NDArray[Any], edges: Float, pair: NDArray[Any]) -> float:
    """How far the calibration error of the histogram can be from that of the scores.

    A stay's probability differs from its bin's by no more than the bin's ends do. Where a bin lies within one of the
    ten cells, that is all. Where it does not, a stay may count in another cell: both gaps move, each by the distance of
    a probability in the bin from the outcome. The end bins reach to 0 and 1.
    """
    low, high = (logistic.sigmoid(calibrate(ends, pair)) for ends in (edges[:-1], edges[1:]))
    low[0], high[-1] = (0.0, 1.0) if pair[0] > 0 else (low[0], high[-1])
    middle = logistic.sigmoid(calibrate(middles(edges), pair))
    first, last = (np.minimum((p * NUM_ECE_BINS).astype(int), NUM_ECE_BINS - 1) for p in (low, high))
    inside = (negative + positive) * np.maximum(high - middle, middle - low)
    across = 2.0 * (negative * high + positive * (1.0 - low))
    return float(np.where(first == last, inside, across).sum() / (negative.sum() + positive.sum()))


def platt(negative: NDArray[Any], positive: NDArray[Any], log_odds_B: Float) -> Float:
    """Platt's slope and intercept (1999), with his smoothed targets; (1, 0) without both classes.

    Where the best slope is not positive, the scores say nothing on these stays: slope 0, and the intercept says what
    share is long. So calibration never turns an order round.
    """
    num_n, num_p = float(negative.sum()), float(positive.sum())
    if not num_n or not num_p:
        return np.array([1.0, 0.0])
    pair = _weighted_fit(negative, positive, log_odds_B, 1.0 / (num_n + 2.0), (num_p + 1.0) / (num_p + 2.0))
    return pair if pair[0] > 0 else np.array([0.0, np.log((num_p + 1.0) / (num_n + 1.0))])


def calibration_slope(negative: NDArray[Any], positive: NDArray[Any], log_odds_B: Float) -> float:
    """Slope of the logistic regression of the label on the log-odds (1 is right, below 1 is overconfident)."""
    used = log_odds_B[(negative + positive) > 0]
    if not negative.sum() or not positive.sum() or np.ptp(used) == 0:
        return float("nan")
    slope = float(_weighted_fit(negative, positive, log_odds_B, 0.0, 1.0)[0])
    return slope if abs(slope) < 1e3 else float("nan")


def _weighted_fit(
    negative: NDArray[Any], positive: NDArray[Any], log_odds_B: Float, target_negative: float, target_positive: float
) -> Float:
    """Logistic regression of (soft) labels on the bins' log-odds, each bin weighted by its count."""
    x = np.concatenate([log_odds_B, log_odds_B])[:, None]
    target = np.repeat([target_negative, target_positive], len(log_odds_B))
    weight = np.concatenate([negative, positive]).astype(np.float64)
    return logistic.fit(x, target, c=1e6, weights_N=weight)


@dataclass(frozen=True)
class Confusion:
    """Counts at a cut; scores at or above it are called long."""

    tp: float
    fp: float
    tn: float
    fn: float

    @property
    def accuracy(self) -> float:
        """Share of stays called rightly."""
        num_stays = self.tp + self.fp + self.tn + self.fn
        return (self.tp + self.tn) / num_stays if num_stays else float("nan")

    @property
    def f1_macro(self) -> float:
        """Mean of the F1 of both classes; a class that is neither there nor called has F1 0."""
        positive, negative = 2 * self.tp + self.fp + self.fn, 2 * self.tn + self.fp + self.fn
        return ((2 * self.tp / positive if positive else 0.0) + (2 * self.tn / negative if negative else 0.0)) / 2.0

    @property
    def sensitivity(self) -> float:
        """Share of long stays called long."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else float("nan")

    @property
    def specificity(self) -> float:
        """Share of short stays called short."""
        return self.tn / (self.tn + self.fp) if self.tn + self.fp else float("nan")


def confusion(negative: NDArray[Any], positive: NDArray[Any], cut: int) -> Confusion:
    """Counts when bins from number ``cut`` on are called long; ``cut`` = number of bins calls nobody long."""
    return Confusion(
        tp=float(positive[cut:].sum()),
        fp=float(negative[cut:].sum()),
        tn=float(negative[:cut].sum()),
        fn=float(positive[:cut].sum()),
    )


def best_cuts(negative: NDArray[Any], positive: NDArray[Any], edges: Float, pair: NDArray[Any]) -> dict[str, float]:
    """The three cuts, on scores as they are: calibrated probability 0.5, the best macro-F1, the best accuracy (of equal
    ones the nearest to the first)."""
    limit = float(edges[-1])
    slope, intercept = float(pair[0]), float(pair[1])
    half = -intercept / slope if slope > 0 else -np.sign(intercept) * limit
    half = float(np.clip(half, -limit, limit))
    order = sorted(range(len(edges)), key=lambda cut: abs(float(edges[cut]) - half))
    table = {cut: confusion(negative, positive, cut) for cut in order}
    return {
        "half": half,
        "macro_f1": float(edges[max(order, key=lambda cut: table[cut].f1_macro)]),
        "accuracy": float(edges[max(order, key=lambda cut: table[cut].accuracy)]),
    }
