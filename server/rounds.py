"""One round: ask every site, add what came, put it on disk. The coordinator is a sequence of these.

A site that refuses or does not answer is left out of the round and named in the audit; below the plan's ``min_sites``
the study stops with its state on disk.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lemof_model.errors import NetworkError, TooLittleDataError, VersionError
from lemof_model.study import Study
from lemof_model.wire import WIRE_VERSION, Answer, Refusal, Request
from server.aggregation import add
from server.run_store import Round, RunStore, SiteReply
from server.source import source_digest
from server.transport import Transport

log = logging.getLogger("lemof")


class Rounds:
    """Asks rounds of one study, and remembers the sites that its census fixed.

    ``sites`` is empty until the census.
    """

    def __init__(self, study: Study, transport: Transport, store: RunStore) -> None:
        self.study = study
        self.store = store
        self.sites: list[str] = []
        self._transport = transport
        self._number = 0

    def ask(
        self,
        kind: type[Request],
        *,
        sites: Sequence[str] | None = None,
        keep_sites: bool = False,
        needs: Sequence[str] = (),
        **fields: Any,
    ) -> Round:
        """Ask ``sites`` (default: all of the study) one request and return the finished round.

        ``keep_sites`` keeps each site's own sums beside the total, for stages that report by site. ``needs`` names the
        groups without which the stage cannot go on.

        Raises:
            NetworkError: fewer sites than the plan's ``min_sites`` answered, or none of those with a needed group.
            TooLittleDataError: all answered, and none has enough patients for a needed group.
        """
        self._number += 1
        stored = self.store.next_stored(kind.stage, self._number)
        if stored is not None:
            return stored
        asked = list(sites if sites is not None else self.sites) or self._transport.sites()
        request = kind(study=self.study, round=self._number, source_digest=source_digest(), **fields)
        began = time.monotonic()
        answers = self._transport.ask(kind.stage, dict.fromkeys(sorted(asked), request))
        seconds = time.monotonic() - began
        replies = {site: _checked(answers[site], request) for site in sorted(asked)}
        self._record(request, replies, seconds)
        good = [reply for reply in replies.values() if isinstance(reply, Answer)]
        self._check_quorum(kind.stage, good, replies)
        sums, counts = add(good)
        self._check_groups(kind.stage, [group for group in needs if group not in counts], replies)
        finished = Round(kind.stage, self._number, sums, counts, {s: _reply(a, keep_sites) for s, a in replies.items()})
        self.store.finish(finished)
        return finished

    def _check_quorum(self, stage: str, good: Sequence[Answer], replies: Mapping[str, Answer | Refusal]) -> None:
        """Stop below the quorum, saying which site said what."""
        needed = self.study.min_sites
        if len(good) < needed:
            raise NetworkError(
                f"{stage} needs answers from at least {needed} sites (min_sites), got {len(good)}.{_refusals(replies)}"
            )

    def _check_groups(self, stage: str, missing: Sequence[str], replies: Mapping[str, Answer | Refusal]) -> None:
        """Stop before the round is kept when no site sent a needed group: all too small, or those that have it away."""
        if missing:
            away = any(isinstance(reply, Refusal) for reply in replies.values())
            raise (NetworkError if away else TooLittleDataError)(
                f"{stage} needs sums of {' and '.join(missing)} from at least one site, got none of {len(replies)}: "
                f"elsewhere there are too few patients.{_refusals(replies)}"
            )

    def _record(self, request: Request, replies: Mapping[str, Answer | Refusal], seconds: float) -> None:
        """Audit line and timings."""
        sent = sum(value.nbytes for value in request.model.values())
        num_bytes = {}
        for site, reply in replies.items():
            received = sum(value.nbytes for value in reply.sums.values()) if isinstance(reply, Answer) else 0
            num_bytes[site] = {"sent": sent, "received": received}
        refused = {site: reply.reason for site, reply in replies.items() if isinstance(reply, Refusal)}
        left_out = {s: list(r.too_small) for s, r in replies.items() if isinstance(r, Answer) and r.too_small}
        self.store.audit(
            stage=request.stage, round=request.round, plan_digest=request.study.digest, seconds=round(seconds, 3),
            bytes=num_bytes, refused=refused, too_small=left_out,
        )  # fmt: skip
        self.store.timed(request.stage, seconds, num_bytes)
        log.info("round %2d  %-10s  %d of %d sites  %5.1f s", request.round, request.stage,
                 len(replies) - len(refused), len(replies), seconds)  # fmt: skip
        for site, reason in refused.items():
            log.warning("          %s did not answer: %s", site, reason)


def _refusals(replies: Mapping[str, Answer | Refusal]) -> str:
    """Which site said what, and what to do."""
    said = [f"\n  {site}: {reply.reason}" for site, reply in replies.items() if isinstance(reply, Refusal)]
    return f"{''.join(said)}\nFinished rounds are on disk. When the sites are back, run the same command with --resume."


def _checked(answer: Answer | Refusal, request: Request) -> Answer | Refusal:
    """An answer to another question is as good as none."""
    if isinstance(answer, Refusal):
        return answer
    theirs = (answer.wire_version, answer.plan_digest, answer.stage, answer.round, answer.source_digest)
    ours = (WIRE_VERSION, request.study.digest, request.stage, request.round, request.source_digest)
    if theirs == ours:
        return answer
    reason = f"The answer must be to {ours[2]} round {ours[3]} of this plan and release, got {theirs[2:4]} of another."
    return Refusal(
        stage=request.stage, round=request.round, site=answer.site, code=VersionError.exit_status, reason=reason
    )


def _reply(answer: Answer | Refusal, keep_sums: bool) -> SiteReply:
    """What the round keeps of one site."""
    if isinstance(answer, Refusal):
        return SiteReply({}, refused=answer.reason)
    return SiteReply(answer.counts, answer.too_small, sums=answer.sums if keep_sums else {})
