"""Every registered encoder: its parameters, its shapes, and that a stay is alone in its batch."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lemof_model.encoders.registry import ENCODERS, build_network
from lemof_model.errors import ConfigError
from lemof_model.pyramid import EhrBatch, Inputs, ModalityNetwork
from lemof_model.stays import NUM_CATEGORIES, NUMERIC_COLUMNS
from lemof_model.study import EncoderSpec

# Counted by hand at the default sizes: stem, blocks, (tokens,) norms and the three heads.
NUM_PARAMETERS = {
    ("ecg", "resnet"): 2_752 + 3 * 9_408 + 3 * 65,
    ("ehr", "ft_transformer"): 32 + 3 * 32 * len(NUMERIC_COLUMNS) + 32 * sum(NUM_CATEGORIES)
    + (3 * 8_436 + 2 * 64) + 3 * 64 + 3 * 33,
}  # fmt: skip
ALL = [(modality, name) for modality, names in ENCODERS.items() for name in names]


def inputs_of(modality: str, num_stays: int = 5, seed: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    if modality == "ecg":
        return torch.randn(num_stays, 12, 1000, generator=generator)
    numeric = torch.randn(num_stays, len(NUMERIC_COLUMNS), generator=generator)
    missing = (torch.rand(numeric.shape, generator=generator) < 0.2).float()
    codes = [torch.randint(n, (num_stays, 1), generator=generator) for n in NUM_CATEGORIES]
    return EhrBatch(numeric * (1 - missing), missing, torch.cat(codes, dim=1))


def pick(inputs: Inputs, rows: list[int]) -> Inputs:
    return inputs[rows] if isinstance(inputs, Tensor) else EhrBatch(*(part[rows] for part in inputs))


def network(modality: str, name: str) -> ModalityNetwork:
    return build_network(modality, EncoderSpec(name), seed=1).eval()


def test_the_table_names_every_encoder() -> None:
    assert sorted(NUM_PARAMETERS) == sorted(ALL)


@pytest.mark.parametrize(("modality", "name"), ALL)
def test_number_of_parameters(modality: str, name: str) -> None:
    assert sum(p.numel() for p in network(modality, name).parameters()) == NUM_PARAMETERS[modality, name]


@pytest.mark.parametrize(("modality", "name"), ALL)
def test_three_levels_of_tokens_and_a_pooled_vector_as_wide_as_stated(modality: str, name: str) -> None:
    built = network(modality, name)
    levels = built.encoder(inputs_of(modality))
    assert len(levels) == 3
    for number, level in enumerate(levels):
        assert level.pooled_BD.shape == (5, built.encoder.pooled_widths[number])
        assert level.tokens_BTD.shape[0] == 5 and level.tokens_BTD.shape[2] == built.encoder.token_widths[number]
        assert level.tokens_BTD.shape[1] > 1, "attention over one token is a mean"
        torch.testing.assert_close(built.tokens(inputs_of(modality), number + 1), level.tokens_BTD)
    assert built(inputs_of(modality)).shape == (5, 3)


@pytest.mark.parametrize(("modality", "name"), ALL)
def test_a_stay_does_not_depend_on_its_batch(modality: str, name: str) -> None:
    built, inputs = network(modality, name), inputs_of(modality)
    with torch.no_grad():
        together, order = built(inputs), [3, 0, 4, 2, 1]
        torch.testing.assert_close(built(pick(inputs, order)), together[order], rtol=1e-5, atol=1e-6)
        alone = torch.cat([built(pick(inputs, [row])) for row in range(5)])
        torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-6)
        built.train()
        for module in built.modules():
            if isinstance(module, torch.nn.Dropout):
                module.eval()
        torch.testing.assert_close(built(inputs), together, rtol=1e-5, atol=1e-6)  # no statistics of the batch


@pytest.mark.parametrize(("modality", "name"), ALL)
def test_every_weight_gets_a_gradient_from_the_three_heads(modality: str, name: str) -> None:
    built = network(modality, name)
    built(inputs_of(modality, 20)).sum().backward()
    without = [n for n, p in built.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize(("modality", "name"), ALL)
def test_first_weights_are_a_function_of_the_seed(modality: str, name: str) -> None:
    a, b, c = (build_network(modality, EncoderSpec(name), seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], c[key]) for key in a)


def test_a_missing_number_is_a_learnt_mark_and_not_a_zero() -> None:
    built = network("ehr", "ft_transformer")
    batch = inputs_of("ehr")
    assert isinstance(batch, EhrBatch)
    zero = EhrBatch(torch.zeros_like(batch.numeric_BF), torch.zeros_like(batch.missing_BF), batch.category_BF)
    missing = zero._replace(missing_BF=torch.ones_like(batch.missing_BF))
    with torch.no_grad():
        assert (built(zero) - built(missing)).abs().max() > 1e-4
        built.get_parameter("encoder.missing_FD").zero_()
        torch.testing.assert_close(built(zero), built(missing))


def test_every_feature_has_a_token_of_its_own() -> None:
    built, batch = network("ehr", "ft_transformer"), inputs_of("ehr", 1)
    assert isinstance(batch, EhrBatch)
    tokens = built.tokens(batch, 1)
    assert tokens.shape[1] == 1 + len(NUMERIC_COLUMNS) + len(NUM_CATEGORIES)
    rng = np.random.default_rng(0)
    for column in rng.choice(len(NUMERIC_COLUMNS), 3, replace=False):
        changed = batch.numeric_BF.clone()
        changed[0, column] += 3.0
        moved = (built.tokens(batch._replace(numeric_BF=changed), 1) - tokens).abs().sum(dim=2)[0]
        assert int(moved.argmax()) == 1 + column


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (EncoderSpec("resnte"), "ecg.name must be one of .*resnet, got 'resnte'"),
        (EncoderSpec("resnet", {"depth": 3}), "ecg.sizes must suit the encoder resnet"),
        (EncoderSpec("resnet", {"width": 7}), "ecg.sizes must suit the encoder resnet"),
    ],
)
def test_a_wrong_encoder_is_refused_by_name(spec: EncoderSpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_network("ecg", spec)
