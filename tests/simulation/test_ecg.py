"""Generated ECGs: what a heart's parameters say is what the written record shows, to a delineator and to wfdb."""

from collections.abc import Callable
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import wfdb
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from lemof_model.study import digest_json
from simulation.synthetic.delineation import MEASURES, Measured, measure
from simulation.synthetic.heart import HEART, LEFT_BLOCK, NO_BLOCK, RIGHT_BLOCK, Heart, draw_hearts
from simulation.synthetic.recording import NOT_RECORDED, RECORDING, draw_ecg, record, swap_arms, write_ecg
from simulation.synthetic.signals import LEADS, NUM_SAMPLES, SIGNAL, _beat, _body, _rhythm, draw_signal

NUM_STAYS = 600
LATENTS = ("conduction", "repolarisation", "rhythm")


class Drawn(NamedTuple):
    """Stays with their latents (3, N), rates, hearts, records and what was measured back by name (N,)."""

    latents_DN: np.ndarray
    rate_bpm_N: np.ndarray
    hearts: list[Heart]
    records: list[np.ndarray]
    measured: dict[str, np.ndarray]

    def true(self, name: str) -> np.ndarray:
        return np.array([getattr(heart, name) for heart in self.hearts])


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    rng = np.random.default_rng(11)
    conduction_N, repolarisation_N, rhythm_N = latents_DN = rng.standard_normal((3, NUM_STAYS))
    rate_bpm_N = np.clip(86 + 15 * rng.standard_normal(NUM_STAYS), 45, 160)
    hearts = draw_hearts(conduction_N, repolarisation_N, rhythm_N, rng)
    records = [draw_ecg(heart, rate, rng) for heart, rate in zip(hearts, rate_bpm_N, strict=True)]
    measured_NM = np.array([astuple(measure(adc)) for adc in records])
    return Drawn(latents_DN, rate_bpm_N, hearts, records, dict(zip(MEASURES, measured_NM.T, strict=True)))


def plain_heart(**changes: Any) -> Heart:
    """A healthy heart in an average body, but for the changes."""
    zero = np.zeros(1)
    healthy = {"qrs_ms": 92.0, "pr_ms": 160.0, "axis_degrees": 45.0, "block": NO_BLOCK, "t_scale": 1.0, "st_mv": 0.0}
    healthy |= {"qtc_ms": 420.0, "sdnn_ms": 20.0, "is_af": False, "ectopic_share": 0.0, "voltage": 1.0, "p_scale": 1.0}
    average = {"lead_gain_L": np.ones(8), "t_turn_degrees_D": np.zeros(3), "torso_turn_degrees_D": np.zeros(3)}
    return replace(draw_hearts(zero, zero, zero, np.random.default_rng(0))[0], **(healthy | average | changes))


def shown_by(heart: Heart, rate_bpm: float = 75.0) -> Measured:
    """What is measured on a record of this heart, with the noise of the same seed for all."""
    return measure(record(draw_signal(heart, rate_bpm, np.random.default_rng(1)), np.random.default_rng(2)))


def usual_beat(heart: Heart, rate_bpm: float = 70.0) -> np.ndarray:
    """One QRS of a noiseless record, from 100 ms before its steepest point to 160 ms after it, (T, L)."""
    signal_SL = draw_signal(heart, rate_bpm, np.random.default_rng(1))
    change_S = np.abs(np.diff(signal_SL, axis=0)).sum(axis=1)
    top = 300 + int(change_S[300:1000].argmax())
    return signal_SL[top - 50 : top + 80]


# --- What is measured back --------------------------------------------------------------------------------------------


def in_sinus(drawn: Drawn) -> np.ndarray:
    return ~drawn.true("is_af")


def everywhere(drawn: Drawn) -> np.ndarray:
    return np.full(NUM_STAYS, True)


