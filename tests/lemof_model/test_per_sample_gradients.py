"""Per-sample gradients of every encoder with its heads, by Opacus' hooks, are those of one stay at a time."""

from typing import Any

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from torch import nn

from lemof_model.encoders.ecg_levels import Augmentation
from lemof_model.encoders.registry import ENCODERS, build_network
from lemof_model.study import EncoderSpec
from lemof_model.training import training_loss
from tests.inputs import inputs_of, pick

# torch says so of every module whose input asks for no gradient, such as the first
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")

ALL = [(modality, name) for modality, names in ENCODERS.items() for name in names]
LABEL = torch.tensor([1.0, 0.0, 1.0])


def private_network(modality: str, name: str) -> nn.Module:
    """The network as differential privacy trains it (Opacus replaces an nn.LSTM), with the same outputs; no dropout."""
    built = build_network(modality, EncoderSpec(name), seed=1).eval()
    network: nn.Module = ModuleValidator.fix(built)
    inputs = inputs_of(modality, 3)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(inputs), built(inputs), rtol=1e-4, atol=1e-5)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, Augmentation):
            module.strength = 0.0
    assert ModuleValidator.validate(network.train(), strict=False) == []
    return network


@pytest.mark.parametrize(("modality", "name"), ALL)
def test_per_sample_gradients_are_those_of_one_stay_at_a_time(modality: str, name: str) -> None:
    network, inputs = private_network(modality, name), inputs_of(modality, 3)
    slow: list[dict[str, Any]] = []
    for stay in range(3):
        network.zero_grad()
        training_loss(network, pick(inputs, [stay]), LABEL[[stay]]).backward()
        slow.append({n: p.grad.numpy().copy() for n, p in network.named_parameters() if p.grad is not None})
    network.zero_grad()
    wrapped = GradSampleModule(network, loss_reduction="sum")
    training_loss(wrapped, inputs, LABEL).backward()
    for parameter_name, parameter in network.named_parameters():
        expected = np.stack([gradients[parameter_name] for gradients in slow])
        found = parameter.grad_sample.numpy()  # type: ignore[attr-defined]
        limit = 1e-5 + 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=limit, err_msg=parameter_name)


@pytest.mark.parametrize(("modality", "name"), ALL)
def test_a_batch_that_poisson_sampling_left_empty_has_gradients_of_zero(modality: str, name: str) -> None:
    network = private_network(modality, name)
    wrapped = GradSampleModule(network, loss_reduction="sum")
    training_loss(wrapped, pick(inputs_of(modality, 3), []), LABEL[:0]).backward()
    for parameter_name, parameter in network.named_parameters():
        found = parameter.grad_sample  # type: ignore[attr-defined]
        assert found is not None, parameter_name
        assert found.shape[1:] == parameter.shape and float(found.sum(dim=0).abs().max()) == 0.0, parameter_name
