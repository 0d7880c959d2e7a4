"""No bit of a stay's numbers depends on the stays beside it: their number, its place among them, what they hold."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from client.budget.noise import clip_rows
from lemof_model import importance, lemof, logistic, membership, training
from lemof_model.encoders.registry import ENCODERS, build_network
from lemof_model.errors import ConfigError
from lemof_model.features import GRID_CHANNELS
from lemof_model.pyramid import EhrBatch, ModalityNetwork
from lemof_model.stays import NUM_CATEGORIES, NUMERIC_COLUMNS, Rows
from lemof_model.study import AttentionSpec, EncoderSpec, Study
from protocol.kinds import shortened
from protocol.release import MOST
from tests.inputs import ill_conditioned

NUM_STAYS = 70
"""No multiple of anything."""
PAIRS = [(modality, name) for modality, of in ENCODERS.items() for name in of]
SIZES: dict[str, dict[str, Any]] = {
    "cnn": {"width": 8, "num_tokens": 3},
    "lstm": {"width": 8, "num_tokens": 5},
    "resnet": {"width": 24, "num_tokens": 7},
    "wavenet": {"width": 12, "num_layers": 2},
    "ft_transformer": {"width": 8, "num_heads": 4},
    "mlp": {"width": 8, "num_tokens": 2},
    "tab_transformer": {"width": 8, "num_tokens": 2, "pooled_width": 5},
    "tabnet": {"width": 12, "num_tokens": 3},
    "tpc": {"width": 8, "num_temporal": 3, "num_pointwise": 5},
}
"""Sizes that are odd where a plan can make them so, beside the defaults."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as at the door
    yield
    torch.set_num_threads(before)


def batch_of(modality: str, name: str) -> Callable[[Rows], Any]:
    """Made-up inputs of ``NUM_STAYS`` stays, as a hospital's are shaped and scaled."""
    rng = np.random.default_rng(5)
    if modality == "ecg":
        ecg_mv = rng.normal(0.0, 0.3, (NUM_STAYS, 12, 1000)).astype(np.float32)
        return lambda rows: torch.from_numpy(ecg_mv[rows])
    missing = (rng.random((NUM_STAYS, len(NUMERIC_COLUMNS))) < 0.3).astype(np.float32)
    numeric = rng.normal(size=missing.shape).clip(-4, 4).astype(np.float32) * (1 - missing)
    category = np.stack([rng.integers(0, n, NUM_STAYS) for n in NUM_CATEGORIES], axis=1)
    grid = rng.normal(size=(NUM_STAYS, 24, len(GRID_CHANNELS))).astype(np.float32)

    def ehr(rows: Rows) -> EhrBatch:
        table = EhrBatch.of_table(*(torch.from_numpy(x[rows]) for x in (numeric, missing, category)))
        if name != "tpc":
            return table
        return table._replace(grid_BTG=torch.from_numpy(grid[rows]), measured_BTG=torch.from_numpy(abs(grid[rows])))

    return ehr


def outputs(network: Any, of: Callable[[Rows], Any], rows: Rows) -> NDArray[Any]:
    """All that is inferred with a network: log-odds, and of an encoder the tokens of each level."""

    def whole(inputs: Any) -> Tensor:
        if not isinstance(network, ModalityNetwork):
            out: Tensor = network(inputs)
            return out
        levels = network.encoder(inputs)
        logits = [head(level.pooled_BD) for head, level in zip(network.heads, levels, strict=True)]
        tokens = [functional.layer_norm(level.tokens_BTD, level.tokens_BTD.shape[2:]) for level in levels]
        return torch.cat([*logits, *(tokens_BTD.flatten(1) for tokens_BTD in tokens)], dim=1)

    return torch.cat(list(training.infer(whole, of, rows, training.inference_batch(network)))).numpy()


def assert_apart(network: Any, of: Callable[[Rows], Any], weights: str) -> None:
    """Compare every stay of a cohort with itself at other places, beside others, alone."""
    if weights == "ill-conditioned":
        training.from_arrays(network, ill_conditioned(training.to_arrays(network)))
    cohort = np.arange(NUM_STAYS - 1)
    in_cohort = outputs(network.eval(), of, cohort)
    assert np.isfinite(in_cohort).all(), "no number has no last bit"
    if weights == "random":  # under the others nothing at all may be left, where a kernel adds up twin by twin
        assert (in_cohort.std(axis=0) > 0).mean() > 0.3, "what is the same for all stays tells of no order of sums"
    others = {
        "with one patient more at the front": np.concatenate([[NUM_STAYS - 1], cohort]),
        "with one patient less": cohort[:-1],
        "in the other order, at every place of a batch": np.resize(
            cohort[::-1], NUM_STAYS + 2 * training.INFERENCE_BATCH
        ),
        "of one split": cohort[::3],
        **{f"number {row} alone": np.array([row]) for row in (0, 68)},
    }
    for what, rows in others.items():
        common = np.isin(rows, cohort)
        same = outputs(network, of, rows)[common].tobytes() == in_cohort[rows[common]].tobytes()
        assert same, f"a stay {what} has other bits than in the cohort"


