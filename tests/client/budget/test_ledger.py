"""The ledger: whatever happens to process, disk or file, it never claims less than what was sent."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from client.budget import accounting
from client.budget import ledger as ledger_module
from client.budget.accounting import Budget, Charge
from client.budget.ledger import Ledger, open_ledger, read_ledger, request_digest
from client.budget.statement import verify
from client.budget.tie import TIE
from lemof_model.errors import BudgetError, DiskError, LedgerError, OtherSplitsError
from lemof_model.study import AttentionSpec, SplitSpec, Study, TrainingSpec, canonical_json, digest_json
from protocol.messages import CensusRequest, EncodersRequest, FinalRequest, Packet
from tests.client.budget.golden_epsilon import COUNTS, DELTA, GOLDEN, charges_of

BUDGET = Budget(8.0, DELTA, 8.0)
STUDY = Study()
SHORT = Study(encoders=TrainingSpec(num_rounds=5), attention=AttentionSpec(training=TrainingSpec(num_rounds=3)))
CHARGE = Charge("train", "gaussian", 20.0)


def final(number: int, study: Study = STUDY, value: float = 0.0) -> FinalRequest:
    return FinalRequest(study=study, round=number, model={"final": np.array([value, 1.0])})


def answer(value: float) -> Packet:
    return Packet({"final/gradient": np.array([value]), "file": np.ones(())}, {"round": 1}, {"kind": "answer"})


def cohort_of(path: Path) -> Path:
    """The cohort beside a ledger."""
    cohort = path.parent / "cohort"
    cohort.mkdir(parents=True, exist_ok=True)
    return cohort


def fill(path: Path, num: int, first: int = 1) -> None:
    with open_ledger(path, BUDGET, cohort_of(path)) as ledger:
        for number in range(first, first + num):
            ledger.append(final(number), [CHARGE], answer(number))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def test_entries_say_what_was_released(path: Path) -> None:
    fill(path, 2)
    entries = read_ledger(path, cohort_of(path))
    assert [(e.study, e.study_name, e.stage, e.round, e.charges) for e in entries] == [
        (STUDY.digest, "lemof", "final", number, (CHARGE,)) for number in (1, 2)
    ]
    assert entries[1].epsilon == accounting.spent([CHARGE] * 2, DELTA) == verify(entries)
    assert entries[0].splits == asdict(STUDY.splits)
    assert json.loads(path.read_text().split("\n")[0])["version"] == 1


def test_a_repeated_request_gets_the_same_bytes_and_is_charged_once(path: Path) -> None:
    fill(path, 1)
    with open_ledger(path, BUDGET, cohort_of(path)) as ledger:
        packet = ledger.stored(final(1))
        assert packet is not None
        assert packet.arrays["final/gradient"].tobytes() == answer(1).arrays["final/gradient"].tobytes()
        assert packet.arrays["file"].shape == ()
        assert (packet.metrics, packet.config) == (answer(1).metrics, answer(1).config)
        assert ledger.stored(final(2)) is None
        assert ledger.stored(final(1, value=1e-9)) is None
    assert len(read_ledger(path, cohort_of(path))) == 1


def test_an_answer_without_its_line_was_never_sent(path: Path) -> None:
    fill(path, 1)
    stored = path.with_name("ledger.jsonl.answers")
    with open_ledger(path, BUDGET, cohort_of(path)) as ledger:
        stored.joinpath(f"{request_digest(final(2))}.npz").write_bytes(b"half an ans")
        assert ledger.stored(final(2)) is None
        ledger.append(final(2), [CHARGE], answer(2))
        assert ledger.stored(final(2)) is not None
        stored.joinpath(f"{request_digest(final(1))}.npz").write_bytes(b"another answer")
        assert ledger.stored(final(1)) is None  # to be computed and charged again


def test_answers_of_older_studies_go_when_a_new_one_starts(path: Path) -> None:
    fill(path, 2)
    with open_ledger(path, BUDGET, cohort_of(path)) as ledger:
        ledger.append(final(1, Study(seed=8)), [CHARGE], answer(1))
        assert ledger.stored(final(1)) is None
        assert ledger.stored(final(1, Study(seed=8))) is not None
        ledger.append(final(3), [CHARGE], answer(3))  # not a new study
        assert ledger.stored(final(1, Study(seed=8))) is not None


def test_digests_see_every_part_of_a_request() -> None:
    requests = [
        final(1), final(2), final(1, Study(seed=8)), final(1, value=1e-300),
        CensusRequest(study=STUDY, round=1, schema_digest=""),
        FinalRequest(study=STUDY, round=1, model={"final": np.array([[0.0, 1.0]])}),
        FinalRequest(study=STUDY, round=1, model={"final": np.array([0.0, 1.0], np.float32)}),
        FinalRequest(study=STUDY, round=1, model={"finals": np.array([0.0, 1.0])}),
        EncodersRequest(study=STUDY, round=1), EncodersRequest(study=STUDY, round=1, number=2),
    ]  # fmt: skip
    assert len({request_digest(request) for request in requests}) == len(requests)
    assert request_digest(final(1)) == request_digest(final(1))


# --- budget -----------------------------------------------------------------------------------------------------------


def test_nothing_passes_the_budget(path: Path) -> None:
    big = Charge("train", "gaussian", 1.0)
    cost = accounting.spent([big], DELTA)
    with open_ledger(path, Budget(1.2 * cost, DELTA, 1.2 * cost), cohort_of(path)) as ledger:
        ledger.append(final(1), [big], answer(1))
        content = path.read_bytes()
        with pytest.raises(BudgetError, match=r"privacy.epsilon: [\d.]+\), got [\d.]+ with it. Nothing was sent"):
            ledger.append(final(2), [big], answer(2))
        assert path.read_bytes() == content
        assert len(list(path.with_name("ledger.jsonl.answers").iterdir())) == 1
        ledger.append(final(2), [Charge("tuning", "gaussian", 1.0)], answer(2))  # other patients
    with open_ledger(path, Budget(10 * cost, DELTA, 1.2 * cost), cohort_of(path)) as ledger:
        with pytest.raises(BudgetError, match="study_epsilon"):
            ledger.append(final(3), [big], answer(3))
        assert ledger.epsilon_after(Study(seed=8), [big]) > cost  # a second study has its own share
    assert "1" not in str(BudgetError.told_outside)


def test_other_splits_under_a_budget_are_refused(path: Path) -> None:
    fill(path, 1)
    with open_ledger(path, BUDGET, cohort_of(path)) as ledger:
        for splits in (SplitSpec(salt="new"), SplitSpec(train=0.4, stack=0.35)):
            with pytest.raises(OtherSplitsError, match="splits of a study must be those that the ledger began with"):
                ledger.append(final(1, Study(splits=splits)), [CHARGE], answer(1))
    assert len(read_ledger(path, cohort_of(path))) == 1


def test_two_studies_cost_what_dp_accounting_says_across_restarts(path: Path) -> None:
    """Golden: ``golden_epsilon.json``. The ledger is opened anew for every answer, as a site's processes do."""
    for case in json.loads(GOLDEN.read_text())["cases"]:
        for number, charged in enumerate(case["charges"]):
            charge = Charge(**{name: charged[name] for name in charged if name != "times"})
            charge = replace(charge, steps=charge.steps * charged["times"])
            with open_ledger(path, BUDGET, cohort_of(path)) as ledger:
                study = STUDY if 2 * number < len(case["charges"]) else SHORT
                ledger.append(final(number, study), [charge], answer(number))
        entries = read_ledger(path, cohort_of(path))
        assert entries[-1].epsilon == pytest.approx(max(case["epsilon"].values()), rel=1e-6)
        assert verify(entries) == pytest.approx(entries[-1].epsilon, rel=1e-12)
        for name in ("ledger.jsonl", "ledger.jsonl.head", f"cohort/{TIE}"):
            (path.parent / name).unlink()


