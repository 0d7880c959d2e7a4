"""One MIMIC-IV cut into K hospitals: every patient, with all stays, rows and ECGs, goes to exactly one.

What is written is what the source holds: see ``shares``. Waveforms stay where they are: each hospital gets its own
record list, and its site file names the source's ECG folder.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, count, pairwise
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.progress import track

from client.layouts.mimic_iv.tables import FOLDERS, OPTIONAL_TABLES, files_of, open_optional_table, open_table
from client.site import EhrData
from lemof_model.categories import category_of
from lemof_model.errors import DataError, LemofError
from lemof_model.study import Target
from protocol.owner_only import owner_only
from readers.tables.files import collect, is_unreadable
from readers.tables.ids import ROUNDED, as_text, text_ids
from readers.tables.source import Source
from readers.tables.unreadable import form_of, is_too_many
from simulation.shares import Shares, read_source
from simulation.site_file import By, require_empty, write_site_file

PARTIAL = ".partial"


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
    shutil.rmtree(out / PARTIAL, ignore_errors=True)  # of a split that was killed
    require_empty(out)
    _require_tables(mimic)
    records = _record_list(ecg) if ecg is not None else None
    patients = read_patients(mimic)
    assigned, groups = assign_patients(patients, num_sites=num_sites, by=by, seed=seed, alpha=alpha)
    counts = _counts(assigned, groups)
    how = {"by": by, "num_sites": num_sites, "seed": seed, **({"alpha": alpha} if by == "dirichlet" else {})}
    manifest = {**how, "sites": {site: {**counts[site], "groups": groups[site]} for site in counts}}
    with _whole_or_nothing(out) as partial:
        shares = Shares(assigned, _owners(mimic))
        _write_tables(mimic, partial, shares)
        num_records = shares.write(records, partial, "ecg") if records is not None else {}
        for site, count in counts.items():
            ecg_root = ecg.resolve() if ecg is not None and num_records[site] else None
            if ecg is not None and ecg_root is None:
                shutil.rmtree(partial / site / "ecg")
            write_site_file(partial / site, count["num_stays"], ecg_root, record_list="ecg/record_list.csv")
        (partial / "split.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _whole_or_nothing(out: Path) -> Iterator[Path]:
    """A folder to fill, in ``out``; what is in it moves up when the block ends without an error, and is gone otherwise.
    It holds tables of patients, so its files are for their owner alone."""
    partial = out / PARTIAL
    try:
        with owner_only():
            partial.mkdir()
            yield partial
        for path in sorted(partial.iterdir(), key=lambda path: (path.is_file(), path.name)):  # split.json comes last
            path.rename(out / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
    stay, and ``year_group``. Stays without ``intime`` come last, ties go to the smaller ``stay_id``. Ids are numbers if
    all of the patients' are, else text.

    Raises:
        DataError: a table is missing or damaged, or too many times of icustays cannot be read.
    """
    source = open_table(_tables_of(mimic), "icustays")
    stays = _read(source, ["subject_id", "stay_id"], ["first_careunit", "intime", "outtime"])
    times = [pl.col(time).str.to_datetime(source.time_format, strict=False) for time in ("intime", "outtime")]
    _refuse_times(source, stays, dict(zip(("intime", "outtime"), times, strict=True)))
    days = (pl.col("outtime") - pl.col("intime")).dt.total_seconds() / 86_400
    first = (
        _in_order(stays.with_columns(times).drop_nulls("subject_id"), "subject_id", "intime", "stay_id")
        .with_columns(long_stay=(days > Target().threshold_days).cast(pl.Int64))
        .group_by("subject_id", maintain_order=True)
        .agg(
            num_stays=pl.len(),
            careunit=pl.col("first_careunit").first(),
            long_stay=pl.col("long_stay").first(),
        )
    )
    patients = _read(open_table(_tables_of(mimic), "patients"), ["subject_id"], [], ["anchor_year_group"])
    known = (
        patients.drop_nulls("subject_id")
        .rename({"anchor_year_group": "year_group"})
        .unique("subject_id", keep="first", maintain_order=True)
        .join(first, on="subject_id", how="full", coalesce=True)
        .with_columns(pl.col("num_stays").fill_null(0))
    )
    numbers = known["subject_id"].cast(pl.Int64, strict=False)
    are_numbers = numbers.null_count() == 0
    return known.with_columns(subject_id=numbers if are_numbers else known["subject_id"]).sort("subject_id")


def _read(source: Source, ids: Sequence[str], texts: Sequence[str], optional: Sequence[str] = ()) -> pl.DataFrame:
    """Some columns of a small table: ids as text, whole numbers in one form, the rest as text."""
    rows = read_source(source, [*ids, *texts], "utf8-lossy")
    stored = rows.collect_schema()
    rows = rows.with_columns(pl.lit(None, pl.String).alias(name) for name in optional if name not in stored)
    typed = [as_text(name, stored[name], source.label) for name in ids]
    others = [pl.col(name).cast(pl.String) for name in (*texts, *optional)]
    read = collect(rows.select(*typed, *others), source.path)
    for name in set(ids) - text_ids([read]):
        is_rounded = read[name].str.contains(ROUNDED).fill_null(False)
        if is_rounded.any():
            raise DataError(
                rule=f"{name} must be a whole number or text",
                got=f"{is_rounded.sum():,} of {read.height:,} rows in which a number was rounded (first: form "
                f"{form_of(read[name].filter(is_rounded)[0])!r}) from {source.label}",
                fix="Export it as text: several patients may have been made one.",
                code="E105",
            )
    return read


