"""metrics.json: every key of its contract, and every number against the rows that it is about."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score

from client.cohort import frozen, references
from client.cohort.hospital import Hospital, open_hospital
from client.site import load_site
from lemof_model import delong, lemof, metrics
from lemof_model.features import DISEASES
from lemof_model.study import Study
from server.blocks import Model
from server.evaluation import MEASURES, calibrate_and_cut, metrics_of
from server.run_store import Round, SiteReply
from tests.hospitals import write_hospital
from tests.studies import run_tiny, tiny_study

SITES = ("a", "b", "no_ecg", "secretive")
METRICS = {
    "n", "n_positive", "auroc", "auroc_ci", "auprc", "brier", "ece", "calibration_slope", "cuts"
}  # fmt: skip
CUT = {"threshold", "acc", "f1_macro", "sensitivity", "specificity"}


class Run(NamedTuple):
    study: Study
    out: Path
    model: Model
    hospitals: dict[str, Hospital]
    metrics: dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Four hospitals: one has no ECG, and one lets no cell out."""
    folder = tmp_path_factory.mktemp("evaluation")
    sites = [
        write_hospital(folder, "a", first_id=1, num_stays=140),
        write_hospital(folder, "b", first_id=1_000, num_stays=140, seed=1),
        write_hospital(folder, "no_ecg", first_id=5_000, num_stays=100, ecg_share=0.0),
        write_hospital(folder, "secretive", first_id=9_000, min_cell=10_000),
    ]
    study = tiny_study(min_sites=4)
    model = run_tiny(study, sites, folder / "run")
    hospitals = {site.parent.name: open_hospital(load_site(site), study) for site in sites}
    text = (folder / "run/metrics.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    return Run(study, folder / "run", model, hospitals, json.loads(text))


def assert_is_m(m: Any) -> None:
    if m is None:
        return
    assert set(m) >= METRICS
    assert set(m["cuts"]) == {"half", "macro_f1", "accuracy"}
    for cut in m["cuts"].values():
        assert set(cut) == CUT
    assert m["auroc_ci"] is None or len(m["auroc_ci"]) == 2


def test_every_key_of_the_contract_is_there(run: Run) -> None:
    found = run.metrics
    assert found["target"] == {"unit": "icu", "threshold_days": 3.0, "deaths": "keep"}
    assert set(found["best_level"]) == {"ecg", "ehr"} and set(found["best_level"].values()) <= {1, 2, 3}
    assert set(found["variants"]) == {"ecg_single", "ehr_single", "m1", "m2", "full"}
    assert set(found["reference"]) == {"always_short", "gbdt_ehr", "local_only"}
    assert "privacy" in found
    for table in (*found["variants"].values(), *found["reference"].values()):
        assert set(table) == {"with_ecg", "all"}
        for population in table.values():
            if population is None:
                continue
            assert set(population) - {"trained"} == {"pooled", "sites", "diseases", "subgroups"}
            assert set(population["sites"]) == set(SITES) and set(population["diseases"]) == set(DISEASES)
            assert set(population["subgroups"]) == {"sex:female", "sex:male", "age:under_65", "age:65_and_over"}
            assert_is_m(population["pooled"])
            for kind in ("sites", "diseases", "subgroups"):
                for m in population[kind].values():
                    assert_is_m(m)
    assert found["variants"]["ecg_single"]["all"] is None
    assert all(found["reference"]["gbdt_ehr"][population]["trained"] == "local" for population in lemof.POPULATIONS)


def test_a_site_that_lets_no_cell_out_has_null_metrics_and_the_study_goes_on(run: Run) -> None:
    for name, table in run.metrics["variants"].items():
        for population in filter(None, table.values()):
            assert population["sites"]["secretive"] is None, name
    assert run.metrics["variants"]["full"]["with_ecg"]["sites"]["no_ecg"] is None
    assert run.metrics["variants"]["full"]["all"]["sites"]["no_ecg"] is not None


class Rows(NamedTuple):
    """Scores of one variant in one population on ``held_out``, and the labels."""

    score: NDArray[np.float64]
    label: NDArray[np.int8]


def rows_of(run: Run, site: str, name: str, population: str, group: str = "") -> Rows:
    hospital = run.hospitals[site]
    rows = hospital.stays.rows("held_out", "ecg" if population == "with_ecg" else "ehr")
    if group:
        rows = rows[np.asarray(hospital.subgroups[group])[rows]]
    level = {modality: value[rows] for modality, value in frozen.levels(hospital, run.model).items()}
    omega_2 = frozen.omega_2(hospital, run.model, rows).mean(axis=1)
    scores = lemof.predict(level, omega_2, run.model, run.study)
    scores |= {key: value[rows] for key, value in references.reference_scores(hospital).items()}
    return Rows(scores[name], hospital.stays.long_stay_N[rows])


@pytest.mark.parametrize("population", lemof.POPULATIONS)
@pytest.mark.parametrize("name", [*lemof.VARIANTS, *lemof.REFERENCES])
def test_numbers_are_those_of_the_rows(run: Run, name: str, population: str) -> None:
    section = "variants" if name in lemof.VARIANTS else "reference"
    table = run.metrics[section][name][population]
    if table is None:
        return
    open_sites = [s for s in ("a", "b", "no_ecg") if population == "all" or s != "no_ecg"]
    parts = {site: rows_of(run, site, name, population) for site in open_sites}
    cuts = json.loads((run.out / "model/card.json").read_text())["cuts"][population][name]
    a, b = run.model[f"calibration/{population}/{name}"]
    pooled = Rows(*(np.concatenate([getattr(part, key) for part in parts.values()]) for key in Rows._fields))
    for m, rows in [(table["pooled"], pooled), *((table["sites"][site], part) for site, part in parts.items())]:
        assert (m["n"], m["n_positive"]) == (len(rows.label), rows.label.sum())
        assert abs(m["auroc"] - roc_auc_score(rows.label, rows.score)) <= m["auroc_bound"] + 1e-12
        for which, cut in m["cuts"].items():
            called = (rows.score >= cuts[which]).astype(int)
            if which != "half":
                assert cut["threshold"] == pytest.approx(1.0 / (1.0 + np.exp(-a * cuts[which] - b)))
            assert cut["acc"] == pytest.approx((called == rows.label).mean())
            expected = f1_score(rows.label, called, average="macro", labels=[0, 1], zero_division=0)
            assert cut["f1_macro"] == pytest.approx(expected)
            assert cut["sensitivity"] == pytest.approx(called[rows.label == 1].mean())
            assert cut["specificity"] == pytest.approx(1 - called[rows.label == 0].mean())
        assert m["cuts"]["half"]["threshold"] == 0.5


@pytest.mark.parametrize("group", ["sex:female", "age:65_and_over", f"disease:{DISEASES[0]}"])
def test_groups_count_the_stays_of_sites_with_both_labels(run: Run, group: str) -> None:
    parts = [rows_of(run, site, "full", "all", group).label for site in ("a", "b", "no_ecg")]
    complete = np.concatenate([part for part in parts if 0 < part.sum() < len(part)])
    kind, key = ("diseases", group.split(":")[1]) if group.startswith("disease") else ("subgroups", group)
    m = run.metrics["variants"]["full"]["all"][kind][key]
    assert (m["n"], m["n_positive"]) == (len(complete), complete.sum())


def test_always_short_is_the_share_of_short_stays(run: Run) -> None:
    for population in lemof.POPULATIONS:
        m = run.metrics["reference"]["always_short"][population]["pooled"]
        other = run.metrics["variants"]["ehr_single"][population]["pooled"]
        assert (m["n"], m["n_positive"]) == (other["n"], other["n_positive"])
        cut = m["cuts"]["half"]
        assert cut["acc"] == pytest.approx(1 - m["n_positive"] / m["n"])
        assert (m["auroc"], cut["sensitivity"], cut["specificity"]) == (0.5, 0.0, 1.0)


def test_differences_are_those_of_the_pooled_aurocs(run: Run) -> None:
    for population, table in run.metrics["differences"].items():
        full = run.metrics["variants"]["full"][population]["pooled"]["auroc"]
        assert set(table) >= {"full-ehr_single", "full-m1", "full-m2", "full-gbdt_ehr", "full-local_only"}
        assert ("full-ecg_single" in table) == (population == "with_ecg")
        for name, difference in table.items():
            key = name.removeprefix("full-")
            other = {**run.metrics["variants"], **run.metrics["reference"]}[key][population]["pooled"]["auroc"]
            assert difference["auroc"] == pytest.approx(full - other, abs=1e-12)
            low, high = difference["auroc_ci"]
            assert low <= high


ROUNDED = 2e-3  # hospitals send three digits


@pytest.mark.parametrize("population", lemof.POPULATIONS)
def test_intervals_are_those_of_the_rows(run: Run, population: str) -> None:
    """Of all rows together, of one hospital's, and of differences; a patient may have two stays."""
    sites = [site for site in ("a", "b", "no_ecg") if population == "all" or site != "no_ecg"]
    names, table = ("full", "m1"), run.metrics["variants"]["full"][population]
    edges = [run.model[f"edges/{population}/{name}"] for name in names]

    def variances(of: list[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rows = [[rows_of(run, site, name, population) for site in of] for name in names]
        scores = np.stack([np.concatenate([part.score for part in parts]) for parts in rows])
        label = np.concatenate([part.label for part in rows[0]])
        patient = np.concatenate([patients_of(run, site, population) + 1_000_000 * k for k, site in enumerate(of)])
        counts = [metrics.histograms(scores[:, label == y], edges) for y in (0, 1)]
        tables = delong.tables(*counts)
        spread = delong.spread(delong.contrasts(scores, edges, label, tables, [(0, 1)]), label, patient)
        return tables.auroc, delong.variance(spread, *(np.full(3, float((label == y).sum())) for y in (0, 1)))

    auroc, variance = variances(sites)
    assert table["pooled"]["auroc_ci"] == pytest.approx(delong.auroc_interval(auroc[0], variance[0]), abs=ROUNDED)
    difference = run.metrics["differences"][population]["full-m1"]["auroc_ci"]
    assert difference == pytest.approx(delong.difference_interval(auroc[0] - auroc[1], variance[2]), abs=ROUNDED)
    auroc, variance = variances(["a"])
    assert table["sites"]["a"]["auroc_ci"] == pytest.approx(delong.auroc_interval(auroc[0], variance[0]), abs=ROUNDED)


def patients_of(run: Run, site: str, population: str) -> NDArray[np.int64]:
    """A number for the patient of each row of ``rows_of``."""
    stays = run.hospitals[site].stays
    rows = stays.rows("held_out", "ecg" if population == "with_ecg" else "ehr")
    return np.unique(stays.patient_N[rows], return_inverse=True)[1].astype(np.int64)


@pytest.mark.parametrize(("learner", "split"), [("encoders", "train"), ("attention", "stack")])
def test_the_membership_attack_is_that_on_the_rows(run: Run, learner: str, split: str) -> None:
    found, parts = run.metrics["membership"][learner], []
    assert found["sites"]["secretive"] is None
    for site in ("a", "b", "no_ecg"):
        hospital = run.hospitals[site]
        sides = []
        for rows in (hospital.stays.rows(split), hospital.stays.rows("held_out")):
            levels = {modality: value[rows] for modality, value in frozen.levels(hospital, run.model).items()}
            score = lemof.omega_1_log_odds(levels, run.model, run.study)
            if learner == "attention":
                score = frozen.omega_2(hospital, run.model, rows).mean(axis=1)
            sides.append(np.where(hospital.stays.long_stay_N[rows] == 1, score, -score))
        parts.append(sides)
        m = found["sites"][site]
        assert (m["num_members"], m["num_others"]) == (len(sides[0]), len(sides[1]))
    members, others = (np.concatenate(side) for side in zip(*parts, strict=True))
    truth = np.repeat([1, 0], [len(members), len(others)])
    assert found["pooled"]["auroc"] == pytest.approx(roc_auc_score(truth, np.concatenate([members, others])), abs=0.02)
    assert found["pooled"]["num_members"] == len(members)


@pytest.mark.parametrize(
    ("num_short", "num_long", "is_result"),
    [(1, 2, False), (4, 200, False), (200, 4, False), (5, 5, True), (0, 30, False), (30, 0, False)],
)
def test_fewer_than_five_of_an_outcome_are_no_result(num_short: int, num_long: int, is_result: bool) -> None:
    """A lung cancer of 3 stays once had an AUROC of 0.000."""
    study = tiny_study()
    counts = np.zeros((2, len(lemof.SCORED), study.evaluation.num_bins), np.int32)
    counts[0, :, 10:15], counts[1, :, 20:25] = num_short // 5, num_long // 5
    counts[0, :, 10] += num_short % 5
    counts[1, :, 20] += num_long % 5
    names = [
        f"{p}/{group}/{label}" for p in lemof.POPULATIONS for group in ("all", "disease:sepsis") for label in (0, 1)
    ]
    sums = {f"{name}/histogram": counts[int(name[-1])] for name in names}
    reply = SiteReply(dict.fromkeys(names, 1), sums=sums)
    tuning = Round("evaluation", 1, {}, dict.fromkeys(names, 1), {"a": reply})
    found, cuts = calibrate_and_cut(tuning, study)
    placed = {"pooled": np.ones((3, 13)), "own": np.ones((3, 7)), "num_patients": np.full(3, 9.0)}
    sums = {f"{population}/{name}": value for population in lemof.POPULATIONS for name, value in placed.items()}
    asked = Round("intervals", 2, {}, {}, {"a": SiteReply(dict.fromkeys(lemof.POPULATIONS, 1), sums=sums)})
    told = metrics_of(tuning, study, {**found, "best_level": [1, 1]}, cuts, told=asked)
    full, short = told["variants"]["full"]["all"], told["reference"]["always_short"]["all"]
    for m in (full["diseases"]["sepsis"], full["pooled"], full["sites"]["a"], short["pooled"]):
        assert (m["n"], m["n_positive"]) == (num_short + num_long, num_long)
        measured = [m[key] for key in MEASURES if key not in ("auroc_ci", "calibration_slope")]
        measured += [cut[key] for cut in m["cuts"].values() for key in CUT - {"threshold"}]
        assert all((value is not None) == is_result for value in measured)
        assert all(cut["threshold"] is not None for cut in m["cuts"].values())
    assert bool(told["differences"]["all"]) == is_result


@pytest.mark.parametrize(("few_sites", "is_fitted"), [("refuse", False), ("allow", True)])
def test_calibration_and_edges_are_not_made_from_two_hospitals_unless_the_plan_allows_it(
    few_sites: str, is_fitted: bool
) -> None:
    """Both are sent to every hospital with the next request."""
    study = tiny_study(few_sites=few_sites)
    num_bins = study.evaluation.num_bins
    counts = np.random.default_rng(0).integers(0, 9, (2, len(lemof.SCORED), num_bins))
    groups = {f"{population}/all/{label}": label for population in lemof.POPULATIONS for label in (0, 1)}
    reply = SiteReply(dict.fromkeys(groups, 50), sums={f"{g}/histogram": counts[y] for g, y in groups.items()})
    found, _ = calibrate_and_cut(Round("evaluation", 1, {}, {}, {"a": reply, "b": reply}), study)
    assert (found["calibration/all/full"].tolist() != [1.0, 0.0]) == is_fitted


def test_a_study_whose_cells_all_stay_at_home_ends_with_null_metrics(tmp_path: Path) -> None:
    sites = [write_hospital(tmp_path, name, first_id=i * 1_000 + 1, min_cell=10_000) for i, name in enumerate("ab")]
    run_tiny(tiny_study(), sites, tmp_path / "run")
    variants = json.loads((tmp_path / "run/metrics.json").read_text())["variants"]
    assert variants["full"]["all"]["pooled"] is None
    assert variants["full"]["all"]["sites"] == {"a": None, "b": None}
