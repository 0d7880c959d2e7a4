"""Transport: how the coordinator reaches the hospitals. The local one lives in ``simulation``, Flower's below."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from lemof_model.errors import LemofError, NetworkError, VersionError
from protocol.messages import Answer, Refusal, Request, answer_from_packet
from protocol.records import packet_to_recorddict, recorddict_to_packet

# What the hospital's own code did: sending the request again would end the same way. Other errors are the network's.
APP_ERRORS = (ErrorCode.LOAD_CLIENT_APP_EXCEPTION, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, ErrorCode.INVALID_FAB)
MAX_TRIES = 3
HELLO_SECONDS = 10.0  # that a study waits for the names of nodes when enough have told theirs
SLOWEST = 10  # times as long as the first pause: pauses are a tenth of what has been waited
TOLD_SECONDS, AGAIN_SECONDS = 20.0, 300.0  # of waiting before it is said for whom, and said again

log = logging.getLogger("lemof")


class Transport(Protocol):
    """A way to ask hospitals. Every implementation gives the same bits for the same plan."""

    def sites(self) -> list[str]:
        """Names of the hospitals that can be asked, sorted."""
        ...

    def ask(self, stage: str, requests: Mapping[str, Request]) -> dict[str, Answer | Refusal]:
        """Send each site its request and return what came back; a site that did not answer is a ``Refusal``."""
        ...


class FlowerTransport:
    """Hospitals as nodes of a Flower grid.

    Flower knows nodes by number; ``query.hello`` tells whose node it is. A node that dies, and its restart under a new
    number, is a lost request that is sent again: an equal request gets an equal answer. A hospital that did not come
    back in time has cost that wait once: until it is there again, later rounds do not wait for it.

    Args:
        grid: Flower's grid.
        min_sites: how many sites ``sites`` waits for.
        note: told for whom the coordinator waits, and "" when it no longer does.
        join_timeout_seconds: how long it waits for them.
        answer_timeout_seconds: how long one stage may take a site that stays online.
        rejoin_timeout_seconds: how long a site that went offline within a stage may take to come back.
        poll_seconds: pause between two looks at first; it grows to a tenth of what has been waited, and to ten times
            itself (Flower's own ``send_and_receive`` takes 3 s).
    """

    def __init__(
        self,
        grid: Grid,
        min_sites: int,
        *,
        note: Callable[[str], None] = lambda _: None,
        join_timeout_seconds: float = 600.0,
        answer_timeout_seconds: float = 4 * 3600.0,
        rejoin_timeout_seconds: float = 60.0,
        poll_seconds: float = 0.1,
    ) -> None:
        self._grid = grid
        self._min_sites = min_sites
        self._waiting = _Waiting(note)
        self._join_timeout_seconds = join_timeout_seconds
        self._answer_timeout_seconds = answer_timeout_seconds
        self._rejoin_timeout_seconds = rejoin_timeout_seconds
        self._poll_seconds = poll_seconds
        self._site_of: dict[int, str] = {}  # nodes online that have told their name, in the order they told it
        self._hellos: dict[str, int] = {}  # message -> node that owes its name
        self._mute: dict[int, str] = {}  # node that cannot tell its name -> why
        self._gone: set[str] = set()  # sites that a round has waited for in vain

    def sites(self) -> list[str]:
        """Names of the hospitals that are online, sorted, once there are enough. Each node has a moment to tell its
        name; one that stays silent holds nobody up.

        Raises:
            NetworkError: too few hospitals joined in time, or one name is used twice.
        """
        began = time.monotonic()
        while True:
            self._greet()
            names, seconds = sorted(self._site_of.values()), time.monotonic() - began
            twice = sorted({name for name in names if names.count(name) > 1})
            if len(names) >= self._min_sites and not twice and (not self._hellos or seconds > HELLO_SECONDS):
                if self._hellos:
                    log.warning("%d more online did not tell a name in %g s; the study begins without them.",
                                len(self._hellos), HELLO_SECONDS)  # fmt: skip
                self._waiting.end()
                return names
            if seconds > self._join_timeout_seconds:
                break
            self._waiting.of(f"{self._min_sites} hospitals to join, {len(names)} have ({', '.join(names) or 'none'})")
            time.sleep(self._poll_seconds)
        if twice:
            raise NetworkError(
                rule="site names must be unique",
                got=f"more than one site online as {', '.join(twice)}",
                fix="Stop one of them, or give it another name in its site file.",
            )
        silent = "".join(f"One online cannot tell its name: {why}. " for why in self._mute.values())
        silent += f"{len(self._hellos)} online did not tell a name. " if self._hellos else ""
        raise NetworkError(
            rule=f"the number of sites online must be at least {self._min_sites}",
            got=f"{len(names)} ({', '.join(names) or 'none'}) in {self._join_timeout_seconds:g} s",
            fix=f"{silent}Start the others with lemof-client, or lower min_sites in the plan.",
        )

    def ask(self, stage: str, requests: Mapping[str, Request]) -> dict[str, Answer | Refusal]:
        """Send each site its request and return what came back; a site that did not answer is a ``Refusal``."""
        answers: dict[str, Answer | Refusal] = {}
        sent: dict[str, str] = {}  # message -> site
        contents: dict[int, RecordDict] = {}  # requests are mostly one and the same
        tries = dict.fromkeys(requests, 0)
        why = dict.fromkeys(requests, "it is offline")
        last_event = time.monotonic()
        until = {site: last_event + (0.0 if site in self._gone else self._rejoin_timeout_seconds) for site in requests}

        def refuse(site: str, code: int = NetworkError.exit_status) -> None:
            reason = f"{site} must answer stage {stage}, got nothing: {why[site]}. Look at that site's log."
            answers[site] = Refusal(stage=stage, round=requests[site].round, site=site, code=code, reason=reason)

        while True:
            unsent = [site for site in sorted(requests.keys() - answers.keys()) if site not in sent.values()]
            if unsent or self._gone:
                self._greet()
            for site in unsent:
                if (node := self._node_of(site)) is None:
                    continue
                self._gone.discard(site)
                request = requests[site]
                if id(request) not in contents:
                    contents[id(request)] = packet_to_recorddict(request.to_packet())
                if message_id := self._send(stage, contents[id(request)], node):
                    sent[message_id] = site
                    tries[site] += 1
                    why[site] = f"no answer in {self._answer_timeout_seconds:g} s"
                    last_event = time.monotonic()
                    until[site] = last_event + self._answer_timeout_seconds
            for reply in self._pull(sent):
                site = sent.pop(reply.metadata.reply_to_message_id)
                if not reply.has_error():
                    answers[site] = _read(reply, site, requests[site])
                    continue
                why[site] = reply.error.reason or f"Flower error {reply.error.code}"
                last_event = time.monotonic()
                until[site] = last_event + self._rejoin_timeout_seconds
                if reply.error.code in APP_ERRORS or tries[site] == MAX_TRIES:
                    refuse(site, LemofError.exit_status)
            for site in requests.keys() - answers.keys():
                if time.monotonic() > until[site]:
                    self._gone.add(site)
                    refuse(site)
            if answers.keys() == requests.keys():
                self._waiting.end()
                return answers
            self._waiting.of(f"{', '.join(sorted(requests.keys() - answers.keys()))} ({stage})")
            waited = (time.monotonic() - last_event) / 10
            time.sleep(min(max(waited, self._poll_seconds), SLOWEST * self._poll_seconds))

    def _greet(self) -> None:
        """Ask every node that is new for its site's name, and note the names that have come."""
        online = set(self._grid.get_node_ids())
        self._site_of = {node: site for node, site in self._site_of.items() if node in online}
        self._hellos = {message_id: node for message_id, node in self._hellos.items() if node in online}
        for node in sorted(online - self._site_of.keys() - self._mute.keys() - set(self._hellos.values())):
            if message_id := self._send("hello", RecordDict(), node):
                self._hellos[message_id] = node
        for reply in self._pull(self._hellos):
            node = self._hellos.pop(reply.metadata.reply_to_message_id)
            if not reply.has_error():
                self._name(node, reply)
            elif reply.error.code in APP_ERRORS:
                self._mute[node] = str(reply.error.reason)

    def _name(self, node: int, reply: Message) -> None:
        """Note the name that a node has told, or that it is no hospital of ours."""
        try:
            self._site_of[node] = str(recorddict_to_packet(reply.content).config["site"])
        except Exception:  # whatever a foreign node sends
            self._mute[node] = "it answers, but not as a LeMoF hospital"

    def _node_of(self, site: str) -> int | None:
        """The node of a site; of several under one name the one that was there first."""
        return next((node for node, name in self._site_of.items() if name == site), None)

    def _send(self, action: str, content: RecordDict, node: int) -> str | None:
        """Push one message; None if Flower does not take it."""
        message = Message(content, node, f"query.{action}", ttl=self._answer_timeout_seconds)
        return next(iter(self._grid.push_messages([message])), None)

    def _pull(self, message_ids: Iterable[str]) -> list[Message]:
        """Replies that have come for these messages."""
        ids = list(message_ids)
        return list(self._grid.pull_messages(ids)) if ids else []


def _read(reply: Message, site: str, request: Request) -> Answer | Refusal:
    """The answer in a reply; one that cannot be read is that site's refusal, and stops nobody else."""
    try:
        return answer_from_packet(recorddict_to_packet(reply.content))
    except Exception as error:
        reason = (
            f"An answer must be of this release, got one from {site} that cannot be read ({type(error).__name__}). "
            "Install the same lemof release on both sides."
        )
        return Refusal(stage=request.stage, round=request.round, site=site, code=VersionError.exit_status,
                       reason=reason)  # fmt: skip


class _Waiting:
    """Says for whom the coordinator waits, in its log and to ``note``, once it has lasted, and then now and again."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._what, self._since, self._told_at = "", 0.0, 0.0

    def of(self, what: str) -> None:
        """It waits for this, still or again."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._since, self._told_at = what, now, 0.0
        due = self._told_at + AGAIN_SECONDS if self._told_at else self._since + TOLD_SECONDS
        if now >= due:
            self._told_at = now
            log.info("          waiting for %s", what)
            self._note(what)

    def end(self) -> None:
        """It waits no longer."""
        if self._told_at:
            self._note("")
        self._what, self._told_at = "", 0.0
