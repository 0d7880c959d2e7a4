"""A hospital small enough to know every answer by heart: ten ICU stays, three of them in the cohort."""

import csv
import gzip
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from client.site import SiteConfig, load_site

INTIME = datetime(2150, 1, 2, 0, 30)
LEADS = ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]  # the order of MIMIC-IV-ECG

PATIENTS = """subject_id,gender,anchor_age,anchor_year,dod
1,M,50,2149,
2,F,17,2150,
3,F,80,2150,
"""
ADMISSIONS = """subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,admission_location,insurance,\
marital_status,race,hospital_expire_flag
1,11,2150-01-01 00:30:00,2150-01-09 00:30:00,,EW EMER.,EMERGENCY ROOM,Medicaid,MARRIED,WHITE - BRAZILIAN,0
1,12,2150-03-01 00:00:00,,,ELECTIVE,,Other,,HISPANIC OR LATINO,0
2,21,2150-01-01 00:00:00,2150-01-05 00:00:00,,URGENT,PACU,Other,SINGLE,ASIAN,0
3,31,2150-05-01 00:00:00,2150-05-04 12:00:00,2150-05-04 12:00:00,A NEW KIND,PHYSICIAN REFERRAL,Medicare,WIDOWED,\
UNKNOWN,1
"""
ICUSTAYS = """subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los
3,31,32,Coronary Care Unit (CCU),,2150-05-01 12:00:00,2150-05-04 12:00:00,3
1,11,10,Trauma SICU (TSICU),,2150-01-02 00:30:00,2150-01-06 12:30:00,4.5
1,12,13,Medical/Surgical Intensive Care Unit (MICU/SICU),,2150-03-01 06:00:00,2150-03-02 06:00:00,1
1,12,14,Surgical Intensive Care Unit (SICU),,2150-03-10 00:00:00,2150-03-10 23:59:59,1
2,21,20,Medical Intensive Care Unit (MICU),,2150-01-01 01:00:00,2150-01-04 00:00:00,3
2,21,21,Medical Intensive Care Unit (MICU),,2150-01-04 01:00:00,,
3,31,30,Medical Intensive Care Unit (MICU),,not a time,2150-05-09 00:00:00,
3,31,31,Medical Intensive Care Unit (MICU),,2150-05-05 00:00:00,2150-05-04 00:00:00,
4,41,40,Medical Intensive Care Unit (MICU),,2150-01-01 00:00:00,2150-01-05 00:00:00,4
3,99,41,Medical Intensive Care Unit (MICU),,2150-01-01 00:00:00,2150-01-05 00:00:00,4
"""
DIAGNOSES = """subject_id,hadm_id,seq_num,icd_code,icd_version
1,11,1,I11.0,10
1,11,2,25000,9
1,12,1,I509,9
3,31,1,4275,9
3,31,2,40291,9
2,21,1,C340,10
"""


def at(hours: float, seconds: int = 0) -> str:
    """A time after the admission of stay 10."""
    return str(INTIME + timedelta(hours=hours, seconds=seconds))


