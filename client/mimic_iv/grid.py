"""The hourly grid: each channel's mean in each hour from ICU admission to the prediction time."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from client.mimic_iv.measurements import MILLIONTHS
from lemof_model.features import CONCEPTS, GRID_CHANNELS


def hourly_grid(hours: pl.DataFrame, num_stays: int, window_hours: int) -> NDArray[np.float32]:
    """Place hourly means on the grid; NaN where nothing was measured. Hour 0 begins at admission.

    Shape:
        hours: rows of ``measurements.by_hour``; result: (num_stays, window_hours, number of channels)
    """
    channel_of = np.array([GRID_CHANNELS.index(c.name) if c.name in GRID_CHANNELS else -1 for c in CONCEPTS])
    inside = hours.filter(pl.col("hour").is_between(0, window_hours - 1) & (pl.col("num_values") > 0))
    channel = channel_of[inside["concept"].to_numpy()]
    mean = (inside["millionths"] / MILLIONTHS / inside["num_values"]).to_numpy()
    on_grid = channel >= 0
    grid = np.full((num_stays, window_hours, len(GRID_CHANNELS)), np.nan, np.float32)
    rows, hour = inside["row"].to_numpy(), inside["hour"].to_numpy()
    grid[rows[on_grid], hour[on_grid], channel[on_grid]] = mean[on_grid]
    return grid
