"""Level-guided fusion (paper, module 2, eq. 9-12): attention between the two best levels, in both directions.

Shapes: B batch, T tokens, D level width, W attention width (the paper's d).
"""

import math

import torch
from torch import Tensor, nn


class DirectedAttention(nn.Module):
    """One direction of eq. 10-11: tokens of one modality ask, tokens of the other answer.

    Everything after the softmax is linear, so the mean over the asking tokens is taken of the weights, and the value
    map comes last: the same numbers at half the cost. NOTE[DIFF]: dropout therefore leaves out an answering token for
    all that ask.

    Shape: ``(B, T_i, D_i), (B, T_j, D_j) -> (B, W)``, the mean over the asking tokens.
    """

    def __init__(self, query_width: int, key_width: int, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(query_width, width, bias=False)
        self.key = nn.Linear(key_width, width, bias=False)
        self.value = nn.Linear(key_width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, asking_BTD: Tensor, answering_BTD: Tensor) -> Tensor:
        """Return ``Attn_{i <- j}``, averaged over the asking tokens."""

        def heads(x_BTW: Tensor) -> Tensor:
            return x_BTW.view(*x_BTW.shape[:2], self.num_heads, -1).transpose(1, 2)

        query, key = heads(self.query(asking_BTD)), heads(self.key(answering_BTD))
        weight = torch.softmax(query / math.sqrt(query.shape[3]) @ key.transpose(2, 3), dim=3)
        asked_BHD = self.dropout(weight.mean(dim=2)) @ answering_BTD
        value_BHHW = self.value(asked_BHD).unflatten(2, (self.num_heads, -1))
        mixed: Tensor = value_BHHW.diagonal(dim1=1, dim2=2).transpose(1, 2)
        return mixed.flatten(1)


class CrossModalAttention(nn.Module):
    """Both directions, concatenated, through a logistic output (eq. 12): log-odds of omega_2.

    A stay without ECG is represented by one learnt token; as all its copies are equal, softmax over them is the same as
    over one. NOTE[DIFF]: each level's tokens are layer-normalised first, because levels differ in scale.

    Args:
        ecg_width, ehr_width: token widths D of the two best levels.

    Shape: ``ecg (B, T_1, D_1), ehr (B, T_2, D_2), has_ecg (B,) -> (B, 1)``.

    Example:
        >>> head = CrossModalAttention(4, 6, width=8, num_heads=2, dropout=0.0)
        >>> tuple(head((torch.zeros(3, 5, 4), torch.zeros(3, 7, 6), torch.tensor([1.0, 0.0, 1.0]))).shape)
        (3, 1)
    """

    def __init__(self, ecg_width: int, ehr_width: int, *, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.no_ecg_token_D = nn.Parameter(torch.zeros(ecg_width))
        self.ecg_norm, self.ehr_norm = nn.LayerNorm(ecg_width), nn.LayerNorm(ehr_width)
        self.ecg_asks = DirectedAttention(ecg_width, ehr_width, width, num_heads, dropout)
        self.ehr_asks = DirectedAttention(ehr_width, ecg_width, width, num_heads, dropout)
        self.output = nn.Linear(2 * width, 1)

    def forward(self, inputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return ``omega_2_B1`` in log-odds."""
        ecg_BTD, ehr_BTD, has_ecg_B = inputs
        present = has_ecg_B[:, None, None]
        ecg = self.ecg_norm(ecg_BTD) * present + self.no_ecg_token_D * (1.0 - present)
        ehr = self.ehr_norm(ehr_BTD)
        both = torch.cat([self.ecg_asks(ecg, ehr), self.ehr_asks(ehr, ecg)], dim=1)
        out: Tensor = self.output(both)
        return out
