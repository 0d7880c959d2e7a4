"""Sums over hospitals, and Flower's strategies against their updates written out."""

import itertools

import numpy as np
from numpy.typing import NDArray

from lemof_model.study import StrategySpec
from protocol.messages import Answer
from server.aggregation import BlockStrategy, add


def answer(site: str, counts: dict[str, int], **sums: object) -> Answer:
    arrays = {name.replace("__", "/"): np.asarray(value) for name, value in sums.items()}
    return Answer(stage="meta", round=1, site=site, plan_digest="", sums=arrays, counts=counts)


def test_sums_and_counts_are_added_group_by_group() -> None:
    sums, counts = add(
        [
            answer("b", {"ehr": 4}, ehr__x=[1.0, 2.0]),
            answer("a", {"ehr": 3, "ecg": 2}, ehr__x=[10.0, 20.0], ecg__x=[5]),
        ]
    )
    assert counts == {"ehr": 7, "ecg": 2}
    assert {name: value.tolist() for name, value in sums.items()} == {"ehr/x": [11.0, 22.0], "ecg/x": [5.0]}
    assert all(value.dtype == np.float64 for value in sums.values())


def test_the_order_of_answers_changes_no_bit() -> None:
    rng = np.random.default_rng(0)
    parts = [answer(f"site_{i}", {"g": i}, g__x=rng.normal(size=50) * 10.0 ** rng.integers(-8, 8)) for i in range(4)]
    first, _ = add(parts)
    naive = [sum(part.sums["g/x"] for part in order) for order in itertools.permutations(parts)]
    assert any(not np.array_equal(value, naive[0]) for value in naive), "an order that cannot matter tests nothing"
    for order in itertools.permutations(parts):
        np.testing.assert_array_equal(add(order)[0]["g/x"], first["g/x"])


def test_adding_does_not_change_what_a_hospital_sent() -> None:
    mine, yours = answer("a", {"g": 1}, g__x=[1.0]), answer("b", {"g": 1}, g__x=[2.0])
    add([mine, yours])
    assert mine.sums["g/x"].tolist() == [1.0] and yours.sums["g/x"].tolist() == [2.0]


WEIGHTS: dict[str, NDArray[np.float32]] = {
    "a": np.array([0.5, -1.0], np.float32), "b": np.array([[2.0, 3.0]], np.float32)
}  # fmt: skip


def means(seed: int, num_rounds: int) -> list[dict[str, NDArray[np.float64]]]:
    rng = np.random.default_rng(seed)
    return [{name: value + rng.normal(size=value.shape) for name, value in WEIGHTS.items()} for _ in range(num_rounds)]


def test_fedavg_and_fedprox_take_the_mean() -> None:
    for spec in (StrategySpec(), StrategySpec("fedprox", proximal_mu=0.1)):
        strategy, current = BlockStrategy(spec), dict(WEIGHTS)
        for number, mean in enumerate(means(0, 3), 1):
            current = strategy.next_weights(number, current, mean)
            for name in WEIGHTS:
                assert current[name].dtype == np.float32
                np.testing.assert_array_equal(current[name], mean[name].astype(np.float32))


def test_fedadam_takes_the_steps_of_its_paper() -> None:
    """Reddi et al. 2021 with Flower's defaults, and the bias correction of Kingma and Ba as Flower counts it."""
    eta, beta_1, beta_2, tau = 0.02, 0.9, 0.99, 1e-3
    strategy, current = BlockStrategy(StrategySpec("fedadam", server_lr=eta)), dict(WEIGHTS)
    x = {name: value.astype(np.float64) for name, value in WEIGHTS.items()}
    m, v = ({name: np.zeros_like(value) for name, value in x.items()} for _ in range(2))
    for number, mean in enumerate(means(1, 4), 1):
        current = strategy.next_weights(number, current, mean)
        rate = eta * np.sqrt(1 - beta_2 ** (number + 1)) / (1 - beta_1 ** (number + 1))
        for name in x:
            delta = mean[name] - x[name]
            m[name] = beta_1 * m[name] + (1 - beta_1) * delta
            v[name] = beta_2 * v[name] + (1 - beta_2) * delta**2
            x[name] = (x[name] + rate * m[name] / (np.sqrt(v[name]) + tau)).astype(np.float32).astype(np.float64)
            np.testing.assert_allclose(current[name], x[name], rtol=0, atol=1e-6)
    assert max(np.abs(current[name] - WEIGHTS[name]).max() for name in WEIGHTS) > 0.02
