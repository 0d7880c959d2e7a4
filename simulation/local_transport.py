"""LocalTransport: every hospital of a study on this machine, in this process or in a few of its own."""

import csv
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from client.door.packets import answer_packet
from client.site import SiteConfig, load_site
from lemof_model.errors import ConfigError
from protocol.messages import Answer, Packet, Refusal, Request, answer_from_packet
from simulation.processes import interrupts_held, processes


class LocalTransport:
    """Lets each hospital answer the message as it would travel. They share nothing: the number of processes changes no
    bit.

    Args:
        site_files: one per hospital; names must differ.
        attendance: a ``rounds.csv``; a site that did not answer a round there does not answer it here.
        num_processes: with 1 hospitals answer one after the other in this process. With more, use it as a context.
        memory: a folder in which each remembers what it told, in place of the hospital's own (``memory_of``).
    """

    def __init__(
        self,
        site_files: Sequence[Path],
        attendance: Path | None = None,
        num_processes: int = 1,
        memory: Path | None = None,
    ) -> None:
        loaded = [load_site(path) for path in site_files]
        self._sites: dict[str, SiteConfig] = {site.site.name: site for site in loaded}
        if len(self._sites) != len(loaded):
            raise ConfigError(rule="Site names must differ", got=f"{sorted(site.site.name for site in loaded)}")
        self._memory = memory
        self._absent = _absences(attendance) if attendance else set()
        self._exit = ExitStack()
        self._pool: ProcessPoolExecutor | None = None
        if num_processes > 1:
            self._pool = self._exit.enter_context(processes(num_processes))

    def __enter__(self) -> "LocalTransport":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.__exit__(kind, error, trace)

    def sites(self) -> list[str]:
        """Names of the hospitals, sorted."""
        return sorted(self._sites)

    def ask(self, stage: str, requests: Mapping[str, Request]) -> dict[str, Answer | Refusal]:
        """Answer each request with the site's own code."""
        present = {name: request for name, request in requests.items() if (request.round, name) not in self._absent}
        answers: dict[str, Answer | Refusal] = {
            name: Refusal(stage=stage, round=request.round, site=name, code=7, reason="absent, as in the run before")
            for name, request in requests.items()
            if name not in present
        }
        memory = {name: None if self._memory is None else self._memory / name for name in present}
        asked = {name: (self._sites[name], request.to_packet(), memory[name]) for name, request in present.items()}
        if self._pool is None:
            replies = {name: _answer(*of_site) for name, of_site in asked.items()}
        else:
            with interrupts_held():
                futures = {name: self._pool.submit(_answer, *of_site) for name, of_site in asked.items()}
            replies = {name: future.result() for name, future in futures.items()}
        return answers | {name: answer_from_packet(reply) for name, reply in replies.items()}


def memory_of(run: Path) -> Path:
    """Where the hospitals of a simulation remember what they told, within a run folder: the next run finds none."""
    return run / "state" / "told"


def _answer(site: SiteConfig, packet: Packet, memory: Path | None) -> Packet:
    """What a hospital makes of a message, as it would travel."""
    return answer_packet(site, packet, memory).to_packet()


def _absences(attendance: Path) -> set[tuple[int, str]]:
    """Round numbers and sites of a ``rounds.csv`` that did not answer.

    Raises:
        ConfigError: it is no such file.
    """
    try:
        with attendance.open(newline="", encoding="utf-8") as file:
            return {(int(row["number"]), row["site"]) for row in csv.DictReader(file) if row["answered"] == "0"}
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        raise ConfigError(rule="--attendance must be rounds.csv of a run", got=f"another file: {attendance}") from None
