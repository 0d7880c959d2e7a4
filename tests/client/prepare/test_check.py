"""``lemof-client check`` as a user meets it: the small hospital, whole and broken in one place at a time."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from client import cli
from client.checks import dry_run as dry_run_module
from client.checks import ecgs, raw_tables
from client.join import launch
from client.prepare import sources
from tests.client.budget.test_ledger import fill

Run = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def check(site_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``check --json``: the exit status and the findings; both are in check.json too."""

    def run(*options: str) -> tuple[int, list[dict[str, Any]]]:
        status = cli.run(["--site", str(site_path), "check", "--json", *options])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        report = json.loads(captured.out)
        assert json.loads((site_path.parent / "check.json").read_text()) == report
        return status, report["findings"]

    return run


def by_code(findings: list[dict[str, Any]], code: str) -> dict[str, Any]:
    """The first finding with a code."""
    return next(finding for finding in findings if finding["code"] == code)


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text in a file, compressed or not."""
    is_gz = path.suffix == ".gz"
    text = (gzip.decompress(path.read_bytes()) if is_gz else path.read_bytes()).decode()
    assert old in text
    changed = text.replace(old, new).encode()
    path.write_bytes(gzip.compress(changed) if is_gz else changed)


def problems(findings: list[dict[str, Any]]) -> set[str]:
    """The codes of what is not ok."""
    return {finding["code"] for finding in findings if finding["result"] != "ok"}


def test_a_small_hospital(check: Run) -> None:
    status, findings = check()
    assert status == 0
    assert problems(findings) == {"E102", "E103", "E202", "E901"}
    assert by_code(findings, "E102")["found"] == "no valueuom: an item that comes in two units cannot be told apart"
    assert {finding["result"] for finding in findings} == {"ok", "warn"}
    assert by_code(findings, "E901")["found"].startswith("2 after exclusions, limits.min_patients is 50")
    assert by_code(findings, "E103")["found"] == (
        "1 of 10 'intime' values do not match %Y-%m-%d %H:%M:%S (first: line 8, form 'aaa a aaaa')"
    )
    found = {finding["check"]: finding["found"] for finding in findings if finding["result"] == "ok"}
    assert found["icu/chartevents.csv.gz"].startswith("has its 4 columns, ")
    assert found["ICU stays"].startswith("3 of 10 in the cohort (dropped: ")
    assert found["labels"] == "icu stay > 3 d: 1 of 3 positive (33.3%)"
    assert found["ECG to stay links"] == "66.7% of stays have an ECG; 2 of 7 records are outside every stay"
    assert check("--strict")[0] == 5


def test_a_broken_site_file(site_path: Path, check: Run) -> None:
    site_path.write_text("version: 1\nsite: {name: Small}\ndata: {ehr: {rot: .}}\nfoo: 1\n")
    status, findings = check()
    assert status == 3
    assert {finding["check"] for finding in findings} == {"config"}
    assert len(findings) == 4
    assert any(finding["fix"] == "Did you mean root?" for finding in findings)


def test_a_missing_table_is_named_and_the_rest_goes_on(site_path: Path, check: Run) -> None:
    (site_path.parent / "icu/chartevents.csv.gz").unlink()
    status, findings = check()
    assert status == 4
    assert by_code(findings, "E101")["found"].startswith("icu/chartevents must be a table, got no chartevents.csv")
    assert by_code(findings, "E901")


def test_a_table_that_a_hospital_may_lack(site_path: Path, check: Run) -> None:
    next((site_path.parent / "icu").glob("inputevents.*")).unlink()
    status, findings = check()
    assert (status, by_code(findings, "E101")["result"]) == (0, "warn")


def test_a_place_that_is_taken(site_path: Path, check: Run) -> None:
    (site_path.parent / "cohort").mkdir()
    (site_path.parent / "cohort/thesis.docx").touch()
    status, findings = check()
    assert status == 6
    assert by_code(findings, "E603")["found"].startswith("prepare.output must be a cohort or an empty folder, got")


def test_times_of_another_form_throughout(site_path: Path, check: Run) -> None:
    edit(site_path, "{root: .}", "{root: ., datetime_format: '%d/%m/%Y'}")
    status, findings = check()
    assert status == 4
    assert by_code(findings, "E901")["found"].startswith("0 of 10 in the cohort (dropped: 10 intime")
    few = by_code(findings, "E103")
    assert (few["check"], few["result"]) == ("icu/icustays.csv.gz", "fail")


def test_without_the_stays_neither_ecgs_nor_labels_are_judged(site_path: Path, check: Run) -> None:
    (site_path.parent / "icu/icustays.csv.gz").unlink()
    status, findings = check()
    assert status == 4
    assert [finding["check"] for finding in findings if finding["result"] == "fail"] == ["icustays"]
    not_tried = next(finding for finding in findings if finding["check"] == "ECG")
    assert (not_tried["result"], not_tried["fix"]) == ("warn", "Mend the tables first.")


def test_a_missing_folder(site_path: Path, check: Run) -> None:
    edit(site_path, "root: .", "root: nowhere")
    status, findings = check()
    assert status == 4
    (failed,) = (finding for finding in findings if finding["result"] == "fail")
    assert (failed["check"], failed["code"]) == ("data.ehr.root", "E101")
    assert failed["found"] == f"data.ehr.root must be a folder, got none at {site_path.parent / 'nowhere'}."
    assert failed["fix"] == "Set it in the site file, or mount its disk."
    assert not any("not there" in finding["found"] for finding in findings)


def test_a_renamed_column(site_path: Path, check: Run) -> None:
    edit(site_path.parent / "icu/chartevents.csv.gz", "itemid", "ITEM_ID")
    status, findings = check()
    assert status == 4
    assert "Add data.ehr.columns.chartevents.itemid: ITEM_ID" in by_code(findings, "E102")["fix"]


def test_too_many_times_of_another_form(site_path: Path, check: Run) -> None:
    edit(site_path.parent / "icu/chartevents.csv.gz", "2150-01-02 0", "02/01/2150 0")
    status, findings = check()
    failed = next(finding for finding in findings if finding["result"] == "fail")
    assert (status, failed["code"], failed["fix"]) == (4, "E103", "Set data.ehr.datetime_format.")
    assert "form '99/99/9999 99:99:99'" in failed["found"]


def test_temperatures_of_another_unit(site_path: Path, check: Run) -> None:
    hours = [f"10,223761,2150-01-02 {hour:02}:00:00,36.{hour}\n" for hour in range(1, 24)]
    edit(site_path.parent / "icu/chartevents.csv.gz", "valuenum\n", f"valuenum\n{''.join(hours)}")
    status, findings = check()
    assert status == 4
    assert by_code(findings, "E205")["found"] == (
        "itemid 223761 must be in degF, got a median of 36.2, which looks like degC, from icu/chartevents.csv.gz."
    )
    assert (
        by_code(findings, "E205")["fix"] == "Set data.ehr.units: {223761: degC} if it is, {223761: degF} if it is not."
    )


def test_a_table_without_rows(site_path: Path, check: Run) -> None:
    path = site_path.parent / "hosp/labevents.csv.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).splitlines(keepends=True)[0]))
    status, findings = check()
    assert (status, by_code(findings, "E106")["check"]) == (4, "hosp/labevents.csv.gz")


def test_stays_of_one_kind(site_path: Path, check: Run, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("target: {threshold_days: 90}\n")
    status, findings = check("--plan", str(plan))
    assert status == 9
    assert by_code(findings, "E902")["found"] == "icu stay > 90 d: 0 of 3 positive; both kinds are needed"


def test_a_split_with_too_few_patients(site_path: Path, check: Run, tmp_path: Path) -> None:
    """The hospital has as many patients as it must, but the plan's splits put too few of them where sums are made."""
    edit(site_path, "version: 1", "version: 1\nlimits: {min_patients: 2}")
    plan = tmp_path / "plan.yaml"
    plan.write_text("splits: {train: 0.94, stack: 0.02, tuning: 0.02, held_out: 0.02}\n")
    status, findings = check("--plan", str(plan))
    assert (status, by_code(findings, "E901")["result"]) == (0, "warn")
    assert by_code(findings, "E901")["found"] == (
        "2 after exclusions, but 0 in stack, limits.min_patients is 2: no update of that split would leave"
    )
    assert cli.run(["--site", str(site_path), "prepare", "--plan", str(plan)]) == 0
    assert "but 0 in stack" in (tmp_path / "readiness.html").read_text()
    assert sum(finding["code"] == "E901" for finding in check("--plan", str(plan))[1]) == 1


