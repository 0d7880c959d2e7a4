"""One generated hospital on disk: tables, ECGs and site file, in blocks of stays so that memory stays small."""

import gzip
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import polars as pl

from simulation.site_file import write_site_file
from simulation.synthetic.events import chart_events, lab_events
from simulation.synthetic.process import CaseMix
from simulation.synthetic.records import (
    admissions_table,
    after,
    diagnoses_table,
    first_id,
    icustays_table,
    patients_table,
)
from simulation.synthetic.signals import draw_ecg, write_ecg

BLOCK_STAYS = 500
MAX_LABS_PER_STAY = 300


def write_hospital(folder: Path, mix: CaseMix, stays: pl.DataFrame, site_index: int, seed: int) -> None:
    """Write ``folder/{hosp,icu,ecg,site.yaml}``; without ECG coverage there is neither ``ecg`` nor its section."""
    rng = np.random.default_rng([seed, site_index, 1])
    hosp, icu = folder / "hosp", folder / "icu"
    with ExitStack() as files:
        _write(_open(files, hosp / "patients.csv.gz"), patients_table(stays))
        _write(_open(files, hosp / "admissions.csv.gz"), admissions_table(stays))
        _write(_open(files, hosp / "diagnoses_icd.csv.gz"), diagnoses_table(stays, rng))
        _write(_open(files, icu / "icustays.csv.gz"), icustays_table(stays))
        charts, labs = _open(files, icu / "chartevents.csv.gz"), _open(files, hosp / "labevents.csv.gz")
        for start, block in _blocks(stays):
            first_lab = first_id(5, site_index) + start * MAX_LABS_PER_STAY
            _write(charts, chart_events(block, mix.measuring_rate, rng), with_header=start == 0)
            _write(labs, lab_events(block, mix.measuring_rate, first_lab, rng), with_header=start == 0)
    has_ecg = mix.ecg_coverage > 0
    if has_ecg:
        _write_ecgs(folder / "ecg", stays, first_id(4, site_index), np.random.default_rng([seed, site_index, 2]))
    write_site_file(folder, stays.height, "ecg" if has_ecg else None)


def _blocks(stays: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
    """The stays, block by block, each with the index of its first stay."""
    for start in range(0, stays.height, BLOCK_STAYS):
        yield start, stays.slice(start, BLOCK_STAYS)


def _open(files: ExitStack, path: Path) -> BinaryIO:
    """A gzip file whose bytes depend on its content alone: no time, no name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = files.enter_context(path.open("wb"))
    return cast(BinaryIO, files.enter_context(gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0)))


def _write(file: BinaryIO, table: pl.DataFrame, *, with_header: bool = True) -> None:
    """Append a table as csv, times as MIMIC-IV writes them."""
    file.write(table.write_csv(include_header=with_header, datetime_format="%Y-%m-%d %H:%M:%S").encode())


def _write_ecgs(folder: Path, stays: pl.DataFrame, first_study_id: int, rng: np.random.Generator) -> None:
    """``record_list.csv`` and ``files/pNNNN/pNNNNNNNN/sNNNNNNNN/NNNNNNNN.{hea,dat}``."""
    path = pl.format("files/p{}/p{}/s{}/{}", pl.col("subject_id") // 10_000, "subject_id", "study_id", "study_id")
    records = (
        stays.select("subject_id", "intime", "cardiac", "ecg_severity")
        .with_row_index("stay")
        .join(_ecg_hours(stays["has_ecg"].to_numpy(), rng), on="stay")
        .sort("subject_id", "hours")
        .with_columns(ecg_time=after("intime", pl.col("hours")), study_id=first_study_id + pl.int_range(pl.len()))
        .with_columns(path=path)
    )
    for record in records.iter_rows(named=True):
        where = folder / record["path"]
        adc = draw_ecg(record["cardiac"], record["ecg_severity"], rng)
        write_ecg(where.parent, where.name, adc, record["subject_id"])
    listed = records.select("subject_id", "study_id", pl.col("study_id").alias("file_name"), "ecg_time", "path")
    folder.mkdir(parents=True, exist_ok=True)
    listed.write_csv(folder / "record_list.csv", datetime_format="%Y-%m-%d %H:%M:%S")


def _ecg_hours(has_ecg: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    """When each stay's ECGs were recorded, in hours from ICU admission.

    A stay with ``has_ecg`` has one or two within a day of admission; of all stays, a tenth has one that is too old
    to be used and a tenth one that comes after the prediction.
    """
    num_stays = len(has_ecg)
    kinds = {
        "first": (has_ecg, rng.uniform(-20, 4, num_stays)),
        "again": (has_ecg & (rng.random(num_stays) < 0.2), rng.uniform(5, 23.5, num_stays)),
        "too old": (rng.random(num_stays) < 0.1, rng.uniform(-200, -25, num_stays)),
        "too late": (rng.random(num_stays) < 0.1, rng.uniform(24.5, 30, num_stays)),
    }
    frames = [
        pl.DataFrame({"stay": np.flatnonzero(made).astype(np.uint32), "hours": hours[made]})
        for made, hours in kinds.values()
    ]
    return pl.concat(frames)
