"""The report of a run: what its files say, put into the template."""

from pathlib import Path

from protocol.pages import render
from server.report import conduct, results, words
from server.report.run_files import RunFiles, read_run
from server.report.template import TEMPLATE


def write_report(run: Path) -> Path:
    """Write ``report.html`` from the files of a run folder.

    Raises:
        DataError: the run is not finished, or a file of it is damaged.
    """
    path = run / "report.html"
    path.write_text(page(read_run(run)), encoding="utf-8")
    return path


def page(run: RunFiles) -> str:
    """The whole page. Equal runs give equal pages but for the footer."""
    return render(
        TEMPLATE,
        title=f"{run.study.name}: {words.question(run.study.target)}",
        words=words,
        answer=results.answer(run),
        asked=conduct.asked(run),
        variants=results.variants(run),
        differences=results.differences(run),
        hospitals=results.hospitals(run),
        levels=conduct.levels(run),
        subgroups=results.subgroups(run),
        training=conduct.training(run),
        rounds=conduct.rounds(run),
        privacy=conduct.privacy(run),
        footer=conduct.footer(run),
    )