def of_ledger(findings: list[dict[str, Any]]) -> tuple[str, str]:
    """What one line says of the privacy ledger."""
    (finding,) = (finding for finding in findings if finding["check"] == "privacy ledger")
    return finding["result"], finding["found"]


def test_the_privacy_ledger(site_path: Path, check: Run, tmp_path: Path) -> None:
    assert "privacy ledger" not in {finding["check"] for finding in check()[1]}
    edit(site_path, "version: 1", "version: 1\nprivacy: {epsilon: 8, delta: 1.0e-5}")
    nothing = "epsilon 0.000 of 8 spent in 0 answers; the first answer ties the cohort to this ledger"
    assert of_ledger(check()[1]) == ("ok", nothing)
    ledger = tmp_path / "ledger.jsonl"
    assert not ledger.exists()
    assert cli.run(["--site", str(site_path), "prepare"]) == 0
    fill(ledger, 3)
    assert cli.run(["--site", str(site_path), "prepare", "--force"]) == 0
    before = ledger.read_bytes()
    result, found = of_ledger(check()[1])
    assert result == "ok" and re.search(r" of 8 spent in 3 answers; this ledger \(\w{12}\) is the cohort's own$", found)

    plan = tmp_path / "plan.yaml"
    plan.write_text("splits: {salt: other}\n")
    status, findings = check("--plan", str(plan))
    result, found = of_ledger(findings)
    assert (status, result) == (0, "warn")
    assert found == "The splits of a study must be those that the ledger began with, got others from the plan."

    edit(site_path, "epsilon: 8", "epsilon: 0.3")
    status, findings = check()
    result, found = of_ledger(findings)
    assert (status, result) == (0, "warn")
    assert found.startswith("The privacy budget must leave something for train, got nothing left under epsilon 0.3")
    assert ledger.read_bytes() == before

    aside = ledger.rename(tmp_path / "aside")
    ledger.with_name("ledger.jsonl.head").rename(tmp_path / "aside.head")
    (finding,) = (finding for finding in check()[1] if finding["check"] == "privacy ledger")
    assert (finding["result"], finding["code"]) == ("fail", "E605") and str(ledger) in finding["fix"]

    lines = before.splitlines(keepends=True)
    aside.with_name("aside.head").rename(tmp_path / "ledger.jsonl.head")
    ledger.write_bytes(b"".join(lines[:2] + lines[3:]))
    status, findings = check()
    assert status == 4
    assert of_ledger(findings) == ("fail", "Line 3 of ledger.jsonl must be as it was written, got another.")


