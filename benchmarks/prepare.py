"""How fast ``prepare`` is at MIMIC's shape, how much memory it takes, and what it is faster than.

    python benchmarks/prepare.py --json FILE [--rows N] [--ecgs N] [--repeat N]

The input is made first (``mimic_shaped.py``): 20 million chart rows as csv.gz and as bare csv, 2,000 linked ECGs. Then:

1. The commands as a hospital types them: ``check``, ``prepare``, and ``prepare`` again with nothing changed.
2. The chart pass that ``prepare`` makes, with its quality counts, from csv.gz: against chunked pandas from the same
   file and polars's own scan of the bare csv (``chart_rivals.py``), and against itself on half of the rows. In turn,
   each in a process of its own, --repeat times. A ratio is the median of the rounds' ratios: a machine that runs a
   third slower for a minute then slows both sides of one. Of memory the most counts. All must agree.
3. ECG ingest on one core: records into ``ecg.npy``, against a loop of ``wfdb.rdsamp`` and ``resample_poly``
   (``ecg_ingest.py``).
4. A random training batch of 64 ECGs, as training reads it.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import chart_rivals
import numpy as np
import polars as pl
from ecg_ingest import Ingest, compare_ingest
from mimic_shaped import Shaped, Sizes, write_hospital
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rows import Row, finish

from client.layouts.mimic_iv.layout import MIMIC_IV
from client.prepare.first_day import first_days
from client.prepare.measurements import read_measurements
from client.prepare.stays import StayTables, select_stays, with_courses, with_left_out
from client.site import SiteConfig, load_site
from lemof_model.concepts import VITALS
from lemof_model.study import CohortSpec

ROOT = Path(__file__).parents[1]
SPEC = CohortSpec()
GIB = 2**30
BATCH = 64
CHECK = ["check", "--no-server"]

Table = NDArray[np.float32]


class Timed(NamedTuple):
    """Wall-clock and processor seconds, the greatest memory of the process, and the features of the first day."""

    seconds: float
    cpu_seconds: float
    peak_gib: float
    features_NF: Table


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process: its memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def chart_pass(how: str, site_file: Path, table: Path, last_stay: int | None) -> Timed:
    """One way to the features of chartevents."""
    site = load_site(site_file)
    tables = {**site.data.ehr.tables, "chartevents": table}
    data = site.data.model_copy(update={"ehr": site.data.ehr.model_copy(update={"tables": tables})})
    site = site.model_copy(update={"data": data})
    stay_tables = with_courses(MIMIC_IV.stays(site), SPEC)
    stays, _ = select_stays(stay_tables, SPEC)
    if last_stay is not None:
        stays = stays.filter(pl.col("stay_id") <= last_stay)
    start, cpu_start = time.perf_counter(), time.process_time()
    if how == "ours":
        features_NF = ours(site, stays, stay_tables)
    else:
        rival = getattr(chart_rivals, f"with_{how}")
        features_NF = chart_rivals.as_features(rival(table, stays, SPEC.window_hours), stays.height)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return Timed(seconds, cpu_seconds, peak_gib(), features_NF)


def ours(site: SiteConfig, stays: pl.DataFrame, stay_tables: StayTables) -> Table:
    """What ``prepare`` does: one pass with all counts, then the first days, the hourly grid included."""
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "vitals.parquet"
        (charts, *_), everyone = MIMIC_IV.events(site.data.ehr), with_left_out(stays, stay_tables)
        read_measurements(charts, everyone, events, site.prepare.max_bad_fraction, window_hours=SPEC.window_hours)
        known = frozenset(concept.name for concept in VITALS)
        days = list(first_days([events], known, stays.height, SPEC.window_hours))
    columns = sum(len(concept.aggregates) for concept in VITALS)
    return np.vstack([day.features for day in days])[:, :columns]


def peak_gib() -> float:
    """The greatest resident memory of this process so far. It begins with that of the parent, which is kept small."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def chart_rows(made: Shaped, num_rounds: int) -> Iterator[Row]:
    """The chart pass against pandas, against polars and against half of the rows."""
    gz = made.site_file.parent / "icu" / "chartevents.csv.gz"
    ways: dict[str, tuple[str, Path, int | None]] = {
        "polars": ("polars", made.bare_csv, None),
        "ours": ("ours", gz, None),
        "half": ("ours", made.half_gz, made.half_last_stay),
        "pandas": ("pandas", gz, None),
    }
    runs: dict[str, list[Timed]] = {name: [] for name in ways}
    for _ in shown(range(num_rounds), "chart pass", num_rounds):
        for name, (how, table, last_stay) in ways.items():
            runs[name].append(in_a_process(chart_pass, how, made.site_file, table, last_stay))
    peak = {name: max(run.peak_gib for run in found) for name, found in runs.items()}
    for rival in ("pandas", "polars"):
        np.testing.assert_allclose(runs["ours"][0].features_NF, runs[rival][0].features_NF, rtol=1e-6, atol=1e-6)
    ours = statistics.median(run.seconds for run in runs["ours"])
    slower, against = {}, {}
    for name in ("half", "polars", "pandas"):
        ratios = [run.seconds / its.seconds for run, its in zip(runs["ours"], runs[name], strict=True)]
        seconds, cpu = (statistics.median(column) for column in list(zip(*runs[name], strict=True))[:2])
        slower[name] = statistics.median(ratios)
        against[name] = (
            f"{seconds:.2f} s, processor {cpu:.2f} s; ours to it in {num_rounds} rounds: "
            f"{min(ratios):.2f} to {max(ratios):.2f}"
        )
    yield _row("chart pass, csv.gz", f"chunked pandas: {against['pandas']}",
               ours, "s", 1 / slower["pandas"], ">= 3", lambda ratio: ratio >= 3)  # fmt: skip
    yield _row("chart pass, csv.gz", f"polars, bare csv: {against['polars']}",
               ours, "s", slower["polars"], "<= 1.5", lambda ratio: ratio <= 1.5)  # fmt: skip
    yield _row("chart pass, peak memory", f"polars {peak['polars']:.2f}, pandas {peak['pandas']:.2f} GiB",
               peak["ours"], "GiB", peak["ours"], "< 1", lambda ratio: ratio < 1)  # fmt: skip
    yield _row("chart pass, twice the rows", f"half: {against['half']}", ours, "s",
               slower["half"], "<= 2.3", lambda ratio: ratio <= 2.3)  # fmt: skip
    yield _row("chart pass, memory of twice the rows", f"half: {peak['half']:.2f} GiB", peak["ours"], "GiB",
               peak["ours"] / peak["half"], "<= 1.25", lambda ratio: ratio <= 1.25)  # fmt: skip


