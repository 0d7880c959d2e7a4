"""The references that a hospital makes alone: honest ones, that never see a held-out label."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from client.cohort import references
from client.cohort.hospital import Hospital, open_hospital
from client.site import load_site
from lemof_model.study import SPLITS
from tests.hospitals import write_hospital
from tests.studies import tiny_study


def open_new(folder: Path, **of_hospital: float) -> Hospital:
    return open_hospital(load_site(write_hospital(folder, **of_hospital)), tiny_study())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return open_new(tmp_path_factory.mktemp("references"), num_stays=250, signal=3.0)


@pytest.fixture(scope="module")
def scores(hospital: Hospital) -> dict[str, NDArray[np.float64]]:
    return references.reference_scores(hospital)


def with_labels(hospital: Hospital, split: str) -> Hospital:
    """The hospital with the labels of one split turned round."""
    stays = hospital.stays
    label = np.where(stays.split_N == SPLITS.index(split), 1 - stays.long_stay_N, stays.long_stay_N).astype(np.int8)
    return dataclasses.replace(hospital, stays=dataclasses.replace(stays, long_stay_N=label))


def test_trees_learn_what_there_is_to_learn(hospital: Hospital, scores: dict[str, NDArray[np.float64]]) -> None:
    rows = hospital.stays.rows("held_out")
    assert roc_auc_score(hospital.stays.long_stay_N[rows], scores["gbdt_ehr"][rows]) > 0.65


def test_local_only_scores_every_stay_outside_train(hospital: Hospital, scores: dict[str, NDArray[np.float64]]) -> None:
    np.testing.assert_array_equal(np.isnan(scores["local_only"]), hospital.stays.split_N == SPLITS.index("train"))


@pytest.mark.parametrize("name", ["gbdt_ehr", "local_only"])
def test_labels_held_out_are_never_read_and_the_others_are(
    hospital: Hospital, scores: dict[str, NDArray[np.float64]], name: str
) -> None:
    make = getattr(references, name)
    np.testing.assert_array_equal(make(with_labels(hospital, "held_out")), scores[name])
    assert not np.array_equal(make(with_labels(hospital, "stack")), scores[name], equal_nan=True)


def test_made_once(hospital: Hospital, scores: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: Hospital) -> None:
        raise AssertionError("a reference was made again")

    monkeypatch.setattr(references, "gbdt_ehr", never)
    monkeypatch.setattr(references, "local_only", never)
    for name, value in references.reference_scores(hospital).items():
        np.testing.assert_array_equal(value, scores[name])


def test_without_both_classes_there_is_no_reference(hospital: Hospital) -> None:
    ones = np.ones_like(hospital.stays.long_stay_N)
    alone = dataclasses.replace(hospital, stays=dataclasses.replace(hospital.stays, long_stay_N=ones))
    assert np.isnan(references.gbdt_ehr(alone)).all() and np.isnan(references.local_only(alone)).all()


def test_a_final_decision_on_the_encoders_own_rows_is_caught(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hospital alone fits its learners on the rows that the stages declare."""
    monkeypatch.setattr("protocol.stages.LEARNER_SPLIT", "train")
    with pytest.raises(AssertionError, match="what heads make of train tells nothing"):
        references.local_only(hospital)


def test_a_hospital_without_ecg_keeps_its_ehr_prediction(tmp_path: Path) -> None:
    hospital = open_new(tmp_path, num_stays=80, ecg_share=0.0)
    outside = hospital.stays.split_N != SPLITS.index("train")
    assert np.isfinite(references.local_only(hospital)[outside]).all()
