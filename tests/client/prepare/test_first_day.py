"""The first day of the small hospital: order in time, urine, treatments, earlier admissions, and rows that add up."""

import gzip
import json
import math
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from client.cohort.store import Cohort
from client.layouts.mimic_iv.layout import MIMIC_IV
from client.prepare import first_day
from client.prepare.first_day import first_days
from client.prepare.measurements import CODES, EVENT_COLUMNS, MILLIONTHS, read_measurements
from client.prepare.prepare import prepare
from client.prepare.stays import select_stays
from client.prepare.treatments import INTERVAL_COLUMNS, treatment_features
from client.site import PlanSections, SiteConfig
from lemof_model.concepts import TREATMENTS
from lemof_model.features import FEATURES, GRID_CHANNELS, MEASURED, STATICS
from lemof_model.icd import COMORBIDITY_PREFIXES
from lemof_model.study import CohortSpec

NAMES = [feature.name for feature in FEATURES]
EVERYTHING = frozenset({concept.name for concept in MEASURED} | {treatment.name for treatment in TREATMENTS})


@pytest.fixture
def cohort(site: SiteConfig) -> Cohort:
    return prepare(site, MIMIC_IV, PlanSections(), Console(quiet=True))


def _values(cohort: Cohort, row: int) -> dict[str, float]:
    return dict(zip(NAMES, cohort.features[row].tolist(), strict=True))


def test_urine_from_admission_with_what_was_rinsed_in_taken_off(cohort: Cohort) -> None:
    first, second, third = (_values(cohort, row) for row in range(3))
    assert (first["urine_sum"], first["urine_count"]) == (0 + 400 + 3000 - 2500, 4)
    assert (second["urine_sum"], second["urine_count"]) == (55.5, 1)
    assert math.isnan(third["urine_sum"]) and third["urine_count"] == 0


def test_treatments_are_cut_to_the_first_day_and_overlaps_count_once(cohort: Cohort) -> None:
    first, second, third = (_values(cohort, row) for row in range(3))
    assert [first[f"vasopressor_{kind}"] for kind in ("given", "hours", "drugs")] == [1, 3 + 1, 3]
    assert first["invasive_ventilation_hours"] == 12  # from 6 h before to 6 h after admission
    assert (first["noninvasive_ventilation_hours"], first["renal_replacement_given"]) == (0, 0)
    assert (second["noninvasive_ventilation_hours"], second["renal_replacement_given"]) == (1.5, 1)
    assert second["vasopressor_given"] == third["vasopressor_hours"] == third["invasive_ventilation_hours"] == 0


