"""What a run leaves behind, and how it goes on after a stop.

    plan.yaml      the resolved plan
    state/         one file per finished round: the added sums, on disk before the next round begins; the run's own id
    model/         lemof.safetensors and card.json
    metrics.json, importance.json, rounds.csv, audit.jsonl, timings.json, report.html

To resume is to run the same study again: a round that is in ``state/`` is read instead of asked, and everything between
rounds is computed anew, so a resumed run gives the same bytes as one that was never stopped.
"""

import csv
import hashlib
import io
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save

from lemof_model.errors import ConfigError, DiskError, VersionError
from lemof_model.study import Study
from protocol.disk import hold, write_whole
from protocol.plan import dump_plan

LOCK, WAITING, FAILURE, RUN = "lock", "waiting", "failure", "run"


class Asked(NamedTuple):
    """What a person writes to name the plan, the run folder, and that a run goes on."""

    plan: str
    out: str
    resume: str


ON_THE_COMMAND_LINE = Asked("--plan", "--out", "--resume")
WITH_FLWR_RUN = Asked('plan="..." of --run-config', 'out="..." of --run-config', "resume=true to --run-config")


@dataclass(frozen=True)
class SiteReply:
    """What one site did in one round: its counts, or why it did not answer; its own sums where a stage needs them.

    ``epsilon`` and ``delta`` are what a site with a privacy budget has spent until then; 0 without a budget.
    """

    counts: Mapping[str, int]
    too_small: tuple[str, ...] = ()
    refused: str = ""
    cohort_digest: str = ""
    epsilon: float = 0.0
    delta: float = 0.0
    sums: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """One finished round: sums and counts over all sites that answered, and each site's part by name; of networks that
    were trained, how the sites' updates lay to one another, by block and site (``suspicion.Apart``)."""

    stage: str
    number: int
    sums: Mapping[str, NDArray[np.float64]]
    counts: Mapping[str, int]
    sites: Mapping[str, SiteReply]
    apart: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)

    def answered(self, group: str | None = None) -> list[str]:
        """Names of the sites that answered, or whose answer has a group."""
        return [name for name, reply in self.sites.items() if not reply.refused and group in (None, *reply.counts)]


