"""``lemof-sim`` as it is typed: several paths after one option, what is told while a study runs and at its end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from protocol.method import times_asked
from protocol.plan import dump_plan
from simulation import cli
from simulation import run as run_module
from simulation.local_transport import LocalTransport
from tests.hospitals import write_hospital
from tests.studies import tiny_study


@pytest.fixture
def hospitals(tmp_path: Path) -> Path:
    """Two prepared hospitals and a plan."""
    write_hospital(tmp_path / "hospitals", "a", num_stays=90)
    write_hospital(tmp_path / "hospitals", "b", num_stays=80, first_id=1_000)
    (tmp_path / "plan.yaml").write_text(dump_plan(tiny_study()))
    return tmp_path / "hospitals"


@pytest.mark.parametrize(
    ("arguments", "spread"),
    [
        (["--sites", "a"], ["--sites", "a"]),
        (["--sites", "a", "b", "c"], ["--sites", "a", "--sites", "b", "--sites", "c"]),
        (["--out", "r", "--sites", "a", "b", "--resume"], ["--out", "r", "--sites", "a", "--sites", "b", "--resume"]),
        (["--sites=a", "b", "--plan", "p"], ["--sites=a", "--sites", "b", "--plan", "p"]),
        (["--sites", "a", "--sites", "b", "c"], ["--sites", "a", "--sites", "b", "--sites", "c"]),
        (["--plan", "p", "q"], ["--plan", "p", "q"]),
    ],
)
def test_several_paths_after_sites_are_all_sites(arguments: list[str], spread: list[str]) -> None:
    assert cli.each_with_its_option(arguments) == spread


def test_site_files_come_from_paths_and_patterns_each_once(hospitals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def note(sites: list[Path], *_: object) -> None:
        seen.append([path.parent.name for path in sites])
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "run", note)
    paths = [str(hospitals / name / "site.yaml") for name in "ab"]
    rest = ["--plan", "quick", "--out", str(hospitals / "run")]
    folders = [str(hospitals / name) for name in "ab"]
    for sites in (
        [*paths],
        folders,
        [paths[0], "--sites", paths[1]],
        [str(hospitals / "*/site.yaml")],
        [*paths, paths[0]],
    ):
        assert cli.command(["run", "--sites", *sites, *rest]) == 130
    assert cli.command(["run", *rest, "--sites", *paths]) == 130
    odd = write_hospital(hospitals, "odd [1]")
    assert cli.command(["run", "--sites", str(odd), *rest]) == 130
    assert seen == [["a", "b"]] * 6 + [["odd [1]"]]


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        ("nowhere/*", r"--sites must match site files, got 'nowhere/\*', which matches none\."),
        ("hospitals", r"--sites must name site files, got the folder hospitals\. Say hospitals/\*/site\.yaml\."),
    ],
)
def test_sites_that_are_no_site_files(
    sites: str, message: str, hospitals: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hospitals.parent)
    assert cli.command(["run", "--sites", sites, "--plan", "quick", "--out", "run"]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_an_attendance_that_is_none(hospitals: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = hospitals.parent / "plan.yaml"
    arguments = ["--sites", str(hospitals / "*/site.yaml"), "--plan", str(plan), "--attendance", str(plan)]
    assert cli.command(["run", *arguments, "--out", str(hospitals / "run")]) == 3
    assert "--attendance must be rounds.csv of a run, got another file" in capsys.readouterr().err


def test_a_run_tells_its_rounds_and_ends_with_auroc_and_report(
    hospitals: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = hospitals / "run"
    arguments = ["--sites", str(hospitals / "*/site.yaml"), "--plan", str(hospitals.parent / "plan.yaml")]
    assert cli.command(["run", *arguments, "--out", str(run)]) == 0
    *rounds, auroc, report = (line for line in capsys.readouterr().err.splitlines() if not line.startswith("few:"))
    most = sum(times_asked(tiny_study()).values())
    for number, line in enumerate(rounds, start=1):
        assert re.fullmatch(rf"round +{number} of at most {most}  [a-z ;-]+  2 of 2 hospitals +\d+\.\d s", line), line
    assert len(rounds) == len(list((run / "state").glob("*.safetensors"))) <= most
    m = json.loads((run / "metrics.json").read_text())["variants"]["full"]["all"]["pooled"]
    assert auroc.startswith(f"Over {m['n']} held-out stays ({m['n_positive']} long), the full model ranks")
    assert f"an AUROC of {m['auroc']:.3f} (95 % interval {m['auroc_ci'][0]:.3f} to {m['auroc_ci'][1]:.3f})" in auroc
    assert report == f"Report: {run / 'report.html'}"


def test_ctrl_c_says_what_is_kept_and_the_command_that_goes_on(
    hospitals: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plan = hospitals / "run", hospitals.parent / "plan.yaml"
    arguments = ["run", "--sites", str(hospitals / "*/site.yaml"), "--plan", str(plan), "--out", str(run)]
    ask = LocalTransport.ask

    def stop_at_3(self: LocalTransport, stage: str, requests: Any) -> Any:
        if next(iter(requests.values())).round == 3:
            raise KeyboardInterrupt
        return ask(self, stage, requests)

    monkeypatch.setattr(LocalTransport, "ask", stop_at_3)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert cli.command(arguments) == 130
    told = capsys.readouterr().err.splitlines()[-1]
    goes_on = f"lemof-sim run --sites '{hospitals}/*/site.yaml' --plan {plan} --out {run} --resume"
    assert told == f"stopped: 2 finished rounds kept in {run}. To go on: {goes_on}"
    monkeypatch.setattr(LocalTransport, "ask", ask)
    assert cli.command([*arguments, "--resume"]) == 0
    assert capsys.readouterr().err.startswith("round  3 of at most")


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_ends_every_process_in_silence(hospitals: Path) -> None:
    command = [sys.executable, "-m", "simulation.cli", "run", "--sites", str(hospitals / "*/site.yaml"),
               "--plan", "default", "--out", str(hospitals / "run")]  # fmt: skip
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
        while not list((hospitals / "run/state").glob("0003-*")):
            assert process.poll() is None
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert re.search(r"stopped: \d+ finished rounds kept in .*\. To go on: lemof-sim run .* --resume\n", told)


@pytest.mark.slow
def test_ctrl_c_in_synth_says_that_the_folder_is_not_whole(tmp_path: Path) -> None:
    out = tmp_path / "hospitals"
    command = [sys.executable, "-m", "simulation.cli", "synth", str(out), "--sites", "2", "--stays", "3000"]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
        while not out.exists():
            assert process.poll() is None
            time.sleep(0.1)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told == f"stopped: {out} is not whole. Remove it, then run the same command again.\n"


@pytest.mark.parametrize("command", ["synth", "split", "run"])
def test_help_shows_an_example_and_what_each_argument_is(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.command([command, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Example: lemof-sim {command} " in shown
    if command != "run":
        assert re.search(r"out PATH New folder for the hospitals and", shown)


def test_one_suggestion_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.command(["synthh"]) == 2
    assert capsys.readouterr().err.count("Did you mean 'synth'?") == 1


def test_generated_hospitals_say_so_first_and_with_their_ceiling(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "hospitals"
    assert cli.command(["synth", str(out), "--sites", "2", "--stays", "40", "--seed", "3"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("  ")[0] for line in lines[:3]] == ["step 1 of 3", "step 2 of 3", "step 3 of 3"]
    assert "hospital_a written: 40 stays" in lines[0]
    truth = json.loads((out / "truth.json").read_text())
    best = (
        f"{truth['all']['upper_bound']:.3f} over all stays and {truth['with_ecg']['upper_bound']:.3f} over stays with"
    )
    assert lines[3].startswith("These patients are generated: numbers say that the machinery works, and nothing about")
    assert f"No model can do better than an AUROC of {best}" in lines[3]
    assert all((folder / "generated.json").is_file() for folder in out.glob("hospital_*"))
    cut = tmp_path / "cut"
    source = ["--mimic", str(out / "hospital_a"), "--ecg", str(out / "hospital_a/ecg")]
    assert cli.command(["split", str(cut), *source, "--sites", "2", "--by", "random"]) == 0
    assert all((folder / "generated.json").is_file() for folder in cut.glob("site_*"))
