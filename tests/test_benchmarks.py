"""Every benchmark prints its rows, writes them as JSON and says by its exit status whether all of them hold."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from client.cohort.store import load_cohort
from tests.hospitals import write_hospital

KEYS = ["what", "against", "value", "unit", "ratio", "goal", "holds"]


def test_a_row_that_does_not_hold_is_shown_all_the_same(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = runpy.run_path(str(repository / "benchmarks" / "rows.py"))
    good = rows["Row"]("walking", "crawling: 2 km/h", 5.0, "km/h", 2.5, ">= 1", True)
    bad = rows["Row"]("running", "walking: 5 km/h", 4.0, "km/h", 0.8, ">= 1", False)
    plain = rows["Row"]("legs", "", 2, "legs")
    file = tmp_path / "rows.json"
    assert rows["finish"]([good, plain], None) == 0
    assert rows["finish"]([good, plain, bad], file) == 1
    written = json.loads(file.read_text())
    assert [list(row) for row in written] == [KEYS] * 3
    assert [(row["what"], row["ratio"], row["holds"]) for row in written] == [
        ("walking", 2.5, True), ("legs", None, True), ("running", 0.8, False),
    ]  # fmt: skip
    table = capsys.readouterr().out
    assert "running" in table and "NO" in table


def test_encoders_measures_every_kind_of_row(repository: Path, tmp_path: Path) -> None:
    """On hospitals so small, with ``reachable`` made perfect, that no encoder can come near it."""
    truth = []
    for number, name in enumerate(("hospital_a", "hospital_b")):
        write_hospital(tmp_path, name, first_id=1 + 1000 * number)
        stays = load_cohort(tmp_path / name / "cohort").stays
        known = stays["icu_los_days"]
        truth.append(pd.DataFrame({"site": name, "stay_id": stays["stay_id"], "reachable_ehr": known}))
    pd.concat(truth).to_parquet(tmp_path / "truth.parquet")
    command = [sys.executable, "benchmarks/encoders.py", "--json", str(tmp_path / "rows.json")]
    options = ["--hospitals", str(tmp_path), "--only", "mlp", "--seeds", "7", "--rounds", "1"]
    done = subprocess.run([*command, *options], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [list(row) for row in rows] == [KEYS] * 7
    kinds = [row["what"].removeprefix("ehr mlp: ") for row in rows]
    steps = ["training step of 64 stays", "inference", "training step, level 3 alone", "inference, level 3 alone"]
    assert kinds[:5] == ["parameters", *steps]
    assert kinds[5].startswith("attention: an epoch") and kinds[6] == "share of the way to reachable"
    assert all(row["what"] in done.stdout and row["value"] > 0 for row in rows[:6])
    assert rows[6]["against"].startswith("reachable 1.000, ours 0.") and not rows[6]["holds"]
    assert not list(tmp_path.glob("*/cohort/.cache"))


def test_privacy_measures_every_kind_of_row(repository: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("hospital_a", "hospital_b", "hospital_c")):
        write_hospital(tmp_path, name, num_stays=300, first_id=1 + 1000 * number)
    command = [sys.executable, "benchmarks/privacy.py", "--json", str(tmp_path / "rows.json")]
    options = ["--hospitals", str(tmp_path), "--epsilons", "8", "inf", "--seeds", "7", "--rounds", "1"]
    options += ["--default-seeds", "--processes", "1", "--figure", str(tmp_path / "figure.png")]
    done = subprocess.run([*command, *options], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    rows = {row["what"]: row for row in json.loads((tmp_path / "rows.json").read_text())}
    assert done.returncode == int(not all(row["holds"] for row in rows.values()))
    for kind in ("ecg resnet: private step of 64 stays", "ehr ft_transformer: private step of 64 stays"):
        assert rows[kind]["ratio"] > 0 and rows[kind]["goal"] == "<= 2.5"
    for kind in ("epsilon 8", "no budget, small plan"):
        for population in ("with_ecg", "all"):
            assert 0 < rows[f"{kind}: full, {population}"]["value"] < 1
            assert f"{kind}: full, {population}, as reported" in rows
        for learner in ("encoders", "attention"):
            assert 0 < rows[f"{kind}: attack on {learner}"]["value"] < 1
            assert f"{kind}: attack on {learner}, few false" in rows
    spent = rows["epsilon 8: spent by a hospital"]
    assert spent["holds"] and 7 < spent["value"] <= 8
    assert "no budget: trees on the EHR table, all" in rows
    assert (tmp_path / "figure.png").stat().st_size > 0
    assert not list(tmp_path.glob("*/ledger*")) and not list(tmp_path.glob("*/cohort/.cache"))


def test_prepare_measures_every_kind_of_row(repository: Path, tmp_path: Path) -> None:
    """On input so small that no time means anything; that all ways agree is checked inside."""
    command = [sys.executable, "benchmarks/prepare.py", "--json", str(tmp_path / "rows.json")]
    options = ["--rows", "30000", "--ecgs", "20", "--repeat", "1"]
    done = subprocess.run([*command, *options], cwd=repository, capture_output=True, text=True, check=False)
    assert (tmp_path / "rows.json").is_file(), done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert all(list(row) == KEYS for row in rows)
    by_name = {f"{row['what']}; {row['goal']}": row for row in rows}
    assert list(by_name) == [
        *("making the input; None", "prepare, all of it; exit 0", "prepare, peak memory; < 1"),
        *("prepare, nothing changed; < 2 s", "check; < 10 s", "chart pass, csv.gz; >= 3", "chart pass, csv.gz; <= 1.5"),
        *("chart pass, peak memory; < 1", "chart pass, twice the rows; <= 2.3"),
        *("chart pass, memory of twice the rows; <= 1.25", "ECG ingest, one core; >= 1.4"),
        *("ECG ingest, one core, all through wfdb; >= 1.0", "ECG ingest, greatest difference; <= 1"),
        *("ECG ingest, records with one bit flipped; all", "batch of 64 ECGs, warm; < 0.5 ms"),
    ]
    must_hold = ("prepare, all", "check", "ECG ingest, greatest", "ECG ingest, records")
    assert all(row["holds"] for name, row in by_name.items() if name.startswith(must_hold)), done.stderr
    assert all(row["value"] >= 0 and row["what"] in done.stdout for row in rows)


@pytest.mark.parametrize("num_private", [0, 3])
def test_intervals_hold_known_aurocs(repository: Path, num_private: int) -> None:
    """A quick look, by a seed fixed beforehand; the whole table is in docs/log.md."""
    coverage = SimpleNamespace(**runpy.run_path(str(repository / "benchmarks" / "coverage.py")))
    setting = coverage.Setting(3, 200, "usual", num_private)
    rng = np.random.default_rng(11)
    edges, schedule = coverage.edges_of(rng, setting), coverage.planned(setting)
    held: dict[str, int] = {}
    for _ in range(100):
        for name, truth, interval in coverage.found_in(coverage.one_draw(rng, setting, edges, schedule), setting):
            held[name] = held.get(name, 0) + (interval is not None and interval[0] <= truth <= interval[1])
    assert min(held.values()) >= 87, held
