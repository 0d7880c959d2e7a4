"""EHR TabNet (Arik & Pfister 2019): three decision steps, each choosing a few features by an attentive mask.

After ``TabNetEncoder`` of pytorch-tabnet: feature transformers of two shared and two own GLU layers, masks by sparsemax
with a prior that makes a feature dearer each time it is used, and a penalty on masks that spread over many features.
Level k is the sum of the decision vectors of steps 1 to k, so level 3 is what the published model predicts from.
NOTE[DIFF]: LayerNorm instead of ghost BatchNorm (a stay's prediction must not depend on its batch; federated averages;
per-sample gradients), and none on the inputs, which the federation has scaled. It adds 1 to the variance: a mask may
choose nothing but values that are 0, and with the usual 1e-5 such a stay's gradient grows 300-fold in every layer;
masks also begin broad that way, so that every feature is tried. A learnt value per feature stands for a missing one,
so that a mask entry is a feature and its absence. Tokens are pieces of the level's vector.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lemof_model.encoders.ehr_mlp import cut_tokens
from lemof_model.errors import ConfigError
from lemof_model.pyramid import EhrBatch, EncoderState, Inputs, Level, PyramidEncoder

NUM_STEPS = 3
NUM_SHARED = 2
NUM_OWN = 2
RESIDUAL_SCALE = 0.5**0.5
ADDED_VARIANCE = 1.0
LOG_OF_ZERO = 1e-15


def sparsemax(score_BF: Tensor) -> Tensor:
    """Euclidean projection of each row onto the simplex (Martins & Astudillo 2016): a softmax with exact zeros.

    Example:
        >>> sparsemax(torch.tensor([[2.0, 1.5, 0.0]])).tolist()
        [[0.75, 0.25, 0.0]]
    """
    ordered, _ = score_BF.sort(dim=1, descending=True)
    excess = ordered.cumsum(dim=1) - 1.0
    rank = torch.arange(1, score_BF.shape[1] + 1)
    size = (rank * ordered > excess).sum(dim=1, keepdim=True)
    return functional.relu(score_BF - excess.gather(1, size - 1) / size)


class MissingValue(nn.Module):
    """A learnt number per feature that stands for a missing one, 0 elsewhere. Shape: ``(B, F) -> (B, F)``.

    A module of its own for its raw weight: so Opacus finds the per-sample gradients.
    """

    def __init__(self, num_numeric: int) -> None:
        super().__init__()
        self.value_F = nn.Parameter(torch.zeros(num_numeric))

    def forward(self, missing_BF: Tensor) -> Tensor:
        """Return the numbers to add."""
        return missing_BF * self.value_F


class FeatureTransformer(nn.Module):
    """One step's GLU layers: the shared linear maps, which its caller owns, then its own; each with a norm of its own.

    Shape: ``(B, F) -> (B, D)``.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.ModuleList(nn.Linear(width, 2 * width, bias=False) for _ in range(NUM_OWN))
        self.norms = nn.ModuleList(nn.LayerNorm(2 * width, ADDED_VARIANCE) for _ in range(NUM_SHARED + NUM_OWN))

    def forward(self, x_BF: Tensor, shared: nn.ModuleList) -> Tensor:
        """Return the step's features."""
        x = x_BF
        for index, (linear, norm) in enumerate(zip([*shared, *self.own], self.norms, strict=True)):
            gated = functional.glu(norm(linear(x)), dim=1)
            x = (x + gated) * RESIDUAL_SCALE if index else gated
        return x


