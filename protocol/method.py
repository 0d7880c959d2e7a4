"""A method is a list of stages, in the order in which they are taken; LeMoF is one (``stages.py``).

Whoever conducts a method says how each stage is done there: the coordinator by rounds over hospitals
(``server/coordinator.py``), a hospital on its own rows (``client/cohort/alone.py``). The dry run and the door's tests
walk the list untrained. Another method, a fusion or a single modality, is another list (``docs/extending.md``).
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from lemof_model.features import schema_digest
from lemof_model.study import FEW_SITES, Study
from protocol.messages import Request
from protocol.release import Release
from protocol.source import source_digest
from protocol.stage import Stage
from protocol.stages import EVALUATION, INTERVALS, LEMOF

Method = Sequence[Stage]
Kind = type[Release]
Step = TypeVar("Step")

LEARNING: Method = tuple(stage for stage in LEMOF if stage not in (EVALUATION, INTERVALS))
"""Every parameter of LeMoF, from ``train`` and ``stack``."""


def steps_of(
    method: Method, by_name: Mapping[str, Step], by_kind: Mapping[Kind, Callable[[Stage], Step]], *, who: str
) -> tuple[Step, ...]:
    """How a conductor does each stage: in a way of its own, or in that of the first of its kinds of release.

    Raises:
        TypeError: names a stage that the conductor cannot do, or one that reads what none before it finds.
    """
    steps: list[Step] = []
    found: set[str] = set()
    for stage in method:
        found |= set(stage.finds)
        if missing := [part for part in stage.reads if part not in found]:
            raise TypeError(f"stage {stage.name}: it reads {', '.join(missing)}, which no stage before it finds")
        own = [by_name[stage.name]] if stage.name in by_name else []
        kinds = [kind for kind in by_kind if any(isinstance(release, kind) for release in stage.releases)]
        if not own and not kinds:
            raise TypeError(f"stage {stage.name}: {who} must know how to do it, by name or by a kind of its releases")
        steps += own or [by_kind[kinds[0]](stage)]
    return tuple(steps)


def untrained(method: Method, study: Study) -> dict[str, Any]:
    """The model that a method finds, before any answer."""
    model: dict[str, Any] = {}
    for stage in method:
        model |= stage.untrained(study, model)
    return model


def times_asked(study: Study, *, is_private: bool = False, method: Method = LEMOF) -> dict[str, int]:
    """How often each stage is asked at most, as long as no hospital leaves; sums of a hospital with a privacy budget
    allow one Newton step."""
    num_steps = 1 if is_private else study.logistic.max_steps
    return {stage.name: stage.times(study, num_steps) * len(stage.probes) for stage in method}


def requests_of(study: Study, *, is_private: bool = False, method: Method = LEMOF) -> Iterator[tuple[Request, int]]:
    """A study's requests in order, one of a kind, and how often it may come; each with all the model it needs,
    untrained. ``num_sites`` is that of a study with enough hospitals."""
    model, times = untrained(method, study), times_asked(study, is_private=is_private, method=method)
    digests = {"source_digest": source_digest(), "schema_digest": schema_digest()}
    for stage in method:
        read = {name: value for name, value in model.items() if name.split("/")[0] in stage.reads}
        known: dict[str, Any] = {"study": study, "round": 0, "num_sites": FEW_SITES, "model": read}
        fields = [field.name for field in dataclasses.fields(stage.request)]
        always = {**digests, "blocks": " ".join(stage.blocks(study))}
        known |= {name: value for name, value in always.items() if name in fields}
        for probe in stage.probes:
            yield stage.request(**known, **probe), times[stage.name] // len(stage.probes)
