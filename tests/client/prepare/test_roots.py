"""A root one folder too deep or too high is named, by ``check``, ``prepare`` and ``lemof-sim split`` alike."""

import json
import shutil
from pathlib import Path

import pytest

from client import cli
from simulation import cli as sim


@pytest.fixture
def site_path(site_path: Path, tmp_path: Path) -> Path:
    """The small hospital two folders down, with ECGs in a folder of their own."""
    folder = tmp_path / "data/one/hospital"
    folder.mkdir(parents=True)
    for part in [part for part in site_path.parent.iterdir() if part.name != "data"]:
        part.rename(folder / part.name)
    (folder / "ecg/files").mkdir(exist_ok=True)
    return folder / "site.yaml"


def with_root(site_path: Path, section: str, root: str) -> None:
    """Set a root of the site file."""
    roots = {"ehr": ".", "ecg": "ecg"} | {section: root}
    data = "".join(f"  {name}: {{root: '{path}'}}\n" for name, path in roots.items())
    site_path.write_text(f"version: 1\nsite: {{name: small}}\ndata:\n{data}")


@pytest.mark.parametrize(
    ("section", "root", "where", "right"),
    [
        ("ehr", "hosp", "../", "."),
        ("ehr", "icu", "../", "."),
        ("ehr", "..", "{here}/", "."),
        ("ehr", "../..", "{above}/{here}/", "."),
        ("ecg", "ecg/files", "../", "ecg"),
        ("ecg", ".", "ecg/", "ecg"),
        ("ecg", "..", "{here}/ecg/", "ecg"),
    ],
)
def test_a_root_that_is_another_folder_is_named(
    site_path: Path, section: str, root: str, where: str, right: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = site_path.parent
    with_root(site_path, section, root)
    place, what = where.format(here=folder.name, above=folder.parent.name), "hosp and icu"
    what = what if section == "ehr" else "record_list.csv"
    said = f"data.{section}.root must hold {what}, got none in "
    advice = f" Found in {place}: set data.{section}.root to {(folder / right).resolve()}. [E101]"
    assert cli.run(["prepare", "--site", str(site_path)]) == 4
    told = capsys.readouterr().err
    assert f"error: {said}" in told and advice in told
    assert cli.run(["check", "--site", str(site_path), "--json"]) == 4
    told_of = [f for f in json.loads(capsys.readouterr().out)["findings"] if f["found"].startswith(said)]
    assert len(told_of) == 1


def test_records_that_start_elsewhere_are_named(site_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = site_path.parent
    (folder / "record_list.csv").write_bytes((folder / "ecg/record_list.csv").read_bytes())
    with_root(site_path, "ecg", ".")
    assert cli.run(["prepare", "--site", str(site_path)]) == 4
    told = capsys.readouterr().err
    assert "data.ecg.root must hold the records of its list, got none in" in told
    assert f"Found in ecg/: set data.ecg.root to {(folder / 'ecg').resolve()}. [E202]" in told


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"--mimic": "hosp"},
            "--mimic must hold hosp and icu, got none in {folder}/hosp. Found in ../: set --mimic to",
        ),
        ({"--mimic": ".."}, "--mimic must hold hosp and icu, got none in {above}. Found in {name}/: set --mimic to"),
        ({"--ecg": "ecg/files"}, "--ecg must hold record_list.csv, got none in {folder}/ecg/files. Found in ../: set"),
    ],
)
def test_split_names_them_too(
    site_path: Path, options: dict[str, str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = site_path.parent.resolve()
    given = {"--mimic": ".", "--ecg": "ecg"} | options
    arguments = [part for option, path in given.items() for part in (option, str((folder / path).resolve()))]
    assert sim.command(["split", str(tmp_path / "out"), *arguments, "--sites", "2", "--by", "random"]) == 4
    assert said.format(folder=folder, above=folder.parent, name=folder.name) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_of_several_folders_none_is_chosen(site_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for release in ("2.2", "3.1"):
        (site_path.parent / release / "hosp").mkdir(parents=True)
        (site_path.parent / release / "icu").mkdir()
    for name in ("hosp", "icu"):
        shutil.rmtree(site_path.parent / name)
    with_root(site_path, "ehr", ".")
    assert cli.run(["prepare", "--site", str(site_path)]) == 4
    assert "Found in 2 folders (2.2/, 3.1/...): set data.ehr.root to the right one. [E101]" in capsys.readouterr().err
