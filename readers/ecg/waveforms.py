"""All chosen ECG records to ``ecg.npy``: in blocks, by several processes, and going on where a stopped run ended.

Rows are the readable records in the order in which they are given, whatever the number of processes. A block is on the
disk before the journal says so; a run that finds a journal cuts the array to what it vouches for and goes on.
"""

import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from threadpoolctl import threadpool_limits

from lemof_model.errors import DiskError
from readers.ecg.faults import RejectedRecordError, Rejection
from readers.ecg.record import ECG_SHAPE, read_ecg
from readers.ecg.settings import Settings

STORE, JOURNAL = "ecg.npy", "ecg.journal"
READER_VERSION = 2  # a journal of another one is not continued
BLOCK = 250
FEW_RECORDS = 2000  # read in less time than processes take to start
MAX_WORKERS = 4
TELL_SECONDS = 0.5  # a block that takes longer says how far it is

Rejected = dict[int, Rejection]  # by place in the block
OnMore = Callable[[int], None]
ReadRecords = tuple[bytes, Rejected]  # rows of the array, and what has none


def default_workers(num_records: int) -> int:
    """How many processes are worth starting: one for each core, at most four, and only one for few records."""
    return 1 if num_records < FEW_RECORDS else min(os.cpu_count() or 1, MAX_WORKERS)


def write_ecgs(
    folder: Path,
    ecg: Settings | None,
    paths: Sequence[str],
    *,
    workers: int | None = None,
    on_progress: OnMore = lambda num_more: None,
    on_skipped: OnMore = lambda num_more: None,
) -> tuple[dict[str, int], dict[str, Rejection]]:
    """Read records, named by their paths in the record list, into ``folder/ecg.npy``; a few blocks are held at most.

    ``on_progress`` is told how many more records are done, at first how many a stopped run did, and ``on_skipped`` how
    many more were rejected. A hospital without ECGs (None) gets an array without rows.

    Returns:
        the row of each record that was read, and what is told of each that was rejected: reason and detail.

    Raises:
        DiskError: a process that reads was ended from outside, as a rule because memory ran out.
    """
    store, journal = folder / STORE, folder / JOURNAL
    blocks = [paths[start : start + BLOCK] for start in range(0, len(paths), BLOCK)]
    done = _resume(store, journal, _key(ecg, paths), blocks)
    on_progress(sum(map(len, blocks[: len(done)])))
    on_skipped(sum(map(len, done)))
    num_told = 0  # of the block that is being read

    def tell(num_more: int) -> None:
        nonlocal num_told
        num_told += num_more
        on_progress(num_more)

    with store.open("r+b") as array, journal.open("a", encoding="ascii") as log:
        array.seek(0, os.SEEK_END)
        workers = workers or default_workers(len(paths))
        for content, rejected in _read_blocks(ecg, blocks[len(done) :], workers, tell):
            array.write(content)
            _sync(array)
            log.write(json.dumps(rejected) + "\n")
            _sync(log)
            on_skipped(len(rejected))
            tell(len(blocks[len(done)]) - num_told)
            num_told = 0
            done.append(rejected)
        reason_of = {paths[BLOCK * index + place]: why for index, bad in enumerate(done) for place, why in bad.items()}
        row_of = {path: row for row, path in enumerate(path for path in paths if path not in reason_of)}
        array.seek(0)
        array.write(_header(len(row_of)))
        _sync(array)
    journal.unlink()
    return row_of, reason_of


def append_ecgs(folder: Path, num_rows: int, other: Path) -> None:
    """Put the rows of ``other/ecg.npy`` behind the first rows of ``folder/ecg.npy``; done again, it changes nothing."""
    num_more = len(np.load(other / STORE, mmap_mode="r"))
    with (folder / STORE).open("r+b") as array, (other / STORE).open("rb") as more:
        array.truncate(_num_bytes(num_rows))
        array.seek(0, os.SEEK_END)
        more.seek(_num_bytes(0))
        shutil.copyfileobj(more, array)
        array.seek(0)
        array.write(_header(num_rows + num_more))
        _sync(array)


