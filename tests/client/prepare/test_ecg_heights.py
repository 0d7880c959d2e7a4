"""Heights of ECGs: a hospital whose gain is wrong is told so, with the usual range; no other one is."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb

from client import cli
from client.checks.concerns import ecg_heights
from client.site import EcgData
from readers.ecg.heights import ENOUGH_RECORDS, height_facts, height_mv, measure_heights
from readers.ecg.record import LIMIT_UV, read_ecg
from simulation.synthetic.hospital import write_hospital
from simulation.synthetic.process import Process

FACTORS = [1, 5, 10, 4.88, 1 / 5, 1 / 10, 1 / 4.88]
LUDB = Path(os.environ.get("LEMOF_MIMIC_DEMO", "")) / "ludb-1.0.1/data"


def told(heights: list[tuple[float, str]]) -> list[str]:
    return [finding.found for finding in ecg_heights(height_facts(heights)) if finding.result == "warn"]


def scaled(signals_NCT: np.ndarray, factor: float) -> list[tuple[float, str]]:
    """Heights of the same people under a gain that is wrong by a factor; artefacts and tall beats are clipped."""
    wrong_NCT = np.rint((signals_NCT * factor).clip(-LIMIT_UV, LIMIT_UV)).astype(np.int16)
    return [(height_mv(ecg_CT), "200/mV") for ecg_CT in wrong_NCT]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated hospital."""
    folder = tmp_path_factory.mktemp("heights") / "hospital"
    process = Process()
    write_hospital(folder, process.hospital(0, 1, 5), process=process, num_stays=40, seed=5)
    return folder


def test_a_height_is_that_of_the_beats() -> None:
    """An artefact, slow wander and leads without a signal change little; a slow loop agrees."""
    rng = np.random.default_rng(0)
    time_T = np.arange(1000) / 100
    ecg_CT = np.rint(900 * (time_T % 1.6 < 0.04) + rng.normal(0, 5, (12, 1000))).astype(np.int16)
    ranges = [[np.ptp(ecg_CT[lead, start : start + 200]) for start in range(0, 1000, 200)] for lead in range(12)]
    assert height_mv(ecg_CT) == np.median([np.median(lead) for lead in ranges]) / 1000
    assert height_mv(ecg_CT) == pytest.approx(0.92, abs=0.02)
    worse_CT = ecg_CT + np.rint(300 * np.sin(2 * np.pi * time_T / 10)).astype(np.int16)
    worse_CT[:, 300:320] = 3000
    assert height_mv(worse_CT) == pytest.approx(0.92, abs=0.25)
    worse_CT = ecg_CT.copy()
    worse_CT[:5] = 0
    assert height_mv(worse_CT) == pytest.approx(0.92, abs=0.02)


@pytest.mark.parametrize("factor", FACTORS)
def test_generated_hospitals(hospital: Path, factor: float) -> None:
    ecg = EcgData.model_validate({"root": hospital / "ecg"}, context={"folder": hospital})
    paths = [str(file.relative_to(ecg.root).with_suffix("")) for file in sorted(ecg.root.rglob("*.hea"))]
    found = told(scaled(np.stack([read_ecg(ecg, path) for path in paths]), factor))
    assert len(found) == (factor != 1)
    assert all("usually 0.5 to 2 mV" in one for one in found)


@pytest.mark.skipif(not LUDB.is_dir(), reason="LEMOF_MIMIC_DEMO holds no ludb-1.0.1")
@pytest.mark.parametrize("as_stored", [True, False])
def test_people(as_stored: bool) -> None:
    """A third of LUDB's 200 people; their headers stretch each lead to 1 mV, their stored integers are microvolts."""
    ecg = EcgData.model_validate({"root": LUDB}, context={"folder": LUDB})
    signals = []
    for number in range(1, 201, 3):
        if as_stored:
            record = wfdb.rdrecord(str(LUDB / str(number)), physical=False)
            signals.append((record.d_signal - np.array(record.baseline)).T[:, ::5])
        else:
            signals.append(read_ecg(ecg, str(number)))
    for factor in FACTORS:
        assert bool(told(scaled(np.stack(signals), factor))) == (factor != 1), factor


