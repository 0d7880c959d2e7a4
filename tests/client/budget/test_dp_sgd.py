"""DP-SGD: what one stay can move, what the noise is, and that without noise and clipping it is plain training."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from client.budget.dp_sgd import Network, _clipped_sum, _InTraining, train_private
from lemof_model import training
from lemof_model.attention import CrossModalAttention
from lemof_model.encoders.ecg_levels import Augmentation
from lemof_model.encoders.registry import ENCODERS, build_network
from lemof_model.study import EncoderSpec, TrainingSpec
from tests.inputs import inputs_of, pick

# torch says so of every module whose input asks for no gradient, such as the first
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")

SGD = TrainingSpec(optimizer="sgd", client_lr=0.5, warmup_rounds=0, final_lr_share=1.0, weight_decay=0.0)
NO_CLIP = 1e9
ALL = [(modality, name) for modality, names in ENCODERS.items() for name in names]


class Seeded:
    """A repeatable source; ``samples`` replace what Poisson sampling would draw."""

    def __init__(self, seed: int = 0, samples: list[list[int]] | None = None) -> None:
        self.rng, self.samples = np.random.default_rng(seed), samples

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        return self.rng.standard_normal(shape)

    def bernoulli(self, q: float, n: int) -> NDArray[np.bool_]:
        if self.samples is None:
            return self.rng.random(n) < q
        return np.isin(np.arange(n), self.samples.pop(0))


def table_block(rng: np.random.Generator, num_stays: int, rows: Any, width: int, scale: float) -> Network:
    """A small network over a random table."""
    torch.manual_seed(int(rng.integers(1 << 30)))
    features = int(rng.integers(1, 6))
    model = nn.Sequential(nn.Linear(features, width), nn.LayerNorm(width), nn.Tanh(), nn.Linear(width, 3))
    table = torch.from_numpy((scale * rng.normal(size=(num_stays, features))).astype(np.float32))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(scale * torch.randn_like(p))
    return Network(model, lambda wanted: table[torch.from_numpy(wanted)], np.asarray(rows))


def trained(
    blocks: Mapping[str, Network], label: NDArray[np.int8], spec: TrainingSpec = SGD, *, steps: int = 1,
    noise: float = 0.0, sample_rate: float = 1.0, batch_size: float = 1.0, random: Any = None, proximal_mu: float = 0.0,
) -> dict[str, dict[str, NDArray[Any]]]:  # fmt: skip
    """Weights of all blocks after training them."""
    train_private(
        blocks, label, np.arange(len(label)), spec, noise_multiplier=noise, sample_rate=sample_rate, steps=steps,
        batch_size=batch_size, random=random or Seeded(), number=1, proximal_mu=proximal_mu,
    )  # fmt: skip
    return {name: training.to_arrays(block.model) for name, block in blocks.items()}


# --- what one stay can move -------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 1 << 30), num_stays=st.integers(1, 8), width=st.integers(2, 6),
    clip=st.sampled_from([1e-3, 0.1, 1.0, 30.0]), scale=st.sampled_from([0.1, 1.0, 10.0]),
)  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_a_stay_moves_the_sum_by_the_clip_at_most(
    seed: int, num_stays: int, width: int, clip: float, scale: float
) -> None:
    """Adding or removing one stay, noise off, over random models of both modalities, labels, and who has an ECG."""
    rng = np.random.default_rng(seed)
    ecg_rows = np.flatnonzero(rng.random(num_stays) < 0.6)
    blocks = [
        table_block(rng, num_stays, ecg_rows, width, scale),
        table_block(rng, num_stays, np.arange(num_stays), width, scale),
    ]
    label = torch.from_numpy(rng.integers(0, 2, num_stays).astype(np.float32))
    networks = [_InTraining(block, SGD, 1) for block in blocks]
    with_all = _clipped_sum(networks, label, np.arange(num_stays), clip)
    for stay in range(num_stays):
        without = _clipped_sum(networks, label, np.delete(np.arange(num_stays), stay), clip)
        moved = float(np.linalg.norm(with_all - without))
        assert moved <= clip * (1 + 1e-4) + 1e-5 * float(np.linalg.norm(with_all))
        alone = _clipped_sum(networks, label, np.array([stay]), NO_CLIP)
        assert moved == pytest.approx(min(clip, float(np.linalg.norm(alone))), rel=1e-2, abs=1e-4 * (clip + scale))


def test_a_stay_without_a_gradient_in_numbers_adds_nothing() -> None:
    rng = np.random.default_rng(3)
    block = table_block(rng, 4, np.arange(4), 4, 1.0)
    broken = Network(block.model, lambda rows: block.batch_of(rows) / torch.from_numpy(rows != 2)[:, None], block.rows)
    label = torch.tensor([1.0, 0.0, 1.0, 1.0])
    others = _clipped_sum([_InTraining(block, SGD, 1)], label, np.array([0, 1, 3]), 0.5)
    found = _clipped_sum([_InTraining(broken, SGD, 1)], label, np.arange(4), 0.5)
    np.testing.assert_allclose(found, others, rtol=1e-4, atol=1e-6)


def test_the_clip_is_of_both_blocks_together() -> None:
    """Clipped one by one, a stay with an ECG could move the sum by the root of two clips."""
    rng = np.random.default_rng(0)
    blocks = [table_block(rng, 3, np.arange(3), 4, 5.0) for _ in range(2)]
    networks, label = [_InTraining(block, SGD, 1) for block in blocks], torch.tensor([1.0, 0.0, 1.0])
    whole = _clipped_sum(networks, label, np.array([1]), 0.5)
    assert np.linalg.norm(whole) == pytest.approx(0.5, rel=1e-5)
    first = whole[: sum(p.numel() for p in networks[0].parameters)]
    assert 0.01 < np.linalg.norm(first) < 0.499


# --- without noise and clipping it is plain training ------------------------------------------------------------------


def without_chance(model: nn.Module) -> nn.Module:
    """The model without dropout and augmentation."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, Augmentation):
            module.strength = 0.0
    return model


