"""The memory of a hospital: who was behind all that it has told. Only ever appended, budget or not.

A folder beside the cohort, so that ``prepare`` and another site file find the same one:

- ``told.jsonl``: a line each for a plan that was judged, a model that ``held_out`` was told to, a permission, and a run
  that used one; each with the hash of all lines so far. A line is synced before anything leaves, so what a kill cuts
  short was never told;
- ``key``: the random key of all hashes in it. The lines alone tell no patient, not even to who knows the ids.

A set of stays is bits over the stays known so far, in the order of their first line; equal sets are kept once. A stay
is one with its label, so that a label that turned is another stay of the same patient.
"""

import base64
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.cohort.hospital import Hospital
from lemof_model.errors import MemoryDamagedError, Problem, ToldBeforeError
from lemof_model.study import Study, canonical_json
from protocol.disk import hold, sync, told_of_disk
from protocol.owner_only import owner_only

log = logging.getLogger("lemof.door")

MEMORY_VERSION = 1
TOLD, KEY = "told.jsonl", "key"
BEGIN, PLAN, HELD_OUT, ALLOWED, RUN = "begin", "plan", "held_out", "allowed", "run"

Line = dict[str, Any]
Hashes = NDArray[np.uint64]

_on_disk = partial(told_of_disk, "The memory of what was told")
_RESTORE = "Nothing is sent until then: restore the folder whole from its latest backup."


