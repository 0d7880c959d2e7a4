"""One hospital's stays as plain arrays: what every stage of the method reads.

Shapes: N stays, F feature columns, M stays with an ECG; C leads, T samples or hours, G channels of the hourly grid.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lemof_model.features import CONCEPTS, FEATURES, GRID_CHANNELS, SYSTEMS
from lemof_model.pyramid import EhrBatch, Inputs
from lemof_model.study import SPLITS

NUMERIC_COLUMNS = np.array([i for i, feature in enumerate(FEATURES) if feature.kind == "numeric"])
CATEGORY_COLUMNS = np.array([i for i, feature in enumerate(FEATURES) if feature.kind == "categorical"])
NUM_CATEGORIES = tuple(len(feature.categories) for feature in FEATURES if feature.kind == "categorical")

_NUMERIC_NAMES = [FEATURES[i].name for i in NUMERIC_COLUMNS]
_CHANNEL_COLUMNS = {
    concept.name: {kind: _NUMERIC_NAMES.index(f"{concept.name}_{kind}") for kind in concept.aggregates}
    for concept in CONCEPTS
    if concept.name in GRID_CHANNELS
}
_ON_GRID = {column for columns in _CHANNEL_COLUMNS.values() for column in columns.values()}
STATIC_COLUMNS = tuple(column for column in range(len(NUMERIC_COLUMNS)) if column not in _ON_GRID)
"""Places among the numeric features of those that no channel of the grid tells: age, height, earlier admissions..."""

_CONCEPT_NAMES = [FEATURES[i].concept for i in NUMERIC_COLUMNS]
_NUMERIC_CONCEPTS = tuple(dict.fromkeys(_CONCEPT_NAMES))
CONCEPT_COLUMNS = tuple(
    tuple(column for column, name in enumerate(_CONCEPT_NAMES) if name == concept) for concept in _NUMERIC_CONCEPTS
)
"""For each concept, the places of its features among the numeric ones; a numeric static is a concept of its own."""

_TOKEN_NAMES = [*_NUMERIC_CONCEPTS, *(FEATURES[i].name for i in CATEGORY_COLUMNS)]
SYSTEM_TOKENS = tuple(tuple(_TOKEN_NAMES.index(name) for name in names) for names in SYSTEMS.values())
"""For each system of the schema, the places of its concepts: the numeric ones as above, then the categorical ones."""

AGE_LIMIT_YEARS = 65
"""Where an evaluation divides patients by age."""

MICROVOLTS_PER_MV = 1000.0
SCALED_LIMIT = 4.0
DECAY_PER_HOUR = 4.0 / 3.0

Rows = NDArray[np.int64]
BatchOf = Callable[[Rows], Inputs]


@dataclass(frozen=True)
class Stays:
    """The stays of one hospital, in the order of its cohort.

    Attributes:
        features_NF: raw features, NaN where missing, categories as codes.
        ecg_MCT: int16 microvolts at 100 Hz, usually memory-mapped; ``ecg_row_N`` its row for a stay, or -1.
        grid_NTG: raw hourly means, NaN where nothing was measured, usually memory-mapped; ``grid_row_N`` its row for a
            stay.
        long_stay_N: label, 1 above the threshold of the plan.
        split_N: index into ``SPLITS``; fold_N: 0 or 1, the cross-fit half; patient_N: patient hash.
        network_N: number of the network that learns nothing of a stay; 0 in a study without folds.
    """

    features_NF: NDArray[np.float32]
    ecg_MCT: NDArray[np.int16]
    ecg_row_N: NDArray[np.int64]
    grid_NTG: NDArray[np.float32]
    grid_row_N: NDArray[np.int64]
    long_stay_N: NDArray[np.int8]
    split_N: NDArray[np.int64]
    fold_N: NDArray[np.int64]
    patient_N: NDArray[np.uint64]
    network_N: NDArray[np.int64]

    def rows(self, split: str, modality: str = "ehr") -> Rows:
        """Rows of a split; for ``ecg`` only those that have one."""
        wanted = self.split_N == SPLITS.index(split)
        if modality == "ecg":
            wanted &= self.has_ecg_N
        return np.flatnonzero(wanted)

    @property
    def has_ecg_N(self) -> NDArray[np.bool_]:
        """Whether a stay has an ECG before its prediction time."""
        return self.ecg_row_N >= 0

    def num_patients(self, rows: Rows) -> int:
        """Patients behind these rows: what minimum counts are about."""
        return len(np.unique(self.patient_N[rows]))

    def select(self, rows: Rows) -> "Stays":
        """These stays alone (the arrays of ECGs and of the grid stay shared)."""
        names = ("features_NF", "ecg_row_N", "grid_row_N", "long_stay_N", "split_N", "fold_N", "patient_N", "network_N")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def feature_terms(features_NF: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """What each stay adds to count, sum and sum of squares of every numeric feature: nothing where it is missing."""
    x = features_NF[:, NUMERIC_COLUMNS].astype(np.float64)
    present = ~np.isnan(x)
    x = np.where(present, x, 0.0)
    return {"num_present": present.astype(np.float64), "x": x, "x2": x * x}


def feature_sums(features_NF: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Count, sum and sum of squares of every numeric feature over the rows where it is present."""
    return {name: each.sum(axis=0) for name, each in feature_terms(features_NF).items()}


