"""Generated patients, admissions, diagnoses and treatments: who depends on what, and that the facts agree."""

import dataclasses
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from client.layouts.mimic_iv.layout import MIMIC_IV, frames_of
from client.prepare.diagnoses import with_diseases
from client.prepare.icd_codes import read_groups
from client.prepare.statics import static_features, with_statics
from client.prepare.stays import StayTables, select_stays
from client.site import EhrData
from lemof_model.features import COMORBIDITIES, DISEASES, STATICS
from lemof_model.icd import DISEASE_PREFIXES
from lemof_model.study import CohortSpec, digest_json
from simulation.synthetic import treatments
from simulation.synthetic.diagnoses import DIAGNOSES, TEN, diagnoses_table
from simulation.synthetic.process import ECG_LATENTS, EHR_LATENTS, LATENTS, Latents, Process, draw_latents
from simulation.synthetic.records import (
    RECORDS,
    admissions_table,
    draw_stays,
    earlier_admissions,
    icustays_table,
    patients_table,
)
from simulation.synthetic.treatments import TREATMENTS

NUM_STAYS, NUM_SITES, SEED = 3000, 4, 7
HEADERS = {  # of MIMIC-IV 2.2
    "hosp/patients": "subject_id gender anchor_age anchor_year anchor_year_group dod",
    "hosp/admissions": "subject_id hadm_id admittime dischtime deathtime admission_type admit_provider_id "
    "admission_location discharge_location insurance language marital_status race edregtime edouttime "
    "hospital_expire_flag",
    "hosp/diagnoses_icd": "subject_id hadm_id seq_num icd_code icd_version",
    "icu/icustays": "subject_id hadm_id stay_id first_careunit last_careunit intime outtime los",
    "icu/outputevents": "subject_id hadm_id stay_id caregiver_id charttime storetime itemid value valueuom",
    "icu/inputevents": "subject_id hadm_id stay_id caregiver_id starttime endtime storetime itemid amount amountuom "
    "rate rateuom orderid linkorderid ordercategoryname secondaryordercategoryname ordercomponenttypedescription "
    "ordercategorydescription patientweight totalamount totalamountuom isopenbag continueinnextdept statusdescription "
    "originalamount originalrate",
    "icu/procedureevents": "subject_id hadm_id stay_id caregiver_id starttime endtime storetime itemid value valueuom "
    "location locationcategory orderid linkorderid ordercategoryname ordercategorydescription patientweight isopenbag "
    "continueinnextdept statusdescription ORIGINALAMOUNT ORIGINALRATE",
}
TREATMENT_TABLES = ("icu/outputevents", "icu/inputevents", "icu/procedureevents")
ONLY_ECG = [LATENTS.index(name) for name in ECG_LATENTS if name not in EHR_LATENTS]
LASTING = ("diabetes", "lung_cancer", "dysrhythmia", "chronic_kidney_disease", "heart_failure")


@dataclass(frozen=True)
class Drawn:
    """One hospital: what is hidden in its stays, and all tables made from that."""

    latents: Latents
    stays: pl.DataFrame
    earlier: pl.DataFrame
    tables: dict[str, pl.DataFrame]


def latents_of(site: int, num_stays: int = NUM_STAYS) -> Latents:
    """The latents of a hospital."""
    process = Process()
    return draw_latents(process, process.hospital(site, NUM_SITES, SEED), num_stays, np.random.default_rng([site, 0]))


