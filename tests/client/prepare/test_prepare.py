"""The small hospital, prepared: every rule has a stay, a value or a record that would break it."""

import csv
import gzip
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from client import cli
from client.cohort.store import Cohort
from client.layouts.mimic_iv.layout import MIMIC_IV
from client.prepare import sources
from client.prepare.prepare import prepare
from client.site import PlanSections, SiteConfig, load_site
from lemof_model.errors import DataError, DiskError, TooLittleDataError
from lemof_model.features import DISEASES, FEATURES, GRID_CHANNELS
from lemof_model.splits import patient_hash_of
from lemof_model.study import CohortSpec
from readers.ecg.record import read_ecg

STAY_10, STAY_13, STAY_32 = 0, 1, 2  # rows


@pytest.fixture
def cohort(site: SiteConfig) -> Cohort:
    return _prepare(site)


def _prepare(site: SiteConfig, spec: CohortSpec | None = None, *, force: bool = False) -> Cohort:
    return prepare(site, MIMIC_IV, PlanSections(cohort=spec or CohortSpec()), Console(quiet=True), force=force)


def _features(cohort: Cohort, row: int) -> dict[str, float]:
    return dict(zip((f.name for f in FEATURES), cohort.features[row].tolist(), strict=True))


def _quality(cohort: Cohort) -> dict[str, Any]:
    return dict(json.loads((cohort.path / "quality.json").read_text()))


def test_every_icu_stay_is_accounted_for(cohort: Cohort) -> None:
    assert cohort.stays["stay_id"].tolist() == [10, 13, 32]
    assert [row["num_stays"] for row in cohort.manifest["attrition"]] == [10, 1, 3, 0, 2, 0, 0, 1, 3]
    reasons = [row["reason"] for row in cohort.manifest["attrition"]]
    assert reasons == [
        "all ICU stays",
        "joined to the row before: same admission, at most 6 hours apart",  # 21, whose end nobody knows
        "intime or outtime missing, or outtime before intime",
        "longer than 1,000 days",
        "patient or admission not found, or age unknown",
        "younger than 18 years",
        "dead at the prediction, 24 hours after ICU admission",
        "shorter than 24 hours",
        "in the cohort",
    ]


def test_stays_hold_lengths_deaths_and_diseases(cohort: Cohort) -> None:
    stays = cohort.stays
    assert stays["icu_los_days"].tolist() == [4.5, 1.0, 3.0]
    np.testing.assert_array_equal(stays["hospital_los_days"], [8.0, np.nan, 3.5])
    assert stays["died_in_icu"].tolist() == [False, False, True]
    assert stays["died_in_hospital"].tolist() == [False, False, True]
    assert stays["patient_hash"].tolist() == [patient_hash_of(1), patient_hash_of(1), patient_hash_of(3)]
    diseases = [[name for name in DISEASES if stays[name].iloc[row]] for row in range(3)]
    assert diseases == [["diabetes", "heart_failure"], [], ["heart_failure"]]


def test_statics(cohort: Cohort) -> None:
    first, second, third = (_features(cohort, row) for row in range(3))
    codes = {f.name: f.categories for f in FEATURES}

    def category(values: dict[str, float], name: str) -> str:
        return codes[name][int(values[name])]

    assert [values["age"] for values in (first, second, third)] == [51, 51, 80]
    assert [category(values, "sex") for values in (first, second, third)] == ["male", "male", "female"]
    kinds = [category(values, "careunit_kind") for values in (first, second, third)]
    assert kinds == ["trauma", "medical", "cardiac"]
    types = [category(values, "admission_type") for values in (first, second, third)]
    assert types == ["emergency", "elective", "other"]
    locations = [category(values, "admission_location") for values in (first, second, third)]
    assert locations == ["emergency_room", "other", "referral"]
    insurances = [category(values, "insurance") for values in (first, second, third)]
    assert insurances == ["medicaid", "other", "medicare"]
    marital = [category(values, "marital_status") for values in (first, second, third)]
    assert marital == ["married", "other", "widowed"]
    assert [category(values, "race") for values in (first, second, third)] == ["white", "hispanic", "other"]
    assert (first["icu_admission_hour"], first["hours_to_icu"]) == (0, 24)
    assert (second["num_earlier_admissions"], second["num_earlier_icu_stays"]) == (1, 1)
    assert (first["num_earlier_admissions"], first["num_earlier_icu_stays"]) == (0, 0)