CHARTEVENTS = [  # stay_id, itemid, charttime, valuenum
    (10, 220045, at(-6, -1), 10),  # one second too early
    (10, 220045, at(-6), 80),
    (10, 220045, at(0), 60),
    (10, 220045, at(0.99), 71),
    (10, 220045, at(1), 90),
    (10, 220045, at(24), 100),  # the last second of the first day, on no hour of the grid
    (10, 220045, at(24, 1), 200),  # one second too late
    (10, 220045, at(2), 0),  # out of range, as is the next
    (10, 220045, at(2), 300.5),
    (10, 220045, "02/01/2150", 85),
    (10, 220045, at(3), ""),
    (10, 220277, at(5), 100),  # an SpO2 of 100 is in range
    (10, 223761, at(5), 98.6),
    (10, 223762, at(6), 39),
    (10, 226707, at(7), 70),
    (10, 223835, at(8), 0.5),  # a fraction: 50 %
    (10, 223835, at(8), 21),
    (10, 223835, at(9), 1),  # a fraction: 100 %
    (10, 223835, at(9), 0.2),  # less than air has, as are the next two; then litres of oxygen
    (10, 223835, at(9), 20),
    (10, 223835, at(9), 0),
    (10, 223835, at(9), 15),
    (10, 223835, at(9), 101),
    (10, 223835, at(9), ""),
    (10, 220739, at(8), 4),
    (10, 220739, at(9), 1),
    (10, 220739, at(9), 5),  # out of range
    (10, 223900, at(9), 0),  # out of range
    (10, 223900, at(9), 5),
    (10, 223901, at(9), 6),
    (10, 228096, at(8), -5),
    (10, 228096, at(9), 4),
    (10, 228096, at(9), -6),  # out of range, as is the next
    (10, 228096, at(9), 5),
    (14, 220045, at(5), 50),  # not in the cohort
    (13, 220179, "2150-03-01 07:00:00", 120),
    (13, 220050, "2150-03-01 07:30:00", 130),
    (10, 999, at(5), 50),
]
LABEVENTS = [  # subject_id, hadm_id, itemid, charttime, storetime, valuenum
    (1, "", 50983, at(-1), at(0), 140),  # an emergency value carries no admission
    (1, 11, 50983, at(23), at(24), 138),
    (1, 11, 50983, at(23), at(24, 1), 150),  # not known at the prediction time
    (1, 11, 50983, at(12), "", 141),
    (1, 11, 50820, at(12), at(12), 9),  # out of range
    (1, 11, 50802, at(12), at(12), -5),
    (1, 11, 50931, at(12), at(12), 90),
    (1, 11, 50809, at(12), at(12), 110),  # glucose of the blood gas
    (1, 11, 50911, at(12), at(12), 3),
    (1, 11, 50963, at(12), at(12), 800),
    (1, 11, 50889, at(12), at(12), 40.5),
    (3, 31, 50983, "2150-05-01 12:00:00", "2150-05-01 13:00:00", 130),
]
OUTPUTEVENTS = [  # stay_id, itemid, charttime, value
    (10, 226559, at(-1), 900),  # before admission
    (10, 226559, at(0), 0),  # nought is a value
    (10, 226560, at(24), 400),
    (10, 227489, at(5), 3000),
    (10, 227488, at(4), 2500),  # rinsed in
    (10, 226559, at(6), 20_000),  # out of range
    (10, 226583, at(6), 70),  # stool
    (13, 226559, "2150-03-01 08:00:00", 55.5),
]
INPUTEVENTS = [  # stay_id, itemid, starttime, endtime
    (10, 221906, at(1), at(3)),
    (10, 221906, at(2), at(4)),  # overlaps
    (10, 221749, at(2.5), at(3)),
    (10, 222315, at(23), at(40)),  # goes on behind the prediction
    (10, 221906, at(-9), at(-7)),  # too early, as the next is too late
    (10, 221289, at(25), at(26)),
    (10, 221906, at(9), at(8)),  # ends before it begins
    (10, 225798, at(1), at(2)),  # an antibiotic
    (14, 221906, "2150-03-10 01:00:00", "2150-03-10 02:00:00"),  # not in the cohort
]
PROCEDUREEVENTS = [
    (10, 225792, at(-8), at(6)),  # before the first day begins, it is not counted
    (13, 225794, "2150-03-01 10:00:00", "2150-03-01 11:30:00"),
    (13, 225441, "2150-03-01 10:00:00", "2150-03-01 14:00:00"),
    (10, 225436, at(1), at(2)),  # a filter is changed
]
RECORDS = [  # study_id, ecg_time: all of patient 1
    (100, at(-24, -1)),
    (101, at(-24)),
    (102, at(24)),
    (103, at(24)),
    (104, at(24, 1)),
    (105, "2150-03-01 00:00:00"),
    (106, "unknown"),
]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode())


