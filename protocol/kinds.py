"""The kinds of release: counts, sums of a bounded vector, a learner's Newton sums, trained weights, and histograms.

Each knows its exact sum, its noisy one and what bounds it; ``docs/privacy.md`` derives the sensitivities. Shapes: N
stays of a group, P inputs of a learner, V scores, B bins, R bootstrap draws.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lemof_model import lemof, logistic, metrics, training
from lemof_model.encoders.registry import encoder_class
from lemof_model.errors import DoorError
from lemof_model.study import Study, TrainingSpec
from protocol.release import Arrays, Float, Form, Minimum, Noise, Part, Reach, Release, View

RADIUS = 3.0
"""Under a budget no row ``[x, 1]`` of a learner is longer: rows beyond it are scaled down."""

NUM_COARSE_BINS = 20
ADAM_STEP = 4.0
"""A step of Adam moves a coordinate by no more than 3.2 times the learning rate (0.1 / sqrt(0.001))."""


@dataclass(frozen=True, kw_only=True)
class Counts(Release):
    """Numbers of stays in cells, and in totals over cells; no array.

    Attributes:
        cells: the cells of a total; none of a cell.
        most_cells: how many cells a stay is in at most, adding 1 to each.
    """

    cells: Callable[[str], Sequence[str]]
    most_cells: int

    def forms(self, request: Any, group: str) -> dict[str, Form]:
        """None."""
        return {}

    def sums(self, view: View, group: str, part: Part) -> Arrays:
        """None."""
        return {}

    def noisy_sums(self, view: View, noise: Noise, parts: Mapping[str, Part]) -> Sequence[Arrays]:
        """None; noisy whole numbers of the cells, none below 0, and their totals become the noise's counts."""
        assert self.share is not None
        cells = [group for group in parts if not self.cells(group)]
        true = np.array([float(len(parts[cell].rows)) for cell in cells])
        found = noise.vector(self.share, true, sensitivity=math.sqrt(self.most_cells))
        counts = dict(zip(cells, np.maximum(found.round(), 0).astype(int).tolist(), strict=True))
        noise.counts |= {group: sum(counts[cell] for cell in self.cells(group) or (group,)) for group in parts}
        return [{}] * len(parts)

    def norm(self, request: Any, reach: Reach, group: str, array: str) -> float:
        """None."""
        return 0.0

    def minimum_of(self, group: str) -> Minimum:
        """A total says who can be trained with."""
        return "patients" if self.cells(group) else "cell"


@dataclass(frozen=True, kw_only=True)
class Sums(Release):
    """The sum of a vector (or number) of each stay: ``Part.each`` has ``(N, size)``, or ``(N,)`` for size 0, by name.

    Attributes:
        arrays: the size of each sum; under a budget there is one.
        bound: what no stay's vector of a group is longer than, by the request alone; longer ones are shortened. The
            groups of a release are one vector, and a stay may be in all of them.
    """

    arrays: Mapping[str, int]
    bound: Callable[[Any, str], float] = lambda *_: math.inf

    def forms(self, request: Any, group: str) -> dict[str, Form]:
        """The sums."""
        return {name: Form((size,) if size else ()) for name, size in self.arrays.items()}

    def sums(self, view: View, group: str, part: Part) -> Arrays:
        """Added up."""
        return part.total or {name: np.asarray(part.each[name].sum(axis=0)) for name in self.arrays}

    def noisy_sums(self, view: View, noise: Noise, parts: Mapping[str, Part]) -> Sequence[Arrays]:
        """Shortened, added up, with noise."""
        assert self.share is not None
        ((name, _),) = self.arrays.items()
        bounds = [self.bound(view.request, group) for group in parts]
        each = [shortened(part.each[name], most) for part, most in zip(parts.values(), bounds, strict=True)]
        total = np.stack([vectors.sum(axis=0) for vectors in each])
        return [{name: np.asarray(s)} for s in noise.vector(self.share, total, sensitivity=math.hypot(*bounds))]

    def norm(self, request: Any, reach: Reach, group: str, array: str) -> float:
        """Stays times their bound, and the noise of the whole vector."""
        assert self.share is not None
        bounds = {group: self.bound(request, group) for group in self.names(request)}
        counted, size = self.counted(request, group), len(bounds) * max(self.arrays[array], 1)
        joint = math.hypot(*bounds.values())
        return reach.summed(self.share, counted, each=bounds[group], sensitivity=joint, size=size)


