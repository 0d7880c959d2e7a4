"""Which ECG belongs to which stay, from the record list alone: no waveform is opened before it is chosen.

A record list knows patients and times, not stays. An ECG counts for a stay from ``ecg_before_hours`` before ICU
admission to the prediction time, both included; the plan says whether the latest or the first one is used. Of two ECGs
at one time the larger ``study_id`` wins. One ECG may serve two stays of a patient. One that turns out to be unusable is
passed over when ``prepare`` links again.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import polars as pl

from client.prepare.event_pass import BAD_TIME, BadLines
from client.site import EcgData, Prepare
from lemof_model.errors import DataError, Problem
from lemof_model.study import CohortSpec
from readers.tables.files import TIME, Columns, collect, unique_rows
from readers.tables.ids import text_ids
from readers.tables.roots import refuse_other_record_list, refuse_other_records
from readers.tables.source import Source
from readers.tables.unreadable import form_of, is_too_many

# What a record list must tell: whose record, which (each once), when (local), and its path under data.ecg.root.
RECORD_LIST: Columns = {"subject_id": pl.Int64, "study_id": pl.Int64, "ecg_time": TIME, "path": pl.String}


class EcgLinks(NamedTuple):
    """The ``chosen`` record of each stay (``row``) that has one, how many records were met on the way, and the
    ``skipped`` ones (row in the list, reason).

    ``path`` and ``list_row`` (counted from 1) are the record's place on disk and in the list: the second names it
    without naming a patient. Counts of records add up: listed = repeated + incomplete + without_readable_time +
    unlinked + linked; the first three are skipped.
    """

    chosen: pl.DataFrame
    counts: dict[str, int]
    skipped: BadLines


def link_ecgs(
    record_list: Source,
    ecg: EcgData,
    stays: pl.DataFrame,
    spec: CohortSpec,
    on_duplicate: str = "refuse",
    max_bad_fraction: float = Prepare.model_fields["max_bad_fraction"].default,
    *,
    without: Collection[str] = (),
) -> EcgLinks:
    """Link the records of a list to stays, without opening one. Records whose path is in ``without`` are passed over,
    as if they were not listed.

    Raises:
        DataError: the record list is missing or damaged, repeats a study or a path and ``on_duplicate`` is "refuse", or
            has too many records without an id, a path or a time that can be read.
    """
    if not ecg.record_list.is_file():
        refuse_other_record_list(ecg.root, ecg.record_list.name, "data.ecg.root")
        raise DataError(
            rule="The ECG record list must be a file",
            got=f"none from {ecg.record_list}",
            fix="Set data.ecg.record_list or data.ecg.root, or leave data.ecg out at a hospital without ECGs.",
        )
    listed, stored = _read_list(record_list, has_texts=stays.schema["subject_id"] == pl.String)
    first, num_repeated = unique_rows(listed, "study_id", ecg.record_list, on_duplicate)
    whole = first.drop_nulls(["subject_id", "path"])
    num_incomplete = listed.height - num_repeated - whole.height
    if is_too_many(num_incomplete, listed.height, max_bad_fraction):
        raise DataError(_incomplete(listed, stored, ecg.record_list))
    records, num_shared = _one_per_path(whole, ecg.record_list, on_duplicate)
    timed = records.drop_nulls("ecg_time")
    if is_too_many(records.height - timed.height, records.height, max_bad_fraction):
        raise DataError(_bad_times(ecg, records, stored))
    own = timed.join(stays, on="subject_id", how="semi").filter(~pl.col("path").is_in(list(without)))
    windows = stays.select(
        "row",
        "subject_id",
        begin=pl.col("intime") - pl.duration(seconds=spec.ecg_before_hours * 3600),
        end=pl.col("intime") + pl.duration(hours=spec.window_hours),
    )
    chosen, num_linked = _choose(own, windows, spec), _num_linked(own, windows)
    if not without:
        refuse_other_records(ecg.root, chosen["path"], "data.ecg.root")
    counts = {
        "records_listed": listed.height,
        "records_repeated": num_repeated + num_shared,
        "records_incomplete": num_incomplete,
        "records_without_readable_time": records.height - timed.height,
        "records_unlinked": timed.height - num_linked,
        "records_linked": num_linked,
        "records_chosen": chosen["study_id"].n_unique(),
        "stays": stays.height,
        "stays_linked": chosen.height,
        "patients_listed": own["subject_id"].n_unique(),
        "digits_listed": _digits(listed),
        "digits_stays": _digits(stays),
    }
    return EcgLinks(chosen.select("row", "path", "list_row"), counts, _skipped(listed, first, whole, records, timed))


def _read_list(source: Source, *, has_texts: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The record list, row by row (``list_row``), and what it has stored. Patients are texts where those of the stays
    are."""
    raw = source.raw(dict.fromkeys(RECORD_LIST, pl.String))
    stored = collect(raw.with_row_index("list_row", offset=1), source.path)
    texts = text_ids([stored], ["study_id"]) | ({"subject_id"} if has_texts else set())
    source = replace(source, text_ids=texts)
    return stored.select("list_row", *source.typed(stored.lazy(), RECORD_LIST)), stored