def head(seed: int = 3) -> CrossModalAttention:
    torch.manual_seed(seed)
    return CrossModalAttention(6, 8, width=4, dropout=0.0)


def head_inputs(num_stays: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    has_ecg = (torch.arange(num_stays) % 3 > 0).float()
    ecg = torch.randn(num_stays, 5, 6, generator=generator) * has_ecg[:, None, None]
    return ecg, torch.randn(num_stays, 7, 8, generator=generator), has_ecg


@pytest.mark.parametrize(("modality", "name"), ALL)
def test_every_encoder_takes_the_plain_step_without_noise_and_clip(modality: str, name: str) -> None:
    """One stay, three stays and none: the same weights under the same names, an LSTM's too."""
    inputs, label = inputs_of(modality, 4), np.array([1, 0, 1, 0], np.int8)
    spec = dataclasses.replace(SGD, client_lr=0.02)

    def network() -> nn.Module:
        return without_chance(build_network(modality, EncoderSpec(name), seed=1))

    private, plain = network(), network()
    block = Network(private, lambda rows: pick(inputs, rows.tolist()), np.arange(4))
    random = Seeded(samples=[[2], [], [0, 1, 3]])
    found = trained({"x": block}, label, dataclasses.replace(spec, max_grad_norm=NO_CLIP), steps=3, random=random)
    plain.train()
    lr = spec.client_lr * float(getattr(plain.encoder, "lr_factor"))  # noqa: B009
    for rows in ([2], [0, 1, 3]):
        plain.zero_grad()
        training.training_loss(plain, pick(inputs, rows), torch.from_numpy(label[rows]).float()).backward()
        with torch.no_grad():
            for p in plain.parameters():
                assert p.grad is not None
                p.sub_(lr * p.grad)
    expected = training.to_arrays(plain)
    assert found["x"].keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(found["x"][key], value, rtol=1e-4, atol=1e-5, err_msg=key)


def test_full_gradient_steps_of_two_blocks_with_fedprox_are_plain_ones() -> None:
    """An encoder and an attention head, AdamW with weight decay: noise zero and no clip is ``training.train``."""
    label = (np.arange(6) % 2).astype(np.int8)
    spec = TrainingSpec(num_epochs=4, batch_size=6, client_lr=1e-2, warmup_rounds=0, max_grad_norm=0.0)
    table, tokens = inputs_of("ehr", 6), head_inputs(6)

    def blocks() -> dict[str, Network]:
        mlp = without_chance(build_network("ehr", EncoderSpec("mlp"), seed=1))
        return {
            "ehr": Network(mlp, lambda rows: pick(table, rows.tolist()), np.arange(6)),
            "attention/0": Network(head(), lambda rows: tuple(part[rows] for part in tokens), np.arange(6)),
        }

    for mu in (0.0, 0.5):
        private = trained(
            blocks(), label, dataclasses.replace(spec, max_grad_norm=NO_CLIP), steps=4, batch_size=6.0, proximal_mu=mu
        )
        for name, block in blocks().items():
            training.train(
                block.model, block.batch_of, label, block.rows, spec, seed=1, number=1, proximal_mu=mu
            )  # fmt: skip
            for key, value in training.to_arrays(block.model).items():
                np.testing.assert_allclose(private[name][key], value, rtol=0, atol=1e-4, err_msg=key)


def test_a_round_of_sgd_steps_equals_plain_ones_to_a_millionth() -> None:
    label, spec = (np.arange(8) % 2).astype(np.int8), dataclasses.replace(SGD, client_lr=0.1)
    rows = np.arange(8)
    private, plain = (table_block(np.random.default_rng(4), 8, rows, 5, 1.0) for _ in range(2))
    for mu in (0.0, 1.0):
        found = trained(
            {"x": private}, label, dataclasses.replace(spec, max_grad_norm=NO_CLIP), steps=5, batch_size=8.0,
            proximal_mu=mu,
        )["x"]  # fmt: skip
        whole = dataclasses.replace(spec, max_grad_norm=0.0, num_epochs=5, batch_size=8)
        training.train(plain.model, plain.batch_of, label, rows, whole, seed=1, number=1, proximal_mu=mu)
        for key, value in training.to_arrays(plain.model).items():
            np.testing.assert_allclose(found[key], value, rtol=0, atol=1e-6, err_msg=key)


# --- samples ----------------------------------------------------------------------------------------------------------


def test_an_empty_sample_and_a_sample_without_ecg_move_what_they_should() -> None:
    rng, label = np.random.default_rng(1), np.array([1, 0, 1], np.int8)
    for sample, moves in (([], set()), ([0], {"ehr"}), ([2], {"ehr", "ecg"})):
        blocks = {"ecg": table_block(rng, 3, [2], 4, 1.0), "ehr": table_block(rng, 3, [0, 1, 2], 4, 1.0)}
        before = {name: training.to_arrays(block.model) for name, block in blocks.items()}
        after = trained(blocks, label, random=Seeded(samples=[sample]))
        moved = {name for name in blocks if any((after[name][k] != v).any() for k, v in before[name].items())}
        assert moved == moves


def test_a_step_divides_by_the_public_size_not_by_the_sample() -> None:
    """The number of stays drawn is theirs to know."""
    label = np.array([1, 0, 1, 1], np.int8)

    def moved(sample: list[int], batch_size: float) -> NDArray[np.float64]:
        block = table_block(np.random.default_rng(2), 4, np.arange(4), 3, 1.0)
        before = training.to_arrays(block.model)["0.weight"]
        after = trained({"x": block}, label, batch_size=batch_size, random=Seeded(samples=[sample]))["x"]
        return np.asarray(after["0.weight"] - before, np.float64)

    np.testing.assert_allclose(moved([0, 1], 8.0) * 4, moved([0, 1], 2.0), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(moved([0], 8.0) + moved([1], 8.0), moved([0, 1], 8.0), rtol=1e-3, atol=1e-6)


# --- noise ------------------------------------------------------------------------------------------------------------


def noise_of_steps(steps: int, noise: float, clip: float, batch_size: float, random: Any) -> NDArray[np.float64]:
    """What ``steps`` steps over empty samples add to the weights, over the learning rate."""
    block = table_block(np.random.default_rng(5), 1, [0], 60, 1.0)
    before = np.concatenate([v.ravel() for v in training.to_arrays(block.model).values()])
    spec = dataclasses.replace(SGD, max_grad_norm=clip)
    after = trained({"x": block}, np.array([1], np.int8), spec, steps=steps, noise=noise, batch_size=batch_size,
                    sample_rate=0.0, random=random)["x"]  # fmt: skip
    return (np.concatenate([v.ravel() for v in after.values()]) - before) / spec.client_lr


def test_noise_has_the_stated_standard_deviation() -> None:
    """clip x multiplier / batch size on every coordinate, steps independent. The measured deviation of n draws has an
    error of 1 / sqrt(2 n); four of them are allowed."""
    drawn = np.concatenate([noise_of_steps(9, 1.3, 0.7, 16.0, Seeded(seed)) for seed in range(8)])
    stated = 3.0 * 0.7 * 1.3 / 16.0
    assert drawn.std() == pytest.approx(stated, rel=4 / np.sqrt(2 * drawn.size))
    assert abs(drawn.mean()) < 4 * stated / np.sqrt(drawn.size)
    assert np.abs(drawn).max() > 3 * stated


def test_two_runs_with_the_source_in_use_differ() -> None:
    privacy = pytest.importorskip("client.budget.noise")
    first, second = (noise_of_steps(1, 1.0, 1.0, 1.0, privacy.SecureRandom()) for _ in range(2))
    assert np.abs(first - second).max() > 1e-2
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(first.size)


def test_dropout_is_not_derived_from_anything_known() -> None:
    """Masks known by place in the batch would tie one stay's to the presence of another."""
    label = np.array([1, 0, 1, 0], np.int8)
    inputs = inputs_of("ehr", 4)

    def weights() -> NDArray[Any]:
        torch.manual_seed(0)
        model = build_network("ehr", EncoderSpec("mlp", {"dropout": 0.5}), seed=1)
        block = Network(model, lambda rows: pick(inputs, rows.tolist()), np.arange(4))
        return trained({"x": block}, label)["x"]["heads.0.weight"]

    assert (weights() != weights()).any()
