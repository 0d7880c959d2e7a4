"""The launcher by itself; ``test_deployed.py`` has it with a server."""

import logging
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from client import egress, launch
from client.site import SiteConfig, load_site
from lemof_model.errors import DataError, NetworkError
from lemof_model.study import Study
from lemof_model.wire import StatisticsRequest
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
        ("127.0.0.1:80", {}, ["--insecure"]),
        ("fl.example.org:443", {}, []),
        ("fl.example.org:443", {"root_certificates": "ca.crt"}, ["--root-certificates"]),
        ("127.0.0.1:80", {"root_certificates": "ca.crt"}, ["--root-certificates"]),
    ],
)
def test_only_this_machine_is_spoken_to_in_the_clear(
    tmp_path: Path, address: str, server: dict[str, str], expected: list[str]
) -> None:
    site, path = site_at(tmp_path, address, **server)
    flags = launch._flags(site, path)
    assert [flag for flag in flags if flag in ("--insecure", "--root-certificates")] == expected


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
    monkeypatch.setattr(launch, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(launch, "_wait_for_server", lambda _: None)
    monkeypatch.setattr(launch, "time", FakeTime(pauses))
    code = "import sys; print('[code: 2004] refused'); sys.exit(1)"
    monkeypatch.setattr(launch, "_command", lambda *_: [sys.executable, "-c", code])
    site, path = site_at(tmp_path, "127.0.0.1:1")
    with pytest.raises(NetworkError, match=r"must accept hospital_a, got: \[code: 2004\] refused"):
        launch.join(site, path)
    assert [pause for pause in pauses if pause > 1] == [2, 4, 8, 16, 32]


def test_what_the_hospital_declines_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = load_site(write_hospital(tmp_path))
    path = tmp_path / launch.WORKER_LOG
    path.write_text("INFO :      \n")
    last = ""
    with path.open() as log:
        for number, code in ((1, 3), (2, 3), (3, 9)):
            request = StatisticsRequest(study=Study(), round=number)
            error = DataError(f"The cohort must be of this plan, got one of plan {code}. Prepare it anew.")
            with path.open("a") as more:
                handler = logging.StreamHandler(more)
                logging.getLogger("lemof").addHandler(handler)
                egress.refuse(site.site.name, request, error)
                logging.getLogger("lemof").removeHandler(handler)
            last = launch._say_refusals(log, last)
        with path.open("a") as more:
            more.write("encoders, round 4: The cohort")
        assert launch._say_refusals(log, last) == last  # half a line
    told = capsys.readouterr().err.splitlines()
    assert [line[6:] for line in told] == [
        f"declined statistics: The cohort must be of this plan, got one of plan {code}. Prepare it anew."
        for code in (3, 9)
    ]


class FakeTime:
    """A clock whose long pauses are noted instead of waited for."""

    def __init__(self, pauses: list[float]) -> None:
        self._pauses = pauses

    def sleep(self, seconds: float) -> None:
        self._pauses.append(seconds)
        time.sleep(min(seconds, 0.01))
