"""Intervals of AUROCs and of their paired differences, from the histograms and from sums over patients.

Hospitals without a budget send sums over their patients of squared placements, by the pooled tables and by their own
(``lemof_model/delong.py``). Of one with a budget the squares of single scores follow from its noisy histograms, where
each patient has one stay; it sends those of differences, with noise, and how much noise is in its histograms, which
moves an AUROC as well.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lemof_model import delong, metrics
from lemof_model.delong import Interval
from lemof_model.lemof import COMPARED, POPULATIONS, SCORED, VARIANTS
from lemof_model.study import Study
from protocol.kinds import coarse_starts
from server.pooled import complete_sites, counts_of, mended
from server.run_store import Round

Float = NDArray[np.float64]
FULL = SCORED.index("full")
CONTRASTS = np.array([*range(len(SCORED)), *([FULL] * len(COMPARED))])
"""The score of each contrast, the first of the two of a difference."""
IS_PAIR = np.arange(len(CONTRASTS)) >= len(SCORED)


def tables_of(held_out: Round, study: Study) -> dict[str, NDArray[Any]]:
    """The pooled placements and AUROCs of each population, as they are sent to every hospital; of a population that
    fewer hospitals than the plan wants stand behind, tables that tell of nobody."""
    found: dict[str, NDArray[Any]] = {}
    for population in POPULATIONS:
        sites = complete_sites(held_out, f"{population}/all")
        tables = delong.even(len(SCORED), study.evaluation.num_bins)
        if len(sites) >= study.fewest_sites:
            tables = _tables(_histograms(held_out, population, sites, study.evaluation.num_bins))
        found |= {f"placement/{population}": tables.placement, f"auroc/{population}": tables.auroc}
    return found


def _histograms(held_out: Round, population: str, sites: Sequence[str], num_bins: int) -> list[tuple[Float, Float]]:
    """Counts per bin by outcome of each score."""
    return [counts_of(held_out, f"{population}/all", sites, index, num_bins) for index in range(len(SCORED))]


def _tables(histograms: Sequence[tuple[Float, Float]]) -> delong.Tables:
    """Their placements, noise below 0 mended."""
    return delong.tables(*(np.stack(counts) for counts in zip(*map(mended, histograms), strict=True)))


class _Estimate(NamedTuple):
    """Histograms by outcome of each score, and the variance of each contrast from the chance in patients ``(C,)``;
    ``noise``: its variance in each coarse bin of the histograms."""

    histograms: Sequence[tuple[Float, Float]]
    variance: Float
    noise: float

    def auroc(self, name: str) -> float:
        """Of one score. Noise may put it beyond 0 and 1, where it is cut."""
        return float(np.clip(metrics.auroc(*self.histograms[SCORED.index(name)]), 0.0, 1.0))

    def interval(self, name: str) -> Interval | None:
        """Of the AUROC of one score."""
        variance = float(self.variance[SCORED.index(name)])
        return self._noisy(name, variance) if self.noise else delong.auroc_interval(self.auroc(name), variance)

    def difference(self, name: str) -> dict[str, Any]:
        """Full minus another, with its interval."""
        one, other = self.auroc("full"), self.auroc(name)
        variance = float(self.variance[len(SCORED) + COMPARED.index(name)])
        if self.noise:
            noise = self._noisy("full"), self._noisy(name)
            interval = delong.noisy_difference_interval((one, other), noise, variance)
        else:
            interval = delong.difference_interval(one - other, variance)
        return {"auroc": one - other, "auroc_ci": interval}

    def _noisy(self, name: str, variance: float = 0.0) -> Interval | None:
        """The interval of noise, and of the chance in patients where its variance is told."""
        negative, positive = self.histograms[SCORED.index(name)]
        starts = coarse_starts(len(negative), is_equal=False)
        return delong.noisy_interval(negative, positive, starts, self.noise, variance)


class Intervals:
    """The intervals of one study.

    Args:
        held_out: the histograms.
        told: the sums over patients; None where a method asks for none, and then there are no intervals.
    """

    def __init__(self, held_out: Round, told: Round | None, study: Study) -> None:
        self._held_out, self._told = held_out, told
        self._fewest_sites, self._num_bins = study.fewest_sites, study.evaluation.num_bins

    def pooled(self, population: str, name: str) -> Interval | None:
        """Of the AUROC of one score over all hospitals."""
        of = self._of_all(population)
        return of.interval(name) if of else None

    def of_site(self, population: str, name: str, site: str) -> Interval | None:
        """Of the AUROC of one score at one hospital."""
        of = self._of(population, [site], "own")
        return of.interval(name) if of else None

    def differences(self, population: str) -> dict[str, Any]:
        """Paired AUROC differences, full minus each other, over the same stays."""
        of = self._of_all(population)
        if of is None:
            return {}
        return {f"full-{name}": of.difference(name) for name in COMPARED if self._is_paired(population, name)}

    def _is_paired(self, population: str, name: str) -> bool:
        """Whether each stay that has a full score has this one."""
        return all(
            self._has_all(population, name, site) for site in complete_sites(self._held_out, f"{population}/all")
        )

    def _has_all(self, population: str, name: str, site: str) -> bool:
        reply = self._held_out.sites[site]
        if reply.delta:
            return name in VARIANTS and (population, name) != ("all", "ecg_single")
        num_V = sum(reply.sums[f"{population}/all/{label}/histogram"].sum(axis=1) for label in (0, 1))
        return bool(num_V[SCORED.index(name)] == num_V[FULL])

    def _of_all(self, population: str) -> _Estimate | None:
        """Over all hospitals that the pooled tables are made of, if they were sent."""
        sites = complete_sites(self._held_out, f"{population}/all")
        return self._of(population, sites, "pooled") if len(sites) >= self._fewest_sites else None

    def _of(self, population: str, sites: Sequence[str], which: str) -> _Estimate | None:
        """Over some hospitals, by the tables of their histograms, if each has told its sums."""
        answered = set(self._told.answered(population)) if self._told else set()
        if not sites or not set(sites) <= answered & set(complete_sites(self._held_out, f"{population}/all")):
            return None
        histograms = _histograms(self._held_out, population, sites, self._num_bins)
        tables = _tables(histograms)
        parts = [self._spread(population, site, which, tables) for site in sites]
        total = delong.Spread(*(np.sum(part, axis=0) for part in zip(*(spread for spread, _ in parts), strict=True)))
        num_short, num_long = np.maximum([[counts.sum() for counts in both] for both in histograms], 1.0).T
        variance = delong.variance(total, num_short[CONTRASTS], num_long[CONTRASTS])
        return _Estimate(histograms, variance, sum(noise for _, noise in parts))

    def _spread(self, population: str, site: str, which: str, tables: delong.Tables) -> tuple[delong.Spread, float]:
        """What one hospital adds to a variance, and the variance of the noise in a coarse bin of its histograms."""
        assert self._told is not None
        told, sent = self._told.sites[site].sums, self._held_out.sites[site]
        sums = np.zeros((3, len(CONTRASTS)))
        if not sent.delta:
            own = told[f"{population}/{which}"]
            sums[:, : own.shape[1]] = own
            return delong.Spread(sums, told[f"{population}/num_patients"]), 0.0
        short, long = (sent.sums[f"{population}/all/{y}/histogram"] for y in (0, 1))
        of_scores = delong.spread_of_counts(short, long, tables)
        sums[:, ~IS_PAIR] = of_scores.sums
        sums[:, IS_PAIR] = np.maximum(told[f"{population}/pooled"][:, IS_PAIR], 0.0)
        return delong.Spread(sums, of_scores.num_patients), float(told[f"{population}/noise"])
