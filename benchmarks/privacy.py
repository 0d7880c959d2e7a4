"""What a privacy budget costs in AUROC, what it buys against a membership attack, and what a private step costs.

    python benchmarks/privacy.py --json FILE [--figure FILE] [--hospitals DIR] [--epsilons 1 2 4 8 inf] [--seeds 7 8 9]

On the standard hospitals, or on those prepared in DIR. Every study runs whole, from the census to ``held_out``, and
every hospital of it has the same budget at delta 1e-5 (``inf``: none). Every seed has splits of its own.

1. A round of DP-SGD against a plain round of as many steps of 64 stays, in turns: ResNet and FT-Transformer.
2. AUROC on ``held_out`` and the membership attack against epsilon, without the noise that a hospital adds to its own
   report: the benchmark holds all stays. Beside ``full`` stands the AUROC that the noisy report itself states.

A budget wants another plan than the default: gradients of small networks have less noise to drown in, and a sum over
all stays has more signal than one over 64 (``privacy_studies.py``; docs/privacy_utility.md says how it was found).
Under ``inf`` the same networks train as the default plan does; ``--default-seeds`` are those of the default plan.
"""

import argparse
import dataclasses
import math
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encoder_speed import NUM_BLOCKS, STEP_STAYS, seconds_in_turns, untrained
from encoders import PLAN, shown, standard_hospitals
from privacy_studies import VARIANTS, Found, Run, run_one
from rows import Row, finish
from threadpoolctl import threadpool_limits

from client.budget.dp_sgd import Network, train_private
from client.budget.noise import SecureRandom
from client.cohort import frozen
from client.cohort.hospital import Hospital, open_hospital
from client.site import load_site
from lemof_model import lemof, membership, training
from lemof_model.encoders.registry import build_network
from lemof_model.study import EncoderSpec

MOST_TIMES = 2.5
STEPS = 10


def study_rows(runs: Sequence[Run], found: Sequence[Found]) -> Iterator[Row]:
    """Rows of all studies with one plan and budget, means over seeds."""
    kinds = list(dict.fromkeys((run.plan, run.epsilon) for run in runs))
    best = by_kind(runs, found, next((kind for kind in kinds if kind[0] == "small"), kinds[-1]))
    for kind in kinds:
        plan, epsilon = kind
        own = by_kind(runs, found, kind)
        what = f"epsilon {epsilon:g}" if plan == "private" else f"no budget, {plan} plan"
        for population in lemof.POPULATIONS:
            for name in VARIANTS:
                values = [one.auroc[population][name] for one in own]
                share = (mean(values) - 0.5) / (mean(one.auroc[population][name] for one in best) - 0.5)
                each = "seeds: " + ", ".join(f"{value:.3f}" for value in values)
                yield Row(f"{what}: {name}, {population}", each, mean(values), "AUROC", share)
            said = [one.reported[population] for one in own]
            each = "seeds: " + ", ".join("-" if value is None else f"{value:.3f}" for value in said)
            stated = [value for value in said if value is not None]
            yield Row(f"{what}: full, {population}, as reported", each, mean(stated) if stated else None, "AUROC")
        for learner in membership.NETWORKS:
            yield from attack_rows(f"{what}: attack on {learner}", [one.attack[learner] for one in own])
        if plan == "private":
            spent = max(one.spent for one in own)
            yield Row(f"{what}: spent by a hospital", "", spent, "epsilon", None, f"<= {epsilon:g}", spent <= epsilon)
        yield Row(f"{what}: a study", "", mean(one.seconds for one in own), "s")
    for population in lemof.POPULATIONS:
        known = [one.trees[population] for one in best if one.trees[population] is not None]
        if known:
            yield Row(f"no budget: trees on the EHR table, {population}", "", mean(known), "AUROC")


def attack_rows(what: str, found: Sequence[dict[str, Any]]) -> Iterator[Row]:
    """AUROC and true-positive rate of the attack; its ratio is that to the rate of false positives."""
    each = ", ".join(f"{one['auroc']:.3f}" for one in found)
    yield Row(what, f"nothing told: 0.5; seeds: {each}", mean(one["auroc"] for one in found), "AUROC")
    caught, wrong = (mean(one[f"{kind}_positive_rate"] for one in found) for kind in ("true", "false"))
    ratio = caught / wrong if wrong else None
    yield Row(f"{what}, few false", f"false positives: {wrong:.4f}", caught, "true positives", ratio)


def by_kind(runs: Sequence[Run], found: Sequence[Found], kind: tuple[str, float]) -> list[Found]:
    """What was found with one plan and budget."""
    return [one for run, one in zip(runs, found, strict=True) if (run.plan, run.epsilon) == kind]


def mean(values: Any) -> float:
    """The mean of some numbers."""
    return float(statistics.mean(values))