def _table(header: str, rows: Sequence[Sequence[object]]) -> str:
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"


def write_record(
    path: Path,
    samples_TC: np.ndarray,
    *,
    hz: int = 500,
    names: Sequence[str] = tuple(LEADS),
    unit: str = "mV",
    checksum_error: int = 0,
    gain: str = "200.0(0)",
) -> None:
    """Write a WFDB record in format 16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples_TC.astype("<i2").tofile(f"{path}.dat")
    lines = [f"{path.name} {len(names)} {hz} {len(samples_TC)}"]
    for column, name in enumerate(names):
        checksum = (int(samples_TC[:, column].sum()) + checksum_error) % 65536
        lines.append(f"{path.name}.dat 16 {gain}/{unit} 16 0 {samples_TC[0, column]} {checksum} 0 {name}")
    Path(f"{path}.hea").write_text("\n".join(lines) + "\n")


def samples(seed: int = 0, num_samples: int = 5000) -> np.ndarray:
    """A smooth random signal for each of 12 leads, as stored integers (5 microvolts each)."""
    steps = np.random.default_rng(seed).normal(size=(num_samples, 12)).cumsum(axis=0)
    return np.rint(3 * (steps - steps.mean(axis=0))).astype(np.int16)


@pytest.fixture(name="write_record")
def _write_record() -> Callable[..., None]:
    return write_record


@pytest.fixture(name="samples")
def _samples() -> Callable[..., np.ndarray]:
    return samples


@pytest.fixture
def site_path(tmp_path: Path) -> Path:
    """The site file of the small hospital: tables as csv.gz (one as csv), records 101 to 105 on disk, 103 damaged."""
    _write(tmp_path / "hosp/patients.csv.gz", PATIENTS)
    _write(tmp_path / "hosp/admissions.csv", "\ufeff" + ADMISSIONS)  # with the byte order mark of some exports
    _write(tmp_path / "hosp/diagnoses_icd.csv.gz", DIAGNOSES)
    _write(tmp_path / "icu/icustays.csv.gz", ICUSTAYS)
    _write(tmp_path / "icu/chartevents.csv.gz", _table("stay_id,itemid,charttime,valuenum", CHARTEVENTS))
    labs = _table("subject_id,hadm_id,itemid,charttime,storetime,valuenum", LABEVENTS)
    _write(tmp_path / "hosp/labevents.csv.gz", labs)
    _write(tmp_path / "icu/outputevents.csv.gz", _table("stay_id,itemid,charttime,value", OUTPUTEVENTS))
    for name, given in {"inputevents": INPUTEVENTS, "procedureevents": PROCEDUREEVENTS}.items():
        _write(tmp_path / f"icu/{name}.csv.gz", _table("stay_id,itemid,starttime,endtime", given))
    paths = [f"files/p1000/p1/s{study}/{study}" if study % 2 else f"files/p1/s{study}/{study}" for study, _ in RECORDS]
    rows = [(1, study, study, time, path) for (study, time), path in zip(RECORDS, paths, strict=True)]
    _write(tmp_path / "ecg/record_list.csv", _table("subject_id,study_id,file_name,ecg_time,path", rows))
    for (study, _), path in zip(RECORDS, paths, strict=True):
        write_record(tmp_path / "ecg" / path, samples(study), checksum_error=int(study == 103))
    site = tmp_path / "site.yaml"
    site.write_text("version: 1\nsite: {name: small}\ndata: {ehr: {root: .}, ecg: {root: ecg}}\n")
    return site


@pytest.fixture
def site(site_path: Path) -> SiteConfig:
    """The small hospital's configuration."""
    return load_site(site_path)


def read_rejects(folder: Path) -> list[dict[str, str]]:
    """The rejected records of a cohort."""
    with gzip.open(folder / "rejects.csv.gz", "rt", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(name="read_rejects")
def _read_rejects() -> Callable[[Path], list[dict[str, str]]]:
    return read_rejects
