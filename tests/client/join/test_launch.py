"""The launcher by itself; ``test_deployed.py`` has it with a server."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from client.join import launch, node
from client.site import SiteConfig, load_site
from lemof_model.errors import ConfigError, DataError, NetworkError
from tests.hospitals import write_hospital


def site_at(folder: Path, address: str, **server: str) -> tuple[SiteConfig, Path]:
    """A prepared hospital whose server is at ``address``."""
    path = write_hospital(folder)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"server": {"address": address} | server}))
    return load_site(path), path


def test_a_site_without_a_cohort_does_not_join_and_is_told_the_command(tmp_path: Path) -> None:
    site, path = site_at(tmp_path, "127.0.0.1:1")
    (site.prepare.output / "manifest.json").unlink()
    with pytest.raises(DataError, match=rf"lemof-client --site {path} prepare --plan PLAN\.yaml"):
        launch.join(site, path)


@pytest.mark.parametrize(
    ("address", "server", "expected"),
    [
        ("127.0.0.1:80", {}, True),
        ("fl.example.org:443", {}, False),
        ("fl.example.org:443", {"root_certificates": "ca.crt"}, False),
        ("127.0.0.1:80", {"root_certificates": "ca.crt"}, False),
    ],
)
def test_only_this_machine_is_spoken_to_in_the_clear(
    tmp_path: Path, address: str, server: dict[str, str], expected: bool
) -> None:
    site, _ = site_at(tmp_path, address, **server)
    assert node.is_plain(site.server) is expected


def test_a_server_that_is_down_is_told_and_ctrl_c_leaves(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    _, path = site_at(tmp_path, address)
    lemof_client = Path(sys.executable).parent / "lemof-client"
    with subprocess.Popen([lemof_client, "--site", path], stderr=subprocess.PIPE, text=True) as client:
        assert client.stderr is not None
        told = client.stderr.readline()
        client.send_signal(signal.SIGINT)
        assert client.wait(timeout=10) == 130
        assert "hospital_a has left" in client.stderr.read()
    assert f"{address}: Connection refused" in told
    assert "Trying again every 5 s" in told


def test_a_node_that_never_joins_is_started_six_times_and_its_reason_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(launch, "time", FakeTime(pauses))
    said = json.dumps({"text": "[code: 2004] refused", "is_refused": True})
    monkeypatch.setattr(launch, "_command", lambda *_: [sys.executable, "-c", f"print({said!r}); raise SystemExit(1)"])
    site, path = site_at(tmp_path, "127.0.0.1:1")
    with pytest.raises(NetworkError, match=r"must accept hospital_a, got \[code: 2004\] refused"):
        launch.join(site, path)
    assert pauses == [2, 4, 8, 16, 32]


def test_what_the_answering_process_tells_is_printed_and_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = json.dumps({"text": "joined", "has_joined": True})
    code = f"import os; print({said!r}, flush=True); print('of a library', flush=True); os.kill(os.getpid(), 9)"
    monkeypatch.setattr(launch, "_command", lambda *_: [sys.executable, "-c", code])
    monkeypatch.setattr(launch, "time", FakeTime([], leave_after=2))
    site, path = site_at(tmp_path, "127.0.0.1:1")
    assert launch.join(site, path) == 130
    ended = (
        "connection of hospital_a ended (its process was killed; if nobody did, memory was short); trying again in 2 s."
    )
    assert capsys.readouterr().err.splitlines() == [*["joined", "of a library", ended] * 2, "hospital_a has left."]


def test_a_hospital_joins_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, path = site_at(tmp_path, "127.0.0.1:1")
    seen: list[str] = []

    def join_again(*_: Any) -> NoReturn:
        with pytest.raises(
            ConfigError, match=rf"already joined as process {os.getpid()}\..*kill {os.getpid()}"
        ) as told:
            launch.join(site, path)
        seen.append(str(told.value))
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "_stay_joined", join_again)
    assert (launch.join(site, path), len(seen)) == (130, 1)
    assert (launch.join(site, path), len(seen)) == (130, 2)  # who has left may join again


class FakeTime:
    """A clock whose pauses are noted instead of waited for; after so many of them somebody presses Ctrl-C."""

    def __init__(self, pauses: list[float], leave_after: int = 100) -> None:
        self._pauses, self._leave_after = pauses, leave_after

    def sleep(self, seconds: float) -> None:
        self._pauses.append(seconds)
        if len(self._pauses) == self._leave_after:
            raise KeyboardInterrupt
