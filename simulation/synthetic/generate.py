"""All generated hospitals, and what no training may read: ``truth.json`` and ``truth.parquet``."""

import hashlib
import json
import os
import string
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console

from protocol.progress import Shown
from simulation.generated import mark
from simulation.processes import interrupts_held, processes
from simulation.site_file import require_empty
from simulation.synthetic import courses, diagnoses, events, heart, hospital, recording, records, signals, treatments
from simulation.synthetic.bounds import upper_bounds
from simulation.synthetic.process import Process, SyntheticHospital
from simulation.synthetic.reachable import reachable_aurocs, reachable_scores

WORTH_A_PROCESS = 1_000


def generate(out: Path, *, num_sites: int, num_stays: int, seed: int, process: Process | None = None) -> None:
    """Write ``out/hospital_a``, ``hospital_b``, ... of ``num_stays`` ICU stays each (at most 26 hospitals of
    100,000 stays), ``out/truth.json`` with the best AUROCs and ``out/truth.parquet`` with what every stay hides.

    The last of several hospitals has no ECG. The same arguments give the same bytes.

    Raises:
        DiskError: ``out`` already holds something.
    """
    require_empty(out)
    process = process or Process()
    hospitals = [process.hospital(index, num_sites, seed) for index in range(num_sites)]
    truths: list[pl.DataFrame] = []
    with Shown(Console(stderr=True, highlight=False), "step", num_sites + 1) as shown:
        shown.begin(1, "writing hospitals")
        for number, truth_of_site in enumerate(_written(out, process, hospitals, num_stays, seed), start=1):
            truths.append(truth_of_site)
            mark(out / truth_of_site["site"][0])
            shown.end(number, f"{truth_of_site['site'][0]} written: {num_stays:,} stays")
            shown.begin(number + 1, "writing hospitals" if number < num_sites else "measuring the ceiling")
        stays = reachable_scores(process, pl.concat(truths), seed)
        bounds, reachable = upper_bounds(process, hospitals, seed), reachable_aurocs(process, stays)
        shown.end(num_sites + 1, "ceiling measured: the best AUROC of any model")
    truth: dict[str, Any] = {"seed": seed, "process": parameters_digest(process)}
    truth |= {population: {**reachable[population], **figures} for population, figures in bounds.items()}
    (out / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
    stays.write_parquet(out / "truth.parquet")


def _written(
    out: Path, process: Process, hospitals: list[SyntheticHospital], num_stays: int, seed: int
) -> Iterator[pl.DataFrame]:
    """The truth of each hospital in turn; large hospitals are written by a process each, which changes no byte."""
    folders = [out / f"hospital_{string.ascii_lowercase[one.index]}" for one in hospitals]
    write = partial(hospital.write_hospital, process=process, num_stays=num_stays, seed=seed)
    num_processes = min(len(hospitals), os.cpu_count() or 1)
    if num_processes == 1 or len(hospitals) * num_stays < WORTH_A_PROCESS:
        yield from map(write, folders, hospitals)
        return
    with processes(num_processes) as pool:
        with interrupts_held():
            truths = pool.map(write, folders, hospitals)
        yield from truths


def parameters_digest(process: Process) -> str:
    """sha256 (hex) of the process and of every named constant behind what is written: what freezes a benchmark.

    Numbers that stand in functions are held by the golden numbers of ``tests/simulation/test_synth.py``.
    """
    modules = (courses, diagnoses, events, heart, hospital, recording, records, signals, treatments)
    constants = [
        (module.__name__, name, value)
        for module in modules
        for name, value in sorted(vars(module).items())
        if name.isupper()
    ]
    with np.printoptions(threshold=sys.maxsize, floatmode="unique"):
        return hashlib.sha256(repr((process, constants)).encode()).hexdigest()
