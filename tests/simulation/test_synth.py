"""Generated hospitals: layouts that others read, the same bytes, and bounds that are true."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb
from rich.console import Console
from scipy.signal import find_peaks
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from client.mimic_iv.prepare import prepare
from client.site import load_plan_sections, load_site
from lemof_model.features import CONCEPTS
from simulation.cli import command
from simulation.synthetic.events import PANELS, VITALS
from simulation.synthetic.generate import generate
from simulation.synthetic.process import Process, draw_latents, expected_auroc, long_stay_probabilities
from simulation.synthetic.signals import LEADS, draw_ecg, write_ecg

NUM_STAYS = 40
HEADERS = {  # of MIMIC-IV 2.2
    "hosp/patients": "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod",
    "hosp/admissions": "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,admit_provider_id,"
    "admission_location,discharge_location,insurance,language,marital_status,race,edregtime,edouttime,"
    "hospital_expire_flag",
    "hosp/diagnoses_icd": "subject_id,hadm_id,seq_num,icd_code,icd_version",
    "hosp/labevents": "labevent_id,subject_id,hadm_id,specimen_id,itemid,order_provider_id,charttime,storetime,value,"
    "valuenum,valueuom,ref_range_lower,ref_range_upper,flag,priority,comments",
    "icu/icustays": "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los",
    "icu/chartevents": "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valuenum,valueuom,"
    "warning",
}


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three generated hospitals."""
    out = tmp_path_factory.mktemp("generated")
    generate(out, num_sites=3, num_stays=NUM_STAYS, seed=3)
    return out


def read(site: Path, table: str) -> pd.DataFrame:
    """A table of a hospital, as pandas reads it."""
    return pd.read_csv(site / f"{table}.csv.gz")


@pytest.mark.parametrize("table", HEADERS)
def test_tables_have_the_columns_of_mimic(hospitals: Path, table: str) -> None:
    for site in ("hospital_a", "hospital_b", "hospital_c"):
        assert list(read(hospitals / site, table).columns) == HEADERS[table].split(",")


def test_stays_patients_and_events_belong_together(hospitals: Path) -> None:
    subjects: set[int] = set()
    for site in sorted(hospitals.glob("hospital_*")):
        stays, patients = read(site, "icu/icustays"), read(site, "hosp/patients")
        assert len(stays) == NUM_STAYS == stays.stay_id.nunique()
        assert set(stays.subject_id) == set(patients.subject_id)
        assert patients.subject_id.is_unique and not subjects & set(patients.subject_id)
        subjects |= set(patients.subject_id)
        charts = read(site, "icu/chartevents").merge(stays, on="stay_id", validate="many_to_one")
        assert (charts.charttime >= charts.intime.str[:-2] + "00").all() and (charts.charttime <= charts.outtime).all()
        labs = read(site, "hosp/labevents")
        assert labs.labevent_id.is_unique and labs.hadm_id.isna().any() and (labs.storetime > labs.charttime).all()


def test_every_concept_of_the_schema_is_measured() -> None:
    generated = {shown.name: shown.item_id for shown in (*VITALS, *(one for panel in PANELS.values() for one in panel))}
    assert set(generated) == {concept.name for concept in CONCEPTS}
    for concept in CONCEPTS:
        assert generated[concept.name] in concept.item_ids, concept.name


def test_records_are_read_back_by_wfdb(hospitals: Path) -> None:
    ecg = hospitals / "hospital_a" / "ecg"
    records = pd.read_csv(ecg / "record_list.csv")
    assert list(records.columns) == ["subject_id", "study_id", "file_name", "ecg_time", "path"]
    for subject, study, path in zip(records.subject_id, records.study_id, records.path, strict=True):
        assert path == f"files/p{str(subject)[:4]}/p{subject}/s{study}/{study}"
    for path in records.path[:3]:
        record = wfdb.rdrecord(str(ecg / path))
        assert record.fs == 500 and record.p_signal.shape == (5000, 12) and tuple(record.sig_name) == LEADS
        assert set(record.units) == {"mV"} and np.nanmax(np.abs(record.p_signal)) < 6
    assert len(list(ecg.glob("files/*/*/*/*.dat"))) == len(records)


