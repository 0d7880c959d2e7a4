"""The report: true to the run's files, whole in itself, and the same for equal runs."""

import csv
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lemof_model.errors import DataError
from lemof_model.study import SPLITS
from protocol.pages import render
from server.report import conduct, results, words
from server.report.page import write_report
from server.report.run_files import read_run
from tests.pages import HOSTILE, hostile, read, shape


def report_of(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def change(run: Path, name: str, edit: Callable[[Any], None]) -> None:
    content = json.loads((run / name).read_text())
    edit(content)
    (run / name).write_text(json.dumps(content))


def test_page_is_well_formed_and_needs_nothing_else(finished_run: Path) -> None:
    page = report_of(finished_run)
    outline = read(page)
    assert not {tag for tag, _ in outline.tags} & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"https?:|url\(|@import", page)
    anchors = [a["href"] for tag, a in outline.tags if tag == "a"]
    assert {f"#{a['id']}" for tag, a in outline.tags if tag == "section"} == set(anchors)
    assert len(page) < 100_000


def test_every_drawing_and_table_is_told_in_words(finished_run: Path) -> None:
    tags = read(report_of(finished_run)).tags
    drawings = [attributes for tag, attributes in tags if tag == "svg" and "viewbox" not in attributes]
    assert drawings
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawings)
    assert sum(tag == "table" for tag, _ in tags) == sum(tag == "caption" for tag, _ in tags)


def test_names_are_escaped(finished_run: Path) -> None:
    page = report_of(finished_run)
    assert "tiny &lt;study&gt;" in page
    assert "<study>" not in page


def test_no_text_changes_the_elements_of_the_page(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = report_of(finished_run)
    monkeypatch.setattr("server.report.page.render", lambda template, **values: render(template, **hostile(values)))
    poisoned = report_of(finished_run)
    assert shape(poisoned) == shape(plain)
    assert "".join(read(poisoned).text).count(HOSTILE) > 200


def test_report_writes_nothing_but_itself(finished_run: Path) -> None:
    """Reading a run once cut its rounds.csv short."""

    def digests() -> dict[str, str]:
        files = [path for path in finished_run.rglob("*") if path.is_file() and path.name != "report.html"]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = digests()
    write_report(finished_run)
    assert digests() == before
    with (finished_run / "rounds.csv").open(newline="") as file:
        numbers = {row["number"] for row in csv.DictReader(file)}
    assert len(numbers) == len(list((finished_run / "state").glob("*.safetensors")))


def test_only_the_footer_depends_on_time_and_on_a_stop(finished_run: Path) -> None:
    body, _, footer = report_of(finished_run).partition("<footer>")
    audit = finished_run / "audit.jsonl"
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    again = {**lines[2], "bytes": {site: {"sent": 1, "received": 10_000_000} for site in lines[2]["bytes"]}}
    later = [{**line, "time": "2001-02-03T04:05:06Z", "seconds": 9} for line in [*lines[:2], again, *lines[2:]]]
    audit.write_text("".join(json.dumps(line) + "\n" for line in later))
    change(finished_run, "timings.json", lambda t: t.update(seconds={"total": 12345.6}, bytes={}))
    other_body, _, other_footer = report_of(finished_run).partition("<footer>")
    assert other_body == body
    assert other_footer != footer
    assert "12345.6 s" in other_footer


def test_numbers_are_those_of_the_metrics(finished_run: Path) -> None:
    text = " ".join(read(report_of(finished_run)).text)
    metrics = json.loads((finished_run / "metrics.json").read_text())
    for name in ("m1", "full"):
        m = metrics["variants"][name]["all"]["pooled"]
        for key in ("auroc", "auprc", "brier", "ece"):
            assert words.number(m[key]) in text
    census = {"hospital_a": 120, "hospital_b": 80}
    for site, num_stays in census.items():
        assert re.search(rf"{site}\s+{num_stays}\s", text)


def test_missing_metrics_are_told_and_never_zero(finished_run: Path) -> None:
    def blank(metrics: Any) -> None:
        for block in (metrics["variants"], metrics["reference"]):
            for populations in block.values():
                if populations["with_ecg"]:
                    populations["with_ecg"] |= {
                        "pooled": None,
                        "sites": dict.fromkeys(populations["with_ecg"]["sites"]),
                    }
        metrics["differences"]["with_ecg"] = {}

    change(finished_run, "metrics.json", blank)
    page = report_of(finished_run)
    read(page)
    table = page[page.index("Stays with an ECG") : page.index("All stays:")]
    assert table.count("too few") >= 7
    assert not re.search(r"0\.000|nan|None", table)
    assert "not compared with the EHR alone" in page


def test_a_hospital_without_any_ecg_is_not_too_few(finished_run: Path) -> None:
    run = read_run(finished_run)
    (site,) = (site for site in run.sites if "train/ecg" not in run.census[site])
    assert run.without_ecgs == {site}
    sections = re.findall(r'<section id="(?:asked|hospitals)".*?</section>', report_of(finished_run), re.DOTALL)
    assert len(sections) == 2
    for page in sections:
        rows = [row for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL) if f">{words.NO_ECG}<" in row]
        assert [f">{site}<" in row for row in rows] == [True]
        assert "too few" not in rows[0].lower()


