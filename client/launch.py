"""``lemof-client --site NAME``: joins the federation and stays in it, whatever the network does.

Two child processes do the work, each restarted with the other when one of them dies: Flower's SuperNode, which fetches
messages, and a worker, which starts one process for every message. Flower's own worker starts a fresh interpreter each
time, which spends 4 s of a core on imports before a message is even read; this one forks a process that has imported
torch but none of our code, so the code that answers is still the bundle's (measured: 0.2 s).

Private names of flwr 1.41 are touched in ``supernode`` and ``worker`` only; the version is pinned for them.
"""

import multiprocessing
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, TextIO

from client.site import SiteConfig
from lemof_model.errors import DataError, NetworkError

MAX_FAILURES = 6  # 2 + 4 + ... + 32 s outlast the minute in which Flower takes a killed node for alive and refuses it
RETRY_SECONDS = 5.0
POLL_SECONDS = 0.2
WORKER_LOG = "worker.log"
REFUSAL = re.compile(r"(?P<stage>[a-z_]+), round \d+: (?P<reason>.+)")  # as client.egress.refuse writes it
PRELOADED = ["flwr.supernode.runtime.run_clientapp", "pandas", "pyarrow.parquet", "pydantic", "torch", "yaml"]
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def join(site: SiteConfig, site_path: Path) -> int:
    """Keep the site in the federation until Ctrl-C or SIGTERM; the exit status.

    Raises:
        DataError: the site has no prepared cohort.
        NetworkError: the server can be reached but does not take the site.
    """
    if not (site.prepare.output / "manifest.json").is_file():
        raise DataError(
            f"The cohort must be prepared, got none in {site.prepare.output}. "
            f"Run: lemof-client --site {shlex.quote(str(site_path))} prepare --plan PLAN.yaml"
        )
    if line := stale_line(site):
        _say(line)
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _stay_joined(site, site_path.resolve())
    except KeyboardInterrupt:
        _say(f"{site.site.name} has left.")
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)


def stale_line(site: SiteConfig) -> str:
    """What to say, before it is used, of a cohort that is older than what it was made from; nothing of another."""
    from client.mimic_iv.sources import STALE, is_stale  # not for the processes below, which import this file

    return f"warning: cohort: {STALE}; it is used as it is. To renew it, run prepare. [E108]" if is_stale(site) else ""


def _stay_joined(site: SiteConfig, site_path: Path) -> NoReturn:
    """Start the node again and again, more slowly with every failure in a row."""
    num_failures = 0
    has_joined = False
    last_refusal = ""
    while True:
        _wait_for_server(site.server.address)
        with (
            _node(site, site_path) as (children, log_path),
            (log_path.parent / WORKER_LOG).open(errors="replace") as log,
        ):
            num_failures += 1
            while all(child.poll() is None for child in children):
                last_refusal = _say_refusals(log, last_refusal)
                if num_failures and "SuperNode ID" in log_path.read_text(errors="replace"):
                    _say(
                        f"joined {site.server.address} as {site.site.name}; waiting for the coordinator. Ctrl-C leaves."
                    )
                    num_failures, has_joined = 0, True
                time.sleep(POLL_SECONDS)
            reason = _last_error(log_path)
        if num_failures >= MAX_FAILURES and not has_joined:
            raise NetworkError(
                f"{site.server.address} must accept {site.site.name}, got: {reason}. Ask the coordinator. "
                f"Log: {log_path}"
            )
        pause = min(2 ** max(num_failures, 1), 60)
        _say(f"connection of {site.site.name} ended ({reason}); trying again in {pause} s.")
        time.sleep(pause)


def _say_refusals(log: TextIO, last: str) -> str:
    """Tell the new refusals of the worker's log, each once however many rounds repeat it; the last one."""
    while True:
        place, line = log.tell(), log.readline()
        if not line.endswith("\n"):  # the end, or half a line whose rest comes
            log.seek(place)
            return last
        if (refusal := REFUSAL.match(line)) and refusal["reason"] != last:
            last = refusal["reason"]
            _say(f"{time.strftime('%H:%M')} declined {refusal['stage']}: {last}")


def _wait_for_server(address: str) -> None:
    """Return once somebody listens at ``address``; until then say so once and keep trying."""
    host, port = address.rsplit(":", 1)
    is_told = False
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=RETRY_SECONDS).close()
            return
        except OSError as error:
            if not is_told:
                _say(
                    f"{address}: {error.strerror or error}. Is the server up, and does the firewall let this machine "
                    f"out? Trying again every {RETRY_SECONDS:g} s; Ctrl-C stops."
                )
            is_told = True
            time.sleep(RETRY_SECONDS)


