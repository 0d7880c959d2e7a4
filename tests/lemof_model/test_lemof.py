"""The assembled model, stage by stage, against rows worked out by hand."""

import numpy as np
import pytest

from lemof_model import lemof
from lemof_model.logistic import sigmoid
from lemof_model.study import LogisticSpec
from tests.studies import tiny_study

LOG_ODDS = tiny_study()
PROBABILITY = tiny_study(logistic=LogisticSpec(inputs="probability"))
LEVELS = {
    "ecg": np.array([[0.5, -1.0, 9.0], [np.nan, np.nan, np.nan], [-9.0, 0.0, 1.0]]),
    "ehr": np.array([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0], [0.1, 0.2, 12.0]]),
}
MODEL = {
    "meta/ecg": np.array([1.0, 2.0, 3.0, -0.5]),
    "meta/ehr": np.array([0.5, 0.0, 1.0, 0.25]),
    "best_level": np.array([3, 1]),
    "omega_1": np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
    "final": np.array([2.0, 1.0, -1.0]),
}


def test_meta_predictions_read_clipped_log_odds_and_are_zero_without_the_modality() -> None:
    found = lemof.meta_log_odds(LEVELS["ecg"], "ecg", MODEL, LOG_ODDS)
    np.testing.assert_allclose(found, [0.5 - 2.0 + 24.0 - 0.5, 0.0, -8.0 + 0.0 + 3.0 - 0.5])


def test_meta_predictions_read_probabilities_in_the_literal_form() -> None:
    found = lemof.meta_log_odds(LEVELS["ehr"], "ehr", MODEL, PROBABILITY)
    p = sigmoid(LEVELS["ehr"])
    np.testing.assert_allclose(found, 0.5 * p[:, 0] + p[:, 2] + 0.25)


def test_omega_1_reads_meta_and_best_of_both_and_whether_there_is_an_ecg() -> None:
    rows = lemof.omega_1_rows(LEVELS, MODEL, LOG_ODDS, has_indicator=True)
    expected = [[8.0, 8.0, 3.75, 1.0, 1.0], [0.0, 0.0, -3.25, -1.0, 0.0], [-5.5, 1.0, 8.0, 0.1, 1.0]]
    np.testing.assert_allclose(rows, expected)
    without = lemof.omega_1_rows(LEVELS, MODEL, LOG_ODDS, has_indicator=False)
    np.testing.assert_allclose(without, np.array(expected)[:, :4])
    found = lemof.omega_1_log_odds(LEVELS, MODEL, LOG_ODDS)
    np.testing.assert_allclose(found, np.array(expected) @ MODEL["omega_1"][:5] + 0.6)


def test_a_missing_modality_is_probability_half_in_the_literal_form() -> None:
    rows = lemof.omega_1_rows(LEVELS, MODEL, PROBABILITY, has_indicator=True)
    np.testing.assert_allclose(rows[1, :2], 0.5)
    assert ((rows > 0) & (rows <= 1))[:, :4].all() and rows[:, 4].tolist() == [1.0, 0.0, 1.0]


def test_cross_fit_reads_the_head_that_did_not_see_the_patient() -> None:
    """Head f is trained on fold f."""
    heads = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    found = lemof.cross_fit(heads, np.array([0, 1, 0]), np.array([True, True, False]))
    assert found.tolist() == [10.0, 2.0, 16.5]


def test_predict_gives_the_five_variants() -> None:
    omega_2 = np.array([1.0, -9.0, 0.0])
    found = lemof.predict(LEVELS, omega_2, MODEL, LOG_ODDS)
    assert tuple(found) == lemof.VARIANTS
    omega_1 = lemof.omega_1_log_odds(LEVELS, MODEL, LOG_ODDS)
    np.testing.assert_array_equal(found["m2"], omega_2)
    np.testing.assert_array_equal(found["m1"], omega_1)
    np.testing.assert_allclose(found["full"], 2 * np.clip(omega_1, -8, 8) + np.clip(omega_2, -8, 8) - 1)
    assert np.isnan(found["ecg_single"]).tolist() == [False, True, False]
    assert np.isfinite(found["ehr_single"]).all()


@pytest.mark.parametrize("prefix", ["ecg", "attention/0"])
def test_parts_of_the_model_go_out_and_in_by_name(prefix: str) -> None:
    model = {"ecg/a": np.ones(1), "ecg_more/a": np.zeros(1), "attention/0/b": np.ones(2)}
    taken = lemof.part(model, prefix)
    assert len(taken) == 1
    assert lemof.prefixed(prefix, taken).keys() <= model.keys()


def test_first_weights_are_a_function_of_the_seed_and_differ_by_fold() -> None:
    best = np.array([1, 2])
    first, again = (lemof.initial_heads(LOG_ODDS, best) for _ in range(2))
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    assert (first["attention/0/output.weight"] != first["attention/1/output.weight"]).any()
    other = lemof.initial_networks(tiny_study(seed=8))
    assert (other["ehr/heads.0.weight"] != lemof.initial_networks(LOG_ODDS)["ehr/heads.0.weight"]).any()
