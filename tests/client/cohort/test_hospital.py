"""A hospital opened for a study: labels, splits and groups from the request, not from the cohort."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from client.cohort.hospital import _one_stay_per_patient, open_hospital
from client.site import Privacy, SiteConfig, load_site
from lemof_model.errors import DataError
from lemof_model.features import DISEASES
from lemof_model.splits import fold_of, split_of
from lemof_model.study import CohortSpec, SplitSpec, Target
from tests.hospitals import write_hospital
from tests.studies import tiny_study


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    return load_site(write_hospital(tmp_path, num_stays=60))


def table_of(site: SiteConfig) -> pd.DataFrame:
    return pd.read_parquet(site.prepare.output / "stays.parquet")


def test_labels_splits_and_folds_come_from_the_plan(site: SiteConfig) -> None:
    table, study = table_of(site), tiny_study(target=Target(unit="hospital", threshold_days=5.0))
    stays = open_hospital(site, study).stays
    np.testing.assert_array_equal(stays.long_stay_N, table["hospital_los_days"] > 5.0)
    patient = table["patient_hash"].to_numpy()
    np.testing.assert_array_equal(stays.split_N, split_of(patient, study.splits))
    np.testing.assert_array_equal(stays.fold_N, fold_of(patient, study.splits.salt))
    other = open_hospital(site, tiny_study(splits=SplitSpec(salt="other"))).stays
    assert (other.split_N != stays.split_N).any()


def test_deaths_are_left_out_where_the_target_says_so(site: SiteConfig) -> None:
    table = table_of(site)
    assert table["died_in_icu"].any()
    kept = open_hospital(site, tiny_study(target=Target(deaths="exclude")))
    assert len(kept.stays.long_stay_N) == (~table["died_in_icu"]).sum()
    assert all(len(group) == len(kept.stays.long_stay_N) for group in kept.subgroups.values())
    ecg_index = np.load(site.prepare.output / "ecg_index.npy")
    np.testing.assert_array_equal(kept.stays.ecg_row_N, ecg_index[~table["died_in_icu"]])
    np.testing.assert_array_equal(kept.stays.grid_row_N, np.flatnonzero(~table["died_in_icu"]))
    assert isinstance(kept.stays.grid_NTG, np.memmap) and len(kept.stays.grid_NTG) == len(table)


def test_groups_are_the_diseases_and_the_subgroups(site: SiteConfig) -> None:
    table, groups = table_of(site), open_hospital(site, tiny_study()).subgroups
    assert {name for name in groups if name.startswith("disease:")} == {f"disease:{d}" for d in DISEASES}
    np.testing.assert_array_equal(groups[f"disease:{DISEASES[2]}"], table[DISEASES[2]])
    np.testing.assert_array_equal(groups["sex:female"], table["sex"] == "female")
    np.testing.assert_array_equal(groups["age:65_and_over"], table["age"] >= 65)
    np.testing.assert_array_equal(groups["age:under_65"], table["age"] < 65)


def test_a_cohort_for_another_window_is_refused_with_the_command_that_mends_it(site: SiteConfig) -> None:
    study = tiny_study(cohort=CohortSpec(window_hours=12))
    with pytest.raises(DataError, match=r"Run: lemof-client --site SITE prepare --plan PLAN\.yaml"):
        open_hospital(site, study)


def test_opened_once_until_the_cohort_changes(site: SiteConfig) -> None:
    study = tiny_study()
    assert open_hospital(site, study) is open_hospital(site, dataclasses.replace(study))
    first = open_hospital(site, study)
    manifest = site.prepare.output / "manifest.json"
    os.utime(manifest, ns=(1, 1))
    assert open_hospital(site, study) is not first


def with_budget(site: SiteConfig) -> SiteConfig:
    ledger = site.prepare.output.parent / "ledger.jsonl"
    return site.model_copy(update={"privacy": Privacy.model_construct(epsilon=1.0, delta=1e-5, ledger=ledger)})


def test_under_a_budget_a_patient_has_one_stay(site: SiteConfig) -> None:
    study = tiny_study()
    every, one = open_hospital(site, study), open_hospital(with_budget(site), study)
    assert len(np.unique(every.stays.patient_N)) < len(every.stays.patient_N), "the hospital must have repeated stays"
    assert sorted(one.stays.patient_N.tolist()) == np.unique(every.stays.patient_N).tolist()
    assert one.num_left_out == len(every.stays.patient_N) - len(one.stays.patient_N) and not every.num_left_out
    assert len(one.subgroups["sex:male"]) == len(one.stays.patient_N)
    assert one.cohort_digest != every.cohort_digest, "caches of the two must not mix"


def test_which_stay_is_kept_depends_on_no_other_patient() -> None:
    rng = np.random.default_rng(0)
    patient, stay = rng.integers(0, 40, 100).astype(np.uint64), rng.permutation(100)
    kept = {int(patient[row]): int(stay[row]) for row in _one_stay_per_patient(patient, stay, "salt")}
    without = patient != 7
    rest = _one_stay_per_patient(patient[without], stay[without], "salt")
    assert {int(patient[without][row]): int(stay[without][row]) for row in rest} == {
        who: stay for who, stay in kept.items() if who != 7
    }
    other = {int(patient[row]): int(stay[row]) for row in _one_stay_per_patient(patient, stay, "another")}
    assert other != kept
