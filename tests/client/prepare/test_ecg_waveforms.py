"""The store of ECGs: the same bytes from any number of processes, and from a run that was killed and run again."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.site import EcgData
from lemof_model.errors import DiskError
from readers.ecg import waveforms as ecg_waveforms
from readers.ecg.record import read_ecg
from readers.ecg.waveforms import append_ecgs, default_workers, write_ecgs

PATHS = [f"r{number:02}" for number in range(22)]
CHECKSUM = ("E202 checksum wrong", "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6")
BAD = {"r03": CHECKSUM, "r08": ("E202 signal file missing", ""), "r21": CHECKSUM}


@pytest.fixture
def ecg(tmp_path: Path, write_record: Callable[..., None], samples: Callable[..., np.ndarray]) -> EcgData:
    """Twenty-two records, three of them bad."""
    root = tmp_path / "raw"
    for number, path in enumerate(PATHS):
        write_record(root / path, samples(number), checksum_error=int(path in ("r03", "r21")))
    (root / "r08.dat").unlink()
    return EcgData.model_validate({"root": root}, context={"folder": tmp_path})


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecg_waveforms, "BLOCK", 4)


def folder(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


def whole(tmp_path: Path, ecg: EcgData) -> bytes:
    """The array as numpy writes it."""
    expected = np.stack([read_ecg(ecg, path) for path in PATHS if path not in BAD])
    np.save(tmp_path / "expected.npy", expected)
    return (tmp_path / "expected.npy").read_bytes()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("workers", [1, 2])
def test_rows_are_the_readable_records_in_order(tmp_path: Path, ecg: EcgData, workers: int) -> None:
    told: list[int] = []
    out = folder(tmp_path, "out")
    row_of, rejected = write_ecgs(out, ecg, PATHS, workers=workers, on_progress=told.append)
    assert rejected == BAD
    assert list(row_of) == [path for path in PATHS if path not in BAD]
    assert list(row_of.values()) == list(range(len(PATHS) - len(BAD)))
    assert (out / "ecg.npy").read_bytes() == whole(tmp_path, ecg)
    assert os.listdir(out) == ["ecg.npy"]
    assert told == [0, 4, 4, 4, 4, 4, 2]


SLOW = """
import sys
from pathlib import Path
from readers.ecg import waveforms as ecg_waveforms
from client.site import EcgData
ecg_waveforms.BLOCK, ecg_waveforms.TELL_SECONDS = 4, 0  # in the processes that read, too
if __name__ == "__main__":
    root, out, workers, *paths = sys.argv[1:]
    ecg = EcgData.model_validate({"root": root}, context={"folder": Path(root)})
    told = {"on_progress": lambda num: print(num, end=" "), "on_skipped": lambda num: print(f"-{num}", end=" ")}
    ecg_waveforms.write_ecgs(Path(out), ecg, paths, workers=int(workers), **told)
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_slow_block_tells_of_every_record_and_what_was_skipped(tmp_path: Path, ecg: EcgData, workers: str) -> None:
    out, script = folder(tmp_path, "out"), tmp_path / "run.py"
    script.write_text(SLOW)
    command = [sys.executable, str(script), str(ecg.root), str(out), workers, *PATHS]
    told = subprocess.check_output(command, env={**os.environ, "PYTHONPATH": os.getcwd()}, text=True).split()
    assert told[:2] == ["0", "-0"]
    assert sum(int(num) for num in told if not num.startswith("-")) == len(PATHS)
    assert [num for num in told if num.startswith("-")] == ["-0", "-1", "-0", "-1", "-0", "-0", "-1"]
    assert told[2:9] == ["0", "1", "1", "1", "-1", "1", "0"]
    assert (out / "ecg.npy").read_bytes() == whole(tmp_path, ecg)


