"""ECG ResNet: a residual 1-d network whose three blocks are the three levels.

After ``resnet1d_wang`` of the PTB-XL benchmark (Strodthoff et al. 2021; kernels 5 and 3 in a block, stem kernel 7).
NOTE[DIFF]: GroupNorm instead of BatchNorm (federated averages, per-sample gradients), a strided stem and narrower
blocks (a training step of 64 stays fits 60 ms on one core); the first block is strided too, so that a step of level 3
sees 2.3 s, which takes in the time from one beat to the next.
"""

from torch import Tensor, nn
from torch.nn import functional

from lemof_model.encoders.ecg_levels import NUM_LEADS, Augmentation, concat_pool, group_norm, time_tokens
from lemof_model.pyramid import EncoderState, Inputs, Level, PyramidEncoder


class ResidualBlock(nn.Module):
    """Conv 5, conv 3, and a skip that is strided like them.

    Shape: ``(B, D_in, T) -> (B, D_out, ceil(T / stride))``.
    """

    def __init__(self, num_inputs: int, num_outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(num_inputs, num_outputs, 5, stride=stride, padding=2, bias=False)
        self.norm1 = group_norm(num_outputs)
        self.conv2 = nn.Conv1d(num_outputs, num_outputs, 3, padding=1, bias=False)
        self.norm2 = group_norm(num_outputs)
        self.skip = nn.Conv1d(num_inputs, num_outputs, 1, stride=stride, bias=False)
        self.skip_norm = group_norm(num_outputs)

    def forward(self, x_BDT: Tensor) -> Tensor:
        """Return the block's map."""
        y = functional.relu(self.norm1(self.conv1(x_BDT)))
        y = self.norm2(self.conv2(y))
        return functional.relu(y + self.skip_norm(self.skip(x_BDT)))


class EcgResNet(PyramidEncoder):
    """Three residual blocks over a strided stem; level k is the map after block k.

    Args:
        width: channels of every block, a multiple of 8.
        num_tokens: time tokens per level at most.
        dropout: applied to the pooled vectors before the heads; augment: strength of ``Augmentation``, 0 is none.

    Shape: ``(B, 12, 1000) -> 3 x Level((B, T, width), (B, 2 * width))`` with T = ``num_tokens``.

    Example:
        >>> import torch
        >>> levels = EcgResNet(width=8)(torch.zeros(2, 12, 1000))
        >>> [tuple(level.tokens_BTD.shape) for level in levels]
        [(2, 16, 8), (2, 16, 8), (2, 16, 8)]
    """

    inference_batch = 192

    def __init__(self, width: int = 32, num_tokens: int = 16, dropout: float = 0.2, augment: float = 1.0) -> None:
        super().__init__()
        self.token_widths = (width, width, width)
        self.pooled_widths = (2 * width, 2 * width, 2 * width)
        self.state_widths = self.token_widths
        self.num_tokens = num_tokens
        self.stem = nn.Conv1d(NUM_LEADS, width, 7, stride=4, padding=3, bias=False)
        self.stem_norm = group_norm(width)
        self.blocks = nn.ModuleList(ResidualBlock(width, width, stride) for stride in (2, 2, 2))
        self.dropout = nn.Dropout(dropout)
        self.augment = Augmentation(augment)

    def start(self, inputs: Inputs) -> EncoderState:
        """Return the stem's map of an ECG batch ``ecg_BCT`` in mV."""
        assert isinstance(inputs, Tensor)
        return EncoderState(functional.relu(self.stem_norm(self.stem(self.augment(inputs)))))

    def advance(self, number: int, state: EncoderState) -> EncoderState:
        """Return the map ``(B, D, T)`` after that block."""
        return EncoderState(self.blocks[number - 1](state.features))

    def level(self, number: int, state: EncoderState) -> Level:
        """Return the tokens and the pooled vector of the map."""
        x_BDT = state.features
        return Level(time_tokens(x_BDT, self.num_tokens), self.dropout(concat_pool(x_BDT)))
