"""ECG WaveNet: gated, dilated causal convolutions in three stacks, each of them a level.

After van den Oord et al. 2016 (eq. 2 and fig. 4): ``tanh(W_f * x) . sigmoid(W_g * x)``, from which a 1x1 convolution
makes the residual and the skip; dilations double inside a stack and begin anew in the next; the sum of the skips so
far, through a ReLU, is the level. The last layer has no residual, which nothing would read.

NOTE[DIFF]: kernel 3 instead of 2, and real-valued input, for nothing is generated. A stem of two convolutions (7
samples in strides of 4, then 5 of its steps in strides of 3) sees detail before a step becomes 12 samples; it reads 11
on each side. A stack of 5 layers looks 2 (1 + 2 + 4 + 8 + 16) = 62 steps back, so after stack k a step sees
12 x 62 k + 23 samples: 767, 1511 and 2255. The last steps of levels 2 and 3 see the whole record.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lemof_model.encoders.ecg_levels import NUM_LEADS, Augmentation, concat_pool, time_tokens
from lemof_model.errors import ConfigError
from lemof_model.pyramid import EncoderState, Inputs, Level, PyramidEncoder
from lemof_model.study import NUM_LEVELS

KERNEL = 3
STEM_WIDTH = 32
MOST_LAYERS = 7  # of a stack: the next one's dilation, 128, is longer than the 84 steps of a record


class GatedLayer(nn.Module):
    """One gated unit with its residual and skip. Shape: ``(B, D, T) -> (B, D, T), (B, D, T)``."""

    def __init__(self, width: int, dilation: int, *, last: bool) -> None:
        super().__init__()
        self.past = (KERNEL - 1) * dilation
        self.sizes = [width, 0] if last else [width, width]
        self.filter_gate = nn.Conv1d(width, 2 * width, KERNEL, dilation=dilation)
        self.skip_residual = nn.Conv1d(width, sum(self.sizes), 1)

    def forward(self, x_BDT: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residual stream (of no use after the last layer) and this layer's skip."""
        filtered, gate = self.filter_gate(functional.pad(x_BDT, (self.past, 0))).chunk(2, dim=1)
        unit = torch.tanh(filtered) * torch.sigmoid(gate)
        skip, residual = self.skip_residual(unit).split(self.sizes, dim=1)
        return (x_BDT + residual if self.sizes[1] else x_BDT), skip


class EcgWaveNet(PyramidEncoder):
    """Three stacks of gated layers over a strided stem; level k is the sum of all skips up to stack k.

    Args:
        width: channels of gates, residual and skip.
        num_layers: layers of a stack, with dilations 1, 2, ... ``2 ** (num_layers - 1)``; at most 7.
        num_tokens: time tokens per level at most.
        dropout: applied to the pooled vectors before the heads; augment: strength of ``Augmentation``, 0 is none.

    Shape: ``(B, 12, 1000) -> 3 x Level((B, T, width), (B, 2 * width))`` with T = ``num_tokens``.

    Example:
        >>> levels = EcgWaveNet(width=8)(torch.zeros(2, 12, 1000))
        >>> [tuple(level.tokens_BTD.shape) for level in levels]
        [(2, 16, 8), (2, 16, 8), (2, 16, 8)]
    """

    lr_factor = 2.0
    inference_batch = 192

    def __init__(
        self, width: int = 16, num_layers: int = 5, num_tokens: int = 16, dropout: float = 0.2, augment: float = 1.0
    ) -> None:
        super().__init__()
        if num_layers > MOST_LAYERS:
            raise ConfigError(
                rule=f"num_layers must be at most {MOST_LAYERS} (a later layer sees only its own step)",
                got=f"{num_layers}",
            )
        self.token_widths = (width, width, width)
        self.pooled_widths = (2 * width, 2 * width, 2 * width)
        self.state_widths = (2 * width, 2 * width, width)
        self.width, self.num_tokens = width, num_tokens
        self.stem = nn.Conv1d(NUM_LEADS, STEM_WIDTH, 7, stride=4, padding=3)
        self.step = nn.Conv1d(STEM_WIDTH, width, 5, stride=3, padding=2)
        self.num_layers = num_layers
        self.layers = nn.ModuleList(
            GatedLayer(width, 2 ** (i % num_layers), last=i == 3 * num_layers - 1) for i in range(3 * num_layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.augment = Augmentation(augment)

    def start(self, inputs: Inputs) -> EncoderState:
        """Return what the stem makes of an ECG batch ``ecg_BCT`` in mV."""
        assert isinstance(inputs, Tensor)
        return EncoderState(self.step(functional.relu(self.stem(self.augment(inputs)))))

    def advance(self, number: int, state: EncoderState) -> EncoderState:
        """Return the residual stream after that stack, and behind it the sum of the skips; at the end these alone."""
        x = state.features
        x, skips = (x, torch.zeros_like(x)) if number == 1 else x.chunk(2, dim=1)
        for layer in list(self.layers)[(number - 1) * self.num_layers : number * self.num_layers]:
            x, skip = layer(x)
            skips = skips + skip
        return EncoderState(skips if number == NUM_LEVELS else torch.cat([x, skips], dim=1))

    def level(self, number: int, state: EncoderState) -> Level:
        """Return the tokens and the pooled vector of the skips."""
        x_BDT = functional.relu(state.features[:, -self.width :])
        return Level(time_tokens(x_BDT, self.num_tokens), self.dropout(concat_pool(x_BDT)))
