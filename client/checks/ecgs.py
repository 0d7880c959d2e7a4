"""The ECGs: which stays have one, and whether the records that would be used can be read."""

import math
import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

import polars as pl
from rich.progress import Progress

from client.checks import concerns
from client.checks.findings import Finding
from client.prepare.ecg_links import link_ecgs
from client.site import EcgData, Prepare
from lemof_model.errors import DataError
from lemof_model.study import CohortSpec
from readers.ecg.faults import ADVICE, FEW, Reason, RejectedRecordError
from readers.ecg.heights import height_facts, height_mv
from readers.ecg.record import read_record
from readers.tables.source import Source

T = TypeVar("T")
NUM_RECORDS = 200
SEED = 0


def check_ecgs(
    records: Source,
    ecg: EcgData,
    stays: pl.DataFrame,
    spec: CohortSpec,
    rules: Prepare,
    *,
    is_deep: bool,
    progress: Progress,
) -> Iterator[Finding]:
    """Link the whole record list to the stays, then read records that would be used: 200 of them, or all.

    Raises:
        DataError: the record list is missing or damaged, repeats a record, or has too many that cannot be used.
    """
    linked, counts, _ = link_ecgs(records, ecg, stays, spec, rules.on_duplicate, rules.max_bad_fraction)
    yield Finding("ECG record list", "ok", f"{counts['records_listed']:,} records")
    yield from concerns.record_list(counts)
    finding = concerns.ecg_links(linked.height, stays.height, counts)
    yield finding
    if finding.result == "ok":
        rows = list(linked.unique("path", maintain_order=True).select("path", "list_row").iter_rows())
        chosen = rows if is_deep or len(rows) <= NUM_RECORDS else spread(rows, NUM_RECORDS)
        yield from _check_records(ecg, chosen, len(rows), rules.max_bad_fraction, progress)


def spread(records: Sequence[T], number: int) -> list[T]:
    """One record from each of ``number`` equal stretches of the list, the same ones each time.

    Example:
        >>> [record[0] for record in spread(["a1", "a2", "b1", "b2", "c1", "c2"], 3)]
        ['a', 'b', 'c']
    """
    draw = random.Random(SEED)
    edges = [len(records) * index // number for index in range(number + 1)]
    return [records[draw.randrange(start, end)] for start, end in pairwise(edges)]


def _check_records(
    ecg: EcgData, records: Sequence[tuple[str, int]], num_all: int, max_bad_fraction: float, progress: Progress
) -> Iterator[Finding]:
    """Read records fully, as ``prepare`` would; one finding for each reason that some cannot be used for."""
    name = f"ECG records ({len(records):,} of {num_all:,})"
    bad: dict[Reason, list[str]] = {}
    heights, num_verified = [], 0
    for path, list_row in progress.track(records, description="ECG records"):
        try:
            record = read_record(ecg, path)
        except RejectedRecordError as error:
            detail = f": {error.detail}" if error.detail else ""
            bad.setdefault(error.reason, []).append(f"row {list_row:,} of the list{detail}")
        else:
            heights.append((height_mv(record.ecg_CT), record.layout.gain))
            num_verified += record.is_verified
    num_bad = sum(map(len, bad.values()))
    # Two deviations fewer, where only some were read: a sample must not condemn what prepare would let pass.
    surely = num_bad if len(records) == num_all else (num_bad - 2 * math.sqrt(num_bad)) * num_all / len(records)
    stops = surely > max(max_bad_fraction * num_all, FEW)
    for reason, places in bad.items():
        found = f"{reason.words}: {len(places):,} ({len(places) / len(records):.1%}), first {places[0]}"
        if stops:
            yield Finding(name, "fail", found, ADVICE[reason], reason.code, DataError.exit_status)
        else:
            yield Finding(name, "warn", f"{found}; skipped", ADVICE[reason], reason.code)
    if not bad:
        rates = " or ".join(map(str, ecg.accept_hz))
        without = len(records) - num_verified
        checksums = f"{without:,} without checksums" if without else "checksums hold"
        yield Finding(name, "ok", f"{rates} Hz, 12 leads, {checksums}")
    yield from concerns.ecg_heights(height_facts(heights))