@pytest.mark.parametrize(
    ("name", "bias", "spread", "outlier", "where"),
    [
        ("rate_bpm", 0.3, 1.0, 6.0, everywhere),
        ("qrs_ms", 6.0, 2.0, 12.0, everywhere),
        ("pr_ms", 14.0, 3.0, 15.0, in_sinus),
        ("qtc_ms", 5.0, 4.0, 20.0, everywhere),
        ("axis_degrees", 1.0, 1.5, 12.0, everywhere),
        ("st_mv", 0.03, 0.02, 0.08, everywhere),
    ],
)
def test_intervals_measured_back_are_those_drawn(
    drawn: Drawn, name: str, bias: float, spread: float, outlier: float, where: Callable[[Drawn], np.ndarray]
) -> None:
    true = drawn.rate_bpm_N if name == "rate_bpm" else drawn.true(name)
    error = (drawn.measured[name] - true)[where(drawn)]
    known = np.isfinite(error)
    error = error[known]
    away = np.abs(error - np.median(error))
    assert known.mean() > 0.85
    assert abs(np.median(error)) < bias
    assert np.median(away) < spread
    assert (away < outlier).mean() > 0.9
    usual = away < outlier
    assert np.corrcoef(drawn.measured[name][where(drawn)][known][usual], true[where(drawn)][known][usual])[0, 1] > 0.85


def test_t_and_variability_follow_their_parameters(drawn: Drawn) -> None:
    t_known = np.isfinite(drawn.measured["t_mv"])
    assert np.corrcoef(drawn.measured["t_mv"][t_known], drawn.true("t_scale")[t_known])[0, 1] > 0.85
    known = np.isfinite(drawn.measured["sdnn_ms"]) & in_sinus(drawn)
    error = np.log(drawn.measured["sdnn_ms"][known] / drawn.true("sdnn_ms")[known])
    assert abs(np.median(error)) < 0.08 and np.median(np.abs(error)) < 0.2


def test_fibrillation_and_ectopic_beats_are_found(drawn: Drawn) -> None:
    assert roc_auc_score(drawn.true("is_af"), drawn.measured["rr_jump"]) > 0.95
    assert roc_auc_score(drawn.true("is_af"), -np.nan_to_num(drawn.measured["p_mv"])) > 0.95
    share, is_ventricular = drawn.true("ectopic_share"), ~drawn.true("has_atrial_focus")
    often, clear = share > 0.12, in_sinus(drawn) & ((share > 0.12) | (share < 0.01))
    assert roc_auc_score(often[clear & is_ventricular], drawn.measured["odd_share"][clear & is_ventricular]) > 0.85
    assert roc_auc_score(often[clear], drawn.measured["early_share"][clear]) > 0.85


@pytest.mark.parametrize("latent", range(3), ids=LATENTS)
def test_each_latent_can_be_told_from_the_written_record(drawn: Drawn, latent: int) -> None:
    measured_NM = np.column_stack(list(drawn.measured.values()))
    trees = HistGradientBoostingRegressor(max_iter=100, learning_rate=0.06, max_leaf_nodes=8, random_state=0)
    told_N = cross_val_predict(trees, measured_NM, drawn.latents_DN[latent], cv=5)
    assert 0.55 < np.corrcoef(told_N, drawn.latents_DN[latent])[0, 1] ** 2 < 0.88


def test_hearts_are_those_of_intensive_care(drawn: Drawn) -> None:
    block, is_af = drawn.true("block"), drawn.true("is_af")
    assert 0.03 < (block != NO_BLOCK).mean() < 0.10 and {LEFT_BLOCK, RIGHT_BLOCK} <= set(block)
    assert 0.05 < is_af.mean() < 0.14
    for name, low, high in (("qrs_ms", 88, 100), ("pr_ms", 150, 172), ("qtc_ms", 420, 450), ("axis_degrees", 10, 45)):
        assert low < np.median(drawn.true(name)) < high, name
    assert 0.02 < (drawn.true("t_scale") < 0).mean() < 0.2


