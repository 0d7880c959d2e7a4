"""The examples of the page on extending run as they stand there."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from client.checks.dry_run import dry_run
from client.cohort import frozen
from client.cohort.alone import Alone
from client.cohort.hospital import Hospital, open_hospital
from client.door import stages
from client.site import SiteConfig, load_site
from lemof_model import lemof, logistic, training
from lemof_model.encoders.registry import ENCODERS
from lemof_model.study import NUM_LEVELS, EncoderSpec
from protocol.messages import REQUESTS, Answer
from protocol.stages import STAGES
from server.coordinator import run_study
from server.run_store import RunStore
from simulation.local_transport import LocalTransport
from tests.hospitals import write_hospital
from tests.protocol.test_stages import every_request
from tests.studies import tiny_study


@pytest.fixture(scope="module")
def examples(repository: Path) -> dict[str, dict[str, Any]]:
    """What each section of the page defines, by its heading."""
    found = {}
    for section in (repository / "docs/extending.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        names: dict[str, Any] = {"__name__": __name__}
        for code in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
            exec(code, names)
        found[section.splitlines()[0]] = names
    return found


def allowing(file: Path, stage: str) -> SiteConfig:
    """A site that lets a stage more out."""
    site = load_site(file)
    return site.model_copy(update={"limits": site.limits.model_copy(update={"stages": (*site.limits.stages, stage)})})


def test_the_encoder_trains(
    examples: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    encoder = examples["An encoder"]["EcgPatch"]
    monkeypatch.setitem(ENCODERS["ecg"], "patch", encoder)
    study = tiny_study(ecg=EncoderSpec("patch", {"width": 8}))
    network = lemof.network(study, "ecg", lemof.initial_networks(study)).eval()
    ecg = torch.randn(3, 12, 1000)
    state = network.encoder.start(ecg)
    for number, whole in zip(range(1, NUM_LEVELS + 1), network.encoder(ecg), strict=True):
        state = network.encoder.advance(number, state)
        torch.testing.assert_close(network.encoder.level(number, state), whole)
    before = training.to_arrays(network)
    label = np.array([0, 1, 1], np.int8)
    training.train(network, lambda rows: ecg[rows], label, np.arange(3), study.encoders, seed=1, number=1)
    after = training.to_arrays(network)
    assert all((before[name] != after[name]).any() for name in before)


@pytest.mark.parametrize("is_private", [False, True])
def test_the_stage_is_answered(
    examples: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_private: bool
) -> None:
    found = examples["A stage"]
    monkeypatch.setitem(STAGES, "ages", found["AGES"])
    file = write_hospital(tmp_path, num_stays=120, min_patients=12)
    if is_private:
        budget = {"privacy": {"epsilon": 8.0, "delta": 1e-5}}
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | budget))
    site = allowing(file, "ages")
    study = tiny_study()
    if is_private:
        (census,) = (request for request in every_request(study) if request.stage == "census")
        assert isinstance(stages.answer(site, census), Answer)
    answer = stages.answer(site, found["AgesRequest"](study=study, round=1, num_sites=3))
    assert isinstance(answer, Answer) and answer.sums.keys() == {"train/decades"}, answer
    stays = open_hospital(site, study).stays
    decades = np.nansum(stays.features_NF[stays.rows("train"), found["AGE"]].astype(float) / 10)
    assert (answer.epsilon > 0) == is_private
    assert is_private != bool(np.isclose(answer.sums["train/decades"], decades, rtol=0, atol=1e-9))


def test_the_fusion_is_a_study_and_the_same_at_one_hospital(
    examples: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Over two hospitals as on their stays together, by the list alone: no line of a conductor knows the stage."""
    found, study = examples["A fusion"], tiny_study(min_sites=2)
    monkeypatch.setitem(STAGES, "late", found["LATE"])
    monkeypatch.setitem(REQUESTS, "late", found["LateRequest"])
    monkeypatch.setattr("simulation.local_transport.load_site", lambda file: allowing(file, "late"))
    files = [write_hospital(tmp_path, f"h{number}", num_stays=120, first_id=1 + 500 * number) for number in range(2)]
    model = run_study(study, LocalTransport(files), RunStore(tmp_path / "run"), found["OVER_HOSPITALS"])
    hospitals = [open_hospital(load_site(file), study) for file in files]

    def fitted(hospitals: Sequence[Hospital], model: lemof.Model) -> Any:
        rows, label = [], []
        for hospital in hospitals:
            stack = hospital.stays.rows("stack")
            rows.append(found["late_rows"](frozen.levels(hospital, model), model, study)[stack])
            label.append(hospital.stays.long_stay_N[stack])
        return logistic.fit(np.concatenate(rows), np.concatenate(label), study.logistic.c)

    np.testing.assert_allclose(model["late"], fitted(hospitals, model), atol=1e-6)
    one = Alone(hospitals[0])
    one.take(found["AT_ONE_HOSPITAL"])
    np.testing.assert_array_equal(one.model["late"], fitted(hospitals[:1], one.model))
    assert set(one.model) == set(model) and "final" not in model
    told = dry_run(allowing(files[0], "late"), study, method=found["LATE_FUSION"])["stages"]
    assert [stage["stage"] for stage in told] == ["census", "statistics", "encoders", "meta", "late"]
    assert set(told[-1]["groups"]) == {"late"}
