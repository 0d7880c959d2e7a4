"""The privacy ledger of a hospital: what was released, what it cost, and the answers themselves. Only ever appended.

A line is JSON with sorted keys; it holds its own sha256 and that of the line before. The first is drawn at random, and
its hash stands in the cohort that the ledger counts (``tie.py``). Beside the ledger lie

- ``<ledger>.answers/<request digest>.npz``: the answers of the latest study. The same request gets the same bytes, once
  charged;
- ``<ledger>.head``: number and hash of the last line, written after it.

An answer is on disk before its line, the line before the head, the head before anything leaves, each synced. So a
process killed at any instant leaves one of: an answer without a line, which was never sent; the beginning of a line
behind the line that the head names, never sent either, and cut at the next opening; a line more than the head names,
which counts. Everything else is damage (``LedgerError``), and nothing leaves until a person has looked. A ledger that
was set back together with its head cannot be told from an old one.
"""

import hashlib
import io
import json
import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from client.budget import accounting
from client.budget.accounting import Budget, Charge, Curve, Schedule
from client.budget.tie import require_own, tie
from lemof_model.errors import BudgetError, LedgerError, NotAllowedError, OtherSplitsError
from lemof_model.study import SplitSpec, Study, canonical_json, digest_json
from protocol.disk import hold, sync, told_of_disk, write_whole
from protocol.messages import Packet, Request

log = logging.getLogger("lemof")

LEDGER_VERSION = 1
_NO_HASH = "0" * 64
_on_disk = partial(told_of_disk, "The privacy ledger")
RESTORE_HELP = (
    "Nothing is sent until then: restore ledger and head together from a backup that is no older than they are."
)


@dataclass(frozen=True)
class Entry:
    """One answer in the ledger: to which request of which study, what it cost, and the epsilon of all entries up to it.

    ``schedule`` is set by a census: the noise of the releases that follow.
    """

    at: str
    study: str
    study_name: str
    splits: dict[str, Any]
    stage: str
    round: int
    request: str
    answer: str
    charges: tuple[Charge, ...]
    epsilon: float
    delta: float
    schedule: Schedule | None

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> "Entry":
        """Read a line."""
        values = {name: line[name] for name in cls.__dataclass_fields__}
        charges = tuple(Charge(**charge) for charge in line["charges"])
        schedule = line["schedule"] and Schedule.from_json(line["schedule"])
        return cls(**{**values, "charges": charges, "schedule": schedule})


@contextmanager
def open_ledger(path: Path, budget: Budget, cohort: Path) -> Iterator["Ledger"]:
    """The ledger of a site and its cohort, made if the cohort has none, held alone until the block ends: one answer at
    a time.

    Raises:
        LedgerError: a line was changed, moved or cut, or the cohort has another ledger.
        DiskError: the file cannot be made, read or written.
    """
    with _on_disk(path):
        if not path.exists():
            require_own(cohort, path, None)
        _make_folder(path.parent)
        file = path.open("a+b", buffering=0)
    with file:
        with _on_disk(path):
            hold(file, wait=True)
            ledger = Ledger(path, budget, cohort, file.fileno())
        yield ledger


def read_ledger(path: Path, cohort: Path) -> list[Entry]:
    """The entries of the ledger of a cohort, checked, without changing anything; none where there is no ledger yet.

    Raises:
        LedgerError: a line was changed, moved or cut, or the cohort has another ledger.
    """
    if not path.exists():
        if _head_path(path).exists():
            raise LedgerError(rule=f"The ledger {path.name} must be there", got="only its head", fix=RESTORE_HELP)
        require_own(cohort, path, None)
        return []
    with _on_disk(path), path.open("rb") as file:
        if not hold(file, shared=True):
            log.info("An answer is under way; waiting for its end.")
            hold(file, shared=True, wait=True)
        lines, _ = _check(path, file.read())
    require_own(cohort, path, _first_hash(lines))
    return [Entry.from_json(line) for line in lines[1:]]


def require_same_splits(entries: Sequence[Entry], splits: SplitSpec) -> None:
    """Refuse splits in which the entries, which count by split, would not hold.

    Raises:
        OtherSplitsError: the entries were made under others.
    """
    if entries and entries[0].splits != asdict(splits):
        raise OtherSplitsError(
            rule="The splits of a study must be those that the ledger began with",
            got="others from the plan",
            fix=f"State in the plan: splits: {json.dumps(entries[0].splits)}",
        )


def require_no_folds(study: Study) -> None:
    """Refuse a plan whose networks are taught by overlapping folds: a budget counts each part of the patients once.

    Raises:
        NotAllowedError: the plan has folds.
    """
    if study.folds:
        raise NotAllowedError(
            rule="A hospital with a privacy budget must be asked without folds",
            got=f"folds: {study.folds} in the plan",
            fix="Say folds: 0 in the plan, or go on without the hospital.",
        )