def test_header_and_samples_are_those_of_wfdb_wrsamp(tmp_path: Path) -> None:
    adc = draw_ecg(0.5, 0.0, np.random.default_rng(0))
    adc[100:200, 4] = np.iinfo(np.int16).min
    write_ecg(tmp_path / "ours", "40000001", adc, 10000001)
    (tmp_path / "theirs").mkdir()
    wfdb.wrsamp(
        "40000001",
        fs=500,
        units=["mV"] * 12,
        sig_name=list(LEADS),
        d_signal=adc,
        fmt=["16"] * 12,
        adc_gain=[200.0] * 12,
        baseline=[0] * 12,
        comments=["<subject_id>: 10000001"],
        write_dir=str(tmp_path / "theirs"),
    )
    for name in ("40000001.hea", "40000001.dat"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()


def test_limb_leads_obey_einthoven() -> None:
    adc = draw_ecg(0.0, 0.0, np.random.default_rng(1)).astype(int)
    lead = {name: adc[:, column] for column, name in enumerate(LEADS)}
    np.testing.assert_allclose(lead["I"] + lead["III"], lead["II"], atol=2)
    np.testing.assert_allclose(lead["aVR"] + lead["aVL"] + lead["aVF"], 0, atol=2)


def test_burden_inverts_t_and_raises_the_rate() -> None:
    rng = np.random.default_rng(2)
    t_wave: dict[float, list[float]] = {-2.0: [], 2.0: []}
    num_beats: dict[float, list[int]] = {-2.0: [], 2.0: []}
    for burden in np.repeat(list(t_wave), 30):
        v5 = draw_ecg(burden, 0.0, rng)[:, LEADS.index("V5")].astype(float)
        peaks, _ = find_peaks(v5, height=0.6 * v5.max(), distance=120)
        late = peaks[(peaks < 4800)]
        t_wave[burden].append(float(np.mean([v5[peak + 110 : peak + 160].mean() for peak in late])))
        num_beats[burden].append(len(peaks))
    assert np.mean(t_wave[2.0]) < 10 < 40 < np.mean(t_wave[-2.0])
    assert np.mean(num_beats[2.0]) > np.mean(num_beats[-2.0]) + 2


def test_last_hospital_has_no_ecg_and_all_can_be_prepared(hospitals: Path) -> None:
    num_with_ecg = []
    for site_file in sorted(hospitals.glob("*/site.yaml")):
        site = load_site(site_file)
        cohort = prepare(site, load_plan_sections(None), Console(quiet=True))
        stays = read(site_file.parent, "icu/icustays")
        hours = (pd.to_datetime(stays.outtime) - pd.to_datetime(stays.intime)).dt.total_seconds() / 3600
        assert cohort.num_stays == (hours >= 24).sum()
        assert np.isfinite(cohort.features).mean() > 0.4
        num_with_ecg.append(cohort.manifest["num_stays_with_ecg"])
    assert site.data.ecg is None and not (site_file.parent / "ecg").exists()
    assert min(num_with_ecg[:-1]) > 0 and num_with_ecg[-1] == 0
    assert sum(num_with_ecg) == json.loads((hospitals / "truth.json").read_text())["with_ecg"]["num_stays"]
    assert load_site(site_file).limits.min_patients == 5 and "real hospital must not" in site_file.read_text()


def test_same_seed_same_bytes(hospitals: Path, tmp_path: Path) -> None:
    for name, seed in (("same", 3), ("other", 4)):
        generate(tmp_path / name, num_sites=3, num_stays=NUM_STAYS, seed=seed)
    files = [p.relative_to(hospitals) for p in hospitals.rglob("*") if p.is_file() and "cohort" not in p.parts]
    assert len(files) > 60
    for file in files:
        assert (hospitals / file).read_bytes() == (tmp_path / "same" / file).read_bytes(), file
    table = "hospital_a/icu/icustays.csv.gz"
    assert (tmp_path / "other" / table).read_bytes() != (hospitals / table).read_bytes()


@pytest.mark.parametrize("seen", ["both", "ehr", "ecg"])
def test_probabilities_equal_what_is_drawn(seen: str) -> None:
    process, num_stays = Process(), 200_000
    mix = process.case_mix(0, 4)
    latents = draw_latents(process, mix, num_stays, np.random.default_rng(5))
    in_cohort = latents.los_days >= process.min_stay_days
    is_long = (latents.los_days > process.threshold_days)[in_cohort]
    probability = long_stay_probabilities(process, mix, latents)[seen][in_cohort]
    tenth = np.digitize(probability, np.quantile(probability, np.arange(0.1, 1, 0.1)))
    for group in range(10):
        rows = tenth == group
        error = is_long[rows].mean() - probability[rows].mean()
        assert abs(error) < norm.ppf(0.9999) * 0.5 / np.sqrt(rows.sum())
    assert 0.3 < is_long.mean() < 0.42 and 0.06 < 1 - in_cohort.mean() < 0.14


def test_bounds_are_aurocs_and_ordered() -> None:
    process = Process()
    mix = process.case_mix(0, 4)
    latents = draw_latents(process, mix, 50_000, np.random.default_rng(6))
    in_cohort = latents.los_days >= process.min_stay_days
    is_long = (latents.los_days > process.threshold_days)[in_cohort]
    best = {name: p[in_cohort] for name, p in long_stay_probabilities(process, mix, latents).items()}
    bound = {name: expected_auroc(p, best["both"]) for name, p in best.items()}
    for name, p in best.items():
        assert bound[name] == pytest.approx(roc_auc_score(is_long, p), abs=0.01)
    assert 0.62 < bound["ecg"] < 0.68 < 0.72 < bound["ehr"] < bound["both"]


def test_expected_auroc_equals_sklearn_for_certain_labels() -> None:
    rng = np.random.default_rng(7)
    labels, score = rng.integers(0, 2, 200), rng.integers(0, 20, 200)
    assert expected_auroc(score, labels.astype(float)) == pytest.approx(roc_auc_score(labels, score), abs=1e-12)


def test_standard_benchmark_is_frozen() -> None:
    """The standard benchmark's parameters; a new digest means a new benchmark, and a line in docs/log.md."""
    assert Process().digest == "9f20e7175d87e2fca87346b33db06934047822f8b1d7ceb18eb1a49cac58feeb"


@pytest.mark.parametrize("option", [["--sites", "0"], ["--sites", "27"], ["--standard", "--stays", "9"]])
def test_refused_options_end_with_two(option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["synth", str(tmp_path / "out"), *option]) == 2
    assert option[0] in capsys.readouterr().err


def test_used_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old").write_text("")
    assert command(["synth", str(tmp_path)]) == 6
    assert "must be a new or empty folder" in capsys.readouterr().err


def test_no_site_files_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("")
    arguments = [
        "run",
        "--sites",
        str(tmp_path / "*" / "site.yaml"),
        "--plan",
        str(plan),
        "--out",
        str(tmp_path / "run"),
    ]
    assert command(arguments) == 2
    assert "must match site files" in capsys.readouterr().err
