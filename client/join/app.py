"""Flower's ClientApp, for its simulation, where all hospitals are in one hand, and because a bundle must name one. At a
hospital ``node.py`` answers, in the installed code; a run's bundle is never looked at.
"""

from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.door.packets import answer_packet, hello_packet
from client.site import load_site
from protocol.messages import REQUESTS
from protocol.records import packet_to_recorddict, recorddict_to_packet


def make_app(site_file_of: Callable[[Context], Path], memory: Path | None = None) -> ClientApp:
    """A ClientApp that answers for the site whose file ``site_file_of`` finds; what it told is remembered in ``memory``
    (else at the site), in a folder of the site's name."""
    app = ClientApp()

    def hello(message: Message, context: Context) -> Message:
        """Tell the site's name."""
        return Message(packet_to_recorddict(hello_packet(load_site(site_file_of(context)))), reply_to=message)

    def answer_stage(message: Message, context: Context) -> Message:
        """Answer the request of a stage."""
        site = load_site(site_file_of(context))
        own = None if memory is None else memory / site.site.name
        reply = answer_packet(site, recorddict_to_packet(message.content), own)
        return Message(packet_to_recorddict(reply.to_packet()), reply_to=message)

    app.query("hello")(hello)
    for stage in REQUESTS:
        app.query(stage)(answer_stage)
    return app


app = make_app(lambda context: Path(str(context.node_config["site"])))
