"""How fast an encoder is beside its reference, and attention on cached tokens beside attention that runs encoders.

All with one thread, on a hospital's own stays. What is compared takes turns, call by call; the first turn is not
counted. A ratio is the mean over blocks of the ratio of medians, and its noise two standard errors of that mean. A
reference predicts from its last layer, so against it ours predicts from level 3 alone; the other rows have all heads.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_tabnet.tab_network import TabNet
from rows import Row
from rtdl_revisiting_models import MLP, FTTransformer
from torch import Tensor, nn

from client.cohort import frozen
from client.cohort.hospital import Hospital
from lemof_model import lemof, training
from lemof_model.encoders.ehr_mlp import flat_row
from lemof_model.encoders.registry import build_network
from lemof_model.pyramid import EhrBatch, Inputs, ModalityNetwork
from lemof_model.stays import NUM_CATEGORIES, NUMERIC_COLUMNS, BatchOf, Rows, feature_sums, scaling_from
from lemof_model.study import MODALITIES, NUM_LEVELS, EncoderSpec

STEP_STAYS, INFERENCE_STAYS = 64, 288
NUM_BLOCKS, NUM_TIMES, NUM_ROUNDS = 5, 20, 10
MOST_MS = {"ecg": 60.0, "ehr": 60.0}
LEAST_CACHED = 10.0
BEST_LEVEL = 3

Seconds = NDArray[np.float64]


class TopLevel(nn.Module):
    """One of our networks as a reference is built: log-odds of the last level alone, ``(B, 1)``."""

    def __init__(self, network: ModalityNetwork) -> None:
        super().__init__()
        self.encoder, self.head = network.encoder, network.heads[-1]

    def forward(self, inputs: Inputs) -> Tensor:
        """Return ``(B, 1)``."""
        out: Tensor = self.head(self.encoder(inputs)[-1].pooled_BD)
        return out


class Reference(nn.Module):
    """A package's model that reads an ``EhrBatch`` and gives log-odds, ``(B, 1)``."""

    def __init__(self, name: str, model: nn.Module, inputs: Callable[[EhrBatch], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.name, self.encoder, self.inputs = name, model, inputs

    def forward(self, batch: EhrBatch) -> Tensor:
        """Return ``(B, 1)``; TabNet's own loss is left where training looks for it."""
        out = self.encoder(*self.inputs(batch))
        if isinstance(out, tuple):
            out, negative_entropy = out
            self.encoder.penalty_B = -1e-3 * negative_entropy.expand(len(out))
        logit_BK: Tensor = out
        return logit_BK


def reference_of(name: str, ours: Any) -> Reference | None:
    """The reference of an encoder, with the sizes and dropouts of ``ours``, where a light package has one."""
    num_numeric, num_categories, width = len(NUMERIC_COLUMNS), list(NUM_CATEGORIES), ours.pooled_widths[0]
    num_features = num_numeric + len(num_categories)
    match name:
        case "ft_transformer":
            block = ours.blocks[0]
            model: nn.Module = FTTransformer(
                n_cont_features=num_numeric, cat_cardinalities=num_categories, d_out=1, n_blocks=NUM_LEVELS,
                d_block=width, attention_n_heads=block.attention.num_heads, attention_dropout=block.attention.dropout,
                ffn_dropout=block.dropout.p, residual_dropout=0.0, ffn_d_hidden_multiplier=4 / 3,
            )  # fmt: skip
            return Reference("rtdl-revisiting-models", model, lambda batch: (batch.numeric_BF, batch.category_BF))
        case "mlp":
            sizes: dict[str, Any] = {"n_blocks": NUM_LEVELS, "d_block": width, "dropout": ours.dropout.p}
            model = MLP(d_in=2 * num_numeric + sum(num_categories), d_out=1, **sizes)
            return Reference("rtdl-revisiting-models", model, lambda batch: (flat_row(*batch[:3], NUM_CATEGORIES),))
        case "tabnet":
            model = TabNet(
                num_features, 1, n_d=width, n_a=width, n_steps=NUM_LEVELS, gamma=ours.gamma,
                cat_idxs=list(range(num_numeric, num_features)), cat_dims=num_categories,
                cat_emb_dim=[1] * len(num_categories), group_attention_matrix=torch.eye(num_features),
            )  # fmt: skip
            return Reference("pytorch-tabnet", model, lambda b: (torch.cat([b.numeric_BF, b.category_BF], dim=1),))
    return None


def training_step(network: nn.Module, hospital: Hospital, batch_of: BatchOf, rows: Rows) -> Callable[[], None]:
    """A step as training takes it, to be timed."""
    spec, inputs = hospital.study.encoders, batch_of(rows)
    label_B = torch.from_numpy(hospital.stays.long_stay_N[rows].astype(np.float32))
    optimizer = training.make_optimizer(network.train(), spec, spec.client_lr)

    def step() -> None:
        optimizer.zero_grad()
        (training.training_loss(network, inputs, label_B) / len(label_B)).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), spec.max_grad_norm)
        optimizer.step()

    return step


def inference(network: nn.Module, inputs: Inputs) -> Callable[[], None]:
    """The log-odds of a batch, to be timed."""
    network.eval()

    @torch.inference_mode()
    def run() -> None:
        network(inputs)

    return run


def seconds_in_turns(calls: Sequence[Callable[[], None]], num_times: int, num_blocks: int = 1) -> Seconds:
    """Medians over the calls of a block, ``(num_blocks, len(calls))``."""
    taken = np.empty((num_blocks * num_times + 1, len(calls)))
    for turn in taken:
        for index, call in enumerate(calls):
            began = time.perf_counter()
            call()
            turn[index] = time.perf_counter() - began
    medians: Seconds = np.median(taken[1:].reshape(num_blocks, num_times, len(calls)), axis=1)
    return medians