def test_rows_put_behind_others_again_and_again_are_there_once(tmp_path: Path) -> None:
    first, other = folder(tmp_path, "first"), folder(tmp_path, "other")
    rows = np.arange(3, dtype=np.int16).repeat(12_000).reshape(3, 12, 1000)
    np.save(first / "ecg.npy", rows[:1])
    np.save(other / "ecg.npy", rows[1:])
    np.save(tmp_path / "expected.npy", rows)
    for torn in (0, 1000, 0):
        append_ecgs(first, 1, other)
        assert (first / "ecg.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()
        os.truncate(first / "ecg.npy", (first / "ecg.npy").stat().st_size - torn)


def test_a_hospital_without_ecgs(tmp_path: Path) -> None:
    assert write_ecgs(tmp_path, None, []) == ({}, {})
    assert np.load(tmp_path / "ecg.npy").shape == (0, 12, 1000)


@pytest.mark.parametrize(("num_cores", "num_workers"), [(None, 1), (2, 2), (64, 4)])
def test_processes_are_started_where_they_are_worth_it(
    num_cores: int | None, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: num_cores)
    assert [default_workers(num_records) for num_records in (1999, 2000)] == [1, num_workers]


class Stop(Exception):
    """Stands for whatever ends a run."""


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("damage", ["nothing", "array too long", "journal torn", "other journal", "no array"])
@pytest.mark.parametrize("num_blocks", [0, 3, 6])
def test_a_stopped_run_goes_on_where_it_ended(
    tmp_path: Path, ecg: EcgData, num_blocks: int, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder(tmp_path, "out")
    _stop_after(num_blocks, out, ecg)
    array, journal = out / "ecg.npy", out / "ecg.journal"
    if damage == "array too long":  # written, and killed before the journal said so
        array.write_bytes(array.read_bytes() + bytes(24_001))
    elif damage == "journal torn":
        journal.write_bytes(journal.read_bytes() + b'{"2": "E20')
    elif damage == "other journal":
        journal.write_bytes(journal.read_bytes().replace(b'"', b'"0', 1))
    elif damage == "no array":
        array.unlink()
    read: list[str] = []

    def noting(ecg: EcgData, path: str) -> np.ndarray:
        read.append(path)
        return read_ecg(ecg, path)

    monkeypatch.setattr(ecg_waveforms, "read_ecg", noting)
    row_of, rejected = write_ecgs(out, ecg, PATHS)
    assert (rejected, len(row_of)) == (BAD, 19)
    assert array.read_bytes() == whole(tmp_path, ecg)
    assert os.listdir(out) == ["ecg.npy"]
    is_continued = damage not in ("other journal", "no array")
    assert read == PATHS[4 * num_blocks if is_continued else 0 :]


@pytest.mark.usefixtures("small_blocks")
def test_other_settings_or_other_records_begin_anew(tmp_path: Path, ecg: EcgData) -> None:
    out = folder(tmp_path, "out")
    _stop_after(3, out, ecg)
    row_of, _ = write_ecgs(out, ecg, PATHS[1:])
    assert row_of["r01"] == 0
    _stop_after(3, out, ecg)
    _, rejected = write_ecgs(out, ecg.model_copy(update={"accept_hz": (250,)}), PATHS)
    assert set(rejected.values()) == {("E203 sampling rate not accepted", "500 Hz")}


@pytest.mark.usefixtures("small_blocks")
def test_stopped_again_after_a_line_was_torn(tmp_path: Path, ecg: EcgData) -> None:
    out = folder(tmp_path, "out")
    _stop_after(2, out, ecg)
    with (out / "ecg.journal").open("ab") as journal:
        journal.write(b'{"2": "E20')
    _stop_after(2, out, ecg)
    told: list[int] = []
    write_ecgs(out, ecg, PATHS, on_progress=told.append)
    assert told == [16, 4, 2]
    assert (out / "ecg.npy").read_bytes() == whole(tmp_path, ecg)


def _stop_after(num_blocks: int, out: Path, ecg: EcgData) -> None:
    calls = iter(range(num_blocks))

    def stop(num_more: int) -> None:
        if next(calls, None) is None:
            raise Stop

    with pytest.raises(Stop):
        write_ecgs(out, ecg, PATHS, on_progress=stop)


KILLED = """
import sys
from pathlib import Path
from readers.ecg import waveforms as ecg_waveforms
from client.site import EcgData
if __name__ == "__main__":
    ecg_waveforms.BLOCK = 4
    root, out, *paths = sys.argv[1:]
    ecg = EcgData.model_validate({"root": root}, context={"folder": Path(root)})
    ecg_waveforms.write_ecgs(Path(out), ecg, paths, workers=2, on_progress=lambda num: print(num, flush=True))
"""


@pytest.mark.usefixtures("small_blocks")
def test_killed_in_the_midst_of_two_processes(tmp_path: Path, ecg: EcgData) -> None:
    """SIGKILL leaves no process behind, and the next run finishes what was begun."""
    out, script = folder(tmp_path, "out"), tmp_path / "run.py"
    script.write_text(KILLED)
    many = PATHS * 20  # more than is read before the signal arrives
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    run = subprocess.Popen(
        [sys.executable, str(script), str(ecg.root), str(out), *many], stdout=subprocess.PIPE, env=environment
    )
    assert run.stdout is not None
    assert [int(run.stdout.readline()) for _ in range(4)] == [0, 4, 4, 4]
    children = _children(run.pid)
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()
    assert len(children) >= 2
    deadline = time.monotonic() + 20
    while any(_is_running(child) for child in children):
        assert time.monotonic() < deadline, "a reading process outlived its parent"
        time.sleep(0.05)
    assert len((out / "ecg.journal").read_text().splitlines()) >= 4
    write_ecgs(out, ecg, many)
    clean = folder(tmp_path, "clean")
    write_ecgs(clean, ecg, many)
    assert (out / "ecg.npy").read_bytes() == (clean / "ecg.npy").read_bytes()


def _children(pid: int) -> list[int]:
    """Processes whose parent is ``pid``."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(status.parent.name))
    return found


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.usefixtures("small_blocks")
def test_a_reading_process_that_is_ended_is_told(tmp_path: Path, ecg: EcgData, monkeypatch: pytest.MonkeyPatch) -> None:
    out = folder(tmp_path, "out")

    def end_processes(num_more: int) -> None:
        for process in multiprocessing.active_children():
            os.kill(process.pid or 0, signal.SIGKILL)

    with pytest.raises(DiskError, match=r"is memory short\?.*--workers 1"):
        write_ecgs(out, ecg, PATHS, workers=2, on_progress=end_processes)
    write_ecgs(out, ecg, PATHS)
    assert (out / "ecg.npy").read_bytes() == whole(tmp_path, ecg)


def test_journal_is_plain_json(tmp_path: Path, ecg: EcgData) -> None:
    def stop(num_more: int) -> None:
        if num_more:
            raise Stop

    with pytest.raises(Stop):
        write_ecgs(tmp_path, ecg, PATHS, on_progress=stop)
    key, block = [json.loads(line) for line in (tmp_path / "ecg.journal").read_text().splitlines()]
    assert len(key) == 64
    assert block == {"3": list(BAD["r03"]), "8": list(BAD["r08"]), "21": list(BAD["r21"])}
