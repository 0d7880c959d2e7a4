"""One round: ask every site, add what came, put it on disk. The coordinator is a sequence of these.

A site that refuses or does not answer is left out of the round and named in the audit, and so is one whose answer
breaks what its stage declares (``protocol/answering.py``): nothing of it is added or kept. Below the plan's
``min_sites`` the study stops with its state on disk. So it does where fewer than three would stand behind a total,
unless the plan allows it: such a total tells each of them what the others hold.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lemof_model import lemof
from lemof_model.errors import LemofError, NetworkError, TooLittleDataError, VersionError, error_with
from lemof_model.study import Study
from protocol import compact
from protocol.answering import Counted, check_answer
from protocol.messages import Answer, Refusal, Release, Request, require_same_release
from protocol.source import source_digest, versions
from server.aggregation import add
from server.run_store import Round, RunStore, SiteReply
from server.suspicion import apart
from server.transport import Transport

log = logging.getLogger("lemof")

_FEW = (
    "A total over fewer than three hospitals tells each what the others hold. Invite more, or, where plan and "
    "hospitals agree to it, say few_sites: allow in the plan and limits.few_sites: allow in each site file."
)


class Rounds:
    """Asks rounds of one study, and remembers the sites that its census fixed.

    ``sites``, what each of them ``counted``, and ``num_able`` (how many of them can send a group) are empty until
    the census; ``few_sites`` names the blocks that only one or two of them can train, and these. ``privacy`` has the
    epsilon and delta that each site with a privacy budget stated last.
    """

    def __init__(self, study: Study, transport: Transport, store: RunStore) -> None:
        self.study = study
        self.store = store
        self.sites: list[str] = []
        self.counted: dict[str, Counted] = {}
        self.num_able: dict[str, int] = {}
        self.few_sites: dict[str, list[str]] = {}
        self.privacy: dict[str, dict[str, float]] = {}
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
            NetworkError: fewer sites than the plan's ``min_sites`` answered, or too few of those with a needed group.
            TooLittleDataError: all answered, and too few of them have enough patients.
        """
        self._number += 1
        stored = self.store.next_stored(kind.stage, self._number)
        if stored is not None:
            self._note_privacy(stored)
            return stored
        asked = list(sites if sites is not None else self.sites) or self._transport.sites()
        if len(asked) < self.study.fewest_sites:
            raise TooLittleDataError(
                rule=f"{kind.stage} needs {self.study.fewest_sites} sites", got=f"{len(asked)}", fix=_FEW
            )
        able = [self.num_able.get(group, len(asked)) for group in needs] if self.sites else []
        request = kind(
            study=self.study,
            round=self._number,
            num_sites=min([len(asked), *able]),
            run=self.store.run,
            release=versions()["lemof"],
            source_digest=source_digest(),
            **fields,
        )
        began = time.monotonic()
        answers = self._transport.ask(kind.stage, dict.fromkeys(sorted(asked), request))
        seconds = time.monotonic() - began
        replies = {site: self._checked(site, answers[site], request) for site in sorted(asked)}
        self._record(request, replies, seconds)
        good = [reply for reply in replies.values() if isinstance(reply, Answer)]
        self._check_quorum(kind.stage, "", good, replies)
        for group in needs:
            self._check_quorum(kind.stage, group, [answer for answer in good if group in answer.counts], replies)
        sums, counts = add(good)
        by_site = {site: _reply(reply, keep_sites) for site, reply in replies.items()}
        trained = getattr(request, "blocks", "").split()
        stood = {block: apart(block, lemof.part(request.model, block), good) for block in trained}
        finished = Round(kind.stage, self._number, sums, counts, by_site, stood)
        self.store.finish(finished)
        self._note_privacy(finished)
        return finished

    def _note_privacy(self, finished: Round) -> None:
        """Remember what sites with a budget say they have spent."""
        said = {site: {"epsilon": reply.epsilon, "delta": reply.delta} for site, reply in finished.sites.items()}
        self.privacy |= {site: values for site, values in said.items() if values["delta"]}

    def _check_quorum(
        self, stage: str, group: str, good: Sequence[Answer], replies: Mapping[str, Answer | Refusal]
    ) -> None:
        """Stop before the round is kept when too few sites answered, or sent a needed group.

        A group needs as many sites as a round does, but no more than the census found able to send it; and as many as
        the plan wants behind a total.
        """
        quorum = min(self.study.min_sites, self.num_able.get(group, 1)) if group else self.study.min_sites
        needed = max(quorum, self.study.fewest_sites)
        if len(good) >= needed:
            return
        refusals = [reply for reply in replies.values() if isinstance(reply, Refusal)]
        codes = {refusal.code for refusal in refusals} or {TooLittleDataError.exit_status}
        error = error_with(codes.pop()) if len(codes) == 1 else NetworkError
        said = [f"  {refusal.site}: {refusal.reason}" for refusal in refusals]
        answered = {site: reply for site, reply in replies.items() if isinstance(reply, Answer)}
        held_back = [site for site, reply in answered.items() if group in reply.too_small]
        said += [f"  {site} held {group} back: too few patients in it, or in a rest." for site in held_back]
        has_none = [site for site, reply in answered.items() if group not in (*reply.counts, *reply.too_small)]
        said += [f"  {site} has none of {group}." for site in has_none if group]
        rule, advice = ("min_sites", []) if quorum == needed else ("few_sites", [_FEW])
        again = f"When the sites are ready, run the same command with {self.store.asked.resume}."
        raise error(
            rule=f"{stage} needs {f'sums of {group}' if group else 'answers'} from {needed} sites at least ({rule})",
            got=f"{len(good)} of {len(replies)}",
            fix="\n".join(["", *said, *advice, f"Finished rounds are on disk. {again}"]),
        )

    def _checked(self, site: str, answer: Answer | Refusal, request: Request) -> Answer | Refusal:
        """An answer to another question, over another cohort than the census counted, or that breaks what its stage
        declares, is as good as none."""
        if isinstance(answer, Refusal):
            return answer
        theirs, ours = (Release(m.release, m.source_digest, m.wire_version) for m in (answer, request))
        counted = self.counted.get(site)
        try:
            require_same_release(theirs, ours)
            said = (answer.site, answer.plan_digest, answer.stage, answer.round)
            if said != (site, request.study.digest, request.stage, request.round):
                raise VersionError(rule="The answer must be to this round of this plan", got="one to another")
            if counted and answer.delta == counted.delta and answer.cohort_digest != counted.cohort_digest:
                raise VersionError(
                    rule="The cohort must stay the same during a study",
                    got="one prepared again",
                    fix="Start a new run.",
                )
            check_answer(answer, request, counted)
        except LemofError as error:
            return Refusal(
                stage=request.stage, round=request.round, site=site, code=error.exit_status, reason=str(error)
            )
        return answer

    def _record(self, request: Request, replies: Mapping[str, Answer | Refusal], seconds: float) -> None:
        """Audit line and timings."""
        sent = sum(value.nbytes for value in request.model.values())
        num_bytes = {}
        for site, reply in replies.items():
            received = compact.num_bytes(reply.sums) if isinstance(reply, Answer) else 0
            num_bytes[site] = {"sent": sent, "received": received}
        refused = {site: reply.reason for site, reply in replies.items() if isinstance(reply, Refusal)}
        left_out = {s: list(r.too_small) for s, r in replies.items() if isinstance(r, Answer) and r.too_small}
        epsilon = {s: r.epsilon for s, r in replies.items() if isinstance(r, Answer) and r.delta}
        self.store.audit(
            stage=request.stage, round=request.round, plan_digest=request.study.digest, seconds=round(seconds, 3),
            bytes=num_bytes, refused=refused, too_small=left_out, epsilon=epsilon,
        )  # fmt: skip
        self.store.timed(request.stage, seconds, num_bytes)
        log.info("round %2d  %-10s  %d of %d sites  %5.1f s", request.round, request.stage,
                 len(replies) - len(refused), len(replies), seconds)  # fmt: skip
        for site, reason in refused.items():
            log.warning("          %s did not answer: %s", site, reason)


def _reply(answer: Answer | Refusal, keep_sums: bool) -> SiteReply:
    """What the round keeps of one site."""
    if isinstance(answer, Refusal):
        return SiteReply({}, refused=answer.reason)
    sums = answer.sums if keep_sums else {}
    return SiteReply(answer.counts, answer.too_small, "", answer.cohort_digest, answer.epsilon, answer.delta, sums)