def step_row(hospital: Hospital, modality: str, name: str) -> Row:
    """A round of private steps against one of plain steps, on the same stays."""
    rows = np.resize(hospital.stays.rows("train", modality), STEP_STAYS)
    batch_of, label_N = frozen.batches_of(hospital, modality, untrained(hospital)), hospital.stays.long_stay_N
    network = build_network(modality, EncoderSpec(name), seed=1)
    spec = dataclasses.replace(hospital.study.encoders, num_epochs=STEPS, batch_size=STEP_STAYS)

    def plain() -> None:
        training.train(network, batch_of, label_N, rows, spec, seed=1, number=1)

    def private() -> None:
        train_private(
            {modality: Network(network, batch_of, rows)}, label_N, rows, spec, noise_multiplier=1.0, sample_rate=1.0,
            steps=STEPS, batch_size=STEP_STAYS, random=SecureRandom(), number=1,
        )  # fmt: skip

    plain_s, private_s = seconds_in_turns([plain, private], 1, NUM_BLOCKS).T
    ratio = float(np.median(private_s / plain_s))
    plain_ms, private_ms = (1e3 * float(np.median(s)) / STEPS for s in (plain_s, private_s))
    what = f"{modality} {name}: private step of {STEP_STAYS} stays"
    return Row(what, f"plain: {plain_ms:.1f} ms", private_ms, "ms", ratio, f"<= {MOST_TIMES:g}", ratio <= MOST_TIMES)


def draw(runs: Sequence[Run], found: Sequence[Found], file: Path) -> None:
    """AUROC and the attack against epsilon, every seed a point and the means a line; no budget at the right."""
    from matplotlib.figure import Figure

    kinds = [(run.plan, run.epsilon) for run in runs if run.plan != "default"]
    kinds = sorted(dict.fromkeys(kinds), key=lambda kind: kind[1])
    place, names = range(len(kinds)), ["no budget" if math.isinf(eps) else f"{eps:g}" for _, eps in kinds]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    groups = [by_kind(runs, found, kind) for kind in kinds]

    def line(axes: Any, label: str, values: list[list[float]]) -> None:
        (drawn,) = axes.plot(place, [mean(some) for some in values], label=label)
        for at, some in zip(place, values, strict=True):
            axes.plot([at] * len(some), some, ".", color=drawn.get_color(), alpha=0.5)

    for axes, population in zip(panels, lemof.POPULATIONS, strict=False):
        for name in VARIANTS:
            line(axes, name, [[one.auroc[population][name] for one in group] for group in groups])
        trees = [one.trees[population] for one in found if one.trees[population] is not None]
        if trees:
            axes.axhline(mean(trees), color="gray", linestyle=":", label="trees, no budget")
        axes.set(title=f"held_out, {population}", ylabel="AUROC")
    for learner in membership.NETWORKS:
        line(panels[2], learner, [[one.attack[learner]["auroc"] for one in group] for group in groups])
    panels[2].axhline(0.5, color="gray", linestyle=":")
    panels[2].set(title="membership attack", ylabel="AUROC")
    for axes in panels:
        axes.set_xticks(place, names)
        axes.set_xlabel("epsilon of every hospital (delta 1e-5)")
        axes.legend(fontsize="small")
    figure.savefig(file, dpi=110)


def planned(files: tuple[Path, ...], chosen: argparse.Namespace) -> list[Run]:
    """The studies of a command line."""
    kinds = [("small" if math.isinf(eps) else "private", eps) for eps in chosen.epsilons]
    runs = [Run(files, plan, epsilon, seed, chosen.rounds) for plan, epsilon in kinds for seed in chosen.seeds]
    return runs + [Run(files, "default", math.inf, seed, chosen.rounds) for seed in chosen.default_seeds]


def carried_out(runs: Sequence[Run], num_processes: int) -> list[Found]:
    """All studies, as many at a time as there are processes."""
    if num_processes == 1:
        return list(shown(map(run_one, runs), "studies", len(runs)))
    with ProcessPoolExecutor(num_processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(shown(pool.map(run_one, runs), "studies", len(runs)))


def main() -> int:
    """Measure what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add: Any = parser.add_argument
    add("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    add("--figure", type=Path, metavar="FILE", help="draw AUROC against epsilon")
    add("--hospitals", type=Path, metavar="DIR", help="prepared hospitals; default: the standard ones")
    add("--epsilons", type=float, nargs="+", default=[1, 2, 4, 8, math.inf], metavar="E", help="inf: no budget")
    add("--seeds", type=int, nargs="+", default=[7, 8, 9], metavar="N", help="default: 7 8 9")
    add("--default-seeds", type=int, nargs="*", default=[7], metavar="N", help="of the default plan; default: 7")
    add("--rounds", type=int, default=0, metavar="N", help="rounds of both trainings; default: the plans'")
    add("--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="default: one a core")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        hospitals = chosen.hospitals or standard_hospitals(Path(folder) / "hospitals")
        files = tuple(sorted(hospitals.resolve().glob("*/site.yaml")))
        if not files:
            parser.error(f"--hospitals must hold prepared hospitals, got {hospitals}")
        opened = [open_hospital(load_site(file), PLAN) for file in files]
        timed = max(opened, key=lambda hospital: int(hospital.stays.has_ecg_N.sum()))
        rows = [step_row(timed, "ecg", "resnet"), step_row(timed, "ehr", "ft_transformer")]
        runs = planned(files, chosen)
        found = carried_out(runs, min(chosen.processes, len(runs)))
    rows += study_rows(runs, found)
    if chosen.figure:
        draw(runs, found, chosen.figure)
    return finish(rows, chosen.json)


if __name__ == "__main__":
    raise SystemExit(main())
