"""The process that answers: messages come from the SuperLink, the hospital's installed code answers them.

``launch.py`` starts it and prints what it tells. It has imported torch and this package once and stays: a message costs
its own work. What Flower hands over is data. The bundle of a run is not even fetched, so whatever it holds, nothing of
it is imported or run here; Flower's own SuperNode, which would, is never started.

Private names of flwr (1.41 and 1.42 have the same) are touched in ``connection``, ``receive`` and ``send`` only.
"""

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import httpx
from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, pull_objects, push_objects
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.fleet_http_connection import http_request_response

from client.door.packets import answer_packet, hello_packet
from client.join.conversation import Conversation
from client.site import Server, SiteConfig, load_site
from lemof_model.errors import DoorError, LemofError
from protocol.records import packet_to_recorddict, recorddict_to_packet

LOOK_SECONDS = (0.1, 1.0)  # least and most time between two looks for a message: a tenth of what has been waited
LOST_SECONDS = 5.0  # between two tries to reach a server that was lost
STUDY_SECONDS = 10.0  # without a message before it is asked whether the study still runs
GRACE_SECONDS = 3.0  # to sign off at the server when the launcher is gone

logger = logging.getLogger(__name__)


class Link(NamedTuple):
    """What Flower's connection offers, as functions; see ``flwr.supernode.fleet_http_connection``."""

    node_id: int
    receive: Callable[[], Any]
    send: Callable[[Message, Any, float], tuple[set[str], str]]
    get_run: Callable[[int], Any]
    get_fab: Callable[[str, int], Any]  # never called
    pull_object: Callable[[int, str], bytes]
    push_object: Callable[[int, str, str, bytes], None]
    confirm: Callable[[int, str], None]


def main() -> NoReturn:
    """Answer for the site file that the command line names, until the launcher ends or says so."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    logging.getLogger("lemof").setLevel(logging.INFO)
    import client.door.stages  # torch and all that answers, before there is anything to answer

    assert client.door.stages
    site_path, talk = Path(sys.argv[1]), Conversation(tell)
    while True:
        site = load_site(site_path)
        wait_for_server(site.server)
        # KeyboardInterrupt is how flwr ends a connection that the server no longer knows.
        with suppress(KeyboardInterrupt), connection(site.server) as link:
            joined = f"joined {site.server.address} as {site.site.name}; waiting for the coordinator. Ctrl-C leaves."
            tell(joined, has_joined=True)
            serve(site_path, link, talk)
        tell(f"{site.server.address} no longer knows {site.site.name} (was it started anew?); joining again.")
        talk.ended(is_lost=True)


def tell(text: str, **facts: bool) -> None:
    """A line for the person at the hospital: the launcher prints it. It goes into this process's log as well."""
    logger.warning(text)
    sys.stdout.write(json.dumps({"text": text, **facts}) + "\n")
    sys.stdout.flush()


def _leave(*_: Any) -> NoReturn:
    """End, signing off at the server on the way."""
    raise SystemExit(0)


def _end_with_launcher() -> None:
    """End when the launcher has: its end of our standard input closes, also where it was killed."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)


def wait_for_server(server: Server) -> None:
    """Return once somebody listens at the server's address; until then say so once and keep trying."""
    host, port = server.address.rsplit(":", 1)
    is_told = False
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=LOST_SECONDS).close()
            return
        except OSError as error:
            if not is_told:
                tell(
                    f"{server.address}: {error.strerror or error}. Is the server up, and does the firewall let this "
                    f"machine out? Trying again every {LOST_SECONDS:g} s; Ctrl-C stops."
                )
            is_told = True
            time.sleep(LOST_SECONDS)


@contextmanager
def connection(server: Server) -> Iterator[Link]:
    """The hospital as a node of the SuperLink: TLS with the site's root certificate, else the system's; plain on this
    machine only. A failed call raises at once, so that ``serve`` can tell it."""
    roots = server.root_certificates
    said = _LastError()
    logging.getLogger("flwr").addHandler(said)
    try:
        with http_request_response(
            server.address,
            insecure=is_plain(server),
            root_certificates=roots.read_bytes() if roots is not None else None,
            max_retries=0,
        ) as functions:
            yield Link(*functions)
    except SystemExit as ended:  # of flwr, which could not begin; not of _leave
        if ended.code:
            tell(said.text, is_refused=True)
        raise
    finally:
        logging.getLogger("flwr").removeHandler(said)