def test_the_budget_lasts_whole_studies(path: Path) -> None:
    budget = Budget(8.0, DELTA, 5.0)
    for study in (SHORT, replace(SHORT, seed=8)):
        with open_ledger(path, budget, cohort_of(path)) as ledger:
            assert ledger.schedule(study) is None
            before, own = ledger.curves(), ledger.curves(study)
            schedule = accounting.schedule(study, budget, before=before, own=own)
            schedule = accounting.with_counts(schedule, study, budget, COUNTS, before=before, own=own)
        for stage, number, charges in charges_of(study, schedule):
            with open_ledger(path, budget, cohort_of(path)) as ledger:
                ledger.append(final(number, study), charges, answer(number), schedule if stage == "census" else None)
                assert ledger.schedule(study) == schedule
    entries = read_ledger(path, cohort_of(path))
    assert verify(entries) == pytest.approx(entries[-1].epsilon, rel=1e-12)
    assert entries[-1].epsilon < 8.0
    assert entries[len(entries) // 2 - 1].epsilon == pytest.approx(5.0, rel=1e-3)


# --- kill -9 ----------------------------------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from tests.client.budget.test_ledger import CHARGE, BUDGET, answer, cohort_of, final
from client.budget.ledger import open_ledger
for number in range(int(sys.argv[2]), 10_000):
    with open_ledger(Path(sys.argv[1]), BUDGET, cohort_of(Path(sys.argv[1]))) as ledger:
        ledger.append(final(number), [CHARGE], answer(number))
    print(number, flush=True)  # the answer has left
    if number == int(sys.argv[3]):
        break
"""


def child(path: Path, first: int, last: int = -1) -> subprocess.Popen:
    command = [sys.executable, "-c", CHILD, str(path), str(first), str(last)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("num_kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_instants_it_never_claims_less_than_was_sent(path: Path, num_kills: int) -> None:
    rng, num_sent = random.Random(0), 0
    for kill in range(num_kills):
        with child(path, first=1000 * kill) as process:
            assert process.stdout is not None
            num_sent += bool(process.stdout.readline())
            time.sleep(rng.uniform(0.0, 0.15))
            process.send_signal(signal.SIGKILL)
            num_sent += process.stdout.read().count("\n")
        with open_ledger(path, BUDGET, cohort_of(path)) as ledger:  # mends what the kill left
            entries = ledger.entries
        assert num_sent <= len(entries) <= num_sent + kill + 1  # at most one line too many for each kill
        assert verify(read_ledger(path, cohort_of(path))) == accounting.spent([CHARGE] * len(entries), DELTA)
        sent = [
            entry for entry in entries if (path.with_name("ledger.jsonl.answers") / f"{entry.request}.npz").exists()
        ]
        assert len(sent) == len(entries)
    assert num_sent > num_kills


def test_two_processes_take_turns(path: Path) -> None:
    with child(path, 0, 4) as one, child(path, 100, 104) as other:
        with open_ledger(path, BUDGET, cohort_of(path)):
            time.sleep(1.5)  # both have started, and wait here
            content = path.read_bytes()
        assert content.count(b"\n") == 1
        assert (one.wait(), other.wait()) == (0, 0)
    entries = read_ledger(path, cohort_of(path))
    assert sorted(entry.round for entry in entries) == [*range(5), *range(100, 105)]
    verify(entries)


class Killed(BaseException):
    """The process ended here."""


@pytest.mark.parametrize("at", range(9))
def test_ended_at_every_write_and_sync_of_an_answer(path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Before each system call that matters, the process ends; a write ends half done."""
    fill(path, 2)
    calls, write, is_killed = iter(range(100)), os.write, False

    def dying(function):
        def call(*arguments):
            if next(calls) == at:
                if function is write:
                    write(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise Killed
            return function(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", dying(write))
        patch.setattr(os, "fsync", dying(os.fsync))
        patch.setattr(Path, "replace", dying(Path.replace))
        try:
            fill(path, 1, first=3)
        except Killed:
            is_killed = True
    with open_ledger(path, BUDGET, cohort_of(path)) as ledger:
        assert 2 + (not is_killed) <= len(ledger.entries) <= 3
        assert ledger.stored(final(2)) is not None
        assert (ledger.stored(final(3)) is not None) == (len(ledger.entries) == 3)
        ledger.append(final(4), [CHARGE], answer(4))
    verify(read_ledger(path, cohort_of(path)))
    assert is_killed == (at < 8)


def test_ended_again_and_again_between_line_and_head(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path, 1)
    replace = Path.replace
    for number in (2, 3):
        with open_ledger(path, BUDGET, cohort_of(path)) as ledger, monkeypatch.context() as patch:

            def die(partial: Path, whole: Path) -> Path:
                if whole.suffix == ".head":
                    raise Killed
                return replace(partial, whole)

            patch.setattr(Path, "replace", die)
            with pytest.raises(Killed):
                ledger.append(final(number), [CHARGE], answer(number))
    fill(path, 1, first=4)
    assert [entry.round for entry in read_ledger(path, cohort_of(path))] == [1, 2, 3, 4]


def test_ended_while_the_first_line_was_written(path: Path) -> None:
    for begun in (b"", b'{"hash":"'):
        path.write_bytes(begun)
        fill(path, 1)
        assert len(read_ledger(path, cohort_of(path))) == 1
        for name in ("ledger.jsonl", "ledger.jsonl.head", f"cohort/{TIE}"):
            (path.parent / name).unlink()


def test_a_full_disk_leaves_the_ledger_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path, 1)
    content, write = path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:20]))
    with pytest.raises(DiskError, match="must be on a disk that can be written, got No space left on device"):
        fill(path, 1, first=2)
    assert path.read_bytes() == content


