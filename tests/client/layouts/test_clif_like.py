"""Two layouts, one study: the tables of MIMIC-IV of some stays, and those of CLIF of the same stays."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from client import cli
from client.cohort.labels import hours_to_icu_of, studied
from client.cohort.store import Cohort, load_cohort
from client.layouts import LAYOUTS
from client.prepare.program import file_of, files_of_preparation
from lemof_model.features import FEATURES
from lemof_model.study import Target
from protocol.source import ROOT
from simulation.synthetic.hospital import write_hospital
from simulation.synthetic.process import Process
from tests.clif_like import ClifLike
from tests.clif_tables import write_clif

SITE = """version: 1
site: {{name: hospital_a}}
data:
  ehr: {{root: {root}, layout: clif_like}}
  ecg: {{root: {ecg}, record_list: {root}/ecg_list.csv}}
limits: {{min_patients: 5, min_cell: 1, few_sites: allow}}
"""


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated stays, as MIMIC-IV has them and as CLIF does."""
    folder, process = tmp_path_factory.mktemp("hospitals") / "hospital_a", Process()
    write_hospital(folder, process.hospital(0, 2, seed=5), process=process, num_stays=120, seed=5)
    add_urine_before_admission(folder / "icu")
    write_clif(folder, folder / "clif")
    clif = folder / "clif/site.yaml"
    clif.write_text(SITE.format(root=folder / "clif", ecg=folder / "ecg"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LAYOUTS, "clif_like", ClifLike())
        for file in (folder / "site.yaml", clif):
            assert cli.run(["--site", str(file), "prepare"]) == 0
    return folder


def add_urine_before_admission(icu: Path) -> None:
    """What no generated table has: urine of the two hours before, which is not of the day in either layout."""
    table, stays = pd.read_csv(icu / "outputevents.csv.gz"), pd.read_csv(icu / "icustays.csv.gz")
    early = table.groupby("stay_id").head(1).merge(stays[["stay_id", "intime"]], on="stay_id")
    early["charttime"] = (pd.to_datetime(early["intime"]) - pd.Timedelta(hours=2)).dt.strftime("%Y-%m-%d %H:%M:%S")
    pd.concat([table, early[table.columns]]).to_csv(icu / "outputevents.csv.gz", index=False)


@pytest.fixture(scope="module")
def cohorts(hospital: Path) -> tuple[Cohort, Cohort]:
    return load_cohort(hospital / "cohort"), load_cohort(hospital / "clif/cohort")


@pytest.fixture(scope="module")
def orders(cohorts: tuple[Cohort, Cohort]) -> list[np.ndarray]:
    """The stays of both cohorts in one order: each layout numbers them in its own way."""
    return [np.lexsort((one.stays["intime"], one.stays["subject_id"])) for one in cohorts]


def test_both_layouts_give_the_same_stays_and_labels(cohorts: tuple[Cohort, Cohort], orders: list[np.ndarray]) -> None:
    own, other = (
        cohort.stays.iloc[order].drop(columns="stay_id").reset_index(drop=True)
        for cohort, order in zip(cohorts, orders, strict=True)
    )
    pd.testing.assert_frame_equal(own, other, check_exact=True)
    assert 90 < len(own) < 120 and own["died_in_hospital"].any() and own["sex"].nunique() == 2
    for target in (Target(), Target("hospital", 7.0)):
        (labels, keep), (its_labels, its_keep) = (
            [values[order] for values in studied(cohort.stays, hours_to_icu_of(cohort.features), target, cohort.spec)]
            for cohort, order in zip(cohorts, orders, strict=True)
        )
        assert (labels == its_labels).all() and (keep == its_keep).all() and 0 < labels.sum() < keep.sum()


def test_both_layouts_give_the_same_arrays(cohorts: tuple[Cohort, Cohort], orders: list[np.ndarray]) -> None:
    for name in ("features", "grid"):
        own, other = (getattr(cohort, name)[order] for cohort, order in zip(cohorts, orders, strict=True))
        np.testing.assert_array_equal(own, other)
        assert own.tobytes() == other.tobytes(), name
    has_ecg = [cohort.ecg_index[order] >= 0 for cohort, order in zip(cohorts, orders, strict=True)]
    assert (has_ecg[0] == has_ecg[1]).all() and has_ecg[0].any()
    ecgs = [
        cohort.ecg[cohort.ecg_index[order][has]].tobytes()
        for cohort, order, has in zip(cohorts, orders, has_ecg, strict=True)
    ]
    assert ecgs[0] == ecgs[1]


@pytest.mark.parametrize("concept", ["urine", "vasopressor", "invasive_ventilation", "renal_replacement", "fio2"])
def test_what_the_layouts_tell_in_different_ways_is_there(cohorts: tuple[Cohort, Cohort], concept: str) -> None:
    column = next(i for i, feature in enumerate(FEATURES) if feature.concept == concept)
    assert (np.nan_to_num(cohorts[1].features[:, column]) > 0).any()


def test_a_value_that_is_wrong_in_one_layout_is_met_there(
    hospital: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts and checks are the same machinery, in the words of the layout."""
    monkeypatch.setitem(LAYOUTS, "clif_like", ClifLike())
    quality = json.loads((hospital / "clif/cohort/quality.json").read_text())
    assert quality["concepts"]["heart_rate"]["table"] == "vitals" and quality["tables"]["labs"]["rows"] > 1000
    assert quality["concepts"]["glucose"]["table"] == "labs"
    assert cli.run(["--site", str(hospital / "clif/site.yaml"), "check", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"clif_vitals.parquet", "clif_labs.parquet"} <= {finding["check"] for finding in told["findings"]}
    labs = hospital / "clif/clif_labs.parquet"
    table = pd.read_parquet(labs)
    try:
        is_other = table["lab_category"] != "creatinine"
        swapped = table.assign(lab_value_numeric=table["lab_value_numeric"].where(is_other, 90))
        swapped.assign(reference_unit=None).to_parquet(labs)
        assert cli.run(["--site", str(hospital / "clif/site.yaml"), "prepare"]) == 4
    finally:
        table.to_parquet(labs)
    assert "lab_category creatinine must " in capsys.readouterr().err


def test_a_cohort_is_made_by_the_code_of_its_own_layout() -> None:
    files = files_of_preparation(file_of(ClifLike()), ROOT)
    assert "tests/clif_like.py" in files and not [name for name in files if "mimic" in name]
