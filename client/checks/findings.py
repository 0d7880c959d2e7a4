"""A finding of ``check``, and the report that lists them all."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lemof_model.errors import DiskError, LemofError, printable
from protocol.owner_only import write_owner_only

Result = Literal["ok", "warn", "fail"]
Check = Callable[[], Iterator["Finding"]]

WARNED = 5  # the exit status of warnings under --strict
STYLES: dict[Result, str] = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True)
class Finding:
    """One line of a check: what was looked at, what was found, and how to mend it.

    ``code`` is the failure's number in the hospital guide; ``exit_status`` is what a ``fail`` ends the command with.
    """

    check: str
    result: Result
    found: str
    fix: str = ""
    code: str = ""
    exit_status: int = 0

    def __post_init__(self) -> None:
        for name in ("check", "found", "fix"):  # what a damaged file put into them must not reach the terminal
            object.__setattr__(self, name, printable(getattr(self, name)))


@dataclass(frozen=True)
class Report:
    """All findings of one run of ``check``."""

    site: str
    version: str
    config: str
    is_deep: bool
    findings: tuple[Finding, ...]
    seconds: float
    path: Path

    def exit_status(self, *, is_strict: bool) -> int:
        """0 without failures, else the lowest status among them; ``is_strict`` counts warnings as status 5.

        Example:
            >>> late = Finding("server", "fail", "expired", exit_status=7)
            >>> tiny = Finding("patients", "warn", "23 patients")
            >>> report = Report("a", "1.0", "", False, (late, tiny), 0.1, Path("check.json"))
            >>> report.exit_status(is_strict=False), report.exit_status(is_strict=True)
            (7, 5)
        """
        statuses = [finding.exit_status for finding in self.findings if finding.result == "fail"]
        if is_strict and self.num("warn"):
            statuses.append(WARNED)
        return min(statuses, default=0)

    def num(self, result: Result) -> int:
        """How many findings ended so."""
        return sum(finding.result == result for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        counts = {"num_errors": self.num("fail"), "num_warnings": self.num("warn")}
        return {**dataclasses.asdict(self), "path": str(self.path), **counts}

    def saved(self) -> "Report":
        """Write the report to its path; the report, with a warning more if that cannot be done."""
        try:
            write_owner_only(self.path, json.dumps(self.as_dict(), indent=2) + "\n")
        except OSError as error:
            found = f"not written: {error.strerror}: {self.path.parent}"
            unsaved = Finding(self.path.name, "warn", found, "Mend the folder's permissions, or free space.", "E603")
            return dataclasses.replace(self, findings=(*self.findings, unsaved))
        return self

    def show(self, console: Console) -> None:
        """Print the findings as a table."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for column in ("Check", "Result", "Found", "How to fix"):
            table.add_column(column, overflow="fold")
        for finding in self.findings:
            fix = f"{finding.fix}  [{finding.code}]" if finding.code and finding.result != "ok" else finding.fix
            result = Text(finding.result, style=STYLES[finding.result])
            table.add_row(Text(finding.check), result, Text(finding.found), Text(fix))
        console.print(Text(f"lemof-client {self.version}   site {self.site}   {self.config}"))
        console.print(table)
        counts = f"{_num(self.num('fail'), 'error')}, {_num(self.num('warn'), 'warning')}"
        console.print(Text(f"{counts} in {self.seconds:.1f} s.  Details: {self.path}"))


def findings_of(name: str, check: Check) -> Iterator[Finding]:
    """The findings of one check; an error for the user that ends it is its last finding."""
    try:
        yield from check()
    except LemofError as error:
        yield from failures(name, error)
    except OSError as error:
        found = f"{error.filename or name}: {error.strerror or error}"
        yield Finding(name, "fail", found, "Mend the permissions or the path.", "", DiskError.exit_status)


def failures(name: str, error: LemofError) -> list[Finding]:
    """A failed check for each problem of an error.

    Example:
        >>> from lemof_model.errors import DataError
        >>> error = DataError(rule="a must be there", got="none from /x", fix="Set data.ehr.root.", code="E101")
        >>> (finding,) = failures("icustays", error)
        >>> finding.found, finding.fix, finding.code, finding.exit_status
        ('a must be there, got none from /x.', 'Set data.ehr.root.', 'E101', 4)
    """
    return [Finding(name, "fail", one.found, one.advice, one.code, error.exit_status) for one in error.problems]


def _num(number: int, what: str) -> str:
    """A number of things.

    Example:
        >>> _num(1, "error"), _num(2, "error")
        ('1 error', '2 errors')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"
