"""``lemof-client``: what a hospital types. Text and bars go to stderr, JSON to stdout.

Exit statuses: 0 done, 1 our bug, 2 usage, the ``exit_status`` of a ``LemofError``, 130 after Ctrl-C (typer's own).
"""

import json
import logging
import shlex
import sys
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import click
import typer
from rich.console import Console
from rich.table import Table

from client.site import Privacy, find_site_file, load_plan_sections, load_site, load_study
from lemof_model.errors import ConfigError
from protocol.command_line import run_command

log = logging.getLogger("lemof")
app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
)
Site = Annotated[
    str,
    typer.Option(metavar="SITE", help="Site file: a path, or NAME for ./site_configs/NAME.yaml.", show_default=False),
]
Plan = Annotated[
    Path | None,
    typer.Option(
        metavar="PLAN",
        help="The coordinator's plan: a path, or NAME for site_configs/plans/NAME.yaml; else the default plan.",
    ),
]

ledger_app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})
app.add_typer(ledger_app, name="ledger")
told_app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})
app.add_typer(told_app, name="told")


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
    site: Site = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more; show the traceback of a bug.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """A hospital's part in a LeMoF study. Without a command: join the federation, until Ctrl-C.

    --site may stand before or after the command.

    Example: lemof-client --site hospital_a
    """
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    if context.invoked_subcommand is None:
        from client.join.launch import join as join_federation

        path = _site_file(context)
        raise typer.Exit(join_federation(load_site(path), path))


@app.command()
def check(
    context: typer.Context,
    site: Site = "",
    plan: Plan = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every row, every ECG and every file of the cohort.")
    ] = False,
    server: Annotated[
        bool | None,
        typer.Option("--server/--no-server", help="Try the coordinator's server; default: if the site file names one."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="End with status 5 when there are warnings.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings to stdout, too.")] = False,
) -> None:
    """Look at site file, plan, tables, ECGs, disk and server before the work begins, in seconds. Nothing leaves.

    Example: lemof-client --site hospital_a check --plan plan.yaml
    """
    from client.checks.check import check as check_site

    console = _console()
    report = check_site(_site_file(context), plan, console, is_deep=deep, asks_server=server)
    report.show(console)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    if status := report.exit_status(is_strict=strict):
        raise typer.Exit(status)


@app.command()
def prepare(
    context: typer.Context,
    site: Site = "",
    plan: Plan = None,
    force: Annotated[bool, typer.Option("--force", help="Prepare again, even if nothing has changed.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that read ECGs; default: by cores.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the cohort's manifest to stdout.")] = False,
) -> None:
    """Turn the raw tables and ECGs into the site's cohort; started again, it goes on where it was stopped.

    Example: lemof-client --site hospital_a prepare --plan plan.yaml
    """
    try:
        from client.checks.page import read_quality, write_page
        from client.checks.summary import show_summary
        from client.layouts import layout_of
        from client.prepare.prepare import prepare as prepare_cohort

        config, console = load_site(_site_file(context)), _console()
        cohort = prepare_cohort(
            config, layout_of(config), load_plan_sections(plan), console, force=force, workers=workers
        )
    except KeyboardInterrupt:
        kept = "What is finished is kept: the same command goes on from there."
        typer.echo(f"stopped. {'An earlier cohort is unchanged.' if force else kept}", err=True)
        raise
    quality = read_quality(cohort.path)
    status = show_summary(config, cohort.manifest, quality, console)
    page = write_page(config, cohort.manifest, quality)
    next_step = "" if status else f".  Next: lemof-client --site {shlex.quote(_site_option(context))}"
    console.print(f"Readiness page: {page}{next_step}", markup=False)
    if as_json:
        typer.echo(json.dumps(cohort.manifest, indent=2))
    if status:
        raise typer.Exit(status)


