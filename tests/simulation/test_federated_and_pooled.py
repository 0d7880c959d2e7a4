"""Federated against the same model trained on pooled data, over five stated seeds on generated hospitals.

Both are trained by the same plan and scored on the same held-out stays. The statement is about the mean paired
difference of the AUROC of the full model: its 95 % interval (Student's t over seeds) lies above -0.01.
"""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats

from client.cohort.hospital import Hospital
from client.door import view
from client.layouts.mimic_iv.layout import MIMIC_IV
from client.prepare.prepare import prepare
from client.site import PlanSections, load_site
from lemof_model.lemof import REFERENCES
from protocol.plan import load_plan
from server.coordinator import run_study
from server.run_store import RunStore
from simulation.local_transport import LocalTransport
from simulation.pooled import pool_hospitals
from simulation.synthetic.generate import generate

SEEDS = (11, 12, 13, 14, 15)
NUM_STAYS = 2000
MARGIN = 0.01
PLAN = """
name: pooled
seed: {seed}
min_sites: 1
few_sites: allow
splits: {{salt: pooled, train: 0.4, stack: 0.2, tuning: 0.1, held_out: 0.3}}
ecg: {{name: resnet, sizes: {{width: 16}}}}
ehr: {{name: ft_transformer, sizes: {{width: 16}}}}
encoders: {{num_rounds: 24, batch_size: 64, client_lr: 0.002, patience: 8}}
attention: {{training: {{num_rounds: 12, num_epochs: 4, batch_size: 64, client_lr: 0.002, patience: 4}}}}
"""


def prepare_hospitals(folder: Path, seed: int, num_stays: int = NUM_STAYS) -> list[Path]:
    """Four generated hospitals, prepared."""
    generate(folder, num_sites=4, num_stays=num_stays, seed=seed)
    files = sorted(folder.glob("*/site.yaml"))
    for file in files:
        prepare(load_site(file), MIMIC_IV, PlanSections(), Console(quiet=True))
    return files


def no_references(hospital: Hospital) -> dict[str, NDArray[np.float64]]:
    """References that could not be trained."""
    return {name: np.full(len(hospital.stays.long_stay_N), np.nan) for name in REFERENCES}


def full_auroc(plan: Path, files: list[Path], out: Path) -> dict[str, float]:
    """AUROC of every variant over all held-out stays."""
    vars(view)["reference_scores"] = no_references  # they play no part here and cost half of the time
    run_study(load_plan(plan), LocalTransport(files), RunStore(out))
    variants = json.loads((out / "metrics.json").read_text())["variants"]
    return {name: table["all"]["pooled"]["auroc"] for name, table in variants.items() if table["all"]}


def compare(folder: Path, seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """One seed: federated and pooled AUROCs."""
    files = prepare_hospitals(folder / f"hospitals_{seed}", seed)
    plan = folder / f"plan_{seed}.yaml"
    plan.write_text(PLAN.format(seed=seed))
    pooled = pool_hospitals(files, folder / f"pooled_{seed}")
    return full_auroc(plan, files, folder / f"fed_{seed}"), full_auroc(plan, [pooled], folder / f"all_{seed}")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_federated_is_not_worse_than_pooled(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = list(pool.map(compare, [tmp_path] * len(SEEDS), SEEDS))
    difference = np.array([federated["full"] - pooled["full"] for federated, pooled in results])
    half = stats.t.ppf(0.975, len(SEEDS) - 1) * difference.std(ddof=1) / np.sqrt(len(SEEDS))
    for seed, (federated, pooled) in zip(SEEDS, results, strict=True):
        print(seed, "federated", federated, "pooled", pooled)
    low, high = difference.mean() - half, difference.mean() + half
    print(f"mean difference {difference.mean():+.4f}, 95 % interval {low:+.4f} to {high:+.4f}")
    assert low > -MARGIN