class Ledger:
    """An open ledger, from ``open_ledger``: ask it for what is known, and ``append`` before anything leaves.

    Attributes:
        entries: every answer so far.

    Example::

        with open_ledger(privacy.ledger, privacy.budget, cohort.path) as ledger:
            if (packet := ledger.stored(request)) is None:
                noise = Noise(ledger.schedule(request.study))
                ...                                            # sums, made noisy
                epsilon = ledger.epsilon_after(request.study, noise.charges)
                packet = answer.to_packet()
                ledger.append(request, noise.charges, packet)
            return answer_from_packet(packet)
    """

    def __init__(self, path: Path, budget: Budget, cohort: Path, descriptor: int) -> None:
        self.path = path
        self.budget = budget
        self._descriptor = descriptor
        self._answers = Path(f"{path}.answers")
        lines, self._num_bytes = _check(path, path.read_bytes())
        require_own(cohort, path, _first_hash(lines))
        os.ftruncate(descriptor, self._num_bytes)  # the beginning of a line whose answer was never sent
        self._num_lines, self._hash = len(lines), lines[-1]["hash"] if lines else _NO_HASH
        if not lines:
            self._write_line({"version": LEDGER_VERSION, "drawn": secrets.token_hex(16)})
        elif _head(path) != (self._num_lines, self._hash):
            self._write_head()
        tie(cohort, path, _first_hash(lines) or self._hash)
        self.entries = [Entry.from_json(line) for line in lines[1:]]

    def stored(self, request: Request) -> Packet | None:
        """The answer that this very request got, unless it was pruned: a request is charged once."""
        digest = request_digest(request)
        answered = {entry.request: entry.answer for entry in self.entries}
        path = self._answers / f"{digest}.npz"
        if digest not in answered or not path.is_file():
            return None
        content = path.read_bytes()
        return _unpack(content) if hashlib.sha256(content).hexdigest() == answered[digest] else None

    def schedule(self, study: Study) -> Schedule | None:
        """The noise that the latest census of this study set; None before one."""
        digest = study.digest
        return next((e.schedule for e in reversed(self.entries) if e.study == digest and e.schedule), None)

    def curves(self, study: Study | None = None) -> dict[str, Curve]:
        """Renyi curves of all that was released; of one study only, where it is named."""
        digest = study and study.digest
        entries = [entry for entry in self.entries if digest in (None, entry.study)]
        return accounting.rdp(charge for entry in entries for charge in entry.charges)

    def epsilon_after(self, study: Study, charges: Sequence[Charge]) -> float:
        """The hospital's epsilon once ``charges`` are added.

        Raises:
            OtherSplitsError: the study splits patients in another way than the entries.
            BudgetError: it would pass the budget.
        """
        require_same_splits(self.entries, study.splits)
        added = accounting.rdp(charges)
        limits = {"epsilon": (None, self.budget.epsilon), "study_epsilon": (study, self.budget.study_epsilon)}
        after = {}
        for name, (of_study, limit) in limits.items():
            curves = self.curves(of_study)
            after[name] = max(accounting.epsilon_of(curves[part] + added[part], self.budget.delta) for part in curves)
            if not after[name] <= limit:
                raise BudgetError(
                    rule=f"The privacy budget must last for what is asked (privacy.{name}: {limit:g})",
                    got=f"{after[name]:.4g} with it",
                    fix="Nothing was sent. lemof-client --site SITE ledger shows the rest.",
                )
        return after["epsilon"]

    def append(
        self, request: Request, charges: Sequence[Charge], answer: Packet, schedule: Schedule | None = None
    ) -> None:
        """Keep an answer and charge for it; when this returns, all of it is on the disk, and the answer may leave.

        Raises:
            OtherSplitsError, BudgetError: as ``epsilon_after``; nothing is written.
            DiskError: a full disk; what was written was not sent, so it counts for nothing or too much.
        """
        study = request.study
        epsilon = self.epsilon_after(study, charges)
        content, digest = _pack(answer), request_digest(request)
        entry = Entry(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            study=study.digest,
            study_name=study.name,
            splits=asdict(study.splits),
            stage=request.stage,
            round=request.round,
            request=digest,
            answer=hashlib.sha256(content).hexdigest(),
            charges=tuple(charges),
            epsilon=epsilon,
            delta=self.budget.delta,
            schedule=schedule,
        )
        is_new_study = entry.study not in {known.study for known in self.entries}
        with _on_disk(self.path):
            _make_folder(self._answers)
            write_whole(self._answers / f"{digest}.npz", content)
            self._write_line(asdict(entry))
        self.entries.append(entry)
        if is_new_study:
            self._prune(entry.study)

    def _write_line(self, values: dict[str, Any]) -> None:
        """Write and sync one line, then the head. A line that a full disk cut short is taken back."""
        line = {**values, "index": self._num_lines, "prev_hash": self._hash}
        line["hash"] = digest_json(line)
        content = f"{canonical_json(line)}\n".encode()
        try:
            if os.write(self._descriptor, content) != len(content):
                raise OSError(28, os.strerror(28))
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._num_bytes)
            raise
        self._num_lines, self._hash = self._num_lines + 1, line["hash"]
        self._num_bytes += len(content)
        self._write_head()

    def _write_head(self) -> None:
        """Say which line is the last."""
        write_whole(_head_path(self.path), f"{self._num_lines} {self._hash}\n".encode())

    def _prune(self, study: str) -> None:
        """Delete the answers of other studies."""
        kept = {f"{entry.request}.npz" for entry in self.entries if entry.study == study}
        for path in self._answers.iterdir():
            if path.name not in kept:
                path.unlink()


