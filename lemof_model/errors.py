"""Every error a user can meet, and the exit status it ends a command with.

    LemofError                     1   our own bug when it is raised bare
    |-- DoorError                  1   an answer that the hospital's door does not let out
    |-- ConfigError                3   a plan or a site file says something that cannot be
    |   `-- NotAllowedError        3   a plan that asks for what a site file forbids
    |       `-- ToldBeforeError    3   a plan that differs too little from what was told before
    |-- DataError                  4   the raw tables, ECG records or a cohort are not as they must be
    |   |-- AnswerError            4   an answer that cannot be what its stage declares
    |   |-- OtherPlanError         4   a cohort that was prepared for another plan
    |   |-- LedgerError            4   a privacy ledger that was changed or cut
    |   `-- MemoryDamagedError     4   a memory of what was told that was changed or cut
    |-- DiskError                  6   disk, memory or permission
    |-- NetworkError               7   server, certificate or connection
    |-- VersionError               8   two sides that cannot talk to each other
    |-- TooLittleDataError         9   too few patients, or only one class
    `-- BudgetError                9   a privacy budget that does not last for what was asked
        `-- OtherSplitsError       9   splits other than those that a budget is kept for

An error has fields: what must hold, what came, what to do; never a patient's id or value. Its message is composed from
them, and nobody takes it apart. They may hold paths and limits of a hospital, so they stay there: the coordinator is
told ``told_outside``, or the message where that is None.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_SHOWN = 60


@dataclass(frozen=True)
class Problem:
    """What must hold, what came, what to do, and the failure's number in the hospital guide (``protocol/codes.py``).

    ``rule`` begins with what it is about and has no full stop, ``got`` neither; ``fix`` is some sentences or lines;
    ``place`` is the file, with the key, that somebody else read it from. A rule alone, with its full stop, is all that
    is said. What a damaged file put into a field reaches no terminal as it is.

    Example:
        >>> print(Problem("icustays must be there", "none from /x", "Set data.ehr.root.", "E101"))
        icustays must be there, got none from /x. Set data.ehr.root. [E101]
    """

    rule: str
    got: str = ""
    fix: str = ""
    code: str = ""
    place: str = ""

    def __post_init__(self) -> None:
        for name in ("rule", "got", "place"):
            object.__setattr__(self, name, printable(getattr(self, name)))
        object.__setattr__(self, "fix", "\n".join(map(printable, self.fix.split("\n"))))

    def __str__(self) -> str:
        between = "" if not self.advice or self.advice[0] == "\n" else " "
        said = f"{self.found}{between}{self.advice}"
        return f"{said} [{self.code}]" if self.code else said

    @property
    def found(self) -> str:
        """What must hold and what came, as a sentence."""
        return f"{self.rule}, got {self.got}." if self.got else self.rule

    @property
    def advice(self) -> str:
        """What to do, and where."""
        return f"{self.fix} (from {self.place})".strip() if self.place else self.fix


class LemofError(ValueError):
    """An error for the person at the keyboard: one problem, given by its fields, or all that were found at once.

    ``rule``, ``got``, ``fix`` and ``code`` are those of the first.

    Example:
        >>> error = ConfigError(rule="seed must not be negative", got="-1 from plan.yaml", fix="Correct it.")
        >>> print(error)
        seed must not be negative, got -1 from plan.yaml. Correct it.
        >>> print(ConfigError(*error.problems, Problem("a must be 1", "2")))
        seed must not be negative, got -1 from plan.yaml. Correct it.
        a must be 1, got 2.
    """

    exit_status = 1
    told_outside: str | None = "The hospital could not answer; its own log says why."

    def __init__(self, *problems: Problem, rule: str = "", got: str = "", fix: str = "", code: str = "") -> None:
        self.problems = problems or (Problem(rule, got, fix, code),)
        super().__init__(*self.problems)  # so that it can be pickled
        first = self.problems[0]
        self.rule, self.got, self.fix, self.code = first.rule, first.got, first.fix, first.code

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class DoorError(LemofError):
    """An answer that the hospital's door does not let out. The message names no limit, so it may leave."""

    told_outside = None


class ConfigError(LemofError):
    """A plan or a site file that cannot be followed; all its problems are listed at once."""

    exit_status = 3


class NotAllowedError(ConfigError):
    """A plan that asks for what the hospital's site file forbids. The message names the rule, so it may leave."""

    told_outside: str | None = None


