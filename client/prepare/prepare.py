"""From raw tables to a cohort: the steps in order. Each is a file of this package.

A run that was stopped goes on where it was; one of which nothing has changed since ends at once. Neither changes a byte
of the cohort.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from client.prepare.deaths import with_outcomes
from client.prepare.diagnoses import num_coded, with_diseases, with_earlier_comorbidities
from client.prepare.ecg_links import EcgLinks, link_ecgs
from client.prepare.event_pass import BadLines, OnRows, Outcome
from client.prepare.first_day import first_days
from client.prepare.icd_codes import read_groups
from client.prepare.layout import Layout
from client.prepare.measurements import Events, counts_by_concept, read_measurements
from client.prepare.quality import num_by_reason, write_quality
from client.prepare.sources import key_of, sources_of, versions
from client.prepare.statics import static_features, told_of_stays, with_statics
from client.prepare.stays import StayTables, contradictions_in, select_stays, with_courses, with_left_out
from client.prepare.steps import Facts, Steps
from client.prepare.treatments import INTERVAL_COLUMNS, Intervals, read_treatments, treatment_features
from client.site import EcgData, PlanSections, SiteConfig
from lemof_model.errors import TooLittleDataError
from lemof_model.features import FEATURES, GRID_CHANNELS, MEASURED
from lemof_model.icd import COMORBIDITY_PREFIXES, DISEASE_PREFIXES
from lemof_model.splits import patient_hash_of
from lemof_model.study import CohortSpec
from protocol.owner_only import owner_only
from readers.ecg.faults import refuse_too_many
from readers.ecg.heights import measure_heights
from readers.ecg.waveforms import STORE, append_ecgs, write_ecgs

ReadTable = Callable[[Path, OnRows], Outcome]


def prepare(
    site: SiteConfig,
    layout: Layout,
    plan: PlanSections,
    console: Console,
    *,
    force: bool = False,
    workers: int | None = None,
) -> Cohort:
    """Make the site's cohort for a plan, from tables of this layout, and put it where the site file says; what happens
    is told to ``console``.

    ``force`` makes it again although nothing has changed; ``workers`` are processes that read ECGs (default: by cores).

    Raises:
        DataError: a raw table is missing or damaged, or too much of it cannot be used.
        TooLittleDataError: no stay is left.
        DiskError: the cohort cannot be written, or another run is making it. An earlier cohort is left as it was.
    """
    output = require_place(site.prepare.output)
    with owner_only(), held_alone(output):
        _prepare(site, layout, plan, output, console, force=force, workers=workers)
        return load_cohort(site.prepare.output)


def _prepare(
    site: SiteConfig,
    layout: Layout,
    plan: PlanSections,
    output: Path,
    console: Console,
    *,
    force: bool,
    workers: int | None,
) -> None:
    """``prepare`` at a real folder, held alone."""
    sources = sources_of(site, layout)
    key = key_of(site, layout, plan, sources)
    if not force and is_finished(output, key):
        console.print("nothing changed: the cohort is the one that is there. To make it again: --force")
        return
    with replacing(output, key, anew=force) as folder:
        steps = Steps(folder / STATE, console)
        stays, tables, attrition, met = _read_stays(site, layout, plan.cohort, steps)
        links = _link_ecgs(site, layout, stays, plan.cohort)  # refused before the tables of events take their time
        facts = _read_events(site, layout, with_left_out(stays, tables), plan.cohort, steps)
        day_facts = _write_arrays(folder, stays, facts, plan.cohort, steps)
        linked, ecg_facts = _read_ecgs(folder, site, layout, stays, links, plan.cohort, steps, workers)
        start = time.monotonic()
        columns = _stay_columns(stays).to_pandas()
        hours_to_icu_N = hours_to_icu_of(np.load(folder / "features.npy", mmap_mode="r"))
        labels = studied(columns, hours_to_icu_N, plan.target, plan.cohort)
        write_quality(folder, layout.stored, tables, attrition, facts, ecg_facts, labels, met, day_facts)
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
    site: SiteConfig, layout: Layout, spec: CohortSpec, steps: Steps
) -> tuple[pl.DataFrame, StayTables, list[dict[str, str | int]], Facts]:
    """The cohort's stays with statics and diseases, the tables, what became of all ICU stays, and what was met that a
    person should know. Seconds: read in every run."""
    start = time.monotonic()
    tables = with_courses(layout.stays(site), spec)
    stays, attrition = select_stays(tables, spec)
    if stays.is_empty():
        fates = "; ".join(f"{row['num_stays']} {row['reason']}" for row in attrition)
        raise TooLittleDataError(
            rule="The cohort must hold at least one stay",
            got=fates,
            fix="Check data.ehr.root and the plan's cohort section.",
        )
    met: Facts = {**told_of_stays(stays), "contradictions": contradictions_in(tables, spec)}
    stays = with_statics(stays, tables)
    of_patients = tables.admissions.join(stays, on="subject_id", how="semi")
    codes, prefixes = layout.diagnoses(site.data.ehr), {**DISEASE_PREFIXES, **COMORBIDITY_PREFIXES}
    groups, counts, bad = read_groups(codes, of_patients, prefixes, site.prepare.max_bad_fraction)
    stays = with_earlier_comorbidities(with_diseases(stays, groups), tables.admissions, groups)
    tables = replace(
        tables,
        counts={**tables.counts, codes.name: counts},
        bad_lines={**tables.bad_lines, codes.name: bad.lines},
        first_bad={**tables.first_bad, codes.name: bad.first},
    )
    found = f"{stays.height:,} of {attrition[0]['num_stays']:,} stays"
    steps.say(1, next(iter(tables.keys)), found, time.monotonic() - start)
    return stays, tables, attrition, {**met, "diagnoses": {"table": codes.name, **num_coded(stays)}}


def _read_events(
    site: SiteConfig, layout: Layout, stays: pl.DataFrame, spec: CohortSpec, steps: Steps
) -> dict[str, Facts]:
    """One pass over each event table that the site has; table -> counts, counts by concept, unreadable lines.
    ``stays`` are all that were in intensive care."""
    ehr, limit, hours = site.data.ehr, site.prepare.max_bad_fraction, spec.window_hours
    facts = {}
    for events in layout.events(ehr):

        def measured(target: Path, on_rows: OnRows, events: Events = events) -> Outcome:
            return read_measurements(events, stays, target, limit, window_hours=hours, on_rows=on_rows)

        facts[events.source.name] = _read_events_of(events, measured, steps)
    for intervals in layout.intervals(ehr):

        def given(target: Path, on_rows: OnRows, intervals: Intervals = intervals) -> Outcome:
            words = ehr.not_given
            return read_treatments(intervals, stays, target, limit, words, window_hours=hours, on_rows=on_rows)

        facts[intervals.source.name] = _read_events_of(intervals, given, steps)
    return facts


def _read_events_of(table: Events | Intervals, read: ReadTable, steps: Steps) -> Facts:
    """The facts of one pass; its events are in ``NAME.parquet``."""
    name = table.source.name
    events = steps.state / f"{name}.parquet"

    def make() -> Facts:
        with steps.table(2, name, table.source.path) as on_rows:
            outcome = read(events, on_rows)
            bad = outcome.find_bad_lines()
        concepts = table.concepts if isinstance(table, Events) else ()
        return {
            "counts": outcome.counts,
            "concepts": counts_by_concept(outcome.summary, concepts) if concepts else {},
            "treatments": [treatment.name for treatment in table.treatments] if isinstance(table, Intervals) else [],
            "is_by_stay": table.table.key == "stay_id",
            "bad_lines": bad.lines,
            "first_bad": bad.first,
            "columns_absent": outcome.columns_absent,
            **outcome.told,
        }

    if steps.is_finished(name):
        steps.say(2, name, "")
    return steps.run(name, make, events)


def _write_arrays(
    folder: Path, stays: pl.DataFrame, passes: Mapping[str, Facts], spec: CohortSpec, steps: Steps
) -> Facts:
    """Write features.npy and grid.npy, block by block; by concept, how many values repeat another, and in how many
    stays the sum was below zero."""

    def make() -> Facts:
        known = frozenset(name for facts in passes.values() for name in (*facts["concepts"], *facts["treatments"]))
        events, intervals = (
            [steps.state / f"{name}.parquet" for name, facts in passes.items() if facts[kind]]
            for kind in ("concepts", "treatments")
        )
        treatments = treatment_features(_intervals(intervals), known, stays.height)
        statics = static_features(stays)
        with (
            _npy(folder / "features.npy", (stays.height, len(FEATURES))) as features,
            _npy(folder / "grid.npy", (stays.height, spec.window_hours, len(GRID_CHANNELS))) as grid,
        ):
            row, repeated, below_zero = 0, np.zeros(len(MEASURED), np.int64), np.zeros(len(MEASURED), np.int64)
            for block in first_days(events, known, stays.height, spec.window_hours):
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


def _intervals(files: Sequence[Path]) -> pl.DataFrame:
    """All treatments of the tables that are there."""
    return pl.concat([pl.DataFrame(schema=INTERVAL_COLUMNS), *map(pl.read_parquet, files)])


def _link_ecgs(site: SiteConfig, layout: Layout, stays: pl.DataFrame, spec: CohortSpec) -> EcgLinks | None:
    """The records that are chosen first; None at a hospital without ECGs."""
    if (ecg := site.data.ecg) is None:
        return None
    rules = site.prepare
    return link_ecgs(layout.ecg_records(ecg), ecg, stays, spec, rules.on_duplicate, rules.max_bad_fraction)


def _read_ecgs(
    folder: Path,
    site: SiteConfig,
    layout: Layout,
    stays: pl.DataFrame,
    links: EcgLinks | None,
    spec: CohortSpec,
    steps: Steps,
    workers: int | None,
) -> tuple[pl.DataFrame, Facts]:
    """Write ecg.npy; the record of each stay that has a usable one, and rows, reasons and counts of records.

    A stay whose record is rejected gets the next one by the plan's rule, until one can be used or none is left;
    ``records_chosen`` counts every record that was chosen so. Only the first choices can be too many bad ones.
    """
    ecg, start, limit = site.data.ecg, time.monotonic(), site.prepare.max_bad_fraction
    linked, counts = pl.DataFrame(schema={"row": pl.UInt32, "path": pl.String, "list_row": pl.UInt32}), Facts()
    skipped: BadLines = []
    if links is not None:
        linked, counts, skipped = links
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
        records, rule = layout.ecg_records(ecg), site.prepare.on_duplicate
        linked = link_ecgs(records, ecg, stays, spec, rule, limit, without=rejected).chosen
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
