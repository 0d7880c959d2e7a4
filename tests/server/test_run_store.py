"""What a run leaves on disk, and that a round comes back as it was."""

import csv
import errno
import fcntl
import json
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lemof_model.errors import ConfigError, DiskError, VersionError
from lemof_model.study import Study
from server.run_store import Round, RunStore, SiteReply, is_running, without_nan


def a_round(number: int = 1) -> Round:
    sums = {"ehr/x": np.array([0.1, 0.2]), "ehr/loss": np.asarray(3.5)}
    own: dict[str, NDArray[Any]] = {
        "ehr/x": np.arange(3, dtype=np.uint8),
        "ehr/t": np.arange(6, dtype=np.int32).reshape(2, 3).T,
    }
    sites = {
        "a": SiteReply({"ehr": 4, "ecg": 2}, ("stack/ecg",), sums=own),
        "b": SiteReply({}, refused="no line, with a comma"),
    }
    return Round("meta", number, sums, {"ehr": 4, "ecg": 2}, sites)


def assert_equal(found: Round, expected: Round) -> None:
    assert (found.stage, found.number, found.counts) == (expected.stage, expected.number, expected.counts)
    pairs = [(found.sums, expected.sums)]
    for name, reply in expected.sites.items():
        assert (found.sites[name].counts, found.sites[name].too_small) == (reply.counts, reply.too_small)
        assert found.sites[name].refused == reply.refused
        pairs.append((found.sites[name].sums, reply.sums))
    for one, other in pairs:
        assert one.keys() == other.keys()
        for key in other:
            assert one[key].dtype == other[key].dtype and one[key].shape == other[key].shape
            np.testing.assert_array_equal(one[key], other[key])


def test_a_finished_round_comes_back_bit_for_bit(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    store.finish(a_round())
    again = RunStore(tmp_path / "run", resume=True)
    assert again.next_stored("meta", 2) is None and again.next_stored("final", 1) is None
    found = again.next_stored("meta", 1)
    assert found is not None
    assert_equal(found, a_round())
    assert found.answered() == ["a"] and found.answered("ecg") == ["a"] and found.answered("x") == []


def test_attendance_tells_who_answered(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    store.finish(a_round(1))
    store.finish(a_round(2))
    with (tmp_path / "run/rounds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["number"], row["stage"], row["site"], row["answered"]) for row in rows] == [
        ("1", "meta", "a", "1"),
        ("1", "meta", "b", "0"),
        ("2", "meta", "a", "1"),
        ("2", "meta", "b", "0"),
    ]
    assert (rows[0]["num_stays"], rows[0]["num_groups_too_small"]) == ("4", "1")
    assert rows[1]["reason"] == "no line, with a comma"


def test_another_run_is_not_overwritten(tmp_path: Path) -> None:
    RunStore(tmp_path / "run").begin(Study(), "abc")
    with pytest.raises(ConfigError, match="--resume"):
        RunStore(tmp_path / "run")
    RunStore(tmp_path / "run", resume=True).begin(Study(), "abc")
    with pytest.raises(ConfigError, match="its own plan"):
        RunStore(tmp_path / "run", resume=True).begin(Study(seed=8), "abc")
    with pytest.raises(VersionError, match="must be resumed with the source it was begun with"):
        RunStore(tmp_path / "run", resume=True).begin(Study(), "abd")


def test_two_coordinators_do_not_write_into_one_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    store = RunStore(run)
    assert not is_running(run)
    with store.alone():
        assert is_running(run)
        with (
            pytest.raises(
                ConfigError, match=r"One coordinator at a time .* got another at work on .*run\. Nothing was"
            ),
            RunStore(run, resume=True).alone(),
        ):
            pass
    assert not is_running(run)
    with (run / "state/lock").open("rb") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        threading.Timer(0.05, fcntl.flock, (looked_at, fcntl.LOCK_UN)).start()
        with RunStore(run, resume=True).alone():
            pass


def test_a_disk_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    store = RunStore(tmp_path / "run")
    with store.alone():
        pass
    monkeypatch.setattr("fcntl.flock", no_locks)
    assert not is_running(tmp_path / "run")
    with pytest.raises(DiskError, match="disk that can lock files, got No locks available"), store.alone():
        pass


def test_a_file_in_the_way_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="folder that can be written") as caught:
        RunStore(tmp_path / "file" / "run")
    assert caught.value.exit_status == 6


def test_a_write_that_stops_leaves_the_old_file(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    store.write("metrics.json", "old")
    (tmp_path / "run/metrics.json.partial").mkdir()
    with pytest.raises(DiskError, match="--resume"):
        store.write("metrics.json", "new")
    assert (tmp_path / "run/metrics.json").read_text() == "old"


def test_nan_is_written_as_null(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    store.write_json("m.json", {"a": [float("nan"), np.float64("nan"), np.int64(3)], "b": (1.0, float("inf"))})
    assert json.loads((tmp_path / "run/m.json").read_text()) == {"a": [None, None, 3], "b": [1.0, None]}
    assert without_nan(True) is True


def test_timings_add_up(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    store.timed("meta", 1.0, {"a": {"sent": 10, "received": 1}})
    store.timed("meta", 0.5, {"a": {"sent": 10, "received": 2}, "b": {"sent": 4, "received": 0}})
    store.write_timings()
    found = json.loads((tmp_path / "run/timings.json").read_text())
    assert found["seconds"]["meta"] == 1.5
    assert found["bytes"] == {"a": {"sent": 20, "received": 3}, "b": {"sent": 4, "received": 0}}


def test_an_audit_line_cut_by_a_kill_does_not_swallow_the_next(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    store.audit(stage="census")
    with (tmp_path / "run/audit.jsonl").open("a") as file:
        file.write('{"stage": "stat')
    store.audit(stage="encoders")
    store.audit(stage="meta")
    first, cut, *rest = (tmp_path / "run/audit.jsonl").read_text().splitlines()
    assert [json.loads(line)["stage"] for line in (first, *rest)] == ["census", "encoders", "meta"]
    assert cut == '{"stage": "stat'


def test_a_run_has_an_id_that_it_keeps(tmp_path: Path) -> None:
    run = RunStore(tmp_path / "run").run
    assert re.fullmatch("[0-9a-f]{32}", run)
    assert RunStore(tmp_path / "run", resume=True).run == run
    assert RunStore(tmp_path / "other").run != run