def test_a_reference_that_not_every_hospital_could_train_says_so(finished_run: Path) -> None:
    def untrained(metrics: Any) -> None:
        for reference in ("gbdt_ehr", "local_only"):
            metrics["reference"][reference]["all"]["pooled"] = None
        metrics["reference"]["local_only"]["all"]["sites"]["hospital_b"] = None

    change(finished_run, "metrics.json", untrained)
    page = report_of(finished_run)
    results, _, rest = page.partition('id="differences"')
    assert results.count(words.NOT_EVERYWHERE) == 2
    hospitals = rest[rest.index('id="hospitals"') :]
    assert re.search(rf"hospital_b</th>.*<td>{words.NOT_TRAINED}</td>", hospitals)
    assert re.search(rf"All hospitals</th>.*<td>{words.NOT_EVERYWHERE}</td>", hospitals)


def test_an_undefined_slope_is_not_called_too_few() -> None:
    from server.report.results import value

    m = {"n": 50, "n_positive": 20, "calibration_slope": None}
    assert value(m, "calibration_slope") == words.NOT_DEFINED
    assert value({**m, "n_positive": 0}, "calibration_slope") == words.TOO_FEW


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ([0.01, 0.03], "the full model is better than the EHR alone"),
        ([-0.01, 0.03], "no clear difference between the full model and the EHR alone"),
        ([0.0, 0.03], "no clear difference"),
        ([-0.03, -0.01], "the full model is worse than the EHR alone"),
        (None, "not compared with the EHR alone"),
    ],
)
def test_a_finding_needs_an_interval_without_zero(ends: list[float] | None, verdict: str) -> None:
    told = words.comparison({"auroc": 0.02, "auroc_ci": ends}, "the EHR alone", "with_ecg")
    assert verdict in told
    assert told.startswith("Over stays with an ECG")


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [([0.6, 0.8], "better than chance"), ([0.4, 0.6], "not clearly different"), ([0.2, 0.4], "worse than chance")],
)
def test_the_full_model_is_held_against_chance(ends: list[float], verdict: str) -> None:
    m = {"n": 100, "n_positive": 40, "auroc": 0.5, "auroc_ci": ends, "auroc_bound": 0.001}
    assert verdict in words.performance(m)


def test_a_finding_stands_only_beyond_the_error_of_counting_in_bins(finished_run: Path) -> None:
    told = {
        bound: words.comparison({"auroc": 0.05, "auroc_ci": [0.02, 0.08]}, "X", "all", bound) for bound in (0.01, 0.03)
    }
    assert "is better than X" in told[0.01]
    assert "no clear difference" in told[0.03]
    assert "may be off by 0.030" in told[0.03]

    def share_bins(metrics: Any) -> None:
        metrics["differences"]["with_ecg"]["full-ehr_single"] = {"auroc": 0.1, "auroc_ci": [0.05, 0.15]}
        for name, bound in (("full", 0.02), ("ehr_single", 0.04)):
            populations = metrics["variants"][name]
            populations["with_ecg"]["pooled"] = {**populations["all"]["pooled"], "auroc_bound": bound}

    change(finished_run, "metrics.json", share_bins)
    answer = report_of(finished_run).split("Against boosted trees?")[0]
    assert "no clear difference between the full model and the EHR alone" in answer
    assert "may be off by 0.060" in answer


def test_refusals_and_groups_held_back_are_named(finished_run: Path) -> None:
    path = finished_run / "rounds.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    last = [row for row in rows if row["stage"] == "encoders" and row["site"] == "hospital_b"][-1]
    last |= {"answered": "0", "num_stays": "0", "reason": "disk <full>"}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    audit = finished_run / "audit.jsonl"
    first, *rest = audit.read_text().splitlines()
    held_back = json.loads(first) | {"too_small": {"hospital_a": ["train/ecg"]}}
    audit.write_text("\n".join([json.dumps(held_back), *rest]) + "\n")
    page = report_of(finished_run)
    assert f"hospital_b, encoders, round {last['number']}: disk &lt;full&gt;" in page
    assert '<span class="missed">1 of 2</span>' in page
    assert re.search(r"hospital_a: census: [^<]*train/ecg", page)


