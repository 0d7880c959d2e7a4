"""What is seen of the steps of a preparation at a terminal."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from client.prepare import steps
from client.prepare.steps import Steps


def test_the_bar_of_ecgs_tells_rate_time_left_and_what_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    clock = iter([0.0, 0.0, 10.0])
    monkeypatch.setattr(steps, "time", type("Clock", (), {"monotonic": staticmethod(lambda: next(clock))}))
    console = Console(file=out, force_terminal=True, width=120, color_system=None)
    with Steps(tmp_path, console).records(3, "ECGs", 1000) as (on_progress, on_skipped):
        on_progress(500)  # of a run that was stopped: no part of the rate
        on_skipped(2)
        on_skipped(1)
        on_progress(250)
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", out.getvalue())
    (line,) = {line for line in shown.splitlines() if "750/1000" in line}
    assert re.search(r"\[3/4\] ECGs .*75% .*750/1000 25/s {2}skipped 3 [-\d]+:", line)