def _in_order(stays: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """Rows in the order of some columns, ids that are numbers by number."""
    return stays.sort(
        *(key for name in columns for key in _keys(stays, name)),
        nulls_last=True,
    )


def _keys(stays: pl.DataFrame, name: str) -> list[pl.Expr]:
    """What a column is sorted by."""
    if stays.schema[name] != pl.String:
        return [pl.col(name)]
    return [pl.col(name).cast(pl.Int64, strict=False), pl.col(name)]


def _refuse_times(source: Source, stays: pl.DataFrame, times: Mapping[str, pl.Expr]) -> None:
    """Refuse times in another form: who was where first could not be known.

    Raises:
        DataError: too many of a column cannot be read.
    """
    for name, time in times.items():
        bad = stays.filter(is_unreadable(time, pl.col(name)))
        if is_too_many(bad.height, stays.height, 0.01) or 2 * bad.height > stays.height:
            raise DataError(
                rule=f"{name} must match {source.time_format}",
                got=f"{bad.height:,} of {stays.height:,} rows that do not (first: form {form_of(bad[name][0])!r}) "
                f"from {source.label}",
                fix="Export it in that form.",
                code="E103",
            )


def _tables_of(mimic: Path) -> EhrData:
    """Where the tables are, as a site file beside ``hosp`` and ``icu`` would say it."""
    return EhrData.model_validate({"root": "."}, context={"folder": mimic.resolve()})


def _require_tables(mimic: Path) -> None:
    """Refuse a folder without a table that every hospital needs, in the words of a command without a site file.

    Raises:
        DataError: names what is not there.
    """
    if not mimic.is_dir():
        raise DataError(
            rule="--mimic must be a folder", got=f"none at {mimic}", fix="Name that of MIMIC-IV.", code="E101"
        )
    ehr = _tables_of(mimic)
    missing = [f"{FOLDERS[name]}/{name}" for name in FOLDERS if name not in OPTIONAL_TABLES and not files_of(ehr, name)]
    if missing:
        raise DataError(
            rule=f"--mimic must hold {missing[0]} as .csv, .csv.gz or .parquet",
            got=f"none in {mimic}",
            fix="Name the folder of a whole export.",
            code="E101",
        )


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
    return _named([(_unit_name(hospital[0]), hospital) for hospital in hospitals])


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
    return _named([(_slug(f"years {ours[0].split('-')[0]} {ours[-1].split('-')[-1]}"), ours) for ours in hospitals])


def _kind(unit: str) -> str:
    """The kind of a care unit; trauma units are surgical ones."""
    kind = category_of("careunit_kind", unit)
    return "surgical" if kind == "trauma" else kind


def _named(hospitals: Sequence[tuple[str, list[str]]]) -> dict[str, list[str]]:
    """Hospitals by name, each with its own: two units may share an abbreviation, or have no Latin letter."""
    named: dict[str, list[str]] = {}
    for name, groups in hospitals:
        others = (f"{name or 'site'}_{number}" for number in count(2 if name else 1))
        named[next(one for one in chain([name] if name else [], others) if one not in named)] = groups
    return named


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
            rule=f"--sites must be at most {len(sizes)}, the number of groups by {by}",
            got=f"{num_sites}",
            fix="Ask for fewer hospitals, or split --by random.",
        )


def _counts(assigned: pl.DataFrame, sites: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """Patients and stays of each hospital; none may be without a stay."""
    counts = {}
    for site in sites:
        own = assigned.filter(pl.col("site") == site)
        counts[site] = {"num_patients": own.height, "num_stays": int(own["num_stays"].sum())}
        if counts[site]["num_stays"] == 0:
            raise SplitUsageError(
                rule="Every hospital must have an ICU stay",
                got=f"none from {site}",
                fix="Ask for fewer --sites, another --seed or a larger --alpha.",
            )
    return counts


def _write_tables(mimic: Path, out: Path, shares: Shares) -> None:
    """Each table of the preparation that the source has, read once and shared out."""
    ehr = _tables_of(mimic)
    bar = Console(stderr=True)
    opened = [open_optional_table(ehr, name) if name in OPTIONAL_TABLES else open_table(ehr, name) for name in FOLDERS]
    present = [source for source in opened if source is not None]
    for source in track(present, "tables", console=bar, transient=True, disable=not bar.is_terminal):
        shares.write(source, out, FOLDERS[source.name])


def _owners(mimic: Path) -> dict[str, pl.DataFrame]:
    """The patient of each stay and of each admission: ``stay_id`` or ``hadm_id`` -> key and ``subject_id``, as text."""
    ehr = _tables_of(mimic)
    found = {}
    for key, table in (("stay_id", "icustays"), ("hadm_id", "admissions")):
        rows = _read(open_table(ehr, table), ["subject_id", key], [])
        found[key] = rows.drop_nulls().unique(key, keep="first", maintain_order=True)
    return found


def _record_list(ecg: Path) -> Source:
    """The record list of the ECGs."""
    path = ecg / "record_list.csv"
    if not path.is_file():
        raise DataError(
            rule="--ecg must hold record_list.csv", got=f"none from {ecg}", fix="Name the MIMIC-IV-ECG folder."
        )
    return Source("record_list", path)
