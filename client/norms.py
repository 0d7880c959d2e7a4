"""How large a private array can be: what clipping lets its stays add up to, and noise beyond what ever comes.

The door holds every array of a hospital with a budget against this, so that a sum that was not clipped, or got noise of
another scale, does not leave. Worked out from the request and the plan of noise alone: no number of stays is used but
the noisy ones. Noise of d coordinates is longer than ``sqrt(d) + 10`` standard deviations less than once in 1e21.
"""

import math
from dataclasses import dataclass

import numpy as np

from client.accounting import Schedule
from client.allowed import forms_of
from client.privacy import LOSS_LIMIT, RADIUS
from lemof_model import lemof
from lemof_model.encoders.registry import encoder_class
from lemof_model.membership import LEARNERS
from lemof_model.training import round_lr
from protocol.messages import (
    AttentionRequest,
    EncodersRequest,
    EvaluationRequest,
    ImportanceRequest,
    MetaRequest,
    Request,
    StatisticsRequest,
)

NUM_DEVIATIONS = 10.0
ADAM_STEP = 4.0
"""A step of Adam moves a coordinate by no more than 3.2 times the learning rate (0.1 / sqrt(0.001))."""


def norms_of(request: Request, schedule: Schedule) -> dict[str, float]:
    """The largest norm of every array that an answer under this budget may hold, by ``group/name``.

    There is none for what such a hospital never sends: feature sums, bootstrap draws, diseases and subgroups.
    """
    limits, found = _Limits(schedule), {}
    for group, forms in forms_of(request).items():
        for name, form in forms.items():
            if not (isinstance(request, StatisticsRequest) or name == "bootstrap" or ":" in group):
                found[f"{group}/{name}"] = _norm(request, limits, group, name, math.prod(form.shape))
    return found


@dataclass(frozen=True)
class _Limits:
    """What sums and noise can reach under a plan of noise."""

    schedule: Schedule

    def stays(self, split: str, modality: str = "ehr") -> float:
        """No fewer than there are: the noisy count, and ten deviations of the noise of either label."""
        deviation = math.sqrt(2.0) * self.schedule.noise[f"{split}/census"]
        return self.schedule.counts[f"{split}/{modality}"] + 2 * NUM_DEVIATIONS * deviation + 2

    def summed(self, split: str, modality: str, name: str, *, each: float, sensitivity: float, size: int) -> float:
        """A sum to which a stay adds ``each`` at most, with noise on ``size`` coordinates."""
        deviation = sensitivity * self.schedule.noise[f"{split}/{name}"]
        return each * self.stays(split, modality) + deviation * (math.sqrt(size) + NUM_DEVIATIONS)


def _norm(request: Request, limits: _Limits, group: str, name: str, size: int) -> float:
    """The largest norm of one array."""
    if isinstance(request, EncodersRequest | AttentionRequest):
        if group.startswith("tuning/"):
            modality = "ecg" if group == "tuning/ecg" else "ehr"
            most = {"each": LOSS_LIMIT, "sensitivity": LOSS_LIMIT * math.sqrt(2.0)}
            return limits.summed("tuning", modality, "losses", **most, size=2)
        if name.startswith("weights/"):
            return _weights(request, limits, group, name.removeprefix("weights/"), size)
    if isinstance(request, EvaluationRequest):
        return _histogram(request, limits, group, size)
    modality = group if isinstance(request, MetaRequest | ImportanceRequest) else "ehr"
    if isinstance(request, ImportanceRequest):
        theta, background = request.model[f"meta/{modality}"], request.model[f"background/{modality}"]
        each = float(np.abs(theta[:-1]).max() * (RADIUS + np.linalg.norm(background)))
        return limits.summed("stack", modality, "importance", each=each, sensitivity=each, size=size)
    if name in ("loss", "num_errors"):
        return 0.0
    each = RADIUS**2 / 4 if name == "hessian" else RADIUS
    learner = {"ecg": "meta", "ehr": "meta"}.get(group, group)
    if name == "noise":  # its variances, to a rounding
        multiplier = limits.schedule.noise[f"stack/{learner}"]
        return 1.000001 * multiplier**2 * math.hypot(RADIUS**2, RADIUS**4 / 16)
    return limits.summed("stack", modality, learner, each=each, sensitivity=each, size=size)


def _histogram(request: EvaluationRequest, limits: _Limits, group: str, size: int) -> float:
    """Score histograms of one group, or margins of one side."""
    first, what, _ = group.split("/")
    if first == "membership":
        split = LEARNERS[what] if group.endswith("members") else "held_out"
        return limits.summed(split, "ehr", "membership", each=1.0, sensitivity=math.sqrt(2.0), size=size)
    num_variants, num_histograms = len(lemof.VARIANTS), len(lemof.VARIANTS) * len(lemof.POPULATIONS)
    each = math.sqrt(num_variants)
    return limits.summed(
        request.split, "ehr", "evaluation", each=each, sensitivity=math.sqrt(num_histograms), size=size
    )


def _weights(request: EncodersRequest | AttentionRequest, limits: _Limits, block: str, name: str, size: int) -> float:
    """Weights times stays: those that came, and as far as the optimiser can carry them in one round."""
    study, is_head = request.study, request.stage == "attention"
    spec = study.attention.training if is_head else study.encoders
    split, sgd = ("stack" if is_head else "train"), limits.schedule.sgd[request.stage]
    factor = 1.0 if is_head else encoder_class(block, getattr(study, block)).lr_factor
    lr = factor * round_lr(spec, request.number)
    if spec.optimizer == "adamw":
        reach = sgd.steps * lr * ADAM_STEP * math.sqrt(size)
    else:
        num_weights = sum(value.size for value in lemof.part(request.model, block).values())
        noise = sgd.noise_multiplier * (math.sqrt(num_weights) + NUM_DEVIATIONS)
        expected = max(sgd.sample_rate * limits.schedule.counts[f"{split}/ehr"] / (2.0 if is_head else 1.0), 1.0)
        step = lr * spec.max_grad_norm * (limits.stays(split) + noise) / expected
        reach = sgd.steps * step * (1.0 + lr * study.strategy.proximal_mu) ** sgd.steps
    times = limits.schedule.counts["stack/ehr"] if is_head else limits.schedule.counts[f"train/{block}"]
    return times * (float(np.linalg.norm(np.ravel(request.model[f"{block}/{name}"]))) + reach)
