"""``lemof-sim run``: the whole study on one machine, through either engine."""

import os
from collections.abc import Sequence
from pathlib import Path

from lemof_model.errors import ConfigError
from server.run import run_plan
from simulation.local_transport import LocalTransport


def run(
    sites: Sequence[Path],
    plan: Path,
    out: Path,
    engine: str = "local",
    resume: bool = False,
    attendance: Path | None = None,
) -> Path:
    """Run the study over prepared site files, the local engine on all cores; returns the run folder."""
    if engine == "local":
        num_processes = min(len(sites), os.cpu_count() or 1)
        with LocalTransport(sites, attendance, num_processes) as transport:
            return run_plan(plan, out, transport, resume)
    if attendance is not None:
        raise ConfigError("--attendance must be used with --engine local, got flower. Leave one of them out.")
    from simulation.flower_engine import run_flower

    return run_flower(list(sites), plan, out, resume)