def draw(site: int, latents: Latents) -> Drawn:
    """All tables of a hospital with these latents; the same latents give the same tables."""
    process, rng = Process(), np.random.default_rng([site, 1])
    hospital = process.hospital(site, NUM_SITES, SEED)
    stays = draw_stays(process, hospital, latents, rng)
    earlier = earlier_admissions(stays, latents, rng)
    weight_kg_N = rng.uniform(50, 120, stays.height)
    tables = {
        "hosp/patients": patients_table(stays),
        "hosp/admissions": admissions_table(stays, earlier),
        "hosp/diagnoses_icd": diagnoses_table(stays, earlier, latents, rng),
        "icu/icustays": icustays_table(stays),
        "icu/outputevents": treatments.output_events(stays, latents.values_ND, hospital.mix, rng),
        "icu/inputevents": treatments.input_events(stays, latents.values_ND, weight_kg_N, rng),
        "icu/procedureevents": treatments.procedure_events(stays, latents.values_ND, weight_kg_N, rng),
    }
    return Drawn(latents, stays, earlier, tables)


@pytest.fixture(scope="module")
def sites() -> list[Drawn]:
    """The four hospitals of the standard process."""
    return [draw(site, latents_of(site)) for site in range(NUM_SITES)]


@pytest.fixture(scope="module")
def one(sites: list[Drawn]) -> Drawn:
    """The first hospital."""
    return sites[0]


@pytest.fixture(scope="module")
def pooled_diseases(sites: list[Drawn], tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, np.ndarray]:
    """The ten diseases of every stay as the preparation reads them, and the latents beside."""
    root = tmp_path_factory.mktemp("diagnoses")
    (root / "hosp").mkdir()
    pl.concat(site.tables["hosp/diagnoses_icd"] for site in sites).write_csv(root / "hosp/diagnoses_icd.csv")
    stays = pl.concat(site.stays.select("hadm_id", "is_second") for site in sites).with_row_index("row")
    ehr = EhrData.model_validate({"root": root}, context={"folder": root})
    groups, _, _ = read_groups(MIMIC_IV.diagnoses(ehr), stays, DISEASE_PREFIXES, max_bad_fraction=0)
    return with_diseases(stays, groups), np.concatenate([site.latents.values_ND for site in sites])


@pytest.mark.parametrize("table", HEADERS)
def test_headers_are_those_of_mimic(one: Drawn, table: str) -> None:
    assert one.tables[table].columns == HEADERS[table].split()
    assert one.tables[table].height > 0


@pytest.mark.parametrize("table", HEADERS)
def test_headers_are_those_of_the_real_demo(mimic_demo: Path, table: str) -> None:
    with gzip.open(mimic_demo / "mimic-iv-demo-2.2" / f"{table}.csv.gz", "rt") as file:
        assert file.readline().strip().split(",") == HEADERS[table].split()


def test_keys_are_unique_and_rows_are_those_of_the_latents(sites: list[Drawn]) -> None:
    for kind, table in (("subject_id", "patients"), ("hadm_id", "admissions"), ("stay_id", "icustays")):
        folder = "icu" if table == "icustays" else "hosp"
        ids = pl.concat(site.tables[f"{folder}/{table}"][kind] for site in sites)
        assert ids.is_unique().all()
    for site in sites:
        assert site.stays["has_ecg"].to_numpy().tolist() == site.latents.has_ecg.tolist()
        np.testing.assert_allclose(site.stays["los_days"], site.latents.los_days, atol=2e-5)
        admissions = set(site.tables["hosp/admissions"]["hadm_id"])
        assert set(site.stays["hadm_id"]) | set(site.earlier["hadm_id"]) == admissions
        assert set(site.tables["hosp/diagnoses_icd"]["hadm_id"]) <= admissions


def test_admissions_of_a_patient_do_not_overlap(sites: list[Drawn]) -> None:
    for site in sites:
        admissions = site.tables["hosp/admissions"].sort("subject_id", "admittime")
        assert (admissions["admittime"] < admissions["dischtime"]).all()
        previous = admissions.select(pl.col("dischtime").shift().over("subject_id")).to_series()
        assert previous.count() > 1000 and (admissions["admittime"] > previous).all()
        to_icu = site.stays.select((pl.col("intime") - pl.col("admittime")).dt.total_minutes()).to_series().to_numpy()
        assert 0.001 < np.mean(to_icu < 0) < 0.015 and to_icu.min() >= -31
        assert (site.stays["outtime"] <= site.stays["dischtime"]).all()


