"""EHR encoders against their references with the same weights: a package where one exists, else a slow version.

The slow versions are written from the paper or the reference file, one stay at a time, in float64.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pytorch_tabnet.tab_network import TabNetEncoder
from rtdl_revisiting_models import MLP as ReferenceMLP
from rtdl_revisiting_models import FTTransformer as ReferenceFTTransformer
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from lemof_model import training
from lemof_model.encoders.ehr_ft_transformer import FTTransformer
from lemof_model.encoders.ehr_mlp import MLP
from lemof_model.encoders.ehr_tab_transformer import TabTransformer
from lemof_model.encoders.ehr_tabnet import TabNet, sparsemax
from lemof_model.encoders.ehr_tpc import TPC
from lemof_model.encoders.registry import ENCODERS, build_network
from lemof_model.pyramid import EhrBatch, ModalityNetwork, PyramidEncoder
from lemof_model.study import EncoderSpec, TrainingSpec
from tests.inputs import inputs_of

Array = NDArray[np.float64]
Module = TypeVar("Module", bound=nn.Module)

NUM_NUMERIC, NUM_CATEGORIES, NUM_CHANNELS, NUM_HOURS = 5, (3, 4), 3, 7
STATIC_COLUMNS = (0, 3)
EACH_ALONE = tuple((column,) for column in range(NUM_NUMERIC))
CONCEPTS = ((0, 2, 4), (3,), (1,))


def small_batch(num_stays: int = 6, seed: int = 0) -> EhrBatch:
    generator = torch.Generator().manual_seed(seed)
    numeric = torch.randn(num_stays, NUM_NUMERIC, generator=generator)
    missing = (torch.rand(numeric.shape, generator=generator) < 0.3).float()
    codes = [torch.randint(n, (num_stays, 1), generator=generator) for n in NUM_CATEGORIES]
    hours = torch.randn(2, num_stays, NUM_HOURS, NUM_CHANNELS, generator=generator)
    return EhrBatch(numeric * (1 - missing), missing, torch.cat(codes, dim=1), hours[0], hours[1].abs())


def scrambled(module: Module) -> Module:
    """Every weight drawn anew, so that no norm is 1, no bias 0 and nothing agrees by chance."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.1, 0.5)
    return module.eval()


