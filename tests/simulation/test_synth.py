"""Generated hospitals: files that others read, the same bytes, bounds that are true, a benchmark that is frozen."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import wfdb
from lightgbm import LGBMClassifier
from rich.console import Console
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.preprocessing import OneHotEncoder

from client.layouts.mimic_iv.layout import MIMIC_IV
from client.prepare.prepare import prepare
from client.site import load_plan_sections, load_site
from lemof_model.errors import ConfigError
from lemof_model.stays import CATEGORY_COLUMNS, NUMERIC_COLUMNS, feature_sums, scaling_from
from simulation.cli import command
from simulation.synthetic.bounds import SEEN, _averaged, _score, expected_auroc, upper_bounds
from simulation.synthetic.courses import draw_coefficients, heart_rate_at
from simulation.synthetic.delineation import MEASURES
from simulation.synthetic.diagnoses import with_a_leading_zero
from simulation.synthetic.generate import generate, parameters_digest
from simulation.synthetic.process import CONTROLS, ECG_LATENTS, LATENTS, TURNABLE, Process, draw_latents
from simulation.synthetic.reachable import measure_back, reachable_aurocs, reachable_scores

NUM_STAYS = 60
GOLDEN = [17_435, 1_179_520, 6_381, 1_423_159, 212.2134, 83, 28.90076]
POPULATIONS = ("all", "with_ecg")


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three generated hospitals."""
    out = tmp_path_factory.mktemp("generated")
    generate(out, num_sites=3, num_stays=NUM_STAYS, seed=3)
    return out


def read(site: Path, table: str) -> pd.DataFrame:
    """A table of a hospital, as pandas reads it."""
    return pd.read_csv(site / f"{table}.csv.gz")


def truth_of(folder: Path) -> dict:
    return json.loads((folder / "truth.json").read_text())


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


def test_every_record_is_read_by_wfdb_and_its_checksums_hold(hospitals: Path) -> None:
    num_records = 0
    for ecg in hospitals.glob("*/ecg"):
        records = pd.read_csv(ecg / "record_list.csv")
        assert list(records.columns) == ["subject_id", "study_id", "file_name", "ecg_time", "path"]
        for subject, study, path in zip(records.subject_id, records.study_id, records.path, strict=True):
            assert path == f"files/p{str(subject)[:4]}/p{subject}/s{study}/{study}"
            record = wfdb.rdrecord(str(ecg / path), physical=False)
            assert record.fs == 500 and record.d_signal.shape == (5000, 12) and set(record.units) == {"mV"}
            assert set(record.adc_gain) == {200.0}
            assert [total % 65_536 for total in record.d_signal.sum(axis=0)] == record.checksum
        assert len(list(ecg.glob("files/*/*/*/*.dat"))) == len(records)
        num_records += len(records)
    assert num_records > NUM_STAYS


def test_last_hospital_has_no_ecg_and_all_can_be_prepared(hospitals: Path) -> None:
    num_with_ecg = []
    for site_file in sorted(hospitals.glob("*/site.yaml")):
        site = load_site(site_file)
        cohort = prepare(site, MIMIC_IV, load_plan_sections(None), Console(quiet=True))
        stays = read(site_file.parent, "icu/icustays")
        hours = (pd.to_datetime(stays.outtime) - pd.to_datetime(stays.intime)).dt.total_seconds() / 3600
        assert cohort.num_stays == (hours >= 24).sum()
        assert np.isfinite(cohort.features).mean() > 0.4
        num_with_ecg.append(cohort.manifest["num_stays_with_ecg"])
    assert site.data.ecg is None and not (site_file.parent / "ecg").exists()
    assert min(num_with_ecg[:-1]) > 0 and num_with_ecg[-1] == 0
    assert sum(num_with_ecg) == truth_of(hospitals)["with_ecg"]["num_stays"]
    assert load_site(site_file).limits.min_patients == 5 and "real hospital must not" in site_file.read_text()