def test_first_day_aggregates(cohort: Cohort) -> None:
    values = _features(cohort, STAY_10)
    assert (values["heart_rate_min"], values["heart_rate_max"]) == (60, 100)
    assert values["heart_rate_mean"] == pytest.approx((80 + 60 + 71 + 90 + 100) / 5)
    assert values["spo2_max"] == 100
    assert (values["temperature_min"], values["temperature_max"]) == pytest.approx((37, 39))
    assert values["height_mean"] == pytest.approx(177.8)
    assert (values["sodium_min"], values["sodium_max"]) == (138, 141)
    assert values["base_excess_min"] == -5
    assert math.isnan(values["ph_min"])
    assert _features(cohort, STAY_13)["sbp_mean"] == 125
    assert _features(cohort, STAY_32)["sodium_max"] == 130
    assert [values[f"heart_rate_{kind}"] for kind in ("first", "last", "count")] == [80, 100, 5]
    assert (values["sodium_last"], values["sodium_count"]) == (138, 3)
    assert values["ph_count"] == 0


def test_scores_and_the_two_units_of_fio2(cohort: Cohort) -> None:
    values = _features(cohort, STAY_10)
    assert [values[f"gcs_{part}_min"] for part in ("eye", "verbal", "motor")] == [1, 5, 6]
    assert (values["rass_min"], values["rass_max"]) == (-5, 4)
    assert (values["fio2_max"], values["fio2_mean"]) == (100, 57)
    np.testing.assert_array_equal(cohort.grid[STAY_10, 8:10, GRID_CHANNELS.index("fio2")], [35.5, 100])
    counts = _quality(cohort)["concepts"]
    assert (counts["fio2"]["used"], counts["fio2"]["out_of_range"]) == (3, 5)
    assert values["gcs_total_min"] == 12 and math.isnan(_features(cohort, STAY_13)["gcs_total_min"])
    assert [counts[name]["out_of_range"] for name in ("gcs_eye", "gcs_verbal", "gcs_motor", "rass")] == [1, 1, 0, 2]


def test_laboratory_values_that_came_later(cohort: Cohort) -> None:
    values = _features(cohort, STAY_10)
    assert (values["glucose_lab_min"], values["glucose_lab_max"]) == (90, 110)
    assert [values[f"{name}_max"] for name in ("ck_mb", "nt_probnp", "crp")] == [3, 800, 40.5]


def test_grid_begins_at_admission_and_ends_before_the_prediction(cohort: Cohort) -> None:
    heart_rate = cohort.grid[STAY_10, :, GRID_CHANNELS.index("heart_rate")]
    np.testing.assert_allclose(heart_rate[:2], [65.5, 90])
    assert np.isnan(heart_rate[2:]).all()
    sodium = cohort.grid[STAY_10, :, GRID_CHANNELS.index("sodium")]
    assert np.flatnonzero(~np.isnan(sodium)).tolist() == [12, 23]
    assert cohort.grid.shape == (3, 24, len(GRID_CHANNELS))


def test_ecg_in_the_window_latest_then_larger_study(
    cohort: Cohort, site: SiteConfig, read_rejects: Callable[[Path], list[dict[str, str]]]
) -> None:
    # Stay 10: 102 and 103 are the latest; 103 wins, its checksum is wrong, 102 is next. Stay 13: 105. Stay 32: none.
    assert cohort.ecg_index.tolist() == [1, 0, -1]
    assert cohort.ecg.shape == (2, 12, 1000)
    assert cohort.manifest["num_stays_with_ecg"] == 2
    assert cohort.manifest["num_stays_with_readable_ecg"] == 2
    told = {
        "records_listed": 7,
        "records_without_readable_time": 1,
        "records_linked": 4,
        "records_chosen": 3,
        "stays_linked": 2,
        "records_rejected": {"E202 checksum wrong": 1},
    }
    assert told.items() <= cohort.manifest["ecg"].items()
    (ecg,) = [row for row in read_rejects(site.prepare.output) if row["file"].startswith("files")]
    reason = "E202 checksum wrong: I II III aVR aVL aVF V1 V2 V3 V4 V5 V6"
    assert ecg == {"file": "files/p1000/p1/s103/103", "row": "4", "reason": reason}


def test_first_ecg_rule_takes_the_earliest_of_the_window(site: SiteConfig) -> None:
    cohort = _prepare(site, CohortSpec(ecg_rule="first"))
    assert cohort.ecg_index.tolist() == [0, 1, -1]
    only_after = _prepare(site, CohortSpec(ecg_rule="first", ecg_before_hours=0))
    assert only_after.ecg_index.tolist() == [0, -1, -1]  # 103 of the tie 102, 103 is damaged; 105 came before


