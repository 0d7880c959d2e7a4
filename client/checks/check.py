"""``lemof-client check``: all that can be known of a hospital before the long work begins, in one table.

Reads no big table whole, only a sample of each, the small tables of stays and 200 ECGs. ``--deep`` reads every row,
every ECG that would be used, and every file of the cohort. What is found is written to ``check.json`` beside the
cohort, or beside the site file as long as the cohort's folder is not there.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.progress import Progress

from client.checks import concerns
from client.checks.ecgs import check_ecgs
from client.checks.findings import Check, Finding, Report, failures, findings_of
from client.checks.ledger import check_ledger
from client.checks.machine import check_disk, check_memory, check_versions
from client.checks.page import read_quality, write_page
from client.checks.raw_tables import check_table
from client.checks.server import check_server
from client.checks.told import check_told
from client.cohort.labels import patients_by_split, studied
from client.cohort.store import ECG_SHAPE, load_cohort, require_place, sha256_of
from client.layouts import layout_of
from client.prepare.deaths import with_outcomes
from client.prepare.layout import Layout
from client.prepare.sources import STALE, is_stale
from client.prepare.statics import told_of_stays
from client.prepare.stays import StayTables, contradictions_in, select_stays, with_courses
from client.site import EcgData, PlanSections, SiteConfig, load_plan_sections, load_site
from lemof_model.errors import ConfigError, DataError, LemofError, TooLittleDataError
from lemof_model.features import FEATURES, GRID_CHANNELS
from lemof_model.splits import patient_hash_of
from readers.tables.ids import IDS

Stays = tuple[pl.DataFrame, list[dict[str, str | int]]]


def check(
    site_path: Path, plan_path: Path | None, console: Console, *, is_deep: bool = False, asks_server: bool | None = None
) -> Report:
    """Check a site and write ``check.json``; every problem is a finding of the report, never an exception.

    ``asks_server`` None asks when the site file has a ``server`` section.
    """
    start = time.monotonic()
    name, folder = site_path.stem, site_path.resolve().parent
    site, layout, plan, findings = _read(site_path, plan_path)
    name = site.site.name if site else name
    if site is not None and layout is not None and plan is not None:
        beside_cohort = site.prepare.output.parent
        folder = beside_cohort if beside_cohort.is_dir() else folder
        findings = [Finding("config", "ok", ", ".join(path.name for path in (site_path, plan_path) if path))]
        with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
            for what, run in _checks(site, layout, plan, plan_path, progress, is_deep=is_deep, asks_server=asks_server):
                findings += findings_of(what, run)
    return Report(
        site=name,
        config=f"{site_path.name} (sha256 {hashlib.sha256(site_path.read_bytes()).hexdigest()[:8]})",
        version=version("lemof"),
        is_deep=is_deep,
        findings=tuple({_said(finding): finding for finding in reversed(findings)}.values())[::-1],
        seconds=round(time.monotonic() - start, 1),
        path=folder / "check.json",
    ).saved()


def _read(
    site_path: Path, plan_path: Path | None
) -> tuple[SiteConfig | None, Layout | None, PlanSections | None, list[Finding]]:
    """The site file, its layout and the plan, and what is wrong in any."""
    site, layout, plan, findings = None, None, None, []
    try:
        site = load_site(site_path)
        layout = layout_of(site)
    except ConfigError as error:
        findings += failures("config", error)
    try:
        plan = load_plan_sections(plan_path)
    except ConfigError as error:
        findings += failures("plan", error)
    return site, layout, plan, findings


def _checks(
    site: SiteConfig,
    layout: Layout,
    plan: PlanSections,
    plan_path: Path | None,
    progress: Progress,
    *,
    is_deep: bool,
    asks_server: bool | None,
) -> Iterator[tuple[str, Check]]:
    """Every check with the name that an error in it is listed under; ``plan`` is that of a path, if one was given."""

    @cache
    def tables() -> StayTables:
        return with_courses(layout.stays(site), plan.cohort)

    @cache
    def stays() -> Stays:
        return select_stays(tables(), plan.cohort)

    yield "data.ehr.root", partial(_check_tables, site, layout, tables, is_deep=is_deep, progress=progress)
    yield "stays", lambda: _check_stays(*stays(), tables(), site, plan)
    if site.data.ecg is not None:
        yield "ECG", partial(_check_ecgs, site, layout, site.data.ecg, stays, plan, is_deep=is_deep, progress=progress)
    else:
        yield "ECG", lambda: iter([Finding("ECG", "ok", "none: the site file has no data.ecg, and needs none")])
    if site.privacy is not None:
        yield "privacy ledger", partial(check_ledger, site.privacy, site.prepare.output, plan_path)
    yield "disk", partial(_check_disk, site, plan, stays)
    yield "memory", check_memory
    yield "versions", check_versions
    if asks_server or (asks_server is None and "server" in site.model_fields_set):
        yield "server", partial(check_server, site.server)
    if (site.prepare.output / "manifest.json").is_file():
        yield "cohort", partial(_check_cohort, site, layout, plan, is_deep=is_deep)
        if plan_path is not None:
            yield "told before", partial(check_told, site, plan_path)


def _said(finding: Finding) -> tuple[str, ...]:
    """What tells findings apart: one problem that two checks met is told once, where it was met first."""
    where = (finding.check,) if finding.result == "ok" else ()
    return (finding.result, finding.found, finding.fix, *where)


def _check_tables(
    site: SiteConfig, layout: Layout, tables: Callable[[], StayTables], *, is_deep: bool, progress: Progress
) -> Iterator[Finding]:
    """Every table, if the folder that they lie in is there; each has its own last finding."""
    ehr, limit = site.data.ehr, site.prepare.max_bad_fraction
    layout.require_root(ehr)
    texts, words = _text_ids(tables), ehr.not_given
    for table in layout.checks(ehr):
        check_it = partial(
            check_table, table, words, max_bad_fraction=limit, is_deep=is_deep, progress=progress, text_ids=texts
        )
        yield from findings_of(table.name, check_it)


def _text_ids(tables: Callable[[], StayTables]) -> frozenset[str]:
    """The ids that are text at this hospital; none where another check tells why the stays cannot be read."""
    try:
        schemas = [table.schema for table in (tables().icustays, tables().admissions, tables().patients)]
    except LemofError:
        return frozenset()
    return frozenset(name for name in IDS for schema in schemas if schema.get(name) == pl.String)


def _check_stays(
    stays: pl.DataFrame,
    attrition: list[dict[str, str | int]],
    tables: StayTables,
    site: SiteConfig,
    plan: PlanSections,
) -> Iterator[Finding]:
    """Who would be in the cohort: enough patients, and stays of both kinds."""
    first, *dropped, _ = attrition
    reasons = ", ".join(f"{row['num_stays']:,} {row['reason']}" for row in dropped if row["num_stays"])
    found = f"{stays.height:,} of {first['num_stays']:,} in the cohort{f' (dropped: {reasons})' if reasons else ''}"
    if stays.is_empty():
        fix = "Check data.ehr.root, and the plan's cohort section."
        yield Finding("ICU stays", "fail", found, fix, "E901", TooLittleDataError.exit_status)
        return
    yield Finding("ICU stays", "ok", found)
    met = {**told_of_stays(stays), "contradictions": contradictions_in(tables, plan.cohort)}
    yield from concerns.stays(attrition, met)
    columns = with_outcomes(stays).to_pandas()
    hours_to_icu_N = (columns["intime"] - columns["admittime"]).dt.total_seconds().to_numpy() / 3600
    long_stay, keep = studied(columns, hours_to_icu_N, plan.target, plan.cohort)
    labelled = np.array([patient_hash_of(patient) for patient in columns["subject_id"][keep]], np.uint64)
    by_split = patients_by_split(labelled, plan.splits)
    yield concerns.patients(columns["subject_id"].nunique(), by_split, site.limits)
    yield concerns.labels(int(long_stay.sum()), int(keep.sum()), plan.target)


def _check_ecgs(
    site: SiteConfig,
    layout: Layout,
    ecg: EcgData,
    stays: Callable[[], Stays],
    plan: PlanSections,
    *,
    is_deep: bool,
    progress: Progress,
) -> Iterator[Finding]:
    """The ECGs, if it is known which stays there are."""
    known = _known(stays)
    if known is None or known.is_empty():
        yield Finding("ECG", "warn", "not tried: there are no stays to match", "Mend the tables first.", "E201")
    else:
        yield from check_ecgs(
            layout.ecg_records(ecg), ecg, known, plan.cohort, site.prepare, is_deep=is_deep, progress=progress
        )


def _check_disk(site: SiteConfig, plan: PlanSections, stays: Callable[[], Stays]) -> Iterator[Finding]:
    """Room for the cohort, as if every stay had an ECG; without the stays, whether the folder may be written."""
    known = _known(stays)
    bytes_per_ecg = 2 * math.prod(ECG_SHAPE) if site.data.ecg else 0
    bytes_per_stay = 200 + 4 * (len(FEATURES) + plan.cohort.window_hours * len(GRID_CHANNELS)) + bytes_per_ecg
    num_stays = 0 if known is None else known.height
    yield from check_disk(require_place(site.prepare.output), math.ceil(1.2 * num_stays * bytes_per_stay))


def _known(stays: Callable[[], Stays]) -> pl.DataFrame | None:
    """The cohort's stays; none where another check has told why they cannot be read."""
    try:
        return stays()[0]
    except LemofError:
        return None