class ToldBeforeError(NotAllowedError):
    """A plan, or a further model, that would tell what few patients are, beside what the hospital has told before. How
    many they are stays at the hospital."""

    told_outside = (
        "What is asked must differ from all that the hospital has told before by nobody or by enough patients, and its "
        "held-out patients are told of once; nothing was sent. The hospital's own log says more, and it may allow the "
        "plan (lemof-client told allow)."
    )


class DataError(LemofError):
    """Raw data or a prepared cohort that is not as it must be."""

    exit_status = 4
    told_outside: str | None = "The hospital's cohort is missing or damaged; its own log says what to do."


class OtherPlanError(DataError):
    """A cohort that was prepared for another plan. The message names no path, so it may leave."""

    told_outside = None


class AnswerError(DataError):
    """An answer that cannot be what its stage declares: the coordinator leaves it out. The message is about sums."""

    told_outside = None


class LedgerError(DataError):
    """A privacy ledger that was changed, cut or cannot be read: nothing leaves until a person has looked."""

    told_outside = "The hospital's privacy ledger is not as it must be, so nothing was sent; its own log says why."


class MemoryDamagedError(DataError):
    """A memory of what was told that was changed, cut or cannot be read: nothing leaves until a person has looked."""

    told_outside = (
        "The hospital's memory of what it told is not as it must be, so nothing was sent; its own log says why."
    )


class DiskError(LemofError):
    """A full disk, too little memory, or a file that may not be read or written."""

    exit_status = 6
    told_outside = "The hospital's disk, memory or permissions stand in the way; its own log says what to do."


class NetworkError(LemofError):
    """A server that cannot be reached, or that cannot be trusted."""

    exit_status = 7


class VersionError(LemofError):
    """Two sides whose versions cannot work together."""

    exit_status = 8
    told_outside = None


class TooLittleDataError(LemofError):
    """Fewer patients than a statistic or a privacy rule needs, or labels of one class only."""

    exit_status = 9
    told_outside = "Too few patients in every group that was asked for; nothing was sent."


class BudgetError(LemofError):
    """A request that would pass the privacy budget of the hospital."""

    exit_status = 9
    told_outside = "The hospital's privacy budget must last for what is asked, and does not; nothing was sent."


class OtherSplitsError(BudgetError):
    """A plan whose splits are not those that the ledger counts in."""

    told_outside = (
        "The splits (salt and fractions) must be those of the first study under the hospital's privacy budget, got "
        "others; nothing was sent. State the same splits in the plan."
    )


def problems_in(error: ValueError) -> tuple[Problem, ...]:
    """The problems of our own error; of another's (torch, the standard library), its words."""
    if isinstance(error, LemofError):
        return error.problems
    said = str(error)
    return (Problem(said if said.endswith((".", "?")) else f"{said}."),)


def error_with(exit_status: int) -> type[LemofError]:
    """The error that ends a command with this status; LemofError for one that has none.

    Example:
        >>> error_with(9).__name__
        'TooLittleDataError'
    """
    kinds = (cls for cls in LemofError.__subclasses__() if exit_status == cls.exit_status != LemofError.exit_status)
    return next(kinds, LemofError)


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The one of the known names that is most like another, whatever its letters' case.

    Example:
        >>> nearest("Window-Hour", ["gap_hours", "window_hours"]), nearest("colour", ["seed"])
        ('window_hours', None)
    """
    by_plain = {plain(one): one for one in reversed(known)}
    close = difflib.get_close_matches(plain(name), by_plain, n=1)
    return by_plain[close[0]] if close else None


def plain(name: str) -> str:
    """A name without what people write differently: case, blanks, dashes."""
    return re.sub(r"[\s-]+", "_", name.strip().casefold())


def printable(text: str) -> str:
    """A text with a blank for each letter that would not be seen, or would steer the terminal.

    Example:
        >>> printable("sub\\x1b[2Jject_id")
        'sub [2Jject_id'
    """
    return "".join(letter if letter.isprintable() else " " for letter in text)


def shown(value: Any) -> str:
    """A value of a file as a message shows it.

    Example:
        >>> shown(None), shown({"a": 1}), shown("x" * 70)[-6:], shown(2.5)
        ('nothing', 'a section', 'xxx...', '2.5')
    """
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a section"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