def test_a_hospital_without_ecgs_is_not_called_too_few(finished_run: Path) -> None:
    with (finished_run / "rounds.csv").open(newline="") as file:
        census = {row["site"]: row for row in csv.DictReader(file) if row["stage"] == "census"}
    assert census["hospital_b"]["num_groups_too_small"] == "0"
    page = report_of(finished_run)
    assert re.search(r"hospital_b</th><td>80</td><td>\d+</td><td>no ECG</td>", page)
    hospitals = page[page.index('id="hospitals"') : page.index('id="levels"')]
    with_ecg = hospitals[: hospitals.index("All stays")]
    assert re.search(r"hospital_b</th><td>no ECG</td>", with_ecg)
    held_back = page[page.index("Groups that hospitals held back") : page.index('id="privacy"')]
    assert not re.search(r"hospital_b: [^<]*ecg", held_back)


CENSUS = [f"{split}/{group}" for split in SPLITS for group in ("ehr", "ehr/0", "ehr/1", "ecg", "ecg/0", "ecg/1")]


@pytest.mark.parametrize(
    ("counts", "privacy", "told"),
    [
        (dict(zip(CENSUS, [50, 30, 20, 40, 25, 15] * 4, strict=True)), {}, ["200", "80", "160"]),
        # what is left of a split's parts tells at least as many stays
        ({"train/ehr/0": 12, "train/ehr/1": 30, "stack/ehr": 20, "stack/ehr/1": 15}, {}, ["≥ 62", "≥ 45", "too few"]),
        ({"train/ehr": 20, "stack/ecg": 60}, {}, ["≥ 80", "too few", "≥ 60"]),
        ({"train/ehr/1": 12, "train/ecg/0": 30}, {}, ["≥ 42", "≥ 12", "too few"]),
        ({}, {}, ["too few"] * 3),
        # noise: 344 of 329 cannot be
        (dict(zip(CENSUS, [29, 20, 9, 44, 30, 14] * 4, strict=True)), {"a": {}}, ["≈ 116", "≈ 36", "≈ 116"]),
    ],
)  # fmt: skip
def test_no_part_of_a_census_is_more_than_its_whole(
    counts: dict[str, int], privacy: dict[str, Any], told: list[str]
) -> None:
    run: Any = SimpleNamespace(census={"a": counts}, metrics={"privacy": privacy}, without_ecgs=frozenset())
    assert list(conduct._census_cells(run, "a")) == told


def test_with_noise_a_group_is_no_larger_than_all_stays() -> None:
    whole = {"n": 329, "n_positive": 129}
    assert results._stays({"n": 344, "n_positive": 100}, whole, is_noisy=True) == "≈ 329 (100)"
    assert results._stays({"n": 100, "n_positive": 135}, whole, is_noisy=True) == "≈ 100 (100)"
    assert results._stays({"n": 20, "n_positive": 10}, whole, is_noisy=False) == "20 (10)"
    assert results._stays({"n": 20, "n_positive": 10}, None, is_noisy=False) == "20 (10)"


def test_too_few_of_an_outcome_is_no_result(finished_run: Path) -> None:
    def few(metrics: Any) -> None:
        for name in ("full", "ehr_single"):
            m = metrics["variants"][name]["all"]["diseases"]["lung_cancer"]
            m = m or metrics["variants"][name]["all"]["pooled"]
            blank = {key: value if key == "cuts" else None for key, value in m.items()} | {"n": 3, "n_positive": 2}
            metrics["variants"][name]["all"]["diseases"]["lung_cancer"] = blank

    change(finished_run, "metrics.json", few)
    page = report_of(finished_run)
    row = page[page.index("lung cancer</th>") :].partition("</tr>")[0]
    assert re.search(r"<td>3 \(2\)</td><td>too few</td><td>too few</td>", row)
    assert page.count("Too few: below 5 held-out stays of an outcome, or held back by a hospital.") == 2


def test_a_full_model_that_cannot_be_judged_says_on_how_many_it_would_be(finished_run: Path) -> None:
    m = {"n": 9, "n_positive": 4, "auroc": None}
    told = "Too few held-out stays: the full model can be judged on 5 of each outcome at least"
    assert words.performance(m) == f"{told}, got 9 of which 4 are long."
    assert words.performance(None) == f"{told}."