def request_digest(request: Request) -> str:
    """sha256 (hex) of everything that a request says, arrays included."""
    packet = request.to_packet()
    digest = hashlib.sha256(canonical_json([packet.metrics, packet.config]).encode())
    for name, value in sorted(packet.arrays.items()):
        digest.update(canonical_json([name, value.dtype.str, value.shape]).encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _check(path: Path, content: bytes) -> tuple[list[dict[str, Any]], int]:
    """The lines of a ledger, and where the last whole one ends.

    Raises:
        LedgerError: names the first line that is not as it was written.
    """
    whole, _, torn = content.rpartition(b"\n")
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(whole.split(b"\n") if whole else [], start=1):
        line = _line(text)
        prev_hash = lines[-1]["hash"] if lines else _NO_HASH
        if line is None or (line.get("index"), line.get("prev_hash")) != (number - 1, prev_hash):
            raise LedgerError(
                rule=f"Line {number} of {path.name} must be as it was written", got="another", fix=RESTORE_HELP
            )
        lines.append(line)
    if lines and lines[0].get("version") != LEDGER_VERSION:
        raise LedgerError(
            rule=f"Line 1 of {path.name} must state version {LEDGER_VERSION}",
            got=f"{lines[0].get('version')}",
            fix="Install the lemof release that wrote it, or a newer one.",
        )
    num_told, told = _head(path)
    if num_told > len(lines):
        raise LedgerError(
            rule=f"{path.name} must have {num_told} lines",
            got=f"{len(lines)}: line {len(lines) + 1} is missing",
            fix=RESTORE_HELP,
        )
    hashes = [_NO_HASH, *(line["hash"] for line in lines)]
    if hashes[num_told] != told or num_told + 1 < len(lines):
        raise LedgerError(
            rule=f"Line {len(lines)} of {path.name} must be the one that its head names",
            got="another",
            fix=RESTORE_HELP,
        )
    return lines, len(content) - len(torn)


def _first_hash(lines: Sequence[dict[str, Any]]) -> str | None:
    """What a ledger is known by; None before its first line."""
    return str(lines[0]["hash"]) if lines else None


def _head(path: Path) -> tuple[int, str]:
    """Number and hash of the last line that an answer may have left with; no line at all without a head."""
    head = _head_path(path)
    if not head.exists():
        return 0, _NO_HASH
    number, _, told = head.read_text().partition(" ")
    if not (number.isdecimal() and len(told.strip()) == len(_NO_HASH)):
        raise LedgerError(rule=f"{head.name} must hold a number and a hash", got="something else", fix=RESTORE_HELP)
    return int(number), told.strip()


def _line(text: bytes) -> dict[str, Any] | None:
    """A line of the ledger, None unless it has its own hash and is written as we write."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    if not isinstance(line, dict) or canonical_json(line).encode() != text:
        return None
    unhashed = {name: value for name, value in line.items() if name != "hash"}
    return line if line.get("hash") == digest_json(unhashed) else None


def _head_path(path: Path) -> Path:
    """Where the number and the hash of the last line are."""
    return Path(f"{path}.head")


def _pack(packet: Packet) -> bytes:
    """An answer as the bytes of an npz file."""
    buffer = io.BytesIO()
    words = json.dumps([packet.metrics, packet.config]).encode()
    arrays: dict[str, Any] = {f"array/{name}": value for name, value in packet.arrays.items()}
    np.savez(buffer, words=np.frombuffer(words, np.uint8), **arrays)
    return buffer.getvalue()


def _unpack(content: bytes) -> Packet:
    """Read what ``_pack`` wrote."""
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        metrics, config = json.loads(stored["words"].tobytes())
        arrays = {name.removeprefix("array/"): stored[name] for name in stored.files if name != "words"}
    return Packet(arrays, metrics, config)


def _make_folder(folder: Path) -> None:
    """A folder that is on the disk, with its name, when this returns."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)
