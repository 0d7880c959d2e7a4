"""Training and inference as plain functions: a module and batches in, a result out.

Nothing here knows of sites or rounds; whoever calls derives a seed from (seed, site, stage, round) with
``derive_seed``, so a repeated round is equal to the bit. The loss is the mean over the batch of the summed binary
cross-entropies of the outputs: three for a modality network (deep supervision), one for an attention head; an encoder
may add a loss of its own for each stay (``penalty_B``).
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lemof_model.pyramid import PyramidEncoder
from lemof_model.stays import Rows, chunks
from lemof_model.study import TrainingSpec

INFERENCE_BATCH = 288
"""Stays of every inference batch, unless an encoder states its own (``PyramidEncoder.inference_batch``)."""


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any words, the same on every machine.

    Example:
        >>> derive_seed(7, "hospital_a", "encoders", 1) == derive_seed(7, "hospital_a", "encoders", 2)
        False
    """
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def draw_batches(rows: Rows, batch_size: int, num_epochs: int, seed: int) -> Iterator[Rows]:
    """Shuffled batches, each row once per epoch. Fewer rows than ``batch_size`` make one whole batch."""
    rng = np.random.default_rng(seed)
    for _ in range(num_epochs):
        yield from chunks(rng.permutation(rows), batch_size)


def round_lr(spec: TrainingSpec, number: int) -> float:
    """Learning rate of round ``number`` (1 is the first): linear warm-up, then half a cosine to the last round.

    Example:
        >>> spec = TrainingSpec(num_rounds=5, client_lr=1.0, warmup_rounds=2, final_lr_share=0.1)
        >>> [round(round_lr(spec, number), 3) for number in (1, 2, 3, 4, 5)]
        [0.5, 1.0, 0.775, 0.325, 0.1]
    """
    if number <= spec.warmup_rounds:
        return spec.client_lr * number / spec.warmup_rounds
    done = (number - spec.warmup_rounds) / max(spec.num_rounds - spec.warmup_rounds, 1)
    share = (1 + math.cos(math.pi * min(done, 1.0))) / 2
    return spec.client_lr * (spec.final_lr_share + (1 - spec.final_lr_share) * share)


def make_optimizer(model: nn.Module, spec: TrainingSpec, lr: float) -> torch.optim.Optimizer:
    """A fresh optimiser. Weight decay is for the matrices of linear, convolution and recurrent layers alone, not for
    norms, biases, embeddings and tokens."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv1d | nn.LSTM)]
    named = [pair for layer in layers for pair in layer.named_parameters(recurse=False)]
    decayed = {id(p) for name, p in named if name.startswith("weight")}
    groups = [
        {"params": [p for p in model.parameters() if id(p) in decayed], "weight_decay": spec.weight_decay},
        {"params": [p for p in model.parameters() if id(p) not in decayed], "weight_decay": 0.0},
    ]
    if spec.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr)
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def summed_loss(logit_BK: Tensor, label_B: Tensor) -> Tensor:
    """Binary cross-entropy, summed over outputs and over the batch."""
    return functional.binary_cross_entropy_with_logits(logit_BK, label_B[:, None].expand_as(logit_BK), reduction="sum")


def training_loss(model: nn.Module, inputs: Any, label_B: Tensor) -> Tensor:
    """What a step goes down, summed over the batch: ``summed_loss`` and the encoder's own loss, where it has one."""
    loss = summed_loss(model(inputs), label_B)
    penalty_B = getattr(getattr(model, "encoder", None), "penalty_B", None)
    return loss if penalty_B is None else loss + penalty_B.sum()


def train(
    model: nn.Module,
    batch_of: Callable[[Rows], Any],
    labels_N: NDArray[np.int8],
    rows: Rows,
    spec: TrainingSpec,
    *,
    seed: int,
    number: int,
    proximal_mu: float = 0.0,
) -> None:
    """Train ``model`` in place on ``rows`` for ``spec.num_epochs`` with an optimiser that starts afresh.

    ``number`` is the round, which decides the learning rate together with the encoder's ``lr_factor``.

    With ``proximal_mu`` the step is FedProx's (Li et al. 2020): ``mu (w - w_0)`` is added to the gradient after
    clipping, w_0 being the weights the round began with.
    """
    label = torch.from_numpy(labels_N.astype(np.float32))
    lr_factor = getattr(getattr(model, "encoder", None), "lr_factor", 1.0)
    optimizer = make_optimizer(model, spec, lr_factor * round_lr(spec, number))
    start = [p.detach().clone() for p in model.parameters()] if proximal_mu else []
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "dropout"))
        for batch in draw_batches(rows, spec.batch_size, spec.num_epochs, derive_seed(seed, "batches")):
            optimizer.zero_grad()
            loss = training_loss(model, batch_of(batch), label[torch.from_numpy(batch)])
            (loss / len(batch)).backward()  # type: ignore[no-untyped-call]
            if spec.max_grad_norm:
                nn.utils.clip_grad_norm_(model.parameters(), spec.max_grad_norm)
            for p, p_0 in zip(model.parameters(), start, strict=False):
                if p.grad is not None:
                    p.grad.add_(p.detach() - p_0, alpha=proximal_mu)
            optimizer.step()
    if isinstance(encoder := getattr(model, "encoder", None), PyramidEncoder):
        encoder.penalty_B = None  # with its graph it could not be copied


def inference_batch(model: nn.Module) -> int:
    """How many stays a network, or an attention head, infers at once."""
    encoder = getattr(model, "encoder", None)
    return encoder.inference_batch if isinstance(encoder, PyramidEncoder) else INFERENCE_BATCH


@torch.inference_mode()
def infer(
    function: Callable[[Any], Tensor], batch_of: Callable[[Rows], Any], rows: Rows, size: int = INFERENCE_BATCH
) -> Iterator[Tensor]:
    """Outputs of ``function`` over consecutive batches of ``rows``. The caller puts the model in evaluation mode.

    Every batch has ``size`` stays: the last row fills it up, and what comes of that is cut off. So no bit of a stay's
    numbers tells who else is there (``docs/decisions/0022``).
    """
    for batch in chunks(rows, size):
        filled = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch))])
        yield function(batch_of(filled))[: len(batch)]


def log_odds(model: nn.Module, batch_of: Callable[[Rows], Any], rows: Rows) -> NDArray[np.float64]:
    """Log-odds of every output for ``rows``, ``(len(rows), K)``, without dropout."""
    model.eval()
    parts = [out.numpy().astype(np.float64) for out in infer(model, batch_of, rows, inference_batch(model))]
    return np.concatenate(parts) if parts else np.zeros((0, 1))


def loss_of(logit_NK: NDArray[np.float64], labels_N: NDArray[np.int8]) -> float:
    """Summed binary cross-entropy of log-odds over stays and outputs."""
    return float(np.logaddexp(0.0, logit_NK).sum() - (logit_NK * labels_N[:, None]).sum())


def losses(logit_NK: NDArray[np.float64], labels_N: NDArray[np.int8]) -> NDArray[np.float64]:
    """Each stay's part of ``loss_of``, ``(N,)``; finite whatever the log-odds are."""
    logit = np.nan_to_num(logit_NK, nan=0.0, posinf=1e6, neginf=-1e6)
    return np.asarray((np.logaddexp(0.0, logit) - logit * labels_N[:, None]).sum(axis=1))


def to_arrays(model: nn.Module) -> dict[str, NDArray[Any]]:
    """Weights by name, as arrays of their own."""
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


def from_arrays(model: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Load weights by name; every name must be there and of the right shape."""
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
