"""``lemof-client``: where text goes, and with which status each end ends."""

from pathlib import Path

import pytest

from client import cli
from client.prepare import prepare as prepare_module

SITE = "version: 1\nsite: {name: a}\ndata: {ehr: {root: raw}}\n"


@pytest.fixture
def site_file(tmp_path: Path) -> str:
    path = tmp_path / "site.yaml"
    path.write_text(SITE)
    return str(path)


@pytest.mark.parametrize("arguments", [["-h"], ["--help"], ["check", "-h"], ["prepare", "-h"]])
def test_help_shows_an_example(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == 0
    assert "Example: lemof-client --site hospital_a" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["prepare"], ["check"], ["--sight", "x"], ["prepare", "--plan"], ["prepare", "--workers", "-1"]]
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == 2
    assert capsys.readouterr().out == ""


def test_an_error_for_the_user_goes_to_stderr(site_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--site", "nowhere", "prepare"]) == 3
    assert capsys.readouterr().err.startswith("error: --site must name a site file, got 'nowhere'.")
    assert cli.run(["--site", site_file, "prepare"]) == 4
    captured = capsys.readouterr()
    assert captured.err.startswith("error: data.ehr.root must be a folder, got none at ")
    assert captured.out == ""
    (Path(site_file).parent / "raw").mkdir()
    assert cli.run(["--site", site_file, "prepare"]) == 4
    assert "error: hosp/patients must be a table, got no patients.csv, " in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "prepare", "dry-run", ""])
def test_an_unknown_layout_is_refused_by_every_command(
    command: str, site_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the same words, and before a hospital joins."""
    file = Path(site_file)
    file.write_text(SITE.replace("root: raw", "root: raw, layout: omop"))
    (file.parent / "cohort").mkdir()
    (file.parent / "cohort/manifest.json").write_text("{}")
    assert cli.run(["--site", site_file, *filter(None, [command])]) == 3
    told = capsys.readouterr().err
    rule = "data.ehr.layout must be one of mimic_iv, got 'omop'."
    fix = "Leave it out where the tables are as MIMIC-IV has them."
    if command == "check":
        assert rule in told and fix in told
    else:
        assert told == f"error: {rule} {fix}\n"


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (RuntimeError("secret 12345"), 1)])
def test_other_ends(
    site_file: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(prepare_module, "prepare", fail)
    assert cli.run(["--site", site_file, "prepare"]) == status
    captured = capsys.readouterr()
    assert "12345" not in captured.err
    assert "Traceback" not in captured.err
    assert ("this is a bug in lemof (RuntimeError)" in captured.err) == (status == 1)
    told = "stopped. What is finished is kept: the same command goes on from there.\n"
    assert (captured.err == told) == (status == 130)


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ([], {"force": False, "workers": None}),
        (["--force", "--workers", "3"], {"force": True, "workers": 3}),
    ],
)
def test_prepare_hands_its_options_on(
    site_file: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    given: dict[str, object],
) -> None:
    seen: dict[str, object] = {}

    def note(*_: object, **keywords: object) -> None:
        seen.update(keywords)
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_module, "prepare", note)
    assert cli.run(["--site", site_file, "prepare", *options]) == 130
    assert seen == given
    assert ("the same command goes on" in capsys.readouterr().err) == (not given["force"])  # --force begins anew


def test_join_gets_site_and_path(site_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import ModuleType

    launch = ModuleType("client.join.launch")
    launch.join = lambda site, path: 7 if (site.site.name, str(path)) == ("a", site_file) else 1  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "client.join.launch", launch)
    assert cli.run(["--site", site_file]) == 7


@pytest.mark.parametrize(
    "command", [["prepare"], ["check", "--no-server"], ["dry-run"], ["ledger"], ["ledger", "verify"]]
)
def test_the_site_may_stand_before_or_behind_a_command(
    command: list[str], site_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*arguments: str) -> tuple[int, str]:
        status = cli.run(list(arguments))
        captured = capsys.readouterr()
        return status, captured.err.partition(" error,")[0]

    before = told("--site", site_file, *command)
    assert before[0] in (3, 4)
    assert told(*command, "--site", site_file) == before
    assert told(*command[:1], "--site", site_file, *command[1:]) == before
    assert told("--site", site_file, *command, "--site", site_file) == before


def test_two_site_files_in_one_command_are_wrong_usage(
    site_file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(site_file).parent
    (folder / "other.yaml").write_text(SITE)
    assert cli.run(["--site", site_file, "prepare", "--site", str(folder / "other.yaml")]) == 2
    assert f"--site must name one site file, got '{site_file}' and '{folder}/other.yaml'." in capsys.readouterr().err
    monkeypatch.chdir(folder)
    assert cli.run(["--site", site_file, "prepare", "--site", "site.yaml"]) == 4  # one file, by two names


def test_a_plan_is_found_by_its_name(
    site_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["prepare", "--site", site_file, "--plan", "quik"]) == 3
    told = capsys.readouterr().err
    assert told.startswith(
        "error: --plan must name a study plan, got 'quik'. Looked for quik, site_configs/plans/quik, "
    )
    assert "site_configs/plans/quik.yaml" in told and told.endswith("Did you mean quick?\n")
    assert cli.run(["prepare", "--site", site_file, "--plan", "quick"]) == 4  # of the program's own plans
    (tmp_path / "site_configs/plans").mkdir(parents=True)
    (tmp_path / "site_configs/plans/quick.yaml").write_text("seed: mine\n")
    for name in ("quick", "quick.yaml", "site_configs/plans/quick.yaml"):
        capsys.readouterr()
        assert cli.run(["prepare", "--site", site_file, "--plan", name]) == 3
        assert "seed must be a whole number, got 'mine' from quick.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--site", "~/site.yaml", "prepare"], ["prepare", "--site=~/site.yaml"]])
def test_a_tilde_is_the_home_folder(
    arguments: list[str], site_file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(Path(site_file).parent))
    assert cli.run([*arguments, "--plan", "~/none.yaml"]) == 3
    assert f"{Path(site_file).parent}/none.yaml must be a readable file" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["-v", "--verbose"])
def test_the_traceback_of_a_bug_is_shown_wherever_v_stands(
    flag: str, site_file: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(prepare_module, "prepare", fail)
    for arguments in ([flag, "prepare", "--site", site_file], ["prepare", "--site", site_file, flag]):
        caplog.clear()
        assert cli.run(arguments) == 1
        assert [record.message for record in caplog.records] == ["traceback"]


def test_one_suggestion_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["prepar"]) == 2
    assert capsys.readouterr().err.count("Did you mean 'prepare'?") == 1
