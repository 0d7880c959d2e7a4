"""What a run folder says, read once: the only place of the report that opens files. It writes none: ``RunStore`` would
(it brings ``rounds.csv`` up to the round it has read)."""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from lemof_model.errors import ConfigError, DataError
from lemof_model.study import Study
from protocol.plan import load_plan
from server.run_store import FAILURE, WAITING, is_running

WEIGHTS = "model/lemof.safetensors"
GENERATED = "generated.json"
"""Beside a site file: its patients are generated. In a run folder: which of its hospitals are, and their ceiling."""


@dataclass(frozen=True)
class RunFiles:
    """The files of a finished run.

    Attributes:
        rounds: rows of ``rounds.csv``, one per round and site.
        audit: audit lines of the finished rounds by number; of a round that was asked twice, the last.
        census: each site's counts by ``split/modality[/label]``; empty without ``state/``.
        without_ecgs: hospitals that have no ECG at all, as their census says; empty without ``state/``.
        generated: which hospitals' patients are generated, and the best AUROC by population; None where none are.
    """

    study: Study
    metrics: Mapping[str, Any]
    importance: Mapping[str, Any]
    card: Mapping[str, Any]
    rounds: list[dict[str, str]]
    audit: Mapping[int, Mapping[str, Any]]
    timings: Mapping[str, Any]
    census: Mapping[str, Mapping[str, int]]
    without_ecgs: frozenset[str]
    generated: Mapping[str, Any] | None

    @property
    def sites(self) -> list[str]:
        """The hospitals that the census fixed."""
        return list(self.card["sites"])


def read_run(run: Path) -> RunFiles:
    """Read a finished run.

    Raises:
        DataError: it is not one, or a file of it is damaged.
    """
    study = load_plan(_file(run, "plan.yaml"))
    with _file(run, "rounds.csv").open(newline="", encoding="utf-8") as file:
        rounds = list(csv.DictReader(file))
    numbers = {int(row["number"]) for row in rounds}
    census = _census(run)
    named = {site: {*reply["counts"], *reply["too_small"]} for site, reply in census.items() if not reply["refused"]}
    return RunFiles(
        study=study,
        metrics=_json(run, "metrics.json"),
        importance=_json(run, "importance.json"),
        card=_json(run, "model/card.json"),
        rounds=rounds,
        audit={line["round"]: line for line in _audit_lines(run) if line["round"] in numbers},
        timings=_json(run, "timings.json"),
        census={site: reply["counts"] for site, reply in census.items()},
        without_ecgs=frozenset(
            site for site, groups in named.items() if not any("ecg" in g.split("/") for g in groups)
        ),
        generated=_json(run, GENERATED) if (run / GENERATED).is_file() else None,
    )


def describe_run(run: Path) -> dict[str, Any]:
    """One line about a run, finished or not: name, plan digest, status, hospitals, AUROC of ``full`` over all stays."""
    study = load_plan(run / "plan.yaml")
    found: dict[str, Any] = {"run": run.absolute().name, "study": study.name, "plan_digest": study.digest}
    finished = sorted(path.stem for path in (run / "state").glob("*.safetensors"))
    found["status"] = _status(run, finished[-1] if finished else "")
    found |= {"sites": None, "auroc": None}
    if (run / "metrics.json").is_file():
        pooled = full_of(run)
        found |= {"status": "finished", "sites": len(_json(run, "model/card.json")["sites"])}
        found["auroc"] = pooled and pooled["auroc"]
    return found


def _status(run: Path, last: str) -> str:
    """What a run without metrics is doing, for whom it waits, or why it ended."""
    after = f" after {last}" if last else ""
    if is_running(run):
        waiting = _note(run, WAITING)
        return f"running{after}" + (f", waiting since {waiting[:16]} for {waiting[17:]}" if waiting else "")
    if failure := _note(run, FAILURE):
        return f"failed{after}: {failure[17:]}"
    return f"stopped{after}" if last else "not begun"


def _note(run: Path, name: str) -> str:
    """A note of the coordinator in the state folder: time and text; empty without one."""
    with suppress(OSError):
        return (run / "state" / name).read_text(encoding="utf-8").strip()
    return ""


