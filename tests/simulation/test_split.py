"""Splits of one MIMIC-IV: each patient in one hospital, every row kept as it was, and refusals that say what to do."""

import gzip
import json
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from rich.console import Console

from client.layouts.mimic_iv.layout import MIMIC_IV
from client.layouts.mimic_iv.tables import FOLDERS
from client.prepare.prepare import prepare
from client.site import load_plan_sections, load_site
from lemof_model.errors import DataError
from simulation.cli import command
from simulation.site_file import By
from simulation.split import assign_patients, group_careunits, group_years, split
from simulation.synthetic.generate import generate

NUM_STAYS = 90
ALL_WAYS: tuple[By, ...] = ("careunit", "year", "dirichlet", "random")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MIMIC-IV with its ECGs in ``ecg``; one more patient was never in intensive care."""
    out = tmp_path_factory.mktemp("source")
    generate(out, num_sites=2, num_stays=NUM_STAYS, seed=1)
    with gzip.open(out / "hospital_a/hosp/patients.csv.gz", "at") as patients:
        patients.write("19999999,F,50,2150,2008 - 2010,\n")
    return out / "hospital_a"


def lines(folder: Path, table: str) -> list[str]:
    """All lines of a table as text."""
    with gzip.open(folder / FOLDERS[table] / f"{table}.csv.gz", "rt") as file:
        return file.read().splitlines()


def do_split(source: Path, out: Path, by: By, num_sites: int = 3) -> dict[str, Path]:
    """Split into hospitals; site -> folder."""
    split(source, source / "ecg", out, num_sites=num_sites, by=by)
    return {path.parent.name: path.parent for path in sorted(out.glob("*/site.yaml"))}


@pytest.mark.parametrize("by", ALL_WAYS)
def test_rows_are_shared_out_unchanged_and_in_order(source: Path, tmp_path: Path, by: By) -> None:
    sites = do_split(source, tmp_path / "out", by)
    assert len(sites) == 3
    subjects = {site: {line.split(",")[0] for line in lines(folder, "patients")[1:]} for site, folder in sites.items()}
    assert (
        sum(map(len, subjects.values())) == len(set().union(*subjects.values())) == len(lines(source, "patients")) - 1
    )
    for table in FOLDERS:
        header, *rows = lines(source, table)
        column = header.split(",").index("subject_id")
        for site, folder in sites.items():
            expected = [row for row in rows if row.split(",")[column] in subjects[site]]
            assert lines(folder, table) == [header, *expected]


def test_parquet_is_shared_out_as_it_is(source: Path, tmp_path: Path) -> None:
    """The same hospitals as from csv, value by value and type by type."""
    mimic = tmp_path / "mimic"
    for table, folder in FOLDERS.items():
        (mimic / folder).mkdir(parents=True, exist_ok=True)
        pl.read_csv(source / folder / f"{table}.csv.gz").write_parquet(mimic / folder / f"{table}.parquet")
    split(mimic, None, tmp_path / "parquet", num_sites=2, by="random")
    split(source, None, tmp_path / "csv", num_sites=2, by="random")
    for site in ("site_01", "site_02"):
        for table, folder in FOLDERS.items():
            place = f"{folder}/{table}"
            types = pl.read_parquet_schema(mimic / f"{place}.parquet")
            expected = pl.read_csv(tmp_path / "csv" / site / f"{place}.csv.gz", schema_overrides=types)
            assert_frame_equal(pl.read_parquet(tmp_path / "parquet" / site / f"{place}.parquet"), expected)


@pytest.mark.parametrize("by", ALL_WAYS)
def test_manifest_counts_and_repeats(source: Path, tmp_path: Path, by: By) -> None:
    sites = do_split(source, tmp_path / "out", by)
    manifest = json.loads((tmp_path / "out/split.json").read_text())
    assert (manifest["by"], manifest["num_sites"], manifest["seed"]) == (by, 3, 7)
    for site, folder in sites.items():
        assert manifest["sites"][site]["num_stays"] == len(lines(folder, "icustays")) - 1 > 0
        assert manifest["sites"][site]["num_patients"] == len(lines(folder, "patients")) - 1
    again = do_split(source, tmp_path / "again", by)
    for site, folder in sites.items():
        for file in (path for path in folder.rglob("*") if path.is_file()):
            assert file.read_bytes() == (again[site] / file.relative_to(folder)).read_bytes()


def test_patients_follow_their_first_care_unit(source: Path, tmp_path: Path) -> None:
    sites = do_split(source, tmp_path / "out", "careunit")
    groups = {
        site: one["groups"] for site, one in json.loads((tmp_path / "out/split.json").read_text())["sites"].items()
    }
    assert sorted(unit for units in groups.values() for unit in units) == sorted(
        pd.read_csv(source / "icu/icustays.csv.gz").first_careunit.unique()
    )
    for site, folder in sites.items():
        stays = pd.read_csv(folder / "icu/icustays.csv.gz").sort_values("intime").drop_duplicates("subject_id")
        assert set(stays.first_careunit) <= set(groups[site])


def test_patients_follow_their_year_group(source: Path, tmp_path: Path) -> None:
    seen: set[str] = set()
    for folder in do_split(source, tmp_path / "out", "year").values():
        years = set(pd.read_csv(folder / "hosp/patients.csv.gz").anchor_year_group)
        assert not years & seen
        seen |= years
    assert len(seen) == 5


def test_random_is_even_and_dirichlet_is_not() -> None:
    patients = pl.DataFrame({"subject_id": range(3000), "num_stays": 1, "long_stay": [0, 0, 1] * 1000}).with_columns(
        careunit=pl.lit("A"), year_group=pl.lit("2008 - 2010")
    )
    ways: tuple[By, ...] = ("random", "dirichlet")
    rates = {}
    for by in ways:
        assigned, _ = assign_patients(patients, num_sites=3, by=by, seed=1, alpha=0.5)
        rates[by] = assigned.to_pandas().groupby("site")["long_stay"].agg(["mean", "size"])
    assert set(rates["random"]["size"]) == {1000}
    spread = {by: frame["mean"].max() - frame["mean"].min() for by, frame in rates.items()}
    assert spread["random"] < 0.1 < 0.2 < spread["dirichlet"]


def test_patients_without_what_the_split_needs_go_somewhere() -> None:
    patients = pl.DataFrame(
        {
            "subject_id": range(60),
            "num_stays": [1] * 20 + [0] * 40,
            "long_stay": pl.Series([0, 1] * 10 + [None] * 40, dtype=pl.Int64),
            "careunit": pl.Series(["Medical", "Coronary"] * 10 + [None] * 40, dtype=pl.String),
            "year_group": pl.Series(["2008 - 2010", "2011 - 2013"] * 10 + [None] * 40, dtype=pl.String),
        }
    )
    for by in ALL_WAYS:
        assigned, groups = assign_patients(patients, num_sites=2, by=by, seed=1, alpha=0.5)
        assert sorted(assigned["subject_id"]) == list(range(60))
        assert Counter(assigned["site"]).keys() == groups.keys()


def test_small_units_join_by_kind() -> None:
    sizes = {
        "Medical Intensive Care Unit (MICU)": 50,
        "Surgical Intensive Care Unit (SICU)": 40,
        "Trauma SICU (TSICU)": 30,
        "Coronary Care Unit (CCU)": 20,
        "Medical/Surgical Intensive Care Unit (MICU/SICU)": 10,
        "Neuro Stepdown": 3,
        "Neuro Intermediate": 2,
    }
    assert {site: len(units) for site, units in group_careunits(sizes, 7).items()} == dict.fromkeys(
        ("micu", "sicu", "tsicu", "ccu", "micu_sicu", "neuro_stepdown", "neuro_intermediate"), 1
    )
    assert [sorted(units) for units in group_careunits(sizes, 3).values()] == [
        ["Medical Intensive Care Unit (MICU)", "Medical/Surgical Intensive Care Unit (MICU/SICU)"],
        ["Neuro Intermediate", "Neuro Stepdown", "Surgical Intensive Care Unit (SICU)"],
        ["Coronary Care Unit (CCU)", "Trauma SICU (TSICU)"],
    ]


def test_hospitals_have_names_of_their_own() -> None:
    sizes = {"Medical ICU (MICU)": 9, "M\ufffddical ICU (MICU)": 8, "\u5185\u79d1": 7, "\u5916\u79d1": 6}
    assert {name: len(units) for name, units in group_careunits(sizes, 4).items()} == dict.fromkeys(
        ("micu", "micu_2", "site_1", "site_2"), 1
    )


def test_a_folder_that_lacks_a_table_is_told_without_a_site_file(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^--mimic must be a folder, got none at "):
        split(tmp_path / "nowhere", None, tmp_path / "out", num_sites=2, by="random")
    shutil.copytree(source, tmp_path / "mimic")
    labs = next((tmp_path / "mimic/hosp").glob("labevents*"))
    labs.rename(labs.with_name("labs.csv.gz"))
    with pytest.raises(DataError, match=r"^--mimic must hold hosp/labevents as .csv, .csv.gz or .parquet, got none "):
        split(tmp_path / "mimic", None, tmp_path / "out", num_sites=2, by="random")


def test_years_join_their_neighbours() -> None:
    sizes = {"2020 - 2022": 9, "2008 - 2010": 9, "2011 - 2013": 9, "2014 - 2016": 1, "2017 - 2019": 1}
    assert list(group_years(sizes, 3)) == ["years_2008_2010", "years_2011_2019", "years_2020_2022"]


def test_site_files_find_tables_and_ecgs(source: Path, tmp_path: Path) -> None:
    num_stays, num_with_ecg = 0, 0
    for folder in do_split(source, tmp_path / "out", "careunit").values():
        assert not list(folder.rglob("*.dat"))
        manifest = prepare(
            load_site(folder / "site.yaml"), MIMIC_IV, load_plan_sections(None), Console(quiet=True)
        ).manifest
        num_stays += manifest["attrition"][0]["num_stays"]
        num_with_ecg += manifest["num_stays_with_ecg"]
    assert num_stays == NUM_STAYS
    whole = prepare(load_site(source / "site.yaml"), MIMIC_IV, load_plan_sections(None), Console(quiet=True)).manifest
    assert num_with_ecg == whole["num_stays_with_ecg"] > 0


def test_a_source_without_treatments_gives_hospitals_without(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "source")
    (tmp_path / "source/icu/inputevents.csv.gz").unlink()
    split(tmp_path / "source", None, tmp_path / "out", num_sites=2, by="random")
    assert {path.name for path in (tmp_path / "out").glob("*/icu/*")} == {
        f"{name}.csv.gz" for name in ("icustays", "chartevents", "outputevents", "procedureevents")
    }


def test_without_ecg_the_section_is_left_out(source: Path, tmp_path: Path) -> None:
    split(source, None, tmp_path / "out", num_sites=2, by="random")
    for site_file in (tmp_path / "out").glob("*/site.yaml"):
        assert load_site(site_file).data.ecg is None


@pytest.mark.parametrize(("by", "number"), [("careunit", 3), ("year", 5)])
def test_too_few_groups_is_a_usage_error(
    source: Path, tmp_path: Path, by: str, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["split", "--mimic", str(source), "--ecg", str(source / "ecg"), str(tmp_path / "out"), "--sites", "9"]
    assert command([*arguments, "--by", by]) == 2
    assert f"--sites must be at most {number}, the number of groups by {by}, got 9." in capsys.readouterr().err


def test_hospital_without_a_stay_is_a_usage_error(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "split",
        "--mimic",
        str(source),
        str(tmp_path / "out"),
        "--sites",
        str(NUM_STAYS + 5),
        "--by",
        "random",
    ]
    assert command(arguments) == 2
    assert "Every hospital must have an ICU stay" in capsys.readouterr().err


def test_missing_sources_are_named(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["split", str(tmp_path / "out"), "--sites", "2", "--by", "random"]
    assert command([*arguments, "--mimic", str(tmp_path)]) == 4
    assert "--mimic must hold hosp/patients" in capsys.readouterr().err
    assert command([*arguments, "--mimic", str(source), "--ecg", str(source)]) == 4
    assert "--ecg must hold record_list.csv" in capsys.readouterr().err


def test_real_demo_by_care_unit(mimic_demo: Path, tmp_path: Path) -> None:
    mimic, ecg = mimic_demo / "mimic-iv-demo-2.2", mimic_demo / "mimic-iv-ecg-demo-0.1"
    split(mimic, ecg, tmp_path / "out", num_sites=3, by="careunit")
    folders = [path.parent for path in (tmp_path / "out").glob("*/site.yaml")]
    stays = pd.concat([pd.read_csv(folder / "icu/icustays.csv.gz").assign(site=folder.name) for folder in folders])
    assert len(folders) == 3 and len(stays) == 140 == stays.stay_id.nunique()
    assert (stays.groupby("subject_id").site.nunique() == 1).all()
    first = stays.sort_values("intime").drop_duplicates("subject_id")
    assert (first.groupby("first_careunit").site.nunique() == 1).all() and first.first_careunit.nunique() == 8
    charts = sum(len(lines(folder, "chartevents")) - 1 for folder in folders)
    assert charts == len(pd.read_csv(mimic / "icu/chartevents.csv.gz", usecols=["itemid"]))
    listed = sum(len(pd.read_csv(folder / "ecg/record_list.csv")) for folder in folders)
    assert listed == len(pd.read_csv(ecg / "record_list.csv"))
