"""Training against steps worked out by hand."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from lemof_model import training
from lemof_model.study import TrainingSpec

SGD = TrainingSpec(
    optimizer="sgd",
    client_lr=0.1,
    warmup_rounds=0,
    num_rounds=10**6,
    weight_decay=0.0,
    max_grad_norm=0.0,
    batch_size=100,
)
INPUT_NF = torch.tensor(np.random.default_rng(0).normal(size=(12, 4)), dtype=torch.float32)
LABEL_N = np.array([0, 1] * 6, np.int8)
ROWS = np.arange(12)


def line() -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(4, 1)


def fit(model: nn.Module, spec: TrainingSpec, **more: float) -> None:
    training.train(model, lambda rows: INPUT_NF[rows], LABEL_N, ROWS, spec, seed=1, number=1, **more)


def gradient_at(weight: np.ndarray, bias: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = INPUT_NF.numpy()[rows].astype(np.float64)
    error = 1.0 / (1.0 + np.exp(-(x @ weight[0] + bias[0]))) - LABEL_N[rows]
    return (error @ x / len(rows))[None], np.array([error.mean()])


def test_one_full_batch_step_is_the_one_worked_out_by_hand() -> None:
    model = line()
    weight, bias = (p.detach().numpy().astype(np.float64) for p in model.parameters())
    dw, db = gradient_at(weight, bias, ROWS)
    fit(model, SGD)
    np.testing.assert_allclose(model.weight.detach().numpy(), weight - 0.1 * dw, rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.bias.detach().numpy(), bias - 0.1 * db, rtol=0, atol=1e-6)


def test_fedprox_pulls_back_to_where_the_round_began() -> None:
    mu, model = 2.0, line()
    spec = dataclasses.replace(SGD, num_epochs=3)
    start = [p.detach().numpy().astype(np.float64) for p in model.parameters()]
    weight, bias = (value.copy() for value in start)
    for _ in range(3):
        dw, db = gradient_at(weight, bias, ROWS)
        weight, bias = (
            weight - 0.1 * (dw + mu * (weight - start[0])),
            bias - 0.1 * (db + mu * (bias - start[1])),
        )
    fit(model, spec, proximal_mu=mu)
    np.testing.assert_allclose(model.weight.detach().numpy(), weight, rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.bias.detach().numpy(), bias, rtol=0, atol=1e-6)


def test_the_gradient_is_clipped_to_its_norm_and_no_more_than_that() -> None:
    model, free = line(), line()
    start = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    fit(free, SGD)
    limit = 0.05
    fit(model, dataclasses.replace(SGD, max_grad_norm=limit))
    steps = [np.concatenate([p.detach().numpy().ravel() for p in m.parameters()]) - start for m in (free, model)]
    assert np.linalg.norm(steps[0]) > 0.1 * limit * 1.5
    assert np.linalg.norm(steps[1]) == pytest.approx(0.1 * limit, rel=1e-3)
    np.testing.assert_allclose(steps[1] / np.linalg.norm(steps[1]), steps[0] / np.linalg.norm(steps[0]), atol=1e-4)


def test_round_and_encoder_decide_the_learning_rate() -> None:
    class Line(nn.Linear):
        lr_factor = 1.0

    class Network(nn.Module):
        def __init__(self, lr_factor: float) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.encoder = Line(4, 1)
            self.encoder.lr_factor = lr_factor

        def forward(self, x_BF: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.encoder(x_BF)
            return out

    def moved(lr_factor: float, spec: TrainingSpec, number: int) -> np.ndarray:
        model = Network(lr_factor)
        training.train(model, lambda rows: INPUT_NF[rows], LABEL_N, ROWS, spec, seed=1, number=number)
        return (model.encoder.weight - line().weight).detach().numpy()

    usual = moved(1.0, SGD, 1)
    np.testing.assert_allclose(moved(2.5, SGD, 1), 2.5 * usual, rtol=1e-4)
    warm = dataclasses.replace(SGD, warmup_rounds=4)
    np.testing.assert_allclose(moved(1.0, warm, 3), 0.75 * usual, rtol=1e-4)
    falling = dataclasses.replace(SGD, num_rounds=5, final_lr_share=0.2)
    np.testing.assert_allclose(moved(1.0, falling, 5), 0.2 * usual, rtol=1e-4)


def test_vectors_and_embeddings_are_not_decayed() -> None:
    model = nn.ModuleDict({"table": nn.Embedding(3, 2), "line": nn.Linear(2, 2), "norm": nn.LayerNorm(2)})
    model["lstm"] = nn.LSTM(2, 2)
    optimizer = training.make_optimizer(model, TrainingSpec(weight_decay=0.5), 0.1)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(p) for p in (model["line"].weight, model["lstm"].weight_ih_l0, model["lstm"].weight_hh_l0)}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_every_row_comes_once_an_epoch_in_an_order_of_its_own() -> None:
    rows = np.array([3, 8, 11, 20, 21, 40, 41])
    batches = list(training.draw_batches(rows, 3, 2, seed=4))
    assert [len(batch) for batch in batches] == [3, 3, 1, 3, 3, 1]
    epochs = [np.concatenate(batches[:3]), np.concatenate(batches[3:])]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), rows)
    assert not np.array_equal(epochs[0], epochs[1])
    again = list(training.draw_batches(rows, 3, 2, seed=4))
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


def test_a_seed_is_the_same_on_every_machine() -> None:
    assert training.derive_seed(7, "hospital_a", "encoders", "ecg", 1) == 931653333572212249
    assert training.derive_seed("a", "bc") != training.derive_seed("ab", "c")
    assert training.derive_seed(12) != training.derive_seed(1, 2)


def test_training_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    fit(nn.Sequential(nn.Dropout(0.5), line_after_seed()), SGD)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def line_after_seed() -> nn.Linear:
    with torch.random.fork_rng():
        return line()


def test_losses_of_several_outputs_are_added() -> None:
    logit = np.array([[0.3, -1.0], [2.0, 0.0]])
    label = np.array([1, 0], np.int8)
    slow = 0.0
    for row, y in zip(logit, label, strict=True):
        for value in row:
            p = 1 / (1 + np.exp(-value))
            slow -= np.log(p if y else 1 - p)
    assert training.loss_of(logit, label) == pytest.approx(slow)
    fast = training.summed_loss(torch.tensor(logit), torch.tensor(label, dtype=torch.float64))
    assert float(fast) == pytest.approx(slow)


def test_inference_is_in_the_order_of_rows_and_without_dropout() -> None:
    model = nn.Sequential(nn.Dropout(0.9), line())
    rows = np.array([5, 0, 7])
    found = training.log_odds(model, lambda r: INPUT_NF[r], rows)
    with torch.no_grad():
        np.testing.assert_allclose(found, model[1](INPUT_NF[rows]).numpy(), rtol=0, atol=1e-6)
    assert training.log_odds(model, lambda r: INPUT_NF[r], np.zeros(0, np.int64)).shape[0] == 0


def test_weights_travel_by_name_and_are_copies() -> None:
    model, other = line(), nn.Linear(4, 1)
    arrays = training.to_arrays(model)
    training.from_arrays(other, arrays)
    arrays["weight"][:] = 9.0
    assert not np.any(model.weight.detach().numpy() == 9.0)
    torch.testing.assert_close(other.weight, model.weight)
    with pytest.raises(RuntimeError, match="bias"):
        training.from_arrays(other, {"weight": arrays["weight"]})
