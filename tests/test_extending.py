"""The examples of the page on extending run as they stand there."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from client.cohort.hospital import open_hospital
from client.door import stages
from client.site import load_site
from lemof_model import lemof, training
from lemof_model.encoders.registry import ENCODERS
from lemof_model.study import NUM_LEVELS, EncoderSpec
from protocol.messages import Answer
from protocol.stages import STAGES
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
    site = load_site(file)
    site = site.model_copy(update={"limits": site.limits.model_copy(update={"stages": (*site.limits.stages, "ages")})})
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
