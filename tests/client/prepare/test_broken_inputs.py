"""Thirty broken inputs, by the name that each has in the issue: what ``check`` and ``prepare`` say of a generated
hospital that is broken in one place, with which status they end, or how the drop is counted.

Never a traceback, never an id on the console. Single tables and records are looked at more closely elsewhere.
"""

import csv
import gzip
import io
import json
import logging
import re
import resource
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import cli
from client.layouts.mimic_iv.layout import MIMIC_IV
from client.prepare.ecg_links import link_ecgs
from client.prepare.stays import select_stays
from client.site import load_site
from lemof_model.study import CohortSpec
from simulation.run import warn_of_shared_patients
from simulation.synthetic.hospital import write_hospital
from simulation.synthetic.process import Process
from tests.client.prepare.conftest import LEADS, write_record

Row = dict[str, str]
Edit = Callable[[list[Row]], object]
CHART, LABS, STAYS, ADMISSIONS = (
    f"{name}.csv.gz" for name in ("icu/chartevents", "hosp/labevents", "icu/icustays", "hosp/admissions")
)
NUM_STAYS = 30
NEVER_READABLE = "/proc/self/mem"  # a plain file of which no byte can be read, by root neither


@dataclass(frozen=True)
class Case:
    """One broken input and what must come of it.

    ``told`` is in what ``prepare`` says; ``check`` ends as ``prepare`` does unless ``check_status`` is given, and has a
    finding with ``code`` that is not ok. ``counts`` is by how much numbers of quality.json (by path) grow.
    ``is_harmless``: the cohort has the bytes that it has without the break.
    """

    words: str
    spoil: Callable[[Path], object]
    status: int = 0
    told: str = ""
    code: str = ""
    check_status: int | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    is_harmless: bool = False
    around: Callable[[], AbstractContextManager[None]] = nullcontext
    afterwards: Callable[[Path, Path], None] = lambda _, __: None


def read(path: Path) -> list[Row]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return list(csv.DictReader(io.StringIO(text)))


def change(name: str, edit: Edit) -> Callable[[Path], None]:
    """Edit the rows of a table in place."""

    def spoil(folder: Path) -> None:
        rows = read(folder / name)
        edit(rows)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        content = text.getvalue().encode()
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)

    return spoil


def edit_bytes(edit: Callable[[bytes], bytes], *names: str) -> Callable[[Path], None]:
    """Edit the bytes of tables; of all that there are without names."""

    def spoil(folder: Path) -> None:
        for path in [folder / name for name in names] or folder.glob("*/*.csv*"):
            is_gz = path.suffix == ".gz"
            content = edit(gzip.decompress(path.read_bytes()) if is_gz else path.read_bytes())
            path.write_bytes(gzip.compress(content) if is_gz else content)

    return spoil


def each(column: str, new: Callable[[str], str], first: int | None = None, **where: str) -> Edit:
    """Change a column of the first rows in which other columns have these values."""

    def edit(rows: list[Row]) -> None:
        chosen = [row for row in rows if all(row[name] == value for name, value in where.items())]
        assert chosen
        for row in chosen[:first]:
            row[column] = new(row[column])

    return edit


def moved(days: float) -> Callable[[str], str]:
    """A time so many days later."""
    return lambda time: str(datetime.fromisoformat(time) + timedelta(days=days))


def swap_times(rows: list[Row]) -> None:
    for row in rows[:2]:
        row["intime"], row["outtime"] = row["outtime"], row["intime"]


def leave_after_two_days(rows: list[Row]) -> None:
    for row in rows:
        row["outtime"] = moved(2)(row["intime"])


def settings(old: str, new: str) -> Callable[[Path], None]:
    """Edit the site file."""

    def spoil(folder: Path) -> None:
        site = folder / "site.yaml"
        assert old in site.read_text()
        site.write_text(site.read_text().replace(old, new))

    return spoil