def _row(
    what: str, against: str, value: float, unit: str, ratio: float, goal: str, holds: Callable[[float], bool]
) -> Row:
    """A row with a goal for its ratio."""
    return Row(what, against, value, unit, ratio, goal, holds(ratio))


class Ran(NamedTuple):
    """A command line's wall-clock and processor seconds, greatest memory and exit status."""

    seconds: float
    cpu_seconds: float
    peak_gib: float
    status: int


def run_client(site_file: Path, *arguments: str) -> Ran:
    """Run ``lemof-client`` as a hospital does; what it prints is shown only if it fails."""
    program = "import sys; from client.cli import run; sys.exit(run(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "--site", str(site_file), *arguments]
    with tempfile.TemporaryFile() as printed:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=printed, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            printed.seek(0)
            sys.stderr.write(printed.read().decode(errors="replace"))
    return Ran(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / GIB, process.returncode)


def command_rows(made: Shaped, sizes: Sizes) -> Iterator[Row]:
    """The commands of a hospital, from the shell."""
    first, again, check = (run_client(made.site_file, *command) for command in (["prepare"], ["prepare"], CHECK))
    what = f"{sizes.num_rows:,} chart rows, {sizes.num_ecgs:,} ECGs"
    cpu = [f"processor {ran.cpu_seconds:.1f} s" for ran in (first, again, check)]
    yield Row("prepare, all of it", f"{what} ({cpu[0]})", first.seconds, "s", None, "exit 0", first.status == 0)
    yield _row("prepare, peak memory", what, first.peak_gib, "GiB", first.peak_gib, "< 1", lambda ratio: ratio < 1)
    yield Row("prepare, nothing changed", f"first run: {first.seconds:.1f} s ({cpu[1]})", again.seconds, "s",
              first.seconds / again.seconds, "< 2 s", again.seconds < 2 and again.status == 0)  # fmt: skip
    is_quick = check.seconds < 10 and check.status == 0
    yield Row("check", f"{what} ({cpu[2]})", check.seconds, "s", None, "< 10 s", is_quick)