def test_heart_rate_in_the_chart_agrees_with_the_ecg(hospitals: Path) -> None:
    differences = []
    for ecg in hospitals.glob("*/ecg"):
        measured = measure_back(ecg.parent, Process()).to_pandas().dropna(subset=["ecg_rate_bpm"])
        records = pd.read_csv(ecg / "record_list.csv", parse_dates=["ecg_time"])
        stays = measured[["subject_id", "stay_id", "intime", "ecg_rate_bpm"]]
        taken = records.merge(stays, on="subject_id")
        taken = taken[(taken.ecg_time - taken.intime).between(pd.Timedelta(0), pd.Timedelta("24h"))]
        taken = taken.sort_values("ecg_time").groupby("stay_id").tail(1)
        chart = read(ecg.parent, "icu/chartevents").query("itemid == 220045 and valuenum < 300")
        chart = chart.assign(charttime=pd.to_datetime(chart.charttime)).sort_values("charttime")
        near = pd.merge_asof(
            *(taken.sort_values("ecg_time"), chart[["stay_id", "charttime", "valuenum"]]),
            left_on="ecg_time", right_on="charttime", by="stay_id", direction="nearest", tolerance=pd.Timedelta("1h"),
        )  # fmt: skip
        differences.append((near.ecg_rate_bpm - near.valuenum).dropna())
    difference = pd.concat(differences)
    assert len(difference) > 20 and abs(difference.median()) < 3 and difference.abs().quantile(0.8) < 12


