"""Score histograms added over hospitals. A site counts in a group only with both labels: where one of them was too
small to leave the site, the other would bend the pooled curve."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lemof_model import metrics
from server.run_store import Round

Float = NDArray[np.float64]


def complete_sites(reply: Round, group: str) -> list[str]:
    """Sites that sent both labels of a group."""
    return [s for s, r in reply.sites.items() if f"{group}/0" in r.counts and f"{group}/1" in r.counts]


def counts_of(reply: Round, group: str, sites: Sequence[str], index: int, num_bins: int) -> tuple[Float, Float]:
    """Counts per bin by label of one variant, added over sites; zeros over none. Noise can make them negative."""
    if not sites:
        return np.zeros(num_bins), np.zeros(num_bins)

    def added(label: int) -> Float:
        rows = [reply.sites[site].sums[f"{group}/{label}/histogram"][index] for site in sites]
        return np.asarray(np.sum(rows, axis=0), dtype=np.float64)

    return added(0), added(1)


def mended(counts: tuple[Float, Float]) -> tuple[Float, Float]:
    """The same without negative counts."""
    negative, positive = counts
    return metrics.nonnegative(negative), metrics.nonnegative(positive)
