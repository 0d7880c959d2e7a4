"""Variance of AUROCs and of their paired differences from sums over patients, and intervals (DeLong et al. 1988).

The placement of a long stay is the share of short ones below it, that of a short stay the share of long ones above it;
the mean of either is the AUROC. Placements are looked up in a table by bin, made of the pooled histograms; what remains
to be known are sums over patients of squares. Stays of one patient are added up before they are squared (Obuchowski
1997), so several stays of a patient, long and short ones, are not taken for independent. With ``a`` the sum of a
patient's centred placements over long stays, ``b`` over short ones, ``m`` long and ``n`` short stays, of ``I10`` and
``I01`` patients, ``I`` together:

    var = I10 / (I10 - 1) sum a^2 / m^2 + I01 / (I01 - 1) sum b^2 / n^2 + 2 I / (I - 1) sum a b / (m n)

Where each patient has one stay this is DeLong, DeLong and Clarke-Pearson (1988). The difference of two AUROCs has the
same formula with the differences of their placements.

Shapes: V scores, N stays, B bins, C contrasts: the V scores, and then differences of one and others. Axes of two are by
outcome, short first.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lemof_model import logistic, metrics

Float = NDArray[np.float64]
Interval = tuple[float, float]


class Tables(NamedTuple):
    """Placements by outcome, score and bin ``(2, V, B)``, and the AUROCs ``(V,)``."""

    placement: Float
    auroc: Float

    @property
    def centred(self) -> Float:
        """Placements less the AUROC, ``(2, V, B)``."""
        return np.asarray(self.placement - self.auroc[:, None])


class Spread(NamedTuple):
    """What a variance is made of: sums over patients of ``b^2``, ``a^2`` and ``a b`` of each contrast ``(3, C)``, and
    how many patients have a short stay, a long one, and either ``(3,)``."""

    sums: Float
    num_patients: Float


def tables(negative_VB: NDArray[Any], positive_VB: NDArray[Any]) -> Tables:
    """Placements from histograms by outcome; ties within a bin count half. Without both outcomes those of ``even``.

    Example:
        >>> found = tables(np.array([[2, 0, 2]]), np.array([[0, 1, 1]]))
        >>> found.placement[:, 0].tolist(), found.auroc.tolist()
        ([[1.0, 0.75, 0.25], [0.25, 0.5, 0.75]], [0.625])
    """
    negative, positive = np.asarray(negative_VB, np.float64), np.asarray(positive_VB, np.float64)
    n_V1, m_V1 = negative.sum(axis=1, keepdims=True), positive.sum(axis=1, keepdims=True)
    is_known_V1 = (n_V1 > 0) & (m_V1 > 0)
    above = (m_V1 - np.cumsum(positive, axis=1) + positive / 2) / np.where(is_known_V1, m_V1, 1.0)
    below = (np.cumsum(negative, axis=1) - negative / 2) / np.where(is_known_V1, n_V1, 1.0)
    unknown = even(*negative.shape)
    placement = np.where(is_known_V1, np.clip(np.stack([above, below]), 0.0, 1.0), unknown.placement)
    auroc = np.where(is_known_V1[:, 0], metrics.auroc(negative, positive), unknown.auroc)
    return Tables(placement, auroc)


def even(num_scores: int, num_bins: int) -> Tables:
    """Tables that tell of nobody: as if both outcomes were spread evenly over the bins.

    Example:
        >>> even(1, 2).placement[:, 0].tolist()
        [[0.75, 0.25], [0.25, 0.75]]
    """
    below = np.tile((np.arange(num_bins) + 0.5) / num_bins, (num_scores, 1))
    return Tables(np.stack([1.0 - below, below]), np.full(num_scores, 0.5))


def contrasts(
    scores_VN: Float,
    edges_V: Sequence[Float],
    labels_N: NDArray[Any],
    of: Tables,
    pairs: Sequence[tuple[int, int]] = (),
) -> Float:
    """Centred placement of each stay, and below these the differences of ``pairs`` of scores, ``(C, N)``. Where there
    is no score it is 0."""
    centred_2VB, label_N = of.centred, np.asarray(labels_N, np.int64)
    each = np.full(scores_VN.shape, np.nan)
    for v, (scores, edges) in enumerate(zip(scores_VN, edges_V, strict=True)):
        known = ~np.isnan(scores)
        each[v, known] = centred_2VB[label_N[known], v, metrics.bins(scores[known], edges)]
    differences = [each[None, one] - each[None, other] for one, other in pairs]
    return np.asarray(np.nan_to_num(np.concatenate([each, *differences])))


def spread(contrasts_CN: Float, labels_N: NDArray[Any], patients_N: NDArray[Any]) -> Spread:
    """Sums over patients, whose stays are added up first.

    Example:
        >>> found = spread(np.array([[0.25, 0.25, -0.5]]), np.array([1, 1, 0]), np.array([7, 7, 7]))
        >>> found.sums[:, 0].tolist(), found.num_patients.tolist()
        ([0.25, 0.25, -0.25], [1.0, 1.0, 1.0])
    """
    _, patient_N = np.unique(patients_N, return_inverse=True)
    num_patients = int(patient_N.max(initial=-1)) + 1
    short, long = (
        np.stack([np.bincount(patient_N, np.where(labels_N == y, row, 0.0), num_patients) for row in contrasts_CN])
        for y in (0, 1)
    )
    having = [len(np.unique(patient_N[labels_N == y])) for y in (0, 1)]
    sums = np.stack([(short * short).sum(axis=1), (long * long).sum(axis=1), (short * long).sum(axis=1)])
    return Spread(sums, np.array([*having, num_patients], np.float64))


def spread_of_counts(negative_VB: Float, positive_VB: Float, of: Tables) -> Spread:
    """The same from histograms, where each patient has one stay; noise that makes a sum negative counts as none."""
    short, long = of.centred**2
    sums = np.stack([(negative_VB * short).sum(axis=1), (positive_VB * long).sum(axis=1), np.zeros(len(short))])
    n, m = (float(counts.sum(axis=1).max()) for counts in (negative_VB, positive_VB))
    return Spread(np.maximum(sums, 0.0), np.array([n, m, n + m]))


def variance(of: Spread, num_short_C: Float, num_long_C: Float) -> Float:
    """Variance of each contrast ``(C,)``, from how many stays of either outcome it is over."""
    factor = of.num_patients / np.maximum(of.num_patients - 1.0, 1.0)
    weight_3C = np.stack([1.0 / num_short_C**2, 1.0 / num_long_C**2, 2.0 / (num_short_C * num_long_C)])
    return np.asarray(np.maximum((factor[:, None] * weight_3C * of.sums).sum(axis=0), 0.0))


def auroc_interval(auroc: float, variance: float) -> Interval | None:
    """95 % interval on the scale of log-odds, which stays within 0 and 1; None where nothing varies, as in groups that
    the scores part without a mistake: a point would look certain.

    Example:
        >>> auroc_interval(0.8, 0.0016)
        (0.7101..., 0.8671...)
    """
    if not 0.0 < auroc < 1.0 or not variance > 0.0:
        return None
    middle, half = np.log(auroc / (1.0 - auroc)), metrics.Z_95 * np.sqrt(variance) / (auroc * (1.0 - auroc))
    low, high = logistic.sigmoid(middle + np.array([-half, half]))
    return float(low), float(high)


def difference_interval(difference: float, variance: float) -> Interval | None:
    """95 % interval of a difference of AUROCs, within -1 and 1; None if nothing varies.

    Example:
        >>> difference_interval(0.02, 0.0001)
        (0.0004..., 0.0395...)
    """
    half = metrics.Z_95 * float(np.sqrt(variance))
    return (max(difference - half, -1.0), min(difference + half, 1.0)) if half > 0.0 else None


def noisy_interval(
    negative_B: Float, positive_B: Float, starts: NDArray[np.int64], noise: float, variance: float = 0.0
) -> Interval | None:
    """95 % interval of an AUROC whose histograms have noise: all values that they do not speak against (Fieller 1954).

    Where noise is as large as the counts, their ratio errs in no normal way. But ``T(t) = pairs in order - t pairs``
    has mean 0 at the true AUROC t. It moves with the count of short stays in a bin by ``above - t m``, of long ones by
    ``below - t n``, and of both by 1, 1/2 or 0, less t; so its variance is a quadratic in t, and ``T(t)^2 <= 1.96^2 var
    T(t)`` is solved by roots. Where noise hides everything, everything from 0 to 1 solves it. The AUROC of the counts
    is held all the same where that variance, an estimate, comes out negative there.

    Args:
        negative_B: counts of short stays with noise, spread evenly over the bins that begin at ``starts``.
        positive_B: those of long stays.
        starts: where each coarse bin begins.
        noise: its variance in each coarse bin of either.
        variance: of the AUROC, from the chance in patients.

    Returns:
        None if no AUROC fits these counts, or one of them adds up to nobody.
    """
    n, m, num = negative_B.sum(), positive_B.sum(), len(starts)
    if min(n, m) <= 0.0:
        return None
    below_B, above_B = np.cumsum(negative_B) - negative_B / 2, m - np.cumsum(positive_B) + positive_B / 2
    widths = np.diff(np.append(starts, len(negative_B)))
    above, below = (np.add.reduceat(each, starts) / widths for each in (above_B, below_B))
    in_order, pairs = positive_B @ below_B, n * m
    # var T(t) = c0 - 2 c1 t + c2 t^2. From noisy counts, the part of both noises is in it twice: once too much.
    c0 = pairs**2 * variance + noise * (above @ above + below @ below) - noise**2 * num * (2 * num - 1) / 4
    c1 = noise * (m * above.sum() + n * below.sum()) - noise**2 * num**2 / 2
    c2 = noise * num * (m**2 + n**2) - noise**2 * num**2
    z2 = metrics.Z_95**2
    against = np.array([pairs**2 - z2 * c2, -2.0 * (in_order * pairs - z2 * c1), in_order**2 - z2 * c0])
    ends = [t for t in (0.0, 1.0) if np.polyval(against, t) <= 0.0]
    ends += [float(t.real) for t in np.roots(against) if t.imag == 0.0 and 0.0 <= t.real <= 1.0]
    if not ends:
        return None
    ends.append(float(np.clip(metrics.auroc(negative_B, positive_B), 0.0, 1.0)))
    return min(ends), max(ends)


def noisy_difference_interval(
    aurocs: tuple[float, float], noise: tuple[Interval | None, Interval | None], variance: float
) -> Interval | None:
    """95 % interval of the difference of two noisy AUROCs, if each has an interval of its noise alone: the distances to
    their ends are squared and added to what the chance in patients takes (Zou and Donner 2008)."""
    (one, other), (of_one, of_other) = aurocs, noise
    if of_one is None or of_other is None:
        return None
    chance, difference = metrics.Z_95**2 * variance, one - other
    below = float(np.sqrt(chance + (one - of_one[0]) ** 2 + (of_other[1] - other) ** 2))
    above = float(np.sqrt(chance + (of_one[1] - one) ** 2 + (other - of_other[0]) ** 2))
    return max(difference - below, -1.0), min(difference + above, 1.0)


def variance_of_counts(negative_B: NDArray[Any], positive_B: NDArray[Any]) -> float:
    """Variance of the AUROC of histograms by outcome whose stays are all of different patients; NaN under two of an
    outcome."""
    negative, positive = np.asarray(negative_B, np.float64)[None], np.asarray(positive_B, np.float64)[None]
    n, m = negative.sum(axis=1), positive.sum(axis=1)
    if min(n, m) < 2:
        return float("nan")
    return float(variance(spread_of_counts(negative, positive, tables(negative, positive)), n, m)[0])


def interval_of_counts(negative_B: NDArray[Any], positive_B: NDArray[Any]) -> Interval | None:
    """95 % interval of the same, if there is one."""
    return auroc_interval(float(metrics.auroc(negative_B, positive_B)), variance_of_counts(negative_B, positive_B))