def test_a_patient_has_one_age_and_dies_last(sites: list[Drawn]) -> None:
    for site in sites:
        stays = site.stays.with_columns(
            age=pl.col("anchor_age") + pl.col("admittime").dt.year() - pl.col("anchor_year")
        )
        first, second = stays.filter(~pl.col("is_second")), stays.filter("is_second")
        assert first["age"].is_between(*RECORDS.age_range).all() and (first["anchor_age"] >= 18).all()
        assert (first["anchor_year"] != first["admittime"].dt.year()).any()
        both = second.join(first, on="subject_id", validate="1:1", suffix="_first")
        assert both.height == second.height > 50
        assert (both["age"] - both["age_first"]).is_between(1, 2).all() and not both["died_first"].any()
        dead = site.tables["hosp/admissions"].filter(pl.col("hospital_expire_flag") == 1)
        assert 0.07 < dead.height / stays.height < 0.12 and (dead["deathtime"] == dead["dischtime"]).all()
        patients = site.tables["hosp/patients"]
        assert patients.height == first.height and patients["dod"].count() == dead.height


def test_case_mix_shows_in_age_unit_and_arrival(sites: list[Drawn]) -> None:
    process = Process()
    for index, site in enumerate(sites):
        mix, frailty = process.hospital(index, NUM_SITES, SEED).mix, site.latents["frailty"]
        age = site.stays["anchor_age"].to_numpy()
        assert set(site.stays["careunit"]) == set(mix.care_units)
        assert (
            0.45 < np.corrcoef(age[~site.stays["is_second"].to_numpy()], frailty[~site.stays["is_second"]])[0, 1] < 0.6
        )
        is_emergency = (site.stays["admission_type"] == "EW EMER.").to_numpy()
        assert 0.53 < roc_auc_score(is_emergency, site.latents["severity"]) < 0.7
    neuro, rest = sites[2].stays["careunit"].str.contains("Neuro").to_numpy(), sites[2].latents["neuro"]
    assert roc_auc_score(neuro, rest) > 0.65
    same_day = pl.concat(site.stays for site in sites).group_by(pl.col("careunit").is_in(RECORDS.surgical_units))
    share = dict(same_day.agg((pl.col("admission_type") == "SURGICAL SAME DAY ADMISSION").mean()).iter_rows())
    assert share[True] > 0.15 > 0.05 > share[False]


def test_the_preparation_counts_earlier_admissions(one: Drawn) -> None:
    icustays, patients, admissions = (one.tables[name] for name in ("icu/icustays", "hosp/patients", "hosp/admissions"))
    counted = {"rows": icustays.height, "id_unreadable": 0, "duplicates": 0}
    frames = frames_of({"icustays": icustays, "patients": patients, "admissions": admissions})
    tables = StayTables(*frames, counts={"icustays": counted}, bad_lines={})
    selected, _ = select_stays(tables, CohortSpec())
    prepared = with_statics(selected, tables)
    found = prepared.select("stay_id", "num_earlier_admissions", "num_earlier_icu_stays")
    number = one.earlier.group_by("patient").len("number")
    expected = one.stays.join(number, on="patient", how="left").select(
        "stay_id",
        num_earlier_admissions=pl.col("number").fill_null(0) + pl.col("is_second").cast(pl.UInt32),
        num_earlier_icu_stays=pl.col("is_second").cast(pl.UInt32),
    )
    joined = found.join(expected, on="stay_id", suffix="_expected")
    assert joined.height == found.height > 2000
    for name in ("num_earlier_admissions", "num_earlier_icu_stays"):
        assert (joined[name] == joined[f"{name}_expected"]).all()
    first = one.stays.with_columns(frailty=one.latents["frailty"]).filter(~pl.col("is_second"))
    first = first.join(number, on="patient", how="left").fill_null(0)
    assert 0.3 < np.corrcoef(first["frailty"], first["number"])[0, 1] < 0.6
    assert first["number"].max() == RECORDS.most_earlier
    before = one.earlier.join(first, on="patient", suffix="_first")
    days = before.select((pl.col("admittime_first") - pl.col("dischtime")).dt.total_days()).to_series()
    assert days.is_between(19, 900).all()
    features = static_features(prepared.with_columns(pl.lit(0).alias(f"earlier_{name}") for name in COMORBIDITIES))
    for column, feature in enumerate(STATICS):  # every category and number is there
        if feature.concept != "comorbidities":
            values = features[:, column][~np.isnan(features[:, column])]
            assert len(np.unique(values)) > 1, feature.name
            assert len(values) == len(features) or feature.name == "hours_since_discharge"