def _console() -> Console:
    """Where people read: stderr, wide enough for a table when it is no terminal."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = 160
    return console


@app.command(name="dry-run")
def dry_run(
    context: typer.Context,
    site: Site = "",
    plan: Plan = None,
    full: Annotated[bool, typer.Option("--full", help="List every name, shape and count, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print dry-run.json to stdout.")] = False,
) -> None:
    """Run every stage of a study on the site's own data and tell what would leave. Sends and charges nothing.

    Example: lemof-client --site hospital_a dry-run --plan plan.yaml
    """
    from client.checks.dry_run import NUM_REQUESTS, lines_of, write
    from client.checks.dry_run import dry_run as run_every_stage
    from client.join.launch import stale_line
    from protocol.progress import Shown

    site_file = _site_file(context)
    config, study = load_site(site_file), load_study(plan)
    if line := stale_line(config):
        typer.echo(line, err=True)
    with Shown(_console(), "stage", NUM_REQUESTS) as shown:
        told = run_every_stage(config, study, shown)
    text = json.dumps(told, indent=2)
    path = write(text, site_file.parent)
    for line in lines_of(told) if full else takewhile(bool, lines_of(told)):
        typer.echo(line, err=True)
    if as_json:
        typer.echo(text)
    typer.echo(f"All of it: {path}" + ("" if full else ", or --full"), err=True)


@ledger_app.callback(invoke_without_command=True)
def ledger(
    context: typer.Context,
    site: Site = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the statement to stdout as JSON.")] = False,
) -> None:
    """Show what was spent of the site's privacy budget, on what, and what is left.

    Example: lemof-client --site hospital_a ledger
    """
    from client.budget.ledger import read_ledger
    from client.budget.statement import rows_of, statement
    from client.budget.tie import stated

    if context.invoked_subcommand is not None:
        return
    privacy, cohort = _counted(context)
    found = statement(read_ledger(privacy.ledger, cohort), privacy.budget)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    header, *rows = rows_of(found)
    table = Table(*header, box=None)
    for row in rows:
        table.add_row(*row)
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    console.print(table)
    for study in found["studies"]:
        console.print(f"{study['name']} ({study['study'][:12]}): epsilon {study['epsilon']:.3f}, {study['last'][:10]}")
    console.print(
        f"Spent: epsilon {found['epsilon']:.3f} of {privacy.epsilon:g} at delta {privacy.delta:g}, in "
        f"{found['num_answers']} answers. It is the largest column: each patient is in one of them; {stated(cohort)}."
    )


@ledger_app.command(name="verify")
def verify_ledger(
    context: typer.Context,
    site: Site = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result to stdout as JSON.")] = False,
) -> None:
    """Check that no line of the ledger was changed or cut, and that every epsilon in it follows from the charges.

    Example: lemof-client --site hospital_a ledger verify
    """
    from client.budget.ledger import read_ledger
    from client.budget.statement import verify
    from client.budget.tie import stated

    privacy, cohort = _counted(context)
    entries = read_ledger(privacy.ledger, cohort)
    epsilon = verify(entries)
    if as_json:
        typer.echo(json.dumps({"holds": True, "num_answers": len(entries), "epsilon": epsilon}, indent=2))
    else:
        chain = f"{len(entries)} answers in an unbroken chain, epsilon {epsilon:.6f} from all charges"
        typer.echo(f"ok: {chain}; {stated(cohort)}", err=True)


@told_app.callback(invoke_without_command=True)
def told(
    context: typer.Context,
    site: Site = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the list to stdout as JSON.")] = False,
) -> None:
    """List the studies that this hospital has told of its patients in, with stages and sizes, runs and permissions.

    Example: lemof-client --site hospital_a told
    """
    from client.checks.told import list_of, rows_of

    if context.invoked_subcommand is not None:
        return
    found = list_of(load_site(_site_file(context)))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table("study", "stage", "groups", "patients", "stays", box=None)
    for row in rows_of(found):
        table.add_row(*row)
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    console.print(table)
    for event in found["events"]:
        console.print(event)


@told_app.command(name="allow")
def allow_told(
    context: typer.Context,
    site: Site = "",
    plan: Plan = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Let a plan through once that is refused for what was told before. Shows first how few patients it is about.

    Example: lemof-client --site hospital_a told allow --plan plan.yaml
    """
    from client.checks.told import told_of

    mine, study = load_site(_site_file(context)), load_study(plan)
    memory = told_of(mine, study)
    verdict = memory.verdict()
    for one in verdict.problems:
        typer.echo(one.found, err=True)
    if not verdict.problems:
        typer.echo(f"Nothing stands against study {study.name} (plan {study.digest[:12]}).", err=True)
    elif num := memory.num_allowed():
        typer.echo(f"It is allowed already: {num} permission(s) that nothing has used.", err=True)
    elif yes or typer.confirm(f"Let study {study.name} (plan {study.digest[:12]}) through once?", err=True):
        memory.allow(verdict)
    else:
        typer.echo("Nothing was changed.", err=True)
        raise typer.Exit(ConfigError.exit_status)


def _counted(context: typer.Context) -> tuple[Privacy, Path]:
    """The privacy section of the site file, and the cohort that the ledger counts."""
    path = _site_file(context)
    site = load_site(path)
    privacy = site.privacy
    if privacy is None:
        raise ConfigError(
            rule="privacy must be in the site file for a ledger",
            got=f"none from {path.name}",
            fix="Without it nothing is charged; to set a budget: privacy: {epsilon: 8, delta: 1.0e-5}",
        )
    return privacy, site.prepare.output


def _site_option(context: typer.Context) -> str:
    """What was given as --site, before the command or after it.

    Raises:
        UsageError: both were, and name two files.
    """
    place: click.Context | None = context
    given: list[str] = []
    while place is not None:
        given += [place.params["site"]] if place.params.get("site") else []
        place = place.parent
    if len({find_site_file(name).resolve() for name in given} if len(set(given)) > 1 else given[:1]) > 1:
        raise click.UsageError(f"--site must name one site file, got {given[-1]!r} and {given[0]!r}.", context)
    return given[0] if given else ""


def _site_file(context: typer.Context) -> Path:
    """The site file; --site is asked for here, so that ``COMMAND --help`` works without it."""
    option = _site_option(context)
    if not option:
        raise click.UsageError("--site must name a site file. Example: lemof-client --site hospital_a", context)
    return find_site_file(option)
