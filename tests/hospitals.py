"""Small prepared hospitals for tests: cohort folders written straight away, with a signal of known strength."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from client.cohort.store import ECG_SHAPE, STAY_COLUMNS, write_cohort
from lemof_model.features import DISEASES, FEATURES, GRID_CHANNELS
from lemof_model.splits import patient_hash_of
from lemof_model.study import CohortSpec, SplitSpec, Target


def write_hospital(
    folder: Path,
    name: str = "hospital_a",
    *,
    num_stays: int = 80,
    ecg_share: float = 0.7,
    signal: float = 1.5,
    seed: int = 0,
    first_id: int = 1,
    min_patients: int = 2,
    min_cell: int = 1,
    share: tuple[int, int] = (0, 1),
    few_sites: str = "allow",
    without: int = 0,
) -> Path:
    """Write ``folder/name/{site.yaml,cohort}`` and return the site file. ``signal`` 0 makes labels pure chance.

    ``share=(k, n)`` writes only the patients whose number leaves k when divided by n: the n shares are one hospital.
    ``without`` leaves out one patient, with all stays.
    """
    rng = np.random.default_rng([seed, first_id])
    site = folder / name
    cohort = site / "cohort"
    cohort.mkdir(parents=True)
    severity, rhythm = rng.normal(size=(2, num_stays))
    has_ecg = rng.random(num_stays) < ecg_share
    subject = first_id + np.arange(num_stays) * 19 // 20  # one patient in twenty has two stays
    los_days = 3.0 * np.exp(signal * (0.5 * severity + 0.4 * rhythm) + 0.6 * rng.normal(size=num_stays) - 0.3)
    table_rng = np.random.default_rng([seed, first_id, 2])  # of its own: another schema changes nothing else
    features = table_rng.normal(size=(num_stays, len(FEATURES))).astype(np.float32)
    features[:, 20:40] += severity[:, None].astype(np.float32)
    features[table_rng.random(features.shape) < 0.15] = np.nan
    for column, feature in enumerate(FEATURES):
        if feature.kind == "categorical":
            features[:, column] = table_rng.integers(0, len(feature.categories), num_stays)
    grid = _grid(np.random.default_rng([seed, first_id, 1]), severity)
    time = np.arange(ECG_SHAPE[1]) / 100.0
    wave = np.sin(2 * np.pi * (1.2 + 0.2 * rhythm[has_ecg])[:, None, None] * time)
    noise = 0.2 * rng.normal(size=(int(has_ecg.sum()), *ECG_SHAPE))
    kept = (subject % share[1] == share[0]) & (subject != without)
    np.save(cohort / "ecg.npy", ((wave + noise) * 500).astype(np.int16)[kept[has_ecg]])
    stays = pd.DataFrame(
        {
            "subject_id": subject,
            "hadm_id": np.arange(num_stays) + 1000,
            "stay_id": np.arange(num_stays) + 2000,
            "patient_hash": np.array([patient_hash_of(int(s)) for s in subject], dtype=np.uint64),
            "intime": pd.Timestamp("2150-01-01"),
            "icu_los_days": los_days,
            "hospital_los_days": los_days + 2,
            "died_in_icu": rng.random(num_stays) < 0.05,
            "died_in_hospital": False,
            **{disease: rng.random(num_stays) < 0.3 for disease in DISEASES},
            "age": rng.integers(20, 90, num_stays),
            "sex": rng.choice(["female", "male"], num_stays),
        }
    )
    write_cohort(
        cohort,
        spec=CohortSpec(),
        target=Target(),
        splits=SplitSpec(),
        stays=stays.loc[kept, list(STAY_COLUMNS)].reset_index(drop=True),
        features=features[kept],
        grid=grid[kept],
        num_stays_with_ecg=int((has_ecg & kept).sum()),
        ecg_index=np.where(has_ecg, np.cumsum(has_ecg & kept) - 1, -1)[kept],
        attrition=[{"reason": "all ICU stays", "num_stays": int(kept.sum())}],
        facts={},
    )
    config = {
        "version": 1,
        "site": {"name": name},
        "data": {"ehr": {"root": "."}},
        "limits": {"min_patients": min_patients, "min_cell": min_cell, "few_sites": few_sites},
    }
    (site / "site.yaml").write_text(yaml.safe_dump(config))
    return site / "site.yaml"


def _grid(rng: np.random.Generator, severity: NDArray[np.float64]) -> NDArray[np.float32]:
    """Hourly values, three in four missing; a quarter of the channels rise with the severity as the hours go by."""
    grid = rng.normal(size=(len(severity), 24, len(GRID_CHANNELS)))
    rising = np.linspace(0.0, 1.0, 24) * severity[:, None]
    grid[:, :, : len(GRID_CHANNELS) // 4] += rising[:, :, None]
    grid[rng.random(grid.shape) < 0.75] = np.nan
    return grid.astype(np.float32)
