"""The coordinator's two machines: a block that keeps its best round, and a Newton search over a fixed set of sites."""

import dataclasses

import numpy as np

from lemof_model import logistic
from lemof_model.study import StrategySpec
from server.aggregation import BlockStrategy
from server.blocks import Block
from server.newton_stage import NewtonStage
from server.run_store import Round, SiteReply
from tests.studies import tiny_study

ROWS = np.random.default_rng(0).normal(size=(60, 2))
LABELS = (np.random.default_rng(1).random(60) < 0.4).astype(np.int8)
SITES = {"a": slice(0, 20), "b": slice(20, 60)}


def tuned(loss: float | None, weight: float, sites: str = "ab") -> Round:
    """A round with a tuning loss over four stays of some sites, and a mean weight over two."""
    counts = {"ehr": 2} | ({"tuning/ehr": 4} if loss is not None else {})
    sums = {"ehr/weights/w": np.array([2.0 * weight]), "tuning/ehr/loss": np.asarray(4.0 * (loss or 0.0))}
    return Round("encoders", 1, sums, counts, {site: SiteReply(counts) for site in sites})


def block_after(losses: list[float | None], patience: int = 0) -> Block:
    """Weights after round r are r; ``losses[r]`` is theirs."""
    block = Block("ehr", {"w": np.array([0.0], np.float32)}, BlockStrategy(StrategySpec()))
    for number, loss in enumerate(losses):
        block.judge(tuned(loss, number + 1.0), number, patience)
        if block.is_done:
            break
        block.step(tuned(loss, number + 1.0), number + 1)
    return block


def test_a_block_keeps_the_weights_of_its_best_round() -> None:
    block = block_after([0.9, 0.5, 0.7, 0.6])
    assert (block.best_round, block.best_weights["w"].tolist()) == (1, [1.0])
    assert block.losses == [0.9, 0.5, 0.7, 0.6] and not block.is_done


def test_patience_ends_a_block() -> None:
    block = block_after([0.9, 0.5, 0.7, 0.6, 0.1], patience=2)
    assert block.is_done and block.best_round == 1 and len(block.losses) == 4


def test_without_a_tuning_loss_the_last_round_is_kept() -> None:
    block = block_after([None, None, None])
    assert (block.best_round, block.best_weights["w"].tolist()) == (2, [2.0])


def test_a_round_that_a_judge_missed_is_not_the_best_one() -> None:
    """Without the site whose stays are hard the mean loss falls, and says nothing of the weights."""
    block = Block("ehr", {"w": np.array([0.0], np.float32)}, BlockStrategy(StrategySpec()))
    for number, (loss, sites) in enumerate([(0.9, "ab"), (0.5, "ab"), (None, "ab"), (0.3, "a"), (0.6, "ab")]):
        block.judge(tuned(loss, 0.0, sites), number, patience=0)
    assert (block.best_round, block.best_loss) == (1, 0.5)
    block.judge(tuned(0.7, 0.0, "abc"), 5, patience=0)
    assert (block.best_round, block.best_loss) == (5, 0.7), "with a new judge the comparison begins anew"


def reply(stage: NewtonStage, sites: list[str]) -> Round:
    own = {}
    for site in sites:
        rows, labels = ROWS[SITES[site]], LABELS[SITES[site]]
        parts = logistic.sums(stage.search.theta, rows, labels)._asdict()
        parts["num_errors"] = np.asarray(logistic.num_errors(stage.search.theta, rows, labels))
        own[site] = {f"final/{name}": value for name, value in parts.items()}
    total = {name: np.asarray(sum(own[site][name] for site in sites), np.float64) for name in own[sites[0]]}
    return Round("final", 1, total, {"final": 1}, {s: SiteReply({"final": 1}, sums=own[s]) for s in sites})


def test_without_a_site_the_coefficients_are_about_those_of_the_others_alone() -> None:
    stage = NewtonStage("final", 2, tiny_study())
    while not stage.is_done:
        stage.advance(reply(stage, ["a", "b"]), "final")
    for site, other in (("a", "b"), ("b", "a")):
        alone = logistic.fit(ROWS[SITES[other]], LABELS[SITES[other]], 1.0)
        near = np.abs(stage.without(site, "final") - alone).max()
        assert near < 0.5 * np.abs(stage.search.found - alone).max()


