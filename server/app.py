"""Flower's door of the coordinator: ``flwr run . NAME --run-config 'plan="/abs/PLAN.yaml" out="/abs/RUN"'``.

An error ends the run as failed, with its message as the run's details.
"""

import logging
import sys
from functools import partial
from pathlib import Path

from flwr.app import Context, UserConfig
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.inflatable.inflatable_utils import pull_objects
from flwr.superlink.grid import http_grid

from lemof_model.errors import ConfigError
from protocol.plan import load_plan
from server.run import run_plan
from server.run_store import WAITING, WITH_FLWR_RUN, note
from server.transport import FlowerTransport

POLL_SECONDS = 0.1  # an answer that is half sent is looked for again so soon; Flower's own waits for a second

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the plan over the hospitals that have joined."""
    logging.basicConfig(stream=sys.stdout, format="%(message)s")  # what Flower shows as the log of the run
    logging.getLogger("lemof").setLevel(logging.INFO)
    plan, out = (_absolute_path(context.run_config, key) for key in ("plan", "out"))
    study = load_plan(plan, WITH_FLWR_RUN.plan)
    http_grid.__dict__["pull_objects"] = partial(pull_objects, initial_backoff=POLL_SECONDS)
    min_sites = max(study.min_sites, study.fewest_sites)
    transport = FlowerTransport(grid, min_sites, poll_seconds=POLL_SECONDS, note=partial(note, out, WAITING))
    run_plan(plan, out, transport, resume=bool(context.run_config["resume"]), asked=WITH_FLWR_RUN)


def _absolute_path(run_config: UserConfig, key: str) -> Path:
    """A path of the run config; a relative one would start wherever Flower happened to start the coordinator."""
    path = Path(str(run_config[key]))
    if not path.is_absolute():
        raise ConfigError(
            rule=f"{key} must be an absolute path", got=f"{str(path)!r} from --run-config", fix="Write it out in full."
        )
    return path