def test_hours_of_treatment_equal_minutes_counted_one_by_one() -> None:
    rng = np.random.default_rng(0)
    begin = rng.integers(-360, 1400, 400)
    frame = {
        "row": rng.integers(0, 30, 400),
        "treatment": rng.integers(0, len(TREATMENTS), 400),
        "drug": rng.integers(0, 5, 400),
        "begin": begin * 60,
        "end": np.minimum(begin + rng.integers(0, 300, 400), 1440) * 60,
    }
    found = treatment_features(pl.DataFrame(frame, schema=INTERVAL_COLUMNS), EVERYTHING, 31)
    vasopressor = next(code for code, treatment in enumerate(TREATMENTS) if treatment.name == "vasopressor")
    column = [f"{t.name}_{summary}" for t in TREATMENTS for summary in t.summaries].index("vasopressor_hours")
    for row in range(31):
        mine = [i for i in range(400) if frame["row"][i] == row and frame["treatment"][i] == vasopressor]
        minutes = {minute for i in mine for minute in range(frame["begin"][i] // 60, frame["end"][i] // 60)}
        assert found[row, column - 1 : column + 2].tolist() == pytest.approx(
            [float(bool(mine)), len(minutes) / 60, len({frame["drug"][i] for i in mine})]
        )


def test_only_ended_earlier_admissions_tell_comorbidities(cohort: Cohort) -> None:
    first, second, third = (_values(cohort, row) for row in range(3))
    flags = [name for name in NAMES if name.startswith("earlier_")]
    assert [name for name in flags if second[name]] == ["earlier_congestive_heart_failure", "earlier_diabetes"]
    assert not any(first[name] or third[name] for name in flags)  # their own codes are not known yet
    assert second["hours_since_discharge"] == 51 * 24 - 0.5
    assert math.isnan(first["hours_since_discharge"])


@pytest.mark.parametrize(
    ("code", "version", "groups"),
    [
        ("25000", 9, {"diabetes"}),
        ("E10l", 10, set()),
        ("E145", 10, {"diabetes"}),
        ("I252", 10, {"myocardial_infarct"}),
        ("I251", 10, set()),
        ("42591", 9, {"congestive_heart_failure"}),
        ("1749", 9, {"malignancy"}),
        ("1731", 9, set()),
        ("1961", 9, {"metastatic_tumor"}),
        ("C260", 10, {"malignancy"}),
        ("C780", 10, {"metastatic_tumor"}),
        ("C44", 10, set()),
        ("042", 9, {"aids"}),
        ("07032", 9, {"liver_disease"}),
        ("K766", 10, {"liver_disease"}),
        ("40492", 9, {"renal_disease"}),
        ("40491", 9, {"congestive_heart_failure"}),
        ("V4511", 9, {"renal_disease"}),
        ("I131", 10, {"renal_disease"}),
        ("J440", 10, {"chronic_pulmonary_disease"}),
        ("G459", 10, {"cerebrovascular_disease"}),
        ("I252", 9, set()),
    ],
)
def test_codes_of_the_comorbidities(code: str, version: int, groups: set[str]) -> None:
    found = {
        name for name, prefixes in COMORBIDITY_PREFIXES.items() if any(code.startswith(p) for p in prefixes[version])
    }
    assert found == {f"earlier_{group}" for group in groups}


def _random_events(rng: np.random.Generator, num_stays: int, num: int) -> pl.DataFrame:
    """Events whose times and values are often equal."""
    return pl.DataFrame(
        {
            "row": rng.integers(0, num_stays, num),
            "concept": rng.integers(0, len(MEASURED), num),
            "seconds": rng.choice([-21_600, -1, 0, 3599, 3600, 86_399, 86_400], num),
            "millionths": rng.integers(-3, 4, num) * 500_000,
        },
        schema=EVENT_COLUMNS,
    )


def _expected(values: list[tuple[int, float]]) -> Mapping[str, float]:
    """Every aggregate of (seconds, value) pairs, by plain Python."""
    if not values:
        return dict.fromkeys(("min", "max", "mean", "first", "last", "sum"), math.nan) | {"count": 0}
    numbers = [value for _, value in values]
    begin, end = min(values)[0], max(values)[0]
    return {
        "min": min(numbers),
        "max": max(numbers),
        "mean": sum(numbers) / len(numbers),
        "sum": max(sum(numbers), 0),
        "count": len(numbers),
        "first": min(value for time, value in values if time == begin),
        "last": max(value for time, value in values if time == end),
    }


@pytest.mark.parametrize("block", [3, 8000])
def test_aggregates_equal_plain_python_whatever_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(first_day, "BLOCK_STAYS", block)
    events = _random_events(np.random.default_rng(1), 10, 3000)
    files = [tmp_path / f"{part}.parquet" for part in range(2)]
    for file, part in zip(files, (events[:1700], events[1700:]), strict=True):
        part.write_parquet(file)
    blocks = list(first_days(files, EVERYTHING, 11, 24))
    found = np.vstack([block.features for block in blocks])
    grid = np.vstack([block.grid for block in blocks])
    assert len(found) == len(grid) == 11
    again = Counter(row[1] for row, num in Counter(events.rows()).items() for _ in range(num - 1))
    repeated = np.sum([block.repeated for block in blocks], axis=0)
    below_zero = np.sum([block.below_zero for block in blocks], axis=0)
    assert list(repeated) == [again[code] for code in range(len(MEASURED))] and sum(again.values()) > 100
    urine = events.filter(pl.col("concept") == CODES["urine"]).group_by("row").agg(pl.col("millionths").sum())
    assert below_zero[CODES["urine"]] == below_zero.sum() == (urine["millionths"] < 0).sum() > 0
    columns = NAMES[len(STATICS) :]
    rows = events.with_columns(value=pl.col("millionths") / MILLIONTHS).rows(named=True)
    for stay in range(11):
        for concept in MEASURED:
            mine = [r for r in rows if r["row"] == stay and r["concept"] == CODES[concept.name]]
            expected = _expected([(r["seconds"], r["value"]) for r in mine])
            for aggregate in concept.aggregates:
                got = found[stay, columns.index(f"{concept.name}_{aggregate}")]
                np.testing.assert_allclose(got, expected[aggregate], rtol=1e-6, err_msg=f"{concept.name} {aggregate}")
            if concept.name in GRID_CHANNELS:
                hourly = [[r["value"] for r in mine if r["seconds"] // 3600 == hour] for hour in range(24)]
                means = [sum(values) / len(values) if values else math.nan for values in hourly]
                np.testing.assert_allclose(grid[stay, :, GRID_CHANNELS.index(concept.name)], means, rtol=1e-6)


def test_every_row_meets_one_fate(cohort: Cohort) -> None:
    quality = json.loads((cohort.path / "quality.json").read_text())
    charts, labs, drips = (quality["tables"][name] for name in ("chartevents", "labevents", "inputevents"))
    assert charts == {
        "file": "chartevents.csv.gz", "rows": 38, "itemid_unreadable": 0, "other_items": 1, "wanted": 37,
        "counted_again": 0, "time_unreadable": 1, "id_unreadable": 0, "not_in_icustays": 0, "not_in_cohort": 1,
        "outside_first_day": 2, "value_unreadable": 0, "value_missing": 2, "code_for_no_value": 0, "unit_unknown": 0,
        "out_of_range": 11, "used": 20,
    }  # fmt: skip
    for counts in (charts, labs, drips):
        fates = [num for name, num in counts.items() if name not in HEAD]
        assert counts["rows"] == counts["itemid_unreadable"] + counts["other_items"] + counts["wanted"]
        assert counts["wanted"] + counts["counted_again"] == sum(fates)
    assert labs["counted_again"] == 11  # both stays of patient 1
    assert (labs["stored_late"], drips["ends_before_it_begins"], drips["other_items"]) == (1, 1, 1)
    used = {name: counts["used"] for name, counts in quality["concepts"].items() if counts["table"] == "chartevents"}
    assert sum(used.values()) == charts["used"]
    rate = quality["concepts"]["heart_rate"]
    assert (rate["min"], rate["max"], rate["num_stays"], rate["low"], rate["high"]) == (60, 100, 1, 0, 300)
    assert quality["labels"] == {"num": 3, "num_long": 1}
    assert set(quality["features"]) == set(NAMES)


HEAD = ("file", "rows", "itemid_unreadable", "other_items", "wanted", "counted_again")


def test_the_chart_pass_is_the_same_from_many_rows(site: SiteConfig, tmp_path: Path) -> None:
    """300,000 rows in any order, so that several blocks are met: sums do not depend on them."""
    rng = np.random.default_rng(0)
    start, num = datetime(2150, 1, 2, 0, 30), 300_000
    minutes = rng.integers(-600, 2000, num)
    rows = pl.DataFrame(
        {
            "stay_id": rng.choice([10, 13, 14, 32], num),
            "itemid": rng.choice([220045, 223761, 223835, 1, 2, 3, 4], num),
            "charttime": [str(start + timedelta(minutes=int(minute))) for minute in minutes],
            "valuenum": rng.choice([0.5, 36.6, 75.1, 98.7, 400.0], num),
        }
    )
    path = site.data.ehr.root / "icu/chartevents.csv.gz"
    path.write_bytes(gzip.compress(rows.write_csv().encode(), 1))
    stays, _ = select_stays(MIMIC_IV.stays(site), CohortSpec())
    (charts, *_) = MIMIC_IV.events(site.data.ehr)
    outcome = read_measurements(charts, stays, tmp_path / "events.parquet", 0.01, window_hours=24)
    assert outcome.counts["rows"] == num
    assert outcome.counts["wanted"] == (rows["itemid"] > 4).sum()
    (block,) = first_days([tmp_path / "events.parquet"], frozenset({"heart_rate"}), 3, 24)
    in_day = rows.filter(
        (pl.col("stay_id") == 10)
        & (pl.col("itemid") == 220045)
        & pl.Series((minutes >= -360) & (minutes <= 1440))
        & (pl.col("valuenum") <= 300)
    )["valuenum"]
    columns = [NAMES.index(f"heart_rate_{kind}") - len(STATICS) for kind in ("min", "max", "mean", "count")]
    expected = [in_day.min(), in_day.max(), in_day.mean(), len(in_day)]
    np.testing.assert_allclose(block.features[0, columns], np.array(expected, np.float64), rtol=1e-6)
