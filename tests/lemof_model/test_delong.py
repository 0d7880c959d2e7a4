"""Variances against slow loops over pairs of stays and over patients, written from the papers."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lemof_model import delong, metrics
from lemof_model.study import EvaluationSpec

EDGES = metrics.bin_edges(EvaluationSpec(num_bins=40, limit=4.0))

Float = NDArray[np.float64]


class Sample:
    """Two scores of stays of patients who have one to four of them, in any outcome."""

    def __init__(self, num_patients: int = 60, seed: int = 0, most_stays: int = 4) -> None:
        rng = np.random.default_rng(seed)
        self.patient_N = np.repeat(np.arange(num_patients), rng.integers(1, most_stays + 1, num_patients))
        of_patient, size = rng.normal(size=num_patients)[self.patient_N], len(self.patient_N)
        self.label_N = (of_patient + rng.normal(size=size) > 0.3).astype(np.int8)
        shared = self.label_N + of_patient + 0.5 * rng.normal(size=size)
        self.scores_VN = shared + rng.normal(size=(2, size)) * np.array([[0.4], [1.0]])

    @property
    def tables(self) -> delong.Tables:
        counts = [metrics.histograms(self.scores_VN[:, self.label_N == y], [EDGES] * 2) for y in (0, 1)]
        return delong.tables(*counts)

    @property
    def num_stays(self) -> tuple[Float, Float]:
        short, long = (np.full(3, float((self.label_N == y).sum())) for y in (0, 1))
        return short, long

    def variance(self) -> Float:
        each = delong.contrasts(self.scores_VN, [EDGES] * 2, self.label_N, self.tables, [(0, 1)])
        return delong.variance(delong.spread(each, self.label_N, self.patient_N), *self.num_stays)

    def wins(self, v: int) -> Float:
        """Whether each long stay lies above each short one, half where both are in one bin ``(m, n)``."""
        binned = metrics.bins(self.scores_VN[v], EDGES)
        long, short = binned[self.label_N == 1], binned[self.label_N == 0]
        return np.array([[1.0 if x > y else 0.5 if x == y else 0.0 for y in short] for x in long])


def obuchowski(sample: Sample, wins: Float) -> float:
    """Obuchowski (1997), her sums written out over patients; ``wins`` may be a difference of two scores'."""
    long, short = (sample.patient_N[sample.label_N == y] for y in (1, 0))
    area, (m, n) = wins.mean(), wins.shape
    v10, v01 = wins.mean(axis=1), wins.mean(axis=0)
    patients = sorted(set(sample.patient_N.tolist()))
    s10 = s01 = s11 = 0.0
    for i in patients:
        x, y = v10[long == i].sum() - (long == i).sum() * area, v01[short == i].sum() - (short == i).sum() * area
        s10, s01, s11 = s10 + x * x, s01 + y * y, s11 + x * y
    i10, i01, i = len(set(long.tolist())), len(set(short.tolist())), len(patients)
    s10, s01, s11 = s10 * i10 / ((i10 - 1) * m), s01 * i01 / ((i01 - 1) * n), s11 * i / (i - 1)
    return float(s10 / m + s01 / n + 2 * s11 / (m * n))


@pytest.mark.parametrize("most_stays", [1, 4])
def test_variances_are_obuchowskis(most_stays: int) -> None:
    sample = Sample(most_stays=most_stays)
    wins = [sample.wins(v) for v in (0, 1)]
    expected = [obuchowski(sample, of) for of in (*wins, wins[0] - wins[1])]
    np.testing.assert_allclose(sample.variance(), expected, rtol=1e-10)


def test_where_each_patient_has_one_stay_they_are_delongs() -> None:
    sample = Sample(most_stays=1)
    wins = np.stack([sample.wins(v) for v in (0, 1)])
    (_, m, n), (v10, v01) = wins.shape, (wins.mean(axis=axis) for axis in (2, 1))
    covariance = np.cov(v10) / m + np.cov(v01) / n
    of_difference = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    np.testing.assert_allclose(sample.variance(), [*np.diag(covariance), of_difference], rtol=1e-10)
    counts = [metrics.histograms(sample.scores_VN[:, sample.label_N == y], [EDGES] * 2)[0] for y in (0, 1)]
    assert delong.variance_of_counts(*counts) == pytest.approx(covariance[0, 0], rel=1e-10)


def test_several_stays_of_a_patient_are_not_taken_for_patients() -> None:
    """Every stay twice: the same AUROC, and the variance of half as many stays."""
    sample = Sample(most_stays=1, num_patients=200)
    before = sample.variance()
    sample.patient_N, sample.label_N = np.tile(sample.patient_N, 2), np.tile(sample.label_N, 2)
    sample.scores_VN = np.tile(sample.scores_VN, 2)
    np.testing.assert_allclose(sample.variance(), before, rtol=1e-10)
    sample.patient_N = np.arange(len(sample.patient_N))
    assert (sample.variance() < 0.6 * before).all()


