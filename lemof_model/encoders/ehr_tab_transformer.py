"""EHR TabTransformer (Huang et al. 2020): categories in context through six Transformer layers, numbers beside them.

Column embeddings share d/8 of their width over the categories of a column (section 3 there); layers are those of
Vaswani et al. 2017: attention, then a feed-forward part of four times the width, each with its residual and a layer
norm after it. Numbers are layer-normalised and join the contextual embeddings in an MLP.
Level k is what layers 2, 4 and 6 gave, with the numbers at every level: vitals and laboratory values are numbers, and
a level without them would see none.
NOTE[DIFF]: an MLP at every level, not at the end alone; its last hidden vector is the pooled one. Missing marks stand
beside the numbers. The tokens are the contextual columns and, so that attention sees vitals, the first hidden vector
of the level's MLP cut into as many wide pieces as ``num_tokens`` says.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lemof_model.aligned import AlignedLinear
from lemof_model.encoders.ehr_ft_transformer import SelfAttention
from lemof_model.encoders.ehr_mlp import cut_tokens
from lemof_model.errors import ConfigError
from lemof_model.pyramid import EhrBatch, EncoderState, Inputs, Level, PyramidEncoder

NUM_LAYERS = 6
SHARED_PART = 8


class ColumnEmbedding(nn.Module):
    """A category as ``[column vector, category vector]``, the first shared by all categories of the column.

    Shape: ``codes (B, C) -> (B, C, width)``, C columns.
    """

    def __init__(self, num_categories: tuple[int, ...], width: int) -> None:
        super().__init__()
        shared = width // SHARED_PART
        self.columns = nn.Embedding(len(num_categories), shared)
        self.categories = nn.ModuleList(nn.Embedding(n, width - shared) for n in num_categories)
        for weight in self.parameters():
            nn.init.normal_(weight, std=width**-0.5)

    def forward(self, category_BC: Tensor) -> Tensor:
        """Return the embedding of each code."""
        own = torch.stack([table(category_BC[:, i]) for i, table in enumerate(self.categories)], dim=1)
        shared = self.columns(torch.arange(own.shape[1]).expand(len(own), -1))
        return torch.cat([shared, own], dim=2)


class TransformerLayer(nn.Module):
    """Post-norm attention and feed-forward. Shape: ``(B, T, D) -> (B, T, D)``."""

    def __init__(self, width: int, num_heads: int, attention_dropout: float, ffn_dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, num_heads, attention_dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.ffn_in = nn.Linear(width, 4 * width)
        self.ffn_out = nn.Linear(4 * width, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(ffn_dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the layer's tokens."""
        x = self.attention_norm(x_BTD + self.attention(x_BTD))
        hidden = self.dropout(functional.relu(self.ffn_in(x)))
        out: Tensor = self.ffn_norm(x + self.ffn_out(hidden))
        return out


class TabTransformer(PyramidEncoder):
    """Contextual categories and numbers; level k after layers 2, 4 and 6.

    Args:
        num_numeric: numeric features F.
        num_categories: categories per categorical feature.
        width: token width D; num_heads: attention heads.
        num_tokens: tokens that the numbers give at each level, beside one for every categorical feature.
        pooled_width: of the last hidden vector.
        attention_dropout, ffn_dropout: inside the layers; dropout: on the pooled vectors.

    Shape: ``EhrBatch -> 3 x Level((B, categorical features + num_tokens, D), (B, pooled_width))``.

    Example:
        >>> batch = EhrBatch.of_table(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64))
        >>> levels = TabTransformer(3, (4,), width=8, num_heads=2, num_tokens=4, pooled_width=16)(batch)
        >>> tuple(levels[2].tokens_BTD.shape), tuple(levels[2].pooled_BD.shape)
        ((2, 5, 8), (2, 16))
    """

    channel_axis = 2
    lr_factor = 0.25
    inference_batch = 192

    def __init__(
        self,
        num_numeric: int,
        num_categories: tuple[int, ...],
        width: int = 32,
        num_heads: int = 8,
        num_tokens: int = 8,
        pooled_width: int = 64,
        attention_dropout: float = 0.0,
        ffn_dropout: float = 0.1,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if width % SHARED_PART:
            raise ConfigError(rule=f"width must be a multiple of {SHARED_PART}", got=f"{width}")
        self.token_widths = (width, width, width)
        self.pooled_widths = (pooled_width, pooled_width, pooled_width)
        self.state_widths = (width, width, width)
        self.num_columns, self.num_tokens = len(num_categories), num_tokens
        self.embedding = ColumnEmbedding(num_categories, width)
        self.layers = nn.ModuleList(
            TransformerLayer(width, num_heads, attention_dropout, ffn_dropout) for _ in range(NUM_LAYERS)
        )
        self.numeric_norm = nn.LayerNorm(num_numeric)
        num_inputs = len(num_categories) * width + 2 * num_numeric
        self.mlp_in = nn.ModuleList(AlignedLinear(num_inputs, num_tokens * width) for _ in range(3))
        self.mlp_out = nn.ModuleList(AlignedLinear(num_tokens * width, pooled_width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def start(self, inputs: Inputs) -> EncoderState:
        """Return the columns of an ``EhrBatch`` as tokens; its numbers are carried beside them."""
        assert isinstance(inputs, EhrBatch)
        numbers = torch.cat([self.numeric_norm(inputs.numeric_BF), inputs.missing_BF], dim=1)
        return EncoderState(self.embedding(inputs.category_BF), (numbers,))

    def advance(self, number: int, state: EncoderState) -> EncoderState:
        """Return the columns after two more layers, then the first hidden vector of the level's MLP as tokens."""
        (numbers,) = state.carried
        columns = state.features[:, : self.num_columns].contiguous()
        for layer in list(self.layers)[2 * number - 2 : 2 * number]:
            columns = layer(columns)
        hidden = functional.relu(self.mlp_in[number - 1](torch.cat([columns.flatten(1), numbers], dim=1)))
        tokens = torch.cat([columns, cut_tokens(hidden, self.num_tokens)], dim=1)
        return EncoderState(tokens, state.carried)

    def level(self, number: int, state: EncoderState) -> Level:
        """Return the tokens as they are; the MLP's part of them makes the pooled vector."""
        hidden = state.features[:, self.num_columns :].flatten(1)
        return Level(state.features, self.dropout(functional.relu(self.mlp_out[number - 1](hidden))))