def shortened(each: Float, most: float) -> Float:
    """Vectors ``(N, size)`` or numbers ``(N,)``, none longer than ``most``; what is no number is 0.

    Example:
        >>> shortened(np.array([[3.0, 4.0], [0.3, 0.4]]), 1.0).tolist(), shortened(np.array([-5.0, 0.5]), 1.0).tolist()
        ([[0.6..., 0.8], [0.3, 0.4]], [-1.0, 0.5])
    """
    each = np.nan_to_num(each, nan=0.0)
    if each.ndim == 1:
        return np.clip(each, -most, most)
    norm_N1 = np.linalg.norm(each, axis=1, keepdims=True)
    return np.asarray(each * np.minimum(1.0, most / np.maximum(norm_N1, most)))


@dataclass(frozen=True, kw_only=True)
class Newton(Release):
    """What a Newton step of a logistic learner needs; ``Part.each`` is its inputs ``(N, P)``.

    A stay adds ``(p - y) [x, 1]`` to the gradient and ``p (1 - p) [x, 1] [x, 1]^T`` to the Hessian, ``[x, 1]`` being no
    longer than ``RADIUS`` under a budget. Loss and number of errors, which nothing needs where steps are fixed, are 0
    there, and ``noise`` is the variance of the noise in a coordinate of the gradient and in a diagonal element of the
    Hessian: the server's steps heed it.

    Attributes:
        theta: name of the coefficients in the model.
        start: weights of the inputs that are best when nothing is known; the intercept is 0.
        has_ecg: whether an input more tells of the ECG, where having one varies; its first weight is 0.
    """

    theta: str
    start: tuple[float, ...]
    has_ecg: bool = False
    mechanisms: ClassVar[int] = 2

    def first(self, *, has_indicator: bool) -> Float:
        """The coefficients that it begins with; ``has_indicator`` if having an ECG varies."""
        return np.array([*self.start, *([0.0] if self.has_ecg and has_indicator else []), 0.0])

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many coefficients there may be."""
        return tuple(sorted({len(self.first(has_indicator=varies)) for varies in (False, True)}))

    def forms(self, request: Any, group: str) -> dict[str, Form]:
        """Gradient, Hessian, loss, variances of noise, number of errors."""
        theta = request.model.get(self.theta)
        if theta is None or theta.shape not in [(size,) for size in self.sizes]:
            sizes = " or ".join(map(str, self.sizes))
            raise DoorError(
                rule=f"{self.theta} must have {sizes} coefficients",
                got="others from the coordinator",
                fix="Nothing was sent.",
            )
        num = len(theta)
        found = {"gradient": Form((num,)), "hessian": Form((num, num)), "loss": Form(()), "noise": Form((2,))}
        return found | {"num_errors": Form((), ("int64", "float64"))}

    def sums(self, view: View, group: str, part: Part) -> Arrays:
        """At the request's coefficients."""
        theta, label = view.request.model[self.theta], view.stays.long_stay_N[part.rows]
        num_errors = np.asarray(logistic.num_errors(theta, part.each, label))
        return {**logistic.sums(theta, part.each, label)._asdict(), "num_errors": num_errors}

    def noisy_sums(self, view: View, noise: Noise, parts: Mapping[str, Part]) -> Sequence[Arrays]:
        """Noisy gradient and Hessian."""
        assert self.share is not None
        (part,) = parts.values()
        found = logistic.sums(view.request.model[self.theta], part.each, view.stays.long_stay_N[part.rows])
        return [
            {
                "gradient": noise.vector(self.share, found.gradient, sensitivity=RADIUS),
                "hessian": noise.symmetric(self.share, found.hessian, sensitivity=RADIUS**2 / 4),
                "noise": (noise.multiplier(self.share) * np.array([RADIUS, RADIUS**2 / 4])) ** 2,
                "loss": np.zeros(()),
                "num_errors": np.zeros((), np.int64),
            }
        ]

    def norm(self, request: Any, reach: Reach, group: str, array: str) -> float:
        """Stays times what each adds, and noise; the variances to a rounding."""
        assert self.share is not None
        if array in ("loss", "num_errors"):
            return 0.0
        if array == "noise":
            return 1.000001 * reach.noise[self.share.key] ** 2 * math.hypot(RADIUS**2, RADIUS**4 / 16)
        each = RADIUS if array == "gradient" else RADIUS**2 / 4
        size = math.prod(self.forms(request, group)[array].shape)
        return reach.summed(self.share, self.counted(request, group), each=each, sensitivity=each, size=size)


