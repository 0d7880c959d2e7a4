"""``lemof-client``: what a hospital types. Text and bars go to stderr, JSON to stdout.

Exit statuses: 0 done, 1 our bug, 2 usage, the ``exit_status`` of a ``LemofError``, 130 after Ctrl-C (typer's own).
"""

import json
import logging
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import click
import typer
from rich.console import Console

from client.cohort import Cohort
from client.command_line import run_command
from client.site import Limits, find_site_file, load_plan_sections, load_site

log = logging.getLogger("lemof")
app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run ``lemof-client`` and end the process with its exit status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line; the exit status."""
    return run_command(app, "lemof-client", arguments)


def _print_version(is_asked: bool) -> None:
    """Answer -V."""
    if is_asked:
        typer.echo(f"lemof-client {version('lemof')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def join(
    context: typer.Context,
    site: Annotated[str, typer.Option(help="Site file: a path, or NAME for ./site_configs/NAME.yaml.")] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more; show the traceback of a bug.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """A hospital's part in a LeMoF study. Without a command: join the federation.

    Example: lemof-client --site hospital_a
    """
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    if context.invoked_subcommand is None:
        from client.launch import join as join_federation

        path = _site_file(context)
        raise typer.Exit(join_federation(load_site(path), path))


@app.command()
def prepare(
    context: typer.Context,
    plan: Annotated[Path | None, typer.Option(help="Study plan; without it, the default plan.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the cohort's manifest to stdout.")] = False,
) -> None:
    """Turn the raw tables and ECGs into the site's cohort.

    Example: lemof-client --site hospital_a prepare --plan site_configs/plans/default.yaml
    """
    from client.mimic_iv.prepare import prepare as prepare_cohort

    site = load_site(_site_file(context))
    cohort = prepare_cohort(site, load_plan_sections(plan), Console(stderr=True, soft_wrap=True))
    for warning in _warnings(cohort, site.limits, has_ecg_data=site.data.ecg is not None):
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        typer.echo(json.dumps(cohort.manifest, indent=2))
    first, *dropped, _ = cohort.manifest["attrition"]
    reasons = ", ".join(f"{row['num_stays']:,} {row['reason']}" for row in dropped if row["num_stays"])
    typer.echo(
        f"kept {cohort.num_stays:,} of {first['num_stays']:,} ICU stays"
        f"{f' (dropped: {reasons})' if reasons else ''}.  Next: lemof-client --site {_site_option(context)}",
        err=True,
    )


def _site_option(context: typer.Context) -> str:
    """What was given as --site, wherever the command stands."""
    return str(context.find_root().params["site"])


def _site_file(context: typer.Context) -> Path:
    """The site file; --site is asked for here, so that ``COMMAND --help`` works without it."""
    if not _site_option(context):
        raise click.UsageError("--site must name a site file. Example: lemof-client --site hospital_a", context)
    return find_site_file(_site_option(context))


def _warnings(cohort: Cohort, limits: Limits, *, has_ecg_data: bool) -> Iterator[str]:
    """What will keep the cohort from taking part, or make it useless there."""
    counts = cohort.manifest
    if counts["num_patients"] < limits.min_patients:
        yield (
            f"num_patients must be at least limits.min_patients = {limits.min_patients} for training, "
            f"got {counts['num_patients']}. The door will refuse the site's updates."
        )
    if counts["num_long_stays"] in (0, counts["num_stays"]):
        yield "Stays must be short and long, got one kind only. Check outtime, or ask for another threshold."
    if rejected := counts["ecg"]["records_rejected"]:
        reasons = ", ".join(f"{num:,} {reason}" for reason, num in rejected.items())
        yield (
            f"ECG records must be whole, got {sum(rejected.values()):,} of {counts['ecg']['records_chosen']:,} "
            f"that are not ({reasons}). Their stays count as without ECG; files are listed in rejects.csv.gz."
        )
    elif has_ecg_data and counts["num_stays_with_ecg"] == 0:
        yield "At least one stay must have an ECG, got none. Do the record list and the tables number patients alike?"
