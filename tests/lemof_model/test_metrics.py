"""Every metric from histograms against scikit-learn, scipy or a slow loop over the rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, roc_auc_score

from lemof_model import metrics
from lemof_model.errors import ConfigError
from lemof_model.study import EvaluationSpec

EDGES = metrics.bin_edges(EvaluationSpec(num_bins=40, limit=4.0))
MIDDLES = metrics.middles(EDGES)
AS_IT_IS = np.array([1.0, 0.0])
MIDDLES = (EDGES[:-1] + EDGES[1:]) / 2.0

Float = NDArray[np.float64]


def sample(seed: int = 0, num_stays: int = 500) -> tuple[Float, NDArray[np.int64]]:
    """Scores that know something, and are too sure of it."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(-0.5, 1.0, num_stays)
    return 1.8 * risk + rng.normal(0.3, 0.7, num_stays), (rng.random(num_stays) < expit(risk)).astype(np.int64)


def sides(scores: Float, labels: NDArray[np.int64], edges: Float = EDGES) -> tuple[Float, Float]:
    counts = [metrics.histograms(scores[None, labels == label], [edges])[0] for label in (0, 1)]
    return counts[0].astype(np.float64), counts[1].astype(np.float64)


def rows_of(negative: Float, positive: Float, edges: Float = EDGES) -> tuple[Float, NDArray[np.int64]]:
    """One row per stay at the middle of its bin: what a histogram knows."""
    middles = (edges[:-1] + edges[1:]) / 2.0
    scores = np.concatenate([np.repeat(middles, negative.astype(int)), np.repeat(middles, positive.astype(int))])
    return scores, np.repeat([0, 1], [int(negative.sum()), int(positive.sum())])


SCORES, LABELS = sample()
NEGATIVE, POSITIVE = sides(SCORES, LABELS)
BINNED, BINNED_LABELS = rows_of(NEGATIVE, POSITIVE)


def test_histograms_count_every_score_once() -> None:
    slow = np.zeros(40)
    for score in SCORES[LABELS == 1]:
        bin_number = 0
        while bin_number < 39 and score >= EDGES[bin_number + 1]:
            bin_number += 1
        slow[bin_number] += 1
    np.testing.assert_array_equal(POSITIVE, slow)
    assert NEGATIVE.sum() + POSITIVE.sum() == len(SCORES)


def test_auroc_of_a_histogram_is_that_of_its_binned_scores() -> None:
    expected = roc_auc_score(BINNED_LABELS, BINNED)
    assert float(metrics.auroc(NEGATIVE, POSITIVE)) == pytest.approx(expected, abs=1e-12)
    stacked = metrics.auroc(np.stack([NEGATIVE, POSITIVE, 0 * NEGATIVE]), np.stack([POSITIVE, NEGATIVE, POSITIVE]))
    np.testing.assert_allclose(stacked, [expected, 1.0 - expected, np.nan])


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(st.floats(-6, 6), st.booleans()), min_size=2, max_size=60),
    st.sampled_from([4, 6, 40]),
)
def test_auroc_of_a_histogram_is_within_its_bound_of_the_rank_auroc(
    rows: list[tuple[float, bool]], num_bins: int
) -> None:
    scores, labels = np.array([s for s, _ in rows]), np.array([int(y) for _, y in rows])
    if labels.min() == labels.max():
        return
    negative, positive = sides(scores, labels, metrics.bin_edges(EvaluationSpec(num_bins=num_bins, limit=4.0)))
    error = abs(float(metrics.auroc(negative, positive)) - roc_auc_score(labels, scores))
    assert error <= metrics.auroc_bound(negative, positive) + 1e-12


def test_the_bound_is_reached_by_one_bin() -> None:
    negative, positive = np.array([0.0, 5.0]), np.array([0.0, 3.0])
    assert metrics.auroc_bound(negative, positive) == 0.5
    assert float(metrics.auroc(negative, positive)) == 0.5


def test_auprc_is_the_average_precision_of_binned_scores() -> None:
    expected = average_precision_score(BINNED_LABELS, BINNED)
    assert metrics.auprc(NEGATIVE, POSITIVE) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(metrics.auprc(NEGATIVE, 0 * POSITIVE))


def test_brier_equals_scikit_learn_on_binned_scores() -> None:
    expected = brier_score_loss(BINNED_LABELS, expit(BINNED))
    assert metrics.brier(NEGATIVE, POSITIVE, MIDDLES) == pytest.approx(expected, abs=1e-12)


def test_ece_equals_a_loop_over_ten_bins_of_probability() -> None:
    probability, total = expit(BINNED), 0.0
    for low in np.arange(10) / 10:
        member = (probability >= low) & (probability < low + 0.1)
        if member.any():
            total += member.sum() * abs(probability[member].mean() - BINNED_LABELS[member].mean())
    assert metrics.ece(NEGATIVE, POSITIVE, MIDDLES) == pytest.approx(total / len(BINNED), abs=1e-12)