def speed_rows(hospital: Hospital, modality: str, name: str) -> Iterator[Row]:
    """Parameters, training step and inference of one encoder with its heads; the encoder against its reference."""
    study: Any = dataclasses.replace(hospital.study, **{modality: EncoderSpec(name)})  # type: ignore[arg-type]
    hospital = dataclasses.replace(hospital, study=study)
    network = build_network(modality, EncoderSpec(name), seed=1)
    theirs = reference_of(name, network.encoder)
    timed: list[nn.Module] = [network] if theirs is None else [network, TopLevel(network), theirs]
    batch_of = frozen.batches_of(hospital, modality, untrained(hospital))
    rows = np.resize(hospital.stays.rows("train", modality), INFERENCE_STAYS)
    steps = [training_step(one, hospital, batch_of, rows[:STEP_STAYS]) for one in timed]
    step_s = seconds_in_turns(steps, NUM_TIMES, NUM_BLOCKS)
    whole_s = seconds_in_turns([inference(one, batch_of(rows)) for one in timed], NUM_TIMES, NUM_BLOCKS)
    num_weights = [sum(p.numel() for p in one.parameters()) for one in timed]
    step_ms, stays_per_s = (1e3 * np.median(step_s, axis=0)).tolist(), INFERENCE_STAYS / np.median(whole_s, axis=0)

    what, limit = f"{modality} {name}", MOST_MS[modality]
    known = "no reference installs" if theirs is None else f"{theirs.name}: {num_weights[2]:,}"
    yield Row(f"{what}: parameters", known, num_weights[0], "weights")
    ratio, goal = limit / step_ms[0], f"<= {limit:g} ms"
    yield Row(f"{what}: training step of {STEP_STAYS} stays", "one core", step_ms[0], "ms", ratio, goal, ratio >= 1.0)
    yield Row(f"{what}: inference", "one core", float(stays_per_s[0]), "stays/s")
    if theirs is not None:
        step, whole = f"{theirs.name}: {step_ms[2]:.2f} ms", f"{theirs.name}: {stays_per_s[2]:,.0f} stays/s"
        yield Row(f"{what}: training step, level 3 alone", step, step_ms[1], "ms", *as_fast(step_s))
        yield Row(f"{what}: inference, level 3 alone", whole, float(stays_per_s[1]), "stays/s", *as_fast(whole_s))


def as_fast(seconds: Seconds) -> tuple[float, str, bool]:
    """Ratio, goal and whether it holds: at least as fast as the reference."""
    ratios = seconds[:, 2] / seconds[:, 1]
    ratio, noise = float(ratios.mean()), 2 * float(ratios.std(ddof=1)) / len(ratios) ** 0.5
    return ratio, f">= 1 (noise {noise:.2f})", ratio + noise >= 1.0


def untrained(hospital: Hospital) -> dict[str, NDArray[Any]]:
    """Scaling by the hospital's own statistics and first weights of the plan's networks."""
    scaling = scaling_from(feature_sums(hospital.stays.features_NF))
    return lemof.prefixed("scaling", scaling) | lemof.initial_networks(hospital.study)


def attention_row(hospital: Hospital) -> Row:
    """An epoch of one head over ``stack``, from rounds as the plan has them; writing the tokens, once, is not in it."""
    study, stays, rows = hospital.study, hospital.stays, hospital.stays.rows("stack")
    model = untrained(hospital) | {"best_level": np.array([BEST_LEVEL, BEST_LEVEL])}
    networks = {modality: lemof.network(study, modality, model).eval() for modality in MODALITIES}
    batches = {modality: frozen.batches_of(hospital, modality, model) for modality in MODALITIES}

    def tokens_of(modality: str, some: Rows) -> Tensor:
        tokens: Tensor = networks[modality].tokens(batches[modality](some), BEST_LEVEL)
        return tokens

    @torch.no_grad()
    def encoded(some: Rows) -> tuple[Tensor, Tensor, Tensor]:
        has_ecg = stays.has_ecg_N[some]
        present = torch.from_numpy(has_ecg)
        seen = tokens_of("ecg", some[has_ecg])
        ecg = seen.new_zeros(len(some), *seen.shape[1:])
        ecg[present] = seen
        return ecg, tokens_of("ehr", some), present.float()

    head = lemof.attention_head(study, model | lemof.initial_heads(study, model["best_level"]), "attention/0")
    spec = study.attention.training

    def one_round(batch_of: Callable[[Rows], Any]) -> Callable[[], None]:
        return lambda: training.train(head, batch_of, stays.long_stay_N, rows, spec, seed=1, number=1)

    with tempfile.TemporaryDirectory() as folder:  # the hospital's own cache stays as it is
        cached = frozen.Tokens(dataclasses.replace(hospital, folder=Path(folder)), model)
        torch.testing.assert_close(cached.batch(rows), encoded(rows), rtol=1e-3, atol=1e-4)
        rounds = [one_round(cached.batch), one_round(encoded)]
        cached_s, encoded_s = (seconds_in_turns(rounds, NUM_ROUNDS)[0] / spec.num_epochs).tolist()
    ratio = encoded_s / cached_s
    against = f"encoders in every batch: {1e3 * encoded_s:.1f} ms"
    what = f"attention: an epoch of {len(rows)} stays on cached tokens"
    return Row(what, against, 1e3 * cached_s, "ms", ratio, f">= {LEAST_CACHED:g}", ratio >= LEAST_CACHED)