def test_nothing_is_measured_where_nothing_is_recorded() -> None:
    for nothing in (0, NOT_RECORDED):
        adc = np.full((NUM_SAMPLES, 12), nothing, np.int16)
        assert all(np.isnan(value) for value in astuple(measure(adc)))


def test_a_loose_a_flat_and_a_missing_lead_do_not_spoil_the_others() -> None:
    rng = np.random.default_rng(3)
    clean = record(draw_signal(plain_heart(), 75.0, rng), rng)
    spoilt = clean.copy()
    spoilt[:, LEADS.index("V2")] = (240 * rng.standard_normal(NUM_SAMPLES)).astype(np.int16)
    spoilt[:, LEADS.index("V3")] = 0
    spoilt[1000:1300, LEADS.index("V4")] = NOT_RECORDED
    spoilt[:, LEADS.index("V6")] = NOT_RECORDED
    with_all, without = measure(clean), measure(spoilt)
    for name, tolerance in (("rate_bpm", 0.5), ("qrs_ms", 8), ("pr_ms", 8), ("qt_ms", 8), ("axis_degrees", 0.5)):
        assert getattr(without, name) == pytest.approx(getattr(with_all, name), abs=tolerance), name


# --- What the leads look like -----------------------------------------------------------------------------------------


def test_limb_leads_obey_einthoven_and_goldberger(drawn: Drawn) -> None:
    i, ii, iii, avr, avf, avl = draw_signal(drawn.hearts[0], 80.0, np.random.default_rng(0))[:, :6].T
    np.testing.assert_allclose(iii, ii - i, atol=1e-5)
    np.testing.assert_allclose(avr + avl + avf, 0, atol=1e-5)
    np.testing.assert_allclose(avf, ii - i / 2, atol=1e-5)
    whole = [adc for adc in drawn.records if (adc != NOT_RECORDED).all() and (np.ptp(adc, axis=0) > 0).all()]
    assert len(whole) > 0.9 * NUM_STAYS
    for adc in whole[:50]:
        assert np.abs(adc[:, 0].astype(int) + adc[:, 2] - adc[:, 1]).max() <= 1  # ADC units: only rounding


def test_r_grows_from_v1_to_v5_and_the_septum_comes_first() -> None:
    beat_TL = usual_beat(plain_heart())
    r_L, s_L = beat_TL.max(axis=0), beat_TL.min(axis=0)
    v1, v4, v5, v6 = (LEADS.index(lead) for lead in ("V1", "V4", "V5", "V6"))
    assert (np.diff(r_L[v1 : v4 + 1]) > 0).all() and 0.9 < r_L[v5] < 2.0
    assert s_L[v1] < -0.5 and r_L[v1] < 0.5 * -s_L[v1]
    first_20_ms = beat_TL[: int(beat_TL[:, v6].argmax()), v6]
    assert first_20_ms.min() < -0.03


@pytest.mark.parametrize(("block", "qrs_ms"), [(LEFT_BLOCK, 150.0), (RIGHT_BLOCK, 145.0)])
def test_a_block_is_wide_and_lasts_longest_where_it_should(block: int, qrs_ms: float) -> None:
    beat_TL = usual_beat(plain_heart(block=block, qrs_ms=qrs_ms))
    v1, v6 = beat_TL[:, LEADS.index("V1")], beat_TL[:, LEADS.index("V6")]
    if block == LEFT_BLOCK:  # V1 is negative, V6 positive and broad
        assert -v1.min() > 3 * v1.max() and v6.max() > 3 * -v6.min()
    else:  # V1 ends in a second R, V6 in an S
        assert v1.max() > 0.3 and v1.argmax() > v1.argmin() and v6.argmin() > v6.argmax() and v6.min() < -0.1
    assert shown_by(plain_heart(block=block, qrs_ms=qrs_ms)).qrs_ms == pytest.approx(qrs_ms, abs=15)