def copy_weights(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Copy ours (second) into the reference's (first)."""
    with torch.no_grad():
        for theirs, ours in pairs:
            assert theirs.shape == ours.shape
            theirs.copy_(ours)


def as_arrays(module: nn.Module) -> dict[str, Array]:
    return {name: value.detach().numpy().astype(np.float64) for name, value in module.state_dict().items()}


def assert_levels(encoder: PyramidEncoder, batch: EhrBatch, tokens: list[Array], pooled: list[Array]) -> None:
    for number, level in enumerate(encoder(batch)):
        np.testing.assert_allclose(level.tokens_BTD.detach().numpy(), tokens[number], rtol=1e-4, atol=2e-5)
        np.testing.assert_allclose(level.pooled_BD.detach().numpy(), pooled[number], rtol=1e-4, atol=2e-5)


# --- FT-Transformer and MLP: rtdl-revisiting-models -------------------------------------------------------------------


def reference_ft_transformer(ours: ModalityNetwork, num_blocks: int) -> Any:
    """The package's model of the same width, whose blocks and head have the weights of ours."""
    encoder: Any = ours.encoder
    theirs: Any = ReferenceFTTransformer(
        n_cont_features=NUM_NUMERIC, cat_cardinalities=list(NUM_CATEGORIES), d_out=1, n_blocks=num_blocks, d_block=8,
        attention_n_heads=2, attention_dropout=0.2, ffn_dropout=0.1, residual_dropout=0.0,
        ffn_d_hidden_multiplier=4 / 3,
    ).eval()  # fmt: skip
    nn.init.zeros_(theirs.cat_embeddings.bias)  # ours has none beside the table
    pairs = [
        (theirs.cls_embedding.weight, encoder.feature_tokens.class_token_D),
        (theirs.cont_embeddings.weight, encoder.feature_tokens.weight_FD),
        (theirs.cont_embeddings.bias, encoder.feature_tokens.bias_CD),
    ]
    modules = list(zip(theirs.cat_embeddings.embeddings, encoder.embeddings, strict=True))
    for number, (block, our_block) in enumerate(zip(theirs.backbone.blocks, encoder.blocks, strict=False)):
        attention, our_attention = block["attention"], our_block.attention
        modules += [
            (attention.W_q, our_attention.query), (attention.W_k, our_attention.key),
            (attention.W_v, our_attention.value), (attention.W_out, our_attention.out),
            (block["ffn_normalization"], our_block.ffn_norm),
            (block["ffn"].linear1, our_block.ffn_in), (block["ffn"].linear2, our_block.ffn_out),
        ]  # fmt: skip
        if number:
            modules.append((block["attention_normalization"], our_block.attention_norm))
    if num_blocks <= 3:
        modules.append((theirs.backbone.output.normalization, encoder.norms[num_blocks - 1]))
        modules.append((theirs.backbone.output.linear, ours.heads[num_blocks - 1]))
    for their_module, our_module in modules:
        pairs += list(zip(their_module.parameters(), our_module.parameters(), strict=True))
    copy_weights(pairs)
    return theirs


def test_ft_transformer_levels_are_those_of_the_reference() -> None:
    network = scrambled(ModalityNetwork(FTTransformer(EACH_ALONE, NUM_CATEGORIES, (), width=8, num_heads=2)))
    batch = small_batch()
    batch = batch._replace(missing_BF=torch.zeros_like(batch.missing_BF))  # the reference knows no missing values
    with torch.no_grad():
        for level in (1, 2, 3):  # a level's log-odds is the whole reference of that depth
            theirs = reference_ft_transformer(network, level)(batch.numeric_BF, batch.category_BF)
            torch.testing.assert_close(network(batch)[:, level - 1 : level], theirs, rtol=1e-4, atol=1e-5)
        deeper: Any = reference_ft_transformer(network, 4)  # its last block asks for the class token alone, ours never
        tokens: list[Tensor] = []
        for block in deeper.backbone.blocks[:3]:
            block["output"].register_forward_hook(lambda module, inputs, output: tokens.append(output))
        deeper(batch.numeric_BF, batch.category_BF)
        for level in (1, 2, 3):
            ours = network.encoder(batch)[level - 1].tokens_BTD
            torch.testing.assert_close(ours, tokens[level - 1], rtol=1e-4, atol=1e-5)


def test_a_concept_is_the_sum_of_its_features_and_a_system_the_mean_of_its_concepts() -> None:
    encoder: Any = scrambled(FTTransformer(CONCEPTS, NUM_CATEGORIES, ((0, 3), (1, 2, 4)), width=8, num_heads=2))
    batch, tokens = small_batch(), encoder.feature_tokens
    with torch.no_grad():
        found = tokens(torch.cat([batch.numeric_BF, batch.missing_BF], dim=1))
        torch.testing.assert_close(found[:, 0], tokens.class_token_D.expand(6, -1))
        for place, columns in enumerate(CONCEPTS):
            expected = tokens.bias_CD[place].expand(6, -1)
            for column in columns:
                expected = expected + batch.numeric_BF[:, column : column + 1] * tokens.weight_FD[column]
                expected = expected + batch.missing_BF[:, column : column + 1] * tokens.missing_FD[column]
            torch.testing.assert_close(found[:, 1 + place], expected)
        seen: list[Tensor] = []
        encoder.blocks[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
        shown = encoder(batch)[1].tokens_BTD
    assert shown.shape == (6, 3, 8)
    torch.testing.assert_close(shown[:, 0], seen[0][:, 0])
    torch.testing.assert_close(shown[:, 1], seen[0][:, [1, 4]].mean(dim=1))
    torch.testing.assert_close(shown[:, 2], seen[0][:, [2, 3, 5]].mean(dim=1))


def test_mlp_levels_are_the_blocks_of_the_reference() -> None:
    encoder, batch = scrambled(MLP(NUM_NUMERIC, NUM_CATEGORIES, width=12, num_tokens=3)), small_batch()
    codes = [np.eye(n)[batch.category_BF[:, i].numpy()] for i, n in enumerate(NUM_CATEGORIES)]
    x = torch.tensor(np.concatenate([batch.numeric_BF, batch.missing_BF, *codes], axis=1), dtype=torch.float32)
    theirs = ReferenceMLP(d_in=x.shape[1], d_out=None, n_blocks=3, d_block=12, dropout=0.3).eval()
    for block, layer in zip(theirs.blocks, encoder.layers, strict=True):
        copy_weights(list(zip(block.parameters(), layer.parameters(), strict=True)))
    pooled = []
    for block in theirs.blocks:
        x = block(x)
        pooled.append(x.detach().numpy())
    assert_levels(encoder, batch, [part.reshape(6, 3, 4) for part in pooled], pooled)


# --- TabNet: pytorch-tabnet -------------------------------------------------------------------------------------------


class Affine(nn.Module):
    """What is left of a norm once statistics are left out."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias


def test_tabnet_steps_and_sparsity_are_those_of_the_reference_without_the_norms_statistics() -> None:
    width, num_features = 6, NUM_NUMERIC + len(NUM_CATEGORIES)
    encoder: Any = scrambled(TabNet(NUM_NUMERIC, NUM_CATEGORIES, width=width, num_tokens=2, sparsity=0.5))
    theirs = TabNetEncoder(num_features, 1, n_d=width, n_a=width, n_steps=3, gamma=1.3, n_independent=2, n_shared=2)
    theirs.eval()
    pairs, norms = [], []
    transformers = [theirs.initial_splitter, *theirs.feat_transformers]
    for transformer, ours in zip(transformers, encoder.transformers, strict=True):
        layers = [*transformer.shared.glu_layers, *transformer.specifics.glu_layers]
        pairs += [(layer.fc.weight, own.weight) for layer, own in zip(layers[2:], ours.own, strict=True)]
        pairs += [(layer.fc.weight, shared.weight) for layer, shared in zip(layers[:2], encoder.shared, strict=True)]
        norms += [(layer.bn.bn, norm) for layer, norm in zip(layers, ours.norms, strict=True)]
        ours.norms = nn.ModuleList(Affine(norm) for norm in ours.norms)
    for attention, linear, norm in zip(
        theirs.att_transformers, encoder.attention, encoder.attention_norms, strict=True
    ):
        pairs.append((attention.fc.weight, linear.weight))
        norms.append((attention.bn.bn, norm))
    encoder.attention_norms = nn.ModuleList(Affine(norm) for norm in encoder.attention_norms)
    copy_weights(
        pairs + [(bn.weight, norm.weight) for bn, norm in norms] + [(bn.bias, norm.bias) for bn, norm in norms]
    )
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eps = 0.0  # running mean 0 and variance 1: the affine part is left
    batch = small_batch()
    codes = [table.weight[batch.category_BF[:, i]] for i, table in enumerate(encoder.embeddings)]
    filled = torch.where(batch.missing_BF == 1, encoder.missing.value_F, batch.numeric_BF)
    with torch.no_grad():
        steps, negative_entropy = theirs(torch.cat([filled, *codes], dim=1))
        decided = [part.numpy() for part in torch.stack(steps).cumsum(dim=0)]
        assert_levels(encoder, batch, [part.reshape(6, 2, 3) for part in decided], decided)
        assert encoder.penalty_B is not None and encoder.penalty_B.shape == (6,)
        torch.testing.assert_close(encoder.penalty_B.mean(), -0.5 * negative_entropy, rtol=1e-4, atol=1e-6)
        assert float(negative_entropy) < -0.01


def test_sparsemax_is_the_projection_onto_the_simplex() -> None:
    score = np.random.default_rng(0).normal(size=(40, 9)) * np.logspace(-2, 2, 40)[:, None]
    score[3], score[4, :3] = 1.0, 50.0  # ties
    found = sparsemax(torch.tensor(score)).numpy()
    for row, z in enumerate(score):  # the threshold at which what is above it adds up to 1, by bisection
        low, high = z.min() - 1.0, z.max()
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if np.maximum(z - middle, 0).sum() > 1 else (low, middle)
        np.testing.assert_allclose(found[row], np.maximum(z - low, 0.0), atol=1e-9)
    assert (found == 0).any(axis=1).sum() > 20
    apart = torch.tensor(score[10:20], requires_grad=True)
    assert torch.autograd.gradcheck(sparsemax, (apart,))


def test_tabnets_shared_layers_are_there_once() -> None:
    names = [name for name, _ in TabNet(NUM_NUMERIC, NUM_CATEGORIES).named_modules(remove_duplicate=False)]
    assert [name for name in names if "shared." in name] == ["shared.0", "shared.1"]


# --- TabTransformer: torch's layer of Vaswani et al. 2017, the rest from the paper ------------------------------------


def reference_layer(ours: Any, width: int, num_heads: int) -> nn.TransformerEncoderLayer:
    theirs = nn.TransformerEncoderLayer(width, num_heads, 4 * width, activation="relu", batch_first=True).eval()
    attention = theirs.self_attn
    assert attention.in_proj_weight is not None
    qkv = [ours.attention.query, ours.attention.key, ours.attention.value]
    pairs = [
        (attention.in_proj_weight, torch.cat([linear.weight for linear in qkv])),
        (attention.in_proj_bias, torch.cat([linear.bias for linear in qkv])),
    ]
    for their_module, our_module in (
        (attention.out_proj, ours.attention.out),
        (theirs.linear1, ours.ffn_in), (theirs.linear2, ours.ffn_out),
        (theirs.norm1, ours.attention_norm), (theirs.norm2, ours.ffn_norm),
    ):  # fmt: skip
        pairs += list(zip(their_module.parameters(), our_module.parameters(), strict=True))
    copy_weights(pairs)
    return theirs


def test_tab_transformer_is_that_of_the_paper_with_an_mlp_at_every_level() -> None:
    """Huang et al. 2020, section 2: column embedding ``[c_phi, w_phi_j]``, six layers, and an MLP over the contextual
    embeddings beside the layer-normalised numbers (so also lucidrains/tab-transformer-pytorch,
    tab_transformer_pytorch.py, end of ``TabTransformer.forward``)."""
    encoder, batch = (
        scrambled(TabTransformer(NUM_NUMERIC, NUM_CATEGORIES, width=16, num_heads=4, num_tokens=3, pooled_width=7)),
        small_batch(),
    )
    w = as_arrays(encoder)
    rows = []
    for codes in batch.category_BF.tolist():
        columns = [
            np.concatenate([w["embedding.columns.weight"][i], w[f"embedding.categories.{i}.weight"][code]])
            for i, code in enumerate(codes)
        ]
        rows.append(np.stack(columns))
    x = torch.tensor(np.stack(rows), dtype=torch.float32)
    number = batch.numeric_BF.numpy().astype(np.float64)
    centred = number - number.mean(axis=1, keepdims=True)
    normed = centred / np.sqrt(centred.var(axis=1, keepdims=True) + 1e-5)
    normed = normed * w["numeric_norm.weight"] + w["numeric_norm.bias"]
    tokens, pooled = [], []
    for level in range(3):
        with torch.no_grad():
            for layer in encoder.layers[2 * level : 2 * level + 2]:
                x = reference_layer(layer, 16, 4)(x)
        seen = np.concatenate([x.numpy().reshape(6, -1), normed, batch.missing_BF.numpy()], axis=1)
        hidden = np.maximum(seen @ w[f"mlp_in.{level}.weight"].T + w[f"mlp_in.{level}.bias"], 0.0)
        pooled.append(np.maximum(hidden @ w[f"mlp_out.{level}.weight"].T + w[f"mlp_out.{level}.bias"], 0.0))
        tokens.append(np.concatenate([x.numpy(), hidden.reshape(6, 3, 16)], axis=1))
    assert_levels(encoder, batch, tokens, pooled)


# --- TPC: slow, from the reference file -------------------------------------------------------------------------------


def whole_map_norm(rows: list[list[float]], weight: Array, bias: Array) -> Array:
    """GroupNorm with one group: mean and variance over all channels and hours of a stay."""
    values = np.array(rows)
    deviation = np.sqrt(((values - values.mean()) ** 2).mean() + 1e-5)
    return (values - values.mean()) / deviation * weight[:, None] + bias[:, None]


def slow_tpc_layer(w: dict[str, Array], name: str, maps: list[Any], seen: Array, dilation: int) -> tuple[Any, Array]:
    """One stay. ``maps``: per feature its channels over time; ``seen``: what the pointwise part sees, by hour."""
    weight, bias = w[f"{name}.temporal.weight"], w[f"{name}.temporal.bias"]
    per_map, kernel, num_hours = len(weight) // len(maps), weight.shape[2], seen.shape[1]
    temporal = []
    for feature, channels in enumerate(maps):
        for out in range(feature * per_map, (feature + 1) * per_map):  # weights of the feature's own: groups = F + Zt
            hours = []
            for hour in range(num_hours):
                total = bias[out]
                for channel, series in enumerate(channels):
                    for tap in range(kernel):
                        when = hour - (kernel - 1 - tap) * dilation  # padded on the left, so never the future
                        total += weight[out, channel, tap] * series[when] if when >= 0 else 0.0
                hours.append(total)
            temporal.append(hours)
    normed = whole_map_norm(temporal, w[f"{name}.temporal_norm.weight"], w[f"{name}.temporal_norm.bias"])
    matrix = w[f"{name}.pointwise.weight"][:, :, 0]
    point = [[matrix[z] @ seen[:, hour] + w[f"{name}.pointwise.bias"][z] for hour in range(num_hours)]
             for z in range(len(matrix))]  # fmt: skip
    normed_point = whole_map_norm(point, w[f"{name}.pointwise_norm.weight"], w[f"{name}.pointwise_norm.bias"])
    return [list(part) for part in np.split(normed, len(maps))], normed_point


def slow_tpc(encoder: TPC, batch: EhrBatch, stay: int, num_layers: int, kernel: int) -> list[Array]:
    """Hours of the three levels of one stay.

    After EmmaRocheteau/TPC-LoS-prediction, models/tpc_model.py at 09bbf44: ``init_tpc`` (dilations),
    ``create_temp_pointwise_layers`` (who sees what), ``forward`` (interleaved values and masks first, read-out last),
    and ``temp_pointwise`` (skips, pointwise results repeated for every channel), without the hour of the day.
    """
    w = as_arrays(encoder)
    value, fresh = batch.grid_BTG[stay].numpy().T.astype(np.float64), batch.measured_BTG[stay].numpy().T
    codes = [np.eye(n)[batch.category_BF[stay, i]] for i, n in enumerate(NUM_CATEGORIES)]
    columns = list(STATIC_COLUMNS)
    flat = np.concatenate([batch.numeric_BF[stay].numpy()[columns], batch.missing_BF[stay].numpy()[columns], *codes])
    num_hours = value.shape[1]
    flat_by_hour = np.repeat(flat[:, None], num_hours, axis=1)
    original = np.concatenate([np.arange(num_hours)[None] / 24.0, value, fresh, flat_by_hour])
    maps, skip, seen = [[v, f] for v, f in zip(value, fresh, strict=True)], list(value), original
    levels: list[Array] = []
    for index in range(num_layers):
        dilation = index * (kernel - 1) if index > 0 else 1
        temporal, point = slow_tpc_layer(w, f"layers.{index}", maps, seen, dilation)
        num_copies = 1 + len(temporal[0])
        maps = [[np.maximum(s, 0.0), *np.maximum(t, 0.0)] for s, t in zip(skip, temporal, strict=True)]
        maps += [[np.maximum(p, 0.0)] * num_copies for p in point]
        skip = skip + list(point)
        seen = np.concatenate([np.concatenate(temporal), point, original])
        if (index + 1) % (num_layers // 3) == 0:
            level, hours = len(levels), []
            for hour in range(num_hours):
                read = np.concatenate([flat, [series[hour] for channels in maps for series in channels]])
                out = w[f"reads.{level}.weight"] @ read + w[f"reads.{level}.bias"]
                out = (out - out.mean()) / np.sqrt(out.var() + 1e-5)
                hours.append(np.maximum(out * w[f"read_norms.{level}.weight"] + w[f"read_norms.{level}.bias"], 0.0))
            levels.append(np.stack(hours))
    return levels


@pytest.mark.parametrize(("num_layers", "kernel"), [(3, 4), (6, 3)])
def test_tpc_is_that_of_the_reference_file(num_layers: int, kernel: int) -> None:
    sizes: dict[str, int] = {"num_layers": num_layers, "kernel": kernel, "num_temporal": 2, "num_pointwise": 2}
    encoder = scrambled(TPC(NUM_CHANNELS, STATIC_COLUMNS, NUM_CATEGORIES, width=4, **sizes))
    batch = small_batch(3)
    levels = [slow_tpc(encoder, batch, stay, num_layers, kernel) for stay in range(3)]
    tokens = [np.stack([stay[number] for stay in levels]) for number in range(3)]
    assert_levels(encoder, batch, tokens, [part[:, -1] for part in tokens])


def test_tpc_averages_a_long_window_to_sixty_four_tokens() -> None:
    encoder = TPC(NUM_CHANNELS, STATIC_COLUMNS, NUM_CATEGORIES, width=4).eval()
    hours = torch.randn(2, 128, NUM_CHANNELS, generator=torch.Generator().manual_seed(0))
    level = encoder(small_batch(2)._replace(grid_BTG=hours, measured_BTG=hours.abs()))[0]
    assert level.tokens_BTD.shape == (2, 64, 4)


# --- What they learn --------------------------------------------------------------------------------------------------


def planted(num_stays: int) -> tuple[EhrBatch, NDArray[np.int8]]:
    """Long stays differ in a product of two numbers, in no number alone, and in the slope of one channel."""
    batch = inputs_of("ehr", num_stays, seed=3)
    assert isinstance(batch, EhrBatch)
    numeric, grid = batch.numeric_BF.clone(), batch.grid_BTG.clone()
    sign = torch.sign(torch.randn(num_stays, 2, generator=torch.Generator().manual_seed(4)))
    long_stay = sign[:, 0] == sign[:, 1]
    numeric[:, [7, 40]] = sign * (0.5 + numeric[:, [7, 40]].abs())
    grid[:, :, 5] += torch.linspace(-1.0, 1.0, grid.shape[1]) * torch.where(long_stay, 1.0, -1.0)[:, None]
    return batch._replace(numeric_BF=numeric, grid_BTG=grid), long_stay.numpy().astype(np.int8)


@pytest.mark.parametrize("name", sorted(ENCODERS["ehr"]))
def test_every_level_fits_sixty_four_stays(name: str) -> None:
    batch, long_stay = planted(64)
    network = build_network("ehr", EncoderSpec(name), seed=1)
    spec = TrainingSpec(num_epochs=60, client_lr=5e-3, weight_decay=0.0, warmup_rounds=0)

    def batch_of(rows: NDArray[np.int64]) -> EhrBatch:
        return EhrBatch(*(part[torch.from_numpy(rows)] for part in batch))

    rows = np.arange(64)
    training.train(network, batch_of, long_stay, rows, spec, seed=2, number=1)
    logit = training.log_odds(network, batch_of, rows)
    assert min(roc_auc_score(long_stay, logit[:, level]) for level in range(3)) > 0.99


@pytest.mark.parametrize("name", sorted(ENCODERS["ehr"]))
def test_no_stay_has_a_gradient_that_drowns_the_others(name: str) -> None:
    """Not even one of whom nothing is known: a norm over values that are all 0 could make it 10^7."""
    network, batch = build_network("ehr", EncoderSpec(name), seed=1), inputs_of("ehr", 4)
    assert isinstance(batch, EhrBatch)
    nothing = EhrBatch(*(torch.zeros_like(part) for part in batch))._replace(missing_BF=torch.ones_like(batch[1]))
    for inputs in (batch, nothing):
        network.zero_grad()
        training.training_loss(network, inputs, torch.tensor([0.0, 1.0, 0.0, 1.0])).backward()
        assert max(float(p.grad.abs().max()) for p in network.parameters() if p.grad is not None) < 50.0


def test_an_encoders_own_loss_is_gone_down_too() -> None:
    network, batch = build_network("ehr", EncoderSpec("tabnet", {"sparsity": 0.3}), seed=1), inputs_of("ehr", 8)
    label = torch.tensor([0.0, 1.0] * 4)
    with torch.no_grad():
        alone = training.summed_loss(network(batch), label)
        penalty_B = network.encoder.penalty_B
        assert penalty_B is not None and penalty_B.shape == (8,) and float(penalty_B.sum()) > 0.0
        torch.testing.assert_close(training.training_loss(network, batch, label), alone + penalty_B.sum())
        without = build_network("ehr", EncoderSpec("mlp"), seed=1).eval()
        assert without.encoder.penalty_B is None
        expected = training.summed_loss(without(batch), label)
        torch.testing.assert_close(training.training_loss(without, batch, label), expected)
