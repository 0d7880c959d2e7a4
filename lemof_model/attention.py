"""Level-guided fusion (paper, module 2, eq. 9-12): attention between the two best levels, in both directions.

Shapes: B batch, T tokens, D level width, W attention width (the paper's d). One attention head, as in the paper.
"""

import torch
from torch import Tensor, nn


class TokenMaps(nn.Module):
    """The three maps of one modality's tokens (eq. 10): queries when it asks, keys and values when it answers.

    Queries and keys are read from the same tokens, so one matrix makes both.
    """

    def __init__(self, token_width: int, width: int, dropout: float) -> None:
        super().__init__()
        self.scale = width**-0.5
        self.query_and_key = nn.Linear(token_width, 2 * width, bias=False)
        self.value = nn.Linear(token_width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def queries_and_keys(self, tokens_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Return the queries and the keys, ``(B, T, W)`` each."""
        query_BTW, key_BTW = self.query_and_key(tokens_BTD).chunk(2, dim=2)
        return query_BTW, key_BTW

    def answer(self, query_BTW: Tensor, key_BTW: Tensor, tokens_BTD: Tensor) -> Tensor:
        """Return ``Attn_{i <- j}`` (eq. 11) of these tokens j to the other modality's queries, averaged over them.

        Everything after the softmax is linear, so the mean over the asking tokens is taken of the weights, and the
        value map comes last: the same numbers at half the cost. NOTE[DIFF]: dropout therefore leaves out an answering
        token for all that ask.

        Shape: ``(B, T_i, W), (B, T_j, W), (B, T_j, D) -> (B, W)``
        """
        weight_B1T = torch.softmax(query_BTW @ key_BTW.mT * self.scale, dim=2).mean(dim=1, keepdim=True)
        value_BW: Tensor = self.value((self.dropout(weight_B1T) @ tokens_BTD).squeeze(1))
        return value_BW


class NoEcgToken(nn.Module):
    """The learnt token of a stay without ECG. Shape: ``(B, 1, 1), 1 where there is no ECG -> (B, 1, D)``.

    It has a module of its own, one tensor in and one out: so Opacus finds its per-sample gradients.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token_D = nn.Parameter(torch.zeros(width))

    def forward(self, absent_B11: Tensor) -> Tensor:
        """Return the token where there is no ECG, else 0."""
        return self.token_D * absent_B11


class CrossModalAttention(nn.Module):
    """Both directions, concatenated, through a logistic output (eq. 12): log-odds of omega_2.

    A stay without ECG is represented by one learnt token; as all its copies are equal, softmax over them is the same as
    over one. Tokens come layer-normalised (``ModalityNetwork.tokens``).

    Args:
        ecg_width, ehr_width: token widths D of the two best levels.

    Shape: ``ecg (B, T_1, D_1), ehr (B, T_2, D_2), has_ecg (B,) -> (B, 1)``.

    Example:
        >>> head = CrossModalAttention(4, 6, width=8, dropout=0.0)
        >>> tuple(head((torch.zeros(3, 5, 4), torch.zeros(3, 7, 6), torch.tensor([1.0, 0.0, 1.0]))).shape)
        (3, 1)
    """

    def __init__(self, ecg_width: int, ehr_width: int, *, width: int, dropout: float) -> None:
        super().__init__()
        self.no_ecg = NoEcgToken(ecg_width)
        self.ecg = TokenMaps(ecg_width, width, dropout)
        self.ehr = TokenMaps(ehr_width, width, dropout)
        self.output = nn.Linear(2 * width, 1)

    def forward(self, inputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return ``omega_2_B1`` in log-odds."""
        ecg_BTD, ehr_BTD, has_ecg_B = inputs
        present = has_ecg_B[:, None, None]
        ecg_BTD = ecg_BTD * present + self.no_ecg(1.0 - present)
        ecg_query, ecg_key = self.ecg.queries_and_keys(ecg_BTD)
        ehr_query, ehr_key = self.ehr.queries_and_keys(ehr_BTD)
        ecg_asks_BW = self.ehr.answer(ecg_query, ehr_key, ehr_BTD)
        ehr_asks_BW = self.ecg.answer(ehr_query, ecg_key, ecg_BTD)
        out: Tensor = self.output(torch.cat([ecg_asks_BW, ehr_asks_BW], dim=1))
        return out
