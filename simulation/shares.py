"""The rows of a table, shared out to hospitals by patient, each as it stands.

Csv stays text and parquet what it is, row after row in the table's order; a text that is not UTF-8 keeps its bytes. An
id is read as ``prepare`` reads it (``readers.tables.ids``), and every row of a known patient arrives: the rows of
source and hospitals are counted and compared.
"""

import codecs
import gzip
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Literal, cast

import polars as pl

from lemof_model.errors import DataError
from readers.tables.files import EncodingError, collect, collect_all, header_of
from readers.tables.ids import as_text
from readers.tables.source import Source

log = logging.getLogger("lemof")
CHUNK = 1 << 20


class Shares:
    """Who is where: the patients of each hospital, and the stays and admissions of them all.

    ``assigned`` has ``subject_id`` and ``site``; ``owners`` for ``stay_id`` and ``hadm_id`` the ``subject_id`` that
    each belongs to, as text.
    """

    def __init__(self, assigned: pl.DataFrame, owners: Mapping[str, pl.DataFrame]) -> None:
        texts = assigned.with_columns(pl.col("subject_id").cast(pl.String)).sort("site")
        self.subjects = {
            str(site): own["subject_id"].implode() for (site,), own in texts.group_by("site", maintain_order=True)
        }
        self._all = texts["subject_id"].implode()
        self._keys = {
            key: rows.filter(pl.col("subject_id").is_in(self._all))[key].implode() for key, rows in owners.items()
        }

    def write(self, source: Source, out: Path, folder: str) -> dict[str, int]:
        """Write a table's rows to ``out/SITE/folder``, and tell of those that are of nobody; rows by hospital.

        Raises:
            DataError: the table is damaged, a row of a known patient lacks the patient's id, or rows were lost.
        """
        try:
            return self._write(source, out, folder)
        except EncodingError:
            log.warning(f"{source.label} is not in UTF-8: its bytes are kept as they are.")
        with tempfile.TemporaryDirectory(dir=out) as scratch:
            readable = Path(scratch) / f"{source.name}.csv"
            _recode(source.path, readable, "latin-1", "utf-8")  # a character for each byte, whatever it was
            written = self._write(replace(source, path=readable), out, folder)
            for site in self.subjects:
                path = _target(source, out / site / folder)
                _recode(path, Path(scratch) / path.name, "utf-8", "latin-1")
                (Path(scratch) / path.name).replace(path)
        return written

    def _write(self, source: Source, out: Path, folder: str) -> dict[str, int]:
        """``write`` of a table in UTF-8: by the ids as they stand and, where that leaves rows of known patients, again
        by what they mean."""
        rows = read_source(source, ["subject_id"])
        stored = rows.collect_schema()
        targets = {site: _target(source, out / site / folder) for site in self.subjects}
        meant = as_text("subject_id", stored["subject_id"], source.label)
        plain = pl.col("subject_id") if stored["subject_id"] == pl.String else meant
        num_rows, lost = self._share_out(rows, plain, meant, targets, source)
        if lost["meant"]:
            num_rows, lost = self._share_out(rows, meant, meant, targets, source)
        for key in self._keys:
            if num := lost.get(key):
                raise DataError(
                    rule="subject_id must be that of the patient in every row",
                    got=f"{num:,} rows with none, or another, whose {key} belongs to a known patient from "
                    f"{source.label}",
                    fix="Mend subject_id in the export.",
                    code="E105",
                )
        written = {site: _num_rows(path) for site, path in targets.items()}
        if sum(written.values()) + lost["rows"] != num_rows:
            raise DataError(
                rule="The hospitals must have every row of a known patient",
                got=f"{sum(written.values()):,} of {num_rows - lost['rows']:,} from {source.label}",
                fix="Report it: this is a bug in lemof.",
            )
        if lost["rows"]:
            log.warning(
                f"{source.label}: {lost['rows']:,} of {num_rows:,} rows are of patients that neither patients nor "
                "icustays has: they are in no hospital."
            )
        return written

    def _share_out(
        self, rows: pl.LazyFrame, subject: pl.Expr, meant: pl.Expr, targets: Mapping[str, Path], source: Source
    ) -> tuple[int, dict[str, int]]:
        """Write the rows of each hospital by an id; how many rows there are, and what of those in no hospital: how many
        ``rows``, how many ``meant`` (of a patient who is known by another writing), and by key those whose stay or
        admission is known."""
        stored = rows.collect_schema()
        sinks = [_sink(rows.filter(subject.is_in(own)), targets[site]) for site, own in self.subjects.items()]
        others = rows.filter(~subject.is_in(self._all).fill_null(False))
        known = {
            key: as_text(key, stored[key], source.label).is_in(ids) for key, ids in self._keys.items() if key in stored
        }
        counts = [
            is_so.fill_null(False).sum().alias(key) for key, is_so in {"meant": meant.is_in(self._all), **known}.items()
        ]
        counted = others.select(pl.len().alias("rows"), *counts)
        *_, whole, lost = collect_all([*sinks, rows.select(pl.len()), counted], source.path)
        return int(whole.item()), dict(lost.row(0, named=True))


