"""EHR FT-Transformer (Gorishniy et al. 2021): features are tokens, three pre-norm blocks are the three levels.

After ``rtdl_revisiting_models``: the first norm of the first block is left out, FFN is ReGLU of 4/3 width, attention
and FFN dropout. NOTE[DIFF]: a concept is one token, the sum of the tokens of its features (minimum, maximum, mean...
of one heart rate), which attention would have to put together again at several times the cost; a learnt vector per
feature marks a missing value; the last block computes full queries, so that all its tokens are right, not only the
class token's; what a level shows to cross-modal attention are means over the concepts of each organ system; attention
is written with nn.Linear (per-sample gradients).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lemof_model.aligned import AlignedLinear
from lemof_model.errors import ConfigError
from lemof_model.pyramid import EhrBatch, EncoderState, Inputs, Level, PyramidEncoder


class FeatureTokens(nn.Module):
    """A class token, and a token for each concept: the sum of ``x * weight`` over its features, the marks of those that
    are missing, and a bias.

    The raw weights have a module of their own, one tensor in and one out: so Opacus finds their per-sample gradients.

    Args:
        concepts: for each concept, the places of its features; each feature is in one concept.

    Shape: ``(B, 2 F), values and whether they are missing -> (B, 1 + C, D)``, C concepts.
    """

    def __init__(self, concepts: Sequence[Sequence[int]], width: int) -> None:
        super().__init__()
        limit = width**-0.5
        num_numeric = sum(map(len, concepts))
        self.class_token_D = nn.Parameter(torch.empty(width).uniform_(-limit, limit))
        self.weight_FD, self.missing_FD, self.bias_CD = (
            nn.Parameter(torch.empty(num, width).uniform_(-limit, limit))
            for num in (num_numeric, num_numeric, len(concepts))
        )
        self.place_CM = torch.full((len(concepts), 2 * max(map(len, concepts))), 2 * num_numeric)  # of a zero
        for places, columns in zip(self.place_CM, concepts, strict=True):
            both = torch.tensor([*columns, *(num_numeric + column for column in columns)])
            places[: len(both)] = both

    def forward(self, table_BF: Tensor) -> Tensor:
        """Return the tokens, the class token first."""
        weight = functional.pad(torch.cat([self.weight_FD, self.missing_FD]), (0, 0, 0, 1))[self.place_CM]
        x_CBM = functional.pad(table_BF, (0, 1))[:, self.place_CM].transpose(0, 1)
        tokens = (x_CBM @ weight).transpose(0, 1) + self.bias_CD
        return torch.cat([self.class_token_D.expand(len(tokens), 1, -1), tokens], dim=1)


class SelfAttention(nn.Module):
    """Multi-head self-attention from four linear maps. Shape: ``(B, T, D) -> (B, T, D)``."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if width % num_heads:
            raise ConfigError(rule="width must be a multiple of num_heads", got=f"{width} and {num_heads}")
        self.num_heads = num_heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.dropout = dropout

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the attended tokens."""
        batch, length, width = x_BTD.shape

        def heads(x: Tensor) -> Tensor:
            return x.view(batch, length, self.num_heads, width // self.num_heads).transpose(1, 2)

        query, key, value = heads(self.query(x_BTD)), heads(self.key(x_BTD)), heads(self.value(x_BTD))
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        mixed = mixed.transpose(1, 2).reshape(batch, length, width)
        out: Tensor = self.out(mixed)
        return out


class TransformerBlock(nn.Module):
    """Pre-norm attention and ReGLU feed-forward, each with its residual. Shape: ``(B, T, D) -> (B, T, D)``."""

    def __init__(
        self, width: int, num_heads: int, attention_dropout: float, ffn_dropout: float, *, first: bool
    ) -> None:
        super().__init__()
        hidden = int(width * 4 / 3)
        self.attention_norm = nn.Identity() if first else nn.LayerNorm(width)
        self.attention = SelfAttention(width, num_heads, attention_dropout)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn_in = nn.Linear(width, 2 * hidden)
        self.ffn_out = AlignedLinear(hidden, width)
        self.dropout = nn.Dropout(ffn_dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the block's tokens."""
        x = x_BTD + self.attention(self.attention_norm(x_BTD))
        value, gate = self.ffn_in(self.ffn_norm(x)).chunk(2, dim=2)
        out: Tensor = x + self.ffn_out(self.dropout(value * functional.relu(gate)))
        return out


class FTTransformer(PyramidEncoder):
    """Concept tokens and a class token through three blocks; level k is what block k gave.

    Args:
        concepts: for each concept, the places of its numeric features.
        num_categories: categories per categorical feature; each of these is a token too.
        systems: for each system, the places of its tokens among concepts and categorical features; without any, all
            tokens are shown as they are.
        width: token width D; num_heads: attention heads.
        attention_dropout: 0 by default, for it takes 40 % of a training step on a CPU; ffn_dropout as in the reference.

    Shape: ``EhrBatch -> 3 x Level((B, 1 + number of systems, D), (B, D))``.

    Example:
        >>> batch = EhrBatch.of_table(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64))
        >>> levels = FTTransformer(((0, 2), (1,)), (4,), ((0, 1), (2,)), width=8, num_heads=2)(batch)
        >>> tuple(levels[2].tokens_BTD.shape), tuple(levels[2].pooled_BD.shape)
        ((2, 3, 8), (2, 8))
    """

    channel_axis = 2

    def __init__(
        self,
        concepts: tuple[tuple[int, ...], ...],
        num_categories: tuple[int, ...],
        systems: tuple[tuple[int, ...], ...],
        width: int = 32,
        num_heads: int = 2,
        attention_dropout: float = 0.0,
        ffn_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.token_widths = (width, width, width)
        self.pooled_widths = (width, width, width)
        self.state_widths = (width, width, width)
        self.feature_tokens = FeatureTokens(concepts, width)
        self.embeddings = nn.ModuleList(nn.Embedding(n, width) for n in num_categories)
        for weight in self.embeddings.parameters():
            nn.init.uniform_(weight, -(width**-0.5), width**-0.5)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, num_heads, attention_dropout, ffn_dropout, first=index == 0) for index in range(3)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        num_tokens = len(concepts) + len(num_categories)
        shown = [(0,), *(tuple(place + 1 for place in system) for system in systems or zip(range(num_tokens)))]
        self.mean_ST = torch.zeros(len(shown), 1 + num_tokens)
        for weights, places in zip(self.mean_ST, shown, strict=True):
            weights[list(places)] = 1 / len(places)

    def start(self, inputs: Inputs) -> EncoderState:
        """Return the tokens of an ``EhrBatch``, the class token first."""
        assert isinstance(inputs, EhrBatch)
        tokens = [self.feature_tokens(torch.cat([inputs.numeric_BF, inputs.missing_BF], dim=1))]
        tokens += [table(inputs.category_BF[:, i : i + 1]) for i, table in enumerate(self.embeddings)]
        return EncoderState(torch.cat(tokens, dim=1))

    def advance(self, number: int, state: EncoderState) -> EncoderState:
        """Return the tokens ``(B, T, D)`` after that block."""
        return EncoderState(self.blocks[number - 1](state.features))

    def level(self, number: int, state: EncoderState) -> Level:
        """Return the means over systems, and the class token through the level's norm."""
        x_BTD = state.features
        return Level(self.mean_ST @ x_BTD, functional.relu(self.norms[number - 1](x_BTD[:, 0])))