@dataclass(frozen=True, kw_only=True)
class Trained(Release):
    """Weights of networks after a round of training, times stays; ``Part.each`` is a network and its ``BatchOf``.

    Under a budget the networks of a release are trained by DP-SGD as one mechanism about ``patients``, a part of the
    hospital's; it gets what the other releases leave of the split's budget.

    Attributes:
        shapes: the shapes of a network's weights, by the request alone.
        sampled: the stays that DP-SGD samples from.
        num_folds: how many releases of the stage share the stays of the split.
    """

    patients: str
    split: str
    spec: Callable[[Study], TrainingSpec]
    shapes: Callable[[Any, str], Mapping[str, tuple[int, ...]]]
    sampled: Callable[[View], Any]
    num_folds: int = 1
    needs_stays: ClassVar[bool] = True

    def forms(self, request: Any, group: str) -> dict[str, Form]:
        """Each array of weights."""
        return {f"weights/{name}": Form(shape) for name, shape in self.shapes(request, group).items()}

    def sums(self, view: View, group: str, part: Part) -> Arrays:
        """After a round of training."""
        request, study, (model, batch_of) = view.request, view.study, part.each
        known: dict[str, Any] = {"number": request.number, "proximal_mu": study.strategy.proximal_mu}
        seed = training.derive_seed(study.seed, view.name, request.stage, group, request.round)
        label = view.stays.long_stay_N
        training.train(model, batch_of, label, part.rows, self.spec(study), seed=seed, **known)
        return _weights(model, len(part.rows))

    def noisy_sums(self, view: View, noise: Noise, parts: Mapping[str, Part]) -> Sequence[Arrays]:
        """After a round of DP-SGD."""
        noise.train(self, view, parts)
        counts = {group: noise.counts[self.counted(view.request, group)] for group in parts}
        return [_weights(part.each[0], self.public(counts[group])[0]) for group, part in parts.items()]

    def norm(self, request: Any, reach: Reach, group: str, array: str) -> float:
        """Weights that came, and as far as the optimiser can carry them in one round; times stays."""
        came = np.ravel(request.model[f"{group}/{array.removeprefix('weights/')}"])
        study, spec, sgd = request.study, self.spec(request.study), reach.sgd[request.stage]
        factor = encoder_class(group, getattr(study, group)).lr_factor if self.num_folds == 1 else 1.0
        lr = factor * training.round_lr(spec, request.number)
        if spec.optimizer == "adamw":
            step = lr * ADAM_STEP * math.sqrt(came.size)
        else:
            num_weights = sum(value.size for value in lemof.part(request.model, group).values())
            noise = sgd.noise_multiplier * (math.sqrt(num_weights) + 10.0)
            expected = max(sgd.sample_rate * reach.counts[f"{self.split}/ehr"] / self.num_folds, 1.0)
            step = lr * spec.max_grad_norm * (reach.stays(f"{self.split}/ehr") + noise) / expected
            step *= (1.0 + lr * study.strategy.proximal_mu) ** sgd.steps
        times, _ = self.public(reach.counts.get(self.counted(request, group), 0))
        return float(times * (np.linalg.norm(came) + sgd.steps * step))

    def is_private(self, request: Any) -> bool:
        """Always: what it costs is planned with the rest."""
        return True

    def public(self, num_stays: int) -> tuple[int, int]:
        """The stays of a fold, and the patients of the whole split."""
        return num_stays // self.num_folds, num_stays