def test_sums_of_hospitals_by_one_table_are_those_of_the_whole() -> None:
    sample = Sample()
    each = delong.contrasts(sample.scores_VN, [EDGES] * 2, sample.label_N, sample.tables, [(0, 1)])
    whole = delong.spread(each, sample.label_N, sample.patient_N)
    mine = sample.patient_N % 3 == 0
    parts = [delong.spread(each[:, of], sample.label_N[of], sample.patient_N[of]) for of in (mine, ~mine)]
    np.testing.assert_allclose(parts[0].sums + parts[1].sums, whole.sums, rtol=1e-12)
    np.testing.assert_array_equal(parts[0].num_patients + parts[1].num_patients, whole.num_patients)


def test_stays_without_a_score_add_nothing() -> None:
    sample = Sample()
    tables, missing = sample.tables, np.arange(len(sample.label_N)) % 4 == 0
    with_holes = np.where(missing & np.array([[False], [True]]), np.nan, sample.scores_VN)
    each = delong.contrasts(with_holes, [EDGES] * 2, sample.label_N, tables, [(0, 1)])
    assert not each[1:, missing].any() and each[0, missing].all()


def test_placements_rise_and_their_means_are_the_auroc() -> None:
    sample = Sample()
    short, long = (metrics.histograms(sample.scores_VN[:, sample.label_N == y], [EDGES] * 2) for y in (0, 1))
    above, below = sample.tables.placement
    assert (np.diff(above) <= 0).all() and (np.diff(below) >= 0).all()
    auroc = metrics.auroc(short, long)
    np.testing.assert_allclose((long * below).sum(axis=1) / long.sum(axis=1), auroc)
    np.testing.assert_allclose((short * above).sum(axis=1) / short.sum(axis=1), auroc)
    np.testing.assert_allclose(sample.tables.auroc, auroc)


def test_nobody_has_the_tables_of_nobody() -> None:
    nobody = delong.tables(np.zeros((2, 8)), np.zeros((2, 8)))
    np.testing.assert_array_equal(nobody.placement, delong.even(2, 8).placement)


@pytest.mark.parametrize("num_stays", [20, 4000])
def test_a_noisy_interval_holds_the_auroc_whatever_the_noise(num_stays: int) -> None:
    """Noise small beside the counts, and as large: it holds the AUROC without noise in about 95 % of the draws."""
    rng, starts, deviation = np.random.default_rng(4), np.arange(0, 40, 5), 4.0
    short, long = (num_stays / 40 * (1 + np.sin(np.arange(40) / 9 + shift)) for shift in (0.0, 1.5))
    noise = np.repeat(deviation * rng.normal(size=(2, 1000, 8)) / 5, 5, axis=-1)
    found = [
        delong.noisy_interval(short + of_short, long + of_long, starts, deviation**2)
        for of_short, of_long in zip(*noise, strict=True)
    ]
    for (of_short, of_long), interval in zip(zip(*noise, strict=True), found, strict=True):
        auroc = float(np.clip(metrics.auroc(short + of_short, long + of_long), 0.0, 1.0))
        assert interval is None or interval[0] <= auroc <= interval[1]
    truth = float(metrics.auroc(short, long))
    held = np.mean([low <= truth <= high for low, high in filter(None, found)])
    assert 0.93 < held < (0.97 if num_stays == 4000 else 0.999) and found.count(None) < 100
    of_all = [high - low for low, high in filter(None, found)]
    assert np.mean(of_all) < 0.02 if num_stays == 4000 else max(of_all) == 1.0


def test_a_difference_of_noisy_aurocs_takes_the_noise_of_both() -> None:
    found = delong.noisy_difference_interval((0.8, 0.7), ((0.77, 0.83), (0.66, 0.74)), 0.0)
    assert found == pytest.approx((0.05, 0.15))
    wider = delong.noisy_difference_interval((0.8, 0.7), ((0.77, 0.83), (0.66, 0.74)), 0.12**2 / metrics.Z_95**2)
    assert wider == pytest.approx((-0.03, 0.23))
    assert delong.noisy_difference_interval((0.8, 0.7), (None, (0.0, 1.0)), 0.0) is None


def test_an_interval_stays_within_0_and_1_and_a_point_is_none() -> None:
    assert delong.auroc_interval(0.99, 0.01) is not None
    low, high = delong.auroc_interval(0.99, 0.01) or (0.0, 0.0)
    assert 0.0 < low < 0.99 < high < 1.0
    assert delong.auroc_interval(1.0, 0.0) is delong.auroc_interval(0.5, 0.0) is None
    assert delong.difference_interval(0.0, 0.0) is None
    assert delong.difference_interval(0.9, 0.01) == pytest.approx((0.704, 1.0), abs=1e-3)
    nobody = np.array([-3.0, 1.0]), np.array([2.0, 2.0])
    assert delong.noisy_interval(*nobody, np.array([0, 1]), 1.0) is None
    assert delong.interval_of_counts(np.array([1, 0]), np.array([0, 5])) is None
