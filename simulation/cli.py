"""``lemof-sim``: everything that runs on one machine. Results go to stdout, text to stderr.

Exit statuses: 0 done, 1 our bug, 2 usage, the ``exit_status`` of a ``LemofError``, 130 after Ctrl-C.
"""

import dataclasses
import glob
import logging
import math
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import typer
from rich.console import Console
from typer.core import TyperCommand

from protocol.command_line import run_command
from server.report import words
from server.report.run_files import full_of
from simulation.site_file import By

log = logging.getLogger("lemof")
app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)

SITES = "--sites"
INTERRUPTED = 130


class ManySites(TyperCommand):
    """A command whose ``--sites`` takes all the paths that a shell makes of a pattern."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line."""
        return super().parse_args(ctx, each_with_its_option(args))


def each_with_its_option(arguments: list[str]) -> list[str]:
    """``--sites`` before each of the paths that follow it.

    Example:
        >>> each_with_its_option(["--sites", "a", "b", "--out", "c"])
        ['--sites', 'a', '--sites', 'b', '--out', 'c']
    """
    spread: list[str] = []
    option, num_values = "", 0
    for argument in arguments:
        if argument.startswith("-"):
            option, sign, _ = argument.partition("=")
            num_values = 1 if sign else 0
        else:
            num_values += 1
            if option == SITES and num_values > 1:
                spread.append(SITES)
        spread.append(argument)
    return spread


def main() -> None:
    """Run ``lemof-sim`` and end the process with its exit status."""
    status = command(sys.argv[1:])
    if status == INTERRUPTED:  # threads of Flower and Ray may wait for ever for hospitals that are gone
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def command(arguments: list[str]) -> int:
    """Run one command line; the exit status."""
    return run_command(app, "lemof-sim", arguments)


def _print_version(is_asked: bool) -> None:
    """Answer -V."""
    if is_asked:
        typer.echo(f"lemof-sim {version('lemof')}")
        raise typer.Exit


@app.callback()
def common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more; show the traceback of a bug.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """LeMoF on one machine: generated hospitals, splits of a real MIMIC-IV, whole studies.

    First synth or split, then lemof-client prepare for each hospital, then run.

    Example: lemof-sim synth hospitals --sites 4 --stays 400
    """
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    log.setLevel(logging.DEBUG if verbose else logging.INFO)


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="New folder for the hospitals and truth.json.")],
    sites: Annotated[int, typer.Option(min=1, max=26, help="Hospitals; the last of several has no ECG.")] = 4,
    stays: Annotated[int, typer.Option(min=1, max=100_000, help="ICU stays per hospital.")] = 1500,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 7,
    standard: Annotated[bool, typer.Option("--standard", help="The standard benchmark: 4 x 1500, seed 7.")] = False,
    control: Annotated[
        Literal["positive", "no-ecg-signal"] | None,
        typer.Option(help="positive: ECG and EHR together tell much; no-ecg-signal: the ECG tells nothing."),
    ] = None,
    turned: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=FACTOR",
            help="Factor on the difficulty or on a kind of evidence, such as combined=2; 0 is none.",
        ),
    ] = None,
) -> None:
    """Generate hospitals in MIMIC-IV and MIMIC-IV-ECG layout, with a known best AUROC.

    Example: lemof-sim synth hospitals --sites 4 --stays 1500 --seed 7 --set combined=2 --set difficulty=0.5
    """
    from simulation.synthetic.generate import generate
    from simulation.synthetic.process import CONTROLS, Process

    if standard and ((sites, stays, seed) != (4, 1500, 7) or control or turned):
        raise click.UsageError("--standard means --sites 4 --stays 1500 --seed 7 alone. Leave it or the others out.")
    factors: dict[str, Any] = (CONTROLS[control] if control else {}) | _factors(turned or [])
    from simulation.generated import ceiling_of

    process = dataclasses.replace(Process(), **factors)
    with _left_behind(out):
        generate(out, num_sites=sites, num_stays=stays, seed=seed, process=process)
    typer.echo(words.generated(ceiling_of(out)), err=True)
    _print_next(out)


def _factors(settings: list[str]) -> dict[str, float]:
    """What ``--set`` says, by name."""
    from simulation.synthetic.process import TURNABLE

    factors = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        try:
            factors[name] = float(text)
        except ValueError:
            factors[name] = math.nan
        if name not in TURNABLE or not 0 <= factors[name] < math.inf:
            names = ", ".join(TURNABLE)
            raise click.UsageError(f"--set must be NAME=FACTOR, 0 or more, NAME one of {names}; got {setting!r}.")
    return factors


