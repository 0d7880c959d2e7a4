"""All generated hospitals, and ``truth.json`` with the best AUROC that can be reached on them."""

import json
import string
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from simulation.site_file import require_empty
from simulation.synthetic.hospital import write_hospital
from simulation.synthetic.process import Process, best_aurocs, draw_latents
from simulation.synthetic.records import draw_stays


def generate(out: Path, *, num_sites: int, num_stays: int, seed: int) -> None:
    """Write ``out/hospital_a``, ``hospital_b``, ... of ``num_stays`` ICU stays each (at most 26 hospitals of
    100,000 stays), and ``out/truth.json``.

    The last of several hospitals has no ECG. The same arguments give the same bytes.

    Raises:
        DiskError: ``out`` already holds something.
    """
    require_empty(out)
    process = Process()
    hospitals = []
    bar = Console(stderr=True)
    for index in track(range(num_sites), "hospitals", console=bar, transient=True, disable=not bar.is_terminal):
        mix = process.case_mix(index, num_sites)
        rng = np.random.default_rng([seed, index, 0])
        latents = draw_latents(process, mix, num_stays, rng)
        stays = draw_stays(process, mix, latents, index, rng)
        write_hospital(out / f"hospital_{string.ascii_lowercase[index]}", mix, stays, index, seed)
        hospitals.append((mix, latents))
    truth = {"seed": seed, "process": process.digest, **best_aurocs(process, hospitals)}
    (out / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
