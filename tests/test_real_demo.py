"""The whole study on the real MIMIC-IV demo: split by care unit, prepared, run, reported, through the commands.

The demo is 140 ICU stays, so its results mean nothing; that they come at all, and count every stay once, is the test.
Its ECG records have no public waveforms: every listed record is given a generated one, so the ECG says nothing here.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from client.cli import run as lemof_client
from server.cli import run as lemof_server
from simulation.cli import command as lemof_sim
from simulation.synthetic.heart import draw_hearts
from simulation.synthetic.recording import draw_ecg, write_ecg
from tests.real_stays import real_courses

DAY = pd.Timedelta(days=1)
PLAN = """
name: demo
min_sites: 3
splits: {train: 0.4, stack: 0.3, tuning: 0.15, held_out: 0.15}
ecg: {name: resnet, sizes: {width: 8, num_tokens: 8}}
ehr: {name: ft_transformer, sizes: {width: 8}}
encoders: {num_rounds: 2, batch_size: 16}
attention: {width: 8, training: {num_rounds: 2, batch_size: 16}}
"""


def write_waveforms(record_list: Path, folder: Path) -> None:
    """A generated ECG for every listed record."""
    records = pd.read_csv(record_list)
    shutil.copy(record_list, folder)
    rng = np.random.default_rng(0)
    usual = np.zeros(1)
    drawn = draw_ecg(draw_hearts(usual, usual, usual, rng)[0], 80.0, rng)
    for path, subject_id in zip(records["path"], records["subject_id"], strict=True):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        write_ecg(target.parent, target.name, drawn, int(subject_id))


def test_the_real_demo_in_three_hospitals(mimic_demo: Path, tmp_path: Path) -> None:
    mimic, record_list = mimic_demo / "mimic-iv-demo-2.2", mimic_demo / "mimic-iv-ecg-demo-0.1/record_list.csv"
    ecg, hospitals, plan = tmp_path / "ecg", tmp_path / "hospitals", tmp_path / "plan.yaml"
    ecg.mkdir()
    write_waveforms(record_list, ecg)
    plan.write_text(PLAN)
    sources = ["--mimic", str(mimic), "--ecg", str(ecg)]
    assert lemof_sim(["split", *sources, str(hospitals), "--sites", "3", "--by", "careunit"]) == 0
    sites = sorted(hospitals.glob("*/site.yaml"))
    for site in sites:
        assert lemof_client(["--site", str(site), "prepare", "--plan", str(plan)]) == 0
    manifests = [json.loads((site.parent / "cohort/manifest.json").read_text()) for site in sites]

    stays = real_courses(mimic)
    kept = stays[stays.outtime - stays.intime >= DAY]
    pairs = kept.merge(pd.read_csv(record_list, parse_dates=["ecg_time"]), on="subject_id")
    within = pairs[(pairs.ecg_time >= pairs.intime - DAY) & (pairs.ecg_time <= pairs.intime + DAY)]
    assert sum(m["attrition"][0]["num_stays"] for m in manifests) == stays.members.map(len).sum() == 140
    assert sum(row["num_stays"] for m in manifests for row in m["attrition"][1:]) == 140
    assert sum(m["num_stays"] for m in manifests) == len(kept)
    assert sum(m["num_long_stays"] for m in manifests) == ((kept.outtime - kept.intime) > 3 * DAY).sum()
    assert sum(m["num_stays_with_ecg"] for m in manifests) == within.stay_id.nunique()

    run = tmp_path / "run"
    assert lemof_sim(["run", "--sites", f"{hospitals}/*/site.yaml", "--plan", str(plan), "--out", str(run)]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    held_out = sum(m["splits"]["held_out"] for m in manifests)
    assert 0 < metrics["variants"]["full"]["all"]["pooled"]["n"] <= held_out
    assert set(metrics["variants"]["full"]["all"]["sites"]) == {site.parent.name for site in sites}
    assert (run / "report.html").stat().st_size > 10_000
    assert lemof_server(["verify", str(run)]) == 0