def chosen_record(folder: Path) -> Path:
    """A record that a stay uses, without suffix."""
    site = load_site(folder / "site.yaml")
    stays, _ = select_stays(MIMIC_IV.stays(site), CohortSpec())
    assert site.data.ecg is not None
    return (
        folder
        / "ecg"
        / link_ecgs(MIMIC_IV.ecg_records(site.data.ecg), site.data.ecg, stays, CohortSpec())[0]["path"][3]
    )


def record(edit: Callable[[np.ndarray], np.ndarray], **how: Any) -> Callable[[Path], None]:
    """Write a record anew, with other samples or another header."""

    def spoil(folder: Path) -> None:
        path = chosen_record(folder)
        write_record(path, edit(np.fromfile(f"{path}.dat", "<i2").reshape(-1, 12)), **how)

    return spoil


def every_record_with_leads_reversed(folder: Path) -> None:
    for dat in folder.glob("ecg/files/**/*.dat"):
        samples = np.fromfile(dat, "<i2").reshape(-1, 12)
        write_record(dat.with_suffix(""), samples[:, ::-1], names=LEADS[::-1])


def cut_dat(folder: Path) -> None:
    dat = chosen_record(folder).with_suffix(".dat")
    dat.write_bytes(dat.read_bytes()[:60_000])


def link_out(folder: Path) -> None:
    dat = chosen_record(folder).with_suffix(".dat")
    dat.rename(folder / "elsewhere.dat")
    dat.symlink_to(folder / "elsewhere.dat")


def damage_utf8(folder: Path) -> None:
    edit_bytes(lambda content: content.replace(b"WHITE", b"WHITE \xff\xc3\x28"), ADMISSIONS)(folder)
    change_first = each("charttime", lambda time: f"{time[:8]}@@{time[10:]}", 3, itemid="220045")
    change(CHART, change_first)(folder)
    edit_bytes(lambda content: content.replace(b"@@", b"\xe9\xff"), CHART)(folder)


def unreadable(folder: Path) -> None:
    (folder / LABS).unlink()
    (folder / "hosp/labevents.csv").symlink_to(NEVER_READABLE)


def cut_gz(folder: Path) -> None:
    (folder / CHART).write_bytes((folder / CHART).read_bytes()[:-2000])


def move_to_spaces(folder: Path) -> Path:
    new = folder.parent / "MIMIC IV (of 2026)"
    folder.rename(new)
    (new / "ecg").rename(new / "the ECGs")
    settings("'ecg'", "'the ECGs'")(new)
    return new


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 200 kB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def goes_on_with_room(folder: Path, whole: Path) -> None:
    assert (folder / "cohort.partial/.state/chartevents.json").is_file()
    assert cli.run(["--site", str(folder / "site.yaml"), "prepare"]) == 0
    assert cohort_digest(folder) == cohort_digest(whole)


def is_told_by_a_run_of_both(folder: Path, whole: Path) -> None:
    warned: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warned.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("lemof").addHandler(handler)
    try:
        warn_of_shared_patients([folder / "site.yaml", whole / "site.yaml"])
    finally:
        logging.getLogger("lemof").removeHandler(handler)
    (said,) = warned
    assert re.search(
        r"Patients must be in one hospital each, got \d+ of both another and hospital_a\. .*\[E111\]", said
    )


def rejected(reason: str) -> dict[str, int]:
    return {f"ecg/records_rejected/{reason}": 1}


