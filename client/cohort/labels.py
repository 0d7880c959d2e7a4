"""Labels of a cohort's stays, and which stays a study reads: both depend on the plan, so a cohort holds neither."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lemof_model.features import FEATURES
from lemof_model.splits import split_of
from lemof_model.study import SPLITS, CohortSpec, SplitSpec, Target


def long_stay_of(stays: pd.DataFrame, target: Target) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """The label of each stay, and which stays have one.

    A stay has no label when its length is unknown, or when the target excludes deaths and the patient died in the
    unit (ICU or hospital) that the target measures. Such a stay's label reads 0 and must not be used.

    Shape:
        stays: N rows; labels: (N,) 0 or 1; keep: (N,)
    """
    los_days = stays[f"{target.unit}_los_days"].to_numpy()
    keep = ~np.isnan(los_days)
    if target.deaths == "exclude":
        keep &= ~stays[f"died_in_{target.unit}"].to_numpy()
    return (keep & (los_days > target.threshold_days)).astype(np.int8), keep


def studied(
    stays: pd.DataFrame, hours_to_icu_N: NDArray[np.floating[Any]], target: Target, spec: CohortSpec
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """The label of each stay, and which stays a study reads: those that have one, and whose label is still open at the
    prediction. With a hospital target, a patient may have been in the hospital for longer than the threshold before.

    Shape:
        stays, hours_to_icu_N (from admission to intensive care, NaN unknown): N rows; labels, keep: (N,)
    """
    labels, keep = long_stay_of(stays, target)
    if target.unit == "hospital":
        keep = keep & ~(hours_to_icu_N + spec.window_hours >= 24.0 * target.threshold_days)
    return labels, keep


def hours_to_icu_of(features_NF: NDArray[np.float32]) -> NDArray[np.float32]:
    """Hours from admission to intensive care, NaN where they are unknown or impossible."""
    return np.asarray(features_NF[:, [feature.name for feature in FEATURES].index("hours_to_icu")])


def patients_by_split(patient_hash: NDArray[np.uint64], splits: SplitSpec) -> dict[str, int]:
    """Patients in each split, of the patients of some stays.

    Example:
        >>> patients_by_split(np.array([5, 5, 6], np.uint64), SplitSpec())
        {'train': 0, 'stack': 1, 'tuning': 0, 'held_out': 1}
    """
    counts = np.bincount(split_of(np.unique(patient_hash), splits), minlength=len(SPLITS))
    return dict(zip(SPLITS, counts.tolist(), strict=True))
