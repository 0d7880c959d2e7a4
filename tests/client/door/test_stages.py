"""The stage handlers: each answer against the sums worked out from the cohort itself."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from client.cohort import frozen
from client.cohort.hospital import Hospital, open_hospital
from client.door import stages
from client.site import SiteConfig, load_site
from lemof_model import lemof, training
from lemof_model.errors import DataError
from lemof_model.features import FEATURES, schema_digest
from lemof_model.stays import feature_sums, scaling_from
from lemof_model.study import MODALITIES, SPLITS, Study, Target, TrainingSpec
from protocol.messages import Answer, CensusRequest, EncodersRequest, Request, StatisticsRequest
from protocol.method import LEARNING, untrained
from protocol.source import source_digest
from server.blocks import Model
from tests.hospitals import write_hospital
from tests.studies import tiny_study


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SiteConfig:
    return load_site(write_hospital(tmp_path_factory.mktemp("site"), num_stays=90))


@pytest.fixture(scope="module")
def study() -> Study:
    return tiny_study()


@pytest.fixture(scope="module")
def hospital(site: SiteConfig, study: Study) -> Hospital:
    return open_hospital(site, study)


@pytest.fixture(scope="module")
def model(hospital: Hospital, study: Study) -> Model:
    scaling = scaling_from(feature_sums(hospital.stays.features_NF[hospital.stays.rows("train")]))
    return untrained(LEARNING, study) | lemof.prefixed("scaling", scaling)


def answered(site: SiteConfig, request: Request) -> Answer:
    answer = stages.answer(site, request)
    assert isinstance(answer, Answer), answer
    return answer


def test_census_counts_splits_labels_and_modalities(site: SiteConfig, hospital: Hospital, study: Study) -> None:
    request = CensusRequest(study=study, round=1, source_digest=source_digest(), schema_digest=schema_digest())
    counts = answered(site, request).counts
    table = pd.read_parquet(site.prepare.output / "stays.parquet")
    ecg_index = np.load(site.prepare.output / "ecg_index.npy")
    long_stay = table["icu_los_days"].to_numpy() > 3.0
    for number, split in enumerate(SPLITS):
        member = hospital.stays.split_N == number
        assert counts[f"{split}/ehr"] == member.sum()
        assert counts[f"{split}/ecg"] == (member & (ecg_index >= 0)).sum()
        assert counts[f"{split}/ehr/1"] == (member & long_stay).sum()
        assert counts[f"{split}/ecg/0"] == (member & ~long_stay & (ecg_index >= 0)).sum()


@pytest.mark.parametrize("has_ecg_data", [False, True])
@pytest.mark.parametrize("budget", [None, {"epsilon": 50.0, "delta": 1e-5}])
def test_a_hospital_without_ecgs_has_no_group_of_them_and_one_that_lost_them_too_small_ones(
    tmp_path: Path, study: Study, has_ecg_data: bool, budget: dict[str, float] | None
) -> None:
    path = write_hospital(tmp_path, num_stays=400, ecg_share=0.0, min_cell=2)
    config = yaml.safe_load(path.read_text()) | ({"privacy": budget} if budget else {})
    if has_ecg_data:
        config["data"]["ecg"] = {"root": "ecg"}
    path.write_text(yaml.safe_dump(config))
    request = CensusRequest(study=study, round=1, source_digest=source_digest(), schema_digest=schema_digest())
    answer = answered(load_site(path), request)
    assert {f"{split}/ehr" for split in SPLITS} <= set(answer.counts)
    told = {name for name in (*answer.counts, *answer.too_small) if "ecg" in name}
    assert told == ({f"{s}/ecg{label}" for s in SPLITS for label in ("", "/0", "/1")} if has_ecg_data else set())


def test_statistics_are_sums_over_train_where_a_feature_is_present(
    site: SiteConfig, hospital: Hospital, study: Study
) -> None:
    sums = answered(site, StatisticsRequest(study=study, round=2)).sums
    features = np.load(site.prepare.output / "features.npy")[hospital.stays.split_N == 0].astype(np.float64)
    numeric = [i for i, feature in enumerate(FEATURES) if feature.kind == "numeric"]
    np.testing.assert_allclose(sums["ehr/x"], np.nansum(features[:, numeric], axis=0), rtol=1e-12)
    np.testing.assert_allclose(sums["ehr/x2"], np.nansum(features[:, numeric] ** 2, axis=0), rtol=1e-12)
    np.testing.assert_array_equal(sums["ehr/num_present"], (~np.isnan(features[:, numeric])).sum(axis=0))


def test_a_request_that_is_repeated_gets_the_same_bits(site: SiteConfig, study: Study, model: Model) -> None:
    request = EncodersRequest(study=study, round=3, model=model)
    first, second = answered(site, request), answered(site, request)
    assert first.counts == second.counts and first.sums.keys() == second.sums.keys()
    for name, value in first.sums.items():
        np.testing.assert_array_equal(value, second.sums[name], err_msg=name)
    other = answered(site, dataclasses.replace(request, round=4))
    assert any((other.sums[name] != value).any() for name, value in first.sums.items() if "weights" in name)


def test_tuning_loss_is_of_the_weights_that_came_and_of_stays_with_that_modality(
    site: SiteConfig, hospital: Hospital, study: Study, model: Model
) -> None:
    answer = answered(site, EncodersRequest(study=study, round=3, model=model))
    for modality in MODALITIES:
        rows = hospital.stays.rows("tuning", modality)
        network = lemof.network(study, modality, model).eval()
        with torch.no_grad():
            logit = network(frozen.batches_of(hospital, modality, model)(rows)).numpy().astype(np.float64)
        label = hospital.stays.long_stay_N[rows][:, None]
        p = 1 / (1 + np.exp(-logit))
        expected = -(label * np.log(p) + (1 - label) * np.log(1 - p)).sum()
        assert float(answer.sums[f"tuning/{modality}/loss"]) == pytest.approx(expected, rel=1e-5)
        assert answer.counts[f"tuning/{modality}"] == len(rows)


def test_only_the_blocks_asked_for_are_trained(site: SiteConfig, study: Study, model: Model) -> None:
    answer = answered(site, EncodersRequest(study=study, round=3, model=model, blocks="ehr"))
    assert {name.split("/")[0] for name in answer.sums} == {"tuning", "ehr"}
    nothing = answered(site, EncodersRequest(study=study, round=3, model=model, blocks=""))
    assert set(nothing.sums) == {"tuning/ecg/loss", "tuning/ehr/loss"}


def test_weights_leave_times_the_stays_that_trained_them(
    site: SiteConfig, hospital: Hospital, study: Study, model: Model
) -> None:
    answer = answered(site, EncodersRequest(study=study, round=3, model=model))
    for modality in MODALITIES:
        rows = hospital.stays.rows("train", modality)
        network = lemof.network(study, modality, model)
        seed = training.derive_seed(study.seed, "hospital_a", "encoders", modality, 3)
        batch_of = frozen.batches_of(hospital, modality, model)
        training.train(network, batch_of, hospital.stays.long_stay_N, rows, study.encoders, seed=seed, number=1)
        assert answer.counts[modality] == len(rows)
        for name, value in training.to_arrays(network).items():
            sent = answer.sums[f"{modality}/weights/{name}"]
            assert sent.dtype == np.float64
            np.testing.assert_array_equal(sent, value.astype(np.float64) * len(rows))


def test_labels_follow_the_threshold_of_the_request(site: SiteConfig, study: Study, tmp_path: Path) -> None:
    def num_long(days: float) -> int:
        changed = dataclasses.replace(study, target=Target(threshold_days=days))
        request = CensusRequest(study=changed, round=1, source_digest=source_digest(), schema_digest=schema_digest())
        answer = stages.answer(site, request, tmp_path / f"{days}")
        assert isinstance(answer, Answer), answer
        counts = answer.counts
        return sum(count for name, count in counts.items() if name.endswith("ehr/1"))

    assert num_long(2.0) > num_long(3.0) > num_long(6.0)


def test_a_training_that_diverges_is_refused_in_words(site: SiteConfig, study: Study, model: Model) -> None:
    wild = TrainingSpec(num_rounds=1, num_epochs=3, optimizer="sgd", client_lr=1e20, max_grad_norm=0.0)
    answer = stages.answer(site, EncodersRequest(study=dataclasses.replace(study, encoders=wild), round=3, model=model))
    assert not isinstance(answer, Answer)
    assert answer.code == 1 and "A learning rate that is too high does this" in answer.reason


def test_a_cohort_that_is_not_there_is_refused_without_its_path(
    tmp_path: Path, study: Study, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "site.yaml"
    file.write_text("version: 1\nsite: {name: empty}\ndata: {ehr: {root: .}}\n")
    answer = stages.answer(load_site(file), StatisticsRequest(study=study, round=1, num_sites=3))
    assert not isinstance(answer, Answer)
    assert (answer.code, answer.reason) == (4, DataError.told_outside)
    assert str(tmp_path) not in answer.reason
    assert "prepare" in caplog.text, "the hospital's own log says what to do"
