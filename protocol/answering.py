"""What an answer may bring: the groups and arrays that its stage declares, within what its stays can add up to.

A hospital holds its own answer against the declaration before it leaves (``client/door``); the coordinator holds it
again before it is kept, because a hospital can err as well. What one hospital counted at the census is the measure of
its later counts. Where noise was added a sum is held to the norm that the noisiest plan allows (``noise_limits.py``).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from lemof_model.errors import AnswerError
from lemof_model.study import MOST_FOLDS, Study
from protocol.messages import Answer, CensusRequest, Request
from protocol.noise_limits import most_reach
from protocol.release import Arrays, Release
from protocol.stage import Forms
from protocol.stages import CENSUS, STAGES

MAX_COUNT = 2**31 - 1
MOST_SUM = 1e100
"""No sum is near it, and its square is still a number."""


@dataclass(frozen=True)
class Counted:
    """What a hospital said at the census: stays by group, the groups that it held back, its cohort (salted with the
    plan), and the delta of its privacy budget, 0 without one."""

    counts: Mapping[str, int]
    too_small: tuple[str, ...] = ()
    cohort_digest: str = ""
    delta: float = 0.0

    def most(self, group: str) -> int:
        """No more stays than this are in a group of the census; of one that was held back no more than in all of its
        outcomes, and nothing is known where these were held back too. A group that it did not name is empty."""
        if group in self.counts:
            return self.counts[group]
        if group not in _counted_groups():
            return MAX_COUNT
        if group in self.too_small:
            whole = group.rpartition("/")[0]
            return self.most(whole) if whole in _counted_groups() else MAX_COUNT
        return 0


@lru_cache(maxsize=1)
def _counted_groups() -> frozenset[str]:
    """The groups of any census."""
    studies = [SimpleNamespace(study=Study(folds=folds)) for folds in (0, *range(2, MOST_FOLDS + 1))]
    return frozenset(group for release in CENSUS.releases for study in studies for group in release.groups(study))


def check_answer(answer: Answer, request: Request, counted: Counted | None = None) -> None:
    """Refuse an answer that breaks what its stage declares. ``counted`` is what this hospital said at the census, none
    before it.

    Raises:
        AnswerError: names the first rule that is broken.
    """
    _check_budget(answer, request, counted)
    stage = STAGES[request.stage]
    forms = stage.forms(request)
    releases = [one for one in stage.releases if not answer.delta or one.is_private(request)]
    named = {group: [one for one in releases if group in one.names(request)] for group in forms}
    _check_groups(answer, request, {group for group, of in named.items() if of})
    for group in answer.counts:
        _check_count(answer, request, group, named[group], counted)
    if answer.delta:
        counts = dict.fromkeys(_counted_groups(), 0) | dict((answer if counted is None else counted).counts)
        norms = stage.norms(request, most_reach(request.study, counts))
        expected = {group: {name for name in forms[group] if f"{group}/{name}" in norms} for group in answer.counts}
    else:
        norms = {}
        expected = {group: set().union(*(one.exact_arrays(request, group) for one in named[group]))
                    for group in answer.counts}  # fmt: skip
    _check_arrays(answer, request, forms, expected)
    _check_norms(answer, request, norms)
    for group in answer.counts:
        sums = {name: answer.sums[f"{group}/{name}"] for name in expected[group]}
        for rule, holds in _rules(named[group], answer, request, group, sums):
            if not holds:
                raise _broken(answer, f"{request.stage}: {rule}", "other sums")


def _check_budget(answer: Answer, request: Request, counted: Counted | None) -> None:
    """Refuse a price that is none, and a budget that the census did not tell of."""
    if not (math.isfinite(answer.epsilon) and answer.epsilon >= 0 and 0 <= answer.delta < 1):
        raise _broken(answer, "epsilon and delta must be those of a privacy budget", "no such numbers")
    if answer.epsilon and not answer.delta:
        raise _broken(answer, "epsilon must come with its delta", "none")
    if counted is not None and answer.delta != counted.delta:
        raise AnswerError(
            rule="Who has a privacy budget, and with which delta, is fixed at the census",
            got=f"another delta in {request.stage} from {answer.site}",
            fix="Nothing of the answer was used. Set the site file back to what it was, or start a new run.",
        )


def _check_groups(answer: Answer, request: Request, known: set[str]) -> None:
    """Refuse names of groups that are not on the list, or come twice."""
    left_out = answer.too_small
    named = [*answer.counts, *left_out]
    if strange := [name for name in named if not isinstance(name, str) or name not in known]:
        raise _broken(answer, f"{request.stage} must bring listed groups only", repr(strange[0])[:60])
    if len(set(named)) != len(named):
        raise _broken(answer, f"{request.stage} must name each group once, as sent or as too small", "one twice")


def _check_count(
    answer: Answer, request: Request, group: str, releases: list[Release], counted: Counted | None
) -> None:
    """Refuse a number of stays that is none, or is larger than at the census."""
    count = answer.counts[group]
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MAX_COUNT:
        raise _broken(answer, f"{request.stage} must count the stays of {group} in one whole number", "another value")
    if counted is None or isinstance(request, CensusRequest):
        return
    for one in releases:
        most = counted.most(one.counted(request, group))
        if count > (one.public(most)[0] if answer.delta else most):
            rule = f"{request.stage} must be about no more stays of {group} than the census counted"
            raise _broken(answer, rule, f"{count}")


def _check_arrays(answer: Answer, request: Request, forms: Forms, expected: Mapping[str, set[str]]) -> None:
    """Refuse arrays that are missing, not on the list, not as listed, or not finite."""
    wanted = {f"{group}/{name}" for group, names in expected.items() for name in names}
    if strange := sorted(map(str, answer.sums.keys() - wanted)):
        raise _broken(answer, f"{request.stage} must bring listed arrays only", repr(strange[0][:60]))
    if missing := sorted(wanted - answer.sums.keys()):
        raise _broken(answer, f"{request.stage} must bring every listed array", f"none of {missing[0]}")
    for group, names in expected.items():
        for name in sorted(names):
            key, form = f"{group}/{name}", forms[group][name]
            value = answer.sums[key]
            if not form.fits(value):
                raise _broken(answer, f"{request.stage} must bring {key} as {form}", _kind(value))
            if not (np.abs(value) <= MOST_SUM).all():
                rule = f"{request.stage} must bring finite numbers up to {MOST_SUM:g}"
                raise _broken(answer, rule, f"NaN, infinity or more in {key}")


def _check_norms(answer: Answer, request: Request, norms: Mapping[str, float]) -> None:
    """Refuse an array that is longer than clipping and noise let it be."""
    for key in sorted(answer.sums.keys() & norms.keys()):
        if not np.linalg.norm(np.ravel(answer.sums[key])) <= norms[key]:
            raise _broken(answer, f"{request.stage} must bring {key} within what clipping and noise allow", "more")


def _rules(
    releases: list[Release], answer: Answer, request: Request, group: str, sums: Arrays
) -> Iterator[tuple[str, bool]]:
    """What must hold of the sums of a group."""
    for one in releases:
        rules = one.noisy_rules if answer.delta else one.exact_rules
        yield from rules(request, group, sums, answer.counts)


def _broken(answer: Answer, rule: str, got: str) -> AnswerError:
    """The error of an answer that breaks a rule."""
    return AnswerError(
        rule=rule,
        got=f"{got} from {answer.site}",
        fix="Nothing of the answer was used. Look at that site: its data, its machine or its program errs. Where all "
        "do this, look at the plan: a learning rate that is too high does it.",
    )


def _kind(value: Any) -> str:
    """What a value is, without telling the value."""
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
