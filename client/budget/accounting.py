"""How much privacy a hospital has spent, and how its budget lasts a whole study. Pure numbers: no files, no data.

Every release is a Gaussian mechanism, plain or over a Poisson sample, and is known here as a ``Charge``. Charges are
added as Renyi curves over ``ORDERS`` (Mironov 2017; Mironov, Talwar and Zhang 2019) and turned into epsilon by Balle
et al. 2020, theorem 21. A patient is in exactly one of ``PARTS``, so releases about different parts compose in
parallel: each part has a curve of its own and the largest epsilon is the hospital's.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lemof_model.errors import BudgetError
from lemof_model.study import Study
from protocol.noise_limits import USELESS_NOISE, sgd_rate, times_released

ORDERS = tuple(float(order) for order in (*range(2, 64), 80, 96, 128, 192, 256, 512))
"""Renyi orders, whole ones only: at those any two accountants agree to the last digits. Between them dp-accounting 0.6
lies above the integral (by 6 % at order 2.5, where Opacus equals it to 1e-10), and epsilon would gain under 1 %."""

PARTS = ("train", "stack/0", "stack/1", "tuning", "held_out")
"""Each patient is in one: the splits, within ``stack`` the cross-fit folds. A charge to ``stack`` is one to both."""

_MARGIN = 1e-4  # a schedule stays this share below the budget: sums of floats may differ in their last digits
_LEAST_NOISE = 0.1

Curve = NDArray[np.float64]
Curves = Mapping[str, Curve]


@dataclass(frozen=True)
class Budget:
    """What a hospital may spend: ``epsilon`` at ``delta`` over all studies, ``study_epsilon`` on one of them."""

    epsilon: float
    delta: float
    study_epsilon: float


@dataclass(frozen=True)
class Charge:
    """One mechanism of one answer, about the patients of one split (or fold of ``stack``).

    ``noise_multiplier`` is the standard deviation of the noise over the L2 sensitivity. ``steps`` counts how often it
    was applied; under ``subsampled_gaussian`` each time to a Poisson sample with ``sample_rate``.
    """

    split: str
    mechanism: Literal["gaussian", "subsampled_gaussian"]
    noise_multiplier: float
    sample_rate: float = 1.0
    steps: int = 1


@dataclass(frozen=True)
class Sgd:
    """DP-SGD of one block in one round: ``steps`` Poisson samples of expected ``sample_rate`` of the stays."""

    noise_multiplier: float
    sample_rate: float
    steps: int

    def charge(self, split: str) -> Charge:
        """What one round costs the patients of ``split``."""
        return Charge(split, "subsampled_gaussian", self.noise_multiplier, self.sample_rate, self.steps)


@dataclass(frozen=True)
class Schedule:
    """The noise of every release of one study at one hospital.

    Attributes:
        noise: noise multiplier by ``split/name`` of what is released.
        sgd: DP-SGD of one round, by stage (``encoders``; ``attention``, for each head).
        counts: noisy numbers of stays by group of the census (``train/ehr``, ``train/ehr/1`` ...): the only ones that
            later weights, denominators, sample rates and minima may use. Both are empty until the census.
    """

    noise: dict[str, float]
    sgd: dict[str, Sgd] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def charge(self, split: str, name: str) -> Charge:
        """What one release of this name costs the patients of ``split``."""
        return Charge(split, "gaussian", self.noise[f"{split}/{name}"])

    def curve_of(self, split: str, study: Study) -> Curve:
        """Renyi curve of all that a study releases about the patients of ``split``, without DP-SGD."""
        times = {share.key: num for share, num in times_released(study).items() if share.split == split}
        return sum((num * _step_curve(self.noise[key], 1.0) for key, num in times.items()), np.zeros(len(ORDERS)))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Schedule":
        """Read what ``to_json`` gave."""
        sgd = {stage: Sgd(**sgd) for stage, sgd in values["sgd"].items()}
        return cls(dict(values["noise"]), sgd, dict(values["counts"]))


def parts_of(split: str) -> tuple[str, ...]:
    """The parts of the patients that a split holds.

    Example:
        >>> parts_of("stack"), parts_of("train")
        (('stack/0', 'stack/1'), ('train',))
    """
    return tuple(part for part in PARTS if part == split or part.startswith(f"{split}/"))


def no_curves() -> dict[str, Curve]:
    """Nothing spent on any part."""
    return {part: np.zeros(len(ORDERS)) for part in PARTS}


def rdp(charges: Iterable[Charge]) -> dict[str, Curve]:
    """Renyi curve over ``ORDERS`` of each part of the patients."""
    curves = no_curves()
    for charge in charges:
        for part in parts_of(charge.split):
            curves[part] = curves[part] + charge.steps * _step_curve(charge.noise_multiplier, charge.sample_rate)
    return curves


def epsilon_of(curve: Curve, delta: float) -> float:
    """Epsilon at ``delta`` of a Renyi curve; 0 for one that is 0 everywhere.

    Example:
        >>> round(epsilon_of(rdp([Charge("train", "gaussian", 5.0)])["train"], 1e-5), 4)
        0.7945
    """
    if not curve.any():
        return 0.0
    orders = np.array(ORDERS)
    epsilon = curve - (np.log(delta) + np.log(orders)) / (orders - 1) + np.log1p(-1 / orders)
    return max(0.0, float(epsilon.min()))


def spent(charges: Iterable[Charge], delta: float) -> float:
    """Epsilon of some charges: the largest over the parts, since each patient is in one."""
    return max(epsilon_of(curve, delta) for curve in rdp(charges).values())


def schedule(study: Study, budget: Budget, *, before: Curves, own: Curves) -> Schedule:
    """The noise with which all of a study's releases fit into what is left, from the plan alone; DP-SGD is still out.

    ``before`` is everything that the hospital has released so far, ``own`` the part of it for this very study. The
    releases of a split share what a single Gaussian mechanism could still spend as the stages declare.

    Raises:
        BudgetError: nothing, or too little for any noise, is left.
    """
    times = times_released(study)
    room = {split: _Room(split, budget, before, own) for split in dict.fromkeys(share.split for share in times)}
    plain = partial(_step_curve, sample_rate=1.0)
    rho = {split: 1 / (2 * _smallest_noise(plain, left) ** 2) for split, left in room.items()}
    return Schedule({share.key: math.sqrt(num / (2 * share.share * rho[share.split])) for share, num in times.items()})


def with_counts(
    planned: Schedule, study: Study, budget: Budget, counts: Mapping[str, int], *, before: Curves, own: Curves
) -> Schedule:
    """The schedule with the census' noisy ``counts``, and with DP-SGD: it gets all that the other releases leave.

    Each attention head trains on a fold, half of ``stack``, and is charged to that fold alone. ``before`` and ``own``
    are as they were for ``schedule``: without the census.
    """
    from protocol.stages import STAGES  # brings torch, which a look at the ledger does without

    sgd = {}
    for stage, trained in ((stage.name, stage.trained) for stage in STAGES.values() if stage.trained):
        spec, split = trained.spec(study), trained.split
        rate, steps = sgd_rate(spec, counts[f"{split}/ehr"] / trained.num_folds)
        others = planned.curve_of(split, study)
        added = partial(_sgd_curve, others, rate, spec.num_rounds * steps)
        most = USELESS_NOISE * spec.num_rounds * steps
        sgd[stage] = Sgd(_smallest_noise(added, _Room(split, budget, before, own), most), rate, steps)
    return Schedule(planned.noise, sgd, dict(counts))


def _sgd_curve(others: Curve, sample_rate: float, num_steps: int, noise_multiplier: float) -> Curve:
    """Curve of a study's releases about one split, DP-SGD among them."""
    return others + num_steps * _step_curve(noise_multiplier, sample_rate)