@pytest.mark.parametrize(("bad", "taken"), [((), "102"), (("102",), "101"), (("101", "102"), None)])
def test_the_next_record_is_tried_until_one_is_whole_or_none_is_left(
    site: SiteConfig, bad: tuple[str, ...], taken: str | None, read_rejects: Callable[[Path], list[dict[str, str]]]
) -> None:
    ecg = site.data.ecg
    assert ecg is not None
    paths = {file.stem: file.with_suffix("") for file in ecg.root.glob("files/**/*.hea")}
    for name in bad:
        paths[name].with_suffix(".dat").write_bytes(b"short")
    cohort = _prepare(site)
    assert cohort.ecg_index.tolist() == [1 if taken else -1, 0, -1]
    stored = [read_ecg(ecg, str(paths[name].relative_to(ecg.root))) for name in ("105", taken) if name]
    np.testing.assert_array_equal(cohort.ecg, stored)
    rejected = [Path(row["file"]).name for row in read_rejects(cohort.path) if row["file"].startswith("files")]
    assert sorted(rejected) == sorted([*bad, "103"])
    counts = cohort.manifest["ecg"]
    assert (counts["stays_linked"], cohort.manifest["num_stays_with_ecg"]) == (2, 2)
    assert counts["records_chosen"] - sum(counts["records_rejected"].values()) == len(cohort.ecg)
    assert counts["records_linked"] == 4 and _quality(cohort)["ecg"] == counts


def test_a_shorter_window_knows_less(site: SiteConfig) -> None:
    values = _features(_prepare(site, CohortSpec(window_hours=12, min_stay_hours=12)), STAY_10)
    assert (values["heart_rate_max"], values["sodium_min"]) == (90, 140)


def test_twice_the_same_bytes(site: SiteConfig) -> None:
    first, second = (
        {file.name: file.read_bytes() for file in _prepare(site, force=True).path.iterdir()} for _ in range(2)
    )
    assert sorted(first) == [
        "ecg.npy",
        "ecg_index.npy",
        "features.json",
        "features.npy",
        "grid.npy",
        "manifest.json",
        "quality.json",
        "rejects.csv.gz",
        "stays.parquet",
    ]
    assert first == second
    assert first["rejects.csv.gz"][4:8] == bytes(4)  # gzip's time stamp
    assert not list(site.prepare.output.parent.glob("cohort.*"))


def test_a_second_run_with_nothing_changed_touches_nothing(site: SiteConfig) -> None:
    manifest = _prepare(site).path / "manifest.json"
    made = manifest.stat().st_mtime_ns
    leftover = site.prepare.output / ".state"
    leftover.mkdir()  # stopped after the last rename
    assert _prepare(site).manifest["num_stays"] == 3
    assert manifest.stat().st_mtime_ns == made and not leftover.exists()
    _prepare(site, force=True)
    assert manifest.stat().st_mtime_ns > made