CASES = (
    Case("missing table", lambda folder: (folder / CHART).unlink(),
         4, r"chartevents must be a table, got no .* Vital signs need it\. Set .* \[E101\]", "E101"),
    Case("wrong column", edit_bytes(lambda content: content.replace(b"itemid", b"ITEM_ID", 1), CHART),
         4, r"Did you mean ITEM_ID\? Add data\.ehr\.columns\.chartevents\.itemid: ITEM_ID.* \[E102\]", "E102"),
    Case("wrong type", change(CHART, each("stay_id", lambda value: f"S{value}")),
         4, r"stay_id must be a whole number, got .* from icu/chartevents\.csv\.gz\..* \[E105\]", "E105"),
    Case("bad timestamps", change(CHART, each("charttime", lambda time: time.replace("-", "."))),
         4, r"charttime must match .*first: line 2, form '9999\.99\.99 99:99:99'.* \[E103\]", "E103"),
    Case("outtime before intime", change(STAYS, swap_times), told=r"dropped: 2 intime or outtime missing, or outtime b",
         counts={"attrition/intime or outtime missing, or outtime before intime": 2}),
    Case("duplicate stays", change(STAYS, lambda rows: rows.append(rows[0])),
         4, r"stay_id must be there once, got 1 repetitions \(lines 32\).* prepare\.on_duplicate: first.* \[E104\]",
         "E104"),
    Case("units swapped", change(CHART, each("valuenum", lambda value: f"{(float(value) - 32) / 1.8:.1f}",
                                             itemid="223761")),
         4, r"itemid 223761 must be in degF, got a median of 3\d.*looks like degC.* \[E205\]", "E205"),
    Case("values out of range", change(CHART, each("valuenum", lambda _: "888", 7, itemid="220045")),
         counts={"concepts/heart_rate/out_of_range": 7}),
    Case("unlinked ECG", change("ecg/record_list.csv", each("ecg_time", moved(400))),
         9, r"ECGs must match stays by time, got none .*Same clock.* \[E201\]", "E201"),
    Case("truncated .dat", cut_dat, told="24 records, 1 not used", code="E202",
         counts=rejected("E202 signal file of another size than its header says")),
    Case("wrong sampling rate", record(lambda samples_TC: samples_TC[::2], hz=250), told=r"1 .*not used.*\[E202\]",
         code="E203", counts=rejected("E203 sampling rate not accepted")),
    Case("missing lead", record(lambda samples_TC: samples_TC[:, :11], names=LEADS[:11]), told="1 not used",
         code="E204", counts=rejected("E204 lead missing")),
    Case("leads in another order", every_record_with_leads_reversed, is_harmless=True),
    Case("NaN leads", record(lambda samples_TC: np.where(np.arange(12) < 8, -32768, samples_TC)), told="1 not used",
         code="E206", counts=rejected("E206 flat for a second in 6 leads or more")),
    Case("flat leads", record(lambda samples_TC: np.where(np.arange(12) < 8, 12, samples_TC)), told="1 not used",
         code="E206", counts=rejected("E206 flat for a second in 6 leads or more")),
    Case("zero-length record", lambda folder: chosen_record(folder).with_suffix(".dat").write_bytes(b""),
         told="1 not used", code="E202", counts=rejected("E202 signal file of another size than its header says")),
    Case("wrong gain", record(lambda samples_TC: samples_TC, gain="0.2(0)"), told="1 not used",
         code="E205", counts=rejected("E205 numbers that look like microvolts under another unit")),
    Case("unreadable file", unreadable, 6, r"must be readable, got Input/output error from labevents\.csv\..* \[E603\]",
         "E603"),
    Case("disk full", lambda _: None, 6, r"must fit on the disk .* then run the same command\. \[E601\]",
         check_status=0, around=full_disk, afterwards=goes_on_with_room),
    Case("one-class hospital", change(STAYS, leave_after_two_days),
         9, r"icu stay > 3 d: 0 of \d+ positive; both kinds are needed\. Check the ends .* \[E902\]", "E902"),
    Case("tiny hospital", settings("min_patients: 5", "min_patients: 50"),
         told=r"2\d after exclusions, limits\.min_patients is 50: no update would leave.* \[E901\]", code="E901",
         is_harmless=True),
    Case("patient in two hospitals' trees", settings("hospital_a", "another"), is_harmless=True,
         afterwards=is_told_by_a_run_of_both),
    Case("clock in the future", change(STAYS, each("outtime", moved(5000), 2)), told=r"2 longer than 1,000 days",
         counts={"attrition/longer than 1,000 days": 2}),
    Case("empty table", edit_bytes(lambda content: content.split(b"\n")[0] + b"\n", LABS),
         4, r"must have rows, got none from hosp/labevents.* Export the table again|\[E106\]", "E106"),
    Case("UTF-8 damage", damage_utf8, code="E103", counts={"tables/chartevents/time_unreadable": 3}),
    Case("CRLF", edit_bytes(lambda content: content.replace(b"\n", b"\r\n")), is_harmless=True),
    Case("extra columns", edit_bytes(lambda content: re.sub(rb"(?m)^(?=.)", b"x,", content)), is_harmless=True),
    Case("gz cut short", cut_gz,
         4, r"must be a whole file, got .* from chartevents\.csv\.gz\. Export it again\. \[E110\]", "E110"),
    Case("symbolic link out of the tree", link_out, told="1 not used", code="E202",
         counts=rejected("E202 file outside data.ecg.root")),
    Case("path with spaces", move_to_spaces, told=r"--site '.*/MIMIC IV \(of 2026\)/site\.yaml'", is_harmless=True),
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared hospital in which nothing is broken."""
    folder = tmp_path_factory.mktemp("hospitals") / "whole"
    process = Process()
    write_hospital(folder, process.hospital(0, 1, 3), process=process, num_stays=NUM_STAYS, seed=3)
    settings("name: whole", "name: hospital_a")(folder)
    assert cli.run(["--site", str(folder / "site.yaml"), "prepare"]) == 0
    return folder


def cohort_digest(folder: Path) -> str:
    return str(json.loads((folder / "cohort/manifest.json").read_text())["digests"]["cohort"])


def count_at(folder: Path, path: str) -> int:
    """A number of quality.json, rows of the attrition by their reason; 0 where it is not there."""
    part: Any = json.loads((folder / "cohort/quality.json").read_text())
    part["attrition"] = {row["reason"]: row["num_stays"] for row in part["attrition"]}
    for key in path.split("/"):
        part = part.get(key, 0)
    return int(part)


def ids_of(folder: Path) -> set[str]:
    """Every patient, admission, stay and ECG of a hospital."""
    rows = [row for name in (STAYS, ADMISSIONS, "ecg/record_list.csv") for row in read(folder / name)]
    return {row[key] for row in rows for key in ("subject_id", "hadm_id", "stay_id", "study_id") if key in row}


def test_all_thirty_are_here() -> None:
    assert len({case.words for case in CASES}) == 30


@pytest.mark.parametrize("case", CASES, ids=[case.words for case in CASES])
def test_a_broken_input(case: Case, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("cohort", "*.html"), symlinks=True)
    moved_to = case.spoil(folder)
    folder = moved_to if isinstance(moved_to, Path) and moved_to.is_dir() else folder
    site = str(folder / "site.yaml")

    assert cli.run(["--site", site, "check"]) == (case.status if case.check_status is None else case.check_status)
    findings = json.loads((folder / "check.json").read_text())["findings"]
    assert {case.code} <= {"", *(finding["code"] for finding in findings if finding["result"] != "ok")}
    checked = capsys.readouterr()
    with case.around():
        assert cli.run(["--site", site, "prepare"]) == case.status
    prepared = capsys.readouterr()
    assert re.search(case.told, prepared.err), prepared.err
    console = checked.err + prepared.err
    assert not ids_of(whole) & set(re.findall(r"\d{8}", console))
    assert "Traceback" not in console and "bug in lemof" not in console
    assert checked.out == prepared.out == ""

    for path, num in case.counts.items():
        assert count_at(folder, path) == count_at(whole, path) + num, path
    assert not case.is_harmless or cohort_digest(folder) == cohort_digest(whole)
    case.afterwards(folder, whole)
    shutil.rmtree(folder)
