"""Every registered encoder: its parameters, its shapes, and that a stay is alone in its batch."""

import inspect
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from lemof_model.encoders.ecg_levels import Augmentation
from lemof_model.encoders.registry import ENCODERS, build_network
from lemof_model.errors import ConfigError
from lemof_model.features import GRID_CHANNELS
from lemof_model.lemof import initial_networks
from lemof_model.pyramid import EhrBatch, ModalityNetwork
from lemof_model.stays import CONCEPT_COLUMNS, NUM_CATEGORIES, NUMERIC_COLUMNS, STATIC_COLUMNS, SYSTEM_TOKENS
from lemof_model.study import EncoderSpec, Study
from tests.inputs import inputs_of, pick

F, C, S, G = len(NUMERIC_COLUMNS), len(NUM_CATEGORIES), sum(NUM_CATEGORIES), len(GRID_CHANNELS)
STATICS = 2 * len(STATIC_COLUMNS) + S
SEEN = 1 + 2 * G + STATICS  # by the pointwise part of every TPC layer: hour, values, freshness, statics

# Counted by hand at the default sizes; the last term is the three heads.
NUM_PARAMETERS = {
    ("ecg", "cnn"): 12 * 32 * 8 + 32 * 64 * 5 + 64 * 32 * 3 + 2 * (32 + 64 + 32) + 65 + 129 + 65,
    ("ecg", "lstm"): 12 * 32 * 7 + 32 * 32 * 5 + 128 + 3 * 4 * 32 * (32 + 32 + 2) + 3 * 97,
    ("ecg", "resnet"): 2_752 + 3 * 9_408 + 3 * 65,
    ("ecg", "wavenet"): (12 * 7 + 1) * 32 + (32 * 5 + 1) * 16 + 15 * (16 * 3 + 1) * 32 + 17 * 16 * (15 + 14) + 3 * 33,
    # class token, numeric features, concepts, categories; blocks; norms
    ("ehr", "ft_transformer"): 32 * (1 + 2 * F + len(CONCEPT_COLUMNS) + S) + (3 * 8_436 + 2 * 64) + 3 * 64 + 3 * 33,
    # three layers of 256
    ("ehr", "mlp"): (2 * F + S + 1) * 256 + 2 * 257 * 256 + 3 * 257,
    # column embedding; attention, norms and feed-forward of six layers; norm of the numbers; three MLPs
    ("ehr", "tab_transformer"): 4 * C + 28 * S + 6 * (4 * 33 * 32 + 2 * 64 + 33 * 128 + 129 * 32) + 2 * F
    + 3 * ((32 * C + 2 * F + 1) * 256 + 257 * 64) + 3 * 65,
    # inputs; shared layers; own layers and norms of four transformers; masks
    ("ehr", "tabnet"): F + S + (F + C + 64) * 128 + 4 * (2 * 64 * 128 + 4 * 256) + 3 * 34 * (F + C) + 3 * 33,
    # temporal convolutions; their norms; pointwise ones; their norms; read-outs and their norms
    ("ehr", "tpc"): 4 * (G * 9 + (G + 8) * 21 + (G + 16) * 21) + 8 * (3 * G + 24)
    + 8 * (SEEN + 1 + G * 4 + 8 + SEEN + 1 + (G + 8) * 4 + 8 + SEEN + 1) + 3 * 16
    + 32 * (5 * (3 * G + 48) + 3 * (STATICS + 1)) + 3 * 64 + 3 * 33,
}  # fmt: skip
ALL = [(modality, name) for modality, names in ENCODERS.items() for name in names]


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
        tokens = built.tokens(inputs_of(modality), number + 1)
        torch.testing.assert_close(tokens, functional.layer_norm(level.tokens_BTD, tokens.shape[2:]))
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
            if isinstance(module, torch.nn.Dropout | Augmentation):
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
    zero = batch._replace(numeric_BF=torch.zeros_like(batch.numeric_BF), missing_BF=torch.zeros_like(batch.missing_BF))
    missing = zero._replace(missing_BF=torch.ones_like(batch.missing_BF))
    with torch.no_grad():
        assert (built(zero) - built(missing)).abs().max() > 1e-4
        built.get_parameter("encoder.feature_tokens.missing_FD").zero_()
        torch.testing.assert_close(built(zero), built(missing))


def test_every_feature_is_in_one_concept_and_every_concept_in_one_system() -> None:
    assert sorted(sum(CONCEPT_COLUMNS, ())) == list(range(F))
    assert sorted(sum(SYSTEM_TOKENS, ())) == list(range(len(CONCEPT_COLUMNS) + C))


def test_a_feature_moves_the_token_of_its_system() -> None:
    built, batch = network("ehr", "ft_transformer"), inputs_of("ehr", 1)
    assert isinstance(batch, EhrBatch)
    tokens = built.encoder(batch)[0].tokens_BTD
    assert tokens.shape[1] == 1 + len(SYSTEM_TOKENS)
    for column in np.random.default_rng(0).choice(F, 3, replace=False):
        concept = next(place for place, columns in enumerate(CONCEPT_COLUMNS) if column in columns)
        system = next(place for place, tokens in enumerate(SYSTEM_TOKENS) if concept in tokens)
        changed = batch.numeric_BF.clone()
        changed[0, column] += 3.0
        moved = (built.encoder(batch._replace(numeric_BF=changed))[0].tokens_BTD - tokens).abs().sum(dim=2)[0]
        assert int(moved.argmax()) == 1 + system


