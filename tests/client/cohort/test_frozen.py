"""What is frozen is computed once, and is what the networks give."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client.cohort import frozen
from client.cohort.hospital import Hospital, open_hospital
from client.site import load_site
from lemof_model import lemof, training
from lemof_model.errors import LemofError
from lemof_model.stays import feature_sums, scaling_from
from lemof_model.study import MODALITIES, EncoderSpec
from protocol.method import LEARNING, untrained
from server.blocks import Model
from tests.hospitals import write_hospital
from tests.studies import tiny_study


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return open_hospital(load_site(write_hospital(tmp_path, num_stays=50)), tiny_study())


@pytest.fixture
def model(hospital: Hospital) -> Model:
    scaling = scaling_from(feature_sums(hospital.stays.features_NF[hospital.stays.rows("train")]))
    return untrained(LEARNING, hospital.study) | lemof.prefixed("scaling", scaling) | {"best_level": np.array([2, 3])}


def direct(hospital: Hospital, model: Model, modality: str, rows: np.ndarray, level: int) -> np.ndarray:
    network = lemof.network(hospital.study, modality, model).eval()
    with torch.no_grad():
        inputs = frozen.batches_of(hospital, modality, model)(rows)
        return (network.tokens(inputs, level) if level else network(inputs)).numpy()


def test_levels_are_those_of_the_networks_and_nan_without_an_ecg(hospital: Hospital, model: Model) -> None:
    levels, has_ecg = frozen.levels(hospital, model), hospital.stays.has_ecg_N
    assert 0 < has_ecg.sum() < len(has_ecg)
    np.testing.assert_array_equal(np.isnan(levels["ecg"]).any(axis=1), ~has_ecg)
    for modality, rows in (("ecg", np.flatnonzero(has_ecg)), ("ehr", np.arange(len(has_ecg)))):
        expected = direct(hospital, model, modality, rows, 0)
        np.testing.assert_allclose(levels[modality][rows], expected, rtol=0, atol=1e-5)


def test_rows_of_train_have_no_tokens_and_no_omega_2(hospital: Hospital, model: Model) -> None:
    stays, whole = hospital.stays, model | lemof.initial_heads(hospital.study, model["best_level"])
    known = np.concatenate([stays.rows("stack"), stays.rows("held_out")])
    assert frozen.omega_2(hospital, whole, known).shape == (len(known), 2)
    assert frozen.omega_2(hospital, whole, known[:0]).shape == (0, 2)
    for rows in (stays.rows("train"), np.append(known, stays.rows("train")[:1]), known - len(stays.split_N)):
        with pytest.raises(LemofError, match="Tokens must be of stays that taught the networks nothing"):
            frozen.omega_2(hospital, whole, rows)


def test_tokens_are_those_of_the_best_levels_and_nothing_where_there_is_no_ecg(
    hospital: Hospital, model: Model
) -> None:
    stays = hospital.stays
    rows = np.concatenate([stays.rows("held_out"), stays.rows("stack")])
    ecg, ehr, has_ecg = frozen.Tokens(hospital, model).batch(rows)
    np.testing.assert_array_equal(has_ecg.numpy() > 0, stays.has_ecg_N[rows])
    with_ecg = stays.has_ecg_N[rows]
    assert not ecg.numpy()[~with_ecg].any()
    expected = direct(hospital, model, "ecg", rows[with_ecg], 2)
    np.testing.assert_allclose(ecg.numpy()[with_ecg], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(ehr.numpy(), direct(hospital, model, "ehr", rows, 3), rtol=0, atol=1e-5)


def test_stored_tokens_are_memory_mapped_and_the_encoders_own_to_the_bit(hospital: Hospital, model: Model) -> None:
    tokens, stays = frozen.Tokens(hospital, model), hospital.stays
    for modality, level in zip(MODALITIES, model["best_level"].tolist(), strict=True):
        stored = tokens._tokens[modality]
        assert isinstance(stored, np.memmap) and stored.dtype == np.float32
        rows = np.concatenate([stays.rows(split, modality) for split in ("stack", "tuning", "held_out")])
        np.testing.assert_array_equal(stored, direct(hospital, model, modality, rows, level))


def test_no_encoder_runs_a_second_time(hospital: Hospital, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    first = frozen.levels(hospital, model)
    frozen.Tokens(hospital, model)

    def never(*_: object) -> None:
        raise AssertionError("an encoder ran again")

    monkeypatch.setattr(training, "infer", never)
    changed = {**model, "meta/ecg": np.ones(4)}  # a learner after the encoders changes nothing that is frozen
    for modality in MODALITIES:
        np.testing.assert_array_equal(frozen.levels(hospital, changed)[modality], first[modality])
    frozen.Tokens(hospital, changed)


def test_another_best_level_has_tokens_of_its_own(hospital: Hospital, model: Model) -> None:
    frozen.Tokens(hospital, model)
    stored = frozen.Tokens(hospital, {**model, "best_level": np.array([1, 3])})._tokens["ecg"]
    stays = hospital.stays
    rows = np.concatenate([stays.rows(split, "ecg") for split in ("stack", "tuning", "held_out")])
    np.testing.assert_array_equal(stored, direct(hospital, model, "ecg", rows, 1))


def test_an_encoder_serves_every_pair_that_it_is_in(
    hospital: Hospital, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, tokens = frozen.levels(hospital, model), frozen.Tokens(hospital, model)
    other = tiny_study(ecg=EncoderSpec("cnn", {"width": 8}), seed=99)
    another = {name: value for name, value in model.items() if not name.startswith("ecg/")}
    another |= lemof.prefixed("ecg", lemof.part(lemof.initial_networks(other), "ecg"))
    ran, infer = [], training.infer

    def noted(function: Any, batch_of: Any, rows: Any, *size: int) -> Any:
        ran.append(len(rows))
        return infer(function, batch_of, rows, *size)

    monkeypatch.setattr(training, "infer", noted)
    paired = dataclasses.replace(hospital, study=other)
    np.testing.assert_array_equal(frozen.levels(paired, another)["ehr"], first["ehr"])
    rows = hospital.stays.rows("stack")
    np.testing.assert_array_equal(frozen.Tokens(paired, another).batch(rows)[1], tokens.batch(rows)[1])
    assert len(ran) == 2, "the ECG encoder alone, for its levels and for its tokens"


@pytest.mark.parametrize("what", ["ehr/heads.0.bias", "scaling/mean", "study", "cohort"])
def test_whatever_it_depends_on_makes_it_new_and_the_old_one_goes(hospital: Hospital, model: Model, what: str) -> None:
    before = frozen.levels(hospital, model)["ehr"]
    if what == "study":
        hospital = dataclasses.replace(hospital, study=tiny_study(seed=123))
    elif what == "cohort":
        hospital = dataclasses.replace(hospital, cohort_digest="another")
    else:
        model = {**model, what: model[what] + np.float32(1)}
    after = frozen.levels(hospital, model)["ehr"]
    assert (np.abs(after - before).max() > 1e-3) == ("/" in what)
    for step in range(5):
        frozen.levels(hospital, {**model, "ehr/heads.0.bias": np.array([step], np.float32)})
    for modality in MODALITIES:
        kept = list((hospital.folder / ".cache").glob(f"levels-{modality}-*"))
        assert len(kept) <= frozen.NUM_KEPT and all(len(list(folder.iterdir())) == 1 for folder in kept)
    assert len(kept) == frozen.NUM_KEPT


def test_a_hospital_without_ecg_has_tokens_all_the_same(tmp_path: Path, model: Model) -> None:
    site = load_site(write_hospital(tmp_path, "no_ecg", num_stays=40, ecg_share=0.0))
    hospital = open_hospital(site, tiny_study())
    rows = hospital.stays.rows("stack")
    ecg, _, has_ecg = frozen.Tokens(hospital, model).batch(rows)
    assert not has_ecg.any() and not ecg.any()
    head = lemof.build_head(hospital.study, model["best_level"])
    assert head(frozen.Tokens(hospital, model).batch(rows)).shape == (len(rows), 1)


def test_omega_2_has_a_column_for_each_head(hospital: Hospital, model: Model) -> None:
    model = model | lemof.initial_heads(hospital.study, model["best_level"])
    rows = hospital.stays.rows("held_out")
    found, tokens = frozen.omega_2(hospital, model, rows), frozen.Tokens(hospital, model)
    for fold in range(2):
        head = lemof.attention_head(hospital.study, model, f"attention/{fold}").eval()
        with torch.no_grad():
            np.testing.assert_allclose(found[:, fold], head(tokens.batch(rows))[:, 0].numpy(), rtol=0, atol=1e-6)