def is_plain(server: Server) -> bool:
    """Whether the connection is made in the clear: without a CA file, and to this machine alone."""
    return server.root_certificates is None and server.address.rsplit(":", 1)[0] in ("127.0.0.1", "localhost")


class _LastError(logging.Handler):
    """Keeps the line of Flower's last error that says what went wrong."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.text = "it did not say why"

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        lines = [line.strip() for line in record.getMessage().splitlines() if line.strip()]
        wanted = [line for line in lines if "[code:" in line or "rror" in line] or lines[1:2]
        self.text = wanted[-1] if wanted else self.text


def serve(site_path: Path, link: Link, talk: Conversation) -> NoReturn:
    """Take message after message; tell when the server is lost and found, and when a study has ended."""
    last_message, asked_at, is_lost = time.monotonic(), 0.0, False
    while True:
        try:
            received = link.receive()
            if received is not None:
                _answer(site_path, link, talk, *received)
                last_message = asked_at = time.monotonic()
            elif talk.is_open and time.monotonic() - asked_at > STUDY_SECONDS:
                asked_at = time.monotonic()
                link.get_run(talk.run_id)
            if is_lost:
                tell("found the server again.")
                is_lost = False
        except RunNotRunningException:
            talk.ended()
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            if not is_lost:
                tell(f"lost the server ({_reason(error)}); trying again every {LOST_SECONDS:g} s.")
            is_lost = True
        least, most = LOOK_SECONDS
        time.sleep(LOST_SECONDS if is_lost else min(max((time.monotonic() - last_message) / 10, least), most))


def _reason(error: Exception) -> str:
    """What went wrong with a connection, in few words."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"it answered with status {error.response.status_code}"
    return str(error).strip() or type(error).__name__


def _answer(site_path: Path, link: Link, talk: Conversation, message: Message, tree: Any) -> None:
    """Fetch one message, answer it, send the answer. Whatever its content is, an answer goes back."""
    run_id, began = message.metadata.run_id, time.monotonic()
    ids = [part.object_id for part in iterate_object_tree(tree)]
    contents = pull_objects(ids, partial(link.pull_object, run_id), initial_backoff=LOOK_SECONDS[0])
    link.confirm(run_id, message.metadata.message_id)
    try:
        whole = inflate_object_from_contents(tree.object_id, contents)
        content = whole.content if isinstance(whole, Message) else RecordDict()
        reply = Message(_reply(site_path, talk, run_id, message.metadata.message_type, content), reply_to=message)
    except Exception as error:  # not a message of ours, or a site file that was damaged: told here, and nothing there
        text = str(error) if isinstance(error, LemofError) else type(error).__name__
        talk.declined(run_id, message.metadata.message_type, text)
        reason = "The hospital answers requests of a LeMoF study alone; this is none."
        reply = Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=reason), reply_to=message)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    with no_object_id_recompute():
        wanted, session = link.send(reply, get_object_tree(reply), time.monotonic() - began)
        push_objects(get_all_nested_objects(reply), partial(link.push_object, run_id, session),
                     object_ids_to_push=wanted)  # fmt: skip


def _reply(site_path: Path, talk: Conversation, run_id: int, kind: str, content: RecordDict) -> RecordDict:
    """The answer of the installed code to one message: the site's name, or what a stage sums up."""
    site: SiteConfig = load_site(site_path)
    if kind == "query.hello":
        return packet_to_recorddict(hello_packet(site))
    packet = recorddict_to_packet(content)
    if kind != f"query.{packet.config['stage']}":
        raise DoorError(rule="A message must be of the stage that it asks", got=f"{packet.config['stage']} in it")
    began = time.monotonic()
    talk.asked(run_id, site, packet)
    reply = answer_packet(site, packet)
    talk.answered(reply, time.monotonic() - began)
    return packet_to_recorddict(reply.to_packet())
