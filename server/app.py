"""Flower's door of the coordinator: ``flwr run . NAME --run-config 'plan="/abs/PLAN.yaml" out="/abs/RUN"'``.

An error ends the run as failed, with its message as the run's details.
"""

import logging
import sys
from pathlib import Path

from flwr.app import Context, UserConfig
from flwr.serverapp import Grid, ServerApp

from lemof_model.errors import ConfigError
from server.plan import load_plan
from server.run import run_plan
from server.transport import FlowerTransport

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the plan over the hospitals that have joined."""
    logging.basicConfig(stream=sys.stdout, format="%(message)s")  # what Flower shows as the log of the run
    logging.getLogger("lemof").setLevel(logging.INFO)
    plan, out = (_absolute_path(context.run_config, key) for key in ("plan", "out"))
    study = load_plan(plan)
    transport = FlowerTransport(grid, min_sites=max(study.min_sites, study.fewest_sites))
    run_plan(plan, out, transport, resume=bool(context.run_config["resume"]))


def _absolute_path(run_config: UserConfig, key: str) -> Path:
    """A path of the run config; a relative one would start wherever Flower happened to start the coordinator."""
    path = Path(str(run_config[key]))
    if not path.is_absolute():
        raise ConfigError(f"{key} must be an absolute path, got {str(path)!r} from --run-config. Write it out in full.")
    return path
