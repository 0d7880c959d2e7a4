"""Every message that may cross the border between coordinator and hospital.

A request is one frozen dataclass per stage. An answer is one class for all stages, because whatever the stage, what
leaves a hospital is the same thing: named arrays that are sums over its patients, and counts. Each message turns into
three plain dicts (arrays, metrics, config) and back; ``records.py`` on either side makes Flower records of them.

Keys of an answer are ``group/name``: what is summed, below the group of patients that it is summed over.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, cast

from numpy.typing import NDArray

from lemof_model.errors import VersionError
from lemof_model.study import Study
from protocol import compact
from protocol.plan import study_from_json

WIRE_VERSION = 4
NO_RUN = "0" * 32
"""The run of a request that no coordinator asks, as in a dry run."""
HEADER = ("stage", "site", "plan_digest", "release", "source_digest")  # what every reply says of itself

Arrays = Mapping[str, NDArray[Any]]


class Release(NamedTuple):
    """What a side runs: version, digest of the source that decides, and wire version."""

    version: str
    source_digest: str
    wire_version: int = WIRE_VERSION

    def __str__(self) -> str:
        return f"lemof {self.version} (source {self.source_digest[:12]}, wire {self.wire_version})"


def require_same_release(hospital: Release, coordinator: Release) -> None:
    """Refuse another release before anything of a message is read.

    Example:
        >>> require_same_release(Release("1.0", "aa"), Release("1.1", "bb"))
        Traceback (most recent call last):
        lemof_model.errors.VersionError: The hospital must run the coordinator's release, got lemof 1.0 (source aa, ...

    Raises:
        VersionError: version, source or wire version differ; names both sides and what to do.
    """
    if hospital == coordinator:
        return
    remedy = "Both say the same version, so one of the two was altered: git status tells which. Install it anew there."
    if hospital.version != coordinator.version:
        remedy = f"At the hospital run: git fetch --tags && git checkout v{coordinator.version} && make install"
    raise VersionError(
        rule="The hospital must run the coordinator's release",
        got=f"{hospital} at the hospital and {coordinator} at the coordinator",
        fix=f"Nothing was computed. {remedy}",
    )


class Packet(NamedTuple):
    """The three plain dicts that a message becomes: arrays, numbers, and texts."""

    arrays: dict[str, NDArray[Any]]
    metrics: dict[str, int | float]
    config: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the coordinator asks of one hospital. ``model`` holds every parameter known so far, under the names of
    ``lemof.py``; so any request can be answered by a site that has only its cohort. ``num_sites`` states how many sites
    will stand behind the smallest total that is made of the answers; a census does not know, and states the asked.
    ``run`` is the coordinator's run, the same one when it is resumed: hexadecimal digits that nothing is made of but
    what a hospital remembers (``client/door/told.py``)."""

    stage: ClassVar[str]

    study: Study
    round: int
    num_sites: int = 0
    run: str = NO_RUN
    release: str = ""
    source_digest: str = ""
    wire_version: int = WIRE_VERSION
    model: Arrays = field(default_factory=dict)

    def to_packet(self) -> Packet:
        """Turn the request into three plain dicts."""
        config = {"stage": self.stage, "study": self.study.to_json(), "plan_digest": self.study.digest}
        metrics: dict[str, int | float] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if isinstance(value, int):
                metrics[f.name] = int(value)
            elif isinstance(value, str):
                config[f.name] = value
        return Packet(dict(self.model), metrics, config)


@dataclass(frozen=True, kw_only=True)
class CensusRequest(Request):
    """Who takes part: counts by split, label and modality."""

    stage = "census"
    schema_digest: str


@dataclass(frozen=True, kw_only=True)
class StatisticsRequest(Request):
    """Count, x and x^2 of every numeric feature on ``train``."""

    stage = "statistics"


@dataclass(frozen=True, kw_only=True)
class EncodersRequest(Request):
    """Round ``number`` of training of the blocks named (``ecg``, ``ehr``), and the tuning loss of the weights sent."""

    stage = "encoders"
    blocks: str = "ecg ehr"
    number: int = 1


@dataclass(frozen=True, kw_only=True)
class MetaRequest(Request):
    """One Newton step of both modality meta-learners (eq. 4) on ``stack``, and the sums of their inputs."""

    stage = "meta"


@dataclass(frozen=True, kw_only=True)
class ImportanceRequest(Request):
    """Sums of absolute Shapley values of the level predictions (eq. 5) on ``stack``."""

    stage = "importance"


@dataclass(frozen=True, kw_only=True)
class AttentionRequest(Request):
    """Round ``number`` of the cross-fit attention heads named (eq. 10-12); omega_1's Newton sums ride along."""

    stage = "attention"
    blocks: str = "attention/0 attention/1"
    number: int = 1


@dataclass(frozen=True, kw_only=True)
class FinalRequest(Request):
    """One Newton step of the integrated decision (eq. 13) on ``stack``."""

    stage = "final"


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest(Request):
    """Score histograms by label on ``split`` (``tuning`` first, ``held_out`` once)."""

    stage = "evaluation"
    split: str


