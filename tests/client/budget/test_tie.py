"""A cohort has one ledger for good: whatever is moved, copied, deleted or prepared again, nothing is counted afresh."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from client.budget.ledger import open_ledger, read_ledger
from client.budget.tie import TIE, carry_over, tie, tie_of
from client.cohort.store import MANIFEST, replacing
from client.door import stages
from client.site import load_site
from lemof_model.errors import LedgerError
from lemof_model.features import schema_digest
from protocol.messages import Answer, CensusRequest, Refusal
from protocol.source import source_digest
from tests.client.budget.test_ledger import BUDGET, CHARGE, Killed, answer, cohort_of, fill, final
from tests.hospitals import write_hospital
from tests.studies import tiny_study

NONE, ANOTHER = (
    rf"counted by its own privacy ledger, which begins with \w{{12}}, got {came} at .*\[E605\]"
    for came in ("none", r"one that begins with \w{12}")
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


# --- attack: a site file in another folder ----------------------------------------------------------------------------


def test_a_copied_site_file_starts_no_fresh_ledger(tmp_path: Path) -> None:
    """Relative paths start at the folder of the site file, and the cohort's may be absolute."""
    site_file = write_hospital(tmp_path, "a", num_stays=300)
    values = yaml.safe_load(site_file.read_text())
    values |= {"privacy": {"epsilon": 8.0, "delta": 1e-5}, "prepare": {"output": str(site_file.parent / "cohort")}}
    site_file.write_text(yaml.safe_dump(values))
    elsewhere = tmp_path / "elsewhere/site.yaml"
    elsewhere.parent.mkdir()
    shutil.copy(site_file, elsewhere)
    request = CensusRequest(
        study=tiny_study(), round=1, num_sites=3, source_digest=source_digest(), schema_digest=schema_digest()
    )
    told = stages.answer(load_site(site_file), request)
    assert isinstance(told, Answer)
    refused = stages.answer(load_site(elsewhere), request)
    assert isinstance(refused, Refusal) and refused.reason == LedgerError.told_outside
    assert [file.name for file in elsewhere.parent.iterdir()] == ["site.yaml"]
    values["privacy"]["ledger"] = str(site_file.parent / "ledger.jsonl")
    elsewhere.write_text(yaml.safe_dump(values))
    again = stages.answer(load_site(elsewhere), request)
    assert isinstance(again, Answer) and again.counts == told.counts, "it goes on with the ledger that was set"


# --- one ledger -------------------------------------------------------------------------------------------------------


def test_no_two_ledgers_begin_alike(tmp_path: Path) -> None:
    for name in "ab":
        fill(tmp_path / name / "ledger.jsonl", 1)
    ties = [tie_of(tmp_path / name / "cohort") for name in "ab"]
    assert ties[0] and ties[1] and ties[0].first_hash != ties[1].first_hash
    first = json.loads((tmp_path / "a/ledger.jsonl").read_text().split("\n")[0])
    assert ties[0] == (first["hash"], str(tmp_path / "a/ledger.jsonl"))


def test_another_ledger_and_none_are_refused_and_nothing_is_made(path: Path) -> None:
    fill(path, 1)
    cohort, other = cohort_of(path), path.with_name("other") / "ledger.jsonl"
    for use in (lambda: read_ledger(other, cohort), lambda: open_ledger(other, BUDGET, cohort).__enter__()):
        with pytest.raises(LedgerError, match=NONE) as caught:
            use()
        assert f"it was {path}" in caught.value.fix
    assert not other.parent.exists()
    fill(other, 1)  # of a cohort of its own
    content = other.read_bytes()
    for use in (lambda: read_ledger(other, cohort), lambda: open_ledger(other, BUDGET, cohort).__enter__()):
        with pytest.raises(LedgerError, match=ANOTHER):
            use()
    assert other.read_bytes() == content
    other.write_bytes(b"")
    other.with_name("ledger.jsonl.head").unlink()
    with pytest.raises(LedgerError, match=NONE):
        open_ledger(other, BUDGET, cohort).__enter__()
    assert other.read_bytes() == b""
    fill(path, 1, first=2)


