"""When a stay ends and how: lengths end at death, the dead are not predicted, contradictions are counted and told."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from client import cli
from client.cohort.labels import long_stay_of
from client.prepare.deaths import contradictions_of, with_ends, with_outcomes
from client.prepare.stays import contradictions_in, select_stays, with_courses
from lemof_model.errors import DataError
from lemof_model.study import CohortSpec, Target
from tests.client.prepare.test_broken_tables import change, make
from tests.client.prepare.test_courses import at, icustays, tables_of

SPEC = CohortSpec()
MIDNIGHT = 16  # hours from the beginning of the stay, 8 in the morning, to its first midnight


def one(out: float = 100, **of_admission: Any) -> pl.DataFrame:
    """One stay from hour 0 to ``out``, its times in hours, admitted 3 h before and discharged a day after it."""
    hours = {"admittime": -3.0, "dischtime": out + 24, "deathtime": None, "dod": None} | {
        name: of_admission.pop(name) for name in ("admittime", "dischtime", "deathtime", "dod") if name in of_admission
    }
    cells = {"hospital_expire_flag": 0 if hours["deathtime"] is None else 1} | of_admission
    times = {name: pl.Series([at(hour)], dtype=pl.Datetime("us")) for name, hour in hours.items()}
    frame = icustays((1, 11, 5, 0, out)).with_columns(**times)
    return frame.with_columns(hospital_expire_flag=pl.lit(cells["hospital_expire_flag"], pl.Int64))


def outcomes(stays: pl.DataFrame) -> dict[str, Any]:
    """Lengths in hours, and deaths."""
    (row,) = with_outcomes(with_ends(stays, stays)).to_dicts()
    lengths = {unit: row[f"{unit}_los_days"] for unit in ("icu", "hospital")}
    hours = {unit: days if days is None else round(days * 24, 6) for unit, days in lengths.items()}
    return {**hours, "died_in_icu": row["died_in_icu"], "died_in_hospital": row["died_in_hospital"]}


@pytest.mark.parametrize(
    ("stay", "icu", "hospital", "in_icu", "in_hospital"),
    [
        ({}, 100, 127, False, False),
        ({"deathtime": 96.5, "dischtime": 96.5}, 96.5, 99.5, True, True),  # leaves a few hours after death
        ({"deathtime": 40.5, "dischtime": 40.5}, 40.5, 43.5, True, True),
        ({"deathtime": 40.5}, 40.5, 43.5, True, True),  # dischtime days later
        ({"deathtime": 41, "dischtime": 41, "hospital_expire_flag": None}, 41, 44, True, True),
        ({"deathtime": 110, "dischtime": 110}, 100, 113, False, True),
        ({"deathtime": 102, "dischtime": None}, 100, 105, False, True),
        # A discharge of midnight is the day of the death that follows; neither length is cut by it.
        ({"out": 35, "deathtime": 31, "dischtime": MIDNIGHT}, 31, 34, True, True),
        ({"out": 35, "deathtime": 31, "dischtime": MIDNIGHT + 1 / 60}, 31, 34, True, True),
        ({"out": 30, "deathtime": 35, "dischtime": MIDNIGHT}, 30, 38, False, True),
        # deathtime days after the discharge: alive when they left, unless the flag says otherwise
        ({"deathtime": 300, "hospital_expire_flag": 0}, 100, 127, False, False),
        ({"deathtime": 300, "hospital_expire_flag": 1}, 100, 127, False, True),
        # one true midnight is a time like any other
        ({"deathtime": 40, "dischtime": 40}, 40, 43, True, True),
        # a flag without a time: died by the discharge, perhaps in intensive care
        ({"hospital_expire_flag": 1}, 100, 127, True, True),
        ({"hospital_expire_flag": 1, "dischtime": 40}, None, None, True, True),
        ({"hospital_expire_flag": 1, "dischtime": 88, "out": 120}, None, 91, True, True),
        ({"hospital_expire_flag": 1, "dischtime": 88, "out": 100}, 100, 91, True, True),  # midnight: of that day
        ({"hospital_expire_flag": 1, "dischtime": None}, 100, None, True, True),
        # the day alone: dod
        ({"hospital_expire_flag": 1, "dod": 88}, 100, None, True, True),
        ({"hospital_expire_flag": 1, "dod": 64}, None, None, True, True),
        ({"dod": 64, "dischtime": 200}, None, None, True, True),  # dies before the discharge, without a flag
        ({"dod": 5000}, 100, 127, False, False),  # at home
        ({"dod": 112, "dischtime": 120}, 100, 123, False, False),  # on the day of the discharge: who knows where
        ({"hospital_expire_flag": 1, "dod": 5000}, 100, 127, True, True),
        # times that contradict each other
        ({"dischtime": -20}, 100, None, False, False),
        ({"dischtime": 60}, 100, None, False, False),
        ({"dischtime": 88}, 100, 91, False, False),  # 12 h: the demo has one of 13
        ({"admittime": 30}, 100, None, False, False),
    ],
)
def test_the_ends_of_a_stay(
    stay: dict[str, Any], icu: float | None, hospital: float | None, in_icu: bool, in_hospital: bool
) -> None:
    assert outcomes(one(**stay)) == {
        "icu": icu, "hospital": hospital, "died_in_icu": in_icu, "died_in_hospital": in_hospital,
    }  # fmt: skip


def test_a_column_of_days_ends_no_stay_within_its_day() -> None:
    """Ten deaths and more at midnight are days: who dies on the 12th may leave at noon of the 12th."""
    midnight = at(MIDNIGHT + 48)
    rows = icustays(*((n, n, n, 0, MIDNIGHT + 48 + 12) for n in range(1, 11)), (11, 11, 11, 0, MIDNIGHT + 48 + 30))
    tables = tables_of(rows, deathtime=pl.lit(midnight), hospital_expire_flag=pl.lit(1))
    stays, _ = select_stays(tables, SPEC)
    lengths = with_outcomes(stays)["icu_los_days"].to_list()
    assert lengths == [*[pytest.approx((MIDNIGHT + 60) / 24)] * 10, None]
    assert contradictions_in(tables, SPEC)["deathtime without a time of day, which ends no stay"] == 11
    few, _ = select_stays(tables_of(rows.head(9), deathtime=pl.lit(midnight)), SPEC)
    assert with_outcomes(few)["icu_los_days"].to_list() == [pytest.approx((MIDNIGHT + 48) / 24)] * 9


@pytest.mark.parametrize(
    ("of_admission", "reason"),
    [
        ({"deathtime": 20}, "dead at the prediction, 24 hours after ICU admission"),
        ({"deathtime": 24}, "dead at the prediction, 24 hours after ICU admission"),
        ({"deathtime": 25}, "in the cohort"),
        ({"deathtime": 0}, "dead at the prediction, 24 hours after ICU admission"),
        ({"deathtime": -1}, "dead before ICU admission"),
        ({"hospital_expire_flag": 1, "dischtime": 20.5}, "dead at the prediction, 24 hours after ICU admission"),
        ({"hospital_expire_flag": 1, "dischtime": MIDNIGHT}, "in the cohort"),  # some time of the second day
        ({"dod": -8}, "dead at the prediction, 24 hours after ICU admission"),
        ({"dod": -32}, "dead before ICU admission"),
        ({"dod": MIDNIGHT}, "in the cohort"),
    ],
)
def test_the_dead_are_not_predicted(of_admission: dict[str, Any], reason: str) -> None:
    stay = one(**of_admission)
    columns = ("admittime", "dischtime", "deathtime", "hospital_expire_flag")
    cells = {name: pl.lit(stay[name][0], stay.schema[name]) for name in columns}
    tables = tables_of(icustays((1, 11, 5, 0, 100)), **cells)
    patients = tables.patients.with_columns(dod=pl.lit(stay["dod"][0], stay.schema["dod"]))
    stays, attrition = select_stays(type(tables)(tables.icustays, patients, tables.admissions), SPEC)
    assert [row["reason"] for row in attrition[1:] if row["num_stays"]] == [reason]
    assert stays.height == (reason == "in the cohort")


def test_a_gap_and_a_longest_shortest_stay_count_from_death() -> None:
    tables = tables_of(icustays((1, 11, 5, 0, 100)), deathtime=pl.lit(at(30)))
    for spec, reason in (
        (CohortSpec(gap_hours=12, min_stay_hours=36), "shorter than 36 hours"),
        (CohortSpec(min_stay_hours=48), "shorter than 48 hours"),
        (CohortSpec(window_hours=36, min_stay_hours=36), "dead at the prediction, 36 hours after ICU admission"),
    ):
        _, attrition = select_stays(tables, spec)
        assert [row["reason"] for row in attrition[1:] if row["num_stays"]] == [reason]


def test_a_death_counts_for_later_admissions_of_the_patient() -> None:
    """An organ donor is admitted again (MIT-LCP/mimic-code, issues 288 and 1194)."""
    rows = icustays((1, 11, 5, 0, 30), (1, 12, 6, 31, 80), (2, 21, 7, 0, 100))
    death = pl.when(pl.col("hadm_id") == 11).then(pl.lit(at(29)))
    tables = tables_of(rows, deathtime=death.first())
    stays, attrition = select_stays(tables, SPEC)
    assert stays["stay_id"].to_list() == [5, 7]
    assert {"reason": "dead before ICU admission", "num_stays": 1} in attrition
    assert with_outcomes(stays)["icu_los_days"].to_list() == [pytest.approx(29 / 24), pytest.approx(100 / 24)]


def test_death_ends_a_stay_of_several_rows() -> None:
    rows = icustays((1, 11, 5, 0, 30), (1, 11, 6, 31, 80), (1, 11, 7, 80, 200))
    tables = with_courses(tables_of(rows, deathtime=pl.lit(at(75))), SPEC)
    assert with_outcomes(select_stays(tables, SPEC)[0])["icu_los_days"].to_list() == [75 / 24]


@pytest.mark.parametrize(
    ("stay", "told"),
    [
        ({}, []),
        ({"deathtime": 96, "dischtime": 96}, []),
        ({"out": 35, "deathtime": 31, "dischtime": MIDNIGHT}, []),
        ({"deathtime": 40.5, "dischtime": 40.5, "dod": 40}, ["goes on more than a day after death"]),
        ({"deathtime": 300}, ["deathtime more than a day after the discharge"]),
        ({"hospital_expire_flag": 1}, ["hospital_expire_flag 1 without a deathtime"]),
        ({"deathtime": 96, "dischtime": 96, "hospital_expire_flag": 0}, ["hospital_expire_flag 0 with a deathtime"]),
        ({"deathtime": -5}, ["death before ICU admission", "goes on more than a day after death"]),
        ({"deathtime": 98, "dischtime": 98, "dod": 300}, ["dod on another day than deathtime"]),
        ({"dod": 64, "dischtime": 200}, ["dod before the discharge, without a flag of death"]),
        ({"dischtime": -20}, ["dischtime before admittime"]),
        ({"dischtime": 60}, ["more than a day outside its admission"]),
        ({"admittime": 30}, ["more than a day outside its admission"]),
        ({"out": -5, "dischtime": 60}, []),  # a stay whose own times are wrong is counted as such
    ],
)
def test_contradictions_are_counted(stay: dict[str, Any], told: list[str]) -> None:
    found = [what for what, num in contradictions_of(with_ends(one(**stay), one(**stay))).items() if num]
    assert len(found) == len(told) and all(any(part in what for what in found) for part in told), found


def test_deaths_that_are_left_out_are_those_that_may_have_been(site_path: Path) -> None:
    change(site_path, "hosp/admissions.csv", lambda rows: rows[1].__setitem__(-1, "1"))  # a flag without a time
    stays = make(site_path).stays
    assert stays["died_in_hospital"].tolist() == [True, False, True]
    for unit in ("icu", "hospital"):
        _, keep = long_stay_of(stays, Target(unit=unit, deaths="exclude"))
        assert keep.tolist() == [False, unit == "icu", False]


def told_by(site_path: Path, capsys: pytest.CaptureFixture[str], code: str = "E113") -> tuple[list[str], list[str]]:
    """What ``check`` and ``prepare`` tell under a code."""
    capsys.readouterr()
    cli.run(["--site", str(site_path), "prepare", "--force"])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.endswith(f"[{code}]")]
    cli.run(["--site", str(site_path), "check", "--no-server"])
    findings = json.loads((site_path.parent / "check.json").read_text())["findings"]
    return [line["found"] for line in findings if line["code"] == code], lines


def test_check_and_prepare_tell_the_same(site_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told_by(site_path, capsys) == ([], [])
    change(site_path, "hosp/admissions.csv", lambda rows: rows[1].__setitem__(-1, "1"))
    checked, prepared = told_by(site_path, capsys)
    assert checked == ["hospital_expire_flag 1 without a deathtime: 1"]
    assert len(prepared) == 1 and f"warning: deaths and times: {checked[0]}." in prepared[0]


def more_patients(site_path: Path, num: int, **cells: str) -> None:
    """Patients with one stay of 4 days each."""
    years = [2160 + n % 10 for n in range(num)]
    ids = [str(1000 + n) for n in range(num)]
    base = {"admission_type": "URGENT", "admission_location": "PACU", "insurance": "Other", "marital_status": "SINGLE",
            "race": "ASIAN", "hospital_expire_flag": "0", "gender": "F"} | cells  # fmt: skip
    change(site_path, "hosp/patients.csv.gz", lambda rows: rows.extend(
        [[n, base["gender"], "50", "2150", ""] for n in ids]
    ))  # fmt: skip
    change(site_path, "icu/icustays.csv.gz", lambda rows: rows.extend(
        [[n, n, n, base.get("unit", "Coronary Care Unit (CCU)"), "", f"{y}-01-02 08:00:00", f"{y}-01-06 08:00:00", ""]
         for n, y in zip(ids, years, strict=True)]
    ))  # fmt: skip

    def admit(rows: list[list[str]]) -> None:
        for n, y in zip(ids, years, strict=True):
            times = {"admittime": f"{y}-01-01 08:00:00", "dischtime": f"{y}-01-08 08:00:00", "deathtime": ""}
            known = base | times | {"subject_id": n, "hadm_id": n} | {k: v for k, v in cells.items() if k in times}
            rows.append([known[name] for name in rows[0]])

    change(site_path, "hosp/admissions.csv", admit)


def test_nearly_everybody_dead_and_nobody_dead(site_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more_patients(site_path, 12, hospital_expire_flag="1", deathtime="2170-01-01 00:01:00")
    checked, prepared = told_by(site_path, capsys)
    assert "13 of 15 stays end in death in the hospital" in checked and len(prepared) == 2
    change(site_path, "hosp/admissions.csv", lambda rows: [
        (row.__setitem__(4, ""), row.__setitem__(-1, "0")) for row in rows[1:]
    ])  # fmt: skip
    assert told_by(site_path, capsys) == ([], [])
    more_patients(site_path, 200)
    change(site_path, "icu/icustays.csv.gz", lambda rows: rows.__setitem__(
        slice(None), [rows[0], *({row[2]: row for row in rows[1:]}.values())]
    ))  # fmt: skip
    for table, key in (("hosp/admissions.csv", 1), ("hosp/patients.csv.gz", 0)):
        change(site_path, table, lambda rows, key=key: rows.__setitem__(  # type: ignore[misc]
            slice(None), [rows[0], *({row[key]: row for row in rows[1:]}.values())]
        ))  # fmt: skip
    assert told_by(site_path, capsys)[0] == [
        "none of 203 stays ends in death: lengths of stay would go on after it",
    ]


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%d.%m.%Y"])
def test_a_day_of_death_in_its_own_form(site_path: Path, form: str) -> None:
    day = datetime(2150, 1, 4)  # of patient 1, discharged on the 9th, who left intensive care on the 6th
    change(site_path, "hosp/patients.csv.gz", lambda rows: rows[1].__setitem__(4, day.strftime(form)))
    cohort = make(site_path)
    assert np.isnan(cohort.stays["icu_los_days"][0]) == (form != "%d.%m.%Y")
    unread = json.loads((cohort.path / "quality.json").read_text())["tables"]["patients"]["dod_unreadable"]
    assert unread == (form == "%d.%m.%Y")


def test_days_of_death_that_cannot_be_read_are_refused(site_path: Path) -> None:
    def day_first(rows: list[list[str]]) -> None:
        rows.extend([[f"{number}", *rows[1][1:4], "04.01.2150"] for number in range(900, 911)])

    change(site_path, "hosp/patients.csv.gz", day_first)
    message = (
        r"^dod must be a date as 2150-03-10, or match %Y.*, got 11 of 11 rows in which it is not \(first: line \d+, "
    )
    with pytest.raises(DataError, match=message):
        make(site_path)


def test_parquet_days_of_death(site_path: Path) -> None:
    path = site_path.parent / "hosp/patients.csv.gz"
    frame = pl.read_csv(path).with_columns(dod=pl.lit(datetime(2150, 1, 4) + timedelta(0)).cast(pl.Date))
    frame.write_parquet(path.with_name("patients.parquet"))
    path.unlink()
    assert np.isnan(make(site_path).stays["icu_los_days"][0])


def test_words_that_no_category_knows_are_told(site_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more_patients(site_path, 10, race="Martian")
    found = "10 of 13 stays (76.9%) have a word that no category knows (most: form 'aaaaaaa'): they count as other"
    fix = "Use the words of docs/features.md in the export.  [E114]"
    assert told_by(site_path, capsys, "E114") == ([found], [f"warning: race: {found}. {fix}"])
    change(site_path, "hosp/admissions.csv", lambda rows: [row.__setitem__(9, "DECLINED") for row in rows[1:]])
    assert told_by(site_path, capsys, "E114") == ([], [])


def test_codes_of_sex_are_told(site_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more_patients(site_path, 14, gender="2")
    (found,), _ = told_by(site_path, capsys, "E114")
    assert found.startswith("14 of 17 stays (82.4%) have a word") and "(most: form '9')" in found
