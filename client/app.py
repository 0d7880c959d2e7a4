"""Flower's door of a hospital: decode a message, let ``client.stages`` answer it, encode what comes back.

Every stage is a ``query`` of its name; ``query.hello`` tells the coordinator the site's name. A message meets a fresh
process, so whatever a stage needs is imported when it is asked for. The code that runs is the bundle's, which Flower
puts first on the import path, not the installed one; a site's census refuses a bundle of another source.
"""

import logging
import traceback
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.records import packet_to_recorddict, recorddict_to_packet
from client.site import SiteConfig, load_site
from lemof_model.errors import LemofError
from lemof_model.wire import REQUESTS, Answer, Packet, Refusal, request_from_packet

logger = logging.getLogger(__name__)


def make_app(site_file_of: Callable[[Context], Path]) -> ClientApp:
    """A ClientApp that answers for the site whose file ``site_file_of`` finds."""
    app = ClientApp()

    def hello(message: Message, context: Context) -> Message:
        """Tell the site's name."""
        name = load_site(site_file_of(context)).site.name
        return Message(packet_to_recorddict(Packet({}, {}, {"site": name})), reply_to=message)

    def answer_stage(message: Message, context: Context) -> Message:
        """Answer the request of a stage."""
        reply = answer_packet(load_site(site_file_of(context)), recorddict_to_packet(message.content))
        return Message(packet_to_recorddict(reply.to_packet()), reply_to=message)

    app.query("hello")(hello)
    for stage in REQUESTS:
        app.query(stage)(answer_stage)
    return app


def answer_packet(site: SiteConfig, packet: Packet) -> Answer | Refusal:
    """Answer a packet. Whatever goes wrong becomes a refusal, so that no run waits for ever.

    Of an unexpected error only its type and the lines it passed are told: its text may hold what must not leave.
    """
    try:
        from client.stages import answer  # brings torch, which hello does without

        return answer(site, request_from_packet(packet))
    except LemofError as error:
        code, reason = error.exit_status, str(error)
    except Exception as error:
        lines = "".join(traceback.format_tb(error.__traceback__))
        logger.error("%s in lemof, text withheld:\n%s", type(error).__name__, lines)
        code = LemofError.exit_status
        reason = f"Stage {packet.config.get('stage')} must not fail, got {type(error).__name__} from {site.site.name}. "
        reason += "This is a bug in lemof: the site's log has the lines."
    return Refusal(
        stage=packet.config.get("stage", ""),
        round=int(packet.metrics.get("round", 0)),
        site=site.site.name,
        code=code,
        reason=reason,
    )


app = make_app(lambda context: Path(str(context.node_config["site"])))
