"""EHR FT-Transformer (Gorishniy et al. 2021): every feature is a token, three pre-norm blocks are the three levels.

After ``rtdl_revisiting_models``: the first norm of the first block is left out, FFN is ReGLU of 4/3 width, attention
and FFN dropout. NOTE[DIFF]: a learnt vector per feature marks a missing value; the last block computes full queries, so
that all its tokens are right, not only the class token's; attention is written with nn.Linear (per-sample gradients).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lemof_model.pyramid import EhrBatch, Inputs, Level, PyramidEncoder


class FeatureTokens(nn.Module):
    """A class token, and a token ``x * weight + bias`` for each numeric feature, plus its mark where x is missing.

    The raw weights have a module of their own, one tensor in and one out: so Opacus finds their per-sample gradients.

    Shape: ``(B, F, 2), a value and whether it is missing -> (B, 1 + F, D)``.
    """

    def __init__(self, num_numeric: int, width: int) -> None:
        super().__init__()
        limit = width**-0.5
        self.class_token_D = nn.Parameter(torch.empty(width).uniform_(-limit, limit))
        self.weight_FD, self.bias_FD, self.missing_FD = (
            nn.Parameter(torch.empty(num_numeric, width).uniform_(-limit, limit)) for _ in range(3)
        )

    def forward(self, numeric_BF2: Tensor) -> Tensor:
        """Return the tokens, the class token first."""
        tokens = numeric_BF2[:, :, :1] * self.weight_FD + self.bias_FD + numeric_BF2[:, :, 1:] * self.missing_FD
        return torch.cat([self.class_token_D.expand(len(tokens), 1, -1), tokens], dim=1)


class SelfAttention(nn.Module):
    """Multi-head self-attention from four linear maps. Shape: ``(B, T, D) -> (B, T, D)``."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width must be a multiple of num_heads, got {width} and {num_heads}")
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
        self.ffn_out = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(ffn_dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the block's tokens."""
        x = x_BTD + self.attention(self.attention_norm(x_BTD))
        value, gate = self.ffn_in(self.ffn_norm(x)).chunk(2, dim=2)
        out: Tensor = x + self.ffn_out(self.dropout(value * functional.relu(gate)))
        return out


class FTTransformer(PyramidEncoder):
    """Feature tokens and a class token through three blocks; level k is the tokens after block k.

    Args:
        num_numeric: numeric features F.
        num_categories: categories per categorical feature.
        width: token width D; num_heads: attention heads.
        attention_dropout: 0 by default, for it takes 40 % of a training step on a CPU; ffn_dropout as in the reference.

    Shape: ``EhrBatch -> 3 x Level((B, 1 + F + number of categorical features, D), (B, D))``.

    Example:
        >>> batch = EhrBatch.of_table(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64))
        >>> levels = FTTransformer(3, (4,), width=8, num_heads=2)(batch)
        >>> tuple(levels[2].tokens_BTD.shape), tuple(levels[2].pooled_BD.shape)
        ((2, 5, 8), (2, 8))
    """

    def __init__(
        self,
        num_numeric: int,
        num_categories: tuple[int, ...],
        width: int = 32,
        num_heads: int = 2,
        attention_dropout: float = 0.0,
        ffn_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.token_widths = (width, width, width)
        self.pooled_widths = (width, width, width)
        self.feature_tokens = FeatureTokens(num_numeric, width)
        self.embeddings = nn.ModuleList(nn.Embedding(n, width) for n in num_categories)
        for weight in self.embeddings.parameters():
            nn.init.uniform_(weight, -(width**-0.5), width**-0.5)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, num_heads, attention_dropout, ffn_dropout, first=index == 0) for index in range(3)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(self, inputs: Inputs) -> tuple[Level, Level, Level]:
        """Return the three levels of an ``EhrBatch``."""
        assert isinstance(inputs, EhrBatch)
        tokens = [self.feature_tokens(torch.stack([inputs.numeric_BF, inputs.missing_BF], dim=2))]
        tokens += [table(inputs.category_BF[:, i : i + 1]) for i, table in enumerate(self.embeddings)]
        x = torch.cat(tokens, dim=1)
        levels = []
        for block, norm in zip(self.blocks, self.norms, strict=True):
            x = block(x)
            levels.append(Level(x, functional.relu(norm(x[:, 0]))))
        return levels[0], levels[1], levels[2]
