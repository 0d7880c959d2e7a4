"""What ``check`` says of disk, memory and versions; each machine that is too small is a pretended one."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from client.checks import machine


@pytest.mark.parametrize(
    ("free", "result", "code", "found"),
    [(2 * 10**9, "ok", "", "needs 2.0 GB, free 2.0 GB"), (3 * 10**8, "fail", "E601", "needs 2.0 GB, free 0.3 GB")],
)
def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, result: str, code: str, found: str) -> None:
    asked: list[Path] = []

    def usage(folder: Path) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(free=free)

    monkeypatch.setattr("shutil.disk_usage", usage)
    (finding,) = machine.check_disk(tmp_path / "not/yet/there", 2 * 10**9)
    assert (finding.check, finding.result, finding.code, finding.found) == (f"disk {tmp_path}", result, code, found)
    assert finding.exit_status == (6 if result == "fail" else 0)
    assert asked == [tmp_path]


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    (finding,) = machine.check_disk(tmp_path / "cohort", 1)
    assert (finding.result, finding.exit_status, finding.found) == ("fail", 6, "may not be written")


@pytest.mark.parametrize(("kilobytes", "result"), [(1_400_000, "warn"), (1_600_000, "ok")])
def test_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kilobytes: int, result: str) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 99 kB\nMemAvailable:   {kilobytes} kB\n")
    monkeypatch.setattr(machine, "MEMINFO", meminfo)
    (finding,) = machine.check_memory()
    assert (finding.result, finding.found) == (result, f"needs 1.5 GB, free {kilobytes / 1e6:.1f} GB")


def test_memory_is_not_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "none")
    assert list(machine.check_memory()) == []


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = machine.check_versions()
    assert finding.result == "ok"
    assert ", flwr 1.41.0" in finding.found
    monkeypatch.setattr(machine, "version", lambda name: "1.40.0")
    (finding,) = machine.check_versions()
    assert (finding.result, finding.code, finding.exit_status) == ("fail", "E801", 8)
    assert finding.found == "flwr 1.40.0 (this release needs 1.41.0)"
