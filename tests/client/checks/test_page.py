"""The readiness page and its summary: numbers of a pretended cohort, told where they belong."""

import copy
import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from client.checks.concerns import concerns_of
from client.checks.page import page, read_quality, write_page
from client.checks.summary import show_summary
from client.prepare.stays import BAD_TIMES, NOT_FOUND
from client.site import Limits, SiteConfig, load_site
from lemof_model.errors import DataError, DiskError
from protocol.pages import render
from tests.pages import HOSTILE, hostile, read, shape

MANIFEST: dict[str, Any] = {
    "num_stays": 1200,
    "num_patients": 1100,
    "num_long_stays": 480,
    "num_stays_with_ecg": 900,
    "num_stays_with_readable_ecg": 897,
    "splits": {"train": 600, "stack": 300, "tuning": 120, "held_out": 180},
    "attrition": [
        {"reason": "all ICU stays", "num_stays": 1500},
        {"reason": "younger than 18 years", "num_stays": 0},
        {"reason": "shorter than 24 hours", "num_stays": 300},
        {"reason": "in the cohort", "num_stays": 1200},
    ],
    "cohort": {"window_hours": 24, "ecg_before_hours": 24.0, "ecg_rule": "latest"},
    "target": {"unit": "icu", "threshold_days": 3.0, "deaths": "keep"},
    "ecg": {
        "records_listed": 5000, "records_unlinked": 4000, "records_chosen": 880, "patients_listed": 850,
        "stays_linked": 900, "records_rejected": {"E202 checksum wrong": 3},
    },
    "digests": {"cohort": "abc123"},
    "versions": {"polars": "2.1.0"},
}  # fmt: skip
BY_STAY = {"joined_by_stay": ["chartevents"]}
LINKS = {**MANIFEST["ecg"], "records_rejected": {}}
NO_LINKS = {**LINKS, "stays_linked": 0}
HEART_RATE = {
    "unit": "bpm", "table": "chartevents", "item_ids": [220045], "low": 0, "high": 300, "used": 90_000,
    "out_of_range": 10, "unit_unknown": 0, "code_for_no_value": 6, "time_unreadable": 7, "min": 25.0, "max": 161.5,
    "mean": 91.0, "num_stays": 1188, "coverage": 0.99,
}  # fmt: skip
MANY = {**HEART_RATE, "used": 900_000}
QUALITY: dict[str, Any] = {
    "tables": {
        "chartevents": {
            "file": "chartevents.csv.gz",
            "rows": 1_234_567,
            "wanted": 90_017,
            "used": 90_000,
            "out_of_range": 10,
            "time_unreadable": 7,
            "not_in_cohort": 0,
        },
    },
    "concepts": {
        "heart_rate": {**HEART_RATE, "value_unreadable": 4},
        "lactate": {**HEART_RATE, "unit": "mmol/L", "used": 900, "coverage": 0.25},
    },
    "treatments": {
        "vasopressor": {"table": "inputevents", "item_ids": [1, 2], "num_stays_given": 300},
        "renal_replacement": {"table": "procedureevents", "item_ids": [3], "num_stays_given": None},
    },
    "features": {
        "heart_rate_min": {"coverage": 0.99, "mean": 71.25, "min": 20.0, "max": None},
        "sex": {"coverage": 1.0, "female": 0.4, "male": 0.6, "other": 0.0},
    },
    "diagnoses": {"admissions": 1195, "admissions_coded": 1190},
    "duplicates": {"stay_id of icustays": 2, "subject_id of patients": 0, "values of chartevents": 30},
}


def attrition(num_lost: int, repeated: int = 0) -> list[dict[str, Any]]:
    """1,500 ICU stays of which so many have no times or no admission, or are there twice."""
    return [
        {"reason": "all ICU stays", "num_stays": 1500},
        {"reason": "stay_id repeated", "num_stays": repeated},
        {"reason": BAD_TIMES, "num_stays": 40},
        {"reason": NOT_FOUND, "num_stays": num_lost - 40},
        {"reason": "shorter than 24 hours", "num_stays": 900},
        {"reason": "in the cohort", "num_stays": 600 - num_lost - repeated},
    ]


