"""Random inputs of the shape that training gives each modality's encoder, and weights that no training gives."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lemof_model.features import GRID_CHANNELS
from lemof_model.pyramid import EhrBatch, Inputs
from lemof_model.stays import NUM_CATEGORIES, NUMERIC_COLUMNS, grid_maps
from protocol.release import MOST


def inputs_of(modality: str, num_stays: int = 5, seed: int = 0) -> Inputs:
    """An ECG or EHR batch; a fifth of the table and most of the grid is missing."""
    generator = torch.Generator().manual_seed(seed)
    if modality == "ecg":
        return torch.randn(num_stays, 12, 1000, generator=generator)
    numeric = torch.randn(num_stays, len(NUMERIC_COLUMNS), generator=generator)
    missing = (torch.rand(numeric.shape, generator=generator) < 0.2).float()
    codes = [torch.randint(n, (num_stays, 1), generator=generator) for n in NUM_CATEGORIES]
    hours = torch.randn(num_stays, 24, len(GRID_CHANNELS), generator=generator)
    hours[torch.rand(hours.shape, generator=generator) < 0.7] = torch.nan
    grid, measured = (torch.from_numpy(part) for part in grid_maps(hours.numpy()))
    return EhrBatch(numeric * (1 - missing), missing, torch.cat(codes, dim=1), grid, measured)


def pick(inputs: Inputs, rows: list[int]) -> Inputs:
    """Some stays of a batch."""
    return inputs[rows] if isinstance(inputs, torch.Tensor) else EhrBatch(*(part[rows] for part in inputs))


def ill_conditioned(weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Weights of the same shapes, none above the door's bound, under which rounding is all that is left: neighbouring
    units are twins, and a layer with one output takes one from the other, a million times over."""
    rng, found = np.random.default_rng(3), {}
    for name, like in weights.items():
        value = rng.uniform(0.1, 1.0, like.shape)
        for axis in range(value.ndim):
            units = np.moveaxis(value, axis, 0)
            units[1::2] = units[: len(units) // 2 * 2 : 2]
        if len(value) == 1 < value.ndim:
            value[:, 1::2] *= -1.0
            value *= MOST
        found[name] = value.astype(like.dtype)
    return found