@app.command()
def split(
    out: Annotated[Path, typer.Argument(help="New folder for the hospitals and split.json.")],
    mimic: Annotated[Path, typer.Option(help="MIMIC-IV: the folder that holds hosp and icu.")],
    by: Annotated[
        By,
        typer.Option(
            help="What decides where a patient goes: unit or year of the first stay, long stays unevenly, chance."
        ),
    ],
    ecg: Annotated[
        Path | None, typer.Option(help="MIMIC-IV-ECG: the folder that holds record_list.csv; without it, no ECGs.")
    ] = None,
    sites: Annotated[int, typer.Option(min=1, help="Number of hospitals.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same split.")] = 7,
    alpha: Annotated[float, typer.Option(min=0.01, help="With --by dirichlet: smaller is more uneven.")] = 0.5,
) -> None:
    """Cut one MIMIC-IV into hospitals; each patient goes to one of them.

    Example: lemof-sim split --mimic mimiciv/3.1 --ecg mimic-iv-ecg/1.0 hospitals --sites 4 --by careunit
    """
    from simulation.generated import is_marked, mark
    from simulation.split import split as split_mimic

    _require_roots(mimic, ecg)
    with _left_behind(out):
        split_mimic(mimic, ecg, out, num_sites=sites, by=by, seed=seed, alpha=alpha)
    for site_file in out.glob("*/site.yaml") if is_marked(mimic) else ():
        mark(site_file.parent)
    _print_next(out)


def _require_roots(mimic: Path, ecg: Path | None) -> None:
    """Refuse folders that are too deep or too high, before anything is read."""
    from client.layouts.mimic_iv.tables import refuse_other_tables
    from readers.tables.roots import refuse_other_record_list

    refuse_other_tables(mimic, "--mimic")
    if ecg is not None:
        refuse_other_record_list(ecg, "record_list.csv", "--ecg")


@contextmanager
def _left_behind(out: Path) -> Iterator[None]:
    """After Ctrl-C, say that ``out`` is not whole."""
    was_there = out.is_dir() and any(out.iterdir())
    try:
        yield
    except KeyboardInterrupt:
        if not was_there and out.is_dir():
            typer.echo(f"stopped: {out} is not whole. Remove it, then run the same command again.", err=True)
        raise


@app.command(cls=ManySites)
def run(
    sites: Annotated[
        list[str], typer.Option(metavar="SITE.yaml...", help="Site files of prepared hospitals: paths, or patterns.")
    ],
    plan: Annotated[
        Path, typer.Option(metavar="PLAN", help="Study plan: a path, or NAME for site_configs/plans/NAME.yaml.")
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Run folder; new, or with --resume one that was stopped.")],
    engine: Annotated[
        Literal["local", "flower"], typer.Option(help="Our processes, or Flower's simulation.")
    ] = "local",
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last finished round.")] = False,
    attendance: Annotated[
        Path | None, typer.Option(help="rounds.csv of an earlier run: who was missing there is missing here.")
    ] = None,
) -> None:
    """Run the whole study on one machine, over prepared hospitals.

    Example: lemof-sim run --sites hospitals/*/site.yaml --plan quick --out runs/first
    """
    if not log.isEnabledFor(logging.DEBUG):
        log.setLevel(logging.WARNING)  # rounds are shown
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    site_files = _site_files(sites)
    try:
        from simulation.generated import tell
        from simulation.run import run as run_study

        folder = run_study(site_files, plan, out, engine, resume, attendance, console)
    except KeyboardInterrupt:
        typer.echo(_how_to_go_on(out, _again(sites, plan, out, engine, attendance)), err=True)
        raise
    note = tell(site_files, folder)
    full = full_of(folder)
    typer.echo(words.performance(full), err=True)
    if note is not None:
        typer.echo(words.generated(note["ceiling"], num_stays=full["n"] if full else 0), err=True)
    typer.echo(f"Report: {folder / 'report.html'}", err=True)


def _again(sites: list[str], plan: Path, out: Path, engine: str, attendance: Path | None) -> str:
    """The command that goes on with a run."""
    command = ["lemof-sim", "run", SITES, *sites, "--plan", str(plan), "--out", str(out)]
    command += ["--engine", engine] if engine != "local" else []
    command += ["--attendance", str(attendance)] if attendance else []
    return shlex.join([*command, "--resume"])


def _how_to_go_on(out: Path, command: str) -> str:
    """What Ctrl-C leaves of a run, and how it goes on."""
    num_rounds = len(list((out / "state").glob("*.safetensors")))
    if not num_rounds:
        return f"stopped before a round was finished. To begin again: {command}"
    return f"stopped: {words.count(num_rounds, 'finished round')} kept in {out}. To go on: {command}"


def _site_files(patterns: list[str]) -> list[Path]:
    """The site files that ``--sites`` means, by name and each once; a pattern must match something."""
    found: set[Path] = set()
    for pattern in patterns:
        matches = [pattern] if Path(pattern).exists() else glob.glob(pattern, recursive=True)
        if not matches:
            raise click.UsageError(f"--sites must match site files, got {pattern!r}, which matches none.")
        for path in map(Path, matches):
            if path.is_dir() and not (path / "site.yaml").is_file():
                raise click.UsageError(f"--sites must name site files, got the folder {path}. Say {path}/*/site.yaml.")
            found.add(path / "site.yaml" if path.is_dir() else path)
    return sorted(found)


def _print_next(out: Path) -> None:
    """Say what was written, and how to go on."""
    site_files = sorted(out.glob("*/site.yaml"))
    names = ", ".join(path.parent.name for path in site_files)
    typer.echo(f"{len(site_files)} hospitals in {out}: {names}", err=True)
    typer.echo(f"Next, for each of them: lemof-client --site {shlex.quote(str(site_files[0]))} prepare", err=True)


if __name__ == "__main__":
    main()
