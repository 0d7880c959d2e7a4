"""``lemof-server``: results to stdout, text to stderr, exit statuses by kind of error."""

import json
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
        (["report", "nowhere"], 4, "must hold plan.yaml"),
        (["runs", "nowhere"], 3, "DIR must be a folder"),
        (["verify", "nowhere"], 4, "must hold model/card.json"),
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


@pytest.mark.parametrize("command", ["report", "runs", "verify"])
def test_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([command, "--help"]) == 0
    assert f"Example: lemof-server {command} runs/" in capsys.readouterr().out