@pytest.mark.parametrize("what", ["plan", "setting", "table", "program"])
def test_whatever_decides_the_cohort_makes_it_anew(
    site: SiteConfig, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, spec = _prepare(site).manifest, CohortSpec()
    if what == "plan":
        spec = CohortSpec(min_age_years=19)
    elif what == "setting":
        site = site.model_copy(update={"prepare": site.prepare.model_copy(update={"max_bad_fraction": 0.5})})
    elif what == "table":
        os.utime(site.data.ehr.root / "icu/inputevents.csv.gz", ns=(0, 0))
    else:
        monkeypatch.setattr(sources, "source_digest", lambda _: "another")
    after = _prepare(site, spec).manifest
    assert after["config_digest"] != before["config_digest"]
    source = after["sources"]["inputevents"]
    assert (source["path"], source["mtime_ns"] == 0) == ("icu/inputevents.csv.gz", what == "table")


def test_a_hospital_without_ecgs(site_path: Path) -> None:
    site_path.write_text("version: 1\nsite: {name: small}\ndata: {ehr: {root: .}}\n")
    cohort = _prepare(load_site(site_path))
    assert cohort.ecg_index.tolist() == [-1, -1, -1]
    assert cohort.ecg.shape == (0, 12, 1000)
    assert cohort.manifest["num_stays_with_ecg"] == cohort.manifest["num_stays_with_readable_ecg"] == 0


def test_a_failed_preparation_leaves_the_earlier_cohort(site: SiteConfig) -> None:
    before = _prepare(site).manifest
    record_list = site.prepare.output.parent / "ecg/record_list.csv"
    record_list.write_text(record_list.read_text().replace("study_id", "study"))
    with pytest.raises(DataError, match=r"Columns must include study_id, got .* Did you mean study\?"):
        _prepare(site)
    record_list.unlink()
    with pytest.raises(DataError, match="record list must be a file"):
        _prepare(site)
    assert not list(site.prepare.output.parent.glob("cohort.*"))
    assert (site.prepare.output / "manifest.json").read_text().count(before["digests"]["cohort"]) == 1


def test_a_record_list_is_refused_before_the_tables_of_events_take_their_time(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a table of events was read")

    monkeypatch.setattr("client.prepare.prepare._read_events", never)
    assert site.data.ecg is not None
    site.data.ecg.record_list.unlink()
    with pytest.raises(DataError, match="record list must be a file"):
        _prepare(site)


def test_an_output_folder_with_other_files_is_left_alone(site: SiteConfig) -> None:
    site.prepare.output.mkdir()
    (site.prepare.output / "thesis.txt").write_text("years of work")
    with pytest.raises(DiskError, match=r"prepare\.output must be a cohort or an empty folder"):
        _prepare(site)
    assert (site.prepare.output / "thesis.txt").is_file()


def test_an_output_that_is_a_link_stays_one(site: SiteConfig, tmp_path: Path) -> None:
    """All is made beside what it leads to, which may be another disk."""
    place, output = tmp_path / "big/c", site.prepare.output
    place.mkdir(parents=True)
    output.symlink_to(place)
    (tmp_path / "big/c.old").symlink_to(tmp_path / "gone")  # as an earlier release left it
    for force in (False, True):
        assert _prepare(site, force=force).num_stays == 3
        assert output.is_symlink() and (place / "manifest.json").is_file()
        assert [path.name for path in (tmp_path / "big").iterdir()] == ["c"]
    output.unlink()
    output.symlink_to(tmp_path / "new/c")  # that is not there yet
    assert _prepare(site).num_stays == 3 and (tmp_path / "new/c/manifest.json").is_file()


def test_a_set_aside_link_of_an_earlier_release_stops_no_run(site: SiteConfig, tmp_path: Path) -> None:
    kept = tmp_path / "big"
    kept.mkdir()
    (kept / "file").touch()
    _prepare(site)
    old = site.prepare.output.with_name("cohort.old")
    for force in (True, False):
        old.symlink_to(kept)
        _prepare(site, force=force)
        assert not old.is_symlink() and (kept / "file").is_file()


def test_an_output_that_is_a_mount_is_refused_before_any_work(
    site: SiteConfig, site_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output, is_mount = site.prepare.output, os.path.ismount
    (output / "lost+found").mkdir(parents=True)
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == str(output) or is_mount(path))
    next(site_path.parent.glob("icu/chartevents.*")).unlink()  # nobody has looked at the tables yet
    told = "prepare.output must be a folder inside a mount, got the mount itself at "
    with pytest.raises(DiskError, match=rf"^{told}{output}\. Name {output}/cohort\. \[E603\]$"):
        _prepare(site)
    assert cli.run(["--site", str(site_path), "check", "--no-server", "--json"]) == 4
    (found,) = [line for line in json.loads(capsys.readouterr().out)["findings"] if line["code"] == "E603"]
    assert (found["found"], found["fix"], found["exit_status"]) == (f"{told}{output}.", f"Name {output}/cohort.", 6)


def test_the_disk_that_is_measured_is_the_one_that_is_written_to(
    site_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "cohort").symlink_to(tmp_path / "big/c")
    cli.run(["--site", str(site_path), "check", "--no-server", "--json"])
    assert f"disk {tmp_path}/big" in {line["check"] for line in json.loads(capsys.readouterr().out)["findings"]}


def test_labevents_without_storetime(site: SiteConfig) -> None:
    path = site.data.ehr.root / "hosp/labevents.csv.gz"
    with gzip.open(path, "rt", newline="") as file:
        rows = [row[:4] + row[5:] for row in csv.reader(file)]
    path.write_bytes(gzip.compress("\n".join(",".join(row) for row in rows).encode()))
    assert _features(_prepare(site), STAY_10)["sodium_max"] == 150


def test_an_empty_cohort_tells_what_happened_to_every_stay(site: SiteConfig) -> None:
    with pytest.raises(TooLittleDataError, match=r"10 all ICU stays; .*0 in the cohort"):
        _prepare(site, CohortSpec(min_age_years=99))


def test_prepare_prints_json_on_stdout(site_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--site", str(site_path), "prepare", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["num_stays"] == 3
    assert "[2/4] chartevents" in captured.err and " rows/s" in captured.err