def full_of(run: Path) -> Mapping[str, Any] | None:
    """The metrics of the full model over all stays of a finished run; None over nobody."""
    pooled: Mapping[str, Any] | None = _json(run, "metrics.json")["variants"]["full"]["all"]["pooled"]
    return pooled


def verify_run(run: Path) -> dict[str, bool]:
    """Whether the weights and the plan of a run are those that its card states, and the levels those of its metrics."""
    card, metrics, importance = (_json(run, name) for name in ("model/card.json", "metrics.json", "importance.json"))
    best = {modality: ranking["best_level"] for modality, ranking in importance.items()}
    return {
        f"{WEIGHTS} has the card's digest": hashlib.sha256(_file(run, WEIGHTS).read_bytes()).hexdigest()
        == card["digest"],
        "plan.yaml has the card's plan digest": load_plan(_file(run, "plan.yaml")).digest == card["plan_digest"],
        "importance.json and metrics.json name the same best levels": best == metrics["best_level"],
    }


def is_run(folder: Path) -> bool:
    """Whether a folder looks like a run."""
    return (folder / "plan.yaml").is_file() and (folder / "state").is_dir()


def runs_of(folder: Path) -> list[Path]:
    """The runs of a folder by name: itself if it is one, the one that it lies in, or those up to two folders below.

    Raises:
        ConfigError: there is no such folder.
    """
    if own := next((place for place in (folder, *folder.absolute().parents[:2]) if is_run(place)), None):
        return [own]
    if not folder.is_dir():
        raise ConfigError(
            rule="DIR must be a folder", got=f"{folder}", fix="Name a run, or the folder that holds run folders."
        )
    return next((found for depth in ("*/", "*/*/") if (found := sorted(filter(is_run, folder.glob(depth))))), [])


def the_run(folder: Path, command: str) -> Path:
    """The run that is meant by a folder: the only one of ``runs_of``, or what looks like a part of one: what is missing
    is then told by whoever reads it.

    Raises:
        ConfigError: there are several; names them.
        DataError: there is none.
    """
    found = runs_of(folder) if folder.exists() else []
    if len(found) > 1:
        commands = "\n".join(f"  lemof-server {command} {path}" for path in found)
        raise ConfigError(
            rule="RUN must be one run", got=f"a folder of {len(found)} runs: {folder}", fix=f"Name one:\n{commands}"
        )
    if not found and not any((folder / name).exists() for name in ("plan.yaml", "metrics.json", "model/card.json")):
        what = "one without a run" if folder.is_dir() else "no such folder"
        raise DataError(
            rule="RUN must be the folder of a run, with plan.yaml and state/",
            got=f"{what}: {folder}",
            fix="Name a run.",
        )
    return found[0] if found else folder


def _file(run: Path, name: str) -> Path:
    """A file of the run that must be there."""
    path = run / name
    if not path.is_file():
        raise DataError(
            rule=f"A finished run must hold {name}",
            got=f"none in {run}",
            fix="Finish it: its command again, with --resume (flwr run: resume=true).",
        )
    return path


def _json(run: Path, name: str) -> Any:
    """A JSON file of the run."""
    text = _file(run, name).read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise DataError(
            rule=f"{name} must be JSON", got=f"something else in {run}", fix="Run the study again."
        ) from None


def _audit_lines(run: Path) -> Iterator[Mapping[str, Any]]:
    """The lines of the audit, without one that a killed run left cut."""
    for line in _file(run, "audit.jsonl").read_text(encoding="utf-8").splitlines():
        with suppress(json.JSONDecodeError):
            yield json.loads(line)


def _census(run: Path) -> Mapping[str, Mapping[str, Any]]:
    """What each site said in the first round."""
    path = run / "state" / "0001-census.safetensors"
    if not path.is_file():
        return {}
    with safe_open(path, framework="np") as file:
        sites: Mapping[str, Mapping[str, Any]] = json.loads(file.metadata()["round"])["sites"]
    return sites
