"""Noise: as large as stated, never the same twice, and charged in the act.

Statistical tests reject a right implementation once in a million runs (ALPHA).
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from client.budget.accounting import Charge, Schedule
from client.budget.noise import Noise, SecureRandom, clip_rows
from protocol.kinds import RADIUS
from protocol.release import Share

ALPHA = 1e-6
META = Share("stack", "meta", 0.25)
SCHEDULE = Schedule({"stack/meta": 3.0, "held_out/evaluation": 0.7})


def assert_std(values: np.ndarray, std: float) -> None:
    """Chi-square: the sum of squares of n normals of standard deviation ``std``."""
    squares = float((values**2).sum()) / std**2
    assert stats.chi2.ppf(ALPHA / 2, values.size) <= squares <= stats.chi2.isf(ALPHA / 2, values.size)


def test_normals_are_normal() -> None:
    drawn = SecureRandom().normal((300, 701))  # more than one chunk
    assert drawn.shape == (300, 701)
    assert drawn.dtype == np.float64
    assert_std(drawn, 1.0)
    assert stats.kstest(drawn.ravel(), "norm").pvalue > ALPHA
    neighbours = drawn.ravel()
    assert abs((neighbours[1:] * neighbours[:-1]).sum()) < stats.norm.isf(ALPHA / 2) * math.sqrt(neighbours.size)
    assert SecureRandom().normal(()).shape == ()
    assert SecureRandom().normal((0, 3)).shape == (0, 3)


def test_uniforms_lie_on_the_grid_of_53_bits() -> None:
    drawn = SecureRandom().uniform(100_000)
    assert 0 <= drawn.min() <= drawn.max() < 1
    assert ((drawn * 2**53) % 1 == 0).all()
    assert stats.kstest(drawn, "uniform").pvalue > ALPHA


@pytest.mark.parametrize("q", [0.0, 0.08, 0.5, 1.0])
def test_a_poisson_sample_takes_each_stay_with_its_rate(q: float) -> None:
    drawn = SecureRandom().bernoulli(q, 100_000)
    assert stats.binomtest(int(drawn.sum()), drawn.size, q).pvalue > ALPHA
    assert SecureRandom().bernoulli(q, 0).shape == (0,)


def test_noise_is_of_the_stated_size_and_charged() -> None:
    noise = Noise(SCHEDULE)
    value = np.arange(40_000.0)
    assert_std(noise.vector(META, value, sensitivity=RADIUS) - value, 3.0 * RADIUS)
    assert_std(noise.vector(Share("held_out", "evaluation", 0.75), value, sensitivity=2.0) - value, 1.4)
    assert noise.charges == [
        Charge("stack", "gaussian", 3.0),
        Charge("held_out", "gaussian", 0.7),
    ]


def test_symmetric_noise_is_symmetric_and_isotropic_in_the_frobenius_norm() -> None:
    noise = Noise(SCHEDULE)
    parts = np.stack([noise.symmetric(META, np.eye(4), sensitivity=9.0) - np.eye(4) for _ in range(3000)])
    np.testing.assert_array_equal(parts, parts.transpose(0, 2, 1))
    rows, columns = np.triu_indices(4, k=1)
    assert_std(parts[:, range(4), range(4)], 27.0)
    assert_std(parts[:, rows, columns], 27.0 / math.sqrt(2))
    assert noise.charges == [Charge("stack", "gaussian", 3.0)] * 3000


def test_noise_comes_from_no_seed() -> None:
    drawn = []
    for _ in range(2):
        np.random.seed(0)
        torch.manual_seed(0)
        drawn.append(Noise(SCHEDULE).vector(META, np.zeros(8), sensitivity=1.0))
    assert not np.intersect1d(drawn[0], drawn[1]).size
    random = SecureRandom()
    assert not np.intersect1d(random.normal((1000,)), random.normal((1000,))).size


def test_no_clipped_row_is_longer_than_the_radius() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 3)) * rng.choice([0.0, 1.0, 5.0, 1e9], size=(500, 1))
    clipped = clip_rows(rows)
    length = np.linalg.norm(np.column_stack([clipped, np.ones(500)]), axis=1)
    assert length.max() <= RADIUS * (1 + 1e-12)
    short = np.linalg.norm(np.column_stack([rows, np.ones(500)]), axis=1) <= RADIUS
    np.testing.assert_array_equal(clipped[short], rows[short])
    np.testing.assert_allclose(np.cross(clipped, rows), 0, atol=1e-6)  # direction is kept