def test_same_seed_same_bytes(hospitals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulation.synthetic.generate.WORTH_A_PROCESS", 1)
    generate(tmp_path / "same", num_sites=3, num_stays=NUM_STAYS, seed=3)
    generate(tmp_path / "other", num_sites=1, num_stays=NUM_STAYS, seed=4)
    files = [p.relative_to(hospitals) for p in hospitals.rglob("*") if p.is_file() and "cohort" not in p.parts]
    assert len(files) > 60
    for file in files:
        assert (hospitals / file).read_bytes() == (tmp_path / "same" / file).read_bytes(), file
    table = "hospital_a/icu/icustays.csv.gz"
    assert (tmp_path / "other" / table).read_bytes() != (hospitals / table).read_bytes()


# --- The ceiling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", SEEN)
def test_probabilities_equal_what_is_drawn(seen: str) -> None:
    """Draw hospitals, draw lengths of stay: of the stays given P(long), that share is long."""
    process = Process()
    hospitals = [process.hospital(index, 4, 7) for index in range(4)]
    drawn = [draw_latents(process, one, 20_000, np.random.default_rng([5, one.index])) for one in hospitals]
    averaged = _averaged(
        process, hospitals, SEEN[seen], np.concatenate([one.values_ND for one in drawn]), np.random.default_rng(6)
    )
    los_days = np.concatenate([one.los_days for one in drawn])
    in_cohort = los_days >= process.min_stay_days
    probability = _score(averaged, np.ones(4))[in_cohort]
    is_long = (los_days > process.threshold_days)[in_cohort]
    tenth = np.digitize(probability, np.quantile(probability, np.arange(0.1, 1, 0.1)))
    for group in range(10):
        rows = tenth == group
        error = is_long[rows].mean() - probability[rows].mean()
        assert abs(error) < norm.ppf(0.9999) * 0.5 / np.sqrt(rows.sum())
    assert 0.3 < is_long.mean() < 0.45 and 0.06 < 1 - in_cohort.mean() < 0.2
    alone = upper_bounds(process, [dataclasses.replace(one, mix=with_coverage(one, 1.0)) for one in hospitals], 7)
    assert roc_auc_score(is_long, probability) == pytest.approx(alone["with_ecg"][f"upper_bound{seen}"], abs=0.008)


def with_coverage(hospital, coverage: float):
    return dataclasses.replace(hospital.mix, ecg_coverage=coverage)


def turned(**factors: Any) -> Process:
    return dataclasses.replace(Process(), **factors)


def bounds_of(**factors: float) -> dict[str, dict[str, float]]:
    process = turned(**factors)
    return upper_bounds(process, [process.hospital(index, 4, 7) for index in range(4)], 7)


def test_the_standard_ceiling_lies_where_it_was_designed_to() -> None:
    bounds = bounds_of()
    assert 0.60 < bounds["with_ecg"]["upper_bound_ecg"] < 0.72
    for population in POPULATIONS:
        assert bounds[population]["upper_bound"] > bounds[population]["upper_bound_ehr"] + 0.03
        assert bounds[population]["upper_bound_error"] < 0.002


def test_controls_and_factors_do_what_they_say() -> None:
    standard, positive = bounds_of(), bounds_of(**CONTROLS["positive"])["with_ecg"]
    assert positive["upper_bound"] - positive["upper_bound_ehr"] > 0.09
    silent = bounds_of(**CONTROLS["no-ecg-signal"])["with_ecg"]
    assert silent["upper_bound_ecg"] == pytest.approx(0.5, abs=0.004)
    assert silent["upper_bound"] == pytest.approx(silent["upper_bound_ehr"], abs=1e-9)
    assert bounds_of(difficulty=0.0)["with_ecg"]["upper_bound"] > 0.99
    for kind in ("ehr_local", "ehr_mid", "ehr_course", "ecg_local", "ecg_mid", "ecg_record", "combined"):
        assert bounds_of(**{kind: 0.0})["with_ecg"]["upper_bound"] < standard["with_ecg"]["upper_bound"] - 0.003, kind
    nothing = bounds_of(**dict.fromkeys([name for name in TURNABLE if name not in ("difficulty", "shift")], 0.0))
    assert nothing["with_ecg"]["upper_bound"] < 0.55  # only what the hospitals themselves differ by is left
    shifted = dataclasses.replace(Process(), shift=0.5)
    one, other = (shifted.hospital(index, 4, 7).log_days_P for index in (0, 1))
    assert np.abs(one / other - 1).max() > 0.3 and (Process().hospital(0, 4, 7).log_days_P > -0.2).all()


def test_the_written_heart_rate_tells_nothing_when_the_ecg_is_not_to() -> None:
    def auroc_of_rate(process: Process) -> float:
        latents = draw_latents(process, process.hospital(0, 4, 7), 40_000, np.random.default_rng(1))
        told = latents.values_ND * process.told_by_rate_D
        coefficients = draw_coefficients("heart_rate", told, np.random.default_rng(2))
        rate = heart_rate_at(coefficients, np.full(40_000, 20.0))
        kept = latents.los_days >= process.min_stay_days
        return float(roc_auc_score(latents.los_days[kept] > process.threshold_days, rate[kept]))

    assert auroc_of_rate(turned(**CONTROLS["no-ecg-signal"])) == pytest.approx(0.5, abs=0.01)
    assert auroc_of_rate(Process()) > 0.57


def test_coupling_has_a_limit_that_is_named() -> None:
    with pytest.raises(ConfigError, match=r"coupling must leave .* a part of its own, got 5"):
        assert turned(coupling=5.0).mixing_DD is None


def test_expected_auroc_equals_sklearn_for_certain_labels() -> None:
    rng = np.random.default_rng(7)
    labels, score = rng.integers(0, 2, 200), rng.integers(0, 20, 200)
    expected = expected_auroc(score, labels.astype(float), 1.0 - labels)
    assert expected == pytest.approx(roc_auc_score(labels, score), abs=1e-12)


def planted(num_stays: int, seed: int) -> pl.DataFrame:
    """Stays whose latents are measured back without error, as ``measure_back`` would give them."""
    process, rng = Process(), np.random.default_rng(seed)
    latents = draw_latents(process, process.hospital(0, 4, 7), num_stays, rng)
    columns = {name: latents[name] for name in LATENTS} | {f"back_{name}": latents[name] for name in LATENTS}
    columns |= {f"ecg_{name}": latents[latent] for name, latent in zip(MEASURES, ECG_LATENTS, strict=False)}
    columns |= {f"ecg_{name}": np.full(num_stays, np.nan) for name in MEASURES[len(ECG_LATENTS) :]}
    has_ecg = pl.Series(latents.has_ecg)
    return pl.DataFrame(columns | {"los": latents.los_days, "stay_id": np.arange(num_stays)}).with_columns(
        pl.when(has_ecg).then(pl.col(f"ecg_{name}")) for name in MEASURES
    )


def test_reachable_is_the_bound_when_nothing_is_lost_and_chance_when_labels_are() -> None:
    process, stays = Process(), planted(20_000, 8)
    bounds = upper_bounds(process, [process.hospital(0, 4, 7)], 7)
    reached = reachable_aurocs(process, reachable_scores(process, stays, 7))
    for population, names in (("all", ("", "_ehr")), ("with_ecg", ("", "_ehr", "_ecg"))):
        for name in names:
            assert reached[population][f"reachable{name}"] == pytest.approx(
                bounds[population][f"upper_bound{name}"], abs=0.015
            )
    shuffled = stays.with_columns(pl.col("los").shuffle(seed=1))
    by_chance = reachable_aurocs(process, reachable_scores(process, shuffled, 7))["all"]
    assert by_chance["reachable"] == pytest.approx(0.5, abs=3 * (by_chance["reachable_error"] or 0))


def test_reachable_is_unknown_where_too_few_are_long() -> None:
    process, stays = Process(), planted(40, 9)
    reached = reachable_aurocs(process, reachable_scores(process, stays, 7))
    assert reached["all"]["reachable"] is None and reached["with_ecg"]["reachable_ecg_error"] is None


def test_a_generated_hospital_never_looks_as_if_it_had_lost_its_zeros() -> None:
    """Whatever chance writes, its codes are not refused; what chance has written right stays as it is."""
    codes = ["4019", "99591", "25000", "99591"]
    chance = pl.DataFrame({"hadm_id": range(400), "icd_code": codes * 100, "icd_version": [9, 9, 9, 10] * 100})
    changed = with_a_leading_zero(chance)
    assert changed["icd_code"].to_list() == ["4019", "03842", "25000", "99591", *codes * 99]
    for right in (chance.head(260), changed, chance.with_columns(icd_version=10)):
        assert with_a_leading_zero(right).equals(right)


# --- Frozen -----------------------------------------------------------------------------------------------------------


def test_standard_benchmark_is_frozen() -> None:
    """The standard benchmark's parameters; a new digest means a new benchmark, and a line in docs/log.md."""
    assert parameters_digest(Process()) == "3587c5f30bd0b34ef83a02da94fb57bf1ab12e15f18ea1208799f564b6e7b59a"


def test_the_same_parameters_still_write_the_same_hospital(hospitals: Path) -> None:
    """Golden numbers of seed 3 (``generate(out, num_sites=3, num_stays=60, seed=3)``), so that code cannot drift."""
    site = hospitals / "hospital_a"
    charts, labs, stays = (read(site, name) for name in ("icu/chartevents", "hosp/labevents", "icu/icustays"))
    samples = [np.fromfile(path, "<i2") for path in sorted(site.glob("ecg/files/*/*/*/*.dat"))]
    found = [len(charts), charts.valuenum.sum(), len(labs), labs.valuenum.sum(), stays.los.sum()]
    found += [len(samples), float(np.abs(np.stack(samples).astype(float)).mean())]
    np.testing.assert_allclose(found, GOLDEN, rtol=1e-3)


@pytest.mark.slow
def test_tables_of_the_standard_benchmark_are_as_hard_as_designed(tmp_path: Path) -> None:
    """Logistic regression and LightGBM on the prepared table, 5-fold: between .70 and .80."""
    generate(tmp_path / "out", num_sites=4, num_stays=1500, seed=7)
    sites = [load_site(path) for path in sorted(tmp_path.glob("out/*/site.yaml"))]
    cohorts = [prepare(site, MIMIC_IV, load_plan_sections(None), Console(quiet=True)) for site in sites]
    x = np.concatenate([cohort.features for cohort in cohorts])
    is_long = np.concatenate([cohort.stays["icu_los_days"].to_numpy() > 3 for cohort in cohorts])
    numeric = x[:, NUMERIC_COLUMNS]
    scaling = scaling_from(feature_sums(x))  # a feature that never varies has deviation 1
    scaled = np.nan_to_num((numeric - scaling["mean"]) / scaling["scale"]).clip(-4, 4)
    kinds = OneHotEncoder(sparse_output=False).fit_transform(x[:, CATEGORY_COLUMNS])
    trees = LGBMClassifier(
        n_estimators=200,
        learning_rate=0.03,
        num_leaves=15,
        min_child_samples=40,
        colsample_bytree=0.5,
        random_state=0,
        n_jobs=1,
        verbose=-1,
    )
    linear = LogisticRegression(C=0.003, max_iter=2000)
    folds = KFold(5, shuffle=True, random_state=0)
    for model, columns in ((linear, np.column_stack([scaled, np.isnan(numeric), kinds])), (trees, numeric)):
        probability = cross_val_predict(model, columns, is_long, cv=folds, method="predict_proba")[:, 1]
        assert 0.70 < roc_auc_score(is_long, probability) < 0.80, model
    truth = truth_of(tmp_path / "out")["with_ecg"]
    assert 0.60 < truth["reachable_ecg"] < 0.72 and truth["reachable"] > truth["reachable_ehr"] + 0.03


def test_the_digest_sees_every_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    standard = parameters_digest(Process())
    assert parameters_digest(dataclasses.replace(Process(), log_los_sd=0.51)) != standard
    for constant in ("heart.HEART", "records.RECORDS", "treatments.TREATMENTS", "diagnoses.DIAGNOSES"):
        with monkeypatch.context() as changed:
            changed.setattr(f"simulation.synthetic.{constant}", "another")
            assert parameters_digest(Process()) != standard, constant


# --- The command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    [
        ["--sites", "0"],
        ["--sites", "27"],
        ["--standard", "--stays", "9"],
        ["--standard", "--control", "positive"],
        ["--set", "ecg=0"],
        ["--set", "difficulty"],
        ["--set", "difficulty=-1"],
        ["--set", "shift=inf"],
    ],
)
def test_refused_options_end_with_two(option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["synth", str(tmp_path / "out"), *option]) == 2
    assert option[0] in capsys.readouterr().err


def test_control_and_set_reach_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}
    monkeypatch.setattr("simulation.synthetic.generate.generate", lambda out, **arguments: asked.update(arguments))
    monkeypatch.setattr("simulation.cli._print_next", lambda out: None)
    options = ["--control", "no-ecg-signal", "--set", "difficulty=0.5", "--set", "shared=1"]
    assert command(["synth", str(tmp_path), *options]) == 0
    assert asked["process"] == turned(**{**CONTROLS["no-ecg-signal"], "difficulty": 0.5, "shared": 1.0})
    assert (asked["num_sites"], asked["num_stays"], asked["seed"]) == (4, 1500, 7)


def test_used_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old").write_text("")
    assert command(["synth", str(tmp_path)]) == 6
    assert "must be a new or empty folder" in capsys.readouterr().err


def test_no_site_files_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("")
    arguments = ["run", "--sites", str(tmp_path / "*" / "site.yaml"), "--plan", str(plan), "--out", str(tmp_path / "r")]
    assert command(arguments) == 2
    assert "must match site files" in capsys.readouterr().err
