"""A logistic learner fitted over rounds: the sites send sums, the server takes Newton's steps (method, section 3)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemof_model import logistic
from lemof_model.logistic import LogisticSums, Newton
from lemof_model.study import Study
from server.run_store import Round


class NewtonStage:
    """A Newton search over rounds. Its sites are fixed at the first step; when one leaves (or, where the search rides
    along, comes back), it starts again with the new set from the current coefficients.

    With ``noisy_start`` the search begins at these weights of the inputs (intercept 0), which are what is best when
    noise hides everything else. Sums with noise, of a hospital with a privacy budget, allow one step.
    """

    def __init__(self, name: str, num_inputs: int, study: Study, *, noisy_start: Sequence[float] | None = None) -> None:
        self.name = name
        self.search: Newton = logistic.start(num_inputs, study.logistic.c)
        if noisy_start is not None:
            self.search = dataclasses.replace(self.search, theta=np.append(noisy_start, 0.0))
        self.members: list[str] | None = None
        self._asked = self.search.theta
        self._reply: Round | None = None
        self._is_separated = False
        self._is_noisy = False
        self._max_steps = study.logistic.max_steps

    @property
    def is_done(self) -> bool:
        """Converged, or out of steps."""
        return self.search.is_done or self.search.num_steps >= self._max_steps

    def advance(self, reply: Round, group: str) -> None:
        """Take the step that the group's sums give, unless the search has ended."""
        if self.is_done:
            return
        members = reply.answered(group)
        if self.members is not None and members != self.members:
            self.search = self.search.without_history()
        self.members, self._asked, self._reply = members, self.search.theta, reply
        self._is_noisy = bool(_variance(reply.sums, group).any())
        self.search = _next(self.search, _logistic_sums(reply.sums, group), _variance(reply.sums, group))
        self._is_separated = not self._is_noisy and float(reply.sums[f"{group}/num_errors"]) == 0

    def without(self, site: str, group: str) -> NDArray[np.float64]:
        """Coefficients without one site: a Newton step from the last point asked, with the site's sums taken away. The
        stage must have kept the sites' own sums."""
        assert self._reply is not None
        total, own = self._reply.sums, self._reply.sites[site].sums
        parts = zip(_logistic_sums(total, group), _logistic_sums(own, group), strict=True)
        others = set(self._reply.answered(group)) - {site}
        variance = sum((_variance(self._reply.sites[s].sums, group) for s in others), np.zeros(2))
        return _next(Newton(self._asked, self.search.ridge), LogisticSums(*(a - b for a, b in parts)), variance).theta

    def mean(self, name: str, group: str) -> NDArray[np.float64]:
        """Mean over the stays of what else was summed with the last step."""
        assert self._reply is not None
        return np.asarray(self._reply.sums[f"{group}/{name}"] / self._reply.counts[group])

    def describe(self) -> dict[str, Any]:
        """What the card says of the search."""
        theta = self.search.found
        return {
            "coef": theta[:-1].tolist(), "intercept": float(theta[-1]), "num_steps": self.search.num_steps,
            "converged": self.search.is_done and not self._is_noisy, "noisy": self._is_noisy,
            "separated": self._is_separated, "sites": self.members,
        }  # fmt: skip


def _next(search: Newton, total: LogisticSums, variance: NDArray[np.float64]) -> Newton:
    """The search after its next step."""
    if variance.any():
        return search.advance_noisy(total, *np.sqrt(variance).tolist())
    return search.advance(total)


def _variance(sums: Mapping[str, NDArray[Any]], group: str) -> NDArray[np.float64]:
    """Variance of the noise in gradient and Hessian; 0 from hospitals without a budget."""
    return np.asarray(sums.get(f"{group}/noise", np.zeros(2)), np.float64)


def _logistic_sums(sums: Mapping[str, NDArray[Any]], group: str) -> LogisticSums:
    """The sums of a logistic learner in an answer."""
    return LogisticSums(*(np.asarray(sums[f"{group}/{part}"], np.float64) for part in LogisticSums._fields))
