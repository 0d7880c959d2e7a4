"""ECGs to stays from the record list alone, against a loop over every pair."""

import gzip
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest

from client.layouts.mimic_iv.layout import MIMIC_IV
from client.prepare.ecg_links import link_ecgs, link_warning
from client.site import EcgData
from lemof_model.errors import DataError
from lemof_model.study import CohortSpec

START = datetime(2150, 1, 1)
HEADER = "subject_id,study_id,file_name,ecg_time,path"


def ecg_data(root: Path, lines: list[str]) -> EcgData:
    (root / "record_list.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    return EcgData.model_validate({"root": root}, context={"folder": root})


def line(patient: object, study: object, time: object, path: str | None = None) -> str:
    return f"{patient},{study},{study},{time},{f'files/{study}' if path is None else path}"


def stays_of(rows: list[tuple[int, datetime]]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema={"subject_id": pl.Int64, "intime": pl.Datetime("us")}, orient="row")
    return frame.with_row_index("row")


@pytest.mark.parametrize("rule", ["latest", "first"])
@pytest.mark.parametrize("before", [24.0, 0.5])
def test_equals_a_loop_over_all_pairs(tmp_path: Path, rule: Literal["latest", "first"], before: float) -> None:
    rng = np.random.default_rng(0)
    spec = CohortSpec(ecg_rule=rule, ecg_before_hours=before)
    hours = rng.integers(0, 300, 400)  # so coarse that times coincide with each other and with the edges
    records = [
        (int(patient), 1000 + study, START + timedelta(hours=int(hour)))
        for study, (patient, hour) in enumerate(zip(rng.integers(0, 30, 400), hours, strict=True))
    ]
    stays = [(int(rng.integers(5, 40)), START + timedelta(hours=int(rng.integers(0, 300)))) for _ in range(60)]
    ecg = ecg_data(tmp_path, [line(*record) for record in records])
    linked, counts, _ = link_ecgs(MIMIC_IV.ecg_records(ecg), ecg, stays_of(stays), spec)
    expected, seen = [], set()
    for row, (patient, intime) in enumerate(stays):
        earliest, latest = intime - timedelta(hours=before), intime + timedelta(hours=24)
        mine = [(time, study) for subject, study, time in records if subject == patient and earliest <= time <= latest]
        seen |= {study for _, study in mine}
        if mine:
            edge = max(mine)[0] if rule == "latest" else min(mine)[0]
            study = max(study for time, study in mine if time == edge)
            expected.append((row, f"files/{study}", study - 1000 + 1))
    assert linked.rows() == expected
    assert 10 < len(expected) < 60
    assert counts["records_linked"] == len(seen)
    assert counts["records_unlinked"] == 400 - len(seen)
    assert (counts["stays"], counts["stays_linked"]) == (60, len(expected))
    assert counts["records_chosen"] == linked["path"].n_unique()


def test_every_record_is_counted_once(tmp_path: Path) -> None:
    lines = [
        line(1, 10, START),
        line(1, 10, START),  # repeated
        line("", 11, START),  # three incomplete ones
        line(1, "", START),
        line(1, 12, START, ""),
        line(1, 13, "yesterday"),  # no time
        line(1, 14, START + timedelta(days=9)),  # no stay
        line(2, 15, START),
        line(1, 16, START, "files/10"),  # a path of another study
    ]
    stays = stays_of([(1, START)])
    linked, counts, skipped = link_ecgs(
        MIMIC_IV.ecg_records(ecg_data(tmp_path, lines)),
        ecg_data(tmp_path, lines),
        stays,
        CohortSpec(),
        on_duplicate="first",
    )
    assert linked.rows() == [(0, "files/10", 1)]
    assert skipped == [
        (2, "repeated"), (3, "incomplete"), (4, "incomplete"), (5, "incomplete"), (6, "time_unreadable"),
        (9, "repeated"),
    ]  # fmt: skip
    parts = "repeated incomplete without_readable_time unlinked linked".split()
    assert [counts[f"records_{part}"] for part in parts] == [2, 3, 1, 2, 1]
    assert counts["records_listed"] == len(lines)


def test_a_study_listed_twice_is_refused_unless_the_site_says_otherwise(tmp_path: Path) -> None:
    ecg = ecg_data(tmp_path, [line(1, 10, START), line(1, 10, START)])
    with pytest.raises(DataError, match=r"study_id .*record_list\.csv.*prepare\.on_duplicate: first"):
        link_ecgs(MIMIC_IV.ecg_records(ecg), ecg, stays_of([(1, START)]), CohortSpec())


def test_times_in_the_sites_own_format(tmp_path: Path) -> None:
    ecg = ecg_data(tmp_path, [line(10000032, 10, START.strftime("%d.%m.%Y %H:%M"))])
    ecg = ecg.model_copy(update={"datetime_format": "%d.%m.%Y %H:%M"})
    linked, counts, _ = link_ecgs(MIMIC_IV.ecg_records(ecg), ecg, stays_of([(10000032, START)]), CohortSpec())
    assert (linked.height, counts["records_without_readable_time"]) == (1, 0)


def test_no_record_list(tmp_path: Path) -> None:
    ecg = EcgData.model_validate({"root": tmp_path}, context={"folder": tmp_path})
    with pytest.raises(DataError, match=r"record list must be a file.*leave data\.ecg out"):
        link_ecgs(MIMIC_IV.ecg_records(ecg), ecg, stays_of([(1, START)]), CohortSpec())


@pytest.mark.parametrize("name", ["record_list.csv.gz", "record_list.parquet"])
def test_the_record_list_in_another_form(tmp_path: Path, name: str) -> None:
    text = "\n".join([HEADER, line(10000032, 10, START), line(10000033, 11, START)])
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    else:
        pl.read_csv(text.encode(), try_parse_dates=True).write_parquet(tmp_path / name)
    ecg = EcgData.model_validate({"root": tmp_path}, context={"folder": tmp_path})
    assert ecg.record_list == tmp_path / name
    linked, counts, _ = link_ecgs(MIMIC_IV.ecg_records(ecg), ecg, stays_of([(10000032, START)]), CohortSpec())
    assert (linked["path"].to_list(), counts["records_listed"]) == (["files/10"], 2)
    ecg_data(tmp_path, [])
    assert EcgData.model_validate({"root": tmp_path}, context={"folder": tmp_path}).record_list.suffix == ".csv"


@pytest.mark.parametrize(
    ("lines", "warning"),
    [
        ([line(7, 10, START)], "no patient in both (1 digit against 8). Same patient numbering? [E201]"),
        ([line(10000032, 10, "09.01.2150")], "ecg_time must match data.ecg.datetime_format, got none that does."),
        ([], "must have records, got none. Export it again, or leave data.ecg out at a hospital without ECGs. [E106]"),
        ([line(10000032, 10, START + timedelta(days=9))], "got none in time though 1 patients are in both."),
        ([line(10000032, 10, START), line(2, 11, START)], "1 of 2 ECGs are outside every stay and not used; 50.0% of"),
        ([line(10000032, 10, START)], None),
    ],
)
def test_what_a_person_is_told(tmp_path: Path, lines: list[str], warning: str | None) -> None:
    stays = stays_of([(10000032, START), (10000033, START)])
    _, counts, _ = link_ecgs(
        MIMIC_IV.ecg_records(ecg_data(tmp_path, lines)), ecg_data(tmp_path, lines), stays, CohortSpec()
    )
    found = link_warning(counts)
    assert (warning is None and found is None) or (warning and warning in str(found))
    assert "10000032" not in str(found)