def test_no_ecg_of_any_stay(site_path: Path, check: Run) -> None:
    path = site_path.parent / "ecg/record_list.csv"
    edit(path, "\n1,", "\n7,")
    status, findings = check()
    assert (status, by_code(findings, "E201")["result"]) == (9, "fail")
    assert not any(finding["check"].startswith("ECG records") for finding in findings)


def test_the_report_lies_beside_the_cohort(site_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prepared").mkdir()
    edit(site_path, "version: 1", "version: 1\nprepare: {output: prepared/small}")
    assert cli.run(["--site", str(site_path), "check"]) == 0
    assert (tmp_path / "prepared/check.json").is_file()
    assert not (tmp_path / "check.json").exists()
    captured = capsys.readouterr()
    assert (captured.out, "Details: " in captured.err) == ("", True)


def test_a_full_disk(check: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    status, findings = check()
    assert (status, by_code(findings, "E601")["fix"]) == (6, "Free space, or set prepare.output to another disk.")


def test_a_server_is_asked_where_there_is_a_section(site_path: Path, check: Run) -> None:
    assert not any(finding["check"].startswith("server") for finding in check()[1])
    asked = [finding["check"] for finding in check("--server")[1]]
    assert "server 127.0.0.1:9092" in asked  # whether one answers there is this machine's affair
    edit(site_path, "version: 1", "version: 1\nserver: {address: '127.0.0.1:1'}")
    status, findings = check()
    assert (status, by_code(findings, "E501")["check"]) == (7, "server 127.0.0.1:1")
    assert check("--no-server")[0] == 0


def test_the_sample_is_spread_and_the_rest_is_read_when_deep(check: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecgs, "NUM_RECORDS", 1)
    assert "ECG records (1 of 2)" in {finding["check"] for finding in check()[1]}
    assert "ECG records (2 of 2)" in {finding["check"] for finding in check("--deep")[1]}


def test_deep_reads_every_row(site_path: Path, check: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_tables, "SAMPLE_ROWS", 2)
    edit(site_path.parent / "icu/chartevents.csv.gz", ",999,", ",a9,")
    assert "E105" not in problems(check()[1])
    status, findings = check("--deep")
    assert status == 0
    assert by_code(findings, "E105")["found"].endswith("'itemid' values are no integers (first: line 39, form 'a9')")


def test_stays_that_lack_their_admission_are_told_once(site_path: Path, check: Run) -> None:
    stays = site_path.parent / "icu/icustays.csv.gz"
    lost = "".join(f"{num},{num},{num},A,,2150-01-02 00:00:00,2150-01-06 00:00:00,4\n" for num in range(900, 908))
    stays.write_bytes(gzip.compress(gzip.decompress(stays.read_bytes()) + lost.encode()))
    before = [finding for finding in check()[1] if finding["code"] == "E106"]
    assert [finding["found"] for finding in before] == [
        "13 of 17 left out for their data, not by the plan: 3 intime or outtime missing, or outtime before intime; "
        "10 patient or admission not found, or age unknown"
    ]
    assert cli.run(["--site", str(site_path), "prepare"]) == 0
    assert [finding for finding in check()[1] if finding["code"] == "E106"] == before


def test_a_prepared_cohort(site_path: Path, check: Run, tmp_path: Path) -> None:
    assert cli.run(["--site", str(site_path), "prepare"]) == 0
    page = tmp_path / "readiness.html"
    before = page.read_bytes()
    page.unlink()
    status, findings = check("--deep")
    assert (status, page.read_bytes()) == (0, before)
    assert {"check": "cohort", "result": "ok", "found": "3 stays, every digest holds"}.items() <= next(
        finding for finding in findings if finding["check"] == "cohort"
    ).items()
    with (tmp_path / "cohort/features.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    assert check()[0] == 0
    status, findings = check("--deep")
    assert (status, by_code(findings, "E109")["found"]) == (
        4,
        "features.npy of the cohort must be as it was prepared, got other bytes.",
    )
    plan = tmp_path / "plan.yaml"
    plan.write_text("cohort: {min_age_years: 30}\n")
    assert by_code(check("--plan", str(plan))[1], "E108")["found"] == "was prepared for another plan"


def told_of_age(findings: list[dict[str, Any]]) -> list[str]:
    """What is said of a cohort that is older than what it was made from."""
    return [f"{line['found']}: {line['fix']}" for line in findings if line["code"] == "E108"]


@pytest.mark.parametrize("what", ["table", "record list", "setting", "no ECGs", "program"])
def test_a_cohort_older_than_what_it_was_made_from(
    site_path: Path, check: Run, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("target: {threshold_days: 2}\nsplits: {salt: other}\n")
    assert cli.run(["--site", str(site_path), "prepare", "--plan", str(plan)]) == 0
    edit(site_path, "version: 1", "version: 1\nlimits: {min_cell: 12}")  # no part of what a cohort is made from
    for options in ([], ["--plan", str(plan)]):
        assert told_of_age(check(*options)[1]) == []
    if what == "table":
        edit(site_path.parent / "icu/chartevents.csv.gz", "10,999,", "10,998,")
    elif what == "record list":
        edit(site_path.parent / "ecg/record_list.csv", "unknown", "")
    elif what == "setting":
        edit(site_path, "version: 1", "version: 1\nprepare: {max_bad_fraction: 0.5}")
    elif what == "no ECGs":
        edit(site_path, ", ecg: {root: ecg}", "")
    else:
        monkeypatch.setattr(sources, "source_digest", lambda _: "another")
    status, findings = check("--plan", str(plan))
    told = ["tables, site file or program have changed since it was prepared: Run prepare."]
    assert (status, told_of_age(findings)) == (0, told)
    assert cli.run(["--site", str(site_path), "prepare", "--plan", str(plan)]) == 0
    assert told_of_age(check()[1]) == []


def test_a_hospital_without_ecgs_is_told_that_it_needs_none(check: Run, site_path: Path) -> None:
    site_path.write_text("version: 1\nsite: {name: small}\ndata: {ehr: {root: .}}\n")
    _, findings = check()
    (ecg,) = [finding for finding in findings if "ECG" in finding["check"]]
    assert (ecg["result"], ecg["found"]) == ("ok", "none: the site file has no data.ecg, and needs none")


def test_joining_and_a_dry_run_tell_that_the_cohort_is_old_and_go_on(
    site_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_stay_joined", lambda *_: None)
    monkeypatch.setattr(dry_run_module, "dry_run", lambda *_: {"stages": []})
    monkeypatch.setattr(dry_run_module, "lines_of", lambda _: [])
    assert cli.run(["--site", str(site_path), "prepare"]) == 0

    def told() -> list[str]:
        capsys.readouterr()
        lines = []
        for arguments in (["--site", str(site_path)], ["--site", str(site_path), "dry-run"]):
            assert cli.run(arguments) == 0
            lines += [line for line in capsys.readouterr().err.splitlines() if "E108" in line]
        return lines

    assert told() == []
    record_list, tables = site_path.parent / "ecg/record_list.csv", site_path.parent / "hosp"
    edit(record_list, "unknown", "")
    assert (
        told()
        == [
            "warning: cohort: tables, site file or program have changed since it was prepared; it is used as it is. To "
            "renew it, run prepare. [E108]"
        ]
        * 2
    )
    tables.rename(tables.with_name("gone"))  # a hospital may remove its tables once it has prepared
    assert told() == []
    tables.with_name("gone").rename(tables)
    record_list.unlink()
    assert told() == []