def test_one_machine_of_a_site() -> None:
    usual = [(0.8 + 0.02 * number, "1000/mV") for number in range(40)]
    low = [(height / 4.88, "4880/mV") for height, _ in usual[:12]]
    assert told(usual) == told([*usual, *low[: ENOUGH_RECORDS - 1]]) == []
    assert told([*usual, *low]) == [
        "median 0.186 mV in the 12 of 52 records with a gain of 4880/mV, usually 0.5 to 2 mV"
    ]
    same_header = [(height, "1000/mV") for height, _ in low]
    assert told([*usual, *same_header]) == [
        "12 of 52 records under 0.3 mV in the median lead; medians are usually 0.5 to 2 mV"
    ]
    high = [(5 * height, "") for height, _ in usual[:12]]
    assert told([*usual, *high]) == ["12 of 52 records over 3.2 mV in the median lead; medians are usually 0.5 to 2 mV"]
    assert told([(0.1, "1000/mV")] * (ENOUGH_RECORDS - 1)) == told([]) == [], "so few may be of sick hearts"


def test_the_gain_is_that_of_the_header(
    tmp_path: Path, write_record: Callable[..., None], samples: Callable[..., np.ndarray]
) -> None:
    for number, gain in enumerate(["200.0(0)"] * 12 + ["400(3)"] * 10):
        write_record(tmp_path / f"r{number:02}", samples(number), gain=gain)
    ecg = EcgData.model_validate({"root": tmp_path}, context={"folder": tmp_path})
    paths = [f"r{number:02}" for number in range(22)]
    np.save(tmp_path / "ecg.npy", np.stack([read_ecg(ecg, path) for path in reversed(paths)]))
    row_of = {path: 21 - number for number, path in enumerate(paths)}
    facts = measure_heights(ecg, tmp_path / "ecg.npy", row_of)
    assert {gain: num for gain, (num, _) in facts["by_gain"].items()} == {"200/mV": 12, "400/mV": 10}
    assert facts["by_gain"]["400/mV"][1] == pytest.approx(facts["by_gain"]["200/mV"][1] / 2, rel=0.2)
    (tmp_path / "r00.hea").unlink()
    assert measure_heights(ecg, tmp_path / "ecg.npy", row_of)["records"] == 22
    np.save(tmp_path / "ecg.npy", np.empty((0, 12, 1000), np.int16))
    assert measure_heights(ecg, tmp_path / "ecg.npy", {})["records"] == 0


def findings(folder: Path) -> list[dict[str, Any]]:
    report = json.loads((folder / "check.json").read_text())
    return [finding for finding in report["findings"] if finding["check"] == "ECG heights"]


def test_a_site_is_told_by_check_prepare_and_page(
    hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(hospital, tmp_path / "site")
    command = ["--site", str(folder / "site.yaml")]
    assert cli.run([*command, "check"]) == 0
    (fine,) = findings(folder)
    assert (fine["result"], fine["found"][:7]) == ("ok", "median ")
    for header in folder.glob("ecg/**/*.hea"):
        header.write_text(header.read_text().replace("200.0(0)", "976.0(0)"))
    assert cli.run([*command, "check"]) == 0
    (warned,) = findings(folder)
    assert warned["result"] == "warn" and warned["code"] == "E205"
    assert re.fullmatch(r"median 0\.2\d+ mV in the median lead of \d+ records, usually 0\.5 to 2 mV", warned["found"])
    capsys.readouterr()
    assert cli.run([*command, "prepare"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(r"warning: ECG heights: median 0\.2\d+ mV .*usually 0\.5 to 2 mV\. Are gain and unit", said)
    assert re.search(r"ECG of [\d.]+% of stays, median height 0\.2\d mV", said)
    page = (folder / "readiness.html").read_text()
    assert "ECG heights" in page and "median height in the median lead" in page
