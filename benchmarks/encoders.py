"""How near each encoder comes to what its modality tells, and how fast it is.

    python benchmarks/encoders.py --json FILE [--hospitals DIR] [--seeds 7 8 9] [--only NAME ...] [--rounds N]

On the standard hospitals, or on those prepared in DIR (with the generator's ``truth.parquet`` beside them):

1. Speed: a training step of 64 stays and inference of 288 stays, against a reference of the same sizes that reads
   the same stays; making its inputs (one-hot, embeddings) counts on both sides (``encoder_speed.py``).
2. One epoch of attention on cached tokens, against one that runs the encoders in every batch.
3. Each encoder alone, federated by the default plan: census, statistics and the rounds of its block; then G fitted on
   ``stack`` (of all hospitals: the optimum that the federated steps reach) and scored on ``held_out``. Every seed has
   splits of its own. The share is that of the way from 0.5 to ``reachable``, from means over seeds; ``reachable`` is
   that of the same held-out stays.
"""

import argparse
import dataclasses
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from encoder_speed import attention_row, speed_rows
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rows import Row, finish
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from client.cohort import frozen
from client.cohort.hospital import open_hospital
from client.cohort.labels import long_stay_of
from client.cohort.store import load_cohort
from client.layouts.mimic_iv.layout import MIMIC_IV
from client.prepare.prepare import prepare
from client.site import PlanSections, load_site
from lemof_model import lemof, logistic, training
from lemof_model.encoders.registry import ENCODERS
from lemof_model.study import MODALITIES, EncoderSpec, Study
from protocol import stages
from protocol.plan import load_plan
from protocol.source import source_digest
from server import coordinator
from server.rounds import Rounds
from server.run_store import RunStore
from simulation.local_transport import LocalTransport, memory_of
from simulation.synthetic.generate import generate

PLAN = load_plan(Path(__file__).parents[1] / "site_configs" / "plans" / "default.yaml")
COMPANION = {"ecg": EncoderSpec("cnn"), "ehr": EncoderSpec("mlp")}  # never trained: a study has both modalities
NAMES = tuple((modality, name) for modality in MODALITIES for name in ENCODERS[modality])
LEAST_SHARE = 0.9


class Run(NamedTuple):
    """One encoder to train alone with one seed."""

    site_files: tuple[Path, ...]
    modality: str
    name: str
    seed: int
    num_rounds: int

    def study(self) -> Study:
        """The default plan with this encoder and seed, and with splits of the seed's own."""
        encoders: dict[str, Any] = {**COMPANION, self.modality: EncoderSpec(self.name)}
        splits = dataclasses.replace(PLAN.splits, salt=f"{PLAN.splits.salt} {self.seed}")
        spec = dataclasses.replace(PLAN.encoders, num_rounds=self.num_rounds)
        return dataclasses.replace(PLAN, seed=self.seed, splits=splits, encoders=spec, few_sites="allow", **encoders)


class Scored(NamedTuple):
    """Stays of all hospitals: level log-odds, labels, and the reachable log-odds."""

    level_NK: NDArray[np.float64]
    long_stay_N: NDArray[np.int8]
    reachable_N: NDArray[np.float64]


def train_alone(run: Run) -> tuple[float, float]:
    """AUROC of an encoder's meta prediction after federated training, and of ``reachable``, on the same stays."""
    study = run.study()
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(Path(folder))
        store.begin(study, source_digest())
        rounds = Rounds(study, LocalTransport(run.site_files, memory=memory_of(Path(folder))), store)
        state, scaled = coordinator.State(), coordinator.steps((stages.CENSUS, stages.STATISTICS))
        for step in (*scaled, coordinator.trained(stages.ENCODERS, [run.modality])):
            state = step(rounds, state)
        model = state.model
    stack, held_out = (pooled(run, model, split) for split in ("stack", "held_out"))
    theta = logistic.fit(lemof.g_inputs(stack.level_NK, study), stack.long_stay_N, study.logistic.c)
    score_N = logistic.decision(theta, lemof.g_inputs(held_out.level_NK, study))
    return (
        float(roc_auc_score(held_out.long_stay_N, score_N)),
        float(roc_auc_score(held_out.long_stay_N, held_out.reachable_N)),
    )


