"""``lemof-server``: results to stdout, text to stderr, exit statuses by kind of error."""

import json
import re
import shutil
from pathlib import Path

import pytest

from server import cli


def test_report_is_written_anew(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = finished_run / "report.html"
    expected = page.read_text()
    page.unlink()
    assert cli.run(["report", str(finished_run)]) == 0
    assert capsys.readouterr().out.strip() == str(page)
    assert page.read_text() == expected


def test_runs_lists_finished_and_stopped_ones(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished_run.parent
    stopped = Path(shutil.copytree(finished_run, folder / "second"))
    (stopped / "metrics.json").unlink()
    (folder / "notes").mkdir()
    assert cli.run(["runs", str(folder), "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    metrics = json.loads((finished_run / "metrics.json").read_text())
    assert (first["status"], first["sites"]) == ("finished", 2)
    assert first["auroc"] == metrics["variants"]["full"]["all"]["pooled"]["auroc"]
    assert first["plan_digest"] == json.loads((finished_run / "model/card.json").read_text())["plan_digest"]
    assert second["status"].startswith("stopped after 00")
    assert second["auroc"] is None
    assert cli.run(["runs", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "notes" not in shown
    assert f"{first['auroc']:.3f}" in shown


def test_verify_tells_changed_weights(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["verify", str(finished_run), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out).values()) == {True}
    weights = finished_run / "model/lemof.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert cli.run(["verify", str(finished_run)]) == 4
    shown = capsys.readouterr()
    assert "FAIL  model/lemof.safetensors" in shown.out
    assert shown.out.count("ok  ") == 2
    assert "1 that fail" in shown.err


def test_verify_tells_another_plan(finished_run: Path) -> None:
    plan = finished_run / "plan.yaml"
    plan.write_text(plan.read_text().replace("seed: 7", "seed: 8"))
    assert cli.run(["verify", str(finished_run)]) == 4


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["report", "nowhere"], 4, "with plan.yaml and state/, got no such folder: nowhere. Name a run."),
        (["report", "."], 4, "with plan.yaml and state/, got one without a run: .. Name a run."),
        (["runs", "nowhere"], 3, "DIR must be a folder"),
        (["verify", "nowhere"], 4, "RUN must be the folder of a run"),
        (["report"], 2, "Missing argument"),
        (["up"], 2, "No such command"),
    ],
)
def test_errors_end_with_their_status(
    arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.run(arguments) == status
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("command", "argument"), [("report", "RUN"), ("runs", "DIR"), ("verify", "RUN")])
def test_help_shows_an_example_and_says_what_the_argument_is(
    command: str, argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Example: lemof-server {command} runs/" in shown
    assert re.search(rf"{argument} +(The folder of a run|A folder of runs)", shown)


def test_one_suggestion_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["repport"]) == 2
    assert capsys.readouterr().err.count("Did you mean 'report'?") == 1


@pytest.mark.parametrize("what", [".", "state", "report.html", "model/card.json"])
def test_a_run_is_known_by_itself_and_by_what_is_in_it(
    what: str, finished_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (finished_run / what, Path(what)):
        monkeypatch.chdir(finished_run)
        assert cli.run(["runs", str(path), "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert (found["run"], found["status"]) == ("first", "finished")
        assert cli.run(["verify", str(path)]) == cli.run(["report", str(path)]) == 0
        capsys.readouterr()


def test_a_folder_of_one_run_means_that_run_and_of_several_each_is_named(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished_run.parent
    assert cli.run(["verify", str(folder)]) == cli.run(["report", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(finished_run / "report.html")
    assert cli.run(["runs", str(folder.parent), "--json"]) == 0
    assert [one["run"] for one in json.loads(capsys.readouterr().out)] == ["first"]
    second = shutil.copytree(finished_run, folder / "second")
    for command in ("report", "verify"):
        assert cli.run([command, str(folder)]) == 3
        told = capsys.readouterr().err
        assert f"RUN must be one run, got a folder of 2 runs: {folder}. Name one:" in told
        assert told.splitlines()[1:] == [f"  lemof-server {command} {run}" for run in (finished_run, second)]


def test_a_folder_without_runs_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["runs", str(tmp_path), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == []
    assert captured.err == f"no runs in {tmp_path}: a run is a folder with plan.yaml and state/\n"


def test_a_name_in_brackets_is_shown_as_it_is(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = finished_run / "plan.yaml"
    plan.write_text(plan.read_text().replace("name: tiny <study>", "name: '[red] [/] study'"))
    assert cli.run(["runs", str(finished_run)]) == 0
    assert "[red] [/] study" in capsys.readouterr().out