PREVALENCE = {  # near the ICU's in MIMIC-IV
    "diabetes": 0.30,
    "lung_cancer": 0.03,
    "sepsis": 0.22,
    "acute_myocardial_infarction": 0.10,
    "dysrhythmia": 0.35,
    "electrolyte_disorder": 0.40,
    "chronic_kidney_disease": 0.20,
    "heart_failure": 0.27,
    "pneumonia": 0.17,
    "kidney_failure": 0.33,
}


@pytest.mark.parametrize("disease", DISEASES)
def test_prevalence_and_what_a_disease_goes_with(
    pooled_diseases: tuple[pl.DataFrame, np.ndarray], disease: str
) -> None:
    stays, latents_ND = pooled_diseases
    has_it = stays[disease].to_numpy()
    assert has_it.mean() == pytest.approx(PREVALENCE[disease], rel=0.15)
    (condition,) = (one for one in TEN if one.name == disease)
    parts = [part for part in (condition.lasting, condition.sudden) if part]
    for name in {name for part in parts for name, _ in part.weights}:
        assert roc_auc_score(has_it, latents_ND[:, LATENTS.index(name)]) > 0.56, name
    strong = {"dysrhythmia": "rhythm", "sepsis": "inflammation", "pneumonia": "respiratory", "kidney_failure": "renal"}
    if disease in strong:
        assert roc_auc_score(has_it, latents_ND[:, LATENTS.index(strong[disease])]) > 0.68


def test_every_code_belongs_to_its_disease_alone() -> None:
    for condition in DIAGNOSES.conditions:
        for part in (condition.lasting, condition.sudden):
            if part is None:
                continue
            assert sum(share for *_, share in part.codes) == pytest.approx(1)
            assert set(name for name, _ in part.weights) <= set(LATENTS)
            for icd9, icd10, _ in part.codes:
                for version, code in ((9, icd9), (10, icd10)):
                    found = [name for name in DISEASES if code.startswith(DISEASE_PREFIXES[name][version])]
                    assert found == [condition.name] * (condition.name in DISEASES), code


def test_lasting_conditions_recur(one: Drawn) -> None:
    codes = one.tables["hosp/diagnoses_icd"]
    assert codes.select("hadm_id", "icd_code").is_unique().all()
    assert (codes["seq_num"] == codes.select(pl.int_range(1, pl.len() + 1).over("hadm_id")).to_series()).all()
    assert {9, 10} == set(codes["icd_version"])
    for disease in ("diabetes", "chronic_kidney_disease"):
        flagged = codes.filter(
            pl.any_horizontal(
                (pl.col("icd_version") == version)
                & pl.any_horizontal(pl.col("icd_code").str.starts_with(p) for p in ps)
                for version, ps in DISEASE_PREFIXES[disease].items()
            )
        )["hadm_id"].to_list()
        first = one.stays.filter(~pl.col("is_second")).select("patient", has=pl.col("hadm_id").is_in(flagged))
        had = one.earlier.select("patient", had=pl.col("hadm_id").is_in(flagged)).join(first, on="patient")
        given = dict(had.group_by("had").agg(pl.col("has").mean()).iter_rows())
        assert given[True] > 0.7 > 0.3 > given[False]


