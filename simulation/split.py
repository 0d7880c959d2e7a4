"""One MIMIC-IV cut into K hospitals: every patient, with all stays, rows and ECGs, goes to exactly one.

Tables are filtered row by row, streaming, csv as text and parquet as it is, so no value changes. Waveforms stay where
they are: each hospital gets its own record list, and its site file names the source's ECG folder.
"""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from rich.console import Console
from rich.progress import track

from client.mimic_iv.files import TIME, Columns, collect, scan
from client.mimic_iv.tables import FOLDERS, OPTIONAL_TABLES, find_table, open_optional_table
from client.site import EhrData
from lemof_model.categories import category_of
from lemof_model.errors import DataError, LemofError
from lemof_model.study import Target
from simulation.site_file import require_empty, write_site_file

By = Literal["careunit", "year", "dirichlet", "random"]


class SplitUsageError(LemofError):
    """A split that was asked for and cannot be made: a matter of usage, so the command ends with 2."""

    exit_status = 2


def split(
    mimic: Path, ecg: Path | None, out: Path, *, num_sites: int, by: By, seed: int = 7, alpha: float = 0.5
) -> None:
    """Write ``out/SITE/{hosp,icu,ecg/record_list.csv,site.yaml}`` for each hospital, and ``out/split.json``.

    A patient is placed by the first ICU stay (earliest ``intime``) or by ``anchor_year_group``; one without what
    ``by`` needs goes to a hospital at random. ``alpha`` is the concentration for ``by="dirichlet"``. Without ``ecg``
    no hospital has ECGs; a hospital whose patients have none leaves the section out.

    Raises:
        SplitUsageError: fewer groups than hospitals, or a hospital would be without an ICU stay.
        DataError: a table is missing or damaged.
    """
    require_empty(out)
    records = _read_record_list(ecg) if ecg is not None else None
    assigned, groups = assign_patients(read_patients(mimic), num_sites=num_sites, by=by, seed=seed, alpha=alpha)
    counts = _counts(assigned, groups)
    _write_tables(mimic, out, assigned)
    for site, count in counts.items():
        folder, ecg_root = out / site, None
        if ecg is not None and records is not None:
            subjects = assigned.filter(pl.col("site") == site)["subject_id"].cast(pl.String)
            own = records.filter(pl.col("subject_id").is_in(subjects.implode()))
            if own.height:
                (folder / "ecg").mkdir()
                own.write_csv(folder / "ecg" / "record_list.csv")
                ecg_root = ecg.resolve()
        write_site_file(folder, count["num_stays"], ecg_root, record_list="ecg/record_list.csv")
    how = {"by": by, "num_sites": num_sites, "seed": seed, **({"alpha": alpha} if by == "dirichlet" else {})}
    manifest = {**how, "sites": {site: {**counts[site], "groups": groups[site]} for site in counts}}
    (out / "split.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def assign_patients(
    patients: pl.DataFrame, *, num_sites: int, by: By, seed: int, alpha: float
) -> tuple[pl.DataFrame, dict[str, list[str]]]:
    """``patients`` (of ``read_patients``) with a column ``site``; and for each site the care units or years in it.

    Raises:
        SplitUsageError: fewer groups than hospitals.
    """
    rng = np.random.default_rng(seed)
    column = {"careunit": "careunit", "year": "year_group", "dirichlet": "long_stay", "random": "subject_id"}[by]
    known = patients.drop_nulls(column)
    if by in ("careunit", "year"):
        sizes = dict(known.group_by(column).agg(pl.col("num_stays").sum()).sort(column).iter_rows())
        _require_groups(sizes, num_sites, by)
        groups = group_careunits(sizes, num_sites) if by == "careunit" else group_years(sizes, num_sites)
        site_of = {group: site for site, members in groups.items() for group in members}
        placed = known.with_columns(site=pl.col(column).replace_strict(site_of, return_dtype=pl.String))
    else:
        groups = {f"site_{index + 1:02d}": [] for index in range(num_sites)}
        labels = known["long_stay"].to_numpy() if by == "dirichlet" else np.zeros(known.height, np.int64)
        drawn = _draw_sites(labels, list(groups), alpha if by == "dirichlet" else None, rng)
        placed = known.with_columns(site=pl.Series(drawn, dtype=pl.String))
    rest = patients.join(known, on="subject_id", how="anti", maintain_order="left")
    rest = rest.with_columns(site=pl.Series(rng.choice(list(groups), rest.height), dtype=pl.String))
    return pl.concat([placed, rest]), groups


