"""The smallest studies that pass through every stage, and hospitals to run them on."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lemof_model.study import AttentionSpec, EncoderSpec, EvaluationSpec, SplitSpec, Study, TrainingSpec
from protocol.messages import Answer, Refusal, Request
from server.blocks import Model
from server.coordinator import run_study
from server.run_store import RunStore
from server.transport import Transport
from simulation.local_transport import LocalTransport, memory_of

COMPARED_FILES = ("plan.yaml", "model/lemof.safetensors", "model/card.json", "metrics.json", "importance.json")


def tiny_study(**changes: Any) -> Study:
    """Two encoder rounds and two attention rounds of networks of width 8, without dropout."""
    training = TrainingSpec(num_rounds=2, batch_size=16, client_lr=3e-3)
    study = Study(
        name="tiny",
        few_sites="allow",
        ecg=EncoderSpec("resnet", {"width": 8, "num_tokens": 4, "dropout": 0, "augment": 0}),
        ehr=EncoderSpec("ft_transformer", {"width": 8, "num_heads": 2, "attention_dropout": 0, "ffn_dropout": 0}),
        splits=SplitSpec(train=0.3, stack=0.3, tuning=0.2, held_out=0.2),
        encoders=training,
        attention=AttentionSpec(width=4, dropout=0.0, training=training),
        evaluation=EvaluationSpec(num_bins=40),
    )
    return dataclasses.replace(study, **changes)


def simulated(sites: Sequence[Path], out: Path, attendance: Path | None = None) -> LocalTransport:
    """Hospitals in this process, which remember what they told within the run folder alone, as those of ``lemof-sim``
    do; so the same ones take part in other runs."""
    return LocalTransport(sites, attendance, memory=memory_of(out))


def run_tiny(study: Study, transport: Transport | Sequence[Path], out: Path, resume: bool = False) -> Model:
    """Run a study over a transport or over site files; returns the model."""
    if isinstance(transport, Sequence):
        transport = simulated(transport, out)
    return run_study(study, transport, RunStore(out, resume))


def outcome(out: Path, *more: str) -> dict[str, bytes]:
    """The files of a run folder that equal runs have in common."""
    return {name: (out / name).read_bytes() for name in (*COMPARED_FILES, *more)}


class Watched:
    """A transport in front of another that sees every round go by and may answer in its place.

    Attributes:
        asked: ``(stage, round, sites)`` of every round.
        requests: the requests, in order.
    """

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.asked: list[tuple[str, int, tuple[str, ...]]] = []
        self.requests: list[Request] = []

    def sites(self) -> list[str]:
        return self.inner.sites()

    def ask(self, stage: str, requests: Mapping[str, Request]) -> dict[str, Answer | Refusal]:
        request = next(iter(requests.values()))
        self.asked.append((stage, request.round, tuple(requests)))
        self.requests.append(dataclasses.replace(request, model=dict(request.model)))  # the model is still growing
        self.before(stage, request)
        answers = self.inner.ask(stage, requests)
        return {site: self.instead(site, answer) for site, answer in answers.items()}

    def before(self, stage: str, request: Request) -> None:
        """Raise to stop the study before this round."""

    def instead(self, site: str, answer: Answer | Refusal) -> Answer | Refusal:
        """What comes back in place of a site's answer."""
        return answer


def refusal(answer: Answer | Refusal) -> Refusal:
    """A site that does not answer this round."""
    return Refusal(stage=answer.stage, round=answer.round, site=answer.site, code=7, reason="the line is dead")
