"""Killed at any instant and run again, ``prepare`` ends with the bytes of a run that nothing interrupted."""

import hashlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from simulation.synthetic.generate import generate

# Imports once. For each line of stdin, a fork runs the command and is killed before it touches the hospital's folder
# for the so many-th time (opens a file to write, renames, removes, ...); prints the exit status and how often it did.
TOUCHING = """
import os, signal, sys
import client.prepare.prepare
from client.cli import run

folder, *command = sys.argv[1:]
kinds = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}
touched = last = 0

def hook(kind, arguments):
    global touched
    if kind in kinds and str(arguments[0]).startswith(folder):
        if kind != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR):
            touched += 1
            if touched == last:
                os.kill(os.getpid(), signal.SIGKILL)

for line in sys.stdin:
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        last = int(line)
        sys.addaudithook(hook)
        status = run(command)
        os.write(writer, str(touched).encode())
        os._exit(status)
    os.close(writer)
    number = os.read(reader, 20).decode() or "0"
    os.close(reader)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), number, flush=True)
"""

WHOLE_RUN = """
import sys
import client.prepare.prepare
from client.cli import run
print("ready", flush=True)
sys.exit(run(sys.argv[1:]))
"""

RunUntil = Callable[[int], tuple[int, int]]


@contextmanager
def runner(site: Path, repository: Path) -> Iterator[RunUntil]:
    """Run ``prepare`` until it touches the folder for the so many-th time, or to its end if it never does."""
    command = [sys.executable, "-W", "ignore", "-c", TOUCHING, str(site.parent), "--site", str(site), "prepare"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=repository, text=True, bufsize=1, stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None and process.stdout is not None
        write, read_line = process.stdin.write, process.stdout.readline

        def run_until(number: int) -> tuple[int, int]:
            write(f"{number}\n")
            status, touched = read_line().split()
            return int(status), int(touched)

        yield run_until


def run_prepare(site: Path, repository: Path, kill_after: float | None = None) -> float:
    """Run the command line, to its end or until it is killed; the seconds that it took once all was imported."""
    command = [sys.executable, "-c", WHOLE_RUN, "--site", str(site), "prepare"]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        start = time.monotonic()
        try:
            assert process.wait(kill_after) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return time.monotonic() - start


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file of the folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def leftovers(site: Path) -> list[str]:
    """What stands beside the cohort and does not belong to the hospital."""
    return [path.name for path in site.parent.iterdir() if path.name.startswith("cohort") and path.name != "cohort"]


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_before_a_change_on_the_disk_and_run_again(repository: Path, site_path: Path, every: int) -> None:
    cohort = site_path.parent / "cohort"
    with runner(site_path, repository) as run_until:
        status, last = run_until(0)
        expected = digests(cohort)
        assert status == 0 and last > 10
        for number in range(last, 0, -every):
            shutil.rmtree(cohort)
            assert run_until(number) == (-signal.SIGKILL, 0)
            if number % 2:
                run_until(5)  # killed again, soon after it went on
            assert run_until(0)[0] == 0
            assert digests(cohort) == expected, f"killed before change {number} of {last}"
            assert leftovers(site_path) == []


@pytest.mark.slow
def test_killed_at_ten_random_moments(repository: Path, tmp_path: Path) -> None:
    generate(tmp_path / "hospitals", num_sites=1, num_stays=600, seed=3)
    site = tmp_path / "hospitals" / "hospital_a" / "site.yaml"
    cohort = site.parent / "cohort"
    seconds = run_prepare(site, repository)
    expected = digests(cohort)
    moments = (np.arange(10) + np.random.default_rng(0).random(10)) / 10 * seconds
    for moment in moments:
        shutil.rmtree(cohort)
        run_prepare(site, repository, kill_after=moment)
        run_prepare(site, repository)
        assert digests(cohort) == expected, f"killed after {moment:.3f} of {seconds:.3f} s"
        assert leftovers(site) == []
