"""DP-SGD (Abadi et al. 2016) over a hospital's stays, for all blocks of a stage as one mechanism.

A step draws one Poisson sample of the stays. What a stay adds to it is its gradient in every block, side by side: a
stay without ECG has a part of zero there. That whole vector is clipped to norm C, the vectors are added up, and every
coordinate of the sum gets Gaussian noise of standard deviation C x noise_multiplier; so one stay more or less moves
the sum by C at most, whatever its gradients and in however many blocks. With a budget a patient has one stay in a
split (``hospital.py``), so that is the sensitivity to a patient too.

Per-sample gradients are those of Opacus' hooks. The noise, the sample and the seed of dropout come from the operating
system: a seed known to others would tie one stay's dropout to the presence of another.
"""

import secrets
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lemof_model.aligned import AlignedLinear
from lemof_model.stays import Rows
from lemof_model.study import TrainingSpec
from lemof_model.training import make_optimizer, round_lr, training_loss


class Random(Protocol):
    """What DP-SGD needs of a source of randomness; ``privacy.SecureRandom`` is the one in use."""

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Independent standard normals."""
        ...

    def bernoulli(self, q: float, n: int) -> NDArray[np.bool_]:
        """``n`` independent draws that are true with probability ``q``."""
        ...


@dataclass(frozen=True, eq=False)
class Network:
    """A network to be trained, how its inputs are read, and which stays (sorted rows) have them."""

    model: nn.Module
    batch_of: Callable[[Rows], Any]
    rows: Rows


def train_private(
    blocks: Mapping[str, Network],
    labels_N: NDArray[np.int8],
    rows: Rows,
    spec: TrainingSpec,
    *,
    noise_multiplier: float,
    sample_rate: float,
    steps: int,
    batch_size: float,
    random: Random,
    number: int,
    proximal_mu: float = 0.0,
) -> None:
    """Train the blocks' models in place by ``steps`` noisy steps; optimisers start afresh.

    Args:
        rows: the stays that are sampled from; a block's rows are among them.
        noise_multiplier: standard deviation of the noise over the clipping norm, which is ``spec.max_grad_norm``.
        sample_rate: probability with which a stay is in a step.
        batch_size: what the noisy sum is divided by: a public number, the size that a sample is expected to have.
        number: the round, which decides the learning rate.
        proximal_mu: FedProx's term, ``mu (w - w_0)``, depends on no patient and is added after the noise.
    """
    networks = [_InTraining(block, spec, number) for block in blocks.values()]
    label = torch.from_numpy(labels_N.astype(np.float32))
    with torch.random.fork_rng(), warnings.catch_warnings():
        # torch says it of every module whose input asks for no gradient, such as the first
        warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
        torch.manual_seed(secrets.randbits(63))
        for _ in range(steps):
            sampled = rows[random.bernoulli(sample_rate, len(rows))]
            gradient = _clipped_sum(networks, label, sampled, spec.max_grad_norm)
            if noise_multiplier:
                gradient += noise_multiplier * spec.max_grad_norm * random.normal(gradient.shape)
            _step(networks, gradient / batch_size, proximal_mu)
    for network, block in zip(networks, blocks.values(), strict=True):
        trained = network.model.state_dict()  # an LSTM of Opacus' holds its weights by more names than the plain one
        block.model.load_state_dict({name: trained[name] for name in block.model.state_dict()})


class _InTraining:
    """One network in training: a copy of its model that knows the gradient of each stay of a batch."""

    def __init__(self, block: Network, spec: TrainingSpec, number: int) -> None:
        from opacus import GradSampleModule
        from opacus.validators import ModuleValidator

        GradSampleModule.GRAD_SAMPLERS[nn.Conv1d] = _convolution_gradients
        GradSampleModule.GRAD_SAMPLERS[AlignedLinear] = GradSampleModule.GRAD_SAMPLERS[nn.Linear]
        # An nn.LSTM becomes Opacus' own, with the same weights by the same names.
        self.model: nn.Module = ModuleValidator.fix(block.model).train()
        self.batch_of, self.rows = block.batch_of, block.rows
        lr_factor = getattr(getattr(self.model, "encoder", None), "lr_factor", 1.0)
        self.parameters: list[Any] = list(self.model.parameters())
        self.start = [p.detach().clone() for p in self.parameters]
        self.optimizer = make_optimizer(self.model, spec, lr_factor * round_lr(spec, number))
        self._per_stay = GradSampleModule(self.model, loss_reduction="sum")

    def gradients(self, label_N: Tensor, rows: Rows) -> list[Tensor]:
        """The gradient of each of these stays, ``(len(rows), size)`` for every parameter."""
        self._per_stay.zero_grad(set_to_none=True)
        loss = training_loss(self.model, self.batch_of(rows), label_N[torch.from_numpy(rows)])
        loss.backward()  # type: ignore[no-untyped-call]
        return [p.grad_sample.flatten(1) for p in self.parameters]


def _convolution_gradients(layer: nn.Conv1d, activations: list[Tensor], backprops: Tensor) -> dict[Any, Tensor]:
    """Per-sample gradients of a convolution over time, for Opacus' hooks: twice as fast as its own, which copies the
    windows by ``im2col``."""
    from opacus.grad_sample.conv import compute_conv_grad_sample

    if layer.groups > 1 or isinstance(layer.padding, str):
        found: dict[Any, Tensor] = compute_conv_grad_sample(layer, activations, backprops)
        return found
    (kernel,), (stride,), (dilation,), (padding,) = layer.kernel_size, layer.stride, layer.dilation, layer.padding
    windows_BCTK = functional.pad(activations[0], (padding, padding)).unfold(2, (kernel - 1) * dilation + 1, stride)
    windows_BPT = windows_BCTK[..., ::dilation].transpose(2, 3).flatten(1, 2)
    gradient_BOP = torch.bmm(backprops, windows_BPT.transpose(1, 2))
    out = {layer.weight: gradient_BOP.view(len(backprops), *layer.weight.shape)}
    if layer.bias is not None:
        out[layer.bias] = backprops.sum(dim=2)
    return out


def _clipped_sum(networks: list[_InTraining], label_N: Tensor, sampled: Rows, clip: float) -> NDArray[np.float64]:
    """The sum over the sampled stays of their joint gradients, each of norm ``clip`` at most, as one vector."""
    square_B = torch.zeros(len(sampled), dtype=torch.float64)
    found: list[tuple[NDArray[np.bool_], list[Tensor]]] = []
    for network in networks:
        has_block = np.isin(sampled, network.rows, assume_unique=True)
        gradients = network.gradients(label_N, sampled[has_block]) if has_block.any() else []
        for gradient in gradients:
            square_B[has_block] += torch.linalg.vector_norm(gradient, dim=1).double() ** 2
        found.append((has_block, gradients))
    is_number_B = torch.isfinite(square_B)
    if not is_number_B.all():  # such a stay adds nothing: times 0 it would still be no number
        for has_block, gradients in found:
            for gradient in gradients:
                gradient[~is_number_B[has_block]] = 0.0
    factor_B = torch.where(is_number_B, torch.clamp(clip / (square_B.sqrt() + 1e-12), max=1.0), 0.0).float()
    parts = []
    for network, (has_block, gradients) in zip(networks, found, strict=True):
        if gradients:
            parts += [factor_B[has_block] @ gradient for gradient in gradients]
        else:
            parts += [torch.zeros(p.numel()) for p in network.parameters]
    return torch.cat(parts).numpy().astype(np.float64)


def _step(networks: list[_InTraining], gradient: NDArray[np.float64], proximal_mu: float) -> None:
    """One step of every block's optimiser down a gradient that holds all blocks one after the other."""
    flat, begin = torch.from_numpy(gradient.astype(np.float32)), 0
    for network in networks:
        for p, p_0 in zip(network.parameters, network.start, strict=True):
            p.grad = flat[begin : begin + p.numel()].view_as(p).clone()
            begin += p.numel()
            if proximal_mu:
                p.grad.add_(p.detach() - p_0, alpha=proximal_mu)
        network.optimizer.step()
