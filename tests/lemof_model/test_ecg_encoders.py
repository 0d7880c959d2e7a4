"""The ECG encoders against slow ones written from the equations, what a token sees, and that they can learn.

The slow versions take one stay at a time and loop over time; they know the weights by name and nothing else.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from lemof_model.encoders.ecg_cnn import EcgCnn
from lemof_model.encoders.ecg_levels import Augmentation
from lemof_model.encoders.ecg_lstm import EcgLstm
from lemof_model.encoders.ecg_resnet import EcgResNet
from lemof_model.encoders.ecg_wavenet import EcgWaveNet
from lemof_model.pyramid import ModalityNetwork, PyramidEncoder
from lemof_model.study import TrainingSpec
from lemof_model.training import make_optimizer, summed_loss

Array = np.ndarray[Any, np.dtype[np.float64]]
Weights = dict[str, Array]
ECG_ENCODERS: list[type[PyramidEncoder]] = [EcgCnn, EcgLstm, EcgResNet, EcgWaveNet]
NUM_TOKENS = 16


# --- Slow versions ----------------------------------------------------------------------------------------------------


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def slow_conv(
    x_CT: Array, weights: Weights, name: str, *, stride: int = 1, dilation: int = 1, past: int = 0, future: int = 0
) -> Array:
    """``y_t = b + sum_tap W_tap x[t stride + tap dilation - past]``, zero outside the record."""
    kernel = weights[f"{name}.weight"]
    length = (x_CT.shape[1] + past + future - dilation * (kernel.shape[2] - 1) - 1) // stride + 1
    out = np.zeros((kernel.shape[0], length))
    for t in range(length):
        out[:, t] = weights.get(f"{name}.bias", 0.0)
        for tap in range(kernel.shape[2]):
            source = t * stride + tap * dilation - past
            if 0 <= source < x_CT.shape[1]:
                out[:, t] += kernel[:, :, tap] @ x_CT[:, source]
    return out


def slow_group_norm(x_CT: Array, weights: Weights, name: str) -> Array:
    """Wu and He 2018: over the channels of one of eight groups and all of time."""
    out = np.zeros_like(x_CT)
    for channels in np.split(np.arange(len(x_CT)), 8):
        group = x_CT[channels]
        out[channels] = (group - group.mean()) / np.sqrt(group.var() + 1e-5)
    return out * weights[f"{name}.weight"][:, None] + weights[f"{name}.bias"][:, None]


def slow_level(x_DT: Array, *, with_last: bool = False) -> tuple[Array, Array]:
    """Tokens: the mean of the steps that each of 16 equal parts of the record touches. Pooled: over all steps."""
    length = x_DT.shape[1]
    parts = [(i * length // NUM_TOKENS, -(-(i + 1) * length // NUM_TOKENS)) for i in range(NUM_TOKENS)]
    tokens = np.stack([x_DT[:, start:stop].mean(axis=1) for start, stop in parts])
    return tokens, np.concatenate([x_DT.mean(axis=1), x_DT.max(axis=1)] + ([x_DT[:, -1]] if with_last else []))


def slow_cnn(ecg_CT: Array, weights: Weights) -> list[tuple[Array, Array]]:
    """fcn_wang (ecg_ptbxl_benchmarking, code/models/basic_conv1d.py l. 12, 125), with GroupNorm, strided, dilated."""
    levels, x = [], ecg_CT
    for block, (size, stride, dilation) in enumerate([(8, 4, 1), (5, 2, 2), (3, 2, 8)]):
        pad = dilation * ((size - 1) // 2)
        x = slow_conv(x, weights, f"convs.{block}", stride=stride, dilation=dilation, past=pad, future=pad)
        x = np.maximum(slow_group_norm(x, weights, f"norms.{block}"), 0.0)
        levels.append(slow_level(x))
    return levels


def slow_resnet(ecg_CT: Array, weights: Weights) -> list[tuple[Array, Array]]:
    """resnet1d_wang (code/models/resnet1d.py: `BasicBlock1d`, `ResNet1d`): stem 7, blocks 5 and 3, a 1x1 skip."""

    def conv_norm(x: Array, name: str, norm: str, pad: int, stride: int = 1) -> Array:
        out = slow_conv(x, weights, name, stride=stride, past=pad, future=pad)
        return slow_group_norm(out, weights, norm)

    x = np.maximum(conv_norm(ecg_CT, "stem", "stem_norm", 3, 4), 0.0)
    levels = []
    for block, stride in enumerate([2, 2, 2]):
        name = f"blocks.{block}"
        y = np.maximum(conv_norm(x, f"{name}.conv1", f"{name}.norm1", 2, stride), 0.0)
        y = conv_norm(y, f"{name}.conv2", f"{name}.norm2", 1)
        x = np.maximum(y + conv_norm(x, f"{name}.skip", f"{name}.skip_norm", 0, stride), 0.0)
        levels.append(slow_level(x))
    return levels


def slow_lstm(ecg_CT: Array, weights: Weights) -> list[tuple[Array, Array]]:
    """Gers et al. 2000, gates in torch's order: input, forget, cell, output; state and cell begin at zero."""
    x = slow_conv(ecg_CT, weights, "stem", stride=5, past=3, future=3)
    x = np.maximum(slow_group_norm(x, weights, "stem_norm"), 0.0)
    x = slow_conv(x, weights, "step", stride=2, past=2, future=2)
    x = np.maximum(slow_group_norm(x, weights, "step_norm"), 0.0)
    levels = []
    for layer in range(3):
        by_name = {key: weights[f"layers.{layer}.{key}_l0"] for key in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        hidden, cell, states = np.zeros(len(x)), np.zeros(len(x)), []
        for t in range(x.shape[1]):
            gates = by_name["weight_ih"] @ x[:, t] + by_name["bias_ih"] + by_name["weight_hh"] @ hidden
            i, f, g, o = np.split(gates + by_name["bias_hh"], 4)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            hidden = sigmoid(o) * np.tanh(cell)
            states.append(hidden)
        x = np.stack(states, axis=1)
        levels.append(slow_level(x, with_last=True))
    return levels


def slow_wavenet(ecg_CT: Array, weights: Weights) -> list[tuple[Array, Array]]:
    """van den Oord et al. 2016, eq. 2 and fig. 4; the 1x1 maps of skip and residual lie in one array, skip first."""
    x = np.maximum(slow_conv(ecg_CT, weights, "stem", stride=4, past=3, future=3), 0.0)
    x = slow_conv(x, weights, "step", stride=3, past=2, future=2)
    width = len(x)
    skips, levels = np.zeros_like(x), []
    for stack in range(3):
        for layer in range(5):
            name, dilation = f"layers.{5 * stack + layer}", 2**layer
            out = slow_conv(x, weights, f"{name}.filter_gate", dilation=dilation, past=2 * dilation)
            unit = np.tanh(out[:width]) * sigmoid(out[width:])
            out = slow_conv(unit, weights, f"{name}.skip_residual")
            skips = skips + out[:width]
            if (stack, layer) != (2, 4):
                x = x + out[width:]
        levels.append(slow_level(np.maximum(skips, 0.0)))
    return levels


SLOW = [(EcgCnn, slow_cnn), (EcgLstm, slow_lstm), (EcgResNet, slow_resnet), (EcgWaveNet, slow_wavenet)]


@pytest.mark.parametrize(("encoder", "slow"), SLOW)
def test_the_numbers_are_those_of_the_slow_version(
    encoder: Callable[..., PyramidEncoder], slow: Callable[[Array, Weights], list[tuple[Array, Array]]]
) -> None:
    torch.manual_seed(3)
    built = encoder(width=8).double().eval()
    with torch.no_grad():
        for parameter in built.parameters():  # norms and biases too are to count
            parameter.add_(0.2 * torch.randn_like(parameter))
        ecg_BCT = torch.randn(2, 12, 1000, dtype=torch.float64)
        levels = built(ecg_BCT)
    weights = {name: value.numpy() for name, value in built.state_dict().items()}
    for stay in range(2):
        for level, (tokens, pooled) in zip(levels, slow(ecg_BCT[stay].numpy(), weights), strict=True):
            np.testing.assert_allclose(level.tokens_BTD[stay].numpy(), tokens, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(level.pooled_BD[stay].numpy(), pooled, rtol=1e-9, atol=1e-12)


# --- What a token of the WaveNet sees ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "num_samples"), [(1, 767), (2, 1511), (3, 2255)])
def test_the_last_token_of_the_wavenet_sees_back_as_far_as_stated(level: int, num_samples: int) -> None:
    torch.manual_seed(0)
    built = EcgWaveNet(num_tokens=100).double().eval()  # a token a step
    ecg_BCT = torch.randn(1, 12, 1000, dtype=torch.float64, requires_grad=True)
    built(ecg_BCT)[level - 1].tokens_BTD[0, -1].sum().backward()
    assert ecg_BCT.grad is not None
    seen = np.flatnonzero(ecg_BCT.grad[0].abs().sum(dim=0).numpy())
    first = max(0, 996 + 12 - num_samples)  # the last step is around sample 996, and its stem sees 11 on each side
    assert seen[0] == first and seen[-1] == 999 and len(seen) == 1000 - first


def test_the_wavenet_is_causal() -> None:
    torch.manual_seed(0)
    built = EcgWaveNet(num_tokens=100).double().eval()
    ecg_BCT = torch.randn(1, 12, 1000, dtype=torch.float64, requires_grad=True)
    built(ecg_BCT)[2].tokens_BTD[0, 60].sum().backward()
    assert ecg_BCT.grad is not None
    assert np.flatnonzero(ecg_BCT.grad[0].abs().sum(dim=0).numpy())[-1] == 60 * 12 + 11


# --- Learning ---------------------------------------------------------------------------------------------------------


def toy_ecg(num_stays: int, seed: int) -> Tensor:
    """Beats of Gaussian waves at a rate of the stay's own, over noise; mV, ``(B, 12, 1000)``."""
    rng = np.random.default_rng(seed)
    time = np.arange(1000) / 100.0
    ecg = 0.1 * rng.standard_normal((num_stays, 12, 1000))
    for stay in range(num_stays):
        beats = np.cumsum(rng.uniform(0.5, 1.2) * (1.0 + rng.uniform(0.0, 0.2) * rng.standard_normal(30)))
        for center, width, size in [(-0.16, 0.03, 0.15), (0.0, 0.02, 1.0), (0.3, 0.06, rng.normal(0.2, 0.2))]:
            wave = np.exp(-0.5 * ((time[:, None] - beats - center) / width) ** 2).sum(axis=1)
            ecg[stay] += np.outer(size * rng.normal(1.0, 0.3, 12), wave)
    return torch.from_numpy(ecg.astype(np.float32))


@pytest.mark.parametrize("encoder", ECG_ENCODERS)
def test_every_network_can_learn_64_stays_by_heart(encoder: type[PyramidEncoder]) -> None:
    ecg_BCT, label_B = toy_ecg(64, 0), torch.arange(64).remainder(2).float()
    torch.manual_seed(0)
    model = ModalityNetwork(encoder(dropout=0.0, augment=0.0))
    optimizer = make_optimizer(model, TrainingSpec(), 5e-3)
    auroc = 0.0
    for step in range(400):
        optimizer.zero_grad()
        logit_BK = model(ecg_BCT)
        (summed_loss(logit_BK, label_B) / 64).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 9:
            auroc = max(roc_auc_score(label_B, logit_BK.detach()[:, level]) for level in range(3))
            if auroc > 0.99:
                return
    pytest.fail(f"AUROC on its own 64 stays is {auroc:.3f} after 400 steps")


# --- Augmentation -----------------------------------------------------------------------------------------------------


def test_augmentation_moves_and_scales_whole_records_in_training_alone() -> None:
    ecg_BCT = torch.randn(64, 12, 1000, generator=torch.Generator().manual_seed(1))
    layer = Augmentation(1.0)
    assert layer.eval()(ecg_BCT) is ecg_BCT and Augmentation(0.0).train()(ecg_BCT) is ecg_BCT
    torch.manual_seed(2)
    moved_BCT = layer.train()(ecg_BCT)
    torch.manual_seed(2)
    torch.testing.assert_close(layer(ecg_BCT), moved_BCT, rtol=0, atol=0)
    shifts, gains = [], []
    for before, after in zip(ecg_BCT, moved_BCT, strict=True):
        inside = after[:, 400:600]
        gain = float(inside.norm() / before[:, 400:600].norm())
        fits = [(inside - gain * before[:, 400 + s : 600 + s]).norm() for s in range(-100, 101)]
        shift = int(np.argmin(fits)) - 100
        source = (torch.arange(1000) + shift).clamp(0, 999)
        exact = float(inside.norm() / before[:, 400 + shift : 600 + shift].norm())
        torch.testing.assert_close(after, before[:, source] * exact, rtol=1e-4, atol=1e-4)
        shifts.append(shift)
        gains.append(exact)
    assert min(shifts) < -70 and max(shifts) > 70 and 0.9 <= min(gains) < 0.93 and 1.07 < max(gains) <= 1.1001


@pytest.mark.parametrize("strength", [-0.1, 6.0, float("nan")])
def test_a_strength_that_makes_no_sense_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="augment must lie from 0 to 5"):
        Augmentation(strength)
