"""What the people at a hospital are told while it takes part: a study began, a round was answered, a group was held
back, a request was declined and why, the study ended. Each once, with the time, however many rounds repeat it."""

import json
import logging
import time
from collections.abc import Callable

from client.door.packets import own_release
from client.site import SiteConfig
from protocol import compact
from protocol.messages import Answer, Packet, Refusal, release_of

LAST = "intervals"


class Conversation(logging.Handler):
    """One study after another, as this hospital sees them. A handler of the door's log (``lemof.door``), which tells
    what was held back and declined.

    Attributes:
        is_open: whether a study is going on; ``run_id`` is the number that Flower gave it.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self.is_open, self.run_id = False, 0
        self._tell, self._name, self._is_complete = tell, "", False
        self._said: set[str] = set()
        door = logging.getLogger("lemof.door")
        door.setLevel(logging.DEBUG)
        door.propagate = False
        door.handlers[:] = [self]  # of this conversation alone, if there was one before

    def emit(self, record: logging.LogRecord) -> None:
        """Tell what the door says, without the round: the next ones will repeat it."""
        self._say(record.getMessage())

    def asked(self, run_id: int, site: SiteConfig, packet: Packet) -> None:
        """A request came. The first of a study that runs this release begins it."""
        if (run_id == self.run_id and self.is_open) or release_of(packet) != own_release():
            return
        try:
            name, plan = str(json.loads(packet.config["study"])["name"]), packet.config["plan_digest"]
        except (KeyError, TypeError, ValueError):  # whoever reads the request will say so
            return
        self.ended()
        self.is_open, self.run_id, self._is_complete = True, run_id, False
        self._said.clear()
        self._name = _shown(name)
        self._say(
            f"study {self._name} began: plan {_shown(plan[:12])}, {own_release()}. Stages that this hospital answers: "
            f"{', '.join(site.limits.stages)}."
        )

    def answered(self, reply: Answer | Refusal, seconds: float) -> None:
        """A request was answered, or declined (which the door has told)."""
        if isinstance(reply, Refusal):
            return
        megabytes = compact.num_bytes(reply.sums) / 1e6
        self._say(f"round {reply.round:2d}  {reply.stage} answered: {seconds:.1f} s, {megabytes:.1f} MB")
        self._is_complete = reply.stage == LAST

    def declined(self, run_id: int, kind: str, reason: str) -> None:
        """A message that is no request of a study."""
        self._say(f"declined a message of run {run_id} that is no request of a LeMoF study ({_shown(kind)}): {reason}")

    def ended(self, *, is_lost: bool = False) -> None:
        """The study's run is over at the SuperLink, or the SuperLink has forgotten it."""
        if self.is_open:
            how = "its last question was answered"
            if not self._is_complete:
                how = "the server has lost it" if is_lost else "it failed or was stopped before its last question"
                how += "; ask the coordinator"
            self._say(f"study {self._name} has ended: {how}.")
        self.is_open = False

    def _say(self, text: str) -> None:
        """Tell a line that was not told before."""
        if text not in self._said:
            self._said.add(text)
            self._tell(f"{time.strftime('%H:%M')}  {text}")


def _shown(text: str) -> str:
    """A text that came from outside, fit for a terminal.

    Example:
        >>> _shown("lemof"), _shown("\x1b[2Jnothing to see")
        ("'lemof'", "'?[2Jnothing to see'")
    """
    return "'" + "".join(letter if letter.isprintable() else "?" for letter in text[:60]) + "'"
