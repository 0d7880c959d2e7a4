"""The kinds of release: counts, sums of a bounded vector, a learner's Newton sums, trained weights, histograms, and
sums of placements.

Each knows its exact sum, its noisy one and what bounds it; ``docs/privacy.md`` derives the sensitivities. Shapes: N
stays of a group, P inputs of a learner, V scores, B bins, C contrasts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lemof_model import delong, lemof, logistic, metrics, training
from lemof_model.encoders.registry import encoder_class
from lemof_model.errors import DoorError
from lemof_model.study import Study, TrainingSpec
from protocol.release import (
    MOST,
    ROUNDING,
    Arrays,
    Float,
    Form,
    Minimum,
    Noise,
    Part,
    Reach,
    Release,
    Rules,
    View,
    are_whole,
    within,
)

RADIUS = 3.0
"""Under a budget no row ``[x, 1]`` of a learner is longer: rows beyond it are scaled down."""

NUM_COARSE_BINS = 20
DIGITS = 3
"""Of a sum over squared placements that leaves without noise."""
ADAM_STEP = 4.0
"""A step of Adam moves a coordinate by no more than 3.2 times the learning rate (0.1 / sqrt(0.001))."""


@dataclass(frozen=True, kw_only=True)
class Counts(Release):
    """Numbers of stays in cells, and in totals over cells; no array.

    Attributes:
        cells: the cells of a total; none of a cell.
        most_cells: how many cells a stay is in at most, adding 1 to each.
        whole: the cell or total of all stays that one of some of them lies in.
    """

    cells: Callable[[str], Sequence[str]]
    most_cells: int
    whole: Callable[[str], str] = lambda group: group

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

    def exact_rules(self, request: Any, group: str, sums: Arrays, counts: Mapping[str, int]) -> Rules:
        """Cells add up to their total, and some stays are no more than all."""
        yield from self.noisy_rules(request, group, sums, counts)
        whole = self.whole(group)
        yield f"stays of {group} must be no more than of {whole}", counts[group] <= counts.get(whole, counts[group])

    def noisy_rules(self, request: Any, group: str, sums: Arrays, counts: Mapping[str, int]) -> Rules:
        """Cells add up to their total: it is made of them, with noise or without."""
        cells = [counts[cell] for cell in self.cells(group) if cell in counts]
        are_all = len(cells) == len(self.cells(group))
        added = sum(cells) == counts[group] if are_all else sum(cells) <= counts[group]
        yield f"stays of {group} must be those of its outcomes together", not cells or added

    def minimum_of(self, group: str) -> Minimum:
        """A total says who can be trained with."""
        return "patients" if self.cells(group) else self.minimum


@dataclass(frozen=True, kw_only=True)
class Sums(Release):
    """The sum of a vector (or number) of each stay: ``Part.each`` has ``(N, size)``, or ``(N,)`` for size 0, by name.

    Attributes:
        arrays: the size of each sum; under a budget there is one.
        bound: what no stay's vector of a group is longer than, by the request alone; longer ones are shortened. The
            groups of a release are one vector, and a stay may be in all of them.
        limits: the smallest and the largest element that a stay adds without a budget, by array.
        squares: names of a sum and of the sum of its squares, if there is one.
    """

    arrays: Mapping[str, int]
    bound: Callable[[Any, str], float] = lambda *_: math.inf
    limits: Callable[[Any, str], Mapping[str, tuple[Any, Any]]]
    squares: tuple[str, str] | None = None

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

    def exact_rules(self, request: Any, group: str, sums: Arrays, counts: Mapping[str, int]) -> Rules:
        """Each sum is what its stays can add up to; the stays of an element are counted where some lack it."""
        stays = sums[self.counted_by] if self.counted_by else counts[group]
        for name, (low, high) in self.limits(request, group).items():
            behind = counts[group] if name == self.counted_by else stays
            yield f"{group}/{name} must be what its stays can add up to", within(sums[name], low, high, stays=behind)
        if self.counted_by:
            yield f"{group}/{self.counted_by} must be whole numbers", are_whole(sums[self.counted_by])
        if self.squares:
            added, squared = (sums[name] for name in self.squares)
            least = np.asarray(added) ** 2 * (1.0 - 1e-6)  # Cauchy and Schwarz
            yield (
                f"{group}/{self.squares[1]} must not be too small for {self.squares[0]}",
                bool((least <= stays * squared).all()),
            )


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
    noisy_only: ClassVar[tuple[str, ...]] = ("noise",)

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

    def exact_rules(self, request: Any, group: str, sums: Arrays, counts: Mapping[str, int]) -> Rules:
        """A stay adds ``(p - y) v`` and ``p (1 - p) v v^T``, with the inputs' own limits on ``v = [x, 1]``."""
        theta, stays = request.model[self.theta], counts[group]
        most = max(map(abs, lemof.input_range(request.study)))
        limit_P = np.append(np.full(len(theta) - 1, most), 1.0)
        outer_PP = np.outer(limit_P, limit_P) / 4.0
        gradient, hessian = sums["gradient"], sums["hessian"]
        yield f"{group}/gradient must be what its stays can add up to", within(gradient, -limit_P, limit_P, stays=stays)
        yield f"{group}/hessian must be what its stays can add up to", within(hessian, -outer_PP, outer_PP, stays=stays)
        yield from _curved(group, hessian)
        largest = math.log(2.0) + float(np.abs(theta) @ limit_P)
        yield f"{group}/loss must be what its stays can add up to", within(sums["loss"], 0.0, largest, stays=stays)
        errors = sums["num_errors"]
        yield f"{group}/num_errors must count stays", are_whole(errors) and 0 <= float(errors) <= stays

    def noisy_rules(self, request: Any, group: str, sums: Arrays, counts: Mapping[str, int]) -> Rules:
        """The Hessian's noise is symmetric; both variances are one multiplier's."""
        hessian, (of_gradient, of_hessian) = sums["hessian"], sums["noise"].tolist()
        yield f"{group}/hessian must be symmetric", np.allclose(hessian, hessian.T, rtol=1e-9, atol=0.0)
        is_one = math.isclose(of_hessian, of_gradient * RADIUS**2 / 16, rel_tol=1e-6)
        yield f"{group}/noise must be variances of one multiplier", of_gradient > 0 and is_one


