"""ECG LSTM: three recurrent layers over a strided record, each of them a level.

After ``RNN1d`` of the PTB-XL benchmark (Strodthoff et al. 2021): unidirectional, pooled as mean, maximum and last
hidden state. NOTE[DIFF]: two strided convolutions make 100 steps of the 1000 samples (a recurrent step costs the same
whatever it reads); narrower, and three layers of their own instead of ``num_layers``, which shows the last one's alone.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lemof_model.encoders.ecg_levels import NUM_LEADS, Augmentation, concat_pool, group_norm, time_tokens
from lemof_model.pyramid import EncoderState, Inputs, Level, PyramidEncoder


class EcgLstm(PyramidEncoder):
    """Three stacked LSTM layers; level k is the hidden sequence of layer k.

    Args:
        width: hidden units of every layer, a multiple of 8.
        num_tokens: time tokens per level at most.
        dropout: applied to the pooled vectors before the heads; augment: strength of ``Augmentation``, 0 is none.

    Shape: ``(B, 12, 1000) -> 3 x Level((B, T, width), (B, 3 * width))`` with T = ``num_tokens``.

    Example:
        >>> levels = EcgLstm(width=8)(torch.zeros(2, 12, 1000))
        >>> tuple(levels[2].tokens_BTD.shape), tuple(levels[2].pooled_BD.shape)
        ((2, 16, 8), (2, 24))
    """

    channel_axis = 2
    lr_factor = 2.5
    inference_batch = 192

    def __init__(self, width: int = 32, num_tokens: int = 16, dropout: float = 0.2, augment: float = 1.0) -> None:
        super().__init__()
        self.token_widths = (width, width, width)
        self.pooled_widths = (3 * width, 3 * width, 3 * width)
        self.state_widths = self.token_widths
        self.num_tokens = num_tokens
        self.stem = nn.Conv1d(NUM_LEADS, width, 7, stride=5, padding=3, bias=False)
        self.stem_norm = group_norm(width)
        self.step = nn.Conv1d(width, width, 5, stride=2, padding=2, bias=False)
        self.step_norm = group_norm(width)
        self.layers = nn.ModuleList(nn.LSTM(width, width, batch_first=True) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        self.augment = Augmentation(augment)

    def start(self, inputs: Inputs) -> EncoderState:
        """Return the sequence ``(B, T, D)`` that the convolutions make of an ECG batch ``ecg_BCT`` in mV."""
        assert isinstance(inputs, Tensor)
        x_BDT = functional.relu(self.stem_norm(self.stem(self.augment(inputs))))
        return EncoderState(functional.relu(self.step_norm(self.step(x_BDT))).transpose(1, 2))

    def advance(self, number: int, state: EncoderState) -> EncoderState:
        """Return the hidden sequence ``(B, T, D)`` of that layer."""
        hidden_BTD, _ = self.layers[number - 1](state.features)
        return EncoderState(hidden_BTD)

    def level(self, number: int, state: EncoderState) -> Level:
        """Return the tokens and the pooled vector of the sequence."""
        x_BDT = state.features.transpose(1, 2)
        pooled = torch.cat([concat_pool(x_BDT), x_BDT[:, :, -1]], dim=1)
        return Level(time_tokens(x_BDT, self.num_tokens), self.dropout(pooled))
