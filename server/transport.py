"""Transport: how the coordinator reaches the hospitals. The local one lives in ``simulation``, Flower's below."""

import time
from collections.abc import Iterable, Mapping
from typing import Protocol

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from lemof_model.errors import LemofError, NetworkError
from lemof_model.wire import Answer, Refusal, Request, answer_from_packet
from server.records import packet_to_recorddict, recorddict_to_packet

# What the hospital's own code did: sending the request again would end the same way. Other errors are the network's.
APP_ERRORS = (ErrorCode.LOAD_CLIENT_APP_EXCEPTION, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, ErrorCode.INVALID_FAB)
MAX_TRIES = 3


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
    number, is a lost request that is sent again: an equal request gets an equal answer.

    Args:
        grid: Flower's grid.
        min_sites: how many sites ``sites`` waits for.
        join_timeout_seconds: how long it waits for them.
        answer_timeout_seconds: how long one stage may take a site that stays online.
        rejoin_timeout_seconds: how long a site that went offline within a stage may take to come back.
        poll_seconds: pause between two looks (Flower's own ``send_and_receive`` takes 3 s). Over a network not much
            shorter: who looks while an answer is half sent has to wait one second more.
    """

    def __init__(
        self,
        grid: Grid,
        min_sites: int,
        *,
        join_timeout_seconds: float = 600.0,
        answer_timeout_seconds: float = 4 * 3600.0,
        rejoin_timeout_seconds: float = 60.0,
        poll_seconds: float = 0.5,
    ) -> None:
        self._grid = grid
        self._min_sites = min_sites
        self._join_timeout_seconds = join_timeout_seconds
        self._answer_timeout_seconds = answer_timeout_seconds
        self._rejoin_timeout_seconds = rejoin_timeout_seconds
        self._poll_seconds = poll_seconds
        self._site_of: dict[int, str] = {}  # nodes online that have told their name, in the order they told it
        self._hellos: dict[str, int] = {}  # message -> node that owes its name
        self._mute: dict[int, str] = {}  # node that cannot tell its name -> why

    def sites(self) -> list[str]:
        """Names of the hospitals that are online, sorted, once there are enough and each has told its name.

        Raises:
            NetworkError: too few hospitals joined in time, or one name is used twice.
        """
        deadline = time.monotonic() + self._join_timeout_seconds
        while True:
            self._greet()
            names = sorted(self._site_of.values())
            twice = sorted({name for name in names if names.count(name) > 1})
            if len(names) >= self._min_sites and not twice and not self._hellos:
                return names
            if time.monotonic() > deadline:
                break
            time.sleep(self._poll_seconds)
        if twice:
            raise NetworkError(
                f"site names must be unique, got more than one site online as {', '.join(twice)}. "
                "Stop one of them, or give it another name in its site file."
            )
        silent = "".join(f" A site that cannot tell its name: {why}." for why in self._mute.values())
        raise NetworkError(
            f"the number of sites online must be at least {self._min_sites}, got {len(names)} "
            f"({', '.join(names) or 'none'}) in {self._join_timeout_seconds:g} s.{silent} "
            "Start the others with lemof-client, or lower min_sites in the plan."
        )

    def ask(self, stage: str, requests: Mapping[str, Request]) -> dict[str, Answer | Refusal]:
        """Send each site its request and return what came back; a site that did not answer is a ``Refusal``."""
        answers: dict[str, Answer | Refusal] = {}
        sent: dict[str, str] = {}  # message -> site
        tries = dict.fromkeys(requests, 0)
        why = dict.fromkeys(requests, "it is offline")
        until = dict.fromkeys(requests, time.monotonic() + self._rejoin_timeout_seconds)

        def refuse(site: str, code: int = NetworkError.exit_status) -> None:
            reason = f"{site} must answer stage {stage}, got nothing: {why[site]}. Look at that site's log."
            answers[site] = Refusal(stage=stage, round=requests[site].round, site=site, code=code, reason=reason)

        while True:
            unsent = [site for site in sorted(requests.keys() - answers.keys()) if site not in sent.values()]
            if unsent:
                self._greet()
            for site in unsent:
                if (node := self._node_of(site)) is None:
                    continue
                if message_id := self._send(stage, packet_to_recorddict(requests[site].to_packet()), node):
                    sent[message_id] = site
                    tries[site] += 1
                    why[site] = f"no answer in {self._answer_timeout_seconds:g} s"
                    until[site] = time.monotonic() + self._answer_timeout_seconds
            for reply in self._pull(sent):
                site = sent.pop(reply.metadata.reply_to_message_id)
                if not reply.has_error():
                    answers[site] = answer_from_packet(recorddict_to_packet(reply.content))
                    continue
                why[site] = reply.error.reason or f"Flower error {reply.error.code}"
                until[site] = time.monotonic() + self._rejoin_timeout_seconds
                if reply.error.code in APP_ERRORS or tries[site] == MAX_TRIES:
                    refuse(site, LemofError.exit_status)
            for site in requests.keys() - answers.keys():
                if time.monotonic() > until[site]:
                    refuse(site)
            if answers.keys() == requests.keys():
                return answers
            time.sleep(self._poll_seconds)

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
                self._site_of[node] = recorddict_to_packet(reply.content).config["site"]
            elif reply.error.code in APP_ERRORS:
                self._mute[node] = str(reply.error.reason)

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