def shuffled(values_ND: np.ndarray, columns: list[int]) -> np.ndarray:
    """The latents with other values in some columns."""
    changed = values_ND.copy()
    changed[:, columns] = np.random.default_rng(0).permutation(changed[:, columns])
    return changed


def test_earlier_diagnoses_know_frailty_kidneys_and_strain_alone(one: Drawn) -> None:
    """They become features, so the ECG's own latents, and all that is not lasting, must leave them as they are."""
    fixed = [LATENTS.index(name) for name in ("frailty", "renal", "strain")]
    free = [column for column in range(len(LATENTS)) if column not in fixed]
    other = draw(0, dataclasses.replace(one.latents, values_ND=shuffled(one.latents.values_ND, free)))
    earlier = {
        name: drawn.tables["hosp/diagnoses_icd"].filter(pl.col("hadm_id").is_in(one.earlier["hadm_id"].to_list()))
        for name, drawn in (("one", one), ("other", other))
    }
    assert earlier["one"].height > 5000 and earlier["one"].equals(earlier["other"])
    current = [drawn.tables["hosp/diagnoses_icd"].join(one.stays, on="hadm_id", how="semi") for drawn in (one, other)]
    assert not current[0].equals(current[1])


def test_tables_do_not_know_what_only_the_ecg_shows(one: Drawn) -> None:
    other = draw(0, dataclasses.replace(one.latents, values_ND=shuffled(one.latents.values_ND, ONLY_ECG)))
    for name, table in one.tables.items():
        assert table.equals(other.tables[name]) == (name != "hosp/diagnoses_icd"), name


def test_length_of_stay_shows_in_times_alone(one: Drawn) -> None:
    longer = draw(0, dataclasses.replace(one.latents, los_days=one.latents.los_days + 2.0))
    ends = ["outtime", "dischtime", "los_days"]
    assert longer.stays.drop(ends).equals(one.stays.drop(ends))
    assert longer.earlier.equals(one.earlier)
    assert longer.tables["hosp/diagnoses_icd"].equals(one.tables["hosp/diagnoses_icd"])
    died = ["dischtime", "deathtime"]
    assert longer.tables["hosp/admissions"].drop(died).equals(one.tables["hosp/admissions"].drop(died))
    for name in TREATMENT_TABLES:  # what begins within the shorter stay is the same
        begin = "charttime" if name == "icu/outputevents" else "starttime"
        within = longer.tables[name].join(one.stays.select("stay_id", end="outtime"), on="stay_id")
        within = within.filter(pl.col(begin) < pl.col("end").dt.truncate("1m"))
        mine = one.tables[name].join(one.stays.select("stay_id", end="outtime"), on="stay_id")
        mine = mine.filter(pl.col(begin) < pl.col("end").dt.truncate("1m"))
        same = ["stay_id", "itemid", begin, "value" if name == "icu/outputevents" else "patientweight"]
        assert within.select(same).equals(mine.select(same)), name


def test_same_seed_same_tables_and_other_seed_others(one: Drawn) -> None:
    again, other = draw(0, latents_of(0)), draw(0, latents_of(1))
    for name, table in one.tables.items():
        assert table.equals(again.tables[name]) and not table.equals(other.tables[name]), name


