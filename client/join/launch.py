"""``lemof-client --site NAME``: joins the federation and stays in it, whatever the network does.

One child process does the work (``node.py``): it fetches messages and answers them with the code that is installed
here. This process prints what it tells, starts it again when it dies, and holds the lock that keeps a second
``lemof-client`` from answering for the same hospital. When this process is gone, however it ended, so is the child.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NoReturn

from client.site import SiteConfig
from lemof_model.errors import ConfigError, DataError, NetworkError
from protocol.disk import hold

MAX_FAILURES = 6  # 2 + 4 + ... + 32 s outlast the minute in which Flower takes a killed node for alive and refuses it
LOG = "node.log"
MAX_LOG_BYTES = 10_000_000  # then the log begins anew, and one older one is kept
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def join(site: SiteConfig, site_path: Path) -> int:
    """Keep the site in the federation until Ctrl-C or SIGTERM; the exit status.

    Raises:
        DataError: the site has no prepared cohort.
        ConfigError: the site has joined already.
        NetworkError: the server can be reached but does not take the site.
    """
    if not (site.prepare.output / "manifest.json").is_file():
        raise DataError(
            rule="The cohort must be prepared",
            got=f"none in {site.prepare.output}",
            fix=f"Run: lemof-client --site {shlex.quote(str(site_path))} prepare --plan PLAN.yaml",
        )
    if line := stale_line(site):
        _say(line)
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Importing polars makes SIGINT restart what it interrupts (pola-rs/polars#21739): Ctrl-C would wait for a line.
    signal.siginterrupt(signal.SIGINT, True)
    try:
        with _joined_once(site) as folder:
            _stay_joined(site, site_path.resolve(), folder)
    except KeyboardInterrupt:
        _say(f"{site.site.name} has left.")
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)


def stale_line(site: SiteConfig) -> str:
    """What to say, before it is used, of a cohort that is older than what it was made from; nothing of another."""
    from client.layouts import layout_of  # not for the process below, which imports this file
    from client.prepare.sources import STALE, is_stale

    stale = f"warning: cohort: {STALE}; it is used as it is. To renew it, run prepare. [E108]"
    return stale if is_stale(site, layout_of(site)) else ""


@contextmanager
def _joined_once(site: SiteConfig) -> Iterator[Path]:
    """The folder of the joined hospital's logs, held against a second ``lemof-client`` as long as this process lives.

    Raises:
        ConfigError: another one has it.
    """
    folder = site.prepare.output.resolve().parent / ".flower" / site.site.name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "joined").open("a+", encoding="ascii") as lock:
        if not hold(lock):
            lock.seek(0)
            number = lock.read().strip() or "?"
            raise ConfigError(
                rule=f"{site.site.name} must join once",
                got=f"one that has already joined as process {number}",
                fix=f"Leave it, or end it first: kill {number}",
            )
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield folder


def _stay_joined(site: SiteConfig, site_path: Path, folder: Path) -> NoReturn:
    """Start the answering process again and again, more slowly with every failure in a row."""
    num_failures, has_joined = 0, False
    while True:
        num_failures += 1
        reason = ""
        with _node(site_path, folder) as node:
            assert node.stdout is not None
            for line in node.stdout:
                told = _told(line)
                if told.get("is_refused"):
                    reason = told["text"]
                    continue
                if told.get("has_joined"):
                    num_failures, has_joined = 0, True
                _say(told["text"])
            status = node.wait()
        reason = reason or _how_it_ended(status, folder / LOG)
        if num_failures >= MAX_FAILURES and not has_joined:
            raise NetworkError(
                rule=f"{site.server.address} must accept {site.site.name}",
                got=reason,
                fix=f"Ask the coordinator. Log: {folder / LOG}",
            )
        pause = min(2 ** max(num_failures, 1), 60)
        _say(f"connection of {site.site.name} ended ({reason}); trying again in {pause} s.")
        time.sleep(pause)


@contextmanager
def _node(site_path: Path, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """The answering process, in a group of its own, so that Ctrl-C reaches it through us alone; gone afterwards.

    Its standard input stays open as long as we live: that is how it knows.
    """
    environment = {**os.environ, **QUIET, "FLWR_HOME": str(folder), "PYTHONUNBUFFERED": "1"}
    with _log(folder / LOG) as log:
        node = subprocess.Popen(
            [*_command(), str(site_path)],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    try:
        yield node
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(node.pid, number)
                node.wait(timeout=5)
        for pipe in (node.stdin, node.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


def _command() -> list[str]:
    """A Python that answers."""
    return [sys.executable, "-P", "-c", "from client.join.node import main; main()"]


def _log(path: Path) -> IO[bytes]:
    """The log, open at its end; a long one is set aside first."""
    with suppress(OSError):
        if path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
    return path.open("ab")


def _told(line: str) -> dict[str, str]:
    """What the answering process tells; a line of a library is told as it is."""
    with suppress(ValueError):
        told = json.loads(line)
        if isinstance(told, dict) and "text" in told:
            return told
    return {"text": line.rstrip("\n")}


def _how_it_ended(status: int, log_path: Path) -> str:
    """Why a process that did not say so is no more; its log has the rest."""
    if status == -signal.SIGKILL:
        return "its process was killed; if nobody did, memory was short"
    if status < 0:
        return f"its process was ended by {signal.Signals(-status).name}"
    return f"its process ended with status {status}, see {log_path}"


def _say(text: str) -> None:
    """A line for the person at the keyboard."""
    print(text, file=sys.stderr, flush=True)