def read_source(
    source: Source, needed: Sequence[str], encoding: Literal["utf8", "utf8-lossy"] = "utf8"
) -> pl.LazyFrame:
    """All columns of a table as they are stored, csv as text.

    Raises:
        DataError: the table lacks a column that is needed, has one twice, or cannot be opened.
    """
    unnamed = replace(source, naming=replace(source.naming, own=None))  # no site file can rename a column for a split
    unnamed.raw(dict.fromkeys(needed, pl.String))  # tells what is missing as prepare does
    header = header_of(source.path)
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(
            rule="Columns must have names of their own",
            got=f"{twice} twice from {source.path.name}",
            fix="Name each column once in the export.",
            code="E102",
        )
    if source.path.suffix == ".parquet":
        return pl.scan_parquet(source.path)
    return pl.scan_csv(source.path, schema=dict.fromkeys(header, pl.String), encoding=encoding)


def _target(source: Source, folder: Path) -> Path:
    """Where the rows of a hospital go."""
    suffix = ".parquet" if source.path.suffix == ".parquet" else ".csv" if source.name == "record_list" else ".csv.gz"
    return folder / f"{source.name}{suffix}"


def _sink(rows: pl.LazyFrame, path: Path) -> pl.LazyFrame:
    """Rows to be written."""
    if path.suffix == ".parquet":
        return rows.sink_parquet(path, mkdir=True, lazy=True)
    compression: Literal["gzip", "uncompressed"] = "gzip" if path.suffix == ".gz" else "uncompressed"
    return rows.sink_csv(path, compression=compression, mkdir=True, lazy=True)


def _num_rows(path: Path) -> int:
    """The rows of a file that was written."""
    rows = pl.scan_parquet(path) if path.suffix == ".parquet" else pl.scan_csv(path, infer_schema=False)
    return int(collect(rows.select(pl.len()), path).item())


def _recode(path: Path, target: Path, old: str, new: str) -> None:
    """Copy a text file, compressed or not by its name, from one encoding to another."""
    reader = gzip.open if path.suffix == ".gz" else open
    with reader(path, "rb") as raw, target.open("wb") as plain:
        is_gz = target.suffix == ".gz"
        file = cast(BinaryIO, gzip.GzipFile("", "wb", fileobj=plain, mtime=0) if is_gz else plain)
        decoder = codecs.getincrementaldecoder(old)()
        chunk = raw.read(CHUNK).removeprefix(codecs.BOM_UTF8)
        while chunk:
            file.write(decoder.decode(chunk).encode(new))
            chunk = raw.read(CHUNK)
        if is_gz:
            file.close()
