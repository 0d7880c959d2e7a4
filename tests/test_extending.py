"""The examples of the page on extending run as they stand there."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from client.checks.dry_run import dry_run
from client.cohort import frozen
from client.cohort.alone import Alone
from client.cohort.hospital import Hospital, open_hospital
from client.door import stages
from client.prepare.measurements import read_measurements
from client.site import SiteConfig, load_site
from lemof_model import lemof, logistic, training
from lemof_model.encoders.registry import ENCODERS
from lemof_model.features import features_of
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


def test_the_feature_is_measured_in_any_of_its_units(examples: dict[str, dict[str, Any]]) -> None:
    concept = examples["A feature"]["IONISED_CALCIUM"]
    assert concept.limits == (0.2, 3.0) and [unit.name for unit in concept.known_units] == ["mmol/L", "mg/dL"]
    per_mmol = concept.units["mg/dL"]
    assert per_mmol.low * per_mmol.factor == pytest.approx(0.2) and per_mmol.high * per_mmol.factor == pytest.approx(3)
    assert concept.unit_called("mmol.L-1") == concept.units["mmol/L"]
    assert [feature.name for feature in features_of(concept)] == [
        f"ionised_calcium_{aggregate}" for aggregate in ("min", "max", "last", "count")
    ]


def test_the_layout_reads_its_table(examples: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    rows = [("7", "pulse", 3, 80.0), ("7", "pulse", 30, 200.0), ("7", "ear", 4, 38.0), ("7", "mouth", 5, 98.6),
            ("8", "pulse", 3, 70.0), ("7", "gait", 3, 1.0), ("7", "mouth", 6, 37.0)]  # fmt: skip
    begin = datetime(2150, 1, 1)
    table = pl.DataFrame(
        [(case, what, begin + timedelta(hours=hours), number) for case, what, hours, number in rows],
        ["case", "what", "noted_at", "number"],
        orient="row",
    )
    table.write_csv(tmp_path / "notes.csv", datetime_format="%Y-%m-%d %H:%M:%S")
    stays = pl.DataFrame({"row": pl.Series([0], dtype=pl.UInt32), "stay_id": [7], "intime": [begin]})
    events = examples["A layout"]["notes"](tmp_path / "notes.csv")
    outcome = read_measurements(events, stays, tmp_path / "events.parquet", 1.0, window_hours=24)
    found = pl.read_parquet(tmp_path / "events.parquet").sort("concept", "seconds")
    assert found["millionths"].to_list() == [80_000_000, 38_000_000, 37_000_000, 37_000_000]
    assert found["seconds"].to_list() == [3 * 3600, 4 * 3600, 5 * 3600, 6 * 3600]
    counts = {name: outcome.counts[name] for name in ("other_items", "outside_first_day", "not_in_icustays", "used")}
    assert counts == {"other_items": 1, "outside_first_day": 1, "not_in_icustays": 1, "used": 4}
