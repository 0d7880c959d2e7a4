"""What people see while something long runs: a bar on a terminal, elsewhere a line for each step that is finished."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Shown:
    """Steps of something long, shown on a console; use it as a context.

    Args:
        unit: what a step is called.
        most: how many there are; ``is_bound`` where there may be fewer.
    """

    def __init__(self, console: Console, unit: str, most: int, *, is_bound: bool = False) -> None:
        self._console, self._unit, self._most = console, unit, most
        self._of = "of at most" if is_bound else "of"
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn(f"{unit} {{task.fields[number]}} {self._of} {{task.total}}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=most, number=0)
        self._began = time.monotonic()

    def __enter__(self) -> "Shown":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, number: int, doing: str) -> None:
        """A step begins; counted from 1."""
        self._began = time.monotonic()
        self._bar.update(self._task, description=doing, completed=number - 1, number=number)

    def end(self, number: int, done: str) -> None:
        """It is finished."""
        self._bar.update(self._task, completed=number, number=number)
        if not self._console.is_terminal:
            seconds = time.monotonic() - self._began
            of = f"{self._unit} {number:{len(str(self._most))}} {self._of} {self._most}"
            self._console.print(f"{of}  {done}  {seconds:5.1f} s", markup=False)