def test_generated_patients_are_the_first_thing_told(finished_run: Path) -> None:
    page = report_of(finished_run)
    assert "generated" not in page
    note = {"hospitals": ["hospital_a", "hospital_b"], "ceiling": {"all": 0.8123, "with_ecg": 0.8456}}
    (finished_run / "generated.json").write_text(json.dumps(note))
    text = " ".join(" ".join(read(report_of(finished_run)).text).split())
    answer = text[text.index("The answer") :]
    assert answer.startswith(
        "The answer These patients are generated: numbers say that the machinery works, and nothing"
    )
    assert "No model can do better than an AUROC of 0.812 over all stays and 0.846 over stays with an ECG" in answer
    assert re.search(r"So few held-out stays \(\d+\) decide no order between models: an interval holds", answer)
    (finished_run / "generated.json").write_text(json.dumps({"hospitals": ["hospital_b"], "ceiling": {}}))
    page = report_of(finished_run)
    assert "The patients of hospital_b are generated: " in page
    assert "No model can do better" not in page


def test_untrained_weights_that_were_kept_are_told(finished_run: Path) -> None:
    def keep(number: int) -> None:
        def edit(card: Any) -> None:
            for block in ("ecg", "ehr", "attention/0", "attention/1"):
                card["stages"][block]["best_round"] = number

        change(finished_run, "model/card.json", edit)

    keep(1)
    assert "untrained" not in report_of(finished_run)
    keep(0)
    assert "none of 1 round lowered it: untrained weights kept" in report_of(finished_run)


def test_a_line_of_the_audit_that_was_cut_is_skipped(finished_run: Path) -> None:
    page, audit = report_of(finished_run), finished_run / "audit.jsonl"
    whole = audit.read_text()
    audit.write_text(whole + whole[:40])
    assert report_of(finished_run) == page
    audit.write_text(whole[:40] + "\n" + whole)  # a resumed run wrote on
    assert report_of(finished_run) == page
    audit.write_text("")
    assert "First and last answer</dt><dd>not recorded" in report_of(finished_run)


def test_source_and_versions_are_those_of_the_card(finished_run: Path) -> None:
    def forget(card: Any) -> None:
        card.pop("source_digest", None)
        card.pop("versions", None)

    change(finished_run, "model/card.json", forget)
    footer = report_of(finished_run).partition("<footer>")[2]
    assert footer.count("not recorded") == 2
    change(finished_run, "model/card.json", lambda card: card.update(source_digest="d1", versions={"torch": "9.8"}))
    footer = report_of(finished_run).partition("<footer>")[2]
    assert "<dt>Source</dt><dd>d1</dd>" in footer
    assert "<dt>Versions</dt><dd>torch 9.8</dd>" in footer


def test_a_privacy_budget_is_shown(finished_run: Path) -> None:
    assert "No budget was set" in report_of(finished_run)
    change(finished_run, "metrics.json", lambda m: m.update(privacy={"hospital_a": {"epsilon": 7.5, "delta": 1e-5}}))
    page = report_of(finished_run)
    assert "hospital_a: epsilon 7.50 at delta 1e-05" in page
    assert "No budget was set" not in page


def test_the_membership_attack_is_shown_for_every_hospital(finished_run: Path) -> None:
    page = report_of(finished_run)
    found = json.loads((finished_run / "metrics.json").read_text())["membership"]["encoders"]["pooled"]
    assert f"<td>{words.number(found['auroc'])} (" in page
    assert re.search(r"Encoders \(M1\), all hospitals</th><td>\d+</td>", page)
    assert page.count("Attention (M2), hospital_") == 2
    change(finished_run, "metrics.json", lambda m: m["membership"]["encoders"].update(pooled=None))
    assert re.search(r"Encoders \(M1\), all hospitals</th><td>too few</td>", report_of(finished_run))
    change(finished_run, "metrics.json", lambda m: m.pop("membership"))
    assert "Membership attack" not in report_of(finished_run), "a run of an older release has none"


def test_a_block_that_few_hospitals_could_train_is_named(finished_run: Path) -> None:
    assert "Only hospital_a could train the ECG encoder" in report_of(finished_run)


def test_without_state_the_census_is_left_out(finished_run: Path) -> None:
    shutil.rmtree(finished_run / "state")
    assert "Stays that hospitals brought" not in report_of(finished_run)
    assert not (finished_run / "state").exists()


def test_a_damaged_file_is_named(finished_run: Path) -> None:
    (finished_run / "metrics.json").write_text("{")
    with pytest.raises(DataError, match=r"metrics\.json must be JSON"):
        write_report(finished_run)


@pytest.mark.parametrize("name", ["metrics.json", "rounds.csv", "model/card.json"])
def test_an_unfinished_run_is_refused(finished_run: Path, name: str) -> None:
    (finished_run / name).unlink()
    with pytest.raises(DataError, match=rf"must hold {re.escape(name)}.*--resume"):
        write_report(finished_run)


def test_it_opens_in_a_browser(finished_run: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    page, picture = write_report(finished_run), tmp_path / "page.png"
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [browser, *options, "--window-size=390,1200", f"--screenshot={picture}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert picture.stat().st_size > 20_000
