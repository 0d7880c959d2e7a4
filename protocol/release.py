"""What may leave a hospital. A release sums something over groups of patients; it is declared once (``stages.py``).

A release knows all that is to be known of it: the form of its arrays, the exact sum and the noisy one, what a stay adds
at most, and the norm that the door holds an array to. Its kinds are in ``kinds.py``. The door, the check of a request,
the plan of noise, the dry run, the report and the docs read what is declared, and nothing else.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lemof_model.stays import BatchOf, Rows, Stays
from lemof_model.study import Study

Float = NDArray[np.float64]
Arrays = Mapping[str, NDArray[Any]]
Minimum = Literal["patients", "cell"]
SUM = ("float64",)

MOST = 1e6
"""No array of a model holds more, in a request or in a hospital's mean; nor is a stay's loss larger."""
MOST_SCALING = 1e9
"""Of a feature's mean and scale."""
ROUNDING = 1e-9
"""Share by which a sum may leave its bounds."""
Rules = Iterator[tuple[str, bool]]
"""What must hold of a group's sums, and whether it does."""


class Form(NamedTuple):
    """Shape and possible types of an array."""

    shape: tuple[int, ...]
    dtypes: tuple[str, ...] = SUM

    def fits(self, value: Any) -> bool:
        """Whether a value is such an array."""
        return isinstance(value, np.ndarray) and value.shape == self.shape and value.dtype.name in self.dtypes

    def __str__(self) -> str:
        return f"{' or '.join(self.dtypes)} of shape {self.shape}"


class Share(NamedTuple):
    """The share of a split's privacy budget that a study spends on all its releases of one name."""

    split: str
    name: str
    share: float

    @property
    def key(self) -> str:
        """Its name in a plan of noise."""
        return f"{self.split}/{self.name}"


class Part(NamedTuple):
    """A group at a hospital: its stays, what each of them adds (a kind's business), whom the limit is held over where
    that is not its stays, and the exact sum where it is not simply added up from ``each``."""

    rows: Rows
    each: Any = None
    about: tuple[Rows, ...] = ()
    total: Arrays | None = None


@dataclass(frozen=True)
class Group:
    """Sums over the stays of ``rows``, before the door; how many patients that are the door counts itself.

    ``minimum`` says which limit of the site file it is under: ``patients`` for whatever something is fitted with,
    ``cell`` for counts, losses and histograms. It is held over each of ``about`` where there are some, and over what is
    left of a larger group, unless ``rest`` names another for that. ``counted_by`` names the array that counts the stays
    behind each element of the others: an element with too few is 0 in all of them. Under a budget ``public`` is the
    noisy number that stands for the stays, and the one for the limit.
    """

    name: str
    rows: Rows
    minimum: Minimum
    sums: Arrays = field(default_factory=dict)
    about: tuple[Rows, ...] = ()
    counted_by: str = ""
    rest: Minimum | None = None
    public: tuple[int, int] | None = None

    @property
    def num_stays(self) -> int:
        """The stays behind it, or the noisy number."""
        return len(self.rows) if self.public is None else self.public[0]


class View(Protocol):
    """A hospital as one request sees it (``client/door/view.py`` says what each is)."""

    name: str
    request: Any
    study: Study
    stays: Stays
    subgroups: Mapping[str, NDArray[np.bool_]]

    @property
    def levels(self) -> Mapping[str, Float]: ...  # noqa: D102
    def has(self, group: str) -> bool: ...  # noqa: D102
    def bounded(self, rows_NP: Float) -> Float: ...  # noqa: D102
    @property
    def levels_of_all(self) -> Mapping[str, Float]: ...  # noqa: D102
    def network(self, block: str) -> tuple[Any, BatchOf]: ...  # noqa: D102
    def head(self, name: str) -> tuple[Any, Any]: ...  # noqa: D102
    def omega_2(self, rows: Rows) -> Float: ...  # noqa: D102
    def scores(self, split: str) -> Mapping[str, Float]: ...  # noqa: D102


class Noise(Protocol):
    """What a release needs of a plan of noise. All that it draws is charged; ``counts`` are the noisy numbers of stays
    by group of the census, the only ones that may be used; ``train`` is a round of DP-SGD of some networks."""

    counts: dict[str, int]

    def multiplier(self, share: Share) -> float: ...  # noqa: D102
    def vector(self, share: Share, value: Float, *, sensitivity: float) -> Float: ...  # noqa: D102
    def symmetric(self, share: Share, value_PP: Float, *, sensitivity: float) -> Float: ...  # noqa: D102
    def train(self, release: Any, view: View, parts: Mapping[str, Part]) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Reach:
    """What sums and noise can reach under a plan of noise, worked out from the noisy counts alone. Noise of d
    coordinates is longer than ``sqrt(d) + 10`` standard deviations less than once in 1e21."""

    noise: Mapping[str, float]
    counts: Mapping[str, int]
    sgd: Mapping[str, Any]

    def stays(self, group: str) -> float:
        """No fewer than there are: the noisy count, and ten deviations of the noise of either label."""
        deviation = math.sqrt(2.0) * self.noise[f"{group.split('/')[0]}/census"]
        return self.counts.get(group, 0) + 20.0 * deviation + 2

    def summed(self, share: Share, group: str, *, each: float, sensitivity: float, size: int) -> float:
        """A sum to which every stay of a census group adds ``each`` at most, with noise on ``size`` coordinates."""
        return each * self.stays(group) + sensitivity * self.noise[share.key] * (math.sqrt(size) + 10.0)