def test_a_ventricular_beat_is_early_wide_and_followed_by_a_pause() -> None:
    heart = plain_heart(ectopic_share=0.15, has_atrial_focus=False, sdnn_ms=0.0, coupling=0.6)
    onset_B, is_early_B = _rhythm(heart, 1.0, np.random.default_rng(8))
    rr_B = np.diff(onset_B)
    early = np.flatnonzero(is_early_B[1:-1]) + 1
    assert len(early) > 0
    np.testing.assert_allclose(rr_B[early - 1], 0.6)
    np.testing.assert_allclose(rr_B[early], 1.4)
    _, conducted_TD, ventricular_TD = _beat(heart, 1.0, _body(heart))
    ms = []
    for beat_TD in (conducted_TD, ventricular_TD):
        speed_T = np.sqrt((np.diff(beat_TD[150:300], axis=0) ** 2).sum(axis=1))
        ms.append(2 * np.ptp(np.flatnonzero(speed_T > 0.15 * speed_T.max())))
    assert ms[0] < 100 < 120 < ms[1]


def test_an_atrial_beat_is_early_and_narrow_and_its_pause_short() -> None:
    heart = plain_heart(ectopic_share=0.15, has_atrial_focus=True, sdnn_ms=0.0, coupling=0.6)
    onset_B, is_early_B = _rhythm(heart, 1.0, np.random.default_rng(8))
    early = np.flatnonzero(is_early_B[1:-1]) + 1
    np.testing.assert_allclose(np.diff(onset_B)[early - 1], 0.6)
    assert (np.diff(onset_B)[early] < 1.1).all()
    often = shown_by(replace(heart, ectopic_share=0.3, sdnn_ms=15.0))
    assert often.early_share > 0.1 and often.odd_share == 0


@pytest.mark.parametrize(
    ("change", "name", "sign", "least"),
    [
        ({"t_scale": -0.8}, "t_mv", -1, 0.4),
        ({"st_mv": -0.2}, "st_mv", -1, 0.12),
        ({"voltage": 0.4}, "qrs_mv", -1, 0.7),
        ({"qtc_ms": 520.0}, "qtc_ms", 1, 90),
        ({"pr_ms": 240.0}, "pr_ms", 1, 70),
        ({"qrs_ms": 120.0}, "qrs_ms", 1, 24),
        ({"axis_degrees": -60.0}, "axis_degrees", -1, 100),
        ({"is_af": True}, "rr_jump", 1, 0.05),
        ({"is_af": True}, "p_mv", -1, 0.03),
        ({"is_af": True}, "f_mv", 1, 0.01),
    ],
)
def test_one_thing_changed_is_seen_where_it_belongs(
    change: dict[str, float], name: str, sign: int, least: float
) -> None:
    usual, changed = (getattr(shown_by(heart), name) for heart in (plain_heart(), plain_heart(**change)))
    assert sign * (changed - usual) > least


def test_qt_shortens_with_the_rate_as_fridericia_says() -> None:
    slow, fast = (shown_by(plain_heart(), rate) for rate in (60.0, 100.0))
    assert fast.qt_ms / slow.qt_ms == pytest.approx((60 / 100) ** (1 / 3), abs=0.02)
    assert fast.qtc_ms == pytest.approx(slow.qtc_ms, abs=8)


# --- Recording --------------------------------------------------------------------------------------------------------


def test_swapped_arms_turn_lead_one_over_and_leave_the_chest() -> None:
    signal_SL = draw_signal(plain_heart(), 75.0, np.random.default_rng(1))
    swapped_SL = swap_arms(signal_SL)
    i, ii, iii, avr, avf, avl = (LEADS.index(lead) for lead in ("I", "II", "III", "aVR", "aVF", "aVL"))
    np.testing.assert_allclose(swapped_SL[:, i], -signal_SL[:, i], atol=1e-5)
    np.testing.assert_allclose(swapped_SL[:, [ii, iii, avr, avl]], signal_SL[:, [iii, ii, avl, avr]], atol=1e-5)
    np.testing.assert_allclose(swapped_SL[:, [avf, *range(6, 12)]], signal_SL[:, [avf, *range(6, 12)]], atol=1e-5)