def test_newton_starts_again_from_its_coefficients_when_a_site_leaves() -> None:
    stage = NewtonStage("final", 2, tiny_study())
    for _ in range(2):
        stage.advance(reply(stage, ["a", "b"]), "final")
    assert (stage.search.num_steps, stage.members) == (2, ["a", "b"])
    there = stage.search.theta
    stage.advance(reply(stage, ["b"]), "final")
    assert (stage.search.num_steps, stage.members) == (1, ["b"])  # another loss: the old one is no measure of the step
    assert stage.search.anchor is not None
    np.testing.assert_array_equal(stage.search.anchor, there)
    while not stage.is_done:
        stage.advance(reply(stage, ["b"]), "final")
    np.testing.assert_allclose(stage.search.theta, logistic.fit(ROWS[20:], LABELS[20:], 1.0), rtol=0, atol=1e-8)
    assert stage.describe()["converged"] and stage.describe()["sites"] == ["b"]


def test_newton_does_not_move_after_its_end() -> None:
    stage = NewtonStage("final", 2, tiny_study())
    while not stage.is_done:
        stage.advance(reply(stage, ["a", "b"]), "final")
    there = stage.search.theta
    stage.advance(reply(stage, ["a"]), "final")
    assert stage.search.theta is there


def noisy(found: Round, deviation: float) -> Round:
    """The same, with site a saying that its gradient has noise of this deviation."""
    noise = {"final/noise": np.array([deviation**2, 0.0])}
    own = dataclasses.replace(found.sites["a"], sums={**found.sites["a"].sums, **noise})
    return dataclasses.replace(found, sums={**found.sums, **noise}, sites={**found.sites, "a": own})


def test_there_is_one_step_from_noisy_sums_from_where_one_would_stay_without_it() -> None:
    """It was paid for, and is not called converged or separated."""
    stage = NewtonStage("final", 2, tiny_study(), noisy_start=[1.0, 0.0])
    assert (stage.is_done, stage.search.theta.tolist()) == (False, [1.0, 0.0, 0.0])
    stage.advance(noisy(reply(stage, ["a", "b"]), 0.1), "final")
    assert (stage.is_done, stage.search.num_steps) == (True, 1)
    told = stage.describe()
    assert (told["converged"], told["noisy"], told["separated"]) == (False, True, False)


def test_where_no_noise_came_the_search_goes_to_its_end() -> None:
    """A hospital with a budget was in the census, and has left."""
    stage = NewtonStage("final", 2, tiny_study(), noisy_start=[1.0, 0.0])
    while not stage.is_done:
        stage.advance(reply(stage, ["a", "b"]), "final")
    np.testing.assert_allclose(stage.search.theta, logistic.fit(ROWS, LABELS, 1.0), rtol=0, atol=1e-8)
    assert stage.describe()["converged"] and not stage.describe()["noisy"]


def test_without_the_noisy_site_the_others_sums_are_exact() -> None:
    stage = NewtonStage("final", 2, tiny_study(), noisy_start=[0.1, 0.1])
    stage.advance(noisy(reply(stage, ["a", "b"]), 1.0), "final")
    exact = NewtonStage("final", 2, tiny_study(), noisy_start=[0.1, 0.1])
    exact.advance(reply(exact, ["b"]), "final")
    np.testing.assert_allclose(stage.without("a", "final"), exact.search.theta, rtol=0, atol=1e-12)
    assert np.abs(stage.without("b", "final") - exact.search.theta).max() > 1e-3


def test_of_noisy_losses_only_those_of_the_last_rounds_are_compared() -> None:
    block = Block("ehr", {"w": np.array([0.0], np.float32)}, BlockStrategy(StrategySpec()))
    for number, loss in enumerate([0.1, 0.5, 0.7, 0.6]):
        block.judge(tuned(loss, 0.0), number, patience=0, first_judged=2)
    assert (block.best_round, block.losses) == (3, [0.1, 0.5, 0.7, 0.6])