def link_warning(counts: Mapping[str, int]) -> Problem | None:
    """What a person should know about these counts of ``link_ecgs``; None when every record belongs to a stay.

    Example:
        >>> print(link_warning({"stays_linked": 0, "patients_listed": 0, "digits_listed": 1, "digits_stays": 8}))
        ECGs must match stays by subject_id, got no patient in both (1 digit against 8). Same patient numbering? [E201]
    """
    if counts.get("records_without_readable_time") and not counts["records_linked"] + counts["records_unlinked"]:
        return Problem(
            "ecg_time must match data.ecg.datetime_format", "none that does", "Set it, or mend the record list.", "E103"
        )
    if not counts.get("records_listed", 1):
        return Problem(
            "The ECG record list must have records",
            "none",
            "Export it again, or leave data.ecg out at a hospital without ECGs.",
            "E106",
        )
    if not counts["patients_listed"]:
        digits = (
            f"{counts['digits_listed']} digit{'s' * (counts['digits_listed'] != 1)} against {counts['digits_stays']}"
        )
        return Problem(
            "ECGs must match stays by subject_id", f"no patient in both ({digits})", "Same patient numbering?", "E201"
        )
    if not counts["stays_linked"]:
        return Problem(
            "ECGs must match stays by time",
            f"none in time though {counts['patients_listed']:,} patients are in both",
            "Same clock, or dates moved by the same offset?",
            "E201",
        )
    if not counts["records_unlinked"]:
        return None
    share = counts["stays_linked"] / counts["stays"]
    return Problem(
        f"{counts['records_unlinked']:,} of {counts['records_listed']:,} ECGs are outside every stay and not used; "
        f"{share:.1%} of stays have one.",
        code="E201",
    )


def _one_per_path(records: pl.DataFrame, path: Path, on_duplicate: str) -> tuple[pl.DataFrame, int]:
    """Records with a path of their own, and how many were left out because theirs had come before: one file cannot be
    the ECG of two studies.

    Raises:
        DataError: a path repeats, and ``on_duplicate`` is "refuse".
    """
    is_first = pl.col("path").is_first_distinct()
    again = records.filter(~is_first)
    if again.height and on_duplicate == "refuse":
        rows = ", ".join(f"{row:,}" for row in again["list_row"].head(3))
        raise DataError(
            rule="path must be there once",
            got=f"{again.height:,} repetitions (rows {rows}{', ...' if again.height > 3 else ''}) from {path.name}",
            fix="Mend the record list, or set prepare.on_duplicate: first.",
            code="E104",
        )
    return records.filter(is_first), again.height