def read_patients(mimic: Path) -> pl.DataFrame:
    """One row per patient of ``patients`` or ``icustays``, by ``subject_id``: what a split may go by.

    Columns ``num_stays``, and null where unknown ``careunit`` and ``long_stay`` (default threshold) of the first ICU
    stay, and ``year_group``. Stays without ``intime`` come last, ties go to the smaller ``stay_id``.
    """
    ehr = _tables_of(mimic)
    path = find_table(ehr, "icustays")
    wanted: Columns = {
        "subject_id": pl.Int64,
        "stay_id": pl.Int64,
        "first_careunit": pl.String,
        "intime": TIME,
        "outtime": TIME,
    }
    stays = collect(scan(path, wanted), path)
    days = (pl.col("outtime") - pl.col("intime")).dt.total_seconds() / 86_400
    first = (
        stays.sort("subject_id", "intime", "stay_id", nulls_last=True)
        .with_columns(long_stay=(days > Target().threshold_days).cast(pl.Int64))
        .group_by("subject_id", maintain_order=True)
        .agg(
            num_stays=pl.len(),
            careunit=pl.col("first_careunit").first(),
            long_stay=pl.col("long_stay").first(),
        )
    )
    path = find_table(ehr, "patients")
    patients = collect(scan(path, {"subject_id": pl.Int64, "anchor_year_group": pl.String}), path)
    return (
        patients.rename({"anchor_year_group": "year_group"})
        .unique("subject_id")
        .join(first, on="subject_id", how="full", coalesce=True)
        .with_columns(pl.col("num_stays").fill_null(0))
        .sort("subject_id")
    )


def _tables_of(mimic: Path) -> EhrData:
    """Where the tables are, as a site file beside ``hosp`` and ``icu`` would say it."""
    return EhrData.model_validate({"root": "."}, context={"folder": mimic.resolve()})


def group_careunits(sizes: Mapping[str, int], num_sites: int) -> dict[str, list[str]]:
    """Group care units (name -> stays) into hospitals named after their largest unit.

    The ``num_sites`` largest units found a hospital each. The others are first put together by kind (medical,
    surgical with trauma, cardiac, neuro, other), so that all small neuro units stay together. Then, the largest kind
    first, each joins the smallest hospital founded by a unit of its kind, else the smallest of all. Ties go by name.

    Example:
        >>> group_careunits({"CCU (Cardiac)": 9, "Medical": 8, "Cardiac B": 2, "Neuro A": 2, "Neuro B": 1}, 2)
        {'cardiac': ['CCU (Cardiac)', 'Cardiac B'], 'medical': ['Medical', 'Neuro A', 'Neuro B']}
    """
    units = sorted(sizes, key=lambda unit: (-sizes[unit], unit))
    hospitals = [[unit] for unit in units[:num_sites]]
    bundles: dict[str, list[str]] = {}
    for unit in units[num_sites:]:
        bundles.setdefault(_kind(unit), []).append(unit)

    def total(group: list[str]) -> int:
        return sum(sizes[unit] for unit in group)

    for kind, bundle in sorted(bundles.items(), key=lambda item: (-total(item[1]), item[0])):
        same_kind = [hospital for hospital in hospitals if _kind(hospital[0]) == kind]
        min(same_kind or hospitals, key=lambda hospital: (total(hospital), hospital[0])).extend(bundle)
    return {_unit_name(hospital[0]): hospital for hospital in hospitals}


def group_years(sizes: Mapping[str, int], num_sites: int) -> dict[str, list[str]]:
    """Group year groups (name -> stays) into hospitals of consecutive years.

    While there are too many, the two neighbours with the fewest stays together become one.

    Example:
        >>> group_years({"2008 - 2010": 9, "2011 - 2013": 2, "2014 - 2016": 3}, 2)
        {'years_2008_2010': ['2008 - 2010'], 'years_2011_2016': ['2011 - 2013', '2014 - 2016']}
    """
    hospitals = [[group] for group in sorted(sizes)]
    while len(hospitals) > num_sites:
        pairs = [sum(sizes[group] for group in (*a, *b)) for a, b in pairwise(hospitals)]
        index = pairs.index(min(pairs))
        hospitals[index : index + 2] = [hospitals[index] + hospitals[index + 1]]
    return {
        _slug(f"years {hospital[0].split('-')[0]} {hospital[-1].split('-')[-1]}"): hospital for hospital in hospitals
    }