def test_a_deleted_ledger_does_not_start_afresh_and_a_moved_one_goes_on(path: Path) -> None:
    fill(path, 2)
    cohort, kept = cohort_of(path), path.with_name("kept")
    kept.mkdir()
    for name in ("ledger.jsonl", "ledger.jsonl.head", "ledger.jsonl.answers"):
        path.with_name(name).rename(kept / name)
    with pytest.raises(LedgerError, match=NONE):
        fill(path, 1, first=3)
    assert not path.exists()
    with open_ledger(kept / "ledger.jsonl", BUDGET, cohort) as ledger:
        ledger.append(final(3), [CHARGE], answer(3))
    assert len(read_ledger(kept / "ledger.jsonl", cohort)) == 3


def test_a_tie_that_was_changed_is_told(path: Path) -> None:
    fill(path, 1)
    for content in ("", "[]", "null", '{"first_hash": ""}'):
        (cohort_of(path) / TIE).write_text(content)
        with pytest.raises(LedgerError, match=rf"{TIE} of the cohort must be as it was written.*\[E605\]"):
            fill(path, 1, first=2)


def test_of_two_ledgers_at_the_same_instant_one_comes_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other begins after the cohort was found without a tie, and before it gets one."""
    cohort, link = cohort_of(path), os.link

    def late(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        fill(path.with_name("first") / "ledger.jsonl", 1)
        tie(cohort, path.with_name("first") / "ledger.jsonl", "f" * 64)
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(LedgerError, match=ANOTHER):
        fill(path, 1)
    assert tie_of(cohort) == ("f" * 64, str(path.with_name("first") / "ledger.jsonl"))
    assert [file.name for file in cohort.iterdir()] == [TIE]


@pytest.mark.parametrize("at", range(9))
def test_ended_at_every_change_of_the_disk_when_a_ledger_begins(
    path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    calls, is_killed = iter(range(100)), False

    def dying(function):
        def call(*arguments, **named):
            if next(calls) == at:
                raise Killed
            return function(*arguments, **named)

        return call

    with monkeypatch.context() as patch:
        for place, name in ((os, "write"), (os, "fsync"), (os, "link"), (Path, "replace"), (Path, "unlink")):
            patch.setattr(place, name, dying(getattr(place, name)))
        try:
            open_ledger(path, BUDGET, cohort_of(path)).__enter__()
        except Killed:
            is_killed = True
    assert is_killed
    fill(path, 1)
    assert len(read_ledger(path, cohort_of(path))) == 1
    assert (cohort_of(path) / TIE).exists()


# --- prepare ----------------------------------------------------------------------------------------------------------


def replace(cohort: Path) -> None:
    with replacing(cohort, "key") as folder:
        (folder / MANIFEST).write_text("{}")


def test_what_takes_the_place_of_a_cohort_has_its_ledger(path: Path) -> None:
    cohort = cohort_of(path)
    replace(cohort)
    assert not (cohort / TIE).exists()
    fill(path, 1)
    for _ in range(2):
        before = (cohort / TIE).read_bytes()
        replace(cohort)
        assert (cohort / TIE).read_bytes() == before
    fill(path, 1, first=2)


@pytest.mark.parametrize("at", range(7))
def test_ended_at_every_change_while_a_cohort_is_replaced(path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Whichever cohort is there after the next run, old or new, has the ledger."""
    cohort = cohort_of(path)
    replace(cohort)
    fill(path, 1)
    calls = iter(range(-1000, 0))  # none, until the cohort is whole
    with monkeypatch.context() as patch:

        def dying(function):
            def call(*arguments, **named):
                if next(calls) == at:
                    raise Killed
                return function(*arguments, **named)

            return call

        for place, name in ((os, "link"), (os, "fsync"), (Path, "rename"), (Path, "unlink")):
            patch.setattr(place, name, dying(getattr(place, name)))
        with pytest.raises(Killed), replacing(cohort, "key") as folder:
            (folder / MANIFEST).write_text('{"config_digest": "key"}')
            calls = iter(range(100))
    replace(cohort)
    assert (cohort / TIE).exists()
    fill(path, 1, first=2)


def test_an_old_tie_in_what_is_half_made_gives_way(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, content in ((old, "own"), (new, "other")):
        folder.mkdir()
        (folder / TIE).write_text(content)
    carry_over(old, new)
    assert (old / TIE).read_text() == (new / TIE).read_text() == "own"