# --- damage -----------------------------------------------------------------------------------------------------------


def damaged(lines: list[bytes], what: str) -> list[bytes]:
    """Five whole lines: version, four answers."""
    match what:
        case "tampered":
            return [*lines[:2], lines[2].replace(b'"noise_multiplier":20.0', b'"noise_multiplier":90.0'), *lines[3:]]
        case "swapped":
            return [*lines[:2], lines[3], lines[2], lines[4]]
        case "cut out":
            return [*lines[:2], *lines[3:]]
        case "cut short":
            return [*lines[:2], lines[2][:100] + b"\n", *lines[3:]]
        case "other digest":
            stated = json.loads(lines[2])["hash"].encode()
            return [*lines[:2], lines[2].replace(stated, b"0" * 64), *lines[3:]]
        case "spaces":
            return [*lines[:2], lines[2].replace(b'":', b'": ', 1), *lines[3:]]
        case "no json":
            return [*lines[:2], b"[]\n", *lines[3:]]
        case "hashed again":
            line = json.loads(lines[2]) | {"epsilon": 0.0}
            line.pop("hash")
            line["hash"] = digest_json(line)
            return [*lines[:2], canonical_json(line).encode() + b"\n", *lines[3:]]
    raise AssertionError(what)


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("tampered", 3), ("swapped", 3), ("cut out", 3), ("cut short", 3), ("other digest", 3), ("spaces", 3),
        ("no json", 3), ("hashed again", 4),
    ],
)  # fmt: skip
def test_a_damaged_line_is_named_and_nothing_goes_on(path: Path, what: str, line: int) -> None:
    fill(path, 4)
    whole = path.read_bytes()
    content = b"".join(damaged(whole.splitlines(keepends=True), what))
    assert content != whole
    path.write_bytes(content)
    for use in (lambda: read_ledger(path, cohort_of(path)), lambda: fill(path, 1, first=9)):
        with pytest.raises(LedgerError, match=rf"Line {line} of ledger.jsonl must be as it was written"):
            use()
    assert path.read_bytes() == content


