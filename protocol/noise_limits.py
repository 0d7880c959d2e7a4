"""How much noise a hospital with a privacy budget may add, by the plan alone: what both sides know of it.

Its own plan of noise follows from its budget and its ledger, which nobody else sees. But no plan is made with more than
``USELESS_NOISE``, so a coordinator can say what no sum with noise is longer than.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lemof_model.study import Study, TrainingSpec

if TYPE_CHECKING:
    from protocol.release import Reach, Share

USELESS_NOISE = 300.0
"""Noise multiplier of the one release that a split's whole budget would pay for: over this, nothing is left."""


class MostSgd(NamedTuple):
    """The most noise of DP-SGD in one round, and its sample rate and steps."""

    noise_multiplier: float
    sample_rate: float
    steps: int


def sgd_rate(spec: TrainingSpec, num_stays: float) -> tuple[float, int]:
    """Sample rate and steps of one round of DP-SGD over about ``num_stays`` stays: as many as a plain round has.

    Example:
        >>> sgd_rate(TrainingSpec(batch_size=64, num_epochs=1), 800)
        (0.08, 13)
    """
    rate = min(1.0, spec.batch_size / max(num_stays, 1.0))
    return rate, spec.num_epochs * int(np.ceil(1 / rate))


def times_released(study: Study) -> dict["Share", int]:
    """How many Gaussian mechanisms of each share a study makes at most at a hospital, apart from DP-SGD, which gets the
    rest of ``train`` and ``stack``."""
    from protocol.stages import STAGES

    found: dict[Share, int] = {}
    for release in (release for stage in STAGES.values() for release in stage.releases):
        if release.share is not None:
            found[release.share] = found.get(release.share, 0) + release.mechanisms * release.messages(study)
    return found


def most_reach(study: Study, counts: Mapping[str, int]) -> "Reach":
    """What sums of a hospital with these noisy counts can reach under the noisiest plan there may be."""
    from protocol.release import Reach
    from protocol.stages import STAGES

    times = times_released(study)
    noise = {share.key: USELESS_NOISE * math.sqrt(num / share.share) for share, num in times.items()}
    sgd = {}
    for stage, trained in ((stage.name, stage.trained) for stage in STAGES.values() if stage.trained):
        spec = trained.spec(study)
        rate, steps = sgd_rate(spec, counts.get(f"{trained.split}/ehr", 0) / trained.num_folds)
        sgd[stage] = MostSgd(USELESS_NOISE * spec.num_rounds * steps, rate, steps)
    return Reach(noise, counts, sgd)
