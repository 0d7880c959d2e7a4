"""From raw tables to a cohort: the steps in order. Each is a file of this package."""

import csv
import gzip
import io
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from client.cohort import STAY_COLUMNS, Cohort, load_cohort, replacing, write_cohort
from client.mimic_iv.diagnoses import with_diseases
from client.mimic_iv.ecg_links import link_ecgs
from client.mimic_iv.ecg_waveforms import write_ecgs
from client.mimic_iv.grid import hourly_grid
from client.mimic_iv.labs import labs_by_hour
from client.mimic_iv.measurements import counts_by_concept, first_day_features
from client.mimic_iv.statics import static_features, with_statics
from client.mimic_iv.stays import read_stay_tables, select_stays
from client.mimic_iv.vitals import vitals_by_hour
from client.site import EcgData, PlanSections, SiteConfig
from lemof_model.errors import TooLittleDataError
from lemof_model.splits import patient_hash_of
from lemof_model.study import CohortSpec


def prepare(site: SiteConfig, plan: PlanSections, console: Console) -> Cohort:
    """Make the site's cohort for a plan and put it where the site file says; what happens is told to ``console``.

    Raises:
        DataError: a raw table is missing or damaged.
        TooLittleDataError: no stay is left.
        DiskError: the cohort cannot be written. An earlier cohort is left as it was.
    """
    ehr, spec = site.data.ehr, plan.cohort
    with _step(console, 1, "stays") as say:
        tables = read_stay_tables(ehr)
        stays, attrition = select_stays(tables, spec)
        if stays.is_empty():
            raise TooLittleDataError(_nothing_left(attrition))
        stays = with_diseases(ehr, with_statics(stays, tables))
        say(f"{stays.height:,} of {tables.icustays.height:,}")
    with _step(console, 2, "vitals and labs") as say:
        hours = pl.concat([vitals_by_hour(ehr, stays, spec.window_hours), labs_by_hour(ehr, stays, spec.window_hours)])
        counts = counts_by_concept(hours)
        say(f"{sum(count['used'] for count in counts.values()):,} values")
    with replacing(site.prepare.output) as folder:
        with _step(console, 3, "ECGs") as say:
            num_linked, ecg_index, ecg_counts = _prepare_ecgs(folder, site.data.ecg, stays, spec, console)
            say(f"{(ecg_index >= 0).sum():,} stays")
        with _step(console, 4, "write") as say:
            write_cohort(
                folder,
                spec=spec,
                target=plan.target,
                splits=plan.splits,
                stays=_stay_columns(stays).to_pandas(),
                features=np.hstack([static_features(stays), first_day_features(hours, stays.height)]),
                grid=hourly_grid(hours, stays.height, spec.window_hours),
                num_stays_with_ecg=num_linked,
                ecg_index=ecg_index,
                attrition=attrition,
                facts={"values": counts, "ecg": ecg_counts, "versions": _versions()},
            )
            load_cohort(folder)
            say(f"{sum(file.stat().st_size for file in folder.iterdir()) / 1e6:,.1f} MB")
    return load_cohort(site.prepare.output)


def _prepare_ecgs(
    folder: Path, ecg: EcgData | None, stays: pl.DataFrame, spec: CohortSpec, console: Console
) -> tuple[int, NDArray[np.int64], dict[str, Any]]:
    """Write ecg.npy and rejects.csv.gz; the number of stays linked, their ECG rows, and counts for the manifest."""
    counts: dict[str, Any] = {}
    num_linked = 0
    row_of: dict[str, int] = {}
    rejected: dict[str, str] = {}
    ecg_index = np.full(stays.height, -1, np.int64)
    if ecg is None:
        write_ecgs(folder / "ecg.npy", Path(), (), ())
    else:
        linked, counts = link_ecgs(ecg, stays, spec)
        num_linked = linked.height
        paths = linked["path"].unique(maintain_order=True).to_list()
        bar = track(paths, "ECGs", console=console, disable=not console.is_terminal, transient=True)
        row_of, rejected = write_ecgs(folder / "ecg.npy", ecg.root, bar, ecg.accept_hz)
        ecg_index[linked["row"].to_numpy()] = [row_of.get(path, -1) for path in linked["path"]]
    _write_rejects(folder / "rejects.csv.gz", rejected)
    return num_linked, ecg_index, {**counts, "records_rejected": dict(sorted(Counter(rejected.values()).items()))}


def _stay_columns(stays: pl.DataFrame) -> pl.DataFrame:
    """The columns of stays.parquet."""
    days = 24 * 3600
    is_dead = pl.col("deathtime").is_not_null()
    return stays.with_columns(
        patient_hash=pl.col("subject_id").map_elements(patient_hash_of, return_dtype=pl.UInt64),
        icu_los_days=(pl.col("outtime") - pl.col("intime")).dt.total_seconds() / days,
        hospital_los_days=(pl.col("dischtime") - pl.col("admittime")).dt.total_seconds() / days,
        died_in_icu=pl.col("deathtime").is_between("intime", "outtime").fill_null(False),
        died_in_hospital=is_dead | (pl.col("hospital_expire_flag") == 1).fill_null(False),
    ).select(list(STAY_COLUMNS))


def _write_rejects(path: Path, rejected: dict[str, str]) -> None:
    """Records that were linked and could not be used, with the reason; the same bytes each time."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("file", "reason"), *rejected.items()])
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def _versions() -> dict[str, str]:
    """The packages that decide the bytes of a cohort."""
    return {package: version(package) for package in ("numpy", "pandas", "polars", "pyarrow", "scipy", "wfdb")}


def _nothing_left(attrition: list[dict[str, str | int]]) -> str:
    """What happened to every stay of a hospital whose cohort is empty."""
    fates = "; ".join(f"{row['num_stays']} {row['reason']}" for row in attrition)
    return f"The cohort must hold at least one stay, got: {fates}. Check data.ehr.root and the plan's cohort section."


@contextmanager
def _step(console: Console, number: int, name: str) -> Iterator[Callable[[str], None]]:
    """Time a step and print one line when it is done."""
    start, found = time.monotonic(), [""]
    yield lambda text: found.__setitem__(0, text)
    console.print(f"\\[{number}/4] {name:<16} {found[0]:<24} {time.monotonic() - start:6.1f} s", highlight=False)