def test_lines_cut_off_the_end_are_missed(path: Path) -> None:
    fill(path, 3)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for kept in (b"".join(lines[:-1]), b"".join(lines[:-1]) + lines[-1][:50], whole[:-1], lines[0], b""):
        path.write_bytes(kept)
        with pytest.raises(LedgerError, match=r"must have 4 lines, got [013]: line [124] is missing"):
            fill(path, 1)
    path.write_bytes(whole + b'{"answer":')  # begun, never sent
    fill(path, 1, first=4)
    assert len(read_ledger(path, cohort_of(path))) == 4
    head = path.with_name("ledger.jsonl.head")
    path.unlink()
    with pytest.raises(LedgerError, match="must be there, got only its head"):
        read_ledger(path, cohort_of(path))
    path.write_bytes(whole)
    for words in ("", "x y", f"4 {'0' * 64}", f"2 {json.loads(lines[1])['hash']}"):
        head.write_text(words)
        with pytest.raises(LedgerError):
            fill(path, 1)


def test_a_false_epsilon_is_found_by_verify(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "epsilon_after", lambda *_: 0.1)
        fill(path, 1, first=2)
    with pytest.raises(LedgerError, match=r"Line 3 of the ledger must state epsilon 0\.\d+, .* got 0.100000"):
        verify(read_ledger(path, cohort_of(path)))


def test_another_version_is_not_guessed_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "LEDGER_VERSION", 2)
    fill(path, 1)
    monkeypatch.undo()
    with pytest.raises(LedgerError, match=r"Line 1 of ledger.jsonl must state version 1, got 2"):
        read_ledger(path, cohort_of(path))


def test_no_ledger_is_an_empty_one(path: Path) -> None:
    assert read_ledger(path, cohort_of(path)) == []
    assert verify([]) == 0.0
