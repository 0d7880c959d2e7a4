"""EHR baseline MLP: three hidden layers, each of them a level.

After ``MLP`` of ``rtdl_revisiting_models`` (Gorishniy et al. 2021, section 3.1): blocks of Linear, ReLU, Dropout.
NOTE[DIFF]: missing values enter as marks beside the numbers, categories one-hot (the first layer's columns are their
embeddings), and a level's tokens are pieces of its hidden vector, for the network has no axis to attend over.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lemof_model.aligned import AlignedLinear
from lemof_model.errors import ConfigError
from lemof_model.pyramid import EhrBatch, EncoderState, Inputs, Level, PyramidEncoder


def flat_row(numeric_BF: Tensor, missing_BF: Tensor, category_BF: Tensor, num_categories: tuple[int, ...]) -> Tensor:
    """Numbers, missing marks and one-hot categories side by side: ``(B, 2 F + sum(num_categories))``."""
    one_hot = [functional.one_hot(category_BF[:, i], n) for i, n in enumerate(num_categories)]
    return torch.cat([numeric_BF, missing_BF, *one_hot], dim=1)


def cut_tokens(hidden_BD: Tensor, num_tokens: int) -> Tensor:
    """Cut a hidden vector into tokens, ``(B, T, D / T)``."""
    return hidden_BD.view(len(hidden_BD), num_tokens, hidden_BD.shape[1] // num_tokens)


class MLP(PyramidEncoder):
    """Three hidden layers; level k is the vector after layer k.

    Args:
        num_numeric: numeric features F.
        num_categories: categories per categorical feature.
        width: of every hidden layer, a multiple of ``num_tokens``.
        num_tokens: tokens per level.
        dropout: after every layer, so also on the pooled vectors.

    Shape: ``EhrBatch -> 3 x Level((B, num_tokens, width / num_tokens), (B, width))``.

    Example:
        >>> batch = EhrBatch.of_table(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64))
        >>> levels = MLP(3, (4,), width=16, num_tokens=2)(batch)
        >>> tuple(levels[2].tokens_BTD.shape), tuple(levels[2].pooled_BD.shape)
        ((2, 2, 8), (2, 16))
    """

    lr_factor = 0.25

    def __init__(
        self,
        num_numeric: int,
        num_categories: tuple[int, ...],
        width: int = 256,
        num_tokens: int = 8,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if width % num_tokens:
            raise ConfigError(rule="width must be a multiple of num_tokens", got=f"{width} and {num_tokens}")
        token = width // num_tokens
        self.token_widths = (token, token, token)
        self.pooled_widths = (width, width, width)
        self.state_widths = (width, width, width)
        self.num_categories, self.num_tokens = num_categories, num_tokens
        num_inputs = 2 * num_numeric + sum(num_categories)
        self.layers = nn.ModuleList(AlignedLinear(width if index else num_inputs, width) for index in range(3))
        self.dropout = nn.Dropout(dropout)

    def start(self, inputs: Inputs) -> EncoderState:
        """Return an ``EhrBatch`` as one row per stay."""
        assert isinstance(inputs, EhrBatch)
        row = flat_row(inputs.numeric_BF, inputs.missing_BF, inputs.category_BF, self.num_categories)
        return EncoderState(row)

    def advance(self, number: int, state: EncoderState) -> EncoderState:
        """Return the vector ``(B, D)`` after that layer."""
        return EncoderState(self.dropout(functional.relu(self.layers[number - 1](state.features))))

    def level(self, number: int, state: EncoderState) -> Level:
        """Return the vector, and its pieces as tokens."""
        return Level(cut_tokens(state.features, self.num_tokens), state.features)
