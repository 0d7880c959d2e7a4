"""Which hospital stood apart from the others in a round of training: named where the pooled loss jumps afterwards.

What a hospital sends may be possible and wrong (labels turned round, another unit): no bound finds that. Its update,
its mean weights less those that came, then stands apart from the others' in length or direction. It is a suspicion and
no proof: a hospital with other patients stands apart as well. So nothing is left out for it; people are told.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocol.messages import Answer

JUMP = 1.25
"""A tuning loss that is so many times that of the round before has jumped."""
FEWEST = 3
"""Of two hospitals either stands as far from the other."""


class Apart(NamedTuple):
    """How one hospital's update lies to the mean of the others': the length of their difference, how many times as
    long it is, and the cosine of their angle."""

    distance: float
    times: float
    cosine: float


def apart(block: str, came: Mapping[str, NDArray[Any]], answers: Sequence[Answer]) -> dict[str, Apart]:
    """Where each hospital's update of a block lies to the mean of the others', each weighted by its stays; nothing of
    fewer than three."""
    trained = [answer for answer in sorted(answers, key=lambda a: a.site) if answer.counts.get(block)]
    if len(trained) < FEWEST:
        return {}
    names, stays = sorted(came), np.array([answer.counts[block] for answer in trained], np.float64)
    before = np.concatenate([np.ravel(came[name]).astype(np.float64) for name in names])
    sums = [np.concatenate([np.ravel(a.sums[f"{block}/weights/{name}"]) for name in names]) for a in trained]
    updates = [total / num - before for total, num in zip(sums, stays, strict=True)]
    whole = sum((num * update for num, update in zip(stays, updates, strict=True)), np.zeros(len(before)))
    found = {}
    for answer, num, update in zip(trained, stays, updates, strict=True):
        others = (whole - num * update) / (stays.sum() - num)
        own, theirs = (max(float(np.linalg.norm(vector)), 1e-12) for vector in (update, others))
        distance, cosine = float(np.linalg.norm(update - others)), float(update @ others) / own / theirs
        found[answer.site] = Apart(distance, own / theirs, cosine)
    return found


def furthest(stood: Mapping[str, Apart]) -> str:
    """The hospital whose update was furthest from the others' mean.

    Example:
        >>> furthest({"a": Apart(1.0, 1.0, 0.9), "b": Apart(2.0, 1.0, -0.9), "c": Apart(1.1, 1.0, 0.8)})
        'b'
    """
    return max(stood, key=lambda site: stood[site].distance)
