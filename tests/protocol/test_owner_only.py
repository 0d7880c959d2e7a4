"""Files of patients' data are for their owner alone, whatever the umask."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from client import cli
from client.checks.dry_run import write
from client.cohort.frozen import cached
from client.cohort.hospital import open_hospital
from client.cohort.store import load_cohort
from client.layouts.mimic_iv.layout import MIMIC_IV
from client.prepare.prepare import prepare
from client.site import PlanSections, load_site
from lemof_model.study import Study
from protocol.owner_only import write_owner_only
from simulation.split import split
from tests.client.prepare.conftest import site_path as site_path
from tests.hospitals import write_hospital
from tests.simulation.test_shares import source as source


@pytest.fixture(autouse=True, params=[0o000, 0o022], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def open_to_others(*paths: Path) -> list[str]:
    """Files and folders that somebody else could look into."""
    listed = [inner for path in paths for inner in (path, *(path.rglob("*") if path.is_dir() else ()))]
    return [path.name for path in listed if path.stat().st_mode & 0o077]


def test_a_cohort_and_all_that_is_told_of_it(site_path: Path, tmp_path: Path) -> None:
    assert cli.run(["--site", str(site_path), "prepare"]) == 0
    assert cli.run(["--site", str(site_path), "check", "--no-server"]) == 0
    folder = tmp_path / "cohort"
    told = [tmp_path / name for name in ("check.json", "readiness.html")]
    assert open_to_others(folder, *told) == []
    assert len(list(folder.iterdir())) == 9
    for path in told:  # those of an earlier release
        path.chmod(0o644)
    assert cli.run(["--site", str(site_path), "check", "--no-server"]) == 0
    assert open_to_others(*told) == []
    mask = os.umask(0)
    os.umask(mask)
    (tmp_path / "another").touch(mode=0o666)
    assert open_to_others(tmp_path / "another") == ["another"]  # what else is made is as it was


def test_what_an_interrupted_run_leaves(site_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("client.prepare.prepare._read_ecgs", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(load_site(site_path), MIMIC_IV, PlanSections(), Console(quiet=True))
    assert (tmp_path / "cohort.partial/.state/chartevents.parquet").is_file()
    assert open_to_others(tmp_path / "cohort.partial") == []


def test_the_cache_and_the_dry_run(tmp_path: Path) -> None:
    site = load_site(write_hospital(tmp_path, num_stays=20))
    hospital = open_hospital(site, Study())

    def compute(folder: Path) -> None:
        (folder / "levels").write_text("x")

    folder = cached(hospital, "levels", {}, compute)
    assert open_to_others(folder.parent) == []
    assert open_to_others(write("{}", tmp_path)) == []


def test_an_earlier_cohort_stays_readable(site_path: Path, tmp_path: Path) -> None:
    assert cli.run(["--site", str(site_path), "prepare"]) == 0
    for path in [tmp_path / "cohort", *(tmp_path / "cohort").iterdir()]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert load_cohort(tmp_path / "cohort").num_stays == 3


def test_the_hospitals_of_a_split(source: Path, tmp_path: Path) -> None:
    split(source, source / "ecg", tmp_path / "out", num_sites=2, by="random")
    hospitals = [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert open_to_others(*hospitals, tmp_path / "out/split.json") == [] and len(hospitals) == 2


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "check.json"
    write_owner_only(path, "a longer text")
    write_owner_only(path, "short")
    assert path.read_text() == "short"