@pytest.mark.parametrize(
    ("modality", "spec", "message"),
    [
        ("ecg", EncoderSpec("resnte"), "ecg.name must be one of .*resnet.*, got 'resnte'"),
        ("ehr", EncoderSpec("resnet"), "one of ft_transformer, mlp, tab_transformer, tabnet, tpc, got 'resnet'"),
        (
            "ecg",
            EncoderSpec("resnet", {"depth": 3}),
            "of resnet must be among width, num_tokens, dropout, augment, got 'depth'",
        ),
        (
            "ecg",
            EncoderSpec("resnet", {"width": 7}),
            "ecg.sizes must suit the encoder resnet: width must be a multiple of 8, got 7",
        ),
        ("ecg", EncoderSpec("cnn", {"width": 12}), "width must be a multiple of 8, got 12"),
        ("ecg", EncoderSpec("wavenet", {"num_layers": 8}), "num_layers must be at most 7 .*, got 8"),
        ("ecg", EncoderSpec("lstm", {"width": 20}), "width must be a multiple of 8, got 20"),
        (
            "ecg",
            EncoderSpec("resnet", {"width": 8 * 10**24}),
            "ecg.sizes must suit the encoder resnet: width must be at",
        ),
        ("ecg", EncoderSpec("resnte"), "ecg.name must be one of .*, got 'resnte'. Did you mean resnet\\?"),
        ("ehr", EncoderSpec("ft_transformer", {"width": 9}), "multiple of num_heads, got 9 and 2"),
        ("ehr", EncoderSpec("mlp", {"width": 9}), "multiple of num_tokens, got 9 and 8"),
        ("ehr", EncoderSpec("tabnet", {"num_tokens": 3}), "multiple of num_tokens, got 32 and 3"),
        ("ehr", EncoderSpec("tab_transformer", {"width": 12}), "multiple of 8, got 12"),
        ("ehr", EncoderSpec("tpc", {"num_layers": 4}), "multiple of 3, got 4"),
        ("ehr", EncoderSpec("mlp", {"num_tokens": 1}), "num_tokens must be at least 2, got 1. Over a single token"),
        ("ehr", EncoderSpec("mlp", {"widht": 16}), "among width, num_tokens, dropout, got 'widht'. Did you mean width"),
        ("ehr", EncoderSpec("tpc", {"num_tokens": 1}), "ehr.sizes of tpc must be among num_layers, .*'num_tokens'"),
        ("ecg", EncoderSpec("resnet", {"num_tokens": 2.5}), "num_tokens must be a whole number, got 2.5. Correct it, "),
        ("ecg", EncoderSpec("resnet", {"num_tokens": 5000}), "num_tokens must be at most 250, got 5000"),
        ("ehr", EncoderSpec("ft_transformer", {"num_heads": 0}), "num_heads must be at least 1, got 0"),
        ("ehr", EncoderSpec("ft_transformer", {"attention_dropout": 3}), "must be below 1, got 3. .* out for 0"),
        ("ehr", EncoderSpec("tab_transformer", {"attention_dropout": -0.5}), "must be at least 0, got -0.5"),
        ("ehr", EncoderSpec("mlp", {"dropout": 1}), "must be below 1, got 1. Correct it, or leave it out for 0.2"),
        ("ehr", EncoderSpec("mlp", {"dropout": 10**400}), "dropout must be below 1, got 1000"),
        ("ehr", EncoderSpec("mlp", {"dropout": math.nan}), "dropout must be a finite number, got nan"),
        ("ehr", EncoderSpec("mlp", {"dropout": "much"}), "dropout must be a finite number, got 'much'"),  # type: ignore[dict-item]
        ("ehr", EncoderSpec("tabnet", {"gamma": 0}), "gamma must be at least 1, got 0"),
        ("ehr", EncoderSpec("tabnet", {"gamma": 0.5}), "gamma must be at least 1, got 0.5"),
        ("ehr", EncoderSpec("tabnet", {"sparsity": -1}), "sparsity must be at least 0, got -1"),
        ("ehr", EncoderSpec("tabnet", {"sparsity": math.inf}), "sparsity must be a finite number, got inf"),
    ],
)
def test_a_wrong_encoder_is_refused_by_name(modality: str, spec: EncoderSpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_network(modality, spec)


@pytest.mark.parametrize(("modality", "name"), ALL)
def test_every_count_must_be_whole_and_above_0(modality: str, name: str) -> None:
    parameters = inspect.signature(ENCODERS[modality][name]).parameters.values()
    for size in (p.name for p in parameters if isinstance(p.default, int)):
        least = 2 if size == "num_tokens" else 1
        for value, rule in ((0, f"at least {least}"), (-8, f"at least {least}"), (16.0, "a whole number")):
            with pytest.raises(ConfigError, match=rf"^{modality}\.sizes\.{size} must be {rule}, got {value}\. "):
                build_network(modality, EncoderSpec(name, {size: value}))


def test_all_wrong_sizes_are_told_at_once_wherever_a_network_is_built() -> None:
    study = Study(ehr=EncoderSpec("mlp", {"depth": 3, "width": 0, "dropout": 2}))
    with pytest.raises(ConfigError, match=r"depth.*\nehr\.sizes\.dropout .*\nehr\.sizes\.width "):
        initial_networks(Study.from_json(study.to_json()))