def ecg_rows(made: Shaped) -> Iterator[Row]:
    """ECG ingest on one core against wfdb and scipy; what ours must not let through."""
    ingest: Ingest = in_a_process(compare_ingest, made.site_file)
    against = f"wfdb.rdsamp + resample_poly: {ingest.reference:,.0f}/s"
    for name, rate, least in (("", ingest.ours, 1.4), (", all through wfdb", ingest.through_wfdb, 1.0)):
        ratio = rate / ingest.reference
        yield Row(f"ECG ingest, one core{name}", against, rate, "records/s", ratio, f">= {least}", ratio >= least)
    difference = ingest.greatest_difference
    yield Row("ECG ingest, greatest difference", f"{ingest.num_compared:,} records through wfdb and scipy",
              difference, "microvolts", None, "<= 1", difference <= 1)  # fmt: skip
    all_rejected = ingest.num_flipped_rejected == ingest.num_flipped
    yield Row("ECG ingest, records with one bit flipped", f"{ingest.num_flipped} flipped",
              ingest.num_flipped_rejected, "rejected", None, "all", all_rejected)  # fmt: skip


def batch_milliseconds(site_file: Path) -> float:
    """The median time of a random batch of ECGs from a warm cohort, in the dtype and unit of training."""
    import torch

    from client.cohort.hospital import open_hospital
    from lemof_model.stays import ecg_batches
    from protocol.plan import load_plan

    torch.set_num_threads(1)
    hospital = open_hospital(load_site(site_file), load_plan(ROOT / "site_configs" / "plans" / "default.yaml"))
    batch_of, rng = ecg_batches(hospital.stays), np.random.default_rng(0)
    with_ecg = np.flatnonzero(hospital.stays.has_ecg_N)
    np.asarray(hospital.stays.ecg_MCT).sum()
    seconds = []
    for _ in range(500):
        rows = rng.choice(with_ecg, min(BATCH, len(with_ecg)), replace=False)
        start = time.perf_counter()
        batch_of(rows)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def shown(steps: Any, what: str, total: int) -> Any:
    """The steps, with a progress bar in a terminal."""
    console = Console(stderr=True)
    return track(steps, what, total, console=console, transient=True, disable=not console.is_terminal)


def measure(folder: Path, sizes: Sizes, num_rounds: int) -> list[Row]:
    """Make the input in ``folder``, and every row."""
    start = time.perf_counter()
    made: Shaped = in_a_process(write_hospital, folder, sizes)
    seconds = time.perf_counter() - start
    rows = [Row("making the input", f"{sizes.num_rows:,} chart rows, {sizes.num_ecgs:,} ECGs", seconds, "s")]
    rows += command_rows(made, sizes)
    rows += chart_rows(made, num_rounds)
    rows += ecg_rows(made)
    milliseconds = in_a_process(batch_milliseconds, made.site_file)
    rows.append(Row(f"batch of {BATCH} ECGs, warm", "", milliseconds, "ms", None, "< 0.5 ms", milliseconds < 0.5))
    return rows


def main() -> int:
    """Measure what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    parser.add_argument("--rows", type=int, default=20_000_000, metavar="N", help="chart rows; default: 20 million")
    parser.add_argument("--ecgs", type=int, default=2_000, metavar="N", help="linked ECGs; default: 2000")
    parser.add_argument("--repeat", type=int, default=7, metavar="N", help="runs of each chart pass; default: 7")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder) / "hospital", Sizes(chosen.rows, chosen.ecgs), chosen.repeat)
    return finish(rows, chosen.json)


if __name__ == "__main__":
    raise SystemExit(main())
