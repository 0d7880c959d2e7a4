"""One question to every hospital, declared once: what is asked, what is read of the model, and what leaves.

Everything that has to know of a stage reads its declaration (``stages.py``): the hospital's engine and door, the check
of a request, the plan of noise, the dry run, the report's audit, and a table of the docs.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lemof_model.errors import DoorError
from lemof_model.lemof import Model
from lemof_model.study import Study
from protocol.kinds import Newton, Trained
from protocol.messages import Request
from protocol.release import Form, Group, Noise, Reach, Release, View

Forms = dict[str, dict[str, Form]]
"""The arrays of each group that an answer may have."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One question to every hospital.

    Attributes:
        request: its message; the name of the stage is ``request.stage``.
        does: what is done, for people, in a few words for each of ``probes``.
        says: what leaves a hospital, for people.
        reads: the parts of the model that an answer needs: all of each, or none of the answer.
        releases: what leaves.
        finds: the parts of the model that are made of the answers: first words of their names.
        begin: these parts before any answer, by the study and the model so far; of learners the release says it.
        times: how often a study asks at most; the second argument is the number of Newton steps.
        probes: fields of the requests that show all of it in a dry run, with every value that they may have.
    """

    request: type[Request]
    does: tuple[str, ...]
    says: str
    reads: tuple[str, ...]
    releases: tuple[Release, ...]
    finds: tuple[str, ...] = ()
    begin: Callable[[Study, Model], Model] = lambda study, model: {}
    times: Callable[[Study, int], int] = lambda study, num_steps: 1
    probes: tuple[Mapping[str, Any], ...] = ({},)

    def __post_init__(self) -> None:
        learnt = [*self.blocks(Study()), *(learner.theta for learner in self.learners.values())]
        unknown = [name for name in learnt if name.split("/")[0] not in self.finds]
        problems = [] if all(self.does) and len(self.does) == len(self.probes) else ["does must tell of each probe"]
        problems += [] if self.says else ["says must tell what leaves a hospital"]
        problems += [] if self.releases else ["releases must name what leaves"]
        problems += [f"finds must name what is learnt, got none of {', '.join(unknown)}"] if unknown else []
        if problems:
            raise TypeError(f"stage {self.name}: {'; '.join(problems)}")

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.request.stage

    @property
    def trained(self) -> Trained | None:
        """What tells how its networks are trained, if it trains any."""
        return next((release for release in self.releases if isinstance(release, Trained)), None)

    def blocks(self, study: Study) -> tuple[str, ...]:
        """The networks that it trains."""
        return tuple(block for release in self.releases for block in release.blocks(study))

    @property
    def learners(self) -> dict[str, Newton]:
        """The logistic learners that it fits, by their group."""
        return {str(*r.groups(None)): r for r in self.releases if isinstance(r, Newton)}

    def untrained(self, study: Study, model: Model) -> Model:
        """What it finds, before any answer: networks of the study's seed, and learners at their start."""
        first = {learner.theta: learner.first(has_indicator=True) for learner in self.learners.values()}
        return {**self.begin(study, model), **first}

    def doing(self, request: Any) -> str:
        """What is done at a request, in a few words."""
        said = zip(self.probes, self.does, strict=True)
        return next(does for probe, does in said if all(getattr(request, name) == probe[name] for name in probe))

    def forms(self, request: Any) -> Forms:
        """What the answer to a request may hold: groups, and below each its arrays. It is worked out from the study,
        the schema and the few public values of the request, never from what was computed; so no array has an axis whose
        length depends on how many stays there are, and an answer has one possible size.

        Raises:
            DoorError: the request asks for something that no answer may hold.
        """
        self._check_fields(request)
        found: Forms = {}
        for release in self.releases:
            for group in release.names(request):
                found[group] = found.get(group, {}) | release.forms(request, group)
        return found

    def _check_fields(self, request: Any) -> None:
        """Refuse blocks and values that are not declared; after it a request is one of the probes."""
        known = {name: [probe[name] for probe in self.probes] for name in self.probes[0]}
        asked = {name: [getattr(request, name)] for name in known}
        if blocks := self.blocks(request.study):
            known["blocks"], asked["blocks"] = list(blocks), request.blocks.split()
        for name, values in asked.items():
            if strange := sorted(set(values) - set(known[name])):
                raise DoorError(
                    rule=f"{name} of {self.name} must be among {', '.join(known[name])}",
                    got=f"{', '.join(strange)!r} from the coordinator",
                    fix="Nothing was sent. The plan asks for something that this release does not let out.",
                )

    def exact(self, view: View) -> list[Group]:
        """The groups of a hospital without a budget, before the door."""
        return _joined(group for release in self.releases for group in release.exact(view))

    def noisy(self, view: View, noise: Noise) -> list[Group]:
        """The groups of one with a budget, with noise; charged."""
        private = (release for release in self.releases if release.is_private(view.request))
        return _joined(group for release in private for group in release.noisy(view, noise))

    def norms(self, request: Any, reach: Reach) -> dict[str, float]:
        """The largest norm of every array that an answer under a budget may hold, by ``group/name``."""
        private = [release for release in self.releases if release.is_private(request)]
        return {name: norm for release in private for name, norm in release.norms(request, reach).items()}


def by_name(stages: Iterable[Stage]) -> dict[str, Stage]:
    """Stages by their names; several methods may have one, and then it is the same.

    Raises:
        TypeError: two are declared under one name.
    """
    found: dict[str, Stage] = {}
    for stage in stages:
        if found.setdefault(stage.name, stage) is not stage:
            raise TypeError(f"stage {stage.name}: it must be declared once, got two of this name")
    return found


def _joined(groups: Iterable[Group]) -> list[Group]:
    """Groups of one name as one: several releases may be about the same stays."""
    found: dict[str, Group] = {}
    for group in groups:
        before = found.get(group.name)
        found[group.name] = replace(before, sums={**before.sums, **group.sums}) if before else group
    return list(found.values())