@dataclass(frozen=True)
class _Room:
    """What the budget leaves for the patients of one split."""

    split: str
    budget: Budget
    before: Curves
    own: Curves

    def holds(self, added: Curve) -> bool:
        """Whether this much more stays within both limits, for every part of the split."""
        limits = ((self.before, self.budget.epsilon), (self.own, self.budget.study_epsilon))
        return all(
            epsilon_of(curves[part] + added, self.budget.delta) <= limit * (1 - _MARGIN)
            for part in parts_of(self.split)
            for curves, limit in limits
        )


def _smallest_noise(curve_of: Callable[[float], Curve], room: _Room, most: float = USELESS_NOISE) -> float:
    """The smallest noise multiplier whose curve there is room for, by bisection of its logarithm from above.

    Raises:
        BudgetError: there is none up to ``most``.
    """
    low, high = math.log(_LEAST_NOISE), math.log(most)
    if not room.holds(curve_of(most)):
        raise BudgetError(
            rule=f"The privacy budget must leave something for {room.split}",
            got=f"nothing left under epsilon {room.budget.epsilon:g} (study_epsilon {room.budget.study_epsilon:g}) at "
            f"delta {room.budget.delta:g}",
            fix="Nothing was sent. lemof-client --site SITE ledger shows what was spent; the site file says what may "
            "be.",
        )
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if room.holds(curve_of(math.exp(middle))) else (middle, high)
    return math.exp(high)


@lru_cache(maxsize=1024)
def _step_curve(noise_multiplier: float, sample_rate: float) -> Curve:
    """Renyi curve of one step: of a plain Gaussian ``order / (2 z^2)``, of a sampled one by Opacus (slow to import)."""
    if sample_rate == 1.0:
        return np.array(ORDERS) / (2 * noise_multiplier**2)
    from opacus.accountants.analysis.rdp import compute_rdp

    return np.asarray(compute_rdp(q=sample_rate, noise_multiplier=noise_multiplier, steps=1, orders=list(ORDERS)))