class Memory:
    """What was told until now, from ``read_memory`` or ``open_memory``.

    A stay is known by its place among those of all plans so far, and a set by its number. What ``add_hospital`` and
    ``add_set`` add is known here alone until the line of a plan is appended.
    """

    def __init__(self, folder: Path, key: bytes, lines: Sequence[Line], descriptor: int = -1) -> None:
        self.folder = folder
        self._key, self._lines, self._descriptor = key, list(lines), descriptor
        self._num_new_stays = self._num_new_sets = 0

    def lines(self, kind: str, study: Study | None = None) -> list[Line]:
        """All lines of a kind; of one study only, where it is named."""
        wanted = study and study.digest
        return [line for line in self._lines if line["kind"] == kind and wanted in (None, line["study"])]

    def num_allowed(self, study: Study) -> int:
        """Permissions of a study that nothing has used."""
        used: int = sum(line["uses"] for kind in (PLAN, HELD_OUT, RUN) for line in self.lines(kind, study))
        return len(self.lines(ALLOWED, study)) - used

    def require_allowed(self, study: Study, uses: int, problems: Sequence[Problem]) -> None:
        """Have as many permissions of a study that nothing has used.

        Raises:
            ToldBeforeError: there are fewer; ``problems`` say what they are needed for.
        """
        if uses > self.num_allowed(study):
            raise ToldBeforeError(*problems)

    @cached_property
    def _stays(self) -> list[Hashes]:
        """Patient and stay of every place."""
        parts = [_unpacked(line["stays"]).view(np.uint64).reshape(2, -1) for line in self.lines(PLAN)]
        return list(np.concatenate([np.zeros((2, 0), np.uint64), *parts], axis=1))

    @cached_property
    def _bits(self) -> list[bytes]:
        """The sets of places, by their number."""
        return [_unpacked(text).tobytes() for plan in self.lines(PLAN) for text in plan["sets"]]

    @cached_property
    def _numbers(self) -> dict[bytes, int]:
        """The number of each set."""
        return {bits: number for number, bits in enumerate(self._bits)}

    def size(self, number: int) -> tuple[int, int]:
        """Patients and stays of a set."""
        places = places_in(self._bits[number])
        return len(np.unique(self._stays[0][places])), len(places)

    def num_apart(self, one: int, other: int) -> int:
        """How many patients are not in one set as they are in another."""
        if one == other:
            return 0
        bits = [np.frombuffer(self._bits[number], np.uint8) for number in (one, other)]
        short, long = sorted(bits, key=len)
        apart = long.copy()
        apart[: len(short)] ^= short
        return len(np.unique(self._stays[0][places_in(apart.tobytes())]))

    def add_hospital(self, hospital: Hospital) -> NDArray[np.int64]:
        """The place of each of a hospital's stays, with its label in the hospital's study; ``(N,)``."""
        stays = hospital.stays
        ids = zip(stays.patient_N.tolist(), hospital.stay_id_N.tolist(), stays.long_stay_N.tolist(), strict=True)
        own_N2 = np.array([self._marks(*one) for one in ids], np.uint64).reshape(-1, 2)
        known = {stay: place for place, stay in enumerate(self._stays[1].tolist())}
        is_new = np.array([stay not in known for stay in own_N2[:, 1].tolist()], bool)
        known |= {stay: len(known) + n for n, stay in enumerate(own_N2[is_new, 1].tolist())}
        self._stays = [np.append(old, new) for old, new in zip(self._stays, own_N2[is_new].T, strict=True)]
        self._num_new_stays += int(is_new.sum())
        return np.array([known[stay] for stay in own_N2[:, 1].tolist()], np.int64)

    def add_set(self, places: NDArray[np.int64]) -> int:
        """The number of a set of places."""
        bits = bits_of(places, len(self._stays[0]))
        if bits not in self._numbers:
            self._numbers[bits] = len(self._bits)
            self._bits.append(bits)
            self._num_new_sets += 1
        return self._numbers[bits]

    def mark(self, *words: str) -> str:
        """A keyed hash of some words."""
        return hashlib.blake2b("\0".join(words).encode(), key=self._key, digest_size=16).hexdigest()

    def _marks(self, patient: int, stay_id: Any, label: int) -> list[int]:
        """A patient, and a stay with its label."""
        of_patient = patient.to_bytes(8, "big")
        words = (b"patient", of_patient), (b"stay", of_patient, str(stay_id).encode(), bytes([label]))
        digests = (hashlib.blake2b(b"\0".join(each), key=self._key, digest_size=8).digest() for each in words)
        return [int.from_bytes(digest, "big") for digest in digests]

    def append(self, kind: str, study: Study, **values: Any) -> None:
        """Remember; when this returns it is on the disk. Of a plan also the stays and sets that it added.

        Raises:
            DiskError: the disk is full, or may not be written.
        """
        line: Line = {"kind": kind, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        line |= {"study": study.digest, "name": study.name, **values}
        if kind == PLAN:
            num_old, num_sets = len(self._stays[0]) - self._num_new_stays, len(self._bits) - self._num_new_sets
            line["stays"] = _packed(np.concatenate([each[num_old:] for each in self._stays]).tobytes())
            line["sets"] = [_packed(bits) for bits in self._bits[num_sets:]]
            self._num_new_stays = self._num_new_sets = 0
        with _on_disk(self.folder):
            _write_line(self._descriptor, self._lines, line)


def read_memory(folder: Path) -> Memory:
    """What was told, checked, without changing anything; empty where nothing was.

    Raises:
        MemoryDamagedError: a line was changed, moved or cut, or the key is another.
    """
    path = folder / TOLD
    _require_whole(folder)
    if not path.exists():
        return Memory(folder, b"", [])
    with _on_disk(folder):
        found = path.stat()
        lines = _lines(path, (found.st_ino, found.st_size, found.st_mtime_ns))
    return Memory(folder, _key(folder, lines) if lines else b"", lines)


@contextmanager
def open_memory(folder: Path) -> Iterator[Memory]:
    """The memory, made if there is none, held alone until the block ends.

    Raises:
        MemoryDamagedError: a line was changed, moved or cut, or the key is another.
        DiskError: the folder cannot be made, read or written.
    """
    _require_whole(folder)
    with _on_disk(folder), owner_only():
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / TOLD).open("a+b", buffering=0)
    with file:
        with _on_disk(folder):
            hold(file, wait=True)
            content = (folder / TOLD).read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            os.ftruncate(file.fileno(), len(whole))  # the beginning of a line whose answer was never sent
            lines = list(_checked(folder / TOLD, whole))
            if not lines:
                key = os.urandom(32)
                with owner_only():
                    (folder / KEY).write_bytes(key)
                sync(folder / KEY, folder, folder.parent)
                _write_line(file.fileno(), lines, {"kind": BEGIN, "version": MEMORY_VERSION, "key": _mark_of(key)})
        yield Memory(folder, _key(folder, lines), lines, file.fileno())