@pytest.mark.parametrize("table", TREATMENT_TABLES)
def test_treatments_lie_within_the_stay(sites: list[Drawn], table: str) -> None:
    begin, end = ("charttime", "charttime") if table == "icu/outputevents" else ("starttime", "endtime")
    for site in sites:
        keys = site.stays.select("subject_id", "hadm_id", "stay_id", "intime", "outtime")
        events = site.tables[table].join(keys, on=["subject_id", "hadm_id", "stay_id"], validate="m:1")
        assert events.height == site.tables[table].height
        assert (events["intime"] <= events[begin]).all() and (events[end] <= events["outtime"]).all()
        if table != "icu/outputevents":
            assert events["orderid"].is_unique().all() and (events[begin] < events[end]).all()
            assert events["linkorderid"].is_in(events["orderid"].to_list()).all()


def test_urine_is_as_much_as_in_the_demo_and_falls_with_the_kidneys(sites: list[Drawn]) -> None:
    totals, latents = [], []
    for site in sites:
        hours = (pl.col("charttime") - pl.col("intime")).dt.total_hours()
        events = site.tables["icu/outputevents"].join(site.stays, on="stay_id").filter(hours < 24)
        total = events.group_by("stay_id").agg(ml=pl.col("value").sum())
        stays = site.stays.with_row_index("row").join(total, on="stay_id").filter(pl.col("los_days") >= 1).sort("row")
        totals.append(stays["ml"].to_numpy())
        latents.append(site.latents.values_ND[stays["row"].to_numpy()])
    ml_N, latents_ND = np.concatenate(totals), np.concatenate(latents)
    assert np.quantile(ml_N, [0.25, 0.5, 0.75]) == pytest.approx([970, 1685, 2577], rel=0.15)
    for name, least in (("renal", 0.5), ("shock", 0.4)):
        assert -0.85 < np.corrcoef(np.log(ml_N + 1), latents_ND[:, LATENTS.index(name)])[0, 1] < -least


@pytest.mark.parametrize(
    ("table", "item_ids", "latent", "share"),
    [
        ("icu/inputevents", (221906,), "shock", (0.16, 0.25)),
        ("icu/inputevents", (221749,), "shock", (0.11, 0.2)),
        ("icu/inputevents", (222315,), "shock", (0.02, 0.07)),
        ("icu/procedureevents", (225792,), "respiratory", (0.25, 0.4)),
        ("icu/procedureevents", (225802, 225441), "renal", (0.025, 0.06)),
    ],
)
def test_treatments_go_with_their_organ(
    sites: list[Drawn], table: str, item_ids: tuple[int, ...], latent: str, share: tuple[float, float]
) -> None:
    has_it = np.concatenate(
        [
            site.stays["stay_id"].is_in(
                site.tables[table].filter(pl.col("itemid").is_in(item_ids))["stay_id"].to_list()
            )
            for site in sites
        ]
    )
    assert share[0] < has_it.mean() < share[1]
    assert roc_auc_score(has_it, np.concatenate([site.latents[latent] for site in sites])) > 0.75


def test_a_drip_goes_from_one_rate_to_the_next(one: Drawn) -> None:
    drips = one.tables["icu/inputevents"].sort("stay_id", "itemid", "starttime")
    ends = drips.select(pl.col("endtime").shift().over("stay_id", "itemid")).to_series()
    assert (drips["starttime"] - ends).drop_nulls().dt.total_minutes().is_between(0, 1).all()
    per_kg = drips.filter(pl.col("rateuom") == "mcg/kg/min")
    hours = (per_kg["endtime"] - per_kg["starttime"]).dt.total_seconds() / 3600
    np.testing.assert_allclose(per_kg["amount"], per_kg["rate"] * per_kg["patientweight"] * hours * 0.06, atol=1e-3)
    norepinephrine = drips.filter(pl.col("itemid") == 221906)["rate"].median()
    assert norepinephrine == pytest.approx(0.14, rel=0.2)  # the demo's


@pytest.mark.parametrize("parameters", [RECORDS, DIAGNOSES, TREATMENTS])
def test_parameters_can_be_digested(parameters: Callable[[], None]) -> None:
    text = digest_json(dataclasses.asdict(parameters))  # type: ignore[call-overload]
    assert len(text) == 64