def test_defects_come_in_their_stated_shares() -> None:
    rng = np.random.default_rng(5)
    num_records = 1500
    signal_SL = np.zeros((NUM_SAMPLES, 12), np.float32)
    signal_SL[:, [0, 1]] = (1.0, 1.5)
    found = {"flat": 0, "gap": 0, "swapped": 0, "loose": 0}
    for _ in range(num_records):
        adc = record(signal_SL, rng)
        is_gap = (adc == NOT_RECORDED).any(axis=0)
        found["flat"] += bool((adc == 0).all(axis=0).any())
        found["gap"] += bool(is_gap.any())
        found["swapped"] += bool(np.median(adc[:, 0]) < -50)
        found["loose"] += bool((np.ptp(adc[:, ~is_gap], axis=0) > 4 * 200 * RECORDING.loose_mv * 0.4).any())
    stated = {
        "flat": RECORDING.flat_share,
        "gap": RECORDING.gap_share,
        "swapped": RECORDING.swapped_arms_share,
        "loose": RECORDING.loose_share,
    }
    for defect, share in stated.items():
        error = np.sqrt(share * (1 - share) / num_records)
        assert abs(found[defect] / num_records - share) < 4 * error + 0.002, (defect, found)


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(drawn: Drawn) -> None:
    first, again, other = (draw_ecg(drawn.hearts[0], 80.0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.dtype == np.int16 and first.shape == (NUM_SAMPLES, len(LEADS))
    assert first.tobytes() == again.tobytes() != other.tobytes()
    conduction_N, repolarisation_N, rhythm_N = drawn.latents_DN[:, :5]
    hearts = [draw_hearts(conduction_N, repolarisation_N, rhythm_N, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    told = [[np.concatenate([np.ravel(value) for value in astuple(heart)]).tolist() for heart in row] for row in hearts]
    assert told[0] == told[1] != told[2]


def test_header_and_samples_are_those_of_wfdb_wrsamp(tmp_path: Path, drawn: Drawn) -> None:
    adc = drawn.records[0].copy()
    adc[100:200, 4] = NOT_RECORDED
    write_ecg(tmp_path / "ours", "40000001", adc, 10000001)
    (tmp_path / "theirs").mkdir()
    wfdb.wrsamp(
        "40000001",
        fs=500,
        units=["mV"] * 12,
        sig_name=list(LEADS),
        d_signal=adc,
        fmt=["16"] * 12,
        adc_gain=[200.0] * 12,
        baseline=[0] * 12,
        comments=["<subject_id>: 10000001"],
        write_dir=str(tmp_path / "theirs"),
    )
    for name in ("40000001.hea", "40000001.dat"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()


def test_wfdb_reads_what_was_written_and_its_checksums_hold(tmp_path: Path, drawn: Drawn) -> None:
    for index, adc in enumerate(drawn.records[:20]):
        write_ecg(tmp_path, str(index), adc, 10000001)
        read = wfdb.rdrecord(str(tmp_path / str(index)), physical=False)
        np.testing.assert_array_equal(read.d_signal, adc)
        assert read.checksum == [int(total) % 65536 for total in adc.sum(axis=0, dtype=np.int64)]
        assert tuple(read.sig_name) == LEADS and read.fs == 500
        mv_SL = wfdb.rdrecord(str(tmp_path / str(index))).p_signal
        assert (np.isnan(mv_SL) == (adc == NOT_RECORDED)).all() and np.nanmax(np.abs(mv_SL)) < 20


def test_all_parameters_have_a_digest() -> None:
    for parameters in (HEART, SIGNAL, RECORDING):
        assert len(digest_json(asdict(parameters))) == 64