class RunStore:
    """The run folder. Every file is written whole, synced and renamed.

    Args:
        out: the folder; it must be new or empty unless ``resume``.
        asked: how the person at work wrote folder and resumption, for messages.

    Raises:
        ConfigError: the folder holds another run.
    """

    def __init__(self, out: Path, resume: bool = False, asked: Asked = ON_THE_COMMAND_LINE) -> None:
        self.out, self.asked = out, asked
        self._state = out / "state"
        self._rounds: list[Round] = []
        self._seconds: dict[str, float] = {}
        self._bytes: dict[str, dict[str, int]] = {}
        self._started = time.monotonic()
        if out.is_dir() and any(out.iterdir()) and not resume:
            raise ConfigError(
                rule=f"{asked.out} must be a new or an empty folder",
                got=f"{out}",
                fix=f"To go on with its run add {asked.resume}.",
            )
        try:
            self._state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(
                rule=f"{asked.out} must be a folder that can be written", got=f"{out}: {error.strerror}"
            ) from None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder against a second coordinator, which would write other rounds into it.

        Raises:
            ConfigError: another coordinator is at work in it.
            DiskError: the disk cannot lock files.
        """
        with (self._state / LOCK).open("ab") as lock:
            if not self._take(lock):
                time.sleep(0.2)  # somebody may just have looked whether one is at work
                if not self._take(lock):
                    raise ConfigError(
                        rule="One coordinator at a time must work on a run",
                        got=f"another at work on {self.out}",
                        fix="Nothing was changed. Wait for its end, or stop it; then run the same command.",
                    )
            yield

    def _take(self, lock: BinaryIO) -> bool:
        """Whether the lock is ours now."""
        try:
            return hold(lock)
        except OSError as error:
            raise DiskError(
                rule=f"{self.asked.out} must be on a disk that can lock files",
                got=f"{error.strerror} from {self.out}",
                fix="Name another.",
            ) from None

    @cached_property
    def run(self) -> str:
        """The run's id, 32 random hexadecimal digits; a resumed run keeps it."""
        path = self._state / RUN
        if not path.is_file():
            _write(path, os.urandom(16).hex().encode(), self.asked.resume)
        return path.read_text(encoding="utf-8")

    def begin(self, study: Study, source_digest: str) -> None:
        """Write the resolved plan and the digest of the source; on resume both must be the same."""
        plan, path = dump_plan(study), self.out / "plan.yaml"
        if path.is_file() and path.read_text(encoding="utf-8") != plan:
            raise ConfigError(
                rule="A run must be resumed with its own plan", got=f"another one for {self.out}", fix=f"Use {path}."
            )
        source = self._state / "source_digest"
        if source.is_file() and source.read_text(encoding="utf-8") != source_digest:
            raise VersionError(
                rule="A run must be resumed with the source it was begun with",
                got=f"another one for {self.out}",
                fix="Install that release of lemof, or begin a new run.",
            )
        _write(source, source_digest.encode(), self.asked.resume)
        self.write("plan.yaml", plan)
        for name in (WAITING, FAILURE):
            note(self.out, name, "")

    def next_stored(self, stage: str, number: int) -> Round | None:
        """The round that comes next, if an earlier run has finished it."""
        path = self._path(stage, number)
        if not path.is_file():
            return None
        with safe_open(path, framework="np") as file:
            header = json.loads(file.metadata()["round"])
        arrays = load_file(path)
        sums = {name[len("sum/") :]: value for name, value in arrays.items() if name.startswith("sum/")}
        sites = {}
        for name, reply in header["sites"].items():
            prefix = f"site/{name}/"
            own = {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}
            sites[name] = SiteReply(**{**reply, "too_small": tuple(reply["too_small"])}, sums=own)
        stored = Round(stage, number, sums, header["counts"], sites, header["apart"])
        self._rounds.append(stored)
        self.write("rounds.csv", self._attendance())  # the machine may have stopped between the round and its row
        return stored

    def finish(self, finished: Round) -> None:
        """Put a finished round on disk, and its attendance into rounds.csv."""
        path = self._path(finished.stage, finished.number)
        arrays = {f"sum/{name}": np.asarray(value) for name, value in finished.sums.items()}
        for site, reply in finished.sites.items():
            arrays |= {f"site/{site}/{name}": np.asarray(value) for name, value in reply.sums.items()}
        sites = {
            name: {
                "counts": dict(reply.counts), "too_small": reply.too_small, "refused": reply.refused,
                "cohort_digest": reply.cohort_digest, "epsilon": reply.epsilon, "delta": reply.delta,
            }
            for name, reply in finished.sites.items()
        }  # fmt: skip
        header = json.dumps({"counts": finished.counts, "sites": sites, "apart": finished.apart}, sort_keys=True)
        content = save({name: _packed(value) for name, value in arrays.items()}, metadata={"round": header})
        _write(path, content, self.asked.resume)
        self._rounds.append(finished)
        self.write("rounds.csv", self._attendance())

    def audit(self, **event: Any) -> None:
        """Append one line to audit.jsonl: what was asked of whom, when, and what came back."""
        line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **event}, sort_keys=True)
        with (self.out / "audit.jsonl").open("a+b") as file:
            file.seek(max(file.tell() - 1, 0))
            cut_off = file.read(1) not in (b"", b"\n")  # by a kill in the middle of a line
            file.write((b"\n" if cut_off else b"") + line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def timed(self, stage: str, seconds: float, num_bytes: Mapping[str, Mapping[str, int]]) -> None:
        """Add a round's seconds to its stage, and bytes to each site."""
        self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds
        for site, ways in num_bytes.items():
            known = self._bytes.setdefault(site, {"sent": 0, "received": 0})
            for way, count in ways.items():
                known[way] += count

    def write(self, name: str, content: str | bytes) -> Path:
        """Write one file of the run folder."""
        path = self.out / name
        path.parent.mkdir(exist_ok=True)
        _write(path, content.encode() if isinstance(content, str) else content, self.asked.resume)
        return path

    def write_json(self, name: str, value: Any) -> Path:
        """Write JSON with NaN as null."""
        return self.write(name, json.dumps(without_nan(value), indent=2, allow_nan=False) + "\n")

    def write_model(self, model: Mapping[str, NDArray[Any]], card: Mapping[str, Any]) -> None:
        """Write the model and its card, which holds the digest of the weights file."""
        content = save({name: _packed(value) for name, value in sorted(model.items())})
        self.write("model/lemof.safetensors", content)
        self.write_json("model/card.json", {"digest": hashlib.sha256(content).hexdigest(), **card})

    def write_timings(self) -> None:
        """Write seconds by stage and bytes by site of the rounds asked; a run that asked none keeps its own."""
        if not self._seconds and (self.out / "timings.json").is_file():
            return
        seconds = {**self._seconds, "total": time.monotonic() - self._started}
        self.write_json("timings.json", {"seconds": seconds, "bytes": self._bytes})

    def _path(self, stage: str, number: int) -> Path:
        return self._state / f"{number:04d}-{stage}.safetensors"

    def _attendance(self) -> str:
        """rounds.csv: one row per round and site, with the stays of its largest group and the groups left out."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["number", "stage", "site", "answered", "num_stays", "num_groups_too_small", "reason"])
        for finished in self._rounds:
            for name, reply in finished.sites.items():
                num_stays = max(reply.counts.values(), default=0)
                row = [int(not reply.refused), num_stays, len(reply.too_small), reply.refused]
                writer.writerow([finished.number, finished.stage, name, *row])
        return text.getvalue()


def note(out: Path, name: str, text: str) -> None:
    """Say in a run folder for whom its coordinator waits (``WAITING``), or why it ended (``FAILURE``)."""
    path = out / "state" / name
    with suppress(OSError):  # a full disk is told by what must be written
        path.unlink(missing_ok=True)
        if text:
            path.write_text(f"{time.strftime('%Y-%m-%d %H:%M')} {text}\n", encoding="utf-8")


def without_nan(value: Any) -> Any:
    """The same value with NaN as None, as JSON wants it.

    Example:
        >>> without_nan({"auroc": float("nan"), "n": 3})
        {'auroc': None, 'n': 3}
    """
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, np.generic):
        return without_nan(value.item())
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _packed(value: NDArray[Any]) -> NDArray[Any]:
    """Contiguous, as safetensors wants it, and still a scalar if it was one."""
    return np.ascontiguousarray(value).reshape(np.shape(value))


def is_running(run: Path) -> bool:
    """Whether a coordinator is at work on a run folder."""
    try:
        with (run / "state" / LOCK).open("rb") as lock:
            return not hold(lock, shared=True)
    except OSError:  # no lock, or not ours to look at
        return False


def _write(path: Path, content: bytes, resume: str) -> None:
    """Write whole: a partial file, synced, then renamed."""
    try:
        write_whole(path, content)
    except OSError as error:
        raise DiskError(
            rule=f"{path} must be written to go on",
            got=f"{error.strerror}",
            fix=f"Every finished round is on disk. Free space, then run the same command with {resume}.",
        ) from None
