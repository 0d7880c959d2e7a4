"""ECG baseline CNN: a fully convolutional network whose three blocks are the three levels.

After ``fcn_wang`` of the PTB-XL benchmark (Strodthoff et al. 2021; Wang et al. 2017): kernels 8, 5, 3 with the middle
block twice as wide, mean and maximum pooled. NOTE[DIFF]: GroupNorm instead of BatchNorm (federated averages, per-sample
gradients); blocks are strided and a quarter as wide (a training step of 64 stays fits 60 ms on one core). Blocks 2 and
3 are dilated: a step of level 3 sees 168 samples, about two beats; undilated it would see 40, less than one.
"""

from torch import Tensor, nn
from torch.nn import functional

from lemof_model.encoders.ecg_levels import NUM_LEADS, Augmentation, concat_pool, group_norm, time_tokens
from lemof_model.pyramid import EncoderState, Inputs, Level, PyramidEncoder

KERNELS = (8, 5, 3)
STRIDES = (4, 2, 2)
DILATIONS = (1, 2, 8)


class EcgCnn(PyramidEncoder):
    """Three convolutions, each with a norm and a ReLU; level k is the map after block k.

    Args:
        width: channels of the first and last block, a multiple of 8; the middle one has twice as many.
        num_tokens: time tokens per level at most.
        dropout: applied to the pooled vectors before the heads; augment: strength of ``Augmentation``, 0 is none.

    Shape: ``(B, 12, 1000) -> 3 x Level((B, T, D), (B, 2 D))`` with D = ``width, 2 width, width``, T = ``num_tokens``.

    Example:
        >>> import torch
        >>> levels = EcgCnn(width=8)(torch.zeros(2, 12, 1000))
        >>> [tuple(level.tokens_BTD.shape) for level in levels]
        [(2, 16, 8), (2, 16, 16), (2, 16, 8)]
    """

    inference_batch = 192

    def __init__(self, width: int = 32, num_tokens: int = 16, dropout: float = 0.2, augment: float = 1.0) -> None:
        super().__init__()
        self.token_widths = (width, 2 * width, width)
        self.pooled_widths = (2 * width, 4 * width, 2 * width)
        self.state_widths = self.token_widths
        self.num_tokens = num_tokens
        self.convs = nn.ModuleList(
            nn.Conv1d(n_in, n_out, kernel, stride, dilation * ((kernel - 1) // 2), dilation, bias=False)
            for n_in, n_out, kernel, stride, dilation in zip(
                (NUM_LEADS, *self.token_widths[:2]), self.token_widths, KERNELS, STRIDES, DILATIONS, strict=True
            )
        )
        self.norms = nn.ModuleList(group_norm(channels) for channels in self.token_widths)
        self.dropout = nn.Dropout(dropout)
        self.augment = Augmentation(augment)

    def start(self, inputs: Inputs) -> EncoderState:
        """Return an ECG batch ``ecg_BCT`` in mV as the first block sees it."""
        assert isinstance(inputs, Tensor)
        return EncoderState(self.augment(inputs))

    def advance(self, number: int, state: EncoderState) -> EncoderState:
        """Return the map ``(B, D, T)`` after that block."""
        conv, norm = self.convs[number - 1], self.norms[number - 1]
        return EncoderState(functional.relu(norm(conv(state.features))))

    def level(self, number: int, state: EncoderState) -> Level:
        """Return the tokens and the pooled vector of the map."""
        x_BDT = state.features
        return Level(time_tokens(x_BDT, self.num_tokens), self.dropout(concat_pool(x_BDT)))
