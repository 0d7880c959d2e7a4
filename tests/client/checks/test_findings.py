"""How findings are gathered, printed and turned into an exit status."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from client.checks.findings import Finding, Report, findings_of
from lemof_model.errors import ConfigError, DataError, Problem

OK = Finding("config", "ok", "site.yaml")
WARN = Finding("ECG [200]", "warn", "1 record at 250 Hz", "leave it: skipped", "E203")
LATE = Finding("server", "fail", "connection refused", "Is the server up?", "E501", 7)
TABLE = Finding("icustays", "fail", "no such table", "Set data.ehr.root.", "E101", 4)


def report(*findings: Finding, path: Path = Path("check.json")) -> Report:
    return Report("hospital_a", "1.0.0", "site.yaml", False, findings, 6.1, path)


@pytest.mark.parametrize(
    ("findings", "is_strict", "status"),
    [
        ((OK,), True, 0),
        ((OK, WARN), False, 0),
        ((OK, WARN), True, 5),
        ((LATE, WARN), False, 7),
        ((LATE, WARN), True, 5),
        ((LATE, TABLE), False, 4),
    ],
)
def test_the_lowest_status_wins(findings: tuple[Finding, ...], is_strict: bool, status: int) -> None:
    assert report(*findings).exit_status(is_strict=is_strict) == status


def test_all_are_printed_with_their_codes() -> None:
    console = Console(file=io.StringIO(), width=160)
    report(OK, WARN, LATE, TABLE).show(console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "ECG [200]  warn    1 record at 250 Hz  leave it: skipped  [E203]" in text
    assert "Is the server up?  [E501]" in text
    assert "2 errors, 1 warning in 6.1 s.  Details: check.json" in text


def test_an_error_is_the_last_finding_of_its_check() -> None:
    def stops() -> Iterator[Finding]:
        yield OK
        raise DataError(
            rule="icu/icustays must be a table", got="no icustays.csv from /data/v3.1", fix="Set data.ehr.root."
        )

    first, last = findings_of("icustays", stops)
    assert first == OK
    assert (last.result, last.exit_status, last.fix) == ("fail", 4, "Set data.ehr.root.")
    assert last.found == "icu/icustays must be a table, got no icustays.csv from /data/v3.1."


def test_every_problem_of_a_configuration_has_a_line() -> None:
    def stops() -> Iterator[Finding]:
        yield from ()
        raise ConfigError(Problem("a must be 1", "2", "Correct it."), Problem("b must be 1", "3", "Correct it."))

    assert [finding.found for finding in findings_of("config", stops)] == ["a must be 1, got 2.", "b must be 1, got 3."]


def test_a_file_that_may_not_be_read() -> None:
    def stops() -> Iterator[Finding]:
        yield from ()
        raise PermissionError(13, "Permission denied", "icu/icustays.csv")

    (finding,) = findings_of("icustays", stops)
    assert (finding.result, finding.exit_status) == ("fail", 6)
    assert finding.found == "icu/icustays.csv: Permission denied"


def test_the_report_is_written_and_says_so_when_it_cannot_be(tmp_path: Path) -> None:
    assert report(OK, LATE, path=tmp_path / "check.json").saved().findings == (OK, LATE)
    written = json.loads((tmp_path / "check.json").read_text())
    assert (written["site"], written["num_errors"], written["findings"][1]["code"]) == ("hospital_a", 1, "E501")
    *_, last = report(OK, path=tmp_path / "nowhere/check.json").saved().findings
    assert (last.check, last.result, last.code) == ("check.json", "warn", "E603")