@dataclass(frozen=True, kw_only=True)
class IntervalsRequest(Request):
    """Sums over the ``held_out`` patients of squared placements, by the tables of the pooled histograms."""

    stage = "intervals"


REQUESTS: dict[str, type[Request]] = {
    cls.stage: cls
    for cls in (
        CensusRequest,
        StatisticsRequest,
        EncodersRequest,
        MetaRequest,
        ImportanceRequest,
        AttentionRequest,
        FinalRequest,
        EvaluationRequest,
        IntervalsRequest,
    )
}


CARRIED = (int, bool, str)
for _request in REQUESTS.values():
    _strange = [f.name for f in dataclasses.fields(_request) if f.type not in (*CARRIED, Study, Arrays)]
    if _strange:
        raise TypeError(f"fields of {_request.__name__} must be int, bool or str, got {', '.join(_strange)}")


def release_of(packet: Packet) -> Release:
    """The release that a packet says it comes from, fit to be shown: what is no version or digest is ``?``."""
    version, digest = (str(packet.config.get(name, "")) for name in ("release", "source_digest"))
    wire_version = packet.metrics.get("wire_version")
    return Release(
        version if re.fullmatch(r"[0-9]+(\.[0-9]+)*([a-z]+[0-9]+)?", version) else "?",
        digest if re.fullmatch(r"[0-9a-f]{64}", digest) else "?",
        wire_version if isinstance(wire_version, int) else 0,
    )


def request_from_packet(packet: Packet) -> Request:
    """Read a request of the same release.

    Raises:
        VersionError: a plan that does not have the digest stated with it.
        DoorError: a plan that is none.
    """
    cls = REQUESTS[packet.config["stage"]]
    study = study_from_json(packet.config["study"])
    if study.digest != packet.config["plan_digest"]:
        raise VersionError(
            rule=f"Plan digest must be {study.digest[:12]}",
            got=f"{packet.config['plan_digest'][:12]}",
            fix="Install the same lemof release on both sides.",
        )
    values: dict[str, Any] = {"study": study, "model": packet.arrays}
    for f in dataclasses.fields(cls):
        if f.type is bool:
            values[f.name] = bool(packet.metrics[f.name])
        elif f.type is int:
            values[f.name] = int(packet.metrics[f.name])
        elif f.type is str:
            values[f.name] = packet.config[f.name]
    return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a hospital sends back: sums over its patients by ``group/name``, stays counted by group, and the groups
    that the door left out because they hold too few patients. ``cohort_digest`` is salted with the plan: it tells that
    a cohort is still the same one, and nothing else; a site with a privacy budget does not even tell that, but how much
    ``epsilon`` at ``delta`` it has spent so far, in all studies. A ``delta`` of 0 says that there is no budget."""

    stage: str
    round: int
    site: str
    plan_digest: str
    release: str = ""
    source_digest: str = ""
    wire_version: int = WIRE_VERSION
    cohort_digest: str = ""
    sums: Arrays
    counts: Mapping[str, int]
    too_small: tuple[str, ...] = ()
    epsilon: float = 0.0
    delta: float = 0.0

    def to_packet(self) -> Packet:
        """Turn the answer into three plain dicts."""
        arrays, table = compact.pack(self.sums)
        config = {
            "kind": "answer",
            **_header(self),
            "cohort_digest": self.cohort_digest,
            "too_small": json.dumps(self.too_small),
            "compact": json.dumps(table),
        }
        metrics: dict[str, int | float] = {f"count/{name}": int(n) for name, n in self.counts.items()}
        metrics |= {name: getattr(self, name) for name in ("round", "wire_version", "epsilon", "delta")}
        return Packet(arrays, metrics, config)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A hospital that does not answer: why, in words for the coordinator, and with the exit status of the error."""

    stage: str
    round: int
    site: str
    code: int
    reason: str
    plan_digest: str = ""
    release: str = ""
    source_digest: str = ""
    wire_version: int = WIRE_VERSION

    def to_packet(self) -> Packet:
        """Turn the refusal into three plain dicts."""
        config = {"kind": "refusal", "reason": self.reason} | _header(self)
        return Packet({}, {"round": self.round, "code": self.code, "wire_version": self.wire_version}, config)


def _header(message: Answer | Refusal) -> dict[str, str]:
    """What every reply says of itself."""
    return {name: getattr(message, name) for name in HEADER}


def answer_from_packet(packet: Packet) -> Answer | Refusal:
    """Read an answer or a refusal."""
    config, metrics = packet.config, packet.metrics
    shared: dict[str, Any] = {
        name: config[name] for name in ("stage", "site", "plan_digest", "release", "source_digest")
    }
    shared |= {name: int(metrics[name]) for name in ("round", "wire_version")}
    if config["kind"] == "refusal":
        return Refusal(**shared, code=int(metrics["code"]), reason=config["reason"])
    return Answer(
        **shared,
        cohort_digest=config["cohort_digest"],
        sums=compact.unpack(packet.arrays, json.loads(config["compact"])),
        counts={name.removeprefix("count/"): cast(int, n) for name, n in metrics.items() if name.startswith("count/")},
        too_small=tuple(json.loads(config["too_small"])),
        epsilon=float(metrics["epsilon"]),
        delta=float(metrics["delta"]),
    )