def _kind(unit: str) -> str:
    """The kind of a care unit; trauma units are surgical ones."""
    kind = category_of("careunit_kind", unit)
    return "surgical" if kind == "trauma" else kind


def _unit_name(unit: str) -> str:
    """A site name: the unit's abbreviation, else its whole name."""
    abbreviation = re.search(r"\(([^)]*)\)\s*$", unit)
    return _slug(abbreviation.group(1) if abbreviation else unit)


def _slug(text: str) -> str:
    """Letters, digits and single underscores."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def _draw_sites(labels: np.ndarray, names: Sequence[str], alpha: float | None, rng: np.random.Generator) -> np.ndarray:
    """A hospital for each patient: label by label in shares from Dirichlet(alpha), or in equal shares."""
    drawn = np.empty(len(labels), dtype=object)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        shares = np.full(len(names), 1 / len(names)) if alpha is None else rng.dirichlet([alpha] * len(names))
        cuts = np.round(np.cumsum(shares)[:-1] * len(rows)).astype(int)
        for name, part in zip(names, np.split(rows, cuts), strict=True):
            drawn[part] = name
    return drawn


def _require_groups(sizes: Mapping[str, int], num_sites: int, by: str) -> None:
    """Refuse more hospitals than there are groups."""
    if len(sizes) < num_sites:
        raise SplitUsageError(
            f"--sites must be at most {len(sizes)}, the number of groups by {by}, got {num_sites}. "
            "Ask for fewer hospitals, or split --by random."
        )


def _counts(assigned: pl.DataFrame, sites: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """Patients and stays of each hospital; none may be without a stay."""
    counts = {}
    for site in sites:
        own = assigned.filter(pl.col("site") == site)
        counts[site] = {"num_patients": own.height, "num_stays": int(own["num_stays"].sum())}
        if counts[site]["num_stays"] == 0:
            raise SplitUsageError(
                f"Every hospital must have an ICU stay, got none from {site}. Ask for fewer --sites, another --seed "
                "or a larger --alpha."
            )
    return counts


def _write_tables(mimic: Path, out: Path, assigned: pl.DataFrame) -> None:
    """Each table of the preparation that the source has, read once as text, written once per hospital in its order."""
    ehr = _tables_of(mimic)
    subjects = {
        site: own["subject_id"].cast(pl.String).implode()
        for (site,), own in assigned.sort("site").group_by("site", maintain_order=True)
    }
    bar = Console(stderr=True)
    absent = [name for name in OPTIONAL_TABLES if open_optional_table(ehr, name) is None]
    present = [name for name in FOLDERS if name not in absent]
    for table in track(present, "tables", console=bar, transient=True, disable=not bar.is_terminal):
        path = find_table(ehr, table)
        rows, sink, suffix = pl.scan_csv(path, infer_schema=False), _sink_csv, "csv.gz"
        if path.suffix == ".parquet":
            rows, sink, suffix = pl.scan_parquet(path), _sink_parquet, "parquet"
        subject = pl.col("subject_id").cast(pl.String)
        sinks = [
            sink(rows.filter(subject.is_in(own)), out / str(site) / FOLDERS[table] / f"{table}.{suffix}")
            for site, own in subjects.items()
        ]
        try:
            pl.collect_all(sinks, engine="streaming")
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"The table must have a column subject_id, got {type(error).__name__} from {path.name}. "
                "Export it again."
            ) from None


def _sink_csv(rows: pl.LazyFrame, path: Path) -> pl.LazyFrame:
    """Rows to be written as csv.gz."""
    return rows.sink_csv(path, compression="gzip", mkdir=True, lazy=True)


def _sink_parquet(rows: pl.LazyFrame, path: Path) -> pl.LazyFrame:
    """Rows to be written as parquet."""
    return rows.sink_parquet(path, mkdir=True, lazy=True)


def _read_record_list(ecg: Path) -> pl.DataFrame:
    """The whole record list as text."""
    path = ecg / "record_list.csv"
    if not path.is_file():
        raise DataError(f"--ecg must hold record_list.csv, got none from {ecg}. Name the MIMIC-IV-ECG folder.")
    return collect(pl.scan_csv(path, infer_schema=False), path)
