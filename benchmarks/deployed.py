"""What deploying costs: a study over real ``flower-superlink`` and ``lemof-client`` processes, beside the same study by
``lemof-sim run`` in the same run, in processor time of all processes and on the wall. With ``--against`` a checkout of
another commit, its deployed study as well.

    python benchmarks/deployed.py --json FILE [--against CHECKOUT]

Four generated hospitals, the quick plan, caches cleared; starting and ending all processes is counted.
"""

import argparse
import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rows import Row, finish

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PLAN = "site_configs/plans/quick.yaml"
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
CPU_GOAL, WALL_GOAL = 0.5, 0.6


class Cost(NamedTuple):
    """Processor seconds of every process that was started, and seconds from the start of the study to its report."""

    cpu: float
    wall: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--against", type=Path, help="a checkout of another commit of this project")
    parser.add_argument("--stays", type=int, default=400)
    parser.add_argument("--one", nargs=3, metavar=("WAY", "CHECKOUT", "HOSPITALS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        way, checkout, hospitals = options.one
        print(json.dumps(counted(way, Path(checkout), Path(hospitals))))
        return 0
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        ours = prepared(ROOT, Path(folder) / "ours", options.stays)
        simulated, deployed = measured("simulated", ROOT, ours), measured("deployed", ROOT, ours)
        for what, unit, mine, other in zip(("processor time", "wall time"), "ss", deployed, simulated, strict=True):
            rows.append(Row(f"deployed study: {what}", "the same by lemof-sim run", mine, unit, mine / other))
        if options.against:
            checkout = options.against.resolve()
            before = measured("deployed", checkout, prepared(checkout, Path(folder) / "theirs", options.stays))
            goals = (CPU_GOAL, WALL_GOAL)
            named = zip(("processor time", "wall time"), "ss", deployed, before, goals, strict=True)
            for what, unit, mine, other, goal in named:
                against, ratio = f"the other checkout, deployed: {other:.1f} s", mine / other
                rows.append(Row(f"deployed study: {what}", against, mine, unit, ratio, f"<= {goal}", ratio <= goal))
    return finish(rows, options.json)


def prepared(checkout: Path, folder: Path, num_stays: int) -> Path:
    """Four generated hospitals, prepared with the code of a checkout."""
    synth = ["synth", str(folder), "--sites", "4", "--stays", str(num_stays), "--seed", "7"]
    subprocess.run([BIN / "lemof-sim", *synth], env=environment(checkout), check=True, capture_output=True)
    for site in sorted(folder.glob("*/site.yaml")):
        prepare = [str(BIN / "lemof-client"), "--site", str(site), "prepare", "--plan", str(checkout / PLAN)]
        subprocess.run(prepare, env=environment(checkout), check=True, capture_output=True)
    return folder


def environment(checkout: Path) -> dict[str, str]:
    """This environment with the code of a checkout before what is installed."""
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **quiet, "PYTHONPATH": str(checkout), "OMP_WAIT_POLICY": "PASSIVE"}


def measured(way: str, checkout: Path, hospitals: Path) -> Cost:
    """What one study costs, in a process of its own that waits for all others."""
    for cohort in hospitals.glob("*/cohort"):
        shutil.rmtree(cohort / ".cache", ignore_errors=True)
    command = [sys.executable, __file__, "--one", way, str(checkout), str(hospitals)]
    done = subprocess.run(command, env=environment(checkout), check=True, stdout=subprocess.PIPE, text=True)
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def counted(way: str, checkout: Path, hospitals: Path) -> Cost:
    """Run one study; orphans become children of this process, so that none is left uncounted."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    out = hospitals / f"run_{way}"
    wall = deploy(checkout, hospitals, out) if way == "deployed" else simulate(checkout, hospitals, out)
    with suppress(ChildProcessError):
        while True:
            os.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(used.ru_utime + used.ru_stime, wall)


def simulate(checkout: Path, hospitals: Path, out: Path) -> float:
    """The study by ``lemof-sim run``; seconds."""
    start = time.monotonic()
    command = ["run", "--sites", f"{hospitals}/*/site.yaml", "--plan", str(checkout / PLAN), "--out", str(out)]
    subprocess.run([BIN / "lemof-sim", *command], check=True, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def deploy(checkout: Path, hospitals: Path, out: Path) -> float:
    """The study over real processes; seconds from ``flwr run`` to the report."""
    sys.path.insert(0, str(ROOT))
    import yaml

    from tests.flower_deployment import deployment, free_address

    sites, address = sorted(hospitals.glob("*/site.yaml")), free_address()
    for site in sites:
        site.write_text(yaml.safe_dump(yaml.safe_load(site.read_text()) | {"server": {"address": address}}))
    plan = hospitals / "plan.yaml"
    plan.write_text((checkout / PLAN).read_text())
    with deployment(hospitals / "processes", sites, address) as env:
        start = time.monotonic()
        settings = f'plan="{plan}" out="{out}" resume=false'
        command = [str(BIN / "flwr"), "run", str(checkout), "here", "--run-config", settings]
        subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
        while not (out / "report.html").is_file():
            time.sleep(0.1)
            if time.monotonic() - start > 1800:
                raise TimeoutError(f"the deployed study did not end: {hospitals}")
        return time.monotonic() - start


if __name__ == "__main__":
    sys.exit(main())