def test_calibration_slope_equals_scikit_learn_on_binned_scores() -> None:
    fitted = LogisticRegression(C=1e6, solver="newton-cholesky", tol=1e-10).fit(BINNED[:, None], BINNED_LABELS)
    slope = metrics.calibration_slope(NEGATIVE, POSITIVE, MIDDLES)
    assert slope == pytest.approx(fitted.coef_[0, 0], abs=1e-6)
    assert 0.2 < slope < 0.8, "the scores are too sure, so the slope is below 1"
    assert np.isnan(metrics.calibration_slope(NEGATIVE, 0 * POSITIVE, MIDDLES))


def test_platt_equals_a_direct_optimisation() -> None:
    num_long, num_short = POSITIVE.sum(), NEGATIVE.sum()
    target = np.where(BINNED_LABELS == 1, (num_long + 1) / (num_long + 2), 1 / (num_short + 2))

    def loss(pair: Float) -> float:
        z = pair[0] * BINNED + pair[1]
        return float((np.logaddexp(0, z) - target * z).sum())

    best = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000})
    pair = metrics.platt(NEGATIVE, POSITIVE, MIDDLES)
    np.testing.assert_allclose(pair, best.x, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(metrics.platt(NEGATIVE, 0 * POSITIVE, MIDDLES), [1.0, 0.0])
    np.testing.assert_allclose(metrics.calibrate(SCORES, pair), pair[0] * SCORES + pair[1])


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_platt_and_slope_stand_any_histogram(data: st.DataObject) -> None:
    """Also labels that a score separates, and all of one bin."""
    counts = st.lists(st.integers(0, 40), min_size=8, max_size=8)
    negative, positive = (np.array(data.draw(counts), np.float64) for _ in range(2))
    log_odds = metrics.middles(metrics.bin_edges(EvaluationSpec(num_bins=8, limit=8.0)))
    pair = metrics.platt(negative, positive, log_odds)
    assert np.isfinite(pair).all()
    assert pair[0] >= 0
    slope = metrics.calibration_slope(negative, positive, log_odds)
    assert np.isnan(slope) or abs(slope) < 1e3


def slow_confusion(scores: Float, labels: NDArray[np.int64], cut: float) -> metrics.Confusion:
    called = scores >= cut
    return metrics.Confusion(
        tp=float((called & (labels == 1)).sum()),
        fp=float((called & (labels == 0)).sum()),
        tn=float((~called & (labels == 0)).sum()),
        fn=float((~called & (labels == 1)).sum()),
    )


@pytest.mark.parametrize("cut", [0, 13, 20, 39, 40])
def test_counts_at_a_cut_are_exact(cut: int) -> None:
    found = metrics.confusion(NEGATIVE, POSITIVE, cut)
    threshold = EDGES[cut] if 0 < cut < 40 else (-np.inf if cut == 0 else np.inf)
    assert found == slow_confusion(SCORES, LABELS, threshold)
    called = (threshold <= SCORES).astype(int)
    assert found.accuracy == pytest.approx((called == LABELS).mean())
    expected = f1_score(LABELS, called, average="macro", labels=[0, 1], zero_division=0)
    assert found.f1_macro == pytest.approx(expected)
    assert found.sensitivity == pytest.approx(called[LABELS == 1].mean())
    assert found.specificity == pytest.approx(1 - called[LABELS == 0].mean())


def test_metrics_at_a_cut_of_nobody_are_nan() -> None:
    nobody = metrics.confusion(np.zeros(4), np.zeros(4), 2)
    assert np.isnan([nobody.accuracy, nobody.sensitivity, nobody.specificity]).all()
    cuts = metrics.best_cuts(np.zeros(40), np.zeros(40), EDGES, AS_IT_IS)
    assert cuts == {"half": 0.0, "macro_f1": 0.0, "accuracy": 0.0}


@pytest.mark.parametrize("seed", range(4))
def test_best_cuts_are_those_of_trying_every_edge(seed: int) -> None:
    scores, labels = sample(seed, 120)
    negative, positive = sides(scores, labels)
    pair = np.array([2.0, 0.6])
    cuts = metrics.best_cuts(negative, positive, EDGES, pair)
    assert expit(metrics.calibrate(np.array(cuts["half"]), pair)) == pytest.approx(0.5)
    for name, value_of in (("macro_f1", lambda c: c.f1_macro), ("accuracy", lambda c: c.accuracy)):
        values = [value_of(metrics.confusion(negative, positive, cut)) for cut in range(41)]
        tied = EDGES[np.flatnonzero(np.array(values) == max(values))]
        assert abs(cuts[name] - cuts["half"]) == pytest.approx(np.abs(tied - cuts["half"]).min())
        assert cuts[name] in tied


@pytest.mark.parametrize("seed", range(4))
def test_fine_edges_hold_every_cut_and_so_count_exactly_there(seed: int) -> None:
    scores, labels = sample(seed)
    counts = sum(sides(scores, labels))
    cuts = [0.0, -1.3, 0.8]
    fine = metrics.fine_edges(np.asarray(counts), EDGES, cuts)
    assert len(fine) == len(EDGES) and (np.diff(fine) >= 0).all()
    assert (fine[0], fine[-1]) == (EDGES[0], EDGES[-1]) and set(cuts) <= set(fine)
    negative, positive = sides(scores, labels, fine)
    for cut in cuts:
        found = metrics.confusion(negative, positive, int(np.searchsorted(fine, cut)))
        assert found == slow_confusion(scores, labels, cut)


def test_fine_edges_make_the_bound_smaller_where_scores_fill_few_bins() -> None:
    wide = metrics.bin_edges(EvaluationSpec(num_bins=40, limit=16.0))
    coarse = sides(SCORES, LABELS, wide)
    fine = sides(SCORES, LABELS, metrics.fine_edges(coarse[0] + coarse[1], wide, [0.0]))
    assert metrics.auroc_bound(*fine) < 0.7 * metrics.auroc_bound(*coarse)


def test_the_smallest_plan_of_bins_still_holds_the_cuts() -> None:
    with pytest.raises(ConfigError, match=r"num_bins must be even and at least 4.*got 2"):
        EvaluationSpec(num_bins=2)
    edges = metrics.bin_edges(EvaluationSpec(num_bins=4))
    assert len(metrics.fine_edges(np.ones(4), edges, [0.0, 1.0, 2.0])) == 5


def test_calibration_never_turns_an_order_round() -> None:
    pair = metrics.platt(POSITIVE, NEGATIVE, MIDDLES)  # labels exchanged: the higher the score, the shorter the stay
    share = (NEGATIVE.sum() + 1) / (NEGATIVE.sum() + POSITIVE.sum() + 2)
    np.testing.assert_allclose([pair[0], expit(pair[1])], [0.0, share])
    expected = -8.0 if share > 0.5 else 8.0
    wide = metrics.bin_edges(EvaluationSpec(num_bins=40))
    assert metrics.best_cuts(POSITIVE, NEGATIVE, wide, pair)["half"] == expected


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(2, 60), st.sampled_from([4, 10, 40]), st.floats(0.0, 3.0),
    st.floats(-2.0, 2.0),
)  # fmt: skip
def test_auprc_and_ece_of_the_scores_are_within_their_bounds(
    seed: int, num_stays: int, num_bins: int, slope: float, intercept: float
) -> None:
    """Scores of few values tie, others do not; some lie beyond the bins."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, num_stays)
    labels[:2] = 0, 1
    scores = rng.normal(2.0 * labels, 2.0)
    scores = np.round(scores, 1) if seed % 2 else scores
    edges, pair = metrics.bin_edges(EvaluationSpec(num_bins=num_bins, limit=4.0)), np.array([slope, intercept])
    counts = sides(scores, labels, edges)
    of_histogram, of_scores = metrics.auprc(*counts), average_precision_score(labels, scores)
    assert abs(of_histogram - of_scores) <= metrics.auprc_bound(*counts) + 1e-12
    binned = metrics.calibrate((edges[:-1] + edges[1:]) / 2, pair)
    exact = slow_ece(expit(metrics.calibrate(scores, pair)), labels)
    assert abs(metrics.ece(*counts, binned) - exact) <= metrics.ece_bound(*counts, edges, pair) + 1e-12


def slow_ece(probability: Float, labels: NDArray[np.int64]) -> float:
    """Over ten cells, of the stays themselves."""
    cell = np.minimum((probability * 10).astype(int), 9)
    return sum(abs((probability - labels)[cell == one].sum()) for one in range(10)) / len(labels)


def test_the_bounds_shrink_with_the_bins() -> None:
    found = []
    for num_bins in (40, 400, 4000):
        edges = metrics.bin_edges(EvaluationSpec(num_bins=num_bins, limit=8.0))
        counts = sides(SCORES, LABELS, edges)
        found.append((metrics.auprc_bound(*counts), metrics.ece_bound(*counts, edges, AS_IT_IS)))
    assert (np.array(found[1:]) < np.array(found[:-1])).all(), found
    assert max(found[1]) < 0.06


def test_zero_log_odds_is_an_edge_and_means_probability_half() -> None:
    assert 0.0 in EDGES and logit(0.5) == 0.0
    assert metrics.histograms(np.array([[0.0, -1e-12]]), [EDGES])[0][[19, 20]].tolist() == [1, 1]
