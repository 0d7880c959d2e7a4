"""``lemof-sim run``: the whole study on one machine, through either engine."""

import logging
import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console

from client.site import load_site
from lemof_model.errors import ConfigError
from protocol.method import times_asked
from protocol.plan import load_plan
from protocol.progress import Shown
from server.run import run_plan
from simulation.local_transport import LocalTransport, memory_of
from simulation.progress import Watched

log = logging.getLogger("lemof")


def run(
    sites: Sequence[Path],
    plan: Path,
    out: Path,
    engine: str = "local",
    resume: bool = False,
    attendance: Path | None = None,
    console: Console | None = None,
) -> Path:
    """Run the study over prepared site files, the local engine on all cores; returns the run folder. Its rounds are
    shown on ``console``.

    Raises:
        ConfigError: the plan waits for more hospitals than there are.
    """
    _require_quorum(sites, plan)
    warn_of_shared_patients(sites)
    most = sum(times_asked(load_plan(plan)).values())
    with Shown(console or Console(quiet=True), "round", most, is_bound=True) as shown:
        if engine == "local":
            num_processes = min(len(sites), os.cpu_count() or 1)
            with LocalTransport(sites, attendance, num_processes, memory_of(out)) as transport:
                return run_plan(plan, out, Watched(transport, shown), resume, is_simulation=True)
        if attendance is not None:
            raise ConfigError(
                rule="--attendance must be used with --engine local", got="flower", fix="Leave one of them out."
            )
        from simulation.flower_engine import run_flower

        return run_flower(list(sites), plan, out, resume, lambda transport: Watched(transport, shown))


def _require_quorum(sites: Sequence[Path], plan: Path) -> None:
    """Refuse a plan that could not finish one round, before anything is trained."""
    min_sites = load_plan(plan).min_sites
    if min_sites > len(sites):
        raise ConfigError(
            rule=f"min_sites must be at most {len(sites)}, the number of hospitals that --sites names",
            got=f"{min_sites} from {plan.name}",
            fix="Lower it, or name more site files.",
        )


def warn_of_shared_patients(sites: Sequence[Path]) -> None:
    """Tell of patients that are in two prepared hospitals. No hospital of a real federation can know.

    A patient is in the same split everywhere, so nobody is trained on and judged, but counts twice.
    """
    patients: dict[str, set[int]] = {}
    for site in map(load_site, sites):
        stays = site.prepare.output / "stays.parquet"
        if stays.is_file():  # whoever is not prepared is told so when the study asks
            patients[site.site.name] = set(pq.read_table(stays, columns=["patient_hash"])[0].to_pylist())
    for one, other in combinations(sorted(patients), 2):
        if num := len(patients[one] & patients[other]):
            log.warning(
                f"Patients must be in one hospital each, got {num:,} of both {one} and {other}. "
                "They count twice; make the hospitals with lemof-sim split, or mend the exports. [E111]"
            )