def read_records_of(ecg: Settings, paths: Sequence[str], on_progress: OnMore) -> ReadRecords:
    """Read some records, one after the other; where that takes long, ``on_progress`` is told how many more are done."""
    rows: list[bytes] = []
    rejected: Rejected = {}
    num_told, told_at = 0, time.monotonic()
    for place, path in enumerate(paths):
        if time.monotonic() - told_at >= TELL_SECONDS:
            on_progress(place - num_told)
            num_told, told_at = place, time.monotonic()
        try:
            rows.append(read_ecg(ecg, path).tobytes())
        except RejectedRecordError as error:
            rejected[place] = (error.reason.value, error.detail)
    return b"".join(rows), rejected


def _resume(store: Path, journal: Path, key: str, blocks: Sequence[Sequence[str]]) -> list[Rejected]:
    """What a stopped run rejected in each block that it finished, with both files cut to these; or begin anew."""
    try:
        *lines, _torn = journal.read_bytes().split(b"\n")
        found, *done = [json.loads(line) for line in lines]
        finished = [{int(place): (reason, detail) for place, (reason, detail) in rejected.items()} for rejected in done]
        num_rows = sum(len(block) - len(bad) for block, bad in zip(blocks, finished, strict=False))
        num_bytes = _num_bytes(num_rows)
        if found == key and store.stat().st_size >= num_bytes:
            os.truncate(store, num_bytes)
            os.truncate(journal, sum(len(line) + 1 for line in lines))
            return finished
    except (FileNotFoundError, ValueError, AttributeError):  # there is none, or it is not one of ours
        pass
    store.write_bytes(_header(0))
    journal.write_text(json.dumps(key) + "\n", encoding="ascii")
    return []


def _read_blocks(
    ecg: Settings | None, blocks: Sequence[Sequence[str]], workers: int, on_progress: OnMore
) -> Iterator[ReadRecords]:
    """Each block, in order. Processes take turns and are given the next block when they hand over the last one; until
    then they send how many more records are done, now and then."""
    if not blocks:
        return
    assert ecg is not None, "records of a hospital without ECGs"
    num_processes = min(workers, len(blocks))
    if num_processes <= 1:
        with threadpool_limits(1):
            yield from (read_records_of(ecg, block, on_progress) for block in blocks)
        return
    with ExitStack() as running:
        connections = [running.enter_context(_reading_process(ecg)) for _ in range(num_processes)]
        try:
            for connection, block in zip(connections, blocks, strict=False):
                connection.send(block)
            for index in range(len(blocks)):
                connection = connections[index % num_processes]
                while isinstance(done := connection.recv(), int):
                    on_progress(done)
                if index + num_processes < len(blocks):
                    connection.send(blocks[index + num_processes])
                yield done
        except (EOFError, ConnectionError):
            raise DiskError(
                rule="Every process that reads ECGs must run to its end",
                got="one that was stopped (is memory short?)",
                fix="Run the same command with --workers 1: it goes on where it stopped.",
            ) from None


@contextmanager
def _reading_process(ecg: Settings) -> Iterator[Connection]:
    """A process that reads blocks; it ends when our end of the connection closes, also because we were killed."""
    spawn = multiprocessing.get_context("spawn")
    ours, its = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(its, ecg), daemon=True)
    with its:
        process.start()
    try:
        with ours:
            yield ours
    finally:
        process.join()


def _serve(connection: Connection, ecg: Settings) -> None:
    """Read block after block, with one thread; Ctrl-C is for the parent to deal with."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(1)
    with suppress(EOFError, ConnectionError):
        while True:
            connection.send(read_records_of(ecg, connection.recv(), connection.send))


def _key(ecg: Settings | None, paths: Sequence[str]) -> str:
    """What a journal is about: reader, settings and records."""
    settings = ecg.model_dump_json() if ecg else ""
    return hashlib.sha256(json.dumps([READER_VERSION, settings, *paths]).encode()).hexdigest()


def _num_bytes(num_records: int) -> int:
    """The size of ecg.npy."""
    return len(_header(0)) + num_records * int(np.prod(ECG_SHAPE)) * 2


def _header(num_records: int) -> bytes:
    """The first bytes of ecg.npy; numpy pads them so that the number of rows can change in place."""
    file = io.BytesIO()
    shape = (num_records, *ECG_SHAPE)
    npy.write_array_header_1_0(
        file, {"descr": npy.dtype_to_descr(np.dtype(np.int16)), "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def _sync(file: IO[Any]) -> None:
    """Onto the disk, not only out of this process."""
    file.flush()
    os.fsync(file.fileno())
