"""The best AUROC that any model can reach on generated stays, by Monte Carlo over the process itself.

A model that sees a modality sees at best the latents that wrote it, and no model is told the hospital. So the best
score is P(long stay | those latents, stay is in the cohort), with the latents that are not seen and the hospital
averaged out, and its AUROC is that of the expected label: a stay counts as positive and as negative by its probability
given everything. Letters in shapes: N stays, D latents, H hidden latents, K draws of them, S hospitals.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr
from scipy.stats import multivariate_normal, norm, qmc

from lemof_model.metrics import auroc
from simulation.synthetic.process import ECG_LATENTS, EHR_LATENTS, LATENTS, Process, SyntheticHospital

NUM_REPLICATES = 8
NUM_STAYS_A_REPLICATE = 6_000
NUM_HIDDEN_DRAWS = 64
SMALLEST_SD = 1e-6
SEEN = {"": LATENTS, "_ehr": EHR_LATENTS, "_ecg": ECG_LATENTS}


@dataclass(frozen=True)
class Hidden:
    """How the latents that are not seen follow from the seen: ``mean + (seen - mean) @ slope + draws``."""

    seen: tuple[int, ...]
    unseen: tuple[int, ...]
    slope: np.ndarray
    draws_KH: np.ndarray


def upper_bounds(process: Process, hospitals: list[SyntheticHospital], seed: int) -> dict[str, dict[str, float]]:
    """``upper_bound``, ``upper_bound_ehr`` and ``upper_bound_ecg`` in both populations, each with ``_error``.

    ``all`` holds every stay of the cohort and sees an ECG where a stay has one; ``with_ecg`` those that have one.
    The error is the standard error of the mean over the replicates. Hospitals count alike.
    """
    replicates = [
        _replicate(process, hospitals, np.random.default_rng([seed, replicate, 4]))
        for replicate in range(NUM_REPLICATES)
    ]
    bounds: dict[str, dict[str, float]] = {}
    for population, first in replicates[0].items():
        bounds[population] = {}
        for name in first:
            values = np.array([replicate[population][name] for replicate in replicates])
            bounds[population][name] = float(values.mean())
            bounds[population][f"{name}_error"] = float(values.std(ddof=1) / np.sqrt(len(values)))
    return bounds


def _replicate(
    process: Process, hospitals: list[SyntheticHospital], rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """The bounds on one fresh population; each stay counts with an ECG by its hospital's coverage, and without."""
    share = -(-NUM_STAYS_A_REPLICATE // len(hospitals))
    drawn, chances = [], []
    for hospital in hospitals:
        latents_ND = hospital.mean_D + rng.standard_normal((share, len(LATENTS))) @ process.mixing_DD.T
        drawn.append(latents_ND)
        chances.append(_chances(process, process.log_los(latents_ND, hospital)))
    latents_ND = np.concatenate(drawn)
    long_N, short_N = np.concatenate([long for long, _ in chances]), np.concatenate([short for _, short in chances])
    coverage_S = np.array([hospital.mix.ecg_coverage for hospital in hospitals])
    coverage_N = np.repeat(coverage_S, share)

    averaged = {name: _averaged(process, hospitals, seen, latents_ND, rng) for name, seen in SEEN.items()}
    with_ecg = {name: _score(parts, coverage_S) for name, parts in averaged.items() if coverage_S.any()}
    without_ecg = _score(averaged["_ehr"], 1 - coverage_S)

    def best(score_with: np.ndarray, score_without: np.ndarray | None) -> float:
        if score_without is None:
            return expected_auroc(score_with, long_N * coverage_N, short_N * coverage_N)
        weight = np.concatenate([coverage_N, 1 - coverage_N])
        scores = np.concatenate([score_with, score_without])
        return expected_auroc(scores, np.tile(long_N, 2) * weight, np.tile(short_N, 2) * weight)

    any_ehr = _score(averaged["_ehr"], np.ones_like(coverage_S))
    bounds = {
        "all": {
            "positive_rate": float(long_N.sum() / (long_N + short_N).sum()),
            "upper_bound": best(with_ecg.get("", any_ehr), without_ecg),
            "upper_bound_ehr": best(any_ehr, any_ehr),
        }
    }
    if with_ecg:
        bounds["with_ecg"] = {
            "positive_rate": float(long_N @ coverage_N / ((long_N + short_N) @ coverage_N)),
            **{f"upper_bound{name}": best(score, None) for name, score in with_ecg.items()},
        }
    return bounds


def _chances(process: Process, log_los: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P(long) and P(in the cohort but not long), for an expected log length of stay of any shape."""
    sd = max(process.difficulty * process.log_los_sd, SMALLEST_SD)
    long = ndtr((log_los - np.log(process.threshold_days)) / sd)
    in_cohort = ndtr((log_los - np.log(process.min_stay_days)) / sd)
    return long, in_cohort - long


def _averaged(
    process: Process,
    hospitals: list[SyntheticHospital],
    seen: tuple[str, ...],
    latents_ND: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each stay and each hospital it might be of: log-density of what is seen, P(long), P(cohort, not long).

    Shape (S, N) each; the hidden latents are averaged out. Every stay meets the same draws of them, so that what
    error they leave moves neighbouring scores together and hardly their order.
    """
    hidden = _hidden(process, seen, rng)
    seen_NS = latents_ND[:, hidden.seen]
    correlation = (process.mixing_DD @ process.mixing_DD.T)[np.ix_(hidden.seen, hidden.seen)]
    density, long, short = [], [], []
    for hospital in hospitals:
        mean_S = hospital.mean_D[list(hidden.seen)]
        density.append(multivariate_normal.logpdf(seen_NS, mean_S, correlation))
        centre_NH = hospital.mean_D[list(hidden.unseen)] + (seen_NS - mean_S) @ hidden.slope
        long_N, short_N = np.zeros(len(seen_NS)), np.zeros(len(seen_NS))
        completed_ND = latents_ND.copy()
        for draw_H in hidden.draws_KH:
            completed_ND[:, hidden.unseen] = centre_NH + draw_H
            for total_N, chance_N in zip(
                (long_N, short_N), _chances(process, process.log_los(completed_ND, hospital)), strict=True
            ):
                total_N += chance_N / len(hidden.draws_KH)
        long.append(long_N)
        short.append(short_N)
    return np.array(density), np.array(long), np.array(short)


def _hidden(process: Process, seen: tuple[str, ...], rng: np.random.Generator) -> Hidden:
    """The conditional distribution of what is not seen, and draws from it by a scrambled Sobol sequence."""
    covariance = process.mixing_DD @ process.mixing_DD.T
    inside = tuple(LATENTS.index(name) for name in seen)
    outside = tuple(index for index in range(len(LATENTS)) if index not in inside)
    if not outside:
        return Hidden(inside, (), np.zeros((len(inside), 0)), np.zeros((1, 0)))
    slope = np.linalg.solve(covariance[np.ix_(inside, inside)], covariance[np.ix_(inside, outside)])
    left = covariance[np.ix_(outside, outside)] - covariance[np.ix_(outside, inside)] @ slope
    uniform = qmc.Sobol(len(outside), rng=rng).random(NUM_HIDDEN_DRAWS)
    return Hidden(inside, outside, slope, norm.ppf(uniform) @ np.linalg.cholesky(left).T)


def _score(averaged: tuple[np.ndarray, np.ndarray, np.ndarray], share_S: np.ndarray) -> np.ndarray:
    """P(long | seen, in the cohort) when the stay's hospital is unknown and hospital s has a share of the stays."""
    density, long, short = averaged
    weight_SN = share_S[:, None] * np.exp(density - density.max(axis=0))
    positive, negative = (weight_SN * long).sum(axis=0), (weight_SN * short).sum(axis=0)
    probability: np.ndarray = positive / np.maximum(positive + negative, np.finfo(float).tiny)
    return probability


def expected_auroc(score: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """AUROC of ``score`` when stay i counts ``positive[i]`` times as a long stay and ``negative[i]`` times as a short.

    Example:
        >>> expected_auroc(np.array([0.1, 0.9]), np.array([0.0, 1.0]), np.array([1.0, 0.0]))
        1.0
    """
    _, group = np.unique(score, return_inverse=True)
    return float(auroc(np.bincount(group, negative), np.bincount(group, positive)))
