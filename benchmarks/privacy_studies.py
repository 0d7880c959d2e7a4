"""The studies of ``benchmarks/privacy.py``: plans, hospitals with a budget, and what came of a study.

Measured without the noise that a hospital adds to its own report: the benchmark holds all stays.
"""

import dataclasses
import json
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from encoders import PLAN
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from client.budget.tie import TIE
from client.cohort import frozen
from client.cohort.hospital import Hospital, open_hospital
from client.door import stages
from client.site import load_site
from lemof_model import lemof, membership
from lemof_model.study import AttentionSpec, EncoderSpec, Study, TrainingSpec
from protocol.messages import EvaluationRequest
from server.coordinator import run_study
from server.run_store import RunStore
from simulation.local_transport import LocalTransport

DELTA = 1e-5
VARIANTS = ("ehr_single", "m1", "m2", "full")

SMALL = dataclasses.replace(
    PLAN, name="small", ecg=EncoderSpec("cnn", {"width": 8}), ehr=EncoderSpec("mlp", {"width": 16}),
    attention=dataclasses.replace(PLAN.attention, width=8),
)  # fmt: skip
"""Networks for a budget: some 10,000 weights where the default plan has 75,000."""

# A batch that no hospital fills: every step sums over all of its stays, and a round is one step. The first step of a
# fresh AdamW moves every weight by the learning rate, whatever the size of the gradient: both networks learn with one.
WHOLE = TrainingSpec(num_rounds=15, batch_size=4096, client_lr=0.06, final_lr_share=0.3, weight_decay=0.0, patience=0)
PRIVATE = dataclasses.replace(
    SMALL, name="private", encoders=WHOLE,
    attention=dataclasses.replace(SMALL.attention, training=dataclasses.replace(WHOLE, num_rounds=10, client_lr=0.02)),
)  # fmt: skip


class Run(NamedTuple):
    """A study to run whole; ``rounds`` shortens it (0: as planned)."""

    site_files: tuple[Path, ...]
    plan: str
    epsilon: float
    seed: int
    rounds: int

    def study(self) -> Study:
        """The plan with this seed, and with splits of the seed's own."""
        plan = {"default": PLAN, "small": SMALL, "private": PRIVATE}[self.plan]
        splits = dataclasses.replace(plan.splits, salt=f"{plan.splits.salt} {self.seed}")
        plan = dataclasses.replace(plan, seed=self.seed, splits=splits)
        return shortened(plan, self.rounds) if self.rounds else plan


class Found(NamedTuple):
    """What one study gave: by population and variant the AUROC, and what its own report states of ``full`` (None where
    noise left no stays of one kind); the attack on each learner; the largest epsilon that a hospital spent; the time it
    took."""

    auroc: dict[str, dict[str, float]]
    reported: dict[str, float | None]
    trees: dict[str, float | None]
    attack: dict[str, dict[str, Any]]
    spent: float
    seconds: float


def shortened(study: Study, rounds: int) -> Study:
    """The study with this many rounds of both trainings."""
    heads: AttentionSpec = dataclasses.replace(
        study.attention, training=dataclasses.replace(study.attention.training, num_rounds=rounds)
    )
    return dataclasses.replace(study, encoders=dataclasses.replace(study.encoders, num_rounds=rounds), attention=heads)


def run_one(run: Run) -> Found:
    """Run a study in a folder of its own, and look at what came of it."""
    torch.set_num_threads(1)
    study, began = run.study(), time.monotonic()
    with tempfile.TemporaryDirectory() as name, threadpool_limits(1):
        folder = Path(name)
        files = [site_with_budget(file, folder, run.epsilon) for file in run.site_files]
        model = run_study(study, LocalTransport(files), RunStore(folder / "run"))
        said = json.loads((folder / "run" / "metrics.json").read_text())
        hospitals = [open_hospital(load_site(file), study) for file in files]
        unlimited = [open_hospital(load_site(site_with_budget(f, folder / "all", math.inf)), study) for f in files]
        auroc = {p: aurocs(unlimited, model, p) for p in lemof.POPULATIONS}
        return Found(
            auroc,
            {p: (said["variants"]["full"][p]["pooled"] or {}).get("auroc") for p in lemof.POPULATIONS},
            {p: (said["reference"]["gbdt_ehr"][p]["pooled"] or {}).get("auroc") for p in lemof.POPULATIONS},
            attacks(hospitals, model),
            max((site["epsilon"] for site in said["privacy"].values()), default=math.inf),
            time.monotonic() - began,
        )


def site_with_budget(site_file: Path, folder: Path, epsilon: float) -> Path:
    """A hospital of the same cohort, with a budget, a cache and a ledger of its own."""
    values = yaml.safe_load(site_file.read_text())
    own = folder / site_file.parent.name
    (own / "cohort").mkdir(parents=True)
    for file in load_site(site_file).prepare.output.resolve().iterdir():
        if not file.name.startswith(".") and file.name != TIE:
            (own / "cohort" / file.name).symlink_to(file.resolve())
    values |= {"prepare": {"output": "cohort"}}
    values.pop("privacy", None)
    if math.isfinite(epsilon):
        values["privacy"] = {"epsilon": epsilon, "delta": DELTA}
    (own / "site.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return own / "site.yaml"


def aurocs(hospitals: Sequence[Hospital], model: lemof.Model, population: str) -> dict[str, float]:
    """AUROC of the variants on ``held_out`` of all hospitals together."""
    scores: dict[str, list[Any]] = {name: [] for name in VARIANTS}
    labels = []
    for hospital in hospitals:
        rows = hospital.stays.rows("held_out", "ecg" if population == "with_ecg" else "ehr")
        if not len(rows):
            continue
        level = {m: value[rows] for m, value in frozen.levels(hospital, model).items()}
        omega_2 = frozen.omega_2(hospital, model, rows).mean(axis=1)
        for name, score_N in lemof.predict(level, omega_2, model, hospital.study).items():
            if name in scores:
                scores[name].append(score_N)
        labels.append(hospital.stays.long_stay_N[rows])
    label_N = np.concatenate(labels)
    return {name: float(roc_auc_score(label_N, np.concatenate(parts))) for name, parts in scores.items()}


def attacks(hospitals: Sequence[Hospital], model: lemof.Model) -> dict[str, dict[str, Any]]:
    """The membership attack on each learner, on the counts of all hospitals without noise."""
    counts: dict[str, Any] = {}
    for hospital in hospitals:
        request = EvaluationRequest(study=hospital.study, round=0, model=model, split="held_out")
        for group in stages.groups_of(hospital, request):
            if group.name.startswith("membership/"):
                counts[group.name] = counts.get(group.name, 0) + group.sums["histogram"]
    found = {}
    for learner in membership.NETWORKS:
        attack = membership.attack(*(counts[f"membership/{learner}/{who}"] for who in ("members", "others")))
        assert attack is not None
        found[learner] = attack
    return found