def _check_cohort(site: SiteConfig, layout: Layout, plan: PlanSections, *, is_deep: bool) -> Iterator[Finding]:
    """The prepared cohort: whole, made for this plan, and what in it gives rise to concern."""
    cohort = load_cohort(site.prepare.output)
    if cohort.spec != plan.cohort:
        fix = "Give the coordinator's plan with --plan, or run prepare with it."
        yield Finding("cohort", "warn", "was prepared for another plan", fix, "E108")
    if is_stale(site, layout):
        yield Finding("cohort", "warn", STALE, "Run prepare.", "E108")
    if is_deep:
        for name, digest in cohort.manifest["digests"].items():
            if name != "cohort" and sha256_of(cohort.path / name) != digest:
                raise DataError(
                    rule=f"{name} of the cohort must be as it was prepared",
                    got="other bytes",
                    fix="Run: lemof-client --site SITE prepare --plan PLAN.yaml --force.",
                    code="E109",
                )
    quality = read_quality(cohort.path)
    yield Finding("cohort", "ok", f"{cohort.num_stays:,} stays{', every digest holds' if is_deep else ''}")
    yield from concerns.concerns_of(cohort.manifest, quality, site.limits, has_ecg_data=site.data.ecg is not None)
    page = write_page(site, cohort.manifest, quality)
    yield Finding("readiness page", "ok", str(page))