class Cells(HTMLParser):
    """Rows of cell texts, and every tag and address of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.is_in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.is_in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.is_in_cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.is_in_cell:
            self.rows[-1][-1] += data


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    """A hospital with ECGs whose cohort lies in ``cohort``."""
    path = tmp_path / "site.yaml"
    sections = {"ehr": {"root": "."}, "ecg": {"root": "ecg"}}
    path.write_text(yaml.safe_dump({"version": 1, "site": {"name": "hospital_a"}, "data": sections}))
    return load_site(path)


def test_every_number_has_its_place(site: SiteConfig) -> None:
    text = page(site, MANIFEST, QUALITY)
    rows = Cells(text).rows
    assert "hospital_a: 1,200 of 1,500 ICU stays are in the cohort" in text
    assert "1,200 stays, 1,100 patients" in text and "of 1,100" not in text  # no part of them
    assert "Stays in the hospital: this page shows small counts." in text
    assert "ICU stay longer than 3 days (deaths kept): 480 stays, 40.0%" in text
    for row in (
        ["shorter than 24 hours", "300", "20.0%"],
        ["long stays", "480", "40.0%"],
        ["split held_out", "180", "15.0%"],
        ["not used: E202 checksum wrong", "3"],
        ["records listed", "5,000"],
        ["chartevents", "chartevents.csv.gz", "1,234,567", "90,000", "10 out of range, 7 time unreadable"],
        ["heart_rate220045", "bpm", "0 to 300", "25 to 161.5", "91", "90,000", "10 (0.01%)", *"0647", "99.0%"],
        ["vasopressor", "inputevents", "1, 2", "300", "25.0%"],
        ["renal_replacement", "procedureevents", "3", "table not there", ""],
        ["heart_rate_min", "99.0%", "71.25", "20", "", ""],
        ["sex", "100.0%", "", "", "", "female 40.0%, male 60.0%"],
    ):
        assert row in rows
    assert "Repeated: 2 stay_id of icustays; 30 values of chartevents." in text
    assert "Admissions of the cohort with a diagnosis code: 1,190 of 1,195." in text


def test_nothing_is_fetched_and_nothing_runs(site: SiteConfig) -> None:
    parsed = Cells(page(site, MANIFEST, QUALITY))
    assert parsed.tags.isdisjoint({"script", "link", "img", "iframe", "a"})
    assert parsed.addresses == []
    assert "http" not in page(site, MANIFEST, QUALITY)


def test_names_from_outside_are_escaped(site: SiteConfig) -> None:
    quality = copy.deepcopy(QUALITY)
    quality["tables"]["chartevents"]["file"] = "<script>alert(1)</script>.csv"
    assert "script" not in Cells(page(site, MANIFEST, quality)).tags


def test_no_text_changes_the_elements_of_the_page(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = page(site, MANIFEST, QUALITY)
    monkeypatch.setattr("client.checks.page.render", lambda template, **values: render(template, **hostile(values)))
    poisoned = page(site, MANIFEST, QUALITY)
    assert shape(poisoned) == shape(plain)
    assert "".join(read(poisoned).text).count(HOSTILE) > 100


def test_a_cohort_without_a_quality_report_has_a_shorter_page(site: SiteConfig, tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    text = page(site, MANIFEST, read_quality(tmp_path / "cohort"))
    assert ["long stays", "480", "40.0%"] in Cells(text).rows
    assert 'id="features"' not in text
    assert 'id="concepts"' not in text


def test_the_page_lies_beside_the_cohort(site: SiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert write_page(site, MANIFEST, QUALITY) == tmp_path / "readiness.html"
    first = (tmp_path / "readiness.html").read_bytes()
    write_page(site, MANIFEST, QUALITY)
    assert (tmp_path / "readiness.html").read_bytes() == first

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DiskError, match=r"readiness\.html must be writable, got No space left on device"):
        write_page(site, MANIFEST, QUALITY)


@pytest.mark.parametrize("content", [b"{", b"[1, 2]", b"\xff"])
def test_a_damaged_quality_report(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "quality.json").write_bytes(content)
    with pytest.raises(DataError, match=r"quality\.json .*must be whole, got .*prepare --plan PLAN.yaml --force"):
        read_quality(tmp_path)


@pytest.mark.parametrize(
    ("manifest", "quality", "codes"),
    [
        ({"ecg": LINKS}, {}, []),
        ({}, QUALITY, ["E202"]),
        ({"num_patients": 49, "ecg": LINKS}, {}, ["E901"]),
        ({"num_patients_by_split": {"train": 540, "stack": 50, "tuning": 9}, "ecg": LINKS}, {}, []),
        ({"num_patients_by_split": {"train": 540, "stack": 49}, "ecg": LINKS}, {}, ["E901"]),
        ({"num_patients_by_split": {"train": 49, "stack": 270}, "ecg": LINKS}, {}, ["E901"]),
        ({"num_long_stays": 0, "ecg": LINKS}, {}, ["E902"]),
        ({"num_long_stays": 1200, "ecg": LINKS}, {}, ["E902"]),
        ({"num_stays_with_ecg": 0, "ecg": NO_LINKS}, {}, ["E201"]),
        ({"ecg": LINKS}, {"columns_absent": {"labevents": ["storetime"]}}, ["E102"]),
        ({"ecg": LINKS, "attrition": attrition(75)}, {}, []),
        ({"ecg": LINKS, "attrition": attrition(76)}, {}, ["E106"]),
        ({"ecg": LINKS, "attrition": attrition(70, repeated=150)}, {}, ["E106"]),
        ({"ecg": LINKS}, {"diagnoses": {"admissions": 200, "admissions_coded": 180}}, []),
        ({"ecg": LINKS}, {"diagnoses": {"admissions": 200, "admissions_coded": 179}}, ["E106"]),
        ({"ecg": LINKS}, {"tables": {"chartevents": {"wanted": 1000, "not_in_icustays": 50}}, **BY_STAY}, []),
        ({"ecg": LINKS}, {"tables": {"chartevents": {"wanted": 1000, "not_in_icustays": 51}}, **BY_STAY}, ["E106"]),
        ({"ecg": LINKS}, {"tables": {"labevents": {"wanted": 1000, "not_in_icustays": 900}}, **BY_STAY}, []),
        ({"ecg": LINKS}, {"concepts": {"lactate": {**HEART_RATE, "repeated": 4_500}}}, []),
        ({"ecg": LINKS}, {"concepts": {"lactate": {**HEART_RATE, "repeated": 4_501}}}, ["E104"]),
        ({"ecg": LINKS}, {"concepts": {"lactate": {**HEART_RATE, "repeated": 18_000}, "sodium": MANY}}, []),
        ({"ecg": LINKS}, {"concepts": {"lactate": {**HEART_RATE, "repeated": 18_001}, "sodium": MANY}}, ["E104"]),
        ({"ecg": LINKS}, {"concepts": {"lactate": {**HEART_RATE, "used": 90, "repeated": 80}}}, []),
        ({"ecg": LINKS}, {"concepts": {"lactate": {**HEART_RATE, "used": 0}}}, ["E107"]),
        ({"ecg": LINKS}, {"concepts": {"lactate": {**HEART_RATE, "out_of_range": 90_000}}}, ["E205"]),
        ({"ecg": LINKS}, {"concepts": {"lactate": {**HEART_RATE, "unit_unknown": 1}}}, ["E205"]),
        ({"ecg": LINKS}, {"tables": {"inputevents": {"used": 100, "cancelled": 60, "nothing_given": 40}}}, []),
        ({"ecg": LINKS}, {"tables": {"inputevents": {"used": 100, "cancelled": 60, "nothing_given": 41}}}, ["E207"]),
        ({"ecg": LINKS}, {"tables": {"inputevents": {"used": 400, "used_without_end": 20}}}, []),
        ({"ecg": LINKS}, {"tables": {"inputevents": {"used": 400, "used_without_end": 21}}}, ["E207"]),
        ({"ecg": LINKS}, {"tables": {"inputevents": {}}, "statuses": {"inputevents": {"storniert": 1}}}, ["E207"]),
        ({"ecg": LINKS}, {"concepts": {"lactate": {**HEART_RATE, "used": 0, "value_unreadable": 3}}}, ["E105"]),
        ({"ecg": LINKS}, {"concepts": {"lactate": {**HEART_RATE, "value_unreadable": 3}}}, []),
        ({"ecg": {**LINKS, "records_repeated": 1, "records_incomplete": 2}}, {}, ["E104", "E105"]),
        ({"ecg": {**LINKS, "records_without_readable_time": 1}}, {}, ["E103"]),
    ],
)
def test_concerns(manifest: dict[str, Any], quality: dict[str, Any], codes: list[str]) -> None:
    found = concerns_of({**MANIFEST, **manifest}, quality, Limits(), has_ecg_data=True)
    assert [concern.code for concern in found] == codes


def test_a_table_that_is_there_twice_is_told_once_and_a_concept_by_its_name() -> None:
    twice, once = {**HEART_RATE, "repeated": 45_000}, {**HEART_RATE, "repeated": 90}
    lactate = {**HEART_RATE, "table": "labevents", "used": 1000, "repeated": 400}
    concepts = {"heart_rate": twice, "sbp": twice, "lactate": lactate, "sodium": {**once, "table": "labevents"}}
    found = concerns_of({**MANIFEST, "ecg": LINKS}, {"concepts": concepts}, Limits(), has_ecg_data=True)
    assert [concern.found for concern in found] == [
        "chartevents: 90,000 of 180,000 values repeat another of the same stay and time",
        "lactate: 400 of 1,000 values repeat another of the same stay and time",
    ]


def test_a_hospital_without_ecgs_is_not_asked_for_any(site: SiteConfig) -> None:
    manifest = {**MANIFEST, "num_stays_with_ecg": 0, "ecg": LINKS}
    assert list(concerns_of(manifest, {}, Limits(), has_ecg_data=False)) == []
    without = site.model_copy(update={"data": site.data.model_copy(update={"ecg": None})})
    assert "none: the site file has no data.ecg" in page(without, manifest, {})
    assert 'id="ecg"' not in page(without, manifest, {})


def test_the_verdict(site: SiteConfig) -> None:
    assert "Ready: nothing" in page(site, {**MANIFEST, "ecg": LINKS}, {})
    assert "Ready, with doubts" in page(site, MANIFEST, {})
    stopped = page(site, {**MANIFEST, "num_long_stays": 0}, {})
    assert "Not ready." in stopped
    assert '<section id="answer" class="stop">' in stopped


def test_the_summary(site: SiteConfig) -> None:
    out = io.StringIO()
    show_summary(site, MANIFEST, QUALITY, Console(file=out, width=160))
    assert out.getvalue().splitlines() == [
        "kept 1,200 of 1,500 ICU stays (dropped: 300 shorter than 24 hours)",
        "1,100 patients; long stays 40.0%; ECG of 74.8% of stays",
        "measured least: lactate 25%, heart_rate 99% of stays",
        "could not be read: 7 in chartevents; see rejects.csv.gz",
        "values left out: 12 that are codes for no value",
        "warning: ECG records: 3 of 880 not used: 3 E202 checksum wrong. "
        "The stay's next ECG is used, if there is one. See rejects.csv.gz.  [E202]",
    ]


def test_prevalence_is_that_of_the_stays_with_a_label(site: SiteConfig) -> None:
    target = {**MANIFEST["target"], "deaths": "exclude"}
    manifest, quality = {**MANIFEST, "target": target}, {**QUALITY, "labels": {"num": 960, "num_long": 480}}
    text = page(site, manifest, quality)
    assert "ICU stay longer than 3 days (deaths left out): 480 stays, 50.0% of the 960 with a label" in text
    assert ["long stays", "480", "50.0%"] in Cells(text).rows
    assert ["split held_out", "180", "15.0%"] in Cells(text).rows
    out = io.StringIO()
    show_summary(site, manifest, quality, Console(file=out, width=160))
    assert "1,100 patients; long stays 50.0%; ECG of 74.8% of stays" in out.getvalue()
