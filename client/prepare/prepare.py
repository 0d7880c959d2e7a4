"""From raw tables to a cohort: the steps in order. Each is a file of this package.

A run that was stopped goes on where it was; one of which nothing has changed since ends at once. Neither changes a byte
of the cohort.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
from numpy.lib import format as npy
from numpy.typing import NDArray
from rich.console import Console

from client.cohort.labels import hours_to_icu_of, studied
from client.cohort.store import (
    STATE,
    STAY_COLUMNS,
    Cohort,
    held_alone,
    is_finished,
    load_cohort,
    replacing,
    require_place,
    write_cohort,
)
from client.layouts.mimic_iv import comorbidities, diagnoses
from client.layouts.mimic_iv.comorbidities import with_earlier_comorbidities
from client.layouts.mimic_iv.deaths import with_outcomes
from client.layouts.mimic_iv.diagnoses import num_coded, with_diseases
from client.layouts.mimic_iv.ecg_links import link_ecgs
from client.layouts.mimic_iv.event_pass import BadLines, OnRows, Outcome
from client.layouts.mimic_iv.icd_codes import read_groups
from client.layouts.mimic_iv.labs import read_labs
from client.layouts.mimic_iv.measurements import counts_by_concept, declared
from client.layouts.mimic_iv.sources import key_of, sources_of, versions
from client.layouts.mimic_iv.statics import static_features, told_of_stays, with_statics
from client.layouts.mimic_iv.stays import (
    StayTables,
    contradictions_in,
    read_stay_tables,
    select_stays,
    with_courses,
    with_left_out,
)
from client.layouts.mimic_iv.tables import OPTIONAL_TABLES, open_optional_table, open_table
from client.layouts.mimic_iv.treatments import INTERVAL_COLUMNS, read_treatments, treatment_features
from client.layouts.mimic_iv.urine import read_urine
from client.layouts.mimic_iv.vitals import read_vitals
from client.prepare.ecg.faults import refuse_too_many
from client.prepare.ecg.heights import measure_heights
from client.prepare.ecg.waveforms import STORE, append_ecgs, write_ecgs
from client.prepare.first_day import first_days
from client.prepare.quality import num_by_reason, write_quality
from client.prepare.steps import Facts, Steps
from client.site import EcgData, EhrData, PlanSections, SiteConfig
from lemof_model.errors import TooLittleDataError
from lemof_model.features import FEATURES, GRID_CHANNELS, MEASURED
from lemof_model.splits import patient_hash_of
from lemof_model.study import CohortSpec
from protocol.owner_only import owner_only

INTERVAL_TABLES = ("inputevents", "procedureevents")
ReadTable = Callable[[Path, OnRows], Outcome]


def prepare(
    site: SiteConfig, plan: PlanSections, console: Console, *, force: bool = False, workers: int | None = None
) -> Cohort:
    """Make the site's cohort for a plan and put it where the site file says; what happens is told to ``console``.

    ``force`` makes it again although nothing has changed; ``workers`` are processes that read ECGs (default: by cores).

    Raises:
        DataError: a raw table is missing or damaged, or too much of it cannot be used.
        TooLittleDataError: no stay is left.
        DiskError: the cohort cannot be written, or another run is making it. An earlier cohort is left as it was.
    """
    output = require_place(site.prepare.output)
    with owner_only(), held_alone(output):
        _prepare(site, plan, output, console, force=force, workers=workers)
        return load_cohort(site.prepare.output)


def _prepare(
    site: SiteConfig, plan: PlanSections, output: Path, console: Console, *, force: bool, workers: int | None
) -> None:
    """``prepare`` at a real folder, held alone."""
    sources = sources_of(site)
    key = key_of(site, plan, sources)
    if not force and is_finished(output, key):
        console.print("nothing changed: the cohort is the one that is there. To make it again: --force")
        return
    with replacing(output, key, anew=force) as folder:
        steps = Steps(folder / STATE, console)
        stays, tables, attrition, met = _read_stays(site, plan.cohort, steps)
        facts = _read_events(site, with_left_out(stays, tables), plan.cohort, steps)
        present = frozenset(facts)
        day_facts = _write_arrays(folder, stays, present, plan.cohort, steps)
        linked, ecg_facts = _read_ecgs(folder, site, stays, plan.cohort, steps, workers)
        start = time.monotonic()
        columns = _stay_columns(stays).to_pandas()
        hours_to_icu_N = hours_to_icu_of(np.load(folder / "features.npy", mmap_mode="r"))
        labels = studied(columns, hours_to_icu_N, plan.target, plan.cohort)
        write_quality(folder, tables, attrition, facts, ecg_facts, labels, met, day_facts)
        write_cohort(
            folder,
            spec=plan.cohort,
            target=plan.target,
            splits=plan.splits,
            stays=columns,
            num_stays_with_ecg=ecg_facts["counts"].get("stays_linked", 0),
            ecg_index=_ecg_index(linked, ecg_facts["row_of"], stays.height),
            attrition=attrition,
            facts={
                "ecg": ecg_facts["counts"],
                "sources": sources,
                "versions": versions(),
                "config_digest": key,
            },
        )
        num_bytes = sum(file.stat().st_size for file in folder.iterdir())
        load_cohort(folder)
        steps.say(4, "write", f"{num_bytes / 1e6:,.1f} MB", time.monotonic() - start)


def _read_stays(
    site: SiteConfig, spec: CohortSpec, steps: Steps
) -> tuple[pl.DataFrame, StayTables, list[dict[str, str | int]], Facts]:
    """The cohort's stays with statics and diseases, the tables, what became of all ICU stays, and what was met that a
    person should know. Seconds: read in every run."""
    start = time.monotonic()
    tables = with_courses(read_stay_tables(site), spec)
    stays, attrition = select_stays(tables, spec)
    if stays.is_empty():
        fates = "; ".join(f"{row['num_stays']} {row['reason']}" for row in attrition)
        raise TooLittleDataError(
            f"The cohort must hold at least one stay, got: {fates}. Check data.ehr.root and the plan's cohort section."
        )
    met: Facts = {**told_of_stays(stays), "contradictions": contradictions_in(tables, spec)}
    stays = with_statics(stays, tables)
    of_patients = tables.admissions.join(stays, on="subject_id", how="semi")
    prefixes = {**diagnoses.PREFIXES, **comorbidities.PREFIXES}
    groups, counts, bad = read_groups(site.data.ehr, of_patients, prefixes, site.prepare.max_bad_fraction)
    stays = with_earlier_comorbidities(with_diseases(stays, groups), tables.admissions, groups)
    tables = replace(
        tables,
        counts={**tables.counts, "diagnoses_icd": counts},
        bad_lines={**tables.bad_lines, "diagnoses_icd": bad.lines},
        first_bad={**tables.first_bad, "diagnoses_icd": bad.first},
    )
    found = f"{stays.height:,} of {attrition[0]['num_stays']:,} stays"
    steps.say(1, "icustays", found, time.monotonic() - start)
    return stays, tables, attrition, {**met, "diagnoses": num_coded(stays)}


def _read_events(site: SiteConfig, stays: pl.DataFrame, spec: CohortSpec, steps: Steps) -> dict[str, Facts]:
    """One pass over each event table that the site has; table -> counts, counts by concept, unreadable lines.
    ``stays`` are all that icustays knows."""
    ehr, hours = site.data.ehr, spec.window_hours
    sources = {name: open_table(ehr, name) for name in ("chartevents", "labevents")}
    sources |= {name: source for name in OPTIONAL_TABLES if (source := open_optional_table(ehr, name))}
    reads: dict[str, ReadTable] = {
        "chartevents": partial(read_vitals, site, stays, hours),
        "labevents": partial(read_labs, site, stays, hours),
        "outputevents": partial(read_urine, site, stays, hours),
        "inputevents": partial(read_treatments, "inputevents", site, stays, hours),
        "procedureevents": partial(read_treatments, "procedureevents", site, stays, hours),
    }
    return {name: _read_events_of(name, source.path, reads[name], ehr, steps) for name, source in sources.items()}


def _read_events_of(name: str, path: Path, read: ReadTable, ehr: EhrData, steps: Steps) -> Facts:
    """The facts of one pass; its events are in ``NAME.parquet``."""
    events = steps.state / f"{name}.parquet"

    def make() -> Facts:
        with steps.table(2, name, path) as on_rows:
            outcome = read(events, on_rows)
            bad = outcome.find_bad_lines()
        concepts = declared(ehr, [concept for concept in MEASURED if concept.table == name])
        by_concept = counts_by_concept(outcome.summary, concepts) if concepts else {}
        return {
            "counts": outcome.counts,
            "concepts": by_concept,
            "bad_lines": bad.lines,
            "first_bad": bad.first,
            "columns_absent": outcome.columns_absent,
            **outcome.told,
        }

    if steps.is_finished(name):
        steps.say(2, name, "")
    return steps.run(name, make, events)


def _write_arrays(folder: Path, stays: pl.DataFrame, present: frozenset[str], spec: CohortSpec, steps: Steps) -> Facts:
    """Write features.npy and grid.npy, block by block; by concept, how many values repeat another, and in how many
    stays the sum was below zero."""

    def make() -> Facts:
        files = {name: steps.state / f"{name}.parquet" for name in present}
        treatments = treatment_features(_intervals(files), present, stays.height)
        statics = static_features(stays)
        events = [file for name, file in files.items() if name not in INTERVAL_TABLES]
        with (
            _npy(folder / "features.npy", (stays.height, len(FEATURES))) as features,
            _npy(folder / "grid.npy", (stays.height, spec.window_hours, len(GRID_CHANNELS))) as grid,
        ):
            row, repeated, below_zero = 0, np.zeros(len(MEASURED), np.int64), np.zeros(len(MEASURED), np.int64)
            for block in first_days(events, present, stays.height, spec.window_hours):
                rows = slice(row, row + len(block.features))
                features.write(np.hstack([statics[rows], block.features, treatments[rows]]).tobytes())
                grid.write(block.grid.tobytes())
                repeated += block.repeated
                below_zero += block.below_zero
                row = rows.stop
        counts = {"repeated": repeated, "below_zero": below_zero}
        return {
            name: {concept.name: int(num) for concept, num in zip(MEASURED, of_concept, strict=True)}
            for name, of_concept in counts.items()
        }

    return steps.run("first_days", make, folder / "features.npy", folder / "grid.npy")


@contextmanager
def _npy(path: Path, shape: tuple[int, ...]) -> Iterator[BinaryIO]:
    """A float32 array to write row by row. Not a memory map: a full disk would kill the process."""
    with path.open("wb") as file:
        npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        yield file


def _intervals(files: Mapping[str, Path]) -> pl.DataFrame:
    """All treatments of the tables that are there."""
    frames = [pl.read_parquet(file) for name, file in files.items() if name in INTERVAL_TABLES]
    return pl.concat([pl.DataFrame(schema=INTERVAL_COLUMNS), *frames])


def _read_ecgs(
    folder: Path, site: SiteConfig, stays: pl.DataFrame, spec: CohortSpec, steps: Steps, workers: int | None
) -> tuple[pl.DataFrame, Facts]:
    """Write ecg.npy; the record of each stay that has a usable one, and rows, reasons and counts of records.

    A stay whose record is rejected gets the next one by the plan's rule, until one can be used or none is left;
    ``records_chosen`` counts every record that was chosen so. Only the first choices can be too many bad ones.
    """
    ecg, start, limit = site.data.ecg, time.monotonic(), site.prepare.max_bad_fraction
    linked, counts = pl.DataFrame(schema={"row": pl.UInt32, "path": pl.String, "list_row": pl.UInt32}), Facts()
    skipped: BadLines = []
    if ecg is not None:
        linked, counts, skipped = link_ecgs(ecg, stays, spec, site.prepare.on_duplicate, limit)
    paths = linked["path"].unique(maintain_order=True).to_list()
    list_row_of = dict(linked.select("path", "list_row").iter_rows())

    def make() -> Facts:
        facts = _read_records(folder, ecg, paths, steps, workers)
        refuse_too_many(facts["rejected"], len(paths), limit, list_row_of)  # before it is kept
        return facts

    was_finished = steps.is_finished("ecgs")
    facts = steps.run("ecgs", make)
    row_of, rejected = facts["row_of"], facts["rejected"]
    while ecg is not None and facts["rejected"]:
        linked = link_ecgs(ecg, stays, spec, site.prepare.on_duplicate, limit, without=rejected).chosen
        others = [path for path in linked["path"].unique(maintain_order=True) if path not in row_of]
        name = f"ecgs_without_{len(rejected)}"
        facts = steps.run(name, partial(_append_records, name, folder, len(row_of), ecg, others, steps, workers))
        list_row_of |= dict(linked.select("path", "list_row").iter_rows())
        row_of, rejected = {**row_of, **facts["row_of"]}, {**rejected, **facts["rejected"]}
        counts["records_chosen"] += len(others)
    found = f"{len(row_of):,} records, {len(rejected):,} not used, {counts.get('stays_linked', 0):,} stays"
    steps.say(3, "ECGs", found, None if was_finished else time.monotonic() - start)
    if ecg is not None:
        counts["heights"] = steps.run("ecg_heights", partial(measure_heights, ecg, folder / STORE, row_of))
    counts = {**counts, "records_rejected": num_by_reason(rejected)}
    record_list = ecg.record_list.name if ecg is not None else None
    facts = {"row_of": row_of, "rejected": rejected, "list_row_of": list_row_of, "counts": counts}
    return linked, {**facts, "skipped": skipped, "record_list": record_list}


def _read_records(folder: Path, ecg: EcgData | None, paths: list[str], steps: Steps, workers: int | None) -> Facts:
    """Write records to ``folder/ecg.npy``; the row of each, or the reason why it has none."""
    with steps.records(3, "ECGs", len(paths)) as (on_progress, on_skipped):
        row_of, rejected = write_ecgs(
            folder, ecg, paths, workers=workers, on_progress=on_progress, on_skipped=on_skipped
        )
    return {"row_of": row_of, "rejected": rejected}


def _append_records(
    name: str, folder: Path, num_rows: int, ecg: EcgData, paths: list[str], steps: Steps, workers: int | None
) -> Facts:
    """Write records behind the first rows of ``folder/ecg.npy``. They are first in a folder of the step's own, so a run
    that is stopped at any moment can do it again."""
    own = steps.state / name
    own.mkdir(exist_ok=True)
    facts = _read_records(own, ecg, paths, steps, workers)
    append_ecgs(folder, num_rows, own)
    return {**facts, "row_of": {path: num_rows + row for path, row in facts["row_of"].items()}}


def _ecg_index(linked: pl.DataFrame, row_of: dict[str, int], num_stays: int) -> NDArray[np.int64]:
    """The row of ecg.npy of each stay, -1 without one."""
    ecg_index = np.full(num_stays, -1, np.int64)
    ecg_index[linked["row"].to_numpy()] = [row_of.get(path, -1) for path in linked["path"]]
    return ecg_index


def _stay_columns(stays: pl.DataFrame) -> pl.DataFrame:
    """The columns of stays.parquet."""
    patient_hash = pl.col("subject_id").map_elements(patient_hash_of, return_dtype=pl.UInt64)
    return with_outcomes(stays).with_columns(patient_hash=patient_hash).select(list(STAY_COLUMNS))
