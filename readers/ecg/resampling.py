"""Any sampling rate to 100 Hz: ``scipy.signal.resample_poly`` as one matrix product.

Its filter is linear and always the same, so a stretch of the output is a stretch of the input times a banded matrix:
at 500 Hz, 40 outputs from 300 inputs. BLAS does that ten times as fast, equal within rounding, the ends included.

Shape letters: C leads, T samples of a record, S stretches, O outputs of a stretch, I inputs of a stretch.
"""

from functools import lru_cache
from math import ceil, gcd

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from lemof_model.features import ECG_HZ, ECG_LEADS, ECG_SECONDS

KAISER_BETA, HALF_LENGTH = 5.0, 10  # scipy's defaults: ("kaiser", 5.0), ten periods of the slower rate to each side


class Resampler:
    """Brings records of one sampling rate to 100 Hz; before and after a record the signal is 0, as it is for scipy.

    Working space is kept from record to record: asking for fresh memory takes longer than the arithmetic.

    Attributes:
        signal_CT: a place for the next record's leads.

    Example:
        >>> resampler = resampler_of(500)
        >>> resampler.signal_CT[:] = 1.0
        >>> resampler.resample(12).shape
        (12, 1000)
    """

    def __init__(self, sampling_rate_hz: int) -> None:
        common = gcd(sampling_rate_hz, ECG_HZ)
        up, down = ECG_HZ // common, sampling_rate_hz // common
        num_outputs = 40 if 40 % up == 0 else 100
        self._matrix_IO, margin, step = _banded_matrix(up, down, num_outputs)
        num_samples = sampling_rate_hz * ECG_SECONDS
        padded_CT = np.zeros((len(ECG_LEADS), num_samples + 2 * margin), np.float32)
        self.signal_CT = padded_CT[:, margin : margin + num_samples]
        self._stretches_CSI = sliding_window_view(padded_CT, len(self._matrix_IO), axis=1)[:, ::step]
        self._gathered_CSI = np.empty(self._stretches_CSI.shape, np.float32)

    def resample(self, num_leads: int) -> NDArray[np.float32]:
        """The first leads of ``signal_CT`` at 100 Hz."""
        gathered_CSI = self._gathered_CSI[:num_leads]
        gathered_CSI[:] = self._stretches_CSI[:num_leads]
        out: NDArray[np.float32] = gathered_CSI.reshape(-1, len(self._matrix_IO)) @ self._matrix_IO
        return out.reshape(num_leads, -1)


@lru_cache
def resampler_of(sampling_rate_hz: int) -> Resampler:
    """The resampler of a rate; one for the whole process."""
    return Resampler(sampling_rate_hz)


def _banded_matrix(up: int, down: int, num_outputs: int) -> tuple[NDArray[np.float32], int, int]:
    """Output o is the sum over i of filter[o * down - i * up] * input i (scipy's polyphase form).

    Returns:
        the matrix (I, O), the samples that it needs before and after a stretch, and the samples from one stretch to
        the next.
    """
    reach = HALF_LENGTH * max(up, down)
    place = np.arange(-reach, reach + 1)
    lowpass = np.sinc(place / max(up, down)) * np.kaiser(len(place), KAISER_BETA)
    lowpass *= up / lowpass.sum()
    step, margin = num_outputs * down // up, ceil(reach / up)
    place_IO = np.arange(num_outputs) * down - np.arange(-margin, step + margin)[:, None] * up
    matrix_IO = np.where(abs(place_IO) <= reach, lowpass[np.clip(place_IO + reach, 0, 2 * reach)], 0.0)
    return matrix_IO.astype(np.float32), margin, step
