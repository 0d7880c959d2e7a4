"""What the ECG encoders share: the twelve leads, augmentation, and how a map over time becomes a level.

Shapes: B batch, D width, T time steps or tokens.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lemof_model.errors import ConfigError

NUM_LEADS = 12
NUM_GROUPS = 8
MAX_SHIFT_SAMPLES = 100
MAX_GAIN_CHANGE = 0.1


class Augmentation(nn.Module):
    """In training only, move each record by up to a second, its end sample filling the gap, and change its gain by up
    to a tenth; intervals, shapes and rhythm stay what they are. ``strength`` multiplies both, 0 is none.

    Without it an encoder knows 2,000 records by heart before it knows the heart (``docs/log.md``).
    Shape: ``(B, C, T) -> (B, C, T)``
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        if not 0 <= strength <= 5:
            raise ConfigError(rule="augment must lie from 0 to 5", got=f"{strength}")
        self.strength = strength

    def forward(self, ecg_BCT: Tensor) -> Tensor:
        """Return the records as an encoder in training sees them."""
        if not self.training or not self.strength:
            return ecg_BCT
        batch, leads, length = ecg_BCT.shape
        shift_B1 = (MAX_SHIFT_SAMPLES * self.strength * (2 * torch.rand(batch, 1) - 1)).round().long()
        source_BT = (torch.arange(length) + shift_B1).clamp(0, length - 1)
        gain_B11 = 1 + MAX_GAIN_CHANGE * self.strength * (2 * torch.rand(batch, 1, 1) - 1)
        return ecg_BCT.gather(2, source_BT[:, None, :].expand(batch, leads, length)) * gain_B11


def group_norm(width: int) -> nn.GroupNorm:
    """Normalise the channels of a map in eight groups.

    Example:
        >>> group_norm(12)
        Traceback (most recent call last):
        lemof_model.errors.ConfigError: width must be a multiple of 8, got 12.
    """
    if width % NUM_GROUPS:
        raise ConfigError(rule=f"width must be a multiple of {NUM_GROUPS}", got=f"{width}")
    return nn.GroupNorm(NUM_GROUPS, width)


def time_tokens(x_BDT: Tensor, num_tokens: int) -> Tensor:
    """Average neighbouring time steps to ``num_tokens`` tokens at most. Shape: ``(B, D, T) -> (B, tokens, D)``.

    Example:
        >>> time_tokens(torch.arange(6.0).view(1, 1, 6), 3).flatten().tolist()
        [0.5, 2.5, 4.5]
    """
    return functional.adaptive_avg_pool1d(x_BDT, min(num_tokens, x_BDT.shape[2])).transpose(1, 2)


def concat_pool(x_BDT: Tensor) -> Tensor:
    """Mean and maximum over the whole record. Shape: ``(B, D, T) -> (B, 2 D)``.

    Example:
        >>> concat_pool(torch.tensor([[[0.0, 0.0, 3.0]]])).tolist()
        [[1.0, 3.0]]
    """
    return torch.cat([x_BDT.mean(dim=2), x_BDT.amax(dim=2)], dim=1)
