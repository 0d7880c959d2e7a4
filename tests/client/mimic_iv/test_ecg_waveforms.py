"""ECG records: equal to wfdb and scipy where those are right, rejected with a reason where they would be silent."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wfdb
from scipy.signal import resample_poly

from client.mimic_iv.ecg_waveforms import (
    LIMIT_UV,
    RejectedRecordError,
    read_ecg,
    read_plain,
    read_with_wfdb,
    write_ecgs,
)
from lemof_model.features import ECG_LEADS

WriteRecord = Callable[..., None]
Samples = Callable[..., np.ndarray]
LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")


@pytest.mark.parametrize("gain", ["200.0(0)", "187.5(12)"])
def test_equals_wfdb_and_resample_poly(tmp_path: Path, write_record: WriteRecord, samples: Samples, gain: str) -> None:
    write_record(tmp_path / "1", samples(), gain=gain)
    record = wfdb.rdrecord(str(tmp_path / "1"))
    by_name = {name: record.p_signal[:, column] for column, name in enumerate(record.sig_name)}
    expected = np.stack([1000 * resample_poly(by_name[lead], 1, 5) for lead in ECG_LEADS]).clip(-LIMIT_UV, LIMIT_UV)
    ecg = read_ecg(tmp_path / "1", (500,))
    assert ecg.shape == (12, 1000)
    assert ecg.dtype == np.int16
    assert np.abs(ecg - expected).max() <= 0.5 + 1e-6
    assert len(np.unique(ecg)) > 100


@pytest.mark.parametrize("hz", [250, 360, 1000])
def test_an_accepted_frequency_is_resampled(
    tmp_path: Path, write_record: WriteRecord, samples: Samples, hz: int
) -> None:
    stored = samples(num_samples=10 * hz)
    write_record(tmp_path / "1", stored, hz=hz)
    expected = resample_poly(stored[:, 0] * 5.0, 100, hz).clip(-LIMIT_UV, LIMIT_UV)
    np.testing.assert_allclose(read_ecg(tmp_path / "1", (500, hz))[0], expected, atol=0.5 + 1e-6)


def test_direct_reading_equals_wfdb(tmp_path: Path, write_record: WriteRecord, samples: Samples) -> None:
    write_record(tmp_path / "1", samples(), gain="187.5(12)")
    plain, slow = read_plain(tmp_path / "1"), read_with_wfdb(tmp_path / "1")
    assert plain is not None
    for name, value in vars(slow).items():
        np.testing.assert_array_equal(getattr(plain, name), value)


def test_what_is_not_plain_goes_through_wfdb(tmp_path: Path, samples: Samples) -> None:
    signal = samples() / 200
    wfdb.wrsamp(
        "1", 500, ["mV"] * 12, list(LEADS), signal, fmt=["212"] * 12, adc_gain=[100] * 12, baseline=[0] * 12,
        write_dir=str(tmp_path),
    )  # fmt: skip
    assert read_plain(tmp_path / "1") is None
    expected = resample_poly(np.rint(signal[:, 0] * 100) * 10, 1, 5).clip(-LIMIT_UV, LIMIT_UV)
    np.testing.assert_allclose(read_ecg(tmp_path / "1", (500,))[0], expected, atol=0.5 + 1e-6)


def test_records_that_wfdb_writes_are_plain(tmp_path: Path, samples: Samples) -> None:
    signal = samples() / 200
    signal[100:200, 0] = np.nan
    wfdb.wrsamp(
        "1", 500, ["mV"] * 12, list(LEADS), signal, fmt=["16"] * 12, adc_gain=[200] * 12, baseline=[0] * 12,
        write_dir=str(tmp_path),
    )  # fmt: skip
    assert read_plain(tmp_path / "1") is not None
    gap_uv = 1000 * np.interp(np.arange(100, 200), [99, 200], signal[[99, 200], 0])
    ecg = read_ecg(tmp_path / "1", (500,))
    np.testing.assert_allclose(ecg[0, 25:35], gap_uv[25:75:5], atol=20)


def test_flat_and_lost_leads_are_zero_and_artefacts_clipped(
    tmp_path: Path, write_record: WriteRecord, samples: Samples
) -> None:
    stored = samples()
    stored[:, 0] = 500
    stored[:, 1] = -32768
    stored[2000:2500, 2] = 4000  # 20 mV
    write_record(tmp_path / "1", stored)
    ecg = read_ecg(tmp_path / "1", (500,))
    assert not ecg[:2].any()
    assert ecg[2, 450] == ecg.max() == LIMIT_UV


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("checksum wrong", {"checksum_error": 5}),
        ("unit not mV", {"unit": "uV"}),
        ("sampling frequency not accepted", {"hz": 250}),
        ("not 10 seconds long", {"num_samples": 4999}),
        ("a lead missing or repeated", {"names": [*LEADS[:11], "V7"]}),
        ("a lead missing or repeated", {"names": [*LEADS[:11], "V5"]}),
        ("no lead has a signal", {"flat": True}),
        ("file missing", {"delete": ".dat"}),
        ("file missing", {"delete": ".hea"}),
        ("file damaged", {"cut": ".dat"}),
        ("file damaged", {"cut": ".hea"}),
    ],
)
def test_what_cannot_be_used_is_rejected_with_its_reason(
    tmp_path: Path, write_record: WriteRecord, samples: Samples, reason: str, change: dict[str, object]
) -> None:
    stored = samples(num_samples=change.pop("num_samples", 5000)) * (0 if change.pop("flat", False) else 1)
    delete, cut = change.pop("delete", None), change.pop("cut", None)
    write_record(tmp_path / "1", stored, **change)
    if delete:
        (tmp_path / f"1{delete}").unlink()
    if cut:
        file = tmp_path / f"1{cut}"
        file.write_bytes(file.read_bytes()[: len(file.read_bytes()) // 2 + 1])
    with pytest.raises(RejectedRecordError) as caught:
        read_ecg(tmp_path / "1", (500,))
    assert str(caught.value) == reason


def test_records_are_written_one_after_the_other(tmp_path: Path, write_record: WriteRecord, samples: Samples) -> None:
    for number in range(3):
        write_record(tmp_path / str(number), samples(number), checksum_error=int(number == 1))
    row_of, rejected = write_ecgs(tmp_path / "ecg.npy", tmp_path, ["0", "1", "2"], (500,))
    assert (row_of, rejected) == ({"0": 0, "2": 1}, {"1": "checksum wrong"})
    stored = np.load(tmp_path / "ecg.npy", mmap_mode="r")
    expected = np.stack([read_ecg(tmp_path / name, (500,)) for name in "02"])
    np.testing.assert_array_equal(stored, expected)
    np.save(tmp_path / "plain.npy", expected)
    assert (tmp_path / "ecg.npy").read_bytes() == (tmp_path / "plain.npy").read_bytes()