def _skipped(
    listed: pl.DataFrame, first: pl.DataFrame, whole: pl.DataFrame, records: pl.DataFrame, timed: pl.DataFrame
) -> BadLines:
    """The rows of the list that each step of ``link_ecgs`` left out."""
    without_key = pl.col("study_id").is_null()
    parts = {
        "incomplete": [listed.filter(without_key), first.join(whole, on="list_row", how="anti")],
        "repeated": [
            listed.filter(~without_key).join(first, on="list_row", how="anti"),
            whole.join(records, on="list_row", how="anti"),
        ],
        BAD_TIME: [records.join(timed, on="list_row", how="anti")],
    }
    rows = [(row, reason) for reason, frames in parts.items() for frame in frames for row in frame["list_row"]]
    return sorted(rows)


def _incomplete(listed: pl.DataFrame, stored: pl.DataFrame, path: Path) -> Problem:
    """What is told of too many records without ids or path: which of these is missing most often, and the first row and
    form of it."""
    missing = {name: listed[name].null_count() for name in ("subject_id", "study_id", "path")}
    worst = max(missing, key=lambda name: missing[name])
    rule = "a record's place under data.ecg.root" if worst == "path" else "a whole number"
    row = int(listed.filter(pl.col(worst).is_null())["list_row"][0])
    return Problem(
        f"{worst} must be {rule}",
        f"{missing[worst]:,} of {listed.height:,} records in which it is not (first: row {row:,}, form "
        f"{_form_in(stored, row, worst)!r}) from {path.name}",
        "Mend the record list, or raise prepare.max_bad_fraction.",
        "E105",
    )


def _form_in(stored: pl.DataFrame, row: int, column: str) -> str:
    """The form of what a row of the list has stored."""
    return form_of(stored[column].cast(pl.String, strict=False)[row - 1])


def _bad_times(ecg: EcgData, records: pl.DataFrame, stored: pl.DataFrame) -> Problem:
    """What is told of too many unreadable times: the row and the form of the first one, never its text."""
    without = records.filter(pl.col("ecg_time").is_null())
    row = int(without["list_row"][0])
    return Problem(
        f"ecg_time must match {ecg.datetime_format}",
        f"{without.height:,} of {records.height:,} records that do not (first: row {row:,}, form "
        f"{_form_in(stored, row, 'ecg_time')!r}) from {ecg.record_list.name}",
        "Set data.ecg.datetime_format, mend the record list, or raise prepare.max_bad_fraction.",
        "E103",
    )


def _choose(records: pl.DataFrame, windows: pl.DataFrame, spec: CohortSpec) -> pl.DataFrame:
    """The latest or first record in the window of each stay, by an as-of join: its memory does not depend on how many
    records and stays a patient has."""
    if spec.ecg_rule == "latest":
        nearest = windows.sort("end").join_asof(
            records.sort("ecg_time", "study_id"),
            left_on="end",
            right_on="ecg_time",
            by="subject_id",
            strategy="backward",
            check_sortedness=False,
        )
    else:
        nearest = windows.sort("begin").join_asof(
            records.sort("ecg_time", "study_id", descending=[False, True]),
            left_on="begin",
            right_on="ecg_time",
            by="subject_id",
            strategy="forward",
            check_sortedness=False,
        )
    return nearest.filter(pl.col("ecg_time").is_between("begin", "end")).sort("row")


def _num_linked(records: pl.DataFrame, windows: pl.DataFrame) -> int:
    """How many records lie in any window. All are equally long, so the one that began last decides."""
    latest = records.sort("ecg_time").join_asof(
        windows.sort("begin"),
        left_on="ecg_time",
        right_on="begin",
        by="subject_id",
        strategy="backward",
        check_sortedness=False,
    )
    return latest.filter(pl.col("ecg_time") <= pl.col("end")).height


def _digits(frame: pl.DataFrame) -> int:
    """How many digits the longest ``subject_id`` has."""
    longest = frame["subject_id"].cast(pl.String).str.len_chars().max()
    return int(str(longest or 0))
