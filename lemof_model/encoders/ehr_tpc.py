"""EHR TPC, temporal pointwise convolution (Rocheteau et al. 2021), over the hourly grid of the first day.

After ``models/tpc_model.py`` of EmmaRocheteau/TPC-LoS-prediction. Every layer looks back in time in each feature alone
(a causal dilated convolution with weights of the feature's own) and across features in each hour alone (a pointwise
map), and hands on all that came before: Z pointwise results join the F features and are convolved from then on.
The last map is read as there, hour by hour through one linear layer with the statics; here after each third of the
layers, and these hours are the level's tokens. The last hour, the one before the prediction, is the pooled vector.
NOTE[DIFF]: GroupNorm over a stay's whole map instead of the batch statistics that the reference uses even in
evaluation (a stay's prediction must not depend on its batch). Three narrower layers, not nine, for a step to fit two
cores: with a kernel of 4 they look back over 4, 13 and 31 hours, which is a whole first day. No dropout inside by
default. The hour of the day enters once, as the hour of admission among the statics.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lemof_model.aligned import AlignedLinear
from lemof_model.encoders.ehr_mlp import flat_row
from lemof_model.errors import ConfigError
from lemof_model.pyramid import EhrBatch, EncoderState, Inputs, Level, PyramidEncoder

HOURS_PER_DAY = 24.0
MAX_TOKENS = 64


class TPCLayer(nn.Module):
    """One temporal and one pointwise convolution of the same hours.

    Args:
        num_maps: feature maps F + Zt that are convolved in time; num_inputs: channels of each of them.
        num_pointwise_inputs: everything that the pointwise map sees.
        num_temporal: channels Y that each map gets; num_pointwise: results Z of the pointwise map.

    Shape: ``(B, maps * inputs, T), (B, pointwise inputs, T) -> (B, maps * Y, T), (B, Z, T)``.
    """

    def __init__(
        self,
        num_maps: int,
        num_inputs: int,
        num_pointwise_inputs: int,
        num_temporal: int,
        num_pointwise: int,
        kernel: int,
        dilation: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.padding = (kernel - 1) * dilation
        temporal = num_maps * num_temporal
        self.temporal = nn.Conv1d(num_maps * num_inputs, temporal, kernel, dilation=dilation, groups=num_maps)
        self.temporal_norm = nn.GroupNorm(1, temporal)
        self.pointwise = nn.Conv1d(num_pointwise_inputs, num_pointwise, 1)
        self.pointwise_norm = nn.GroupNorm(1, num_pointwise)
        self.dropout = nn.Dropout(dropout)

    def forward(self, maps_BCT: Tensor, everything_BCT: Tensor) -> tuple[Tensor, Tensor]:
        """Return the temporal and the pointwise results."""
        past = functional.pad(maps_BCT, (self.padding, 0))
        temporal = self.dropout(self.temporal_norm(self.temporal(past)))
        return temporal, self.pointwise_norm(self.pointwise(everything_BCT))


class TPC(PyramidEncoder):
    """Temporal pointwise convolutions; level k is read after k thirds of the layers.

    Args:
        num_channels: channels F of the grid.
        static_columns: the numeric features that enter as statics, beside all categories.
        num_categories: categories per categorical feature.
        num_layers: a multiple of three; layer i = 1, 2... looks back in steps of (i - 1) * (kernel - 1) hours, the
            first in steps of one.
        num_temporal: temporal channels Y per feature; num_pointwise: pointwise results Z per layer.
        width: of tokens and pooled vectors (``last_linear`` there).
        temporal_dropout: inside the layers; dropout: on the pooled vectors (as much as there for eICU).

    Shape: ``EhrBatch -> 3 x Level((B, T, width), (B, width))``, T hours; more than 64 are averaged to 64 tokens.

    Example:
        >>> hours = torch.zeros(2, 24, 3)
        >>> batch = EhrBatch(torch.zeros(2, 5), torch.zeros(2, 5), torch.zeros(2, 1, dtype=torch.int64), hours, hours)
        >>> levels = TPC(3, (0, 4), (4,), width=8)(batch)
        >>> tuple(levels[2].tokens_BTD.shape), tuple(levels[2].pooled_BD.shape)
        ((2, 24, 8), (2, 8))
    """

    uses_grid = True

    def __init__(
        self,
        num_channels: int,
        static_columns: tuple[int, ...],
        num_categories: tuple[int, ...],
        num_layers: int = 3,
        kernel: int = 4,
        num_temporal: int = 4,
        num_pointwise: int = 8,
        width: int = 32,
        temporal_dropout: float = 0.0,
        dropout: float = 0.45,
    ) -> None:
        super().__init__()
        if num_layers < 3 or num_layers % 3:
            raise ConfigError(rule="num_layers must be a multiple of 3", got=f"{num_layers}")
        self.token_widths = (width, width, width)
        self.pooled_widths = (width, width, width)
        self.static_columns, self.num_categories = list(static_columns), num_categories
        num_statics = 2 * len(static_columns) + sum(num_categories)
        num_always = 2 * num_channels + 1 + num_statics  # values, their freshness, the hour, the statics
        self.layers, self.reads, self.read_norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        maps, inputs, before, widths = num_channels, 2, 0, []
        sizes = {"num_temporal": num_temporal, "num_pointwise": num_pointwise, "kernel": kernel}
        for index in range(num_layers):
            dilation = max(index * (kernel - 1), 1)
            self.layers.append(
                TPCLayer(maps, inputs, before + num_always, **sizes, dilation=dilation, dropout=temporal_dropout)
            )
            before = maps * num_temporal + num_pointwise
            maps, inputs = maps + num_pointwise, 1 + num_temporal
            if (index + 1) % (num_layers // 3) == 0:
                widths.append(maps * inputs)
                self.reads.append(AlignedLinear(widths[-1] + num_statics, width))
                self.read_norms.append(nn.LayerNorm(width))
        self.state_widths = (widths[0], widths[1], widths[2])
        self.dropout = nn.Dropout(dropout)

    def start(self, inputs: Inputs) -> EncoderState:
        """Return the grid's maps ``(B, D, T)``, values beside their freshness."""
        assert isinstance(inputs, EhrBatch)
        value, fresh = inputs.grid_BTG.transpose(1, 2), inputs.measured_BTG.transpose(1, 2)
        batch, _, num_hours = value.shape
        numeric, missing = inputs.numeric_BF[:, self.static_columns], inputs.missing_BF[:, self.static_columns]
        statics = flat_row(numeric, missing, inputs.category_BF, self.num_categories)
        statics = statics[:, :, None].expand(-1, -1, num_hours)
        elapsed = (torch.arange(num_hours) / HOURS_PER_DAY).expand(batch, 1, num_hours)
        always = torch.cat([elapsed, value, fresh, statics], dim=1)
        maps = torch.stack([value, fresh], dim=2).flatten(1, 2)
        return EncoderState(maps, (value, always, always, statics))

    def advance(self, number: int, state: EncoderState) -> EncoderState:
        """Return the maps after that third of the layers.

        Carried: the results that later layers see by a way past the maps, as in a DenseNet, and the inputs.
        """
        maps, (skip, everything, always, statics) = state.features, state.carried
        num_layers = len(self.layers) // 3
        for layer in list(self.layers)[(number - 1) * num_layers : number * num_layers]:
            temporal, point = layer(maps, everything)
            old = torch.cat([skip[:, :, None], temporal.unflatten(1, (skip.shape[1], -1))], dim=2)
            new = point[:, :, None].expand(-1, -1, old.shape[2], -1)
            maps = functional.relu(torch.cat([old, new], dim=1)).flatten(1, 2)
            skip, everything = torch.cat([skip, point], dim=1), torch.cat([temporal, point, always], dim=1)
        return EncoderState(maps, (skip, everything, always, statics))

    def level(self, number: int, state: EncoderState) -> Level:
        """Return the hours of the maps, read beside the statics, and the last of them."""
        _, _, _, statics = state.carried
        read = self.reads[number - 1](torch.cat([statics, state.features], dim=1).transpose(1, 2))
        hours_BTD = functional.relu(self.read_norms[number - 1](read))
        tokens = functional.adaptive_avg_pool1d(hours_BTD.transpose(1, 2), min(hours_BTD.shape[1], MAX_TOKENS))
        return Level(tokens.transpose(1, 2), self.dropout(hours_BTD[:, -1]))
