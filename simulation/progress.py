"""What somebody sees while a study runs on this machine: each round, of at most how many."""

from collections.abc import Mapping

from protocol.messages import Answer, Refusal, Request
from protocol.progress import Shown
from protocol.stages import STAGES, WIDTH
from server.transport import Transport


class Watched:
    """A transport whose rounds are shown."""

    def __init__(self, inner: Transport, shown: Shown) -> None:
        self._inner, self._shown = inner, shown

    def sites(self) -> list[str]:
        """Names of the hospitals."""
        return self._inner.sites()

    def ask(self, stage: str, requests: Mapping[str, Request]) -> dict[str, Answer | Refusal]:
        """Pass a round on, and show it."""
        request = next(iter(requests.values()))
        self._shown.begin(request.round, STAGES[request.stage].doing(request))
        answers = self._inner.ask(stage, requests)
        num = sum(isinstance(answer, Answer) for answer in answers.values())
        doing = STAGES[request.stage].doing(request)
        self._shown.end(request.round, f"{doing:{WIDTH}}  {num} of {len(answers)} hospitals")
        return answers
