"""One matrix product against scipy, which it must equal everywhere, the ends included."""

import numpy as np
import pytest
from scipy.signal import resample_poly

from readers.ecg.resampling import resampler_of


@pytest.mark.parametrize("hz", [50, 100, 125, 128, 240, 250, 257, 360, 480, 500, 512, 977, 1000, 2000])
def test_equals_resample_poly(hz: int) -> None:
    rng = np.random.default_rng(hz)
    signal_CT = rng.normal(0, 1000, (12, 10 * hz)).cumsum(axis=1).clip(-32768, 32767)
    resampler = resampler_of(hz)
    resampler.signal_CT[:] = signal_CT
    expected_CT = resample_poly(signal_CT, 100, hz, axis=1)
    assert expected_CT.shape == (12, 1000)
    np.testing.assert_allclose(resampler.resample(12), expected_CT, atol=0.05)  # of 32,768


def test_a_record_with_fewer_leads_leaves_nothing_of_the_one_before() -> None:
    resampler = resampler_of(500)
    resampler.signal_CT[:] = 1000.0
    full_CT = resampler.resample(12)
    resampler.signal_CT[:3] = 0.0
    assert not resampler.resample(3).any()
    np.testing.assert_array_equal(resampler.resample(12)[3:], full_CT[3:])