def scaling_from(total: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float32]]:
    """Mean and standard deviation from summed ``feature_sums``; a feature that never varies gets deviation 1."""
    count = np.maximum(total["num_present"], 1.0)
    mean = total["x"] / count
    variance = np.maximum(total["x2"] / count - mean * mean, 0.0)
    scale = np.where(variance > 1e-12 * np.maximum(mean * mean, 1e-12), np.sqrt(variance), 1.0)
    return {"mean": mean.astype(np.float32), "scale": scale.astype(np.float32)}


def grid_scaling(
    mean_F: NDArray[np.float32], scale_F: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation of every channel of the grid, from those of its features over the first day: nothing more has
    to leave a hospital for them.

    They are those of the ``_mean`` feature; for a channel without one the midpoint of the means of its smallest and
    largest value, as far as there are both, and the larger of their deviations.
    """
    mean, scale = [], []
    for name in GRID_CHANNELS:
        columns = _CHANNEL_COLUMNS[name]
        kinds = ("mean",) if "mean" in columns else ("min", "max")
        chosen = [columns[kind] for kind in kinds if kind in columns]
        mean.append(mean_F[chosen].mean())
        scale.append(scale_F[chosen].max())
    return np.array(mean, np.float32), np.array(scale, np.float32)


def grid_maps(raw_BTG: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Hourly means carried forward, and how fresh they are: the two maps that TPC reads (Rocheteau et al. 2021).

    The second is 1 in an hour with a measurement, ``1 / (4/3 h)`` h hours after it; both are 0 before the first.

    Example:
        >>> value, fresh = grid_maps(np.array([[[np.nan], [0.5], [np.nan], [np.nan]]], np.float32))
        >>> value.ravel().tolist(), fresh.ravel().tolist()
        ([0.0, 0.5, 0.5, 0.5], [0.0, 1.0, 0.75, 0.375])
    """
    hour = np.arange(raw_BTG.shape[1])[None, :, None]
    last = np.maximum.accumulate(np.where(np.isnan(raw_BTG), -1, hour), axis=1)
    value = np.take_along_axis(raw_BTG, np.maximum(last, 0), axis=1)
    fresh = 1.0 / np.maximum(DECAY_PER_HOUR * (hour - last), 1.0)
    seen = last >= 0
    return np.where(seen, value, np.float32(0.0)), np.where(seen, fresh, 0.0).astype(np.float32)


def ehr_batches(
    stays: Stays, mean_F: NDArray[np.float32], scale_F: NDArray[np.float32], *, with_grid: bool = False
) -> BatchOf:
    """Return rows -> ``EhrBatch``: missing is 0 with its mark, the rest scaled and clipped to +-4 deviations.

    The table is scaled once; the grid, only ``with_grid``, batch by batch as it is read.
    """
    x = (stays.features_NF[:, NUMERIC_COLUMNS] - mean_F) / scale_F
    missing = np.isnan(x)
    numeric_NF = torch.from_numpy(np.where(missing, 0.0, np.clip(x, -SCALED_LIMIT, SCALED_LIMIT)).astype(np.float32))
    missing_NF = torch.from_numpy(missing.astype(np.float32))
    category_NF = torch.from_numpy(stays.features_NF[:, CATEGORY_COLUMNS].astype(np.int64))

    def table(rows: Rows) -> EhrBatch:
        index = torch.from_numpy(rows)
        return EhrBatch.of_table(numeric_NF[index], missing_NF[index], category_NF[index])

    if not with_grid:
        return table
    mean_G, scale_G = grid_scaling(mean_F, scale_F)

    def batch(rows: Rows) -> EhrBatch:
        raw = (stays.grid_NTG[stays.grid_row_N[rows]] - mean_G) / scale_G
        grid, measured = grid_maps(np.clip(raw, -SCALED_LIMIT, SCALED_LIMIT))
        return table(rows)._replace(grid_BTG=torch.from_numpy(grid), measured_BTG=torch.from_numpy(measured))

    return batch


def ecg_batches(stays: Stays) -> BatchOf:
    """Return rows -> ``ecg_BCT`` in mV. Every row must have an ECG."""

    def batch(rows: Rows) -> Inputs:
        return ecg_mv(stays, rows)

    return batch


def ecg_mv(stays: Stays, rows: Rows) -> Tensor:
    """Read the ECGs of these rows, float32 mV, ``(B, 12, 1000)``."""
    ecg_BCT = stays.ecg_MCT[stays.ecg_row_N[rows]].astype(np.float32)
    ecg_BCT /= MICROVOLTS_PER_MV  # in place: fresh memory for 3 MB can take ten times as long as the division
    return torch.from_numpy(ecg_BCT)


def chunks(rows: Rows, size: int) -> Iterator[Rows]:
    """Cut rows into consecutive batches, the last one as it comes."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