def bits_of(places: NDArray[np.int64], num: int) -> bytes:
    """A set of places among ``num`` as bits, without the zeros behind the last.

    Example:
        >>> bits_of(np.array([1, 9]), 100), places_in(bits_of(np.array([1, 9]), 100)).tolist()
        (b'@@', [1, 9])
    """
    is_in = np.zeros(num, bool)
    is_in[places] = True
    return np.packbits(is_in).tobytes().rstrip(b"\0")


def places_in(bits: bytes) -> NDArray[np.int64]:
    """The places that ``bits_of`` set."""
    return np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8)))


def _packed(content: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(zlib.compress(content, 9)).decode()


def _unpacked(text: str) -> NDArray[np.uint8]:
    """Read what ``_packed`` wrote."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)


def _write_line(descriptor: int, lines: list[Line], line: Line) -> None:
    """Write and sync one line behind others. One that a full disk cut short is taken back."""
    line["hash"] = _hash(lines[-1]["hash"] if lines else "", line)
    content, before = f"{canonical_json(line)}\n".encode(), os.fstat(descriptor).st_size
    try:
        if os.write(descriptor, content) != len(content):
            raise OSError(28, os.strerror(28))
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, before)
        raise
    lines.append(line)


def _hash(before: str, line: Mapping[str, Any]) -> str:
    """The hash of a line and of all before it."""
    unhashed = {name: value for name, value in line.items() if name != "hash"}
    return hashlib.sha256(f"{before}{canonical_json(unhashed)}".encode()).hexdigest()


@lru_cache(maxsize=16)
def _lines(path: Path, stamp: tuple[int, ...]) -> tuple[Line, ...]:
    """The whole lines of a file, read once as long as its ``stamp`` is the same."""
    return _checked(path, path.read_bytes())


def _checked(path: Path, content: bytes) -> tuple[Line, ...]:
    """The whole lines of a file.

    Raises:
        MemoryDamagedError: names the first line that is not as it was written.
    """
    lines: list[Line] = []
    for number, text in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            line = json.loads(text)
            is_whole = line["hash"] == _hash(lines[-1]["hash"] if lines else "", line)
        except (ValueError, TypeError, KeyError, AttributeError):
            is_whole = False
        if not is_whole or (number == 1 and line.get("version") != MEMORY_VERSION):
            raise MemoryDamagedError(
                rule=f"Line {number} of {path.name} must be as it was written",
                got=f"another from {path.parent}",
                fix=_RESTORE,
                code="E606",
            )
        lines.append(line)
    return tuple(lines)


def _mark_of(key: bytes) -> str:
    """What tells that a key is the right one."""
    return hashlib.blake2b(b"told", key=key, digest_size=16).hexdigest()


def _key(folder: Path, lines: Sequence[Line]) -> bytes:
    """The key that the lines were written with."""
    with _on_disk(folder):
        key = (folder / KEY).read_bytes()
    if _mark_of(key) != lines[0]["key"]:
        raise MemoryDamagedError(
            rule=f"{KEY} must be the one that {TOLD} was written with",
            got=f"another from {folder}",
            fix=_RESTORE,
            code="E606",
        )
    return key


def _require_whole(folder: Path) -> None:
    """Refuse a folder that one of its files was taken from. A key is made once the file is there."""
    told, key = folder / TOLD, folder / KEY
    if (key.exists() and not told.exists()) or (told.exists() and told.stat().st_size and not key.exists()):
        raise MemoryDamagedError(
            rule=f"{TOLD} and {KEY} must be there together",
            got=f"one of them from {folder}",
            fix=_RESTORE,
            code="E606",
        )
