"""Cross-modal attention against a loop in numpy, and what a missing ECG means to it."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lemof_model.attention import CrossModalAttention, TokenMaps

B, T_ECG, T_EHR, D_ECG, D_EHR, W = 4, 6, 5, 8, 12, 8


def head(seed: int = 0) -> CrossModalAttention:
    torch.manual_seed(seed)
    built = CrossModalAttention(D_ECG, D_EHR, width=W, dropout=0.0).double().eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return built


def tokens(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((B, T_ECG, D_ECG), (B, T_EHR, D_EHR))
    ecg, ehr = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return ecg, ehr


ALL_PRESENT = torch.ones(B, dtype=torch.float64)


def slow_direction(asking: TokenMaps, asking_TD: NDArray, answering: TokenMaps, answering_TD: NDArray) -> NDArray:
    """Eq. 10-11 for one stay, token by token: softmax(Q_i K_j' / sqrt(d)) V_j, then the mean over the asking tokens."""
    to_query = asking.query_and_key.weight.detach().numpy()[:W]
    to_key = answering.query_and_key.weight.detach().numpy()[W:]
    to_value = answering.value.weight.detach().numpy()
    out = np.zeros(W)
    for i in range(len(asking_TD)):
        score = [(to_query @ asking_TD[i]) @ (to_key @ x) / math.sqrt(W) for x in answering_TD]
        share = np.exp(score) / np.exp(score).sum()
        for j, x in enumerate(answering_TD):
            out += share[j] * (to_value @ x) / len(asking_TD)
    return out


def slow(built: CrossModalAttention, ecg_TD: NDArray, ehr_TD: NDArray) -> float:
    """Eq. 12: both directions side by side, through G."""
    directions = ((built.ecg, ecg_TD, built.ehr, ehr_TD), (built.ehr, ehr_TD, built.ecg, ecg_TD))
    both = np.concatenate([slow_direction(*direction) for direction in directions])
    return float(built.output.weight.detach().numpy()[0] @ both + built.output.bias.item())


def test_log_odds_equal_a_loop_over_tokens() -> None:
    built, (ecg, ehr) = head(), tokens()
    found = built((ecg, ehr, ALL_PRESENT)).detach().numpy()[:, 0]
    expected = [slow(built, ecg[b].numpy(), ehr[b].numpy()) for b in range(B)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_a_stay_without_ecg_is_attention_over_one_learnt_token_whatever_its_ecg_tokens_hold() -> None:
    built, (ecg, ehr) = head(), tokens()
    has_ecg = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    found = built((ecg, ehr, has_ecg)).detach().numpy()[:, 0]
    other = built((ecg + 100.0 * (1.0 - has_ecg)[:, None, None], ehr, has_ecg)).detach().numpy()[:, 0]
    np.testing.assert_array_equal(found, other)
    one_token = built.no_ecg.token_D.detach().numpy()[None]
    np.testing.assert_allclose(found[1], slow(built, one_token, ehr[1].numpy()), rtol=0, atol=1e-12)
    with_ecg = built((ecg, ehr, ALL_PRESENT)).detach().numpy()[:, 0]
    np.testing.assert_allclose(found[[0, 3]], with_ecg[[0, 3]], rtol=0, atol=1e-12)
    assert np.abs(found[[1, 2]] - with_ecg[[1, 2]]).min() > 1e-3


def test_a_stay_does_not_depend_on_its_batch() -> None:
    built, (ecg, ehr) = head(), tokens()
    has_ecg = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    together = built((ecg, ehr, has_ecg))
    for b in range(B):
        torch.testing.assert_close(built((ecg[b : b + 1], ehr[b : b + 1], has_ecg[b : b + 1])), together[b : b + 1])


def test_the_order_of_tokens_means_nothing() -> None:
    built, (ecg, ehr) = head(), tokens()
    torch.testing.assert_close(built((ecg.flip(1), ehr.roll(2, 1), ALL_PRESENT)), built((ecg, ehr, ALL_PRESENT)))


@pytest.mark.parametrize("modality", ["ecg", "ehr"])
def test_gradient_reaches_every_matrix(modality: str) -> None:
    built, (ecg, ehr) = head(), tokens()
    built((ecg, ehr, ALL_PRESENT)).sum().backward()
    maps = getattr(built, modality)
    for gradient in (*maps.query_and_key.weight.grad.chunk(2), maps.value.weight.grad):
        assert gradient.abs().max() > 1e-6


def test_over_one_token_queries_and_keys_learn_nothing() -> None:
    """Why levels are tokens and not vectors (method, section 2, 7)."""
    built, (ecg, ehr) = head(), tokens()
    built((ecg[:, :1], ehr[:, :1], ALL_PRESENT)).sum().backward()
    for maps in (built.ecg, built.ehr):
        assert maps.query_and_key.weight.grad is not None and maps.query_and_key.weight.grad.abs().max() < 1e-12


def test_the_learnt_token_is_trained_by_stays_without_ecg_alone() -> None:
    built, (ecg, ehr) = head(), tokens()
    built((ecg, ehr, ALL_PRESENT)).sum().backward()
    assert built.no_ecg.token_D.grad is not None and not built.no_ecg.token_D.grad.any()
    built((ecg, ehr, 0.0 * ALL_PRESENT)).sum().backward()
    assert built.no_ecg.token_D.grad.abs().max() > 1e-6