@contextmanager
def _node(site: SiteConfig, site_path: Path) -> Iterator[tuple[list[subprocess.Popen[bytes]], Path]]:
    """The SuperNode and its worker as running processes, and the SuperNode's log; both are gone afterwards."""
    folder = site.prepare.output.resolve().parent / ".flower" / site.site.name
    folder.mkdir(parents=True, exist_ok=True)
    runtime_address = f"127.0.0.1:{_free_port()}"
    environment = {
        **os.environ,
        **QUIET,
        "FLWR_HOME": str(folder),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    with ExitStack() as stack:
        children = [
            stack.enter_context(_child(folder, environment, "supernode", [runtime_address, *_flags(site, site_path)])),
            stack.enter_context(_child(folder, environment, "worker", [runtime_address])),
        ]
        yield children, folder / "supernode.log"


@contextmanager
def _child(
    folder: Path, environment: dict[str, str], function: str, arguments: list[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """One function of this file as a process group of its own, so that Ctrl-C reaches it through us alone."""
    command = [*_command(function), str(os.getpid()), *arguments]
    with (folder / f"{function}.log").open("wb") as log:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(child.pid, number)
                child.wait(timeout=5)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def _command(function: str) -> list[str]:
    """A Python that runs one function of this file, with no main module that its children would import again."""
    return [sys.executable, "-c", f"from client.launch import {function}; {function}()"]


def _flags(site: SiteConfig, site_path: Path) -> list[str]:
    """Flower's flags: TLS with the site's root certificate, else the system's; plain only on this machine."""
    flags = ["--superlink", site.server.address, "--node-config", f'site="{site_path}"']
    if site.server.root_certificates is not None:
        return [*flags, "--root-certificates", str(site.server.root_certificates)]
    host = site.server.address.rsplit(":", 1)[0]
    return [*flags, "--insecure"] if host in ("127.0.0.1", "localhost") else flags


def _free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _last_error(log_path: Path) -> str:
    """The last error that Flower told before it ended."""
    lines = re.sub(r"\x1b\[\d+m", "", log_path.read_text(errors="replace")).splitlines()
    errors = [line.strip() for line in lines if "[code:" in line or "rror" in line]
    return errors[-1] if errors else "its process died"


def _say(text: str) -> None:
    """A line for the person at the keyboard."""
    print(text, file=sys.stderr, flush=True)


def supernode() -> None:
    """Process: Flower's SuperNode, which looks for messages every 0.2 s, not every 3, and for their parts as often."""
    from flwr.supercore.app_utils import start_parent_process_monitor
    from flwr.supercore.inflatable.inflatable_utils import pull_objects
    from flwr.supernode import start_client_internal as internals
    from flwr.supernode.cli.flower_supernode import flower_supernode

    _, parent_pid, runtime_address, *flags = sys.argv
    start_parent_process_monitor(int(parent_pid))
    sleep = time.sleep
    internals.__dict__["time"] = SimpleNamespace(sleep=lambda seconds: sleep(min(seconds, POLL_SECONDS)))
    internals.__dict__["pull_objects"] = partial(pull_objects, initial_backoff=POLL_SECONDS)
    host, port = runtime_address.split(":")
    sys.argv = ["flower-supernode", "--isolation", "process", "--host", host, "--port", port, *flags]
    flower_supernode()


def worker() -> None:
    """Process: Flower's SuperExec, with an executor that forks instead of starting an interpreter."""
    from flwr.supercore.superexec import run_superexec as internals

    _, parent_pid, runtime_address = sys.argv
    internals.__dict__["get_executor"] = lambda *_, **__: ForkExecutor()
    internals.run_superexec(runtime_address, insecure=True, parent_pid=int(parent_pid))


class ForkExecutor:
    """Flower's ``Executor``: a process for each message, forked from one that has imported what takes long."""

    def __init__(self) -> None:
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(PRELOADED)
        forkserver.ensure_running()  # the imports are done while the site waits

    def launch(self, spec: Any) -> Any:
        """Start the process of one message."""
        from flwr.supercore.superexec.executor import LaunchResult
        from flwr.supernode.runtime.run_clientapp import run_clientapp

        arguments = (spec.runtime_api_address, spec.token, spec.insecure, None, spec.parent_pid)
        self._processes.Process(target=run_clientapp, args=arguments).start()
        return LaunchResult.accepted()

    def get_eligible_capacity(self, task_types: set[Any], **_: Any) -> tuple[set[Any], set[str]]:
        """All kinds of message can be started at once."""
        return task_types, set()

    def reconcile(self) -> None:
        """Nothing to maintain."""

    def close(self) -> None:
        """Nothing to release."""
