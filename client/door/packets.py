"""A hospital's side of a message: check that it comes from the same release, and let ``stages`` answer it."""

import logging
import traceback
from pathlib import Path

from client.door.egress import refuse_packet
from client.site import SiteConfig
from lemof_model.errors import DoorError, LemofError
from protocol.messages import (
    WIRE_VERSION,
    Answer,
    Packet,
    Refusal,
    Release,
    release_of,
    request_from_packet,
    require_same_release,
)
from protocol.source import source_digest, versions

logger = logging.getLogger(__name__)


def own_release() -> Release:
    """What is installed here."""
    return Release(versions()["lemof"], source_digest())


def hello_packet(site: SiteConfig) -> Packet:
    """Who is here, in which release."""
    config = {"site": site.site.name, "release": versions()["lemof"], "source_digest": source_digest()}
    return Packet({}, {"wire_version": WIRE_VERSION}, config)


def answer_packet(site: SiteConfig, packet: Packet, memory: Path | None = None) -> Answer | Refusal:
    """Answer a packet of the same release. Whatever goes wrong becomes a refusal, so that no run waits for ever.

    ``memory`` is as in ``stages.answer``.

    Of an unexpected error only its type and the lines it passed are told: its text may hold what must not leave.
    """
    try:
        require_same_release(own_release(), release_of(packet))
        from client.door.stages import answer  # brings torch, which hello does without

        return answer(site, request_from_packet(packet), memory)
    except LemofError as error:
        return refuse_packet(site.site.name, packet, error)
    except Exception as error:
        lines = "".join(traceback.format_tb(error.__traceback__))
        logger.error("%s in lemof, text withheld:\n%s", type(error).__name__, lines)
        stage = packet.config.get("stage")
        bug = DoorError(
            rule=f"Stage {stage} must not fail",
            got=f"{type(error).__name__} from {site.site.name}",
            fix="This is a bug in lemof: the site's log has the lines.",
        )
        return refuse_packet(site.site.name, packet, bug)
