"""The pyramid: an encoder that shows three of its depths, a head on each of them (paper, eq. 1-2).

Shapes: B batch, C leads, T time steps, hours or tokens, F features, G grid channels, K levels (3), D width.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from lemof_model.study import NUM_LEVELS


class EhrBatch(NamedTuple):
    """The EHR of a batch of stays, as the encoders take it.

    ``numeric_BF`` scaled values, 0 where missing; ``missing_BF`` 1 where missing; ``category_BF`` codes (int64).
    ``grid_BTG`` scaled hourly means, each carried forward until the next, 0 before the first; ``measured_BTG`` 1 in an
    hour with a measurement, falling with the hours since, 0 before the first. Both are empty (no hours) for an encoder
    that does not use the grid.
    """

    numeric_BF: Tensor
    missing_BF: Tensor
    category_BF: Tensor
    grid_BTG: Tensor
    measured_BTG: Tensor

    @classmethod
    def of_table(cls, numeric_BF: Tensor, missing_BF: Tensor, category_BF: Tensor) -> "EhrBatch":
        """A batch without the grid."""
        no_hours = numeric_BF.new_zeros(len(numeric_BF), 0, 0)
        return cls(numeric_BF, missing_BF, category_BF, no_hours, no_hours)


Inputs = Tensor | EhrBatch
"""ECG: a tensor ``ecg_BCT`` in mV (12 leads, 1000 samples at 100 Hz). EHR: an ``EhrBatch``."""


class Level(NamedTuple):
    """One depth of an encoder: tokens for attention and a vector for the level head."""

    tokens_BTD: Tensor
    pooled_BD: Tensor


class EncoderState(NamedTuple):
    """What an encoder hands from one step to the next.

    ``features``: a map ``(B, D, T)``, tokens ``(B, T, D)`` or a vector ``(B, D)``; the encoder's ``channel_axis`` says
    where D is. Its level and its next step are computed from it, so this is what a fusion may alter between them.
    ``carried``: what the steps need beside it and nobody alters: inputs that are read again, a prior, a sum.
    ``penalty_B``: the encoder's own loss for each stay, of the steps so far, or None.
    """

    features: Tensor
    carried: tuple[Tensor, ...] = ()
    penalty_B: Tensor | None = None


class PyramidEncoder(nn.Module, ABC):
    """The paper's PFN: exposes levels 1 (low), 2 (intermediate), 3 (high).

    A subclass says how it starts (its stem), how it advances by a step, and what the step's level shows of the state.
    The whole is composed of these here and nowhere else, so a fusion that acts between the levels runs the same
    network. Nothing passes from step to step but the state. (``stem`` and ``step`` are no methods: convolutions and
    their stored weights have these names.)

    A subclass also states its widths, so that heads, attention and fusions can be built before any data is seen.

    Attributes:
        token_widths, pooled_widths: D of each level's tokens and of its pooled vector.
        state_widths: channels of the state's ``features`` after steps 1, 2 and 3.
        channel_axis: where these channels are; 1 in maps and vectors, 2 in tokens.
        uses_grid: whether an EHR encoder reads the hourly grid; only then it is in the batch.
        lr_factor: multiplies the plan's learning rate, which one size of step does not suit all (``docs/log.md``).
        inference_batch: stays of an inference batch, a multiple of 96 (``docs/decisions/0022``): its fastest.
        penalty_B: a loss of the encoder's own for each stay of the last forward pass, or None.
    """

    token_widths: tuple[int, int, int]
    pooled_widths: tuple[int, int, int]
    state_widths: tuple[int, int, int]
    channel_axis: int = 1
    uses_grid: bool = False
    lr_factor: float = 1.0
    inference_batch: int = 288
    penalty_B: Tensor | None = None

    @abstractmethod
    def start(self, inputs: Inputs) -> EncoderState:
        """Return the state before step 1."""

    @abstractmethod
    def advance(self, number: int, state: EncoderState) -> EncoderState:
        """Take step ``number`` (1, 2 or 3) from the state that the one before it gave."""

    @abstractmethod
    def level(self, number: int, state: EncoderState) -> Level:
        """What heads and attention read of the state after step ``number``."""

    @final  # type: ignore[misc]  # torch declares it as an attribute
    def forward(self, inputs: Inputs) -> tuple[Level, Level, Level]:
        """Return the three levels, lowest first."""
        state, levels = self.start(inputs), []
        for number in range(1, NUM_LEVELS + 1):
            state = self.advance(number, state)
            levels.append(self.level(number, state))
        self.penalty_B = state.penalty_B
        return levels[0], levels[1], levels[2]


class ModalityNetwork(nn.Module):
    """An encoder with a prediction head on every level (eq. 2), trained jointly.

    Shape: inputs of one modality -> level log-odds ``(B, 3)``.
    """

    def __init__(self, encoder: PyramidEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleList(nn.Linear(width, 1) for width in encoder.pooled_widths)

    def forward(self, inputs: Inputs) -> Tensor:
        """Level log-odds ``level_logit_BK``."""
        levels: tuple[Level, Level, Level] = self.encoder(inputs)
        return torch.cat([head(level.pooled_BD) for head, level in zip(self.heads, levels, strict=True)], dim=1)

    def tokens(self, inputs: Inputs, level: int) -> Tensor:
        """Tokens of one level (1, 2 or 3), ``tokens_BTD``: what attention reads (eq. 9).

        NOTE[DIFF]: each is layer-normalised, because levels differ in scale.
        """
        assert 1 <= level <= NUM_LEVELS
        levels: tuple[Level, Level, Level] = self.encoder(inputs)
        tokens_BTD = levels[level - 1].tokens_BTD
        return functional.layer_norm(tokens_BTD, tokens_BTD.shape[2:])