def pooled(run: Run, model: lemof.Model, split: str) -> Scored:
    """The stays of a split that have the modality, over all hospitals."""
    study, parts = run.study(), []
    network = lemof.network(study, run.modality, model)
    for file in run.site_files:
        hospital = open_hospital(load_site(file), study)
        rows = hospital.stays.rows(split, run.modality)
        if len(rows):
            level_NK = training.log_odds(network, frozen.batches_of(hospital, run.modality, model), rows)
            parts.append(Scored(level_NK, hospital.stays.long_stay_N[rows], reachable(file, run.modality)[rows]))
    return Scored(*map(np.concatenate, zip(*parts, strict=True)))


def reachable(site_file: Path, modality: str) -> NDArray[np.float64]:
    """The reachable log-odds of a hospital's stays, in the order of a study; NaN without the modality."""
    site = load_site(site_file)
    stays = load_cohort(site.prepare.output).stays
    truth = pd.read_parquet(site_file.parents[1] / "truth.parquet", filters=[("site", "==", site.site.name)])
    known = truth.set_index("stay_id")[f"reachable_{modality}"].astype(np.float64)
    return np.asarray(known.loc[stays["stay_id"][long_stay_of(stays, PLAN.target)[1]]], dtype=np.float64)


def share_rows(runs: Sequence[Run]) -> Iterator[Row]:
    """Train every run, as many at a time as there are cores; one row an encoder."""
    num_processes = min(os.cpu_count() or 1, len(runs))
    with ProcessPoolExecutor(num_processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        trained = map(train_alone, runs) if num_processes == 1 else pool.map(train_alone, runs)
        aurocs = list(shown(trained, "encoders", len(runs)))
    for modality, name in dict.fromkeys((run.modality, run.name) for run in runs):
        found = [pair for run, pair in zip(runs, aurocs, strict=True) if (run.modality, run.name) == (modality, name)]
        ours, best = (statistics.mean(column) for column in zip(*found, strict=True))
        share = (ours - 0.5) / (best - 0.5)
        each = ", ".join(f"{one:.3f} of {other:.3f}" for one, other in found)
        yield Row(
            f"{modality} {name}: share of the way to reachable", f"reachable {best:.3f}, ours {ours:.3f} ({each})",
            share, "", share, f">= {LEAST_SHARE}", share >= LEAST_SHARE,
        )  # fmt: skip


def shown(steps: Any, what: str, total: int) -> Any:
    """The steps, with a progress bar in a terminal."""
    console = Console(stderr=True)
    return track(steps, what, total, console=console, transient=True, disable=not console.is_terminal)


def standard_hospitals(folder: Path) -> Path:
    """The standard benchmark, prepared by the default plan."""
    generate(folder, num_sites=4, num_stays=1500, seed=7)
    files = sorted(folder.glob("*/site.yaml"))
    for file in shown(files, "prepare", len(files)):
        prepare(load_site(file), MIMIC_IV, PlanSections(), Console(quiet=True))
    return folder


def main() -> int:
    """Measure what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    parser.add_argument("--hospitals", type=Path, metavar="DIR", help="prepared hospitals; default: the standard ones")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9], metavar="N", help="default: 7 8 9")
    names = [name for _, name in NAMES]
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME", help=f"of {', '.join(names)}"
    )
    rounds_help = "rounds of training; default: the plan's; 0: do not train"
    parser.add_argument("--rounds", type=int, default=PLAN.encoders.num_rounds, metavar="N", help=rounds_help)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        hospitals = chosen.hospitals or standard_hospitals(Path(folder) / "hospitals")
        files = tuple(sorted(hospitals.glob("*/site.yaml")))
        if not files or not (hospitals / "truth.parquet").is_file():
            parser.error(f"--hospitals must hold generated hospitals and truth.parquet, got {hospitals}")
        encoders = [(modality, name) for modality, name in NAMES if name in chosen.only]
        opened = [open_hospital(load_site(file), PLAN) for file in files]
        timed = max(opened, key=lambda hospital: int(hospital.stays.has_ecg_N.sum()))
        rows = [row for which in shown(encoders, "speed", len(encoders)) for row in speed_rows(timed, *which)]
        rows.append(attention_row(timed))
        if chosen.rounds:
            rows += share_rows([Run(files, *which, seed, chosen.rounds) for which in encoders for seed in chosen.seeds])
    return finish(rows, chosen.json)


if __name__ == "__main__":
    raise SystemExit(main())