def within(value: Any, low: Any, high: Any, *, stays: Any = 1) -> bool:
    """Whether a sum over some stays, each of which adds from ``low`` to ``high``, can be this; up to rounding.

    Example:
        >>> within(np.array([3.0, 6.0]), 0.0, 2.0, stays=3), within(np.array(6.1), 0.0, 2.0, stays=3)
        (True, False)
    """
    slack = ROUNDING * np.asarray(stays) * (1.0 + np.maximum(np.abs(low), np.abs(high)))
    return bool(((value >= np.multiply(stays, low) - slack) & (value <= np.multiply(stays, high) + slack)).all())


def are_whole(value: NDArray[Any]) -> bool:
    """Whether all are whole numbers, whatever their type."""
    return bool((value == np.rint(value)).all())


@dataclass(frozen=True, kw_only=True)
class Release(ABC):
    """One mechanism: what is summed, over which groups of patients.

    Attributes:
        groups: the names of its groups in the answer to a request; none where the request does not ask for it.
        blocks: the networks of the model that it trains: then those that a request names are its groups.
        part: a hospital's stays of one group, and what each of them adds.
        minimum: which limit of the site file its groups are under.
        rest: the same of what is left of a larger group, where it is another: of sums that cannot be subtracted the
            number of their stays alone can.
        share: what pays for it under a privacy budget; without one it is not released there.
        counted: the group of the census whose noisy number stands for the stays of a group.
        messages: in how many messages of a study it may be released under a budget.
        mechanisms: Gaussian mechanisms in one of them.
        needs_stays: whether there is nothing to release without any.
        noisy_only: arrays that leave under a budget alone.
    """

    part: Callable[[View, str], Part]
    minimum: Minimum
    groups: Callable[[Any], Sequence[str]] = lambda request: ()
    blocks: Callable[[Study], Sequence[str]] = lambda study: ()
    rest: Minimum | None = None
    share: Share | None = None
    counted: Callable[[Any, str], str] = lambda request, group: group
    messages: Callable[[Study], int] = lambda study: 1
    counted_by: str = ""
    mechanisms: ClassVar[int] = 1
    needs_stays: ClassVar[bool] = False
    noisy_only: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def forms(self, request: Any, group: str) -> dict[str, Form]:
        """The arrays of a group."""

    @abstractmethod
    def sums(self, view: View, group: str, part: Part) -> Arrays:
        """The exact arrays of a group."""

    @abstractmethod
    def noisy_sums(self, view: View, noise: Noise, parts: Mapping[str, Part]) -> Sequence[Arrays]:
        """The arrays of each group with noise, as one mechanism; charged."""

    @abstractmethod
    def norm(self, request: Any, reach: Reach, group: str, array: str) -> float | None:
        """The largest norm of an array under a budget; None if it never leaves there."""

    @abstractmethod
    def exact_rules(self, request: Any, group: str, sums: Arrays, counts: Mapping[str, int]) -> Rules:
        """What holds of the exact arrays of a group, whoever its patients are: a stay adds no more than the request
        alone tells. ``counts`` are those of the whole answer."""

    def noisy_rules(self, request: Any, group: str, sums: Arrays, counts: Mapping[str, int]) -> Rules:
        """What holds under a budget beside the norms."""
        yield from ()

    def names(self, request: Any) -> Sequence[str]:
        """The groups that a request asks for."""
        return [block for block in self.blocks(request.study) if block in request.blocks.split()] or self.groups(
            request
        )

    def exact(self, view: View) -> Iterator[Group]:
        """The groups as they are."""
        for group, part in self.parts(view):
            yield self.group(group, part, self.sums(view, group, part))

    def parts(self, view: View) -> Iterator[tuple[str, Part]]:
        """The groups that a request asks for and the hospital has, by name."""
        for group in filter(view.has, self.names(view.request)):
            part = self.part(view, group)
            if len(part.rows) or not self.needs_stays:
                yield group, part

    def group(self, name: str, part: Part, sums: Arrays) -> Group:
        """Exact sums of a group, for the door."""
        return Group(name, part.rows, self.minimum_of(name), sums, part.about, self.counted_by, self.rest)

    def noisy(self, view: View, noise: Noise) -> Iterator[Group]:
        """The groups with noise; without those that the noisy census found nobody in."""
        owned = filter(view.has, self.names(view.request))
        groups = [group for group in owned if noise.counts.get(self.counted(view.request, group), 1)]
        if not groups:
            return
        parts = {group: self.part(view, group) for group in groups}
        for (group, part), sums in zip(parts.items(), self.noisy_sums(view, noise, parts), strict=True):
            public = self.public(noise.counts[self.counted(view.request, group)])
            yield Group(group, part.rows, self.minimum_of(group), sums, part.about, public=public)

    def exact_arrays(self, request: Any, group: str) -> set[str]:
        """Names of the arrays of a group that come without a budget."""
        return set(self.forms(request, group)) - set(self.noisy_only)

    def norms(self, request: Any, reach: Reach) -> dict[str, float]:
        """The largest norm of every array under a budget, by ``group/name``."""
        named = [(group, array) for group in self.names(request) for array in self.forms(request, group)]
        found = {f"{group}/{array}": self.norm(request, reach, group, array) for group, array in named}
        return {name: norm for name, norm in found.items() if norm is not None}

    def is_private(self, request: Any) -> bool:
        """Whether a hospital with a budget releases it in answer to this request."""
        return self.share is not None and getattr(request, "number", 1) <= self.messages(request.study)

    def minimum_of(self, group: str) -> Minimum:
        """Which limit a group is under."""
        return self.minimum

    def public(self, num_stays: int) -> tuple[int, int]:
        """The noisy number of stays, and of patients: one has one stay."""
        return num_stays, num_stays
