"""The study under Flower's own simulation: the coordinator in this process, the hospitals in Ray's, one core each.

Ray gets a home of its own that is thrown away: it leaves nothing in the user's, and a ``ray_bootstrap_config.yaml``
there keeps it from asking a cloud's metadata address who it is.
"""

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, cast

import ray
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from client.join.app import make_app
from lemof_model.errors import LemofError
from server.run import run_plan
from server.transport import FlowerTransport, Transport
from simulation.local_transport import memory_of


def run_flower(
    sites: Sequence[Path], plan: Path, out: Path, resume: bool, watch: Callable[[Transport], Transport] = lambda t: t
) -> Path:
    """Run ``plan`` over the hospitals of these site files into ``out``, through a transport that ``watch`` may wrap; an
    error of the coordinator is raised here. What a hospital told is remembered in the run folder alone."""
    site_files, memory = [path.resolve() for path in sites], memory_of(out.resolve())
    app = ServerApp()
    folders: list[Path] = []
    interrupted = threading.Event()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        """Run the plan over Ray's nodes."""
        stoppable = cast(Grid, _UntilInterrupted(grid, interrupted))
        transport = FlowerTransport(stoppable, min_sites=len(site_files), poll_seconds=0.02)
        folders.append(run_plan(plan, out, watch(transport), resume, is_simulation=True))

    with ray_at_home() as ray_folder, _interrupts_noted(interrupted):
        run_simulation(
            app,
            make_app(lambda context: site_files[int(context.node_config["partition-id"])], memory),
            num_supernodes=len(site_files),
            backend_config={
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
                "init_args": {"_temp_dir": str(ray_folder), "logging_level": logging.ERROR, "log_to_driver": False},
            },
        )
    return folders[0]


class _UntilInterrupted:
    """A grid that answers nothing any more after Ctrl-C: Flower then has ended the hospitals, and the coordinator's
    thread, which the process waits for, would wait for them."""

    def __init__(self, grid: Grid, interrupted: threading.Event) -> None:
        self._grid, self._interrupted = grid, interrupted

    def __getattr__(self, name: str) -> Any:
        if self._interrupted.is_set():
            raise LemofError(rule="A study must not be interrupted", got="Ctrl-C", fix="Go on with --resume.")
        return getattr(self._grid, name)


@contextmanager
def _interrupts_noted(interrupted: threading.Event) -> Iterator[None]:
    """Note Ctrl-C where Flower's threads can see it; what it ends, ends as Ctrl-C."""

    def note(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    except Exception:
        if interrupted.is_set():
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def ray_at_home() -> Iterator[Path]:
    """A folder for Ray and the environment that keeps it there and silent; afterwards both are as they were."""
    environment = dict(os.environ)
    flower_log = logging.getLogger("flwr")
    level = flower_log.level
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "ray_bootstrap_config.yaml").write_text("{}\n")
        os.environ |= {"HOME": folder, "RAY_USAGE_STATS_ENABLED": "0", "FLWR_TELEMETRY_ENABLED": "0"}
        os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
        flower_log.setLevel(logging.ERROR)
        try:
            yield Path(folder)
        finally:
            ray.shutdown()
            flower_log.setLevel(level)
            os.environ.clear()
            os.environ.update(environment)
