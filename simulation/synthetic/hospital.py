"""One generated hospital on disk: tables, ECGs and site file, in blocks of stays so that memory stays small."""

import gzip
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import polars as pl

from simulation.site_file import write_site_file
from simulation.synthetic import treatments
from simulation.synthetic.courses import SHOWN, draw_coefficients, draw_courses, heart_rate_at, written
from simulation.synthetic.diagnoses import diagnoses_table
from simulation.synthetic.events import chart_events, lab_events
from simulation.synthetic.heart import Heart, draw_hearts
from simulation.synthetic.process import LATENTS, Latents, Process, SyntheticHospital, draw_latents
from simulation.synthetic.reachable import measure_back
from simulation.synthetic.recording import draw_ecg, write_ecg
from simulation.synthetic.records import (
    admissions_table,
    after,
    draw_stays,
    earlier_admissions,
    first_id,
    icustays_table,
    patients_table,
)

BLOCK_STAYS = 500
MAX_LABS_PER_STAY = 1_000
MAX_LABS_PER_SITE = 1_000_000_000
ECG_RATE_SD_BPM = 1.5
SHOWN_BY_ECG = (
    *("qrs_ms", "pr_ms", "axis_degrees", "block", "t_scale", "st_mv", "qtc_ms", "sdnn_ms", "is_af", "ectopic_share"),
)


def write_hospital(
    folder: Path, hospital: SyntheticHospital, *, process: Process, num_stays: int, seed: int
) -> pl.DataFrame:
    """Write ``folder/{hosp,icu,ecg,site.yaml}``; without ECG coverage there is neither ``ecg`` nor its section.

    Returns:
        The truth, one row per ICU stay: latents, the heart behind its ECGs, and all that was measured back.
    """
    rng = np.random.default_rng([seed, hospital.index, 0])
    latents = draw_latents(process, hospital, num_stays, rng)
    stays = draw_stays(process, hospital, latents, rng)
    heart_rate_NB = draw_coefficients("heart_rate", latents.values_ND * process.told_by_rate_D, rng)
    hearts = draw_hearts(latents["conduction"], latents["repolarisation"], latents["rhythm"], rng)
    _write_tables(folder, hospital, latents, stays, heart_rate_NB, np.random.default_rng([seed, hospital.index, 1]))
    has_ecg = hospital.mix.ecg_coverage > 0
    if has_ecg:
        _write_ecgs(folder / "ecg", stays, hearts, heart_rate_NB, hospital.index, seed)
    write_site_file(folder, num_stays, "ecg" if has_ecg else None)

    truth = stays.select(pl.lit(folder.name).alias("site"), "stay_id", "has_ecg").hstack(
        [
            *(pl.Series(name, latents[name]) for name in LATENTS),
            *(pl.Series(f"true_{name}", [getattr(heart, name) for heart in hearts]) for name in SHOWN_BY_ECG),
        ]
    )
    return truth.join(measure_back(folder, process), on="stay_id", how="left", maintain_order="left")


def _write_tables(
    folder: Path,
    hospital: SyntheticHospital,
    latents: Latents,
    stays: pl.DataFrame,
    heart_rate_NB: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """``hosp`` and ``icu``, each table a csv.gz."""
    mix, hosp, icu = hospital.mix, folder / "hosp", folder / "icu"
    earlier = earlier_admissions(stays, latents, rng)
    with ExitStack() as files:
        _write(_open(files, hosp / "patients.csv.gz"), patients_table(stays))
        _write(_open(files, hosp / "admissions.csv.gz"), admissions_table(stays, earlier))
        _write(_open(files, hosp / "diagnoses_icd.csv.gz"), diagnoses_table(stays, earlier, latents, rng))
        _write(_open(files, icu / "icustays.csv.gz"), icustays_table(stays))
        tables = {
            name: _open(files, folder / f"{name}.csv.gz")
            for name in (
                "icu/chartevents",
                "hosp/labevents",
                "icu/outputevents",
                "icu/inputevents",
                "icu/procedureevents",
            )
        }
        for start, block in _blocks(stays):
            latents_ND = latents.values_ND[start : start + BLOCK_STAYS]
            courses = draw_courses(latents_ND, heart_rate_NB[start : start + BLOCK_STAYS], rng)
            weight = SHOWN["weight"]
            weight_kg_N = written(weight, weight.base + courses["weight"][:, 0])
            first_lab = hospital.index * MAX_LABS_PER_SITE + start * MAX_LABS_PER_STAY + 1
            events = {
                "icu/chartevents": chart_events(block, latents_ND, courses, mix, rng),
                "hosp/labevents": lab_events(block, latents_ND, courses, mix, first_lab, rng),
                "icu/outputevents": treatments.output_events(block, latents_ND, mix, rng),
                "icu/inputevents": treatments.input_events(block, latents_ND, weight_kg_N, rng),
                "icu/procedureevents": treatments.procedure_events(block, latents_ND, weight_kg_N, rng),
            }
            for name, table in events.items():
                _write(tables[name], table, with_header=start == 0)


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


def _write_ecgs(
    folder: Path, stays: pl.DataFrame, hearts: Sequence[Heart], heart_rate_NB: np.ndarray, site_index: int, seed: int
) -> None:
    """``record_list.csv`` and ``files/pNNNN/pNNNNNNNN/sNNNNNNNN/NNNNNNNN.{hea,dat}``.

    The rate of a record is the chart's at that hour; each record draws from a stream of its own.
    """
    rng = np.random.default_rng([seed, site_index, 2])
    path = pl.format("files/p{}/p{}/s{}/{}", pl.col("subject_id") // 10_000, "subject_id", "study_id", "study_id")
    records = (
        stays.select("subject_id", "intime")
        .with_row_index("stay")
        .join(_ecg_hours(stays["has_ecg"].to_numpy(), rng), on="stay")
        .sort("subject_id", "hours", "stay")
        .with_columns(
            ecg_time=after("intime", pl.col("hours")), study_id=first_id(4, site_index) + pl.int_range(pl.len())
        )
        .with_columns(path=path)
    )
    rate_M = heart_rate_at(heart_rate_NB[records["stay"].to_numpy()], records["hours"].to_numpy())
    rate_M = rate_M + ECG_RATE_SD_BPM * rng.standard_normal(records.height)
    for index, row in enumerate(records.iter_rows(named=True)):
        own = np.random.default_rng([seed, site_index, 2, index])  # the first is also rng's; frozen with the benchmark
        where = folder / row["path"]
        adc = draw_ecg(hearts[row["stay"]], rate_M[index], own)
        write_ecg(where.parent, where.name, adc, row["subject_id"])
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