@pytest.mark.parametrize("weights", ["random", "ill-conditioned"])
@pytest.mark.parametrize("sizes", ["default", "odd"])
@pytest.mark.parametrize(("modality", "name"), PAIRS)
def test_an_encoder_gives_a_stay_the_same_bits_in_any_company(
    modality: str, name: str, sizes: str, weights: str
) -> None:
    network = build_network(modality, EncoderSpec(name, SIZES[name] if sizes == "odd" else {}), seed=1)
    assert_apart(network, batch_of(modality, name), weights)


@pytest.mark.parametrize("weights", ["random", "ill-conditioned"])
@pytest.mark.parametrize("token_width", [2, 4, 20])
@pytest.mark.parametrize("width", [4, 12, 32])
def test_an_attention_head_gives_a_stay_the_same_bits_in_any_company(
    width: int, token_width: int, weights: str
) -> None:
    sizes: dict[str, int | float] = {"width": 9 * token_width, "num_tokens": 9}
    study = Study("apart", ehr=EncoderSpec("mlp", sizes), attention=AttentionSpec(width=width))
    rng = np.random.default_rng(6)
    ecg, ehr = (rng.normal(size=(NUM_STAYS, *of)).astype(np.float32) for of in ((11, 32), (9, token_width)))
    has_ecg = (rng.random(NUM_STAYS) < 0.7).astype(np.float32)
    head = lemof.build_head(study, np.array([2, 2]), seed=1)
    assert_apart(head, lambda rows: tuple(torch.from_numpy(x[rows]) for x in (ecg, ehr, has_ecg)), weights)


def made_of(rows_NP: NDArray[np.float64], label_N: NDArray[np.int8]) -> Iterator[NDArray[np.float64]]:
    """What comes of each stay's log-odds on the way to a sum or a histogram."""
    theta = MOST * np.random.default_rng(7).normal(size=rows_NP.shape[1] + 1)
    log_odds = logistic.decision(theta, rows_NP)
    yield from (log_odds, logistic.sigmoid(log_odds), logistic.sigmoid(rows_NP))
    yield from (training.losses(rows_NP, label_N), membership.margins(log_odds, label_N))
    yield from (clip_rows(rows_NP), shortened(rows_NP, 1.0), importance.shap_values(theta, rows_NP, rows_NP[0] * 0 + 1))
    yield lemof.cross_fit(rows_NP[:, :2], label_N.astype(np.int64), label_N > 0)


@pytest.mark.parametrize("num_inputs", [2, 3, 4, 5])
def test_what_is_made_of_log_odds_is_the_same_in_any_company(num_inputs: int) -> None:
    rng = np.random.default_rng(8)
    rows = np.clip(8 * rng.normal(size=(NUM_STAYS, num_inputs)), -8, 8)
    label = rng.integers(0, 2, NUM_STAYS).astype(np.int8)
    for size in (1, 2, 3, 5, 66):
        for start in range(NUM_STAYS + 1 - size):
            some = slice(start, start + size)
            for alone, found in zip(made_of(rows[some].copy(), label[some]), made_of(rows, label), strict=True):
                assert alone.tobytes() == found[some].tobytes()


@pytest.mark.parametrize(
    "spec",
    [
        EncoderSpec("ft_transformer", {"width": 10}),
        EncoderSpec("mlp", {"width": 10, "num_tokens": 2}),
        EncoderSpec("mlp", {"width": 8}),
        EncoderSpec("tabnet", {"width": 12, "num_tokens": 2}),
    ],
)
def test_tokens_that_would_make_places_matter_are_refused(spec: EncoderSpec) -> None:
    with pytest.raises(ConfigError, match="the width of a token must be 2 or a multiple of 4"):
        build_network("ehr", spec)


def test_an_attention_width_that_would_make_places_matter_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"attention\.width must be 4 or a multiple of it"):
        AttentionSpec(width=6)
