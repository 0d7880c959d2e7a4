"""The steps of a preparation: what one has finished is on the disk before the next begins, so a killed run goes on.

A step writes its files into the state folder (or beside it, into the unfinished cohort) and then its facts as JSON;
only with the facts does it count as finished. What the state was made from is in the key of ``cohort.replacing``.
"""

import json
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from protocol.disk import sync
from readers.tables.files import estimate_rows

NUM_STEPS = 4

Facts = dict[str, Any]
OnMore = Callable[[int], None]


class Steps:
    """Runs steps that are not finished yet, and tells what happens."""

    def __init__(self, state: Path, console: Console) -> None:
        self.state = state
        self._console = console

    def is_finished(self, name: str) -> bool:
        """Whether an earlier run has finished the step."""
        return (self.state / f"{name}.json").is_file()

    def run(self, name: str, make: Callable[[], Facts], *written: Path) -> Facts:
        """The facts of a step (JSON values): from the disk, or made now and put there, after the files it has
        ``written``."""
        marker = self.state / f"{name}.json"
        if not marker.is_file():
            facts = make()
            unfinished = marker.with_suffix(".new")
            unfinished.write_text(json.dumps(facts), encoding="utf-8")
            sync(*written, unfinished)
            unfinished.rename(marker)
            sync(self.state)
        return dict(json.loads(marker.read_text(encoding="utf-8")))

    def say(self, number: int, name: str, found: str, seconds: float | None = None) -> None:
        """One line for a step that is done; one without a time was done before."""
        took = "  done before" if seconds is None else f"{seconds:8.1f} s"
        self._console.print(f"[{number}/{NUM_STEPS}] {name:<16} {found:<44}{took}", markup=False, highlight=False)

    @contextmanager
    def table(self, number: int, name: str, path: Path) -> Iterator[OnMore]:
        """A bar while a table is read, with rows a second (how many there are is estimated); one line afterwards."""
        start, num_rows, lock = time.monotonic(), 0, threading.Lock()

        def rate() -> str:
            return f"{num_rows:,} rows  {num_rows / 1e6 / max(time.monotonic() - start, 1e-3):.1f} M rows/s"

        with self._bar(TextColumn("{task.fields[rate]}")) as progress:
            task = progress.add_task(f"[{number}/{NUM_STEPS}] {name}", total=estimate_rows(path), rate="")

            def on_rows(num_more: int) -> None:
                nonlocal num_rows
                with lock:  # called from several threads
                    num_rows += num_more
                    progress.update(task, advance=num_more, rate=rate())

            yield on_rows
        self.say(number, name, f"{rate()}  peak {_peak_gb():.1f} GB", time.monotonic() - start)

    @contextmanager
    def records(self, number: int, name: str, num_records: int) -> Iterator[tuple[OnMore, OnMore]]:
        """A bar by records while ECGs are read, with records a second and how many were skipped. The first number that
        is told is of an earlier run."""
        start, num_done, num_skipped = time.monotonic(), 0, 0
        num_before: int | None = None
        with self._bar(MofNCompleteColumn(), TextColumn("{task.fields[rate]}")) as progress:
            task = progress.add_task(f"[{number}/{NUM_STEPS}] {name}", total=num_records, rate="")

            def on_progress(num_more: int) -> None:
                nonlocal num_done, num_before
                num_done += num_more
                num_before = num_done if num_before is None else num_before
                rate = (num_done - num_before) / max(time.monotonic() - start, 1e-3)
                progress.update(task, advance=num_more, rate=f"{rate:,.0f}/s  skipped {num_skipped:,}")

            def on_skipped(num_more: int) -> None:
                nonlocal num_skipped
                num_skipped += num_more

            yield on_progress, on_skipped

    def _bar(self, *columns: TextColumn | MofNCompleteColumn) -> Progress:
        """A bar with time left; none when nobody watches."""
        return Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            *columns,
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )


def _peak_gb() -> float:
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