class TabNet(PyramidEncoder):
    """Three decision steps; level k is the sum of the first k decisions.

    Sets ``penalty_B``: ``sparsity`` times the mean entropy of a stay's masks.

    Args:
        num_numeric: numeric features.
        num_categories: categories per categorical feature; each is embedded as one number.
        width: of the decision and of the attention vector (n_d = n_a), a multiple of ``num_tokens``.
        num_tokens: tokens per level.
        gamma: 1 lets a feature be used in one step only; larger is freer.
        sparsity: weight of the penalty (lambda).
        dropout: applied to the pooled vectors before the heads.

    Shape: ``EhrBatch -> 3 x Level((B, num_tokens, width / num_tokens), (B, width))``.

    Example:
        >>> batch = EhrBatch.of_table(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64))
        >>> encoder = TabNet(3, (4,), width=16, num_tokens=2)
        >>> levels = encoder(batch)
        >>> tuple(levels[2].tokens_BTD.shape), tuple(levels[2].pooled_BD.shape), tuple(encoder.penalty_B.shape)
        ((2, 2, 8), (2, 16), (2,))
    """

    lr_factor = 0.25

    def __init__(
        self,
        num_numeric: int,
        num_categories: tuple[int, ...],
        width: int = 32,
        num_tokens: int = 4,
        gamma: float = 1.3,
        sparsity: float = 1e-3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width % num_tokens:
            raise ConfigError(rule="width must be a multiple of num_tokens", got=f"{width} and {num_tokens}")
        token, num_features = width // num_tokens, num_numeric + len(num_categories)
        self.token_widths = (token, token, token)
        self.pooled_widths = (width, width, width)
        self.state_widths = (2 * width, 2 * width, width)
        self.width, self.num_tokens, self.gamma, self.sparsity = width, num_tokens, gamma, sparsity
        self.missing = MissingValue(num_numeric)
        self.embeddings = nn.ModuleList(nn.Embedding(n, 1) for n in num_categories)
        self.shared = nn.ModuleList(
            nn.Linear(2 * width if index else num_features, 4 * width, bias=False) for index in range(NUM_SHARED)
        )
        self.transformers = nn.ModuleList(FeatureTransformer(2 * width) for _ in range(1 + NUM_STEPS))
        self.attention = nn.ModuleList(nn.Linear(width, num_features, bias=False) for _ in range(NUM_STEPS))
        self.attention_norms = nn.ModuleList(nn.LayerNorm(num_features, ADDED_VARIANCE) for _ in range(NUM_STEPS))
        self.dropout = nn.Dropout(dropout)

    def start(self, inputs: Inputs) -> EncoderState:
        """Return what the first mask is chosen from; no decision yet, and every feature as dear as another."""
        assert isinstance(inputs, EhrBatch)
        numeric = inputs.numeric_BF + self.missing(inputs.missing_BF)
        categories = [table(inputs.category_BF[:, i]) for i, table in enumerate(self.embeddings)]
        x_BF = torch.cat([numeric, *categories], dim=1)
        attended = self.transformers[0](x_BF, self.shared)[:, self.width :]
        return EncoderState(
            attended, (x_BF, torch.ones_like(x_BF), torch.zeros_like(attended), x_BF.new_zeros(len(x_BF)))
        )

    def advance(self, number: int, state: EncoderState) -> EncoderState:
        """Return the step's decision, and behind it what the next mask is chosen from; at the end the decision alone.

        Carried: the features, their prior, the sum of the decisions before, the entropy (there: eq. 1 and figure 4).
        """
        x_BF, prior_BF, decided, entropy_B = state.carried
        if number > 1:
            decided = self._decided(state)
        scores_BF = self.attention_norms[number - 1](self.attention[number - 1](state.features[:, -self.width :]))
        mask = sparsemax(scores_BF * prior_BF)
        entropy_B = entropy_B - (mask * torch.log(mask + LOG_OF_ZERO)).sum(dim=1)
        features = self.transformers[number](mask * x_BF, self.shared)
        carried = (x_BF, prior_BF * (self.gamma - mask), decided, entropy_B)
        penalty_B = self.sparsity * entropy_B / NUM_STEPS
        return EncoderState(features[:, : self.width] if number == NUM_STEPS else features, carried, penalty_B)

    def level(self, number: int, state: EncoderState) -> Level:
        """Return the sum of the decisions, and its pieces as tokens."""
        decided = self._decided(state)
        return Level(cut_tokens(decided, self.num_tokens), self.dropout(decided))

    def _decided(self, state: EncoderState) -> Tensor:
        """The sum of the decisions up to the state's own. Shape: ``(B, D)``."""
        before: Tensor = state.carried[2]
        return before + functional.relu(state.features[:, : self.width])
