"""``lemof-sim``: everything that runs on one machine. Results go to stdout, text to stderr.

Exit statuses: 0 done, 1 our bug, 2 usage, the ``exit_status`` of a ``LemofError``, 130 after Ctrl-C.
"""

import dataclasses
import glob
import logging
import math
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import typer

from server.command_line import run_command
from simulation.split import By
from simulation.split import split as split_mimic

log = logging.getLogger("lemof")
app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)


def main() -> None:
    """Run ``lemof-sim`` and end the process with its exit status."""
    sys.exit(command(sys.argv[1:]))


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
    """LeMoF on one machine: generated hospitals, splits of a real MIMIC-IV, whole studies."""
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
        typer.Option(help="Strong evidence in ECG and EHR together, or an ECG that tells nothing."),
    ] = None,
    turned: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=FACTOR", help="Turn difficulty or a kind of evidence; 0 is none."),
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
    process = dataclasses.replace(Process(), **factors)
    generate(out, num_sites=sites, num_stays=stays, seed=seed, process=process)
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
    by: Annotated[By, typer.Option(help="What decides where a patient goes.")],
    ecg: Annotated[Path | None, typer.Option(help="MIMIC-IV-ECG: the folder that holds record_list.csv.")] = None,
    sites: Annotated[int, typer.Option(min=1, help="Number of hospitals.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same split.")] = 7,
    alpha: Annotated[float, typer.Option(min=0.01, help="With dirichlet: smaller is more uneven.")] = 0.5,
) -> None:
    """Cut one MIMIC-IV into hospitals; each patient goes to one of them.

    Example: lemof-sim split --mimic mimiciv/3.1 --ecg mimic-iv-ecg/1.0 hospitals --sites 4 --by careunit
    """
    split_mimic(mimic, ecg, out, num_sites=sites, by=by, seed=seed, alpha=alpha)
    _print_next(out)


@app.command()
def run(
    sites: Annotated[list[str], typer.Option(help="Site file or quoted pattern; may be given again.")],
    plan: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Study plan.")],
    out: Annotated[Path, typer.Option(help="Run folder.")],
    engine: Annotated[Literal["local", "flower"], typer.Option(help="Our processes, or Flower's.")] = "local",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last finished round.")] = False,
    attendance: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="rounds.csv of a run to repeat.")
    ] = None,
) -> None:
    """Run the whole study on one machine, over prepared hospitals.

    Example: lemof-sim run --sites 'hospitals/*/site.yaml' --plan site_configs/plans/quick.yaml --out runs/first
    """
    from simulation.run import run as run_study

    folder = run_study(_site_files(sites), plan, out, engine, resume, attendance)
    typer.echo(f"run written to {folder}.  Open {folder / 'report.html'}", err=True)


def _site_files(patterns: list[str]) -> list[Path]:
    """The site files that ``--sites`` means, by name and each once; a pattern must match something."""
    found: set[Path] = set()
    for pattern in patterns:
        matches = {Path(name) for name in glob.glob(pattern, recursive=True)}
        if not matches:
            raise click.UsageError(f"--sites must match site files, got {pattern!r}, which matches none.")
        found |= matches
    return sorted(found)


def _print_next(out: Path) -> None:
    """Say what was written, and how to go on."""
    site_files = sorted(out.glob("*/site.yaml"))
    names = ", ".join(path.parent.name for path in site_files)
    typer.echo(f"{len(site_files)} hospitals in {out}: {names}", err=True)
    typer.echo(f"Next, for each of them: lemof-client --site {shlex.quote(str(site_files[0]))} prepare", err=True)


if __name__ == "__main__":
    main()