def _weights(model: Any, times: int) -> Arrays:
    """Weights times a number of stays."""
    return {f"weights/{name}": value.astype(np.float64) * times for name, value in training.to_arrays(model).items()}


@dataclass(frozen=True, kw_only=True)
class Histogram(Release):
    """Stays per bin of each of V scores; ``Part.each`` is scores ``(V, N)`` and the edges of each.

    Attributes:
        shape: of the array, by the request: (V, B), or (B,) for a single score.
        most_bins: how many bins a stay is counted in at most, over all groups.
        num_noisy: of how many scores a noisy histogram has counts; the others' are 0.
        is_equal: whether the bins are of equal width: then they are merged more finely towards 0.
        draws: how many bootstrap draws of patients go with it, without a budget.
    """

    shape: Callable[[Any], tuple[int, ...]]
    most_bins: int = 1
    num_noisy: int = 1
    is_equal: Callable[[Any], bool] = lambda request: True
    draws: Callable[[Any], int] = lambda request: 0

    def forms(self, request: Any, group: str) -> dict[str, Form]:
        """The counts, whole ones unless noise was added, and those of bootstrap draws."""
        shape, draws = self.shape(request), self.draws(request)
        found = {"histogram": Form(shape, ("int32", "float64"))}
        return found | ({"bootstrap": Form((draws, *shape), ("uint8", "uint16", "uint32"))} if draws else {})

    def sums(self, view: View, group: str, part: Part) -> Arrays:
        """Whole counts."""
        (scores, edges), draws = part.each, self.draws(view.request)
        found = {"histogram": metrics.histograms(scores, edges).reshape(self.shape(view.request))}
        if draws:
            found["bootstrap"] = metrics.bootstrap_histograms(scores, edges, view.draws(draws)[:, part.rows])
        return found

    def noisy_sums(self, view: View, noise: Noise, parts: Mapping[str, Part]) -> Sequence[Arrays]:
        """Counts in about 20 coarse bins, with noise, spread evenly over the bins."""
        assert self.share is not None
        shape = self.shape(view.request)
        starts = coarse_starts(shape[-1], is_equal=self.is_equal(view.request))
        of_parts = [[values[: self.num_noisy] for values in part.each] for part in parts.values()]
        counted = [metrics.histograms(scores, edges) for scores, edges in of_parts]
        coarse = np.stack([np.add.reduceat(counts, starts, axis=1) for counts in counted]).astype(np.float64)
        found = []
        for histogram in noise.vector(self.share, coarse, sensitivity=math.sqrt(self.most_bins)):
            fine = np.zeros((math.prod(shape[:-1]), shape[-1]))
            fine[: self.num_noisy] = spread(histogram, starts, shape[-1])
            found.append({"histogram": fine.reshape(shape)})
        return found

    def norm(self, request: Any, reach: Reach, group: str, array: str) -> float | None:
        """Stays times the bins that each is in, and noise."""
        assert self.share is not None
        each, most, size = math.sqrt(self.num_noisy), math.sqrt(self.most_bins), math.prod(self.shape(request))
        if array == "bootstrap":
            return None
        return reach.summed(self.share, self.counted(request, group), each=each, sensitivity=most, size=size)


def coarse_starts(num_bins: int, *, is_equal: bool) -> NDArray[np.int64]:
    """Where each of 20 coarse bins begins among the request's bins. Bins of equal width are merged more finely towards
    log-odds 0, where scores are; others have been fitted to the scores already.

    Example:
        >>> coarse_starts(400, is_equal=True)[[0, 1, 9, 10, 11, 19]].tolist()
        [0, 38, 198, 200, 202, 362]
    """
    place = np.linspace(-1.0, 1.0, NUM_COARSE_BINS + 1)
    if is_equal:
        place = np.sign(place) * place**2
    starts = np.unique(np.round((place[:-1] + 1) / 2 * num_bins).astype(np.int64))
    return starts[starts < num_bins]


def spread(coarse: Float, starts: NDArray[np.int64], num_bins: int) -> Float:
    """Coarse counts, divided evenly among the bins that they were added up from."""
    widths = np.diff(np.append(starts, num_bins))
    return np.asarray(np.repeat(coarse / widths, widths, axis=-1))
