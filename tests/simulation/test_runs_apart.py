"""Simulated hospitals remember what they told within a run folder: the same ones take part in any number of runs."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.cohort.hospital import Hospital
from client.door.memory import HELD_OUT, PLAN, read_memory
from client.site import load_site
from lemof_model import lemof
from lemof_model.study import EncoderSpec, Study, TrainingSpec
from protocol.plan import dump_plan
from simulation.local_transport import memory_of
from simulation.run import run
from tests.hospitals import write_hospital
from tests.studies import tiny_study

SEEDS_AND_SALTS = [*((number, "lemof") for number in range(10)), *((7, f"salt {number}") for number in range(10))]


def smallest_study() -> Study:
    """One round of each training, of one hospital."""
    training = TrainingSpec(num_rounds=1, batch_size=64)
    study = tiny_study(min_sites=1, ehr=EncoderSpec("mlp", {"width": 16}), encoders=training)
    return dataclasses.replace(study, attention=dataclasses.replace(study.attention, training=training))


def without_references(hospital: Hospital) -> dict[str, Any]:
    """None, which take time."""
    return {name: np.full(len(hospital.stays.split_N), np.nan) for name in lemof.REFERENCES}


@pytest.mark.slow
def test_seeds_and_salts_go_on_over_one_cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.door.view.reference_scores", without_references)
    site_file, study, plan = write_hospital(tmp_path, num_stays=200), smallest_study(), tmp_path / "plan.yaml"
    models = set()
    for number, (seed, salt) in enumerate(SEEDS_AND_SALTS):
        splits = dataclasses.replace(study.splits, salt=salt)
        plan.write_text(dump_plan(dataclasses.replace(study, splits=splits, seed=seed)))
        out = run([site_file], plan, tmp_path / f"run_{number}")
        models.add((out / "model/lemof.safetensors").read_bytes())
        memory = read_memory(memory_of(out) / "hospital_a")
        assert (len(memory.lines(PLAN)), len(memory.lines(HELD_OUT))) == (1, 2)  # histograms, and intervals
    assert len(models) == 20
    assert not load_site(site_file).memory.exists()
