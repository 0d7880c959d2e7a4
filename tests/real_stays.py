"""The ICU stays of the real MIMIC-IV demo, found in another way than the product finds them: pandas, row by row."""

from pathlib import Path
from typing import Any

import pandas as pd

HOUR = pd.Timedelta(hours=1)


def real_courses(mimic: Path) -> pd.DataFrame:
    """All ICU stays: rows of one admission that are at most 6 h apart are one, and death ends it. ``members`` are the
    ids of its rows."""
    rows = pd.read_csv(mimic / "icu/icustays.csv.gz", parse_dates=["intime", "outtime"])
    admissions = pd.read_csv(mimic / "hosp/admissions.csv.gz", parse_dates=["deathtime"]).set_index("hadm_id")
    found: list[dict[str, Any]] = []
    ordered: list[Any] = list(rows.sort_values(["hadm_id", "intime"]).itertuples())
    for row in ordered:
        if found and found[-1]["hadm_id"] == row.hadm_id and row.intime - found[-1]["outtime"] <= 6 * HOUR:
            found[-1]["outtime"] = row.outtime
            found[-1]["members"].append(row.stay_id)
        else:
            found.append({**row._asdict(), "members": [row.stay_id]})
    stays = pd.DataFrame(found)
    death = stays["hadm_id"].map(admissions["deathtime"])
    return stays.assign(outtime=stays["outtime"].where(death.isna() | (death > stays["outtime"]), death))
