"""A linear layer whose rows begin alike in memory, so that a stay's place in a batch tells in no bit.

A product with few columns is added up in an order that depends on where a row begins, in steps of 16 bytes
(``docs/decisions/0022``): rows of 10 floats begin in two ways, and so a stay would get other last bits in an odd place
than in an even one.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

ROW_STEP = 4
"""Floats in 16 bytes."""
BATCH_STEP = 96
"""Stays of an inference batch come in steps of it: of 32, the numbers that torch's elementwise functions take at once,
and of 48, so that MKL's products have no rows left over that go another way."""
FEW_COLUMNS = 12
"""From as many outputs on the order is the same wherever a row begins."""


class AlignedLinear(nn.Linear):
    """An ``nn.Linear`` that fills up rows with zeros in inference, where its outputs are few.

    Shape: ``(..., in_features) -> (..., out_features)``.

    Example:
        >>> layer = AlignedLinear(10, 8)
        >>> with torch.inference_mode():
        ...     tuple(layer(torch.ones(3, 10)).shape)
        (3, 8)
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's outputs."""
        missing = -self.in_features % ROW_STEP
        if not torch.is_inference_mode_enabled() or not missing or not is_narrow(self):
            return super().forward(input)
        x, weight = (functional.pad(rows, (0, missing)) for rows in (input, self.weight))
        return functional.linear(x, weight, self.bias)


def is_narrow(layer: nn.Linear) -> bool:
    """Whether a layer's outputs are so few that it matters where rows begin; of a single output it never does."""
    return 1 < layer.out_features < FEW_COLUMNS