def _curved(group: str, hessian_PP: Float) -> Rules:
    """What holds of every sum of ``p (1 - p) v v^T``."""
    trace = float(np.trace(hessian_PP))
    yield f"{group}/hessian must be symmetric", np.abs(hessian_PP - hessian_PP.T).max() <= 1e-9 * abs(trace)
    least = float(np.linalg.eigvalsh((hessian_PP + hessian_PP.T) / 2.0)[0])
    yield f"{group}/hessian must have no negative eigenvalue", trace >= 0 and least >= -1e-9 * trace


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
        lr = self._lr(request, group)
        if spec.optimizer == "adamw":
            step = lr * ADAM_STEP * math.sqrt(came.size)
        else:
            num_weights = sum(value.size for value in lemof.part(request.model, group).values())
            noise = sgd.noise_multiplier * (math.sqrt(num_weights) + 10.0)
            expected = max(sgd.sample_rate * reach.counts[f"{self.split}/ehr"] / self.num_folds, 1.0)
            step = lr * spec.max_grad_norm * (reach.stays(f"{self.split}/ehr") + noise) / expected
            step *= math.exp(min(sgd.steps * math.log1p(lr * study.strategy.proximal_mu), 700.0))
        times, _ = self.public(reach.counts.get(self.counted(request, group), 0))
        return float(times * (np.linalg.norm(came) + sgd.steps * step))

    def exact_rules(self, request: Any, group: str, sums: Arrays, counts: Mapping[str, int]) -> Rules:
        """The mean is no more than a request may bring, and no further from what came than the steps of a round."""
        yield from self.noisy_rules(request, group, sums, counts)
        stays, spec = max(counts[group], 1), self.spec(request.study)
        num_steps = spec.num_epochs * math.ceil(stays / spec.batch_size)
        for name in self.forms(request, group):
            came = np.ravel(request.model[f"{group}/{name.removeprefix('weights/')}"]).astype(np.float64)
            most = self._carried(request, group, came, num_steps)
            moved = float(np.linalg.norm(np.ravel(sums[name]) / stays - came))
            is_near = moved <= (1.0 + 1e-4) * most + 1e-5 * float(np.linalg.norm(came))  # trained in float32
            yield f"mean of {group}/{name} must be what a round of training can reach", is_near

    def noisy_rules(self, request: Any, group: str, sums: Arrays, counts: Mapping[str, int]) -> Rules:
        """The mean is no more than a request may bring: the next one will bring it."""
        stays = max(counts[group], 1)
        for name in self.forms(request, group):
            is_small = bool((np.abs(sums[name]) <= stays * MOST).all())
            yield f"mean of {group}/{name} must hold no number above {MOST:g}", is_small

    def is_private(self, request: Any) -> bool:
        """Always: what it costs is planned with the rest."""
        return True

    def public(self, num_stays: int) -> tuple[int, int]:
        """The stays of a fold, and the patients of the whole split."""
        return num_stays // self.num_folds, num_stays

    def _carried(self, request: Any, group: str, came: Float, num_steps: int) -> float:
        """How far exact steps carry an array of weights at most, whatever the stays; not bounded for SGD without
        clipping, and where decay and proximal term overshoot."""
        spec, lr = self.spec(request.study), self._lr(request, group)
        is_clipped = spec.optimizer == "adamw" or spec.max_grad_norm > 0
        if not is_clipped or lr * (spec.weight_decay + request.study.strategy.proximal_mu) > 1:
            return math.inf
        step = lr * (ADAM_STEP * math.sqrt(came.size) if spec.optimizer == "adamw" else spec.max_grad_norm)
        longest = float(np.linalg.norm(came)) + num_steps * step
        return num_steps * (step + lr * spec.weight_decay * longest)

    def _lr(self, request: Any, group: str) -> float:
        """The learning rate of a request's round."""
        modality = lemof.modality_of(group)
        factor = 1.0 if modality == "attention" else encoder_class(modality, getattr(request.study, modality)).lr_factor
        return factor * training.round_lr(self.spec(request.study), request.number)


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
        complete: places of the scores that every stay of a group has.
    """

    shape: Callable[[Any], tuple[int, ...]]
    most_bins: int = 1
    num_noisy: int = 1
    is_equal: Callable[[Any], bool] = lambda request: True
    complete: Callable[[str], Sequence[int]] = lambda group: (0,)

    def forms(self, request: Any, group: str) -> dict[str, Form]:
        """The counts, whole ones unless noise was added."""
        return {"histogram": Form(self.shape(request), ("int32", "float64"))}

    def sums(self, view: View, group: str, part: Part) -> Arrays:
        """Whole counts."""
        return {"histogram": metrics.histograms(*part.each).reshape(self.shape(view.request))}

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

    def norm(self, request: Any, reach: Reach, group: str, array: str) -> float:
        """Stays times the bins that each is in, and noise."""
        assert self.share is not None
        each, most, size = math.sqrt(self.num_noisy), math.sqrt(self.most_bins), math.prod(self.shape(request))
        return reach.summed(self.share, self.counted(request, group), each=each, sensitivity=most, size=size)

    def noisy_rules(self, request: Any, group: str, sums: Arrays, counts: Mapping[str, int]) -> Rules:
        """Scores that no noisy histogram counts have none."""
        bins = sums["histogram"].reshape(-1, self.shape(request)[-1])
        yield f"{group}/histogram must hold noisy scores alone", not bins[self.num_noisy :].any()

    def exact_rules(self, request: Any, group: str, sums: Arrays, counts: Mapping[str, int]) -> Rules:
        """Bins count stays, each once for a score at most."""
        bins = sums["histogram"].reshape(-1, self.shape(request)[-1]).astype(np.float64)
        total, stays = bins.sum(axis=1), counts[group]
        yield f"{group}/histogram must count stays", are_whole(bins) and bool((bins >= 0).all())
        yield f"{group}/histogram must count each stay once for a score at most", bool((total <= stays).all())
        every = bool((total[list(self.complete(group))] == stays).all())
        yield f"{group}/histogram must count every stay for the scores that all have", every


@dataclass(frozen=True, kw_only=True)
class Placements(Release):
    """Sums over patients of squared placements, by the tables of the request and by the hospital's own; ``Part.each``
    is scores ``(V, N)`` and the edges of each. What is squared are ``C`` contrasts: the scores, and the differences of
    ``full`` and each other (``delong.py``).

    Exact sums leave with ``DIGITS`` significant digits. An interval needs no more, and all digits of a sum over few
    patients would fit one way alone to pair the bins of two scores: they would join histograms into rows.

    Under a budget each patient has one stay, long or short, and of that the squared differences of the noisy scores are
    added to one sum each, cut at 1; what else a variance takes follows from noisy histograms and from ``noise``, the
    variance of the noise in one of their coarse bins.

    Attributes:
        scores: the histograms that the tables are made of.
        full: number of the score that the others are compared with.
    """

    scores: Histogram
    full: int
    noisy_only: ClassVar[tuple[str, ...]] = ("noise",)

    def pairs(self, num_scores: int) -> list[tuple[int, int]]:
        """The score compared, and each of the others."""
        return [(self.full, other) for other in range(num_scores) if other != self.full]

    def forms(self, request: Any, group: str) -> dict[str, Form]:
        """Sums by contrast under the pooled tables, and by score under the hospital's own; numbers of patients."""
        num_scores, *_ = self.scores.shape(request)
        num_contrasts = num_scores + len(self.pairs(num_scores))
        return {
            "pooled": Form((3, num_contrasts)), "own": Form((3, num_scores)), "num_patients": Form((3,)),
            "noise": Form(()),
        }  # fmt: skip

    def sums(self, view: View, group: str, part: Part) -> Arrays:
        """Of every score and difference."""
        (scores, edges), label, patient = part.each, *self._stays(view, part)
        short, long = (metrics.histograms(scores[:, label == y], edges) for y in (0, 1))
        own = delong.contrasts(scores, edges, label, delong.tables(short, long))
        pooled = delong.contrasts(scores, edges, label, self._tables(view, group, len(scores)), self.pairs(len(scores)))
        sums, num_patients = delong.spread(pooled, label, patient)
        of_own, _ = delong.spread(own, label, patient)
        return {"pooled": rounded(sums), "own": rounded(of_own), "num_patients": num_patients}

    def noisy_sums(self, view: View, noise: Noise, parts: Mapping[str, Part]) -> Sequence[Arrays]:
        """Of the differences of the noisy scores, by outcome, with noise."""
        assert self.share is not None and self.scores.share is not None
        found, num_noisy = [], self.scores.num_noisy
        for group, part in parts.items():
            (scores, edges), (label, _) = part.each, self._stays(view, part)
            tables = self._tables(view, group, num_noisy)
            each = delong.contrasts(scores, edges, label, tables, self.pairs(num_noisy))[num_noisy:]
            squares = np.minimum(each**2, 1.0)
            found.append(np.stack([squares[:, label == y].sum(axis=1) for y in (0, 1)]))
        of_histograms = (noise.multiplier(self.scores.share) * math.sqrt(self.scores.most_bins)) ** 2
        sent = []
        for group, sums in zip(parts, noise.vector(self.share, np.stack(found), sensitivity=self._most), strict=True):
            pooled = np.zeros(self.forms(view.request, group)["pooled"].shape)
            start = self.scores.shape(view.request)[0]
            pooled[:2, start : start + num_noisy - 1] = sums
            sent.append({"pooled": pooled, "noise": np.asarray(of_histograms)})
        return sent

    def norm(self, request: Any, reach: Reach, group: str, array: str) -> float | None:
        """Stays times what each adds, and noise; the variance of noise to a rounding."""
        assert self.share is not None and self.scores.share is not None
        num_pairs = self.scores.num_noisy - 1
        if array == "noise":
            return 1.000001 * reach.noise[self.scores.share.key] ** 2 * self.scores.most_bins
        if array != "pooled":
            return None
        counted, size = self.counted(request, group), 2 * num_pairs * len(self.names(request))
        return reach.summed(self.share, counted, each=math.sqrt(num_pairs), sensitivity=self._most, size=size)

    def exact_rules(self, request: Any, group: str, sums: Arrays, counts: Mapping[str, int]) -> Rules:
        """A patient adds the square of a sum over stays, each from -1 to 1, or to 2 for a difference: no more than if
        one patient had all stays that the others leave. Products are held to the squares (Cauchy and Schwarz)."""
        stays, (num_short, num_long, num) = counts[group], sums["num_patients"].tolist()
        are_some = are_whole(sums["num_patients"]) and min(num_short, num_long) >= 1
        are_some = are_some and max(num_short, num_long) <= num <= min(num_short + num_long, stays)
        yield f"{group}/num_patients must count patients of the stays", are_some
        num_scores, slack = sums["own"].shape[1], 1.0 + 4.0 * 10.0**-DIGITS
        most = ((stays - num + 1) ** 2 + num - 1) * np.where(np.arange(sums["pooled"].shape[1]) < num_scores, 1.0, 4.0)
        for name in ("pooled", "own"):
            short_C, long_C, both_C = sums[name]
            squares, limit_C = np.stack([short_C, long_C]), slack * most[: len(short_C)]
            yield f"{group}/{name} must be what its stays can add up to", within(squares, 0.0, limit_C)
            is_product = (both_C**2 <= short_C * long_C * slack + ROUNDING).all()
            yield f"{group}/{name} must have no product above its squares", bool(is_product)

    def noisy_rules(self, request: Any, group: str, sums: Arrays, counts: Mapping[str, int]) -> Rules:
        """Noise has a variance, and what no noisy sum fills is 0."""
        yield f"{group}/noise must be a variance", float(sums["noise"]) > 0.0
        start = self.scores.shape(request)[0]
        filled = np.zeros(sums["pooled"].shape, bool)
        filled[:2, start : start + self.scores.num_noisy - 1] = True
        yield f"{group}/pooled must hold noisy sums alone", not sums["pooled"][~filled].any()

    @property
    def _most(self) -> float:
        """The sensitivity: 1 for each difference of the noisy scores in each of two populations."""
        return math.sqrt(len(lemof.POPULATIONS) * (self.scores.num_noisy - 1))

    @staticmethod
    def _stays(view: View, part: Part) -> tuple[NDArray[np.int8], NDArray[np.uint64]]:
        return view.stays.long_stay_N[part.rows], view.stays.patient_N[part.rows]

    @staticmethod
    def _tables(view: View, group: str, num_scores: int) -> delong.Tables:
        model = view.request.model
        return delong.Tables(model[f"placement/{group}"][:, :num_scores], model[f"auroc/{group}"][:num_scores])


def rounded(value: Float) -> Float:
    """With ``DIGITS`` significant digits.

    Example:
        >>> rounded(np.array([0.0123456, -98765.0, 0.0])).tolist()
        [0.0123, -98800.0, 0.0]
    """
    unit = 10.0 ** (np.floor(np.log10(np.where(value == 0.0, 1.0, np.abs(value)))) - DIGITS + 1)
    return np.asarray(np.round(value / unit) * unit)


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
