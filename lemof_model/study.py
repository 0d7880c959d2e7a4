"""The study as plain values: what the plan fixes and every request states.

The plan file is read once by the server (``protocol/plan.py``); a hospital meets these same dataclasses inside each
request, so two hospitals cannot run different studies. Each class checks its own values; all are immutable.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from lemof_model.errors import ConfigError, Problem

MODALITIES = ("ecg", "ehr")
SPLITS = ("train", "stack", "tuning", "held_out")
NUM_LEVELS = 3
MOST_FOLDS = 5
FEW_SITES = 3
"""A total over fewer sites than these tells each of them what the others hold."""


def _check(what: object, section: str, rules: Mapping[str, tuple[bool, str]]) -> None:
    """Raise one ConfigError that lists every broken rule of ``what``; ``section`` is what stands before a key."""
    endless = {name for name, value in vars(what).items() if isinstance(value, float) and not math.isfinite(value)}
    all_rules = {**rules, **dict.fromkeys(sorted(endless), (False, "be a finite number"))}
    broken = [
        Problem(f"{section}{name} must {rule}", f"{getattr(what, name)!r}")
        for name, (holds, rule) in all_rules.items()
        if not holds
    ]
    if broken:
        raise ConfigError(*broken)


@dataclass(frozen=True)
class CohortSpec:
    """Who is studied and what is known of them: the part of a plan that ``prepare`` needs.

    The prediction is made ``window_hours`` after ICU admission; a stay shorter than ``min_stay_hours`` is left out,
    otherwise the window would hold the answer (method: target). Rows of intensive care in one admission that overlap,
    or lie no more than ``merge_within_hours`` apart, are one stay.
    """

    window_hours: int = 24
    gap_hours: int = 0
    min_stay_hours: float = 24.0
    merge_within_hours: float = 6.0
    min_age_years: int = 18
    ecg_before_hours: float = 24.0
    ecg_rule: Literal["latest", "first"] = "latest"
    feature_schema: Literal["first_day_2"] = "first_day_2"

    def __post_init__(self) -> None:
        _check(
            self,
            "cohort.",
            {
                "window_hours": (1 <= self.window_hours <= 240, "be from 1 to 240"),
                "gap_hours": (self.gap_hours >= 0, "not be negative"),
                "min_stay_hours": (
                    self.min_stay_hours >= self.window_hours + self.gap_hours,
                    f"be at least window_hours + gap_hours = {self.window_hours + self.gap_hours} "
                    "(a shorter stay would end before its prediction)",
                ),
                "merge_within_hours": (0 <= self.merge_within_hours <= 48, "be from 0 (rows that touch) to 48"),
                "min_age_years": (self.min_age_years >= 0, "not be negative"),
                "ecg_before_hours": (self.ecg_before_hours >= 0, "not be negative"),
            },
        )

    @property
    def digest(self) -> str:
        """Digest of this section alone: a cohort is made for one of them."""
        return digest_json(dataclasses.asdict(self))


@dataclass(frozen=True)
class Target:
    """Long stay: length of stay in ``unit`` above ``threshold_days``; deaths shorten stays and are kept by default."""

    unit: Literal["icu", "hospital"] = "icu"
    threshold_days: float = 3.0
    deaths: Literal["keep", "exclude"] = "keep"

    def __post_init__(self) -> None:
        _check(self, "target.", {"threshold_days": (self.threshold_days > 0, "be above 0")})


@dataclass(frozen=True)
class SplitSpec:
    """Fractions of patients per split; which patient goes where is a hash of ``salt`` and the patient."""

    salt: str = "lemof"
    train: float = 0.5
    stack: float = 0.25
    tuning: float = 0.1
    held_out: float = 0.15

    def __post_init__(self) -> None:
        total = self.train + self.stack + self.tuning + self.held_out
        rules = {name: (getattr(self, name) > 0, "be above 0") for name in SPLITS}
        rules["salt"] = (bool(self.salt), "not be empty")
        _check(self, "splits.", rules)
        if abs(total - 1.0) > 1e-9:
            raise ConfigError(rule="splits: the four fractions must add up to 1", got=f"{total:g}")


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder by its registered name, with the sizes that differ from its defaults."""

    name: str
    sizes: dict[str, int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingSpec:
    """How a block of weights is trained at a site in one round, and for how many rounds.

    The learning rate rises to ``client_lr`` over the first ``warmup_rounds`` and falls, along half a cosine, to
    ``final_lr_share`` of it in the last round. ``patience`` rounds without a better federated tuning loss end the
    stage; 0 trains all rounds. Either way the weights of the best round are kept.
    """

    num_rounds: int = 40
    num_epochs: int = 1
    batch_size: int = 64
    optimizer: Literal["adamw", "sgd"] = "adamw"
    client_lr: float = 2e-3
    warmup_rounds: int = 2
    final_lr_share: float = 0.1
    weight_decay: float = 1e-2
    max_grad_norm: float = 1.0
    patience: int = 10

    def __post_init__(self) -> None:
        _check(
            self,
            "",
            {
                "num_rounds": (self.num_rounds >= 1, "be at least 1"),
                "num_epochs": (self.num_epochs >= 1, "be at least 1"),
                "batch_size": (self.batch_size >= 1, "be at least 1"),
                "client_lr": (self.client_lr > 0, "be above 0"),
                "warmup_rounds": (self.warmup_rounds >= 0, "not be negative (0 begins with the full learning rate)"),
                "final_lr_share": (0 < self.final_lr_share <= 1, "be above 0 and at most 1 (1 switches the decay off)"),
                "weight_decay": (self.weight_decay >= 0, "not be negative"),
                "max_grad_norm": (self.max_grad_norm >= 0, "not be negative (0 switches clipping off)"),
                "patience": (self.patience >= 0, "not be negative (0 switches early stopping off)"),
            },
        )


@dataclass(frozen=True)
class StrategySpec:
    """How the server turns the mean of the sites' weights into the next ones."""

    name: Literal["fedavg", "fedprox", "fedadam"] = "fedavg"
    proximal_mu: float = 0.0
    server_lr: float = 0.01

    def __post_init__(self) -> None:
        is_prox, is_adam = self.name == "fedprox", self.name == "fedadam"
        _check(
            self,
            "strategy.",
            {
                "proximal_mu": (
                    self.proximal_mu > 0 if is_prox else self.proximal_mu == 0,
                    "be above 0 for fedprox (at 0 it is fedavg)" if is_prox else "be 0 unless name is fedprox",
                ),
                "server_lr": (
                    self.server_lr > 0 and (is_adam or self.server_lr == 0.01),
                    "be above 0, and is left out unless name is fedadam",
                ),
            },
        )


@dataclass(frozen=True)
class AttentionSpec:
    """Cross-modal attention (eq. 10-12): width d, dropout, and its training."""

    width: int = 32
    dropout: float = 0.1
    training: TrainingSpec = field(
        default_factory=lambda: TrainingSpec(num_rounds=20, num_epochs=4, client_lr=1e-3, patience=5)
    )

    def __post_init__(self) -> None:
        _check(
            self,
            "attention.",
            {
                "width": (self.width >= 1 and self.width % 4 == 0, "be 4 or a multiple of it"),
                "dropout": (0 <= self.dropout < 1, "be from 0 to below 1"),
            },
        )


@dataclass(frozen=True)
class LogisticSpec:
    """The logistic learners G (eq. 3): what goes in, and scikit-learn's C (the ridge is 1/C)."""

    inputs: Literal["log_odds", "probability"] = "log_odds"
    c: float = 1.0
    max_steps: int = 8

    def __post_init__(self) -> None:
        _check(
            self,
            "logistic.",
            {"c": (self.c > 0, "be above 0"), "max_steps": (self.max_steps >= 1, "be at least 1")},
        )


@dataclass(frozen=True)
class EvaluationSpec:
    """How scores are counted: bins between log-odds -limit and +limit, calibration."""

    num_bins: int = 400
    limit: float = 8.0
    calibration: Literal["platt", "none"] = "platt"

    def __post_init__(self) -> None:
        _check(
            self,
            "evaluation.",
            {
                "num_bins": (
                    self.num_bins >= 4 and self.num_bins % 2 == 0,
                    "be even and at least 4, so that log-odds 0 and every cut are edges",
                ),
                "limit": (self.limit > 0, "be above 0"),
            },
        )


@dataclass(frozen=True)
class Study:
    """Everything that the plan fixes. Two studies with one digest give the same model from the same cohorts.

    ``few_sites`` says whether totals over one or two hospitals may be made; each hospital decides for itself as well.

    With ``folds`` K the patients of ``train`` and ``stack`` are one split, called ``stack``, in K folds: each modality
    has K networks, each taught by the others' folds, and nothing is learnt of a network's own. Without folds a network
    is taught by ``train``, and what reads it learns from ``stack``.
    """

    name: str = "lemof"
    seed: int = 7
    min_sites: int = 2
    few_sites: Literal["refuse", "allow"] = "refuse"
    folds: int = 0
    cohort: CohortSpec = field(default_factory=CohortSpec)
    target: Target = field(default_factory=Target)
    splits: SplitSpec = field(default_factory=SplitSpec)
    ecg: EncoderSpec = field(default_factory=lambda: EncoderSpec("resnet"))
    ehr: EncoderSpec = field(default_factory=lambda: EncoderSpec("ft_transformer"))
    encoders: TrainingSpec = field(default_factory=TrainingSpec)
    attention: AttentionSpec = field(default_factory=AttentionSpec)
    strategy: StrategySpec = field(default_factory=StrategySpec)
    logistic: LogisticSpec = field(default_factory=LogisticSpec)
    evaluation: EvaluationSpec = field(default_factory=EvaluationSpec)

    def __post_init__(self) -> None:
        _check(
            self,
            "",
            {
                "seed": (self.seed >= 0, "not be negative"),
                "min_sites": (self.min_sites >= 1, "be at least 1"),
                "folds": (self.folds == 0 or 2 <= self.folds <= MOST_FOLDS, f"be 0 (none) or from 2 to {MOST_FOLDS}"),
            },
        )
        if 24.0 * self.target.threshold_days <= self.cohort.window_hours + self.cohort.gap_hours:
            raise ConfigError(
                rule="target.threshold_days must be longer than window and gap",
                got=f"{self.target.threshold_days:g} days against {self.cohort.window_hours + self.cohort.gap_hours} "
                "h: every stay would be a long one",
            )
        if self.ehr.name == "tpc" and self.cohort.window_hours < 2:
            raise ConfigError(
                rule="cohort.window_hours must be at least 2 for ehr.name tpc",
                got=f"{self.cohort.window_hours}",
                fix="Its tokens are the hours, and over a single one the softmax of attention is 1. Lengthen it, or "
                "name another.",
            )

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces. ``digest`` is taken over it."""
        return self._json

    @cached_property
    def _json(self) -> str:
        """Made once: a hospital asks for it a dozen times in a message."""
        return canonical_json(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Study":
        """Read what ``to_json`` wrote.

        Example:
            >>> Study.from_json(Study(seed=3).to_json()) == Study(seed=3)
            True
        """
        study: Study = _build(cls, json.loads(text))
        return study

    @property
    def learnt_splits(self) -> tuple[str, ...]:
        """The splits that something is learnt of: the first teaches the networks, the last what reads them."""
        return ("stack",) if self.folds else ("train", "stack")

    @property
    def fewest_sites(self) -> int:
        """How many sites at least must stand behind a total."""
        return 1 if self.few_sites == "allow" else FEW_SITES

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: one value, one text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_json(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _build(cls: Any, values: Mapping[str, Any]) -> Any:
    """Rebuild nested dataclasses from plain dicts."""
    kinds = {f.name: f.type for f in dataclasses.fields(cls)}
    built = {
        name: _build(kinds[name], value) if dataclasses.is_dataclass(kinds[name]) else value
        for name, value in values.items()
    }
    return cls(**built)
