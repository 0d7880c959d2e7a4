"""A real deployment on this machine: ``flower-superlink``, one ``lemof-client`` per hospital, ``flwr run``.

Every process is a group of its own and is ended by its number, whatever happens.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import yaml

BIN = Path(sys.executable).parent
JOINED = "waiting for the coordinator"


def free_address() -> str:
    """An address of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def environment(flower_home: Path) -> dict[str, str]:
    """This environment with a Flower home of its own."""
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(flower_home),
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        "PYTHONUNBUFFERED": "1",
    }


@contextmanager
def process(command: Sequence[str | Path], log: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A running command; its whole group is gone afterwards."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen(
            [str(part) for part in command],
            cwd=log.parent,
            env=env,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        end(child)


def end(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the process and, after 15 s, SIGKILL to what is left of its group."""
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(timeout=15)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def wait_for(text: str, log: Path, child: subprocess.Popen[bytes], timeout_seconds: float = 60) -> None:
    """Return once ``text`` stands in the log of a process that still runs."""
    deadline = time.monotonic() + timeout_seconds
    while text not in log.read_text():
        if child.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"{text!r} did not come, status {child.poll()}:\n{log.read_text()[-3000:]}")
        time.sleep(0.1)


@contextmanager
def deployment(folder: Path, site_files: Sequence[Path], address: str) -> Iterator[dict[str, str]]:
    """A SuperLink at ``address`` and one joined ``lemof-client`` per site file; the environment to run studies in."""
    env = environment(folder / "coordinator")
    with ExitStack() as stack:
        log = folder / "superlink.log"
        host, port = address.split(":")
        superlink = stack.enter_context(
            process(
                [
                    BIN / "flower-superlink",
                    "--insecure",
                    "--disable-runtime-dependency-installation",
                    "--host",
                    host,
                    "--port",
                    port,
                ],
                log,
                env,
            )
        )
        wait_for("Uvicorn running", log, superlink)
        joined = [stack.enter_context(hospital(site_file, folder)) for site_file in site_files]
        for client, client_log in joined:
            wait_for(JOINED, client_log, client)
        config = folder / "coordinator/config.toml"
        config.write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "{address}"\ninsecure = true\n'
        )
        yield env


@contextmanager
def hospital(site_file: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """``lemof-client --site`` as a hospital starts it, and its log."""
    name = yaml.safe_load(site_file.read_text())["site"]["name"]
    log = folder / f"{name}.log"
    with process([BIN / "lemof-client", "--site", site_file], log, environment(folder / name)) as client:
        yield client, log


def run_study(project: Path, env: dict[str, str], plan: Path | None, out: Path, timeout_seconds: float = 300) -> str:
    """``flwr run`` and wait; the run's last status, such as ``finished:completed``. Its log is put beside ``out``. A
    project that is none of ours is run without a plan."""
    run_config = ["--run-config", f'plan="{plan}" out="{out}" resume=false'] if plan else []
    flwr = str(BIN / "flwr")
    started = subprocess.run(
        [flwr, "run", str(project), "here", *run_config, "--format", "json"],
        env=env,
        cwd=out.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 0, started.stdout + started.stderr
    run_id = str(json.loads(started.stdout[started.stdout.index("{") :])["run-id"])
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        time.sleep(3)  # every look is an interpreter's start
        listed = subprocess.run(
            [flwr, "list", "here", "--run-id", run_id, "--format", "json"], env=env, capture_output=True, text=True
        )
        status = str(json.loads(listed.stdout)["runs"][0]["status"])
        if status.startswith("finished"):
            log = subprocess.run([flwr, "log", run_id, "here", "--show"], env=env, capture_output=True, text=True)
            out.with_suffix(".log").write_text(log.stdout + log.stderr)
            return status
    return "timeout"
