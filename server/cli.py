"""``lemof-server``: what a coordinator types. Text goes to stderr, results to stdout.

Exit statuses: 0 done, 1 our bug, 2 usage, the ``exit_status`` of a ``LemofError``, 130 after Ctrl-C.
"""

import json
import logging
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lemof_model.errors import DataError
from protocol.command_line import run_command
from server.report.run_files import describe_run, runs_of, the_run, verify_run

log = logging.getLogger("lemof")
app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run: the one given as --out, or out.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def main() -> None:
    """Run ``lemof-server`` and end the process with its exit status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line; the exit status."""
    return run_command(app, "lemof-server", arguments)


def _print_version(is_asked: bool) -> None:
    """Answer -V."""
    if is_asked:
        typer.echo(f"lemof-server {version('lemof')}")
        raise typer.Exit


@app.callback()
def coordinate(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more; show the traceback of a bug.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """The coordinator's part in a LeMoF study: look at runs. The study itself is started with flwr run, as the
    coordinator guide (docs/coordinator_guide.md) says.

    Example: lemof-server runs runs/
    """
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    log.setLevel(logging.DEBUG if verbose else logging.INFO)


@app.command()
def report(folder: RunFolder) -> None:
    """Write report.html of a finished run anew, from its files.

    Example: lemof-server report runs/first
    """
    from server.report.page import write_report  # brings torch and the templates, which --help does without

    typer.echo(str(write_report(the_run(folder, "report"))))


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of runs, or one run.")],
    as_json: AsJson = False,
) -> None:
    """List runs: plan digest, status, hospitals, and AUROC of the full model over all stays.

    Example: lemof-server runs runs/
    """
    found = [describe_run(path) for path in runs_of(folder)]
    if not found:
        typer.echo(f"no runs in {folder}: a run is a folder with plan.yaml and state/", err=True)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table("run", "study", "plan", "status", "hospitals", "AUROC", box=None)
    for one in found:
        auroc = "-" if one["auroc"] is None else f"{one['auroc']:.3f}"
        status, *_ = one["status"].splitlines()
        table.add_row(one["run"], one["study"], one["plan_digest"][:12], status, str(one["sites"] or "-"), auroc)
    Console(soft_wrap=True, markup=False).print(table)


@app.command()
def verify(folder: RunFolder, as_json: AsJson = False) -> None:
    """Check a finished run against its own digests: weights, plan and best levels.

    Example: lemof-server verify runs/first
    """
    folder = the_run(folder, "verify")
    found = verify_run(folder)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        for what, holds in found.items():
            typer.echo(f"{'ok  ' if holds else 'FAIL'}  {what}")
    broken = [what for what, holds in found.items() if not holds]
    if broken:
        raise DataError(
            rule="All checks must hold", got=f"{len(broken)} that fail in {folder}", fix="The files were changed."
        )
