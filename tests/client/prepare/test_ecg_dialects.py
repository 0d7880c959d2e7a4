"""WFDB records as other hospitals and converters write them: equal to wfdb's physical signal where wfdb reads them, and
to the same record in MIMIC's own words where it does not."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb
from scipy.signal import resample_poly

from client.site import EcgData
from lemof_model.ecg_leads import lead_of
from lemof_model.features import ECG_LEADS
from readers.ecg.faults import Reason, RejectedRecordError
from readers.ecg.header import Header, parse_header
from readers.ecg.record import LIMIT_UV, read_ecg, read_record

LEADS = ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]  # the order of MIMIC-IV-ECG
TOLERANCE_UV = 0.5 + 1e-2  # what rounding to whole microvolts takes away
MICROVOLTS = {"mV": 1000.0, "uV": 1.0}

Samples = Callable[..., np.ndarray]
Change = Callable[[str], str]


def ecg_data(root: Path, **settings: Any) -> EcgData:
    return EcgData.model_validate({"root": root, **settings}, context={"folder": root})


def plain_header(samples_TC: np.ndarray, line: str = "r.dat 16 200.0(0)/mV 16 0 {first} {sum} 0 {lead}") -> str:
    """A header as MIMIC-IV-ECG has it, or with other signal lines."""
    lines = ["r 12 500 5000"]
    for column, lead in enumerate(LEADS):
        checksum = int(samples_TC[:, column].sum()) % 65536
        lines.append(line.format(first=samples_TC[0, column], sum=checksum, lead=lead, column=column))
    return "\n".join(lines) + "\n"


def write(folder: Path, samples_TC: np.ndarray, header: str | bytes, preamble: int = 0) -> EcgData:
    """Write record ``r`` in format 16."""
    (folder / "r.dat").write_bytes(bytes(preamble) + samples_TC.astype("<i2").tobytes())
    (folder / "r.hea").write_bytes(header if isinstance(header, bytes) else header.encode())
    return ecg_data(folder)


def resampled(physical_TC: np.ndarray, names: Sequence[str], microvolts: float = 1000.0, hz: int = 500) -> np.ndarray:
    """Physical signals in the cohort's form."""
    columns = [[name.upper() for name in names].index(lead.upper()) for lead in ECG_LEADS]
    signal_CT = resample_poly(physical_TC.T[columns] * microvolts, 100, hz, axis=1)
    return signal_CT.clip(-LIMIT_UV, LIMIT_UV)


def by_wfdb(folder: Path, microvolts: float = 1000.0) -> np.ndarray:
    record = wfdb.rdrecord(str(folder / "r"))
    return resampled(record.p_signal, record.sig_name, microvolts)


def rejection(ecg: EcgData) -> RejectedRecordError:
    with pytest.raises(RejectedRecordError) as caught:
        read_ecg(ecg, "r")
    return caught.value


@pytest.mark.parametrize(
    "line",
    [
        "r.dat 16 200.0(0)/mV 16 0 {first} {sum} 0 {lead}",
        "r.dat 16 200.0(0)/mV 16 0 {first} {sum} {lead}",
        "r.dat 16 200.0(0)/mV 16 0 {first} {lead}",
        "r.dat 16 200.0(0)/mV 16 0 {lead}",
        "r.dat 16 200.0(0)/mV 16 {lead}",
        "r.dat 16 200.0(0)/mV {lead}",
        "r.dat 16 200/mV 16 0 0 0 0 {lead}",  # nobody computed the checksums
        "r.dat 16 200/mV 16 0 {first} {sum} 0 {lead}",
        "r.dat 16 200 16 0 {first} {sum} 0 {lead}",
        "r.dat 16 200 {lead}",
        "r.dat 16 200. 12 0 {first} {sum} 512 {lead}",
        "r.dat 16 2e2 12 0 {first} {sum} 0 {lead}",
        "r.dat 16 200(7) 16 0 {first} {sum} 0 {lead}",
        "r.dat 16 200(-7)/mV 0 0 {first} {sum} 0 {lead}",
        "r.dat 16 187.5(12) 16 -100 {first} {sum} 0 {lead}",
        "r.dat 16 200 11 64 {first} {sum} 0 {lead}",  # as MIT-BIH: the ADC zero is the baseline
        "r.dat 16 200/mV 11 -9 {lead}",
        "r.dat 16 200.0(0)/mv 16 0 {first} {sum} 0 {lead}",  # PTB-XL in CinC 2021
        "r.dat 16 200.0(0)/MV 16 0 {first} {sum} 0 {lead}",
        "r.dat 16 200.0(0)/millivolts 16 0 {first} {sum} 0 {lead}",
        "r.dat 16x1 200/mV 16 0 {first} {sum} 0 {lead}",
        "r.dat 16x1:0+0 200/mV 16 0 {first} {sum} 0 {lead}",
        "  r.dat\t16 200.0(0)/mV  16 0  {first} {sum}\t0 {lead}  ",
    ],
)
def test_signal_lines(tmp_path: Path, samples: Samples, line: str) -> None:
    stored = samples()
    header = plain_header(stored, line)
    ecg = write(tmp_path, stored, header)
    found = read_record(ecg, "r")
    assert np.abs(found.ecg_CT - by_wfdb(tmp_path)).max() <= TOLERANCE_UV
    assert len(np.unique(found.ecg_CT)) > 100
    assert found.is_verified == ("{sum}" in line)
    parsed = parse_header(header, ecg)
    assert isinstance(parsed, Header) and parsed.layout.plain_offset == 0


@pytest.mark.parametrize(
    ("line", "unit"),
    [
        ("r.dat 16 .2(0)/uV 16 0 {first} {sum} 0 {lead}", "uV"),
        ("r.dat 16 0.2/UV 16 0 {first} {sum} 0 {lead}", "uV"),
        ("r.dat 16 2e-1/microvolt 16 0 {first} {sum} 0 {lead}", "uV"),
        ("r.dat 16 0.2(0)/µV 16 0 {first} {sum} 0 {lead}", "uV"),  # wfdb reads the number, and calls it V
        ("r.dat 16 0.2(0)/μV 16 0 {first} {sum} 0 {lead}", "uV"),
    ],
)
def test_microvolts_by_the_header(tmp_path: Path, samples: Samples, line: str, unit: str) -> None:
    stored = samples()
    for encoding in ("utf-8", "cp1252" if "μ" not in line else "utf-8"):
        ecg = write(tmp_path, stored, plain_header(stored, line).encode(encoding))
        assert np.abs(read_ecg(ecg, "r") - by_wfdb(tmp_path, MICROVOLTS[unit])).max() <= TOLERANCE_UV


def test_each_signal_has_its_own_unit(tmp_path: Path, samples: Samples) -> None:
    stored = samples()
    usual = read_ecg(write(tmp_path, stored, plain_header(stored)), "r")
    gains = ["200/mV", "0.2/uV", "200000(0)/V", "200/mv", "2e-4/nV", "200(0)/Millivolt"] * 2
    header = plain_header(stored, "r.dat 16 GAIN 16 0 {first} {sum} 0 {lead}")
    for gain in gains:
        header = header.replace("GAIN", gain, 1)
    np.testing.assert_allclose(read_ecg(write(tmp_path, stored, header), "r"), usual, atol=1)


@pytest.mark.parametrize(
    "record",
    [
        "r 12 500.0 5000", "r 12 500. 5000", "r 12 500/500 5000", "r 12 500/500(0) 5000", "r 12 500/360.5(-1.5) 5000",
        "r 12 500.00/1000.0(12.5) 5000", "r 12 500", "  r  12\t500   5000", "r 12 500 5000 0:0:0",
        "r 12 500 5000 12:30",
        "r 12 500 5000 14:50:55.250 05/05/2020", "r 12 500 5000 14:50:55 5/5/2020",
        "r 12 500 5000 5 May 2020", "r 12 500 5000 []", "r 12 500 5000 # 5/5/2020",
    ],
)  # fmt: skip
def test_record_lines_that_wfdb_reads(tmp_path: Path, samples: Samples, record: str) -> None:
    stored = samples()
    ecg = write(tmp_path, stored, plain_header(stored).replace("r 12 500 5000", record))
    assert np.abs(read_ecg(ecg, "r") - by_wfdb(tmp_path)).max() <= TOLERANCE_UV


@pytest.mark.parametrize(
    "record",
    [
        "r.mat 12 500 5000 05-May-2020 14:50:55", "r.dat 12 500 5000", "r 12 500 5000 2014-05-08 05:05:15",
        "r 12 500 5000 2006", "r 12 500 5000 14:50:55 05.05.2020", "r 12 500 5000 14:50:55 05/05/20",
        "r 12 500 5000 05/05/2020", "r 12 500 5000 24:00:00", "1.2.840.113619 12 500 5000",
        "r 12 5e2 5000", "r 12 500 5000.0", "r 12 500 0", "r 12 500 5e3 00:00", "a/r 12 500 5000",
    ],
)  # fmt: skip
def test_record_lines_that_wfdb_refuses(tmp_path: Path, samples: Samples, record: str) -> None:
    """Nothing in these decides the signal, or what does is as the specification has it."""
    stored = samples()
    usual = read_ecg(write(tmp_path, stored, plain_header(stored)), "r")
    for line in ("r.dat 16 200.0(0)/mV 16 0 {first} {sum} 0 {lead}", "r.dat 16 200/mV 16 0 {first} {sum} {lead}"):
        ecg = write(tmp_path, stored, plain_header(stored, line).replace("r 12 500 5000", record))
        np.testing.assert_array_equal(read_ecg(ecg, "r"), usual)
    try:
        found = wfdb.rdrecord(str(tmp_path / "r"), physical=False)
        readable = (found.fs, found.d_signal.shape) == (500, (5000, 12))  # 5e2 is 5 Hz to it
    except Exception:
        readable = False
    assert not readable, "then it belongs to the other test"


def latin(text: str) -> bytes:
    return text.encode("cp1252")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: text.replace("\n", "\n\n \t\n").encode(),
        lambda text: text.replace("\n", "\n  # a comment\n").encode(),
        lambda text: f"# first\n#\n{text}#Dx: 1, 2\n# <age>: ü".encode(),
        lambda text: f"\ufeff{text}".encode(),
        lambda text: f"\ufeff# first\n{text}".encode(),
        lambda text: latin(f"{text}# Größe … später\n"),  # as Latin-1 the ellipsis would end a line
        lambda text: text.strip().encode(),
        lambda text: f"{text}r.dat 16 200/mV 16 0 0 5 0 a signal too many\n".encode(),
    ],
    ids=["CRLF", "CR", "blank lines", "comments", "comments around", "mark", "mark and comment", "cp1252", "no end",
         "line too many"],
)  # fmt: skip
def test_lines_and_comments(tmp_path: Path, samples: Samples, change: Callable[[str], bytes]) -> None:
    stored = samples()
    usual = read_ecg(write(tmp_path, stored, plain_header(stored)), "r")
    np.testing.assert_array_equal(read_ecg(write(tmp_path, stored, change(plain_header(stored))), "r"), usual)


@pytest.mark.parametrize("modulo", [0, 65536])
def test_checksums_are_signed_or_not(tmp_path: Path, samples: Samples, modulo: int) -> None:
    stored = samples()
    line = "r.dat 16 200/mV 16 0 {first} {sum} 0 {lead}"
    lines = plain_header(stored, line).splitlines()
    signed = [" ".join([*row[:6], str(int(row[6]) - modulo), *row[7:]]) for row in map(str.split, lines[1:])]
    ecg = write(tmp_path, stored, "\n".join([lines[0], *signed]))
    assert read_record(ecg, "r").is_verified
    stored[7, 3] += 1
    write(tmp_path, stored, "\n".join([lines[0], *signed]))
    assert (rejection(ecg).reason, rejection(ecg).detail) == (Reason.CHECKSUM, "aVR")


def test_some_leads_have_a_checksum(tmp_path: Path, samples: Samples) -> None:
    stored = samples()
    header = plain_header(stored).splitlines()
    header[1:7] = [f"{row.rsplit(None, 4)[0]} {row.split()[-1]}" for row in header[1:7]]
    ecg = write(tmp_path, stored, "\n".join(header))
    assert not read_record(ecg, "r").is_verified
    stored[0, 0] += 1
    write(tmp_path, stored, "\n".join(header))
    read_ecg(ecg, "r")
    stored[0, 11] += 1
    write(tmp_path, stored, "\n".join(header))
    assert rejection(ecg).detail == "V6"


def test_a_preamble_is_passed_over(tmp_path: Path, samples: Samples) -> None:
    """.mat files of the CinC challenges: 24 bytes, then format 16."""
    stored = samples()
    header = plain_header(stored, "r.dat 16x1+24 200.0(0)/mv 16 0 {first} {sum} 0 {lead}")
    ecg = write(tmp_path, stored, header, preamble=24)
    parsed = parse_header(header, ecg)
    assert isinstance(parsed, Header) and parsed.layout.plain_offset == 24
    assert np.abs(read_ecg(ecg, "r") - by_wfdb(tmp_path)).max() <= TOLERANCE_UV
    write(tmp_path, stored, header)
    assert str(rejection(ecg)) == f"{Reason.SIZE}: 120,000 bytes, header says 120,024"


def test_a_longer_file_is_read_where_checksums_vouch_for_it(tmp_path: Path, samples: Samples) -> None:
    stored = samples(num_samples=6000)
    ecg = write(tmp_path, stored, plain_header(stored[:5000]))
    assert np.abs(read_ecg(ecg, "r") - by_wfdb(tmp_path)).max() <= TOLERANCE_UV
    write(tmp_path, stored, plain_header(stored[:5000], "r.dat 16 200/mV 16 0 {lead}"))
    assert rejection(ecg).reason == Reason.SIZE


@pytest.mark.parametrize("kind", ["80", "212", "16", "24", "32", "508", "516", "524"])
@pytest.mark.parametrize("has_length", [True, False])
def test_formats_that_wfdb_writes(tmp_path: Path, samples: Samples, kind: str, has_length: bool) -> None:
    signal = samples() / 400
    gain = 30 if kind in ("80", "508") else 200
    wfdb.wrsamp("r", 500, ["mV"] * 12, LEADS, signal, fmt=[kind] * 12, adc_gain=[gain] * 12, baseline=[7] * 12,
                write_dir=str(tmp_path))  # fmt: skip
    header = tmp_path / "r.hea"
    ecg = ecg_data(tmp_path)
    if not has_length:
        header.write_text(header.read_text().replace("r 12 500 5000", "r 12 500"))
        if kind.startswith("5"):
            assert str(rejection(ecg)) == f"{Reason.LENGTH}: format {kind}"
            return
    found = read_record(ecg, "r")
    assert found.is_verified == has_length
    assert np.abs(found.ecg_CT - by_wfdb(tmp_path)).max() <= TOLERANCE_UV


def packed(kind: str, samples_TC: np.ndarray) -> bytes:
    """Samples in a format that wfdb reads and does not write, by signal(5)."""
    if kind == "61":
        return samples_TC.astype(">i2").tobytes()
    if kind == "160":
        return (samples_TC.astype(np.int32) + 32768).astype("<u2").tobytes()
    if kind == "8":
        return np.diff(samples_TC, axis=0, prepend=samples_TC[:1]).astype(np.int8).tobytes()
    flat = samples_TC.reshape(-1, 3).astype(np.int64) & 0x3FF
    if kind == "311":
        return (flat[:, 0] | flat[:, 1] << 10 | flat[:, 2] << 20).astype("<u4").tobytes()
    first = flat[:, 0] << 1 | (flat[:, 2] & 0x1F) << 11
    return np.stack([first, flat[:, 1] << 1 | (flat[:, 2] >> 5) << 11], axis=1).astype("<u2").tobytes()


@pytest.mark.parametrize("kind", ["8", "61", "160", "310", "311"])
def test_formats_that_wfdb_only_reads(tmp_path: Path, samples: Samples, kind: str) -> None:
    stored = (samples() / 3).clip(-500, 500).astype(np.int16)
    ecg = write(tmp_path, stored, plain_header(stored, f"r.dat {kind} 70(3) 16 0 {{first}} {{sum}} 0 {{lead}}"))
    (tmp_path / "r.dat").write_bytes(packed(kind, stored))
    np.testing.assert_array_equal(wfdb.rdrecord(str(tmp_path / "r"), physical=False).d_signal, stored)
    found = read_record(ecg, "r")
    assert found.is_verified
    assert np.abs(found.ecg_CT - by_wfdb(tmp_path)).max() <= TOLERANCE_UV
    (tmp_path / "r.dat").write_bytes(packed(kind, stored)[:-9])
    assert rejection(ecg).reason == Reason.SIZE


def test_gaps_in_any_format(tmp_path: Path, samples: Samples) -> None:
    signal = samples() / 400
    signal[100:200, 0] = np.nan
    found = []
    for kind in ("16", "212", "24", "32"):
        wfdb.wrsamp("r", 500, ["mV"] * 12, LEADS, signal, fmt=[kind] * 12, adc_gain=[200] * 12, baseline=[0] * 12,
                    write_dir=str(tmp_path))  # fmt: skip
        found.append(read_ecg(ecg_data(tmp_path), "r"))
    for others in found[1:]:
        np.testing.assert_array_equal(others, found[0])


@pytest.mark.parametrize("files", ["abababababab", "aaaaaabbbbbb", "abcdefghijkl"])
@pytest.mark.parametrize("kinds", [("16", "16"), ("16", "80"), ("212", "24")])
def test_several_signal_files(tmp_path: Path, samples: Samples, files: str, kinds: tuple[str, str]) -> None:
    """wfdb wants the signals of a file together; the numbers are the same in any order."""
    stored = (samples() / 8).clip(-100, 100).astype(np.int16)
    usual = read_ecg(write(tmp_path, stored, plain_header(stored)), "r")
    header = ["r 12 500 5000"]
    for column, (lead, file) in enumerate(zip(LEADS, files, strict=True)):
        kind = kinds[ord(file) % 2]
        checksum = int(stored[:, column].sum())
        header.append(f"{file}.dat {kind} 200/mV 12 0 {stored[0, column]} {checksum} 0 {lead}")
    for file in set(files):
        own_TC = stored[:, [column for column, name in enumerate(files) if name == file]]
        kind = kinds[ord(file) % 2]
        wfdb.wrsamp(f"write_{file}", 500, ["mV"] * own_TC.shape[1], LEADS[: own_TC.shape[1]], d_signal=own_TC,
                    fmt=[kind] * own_TC.shape[1], adc_gain=[200.0] * own_TC.shape[1], baseline=[0] * own_TC.shape[1],
                    write_dir=str(tmp_path))  # fmt: skip
        (tmp_path / f"write_{file}.dat").rename(tmp_path / f"{file}.dat")
    (tmp_path / "r.hea").write_text("\n".join(header))
    np.testing.assert_array_equal(read_ecg(ecg_data(tmp_path), "r"), usual)


def test_signals_that_are_no_leads_may_be_anything(tmp_path: Path, samples: Samples) -> None:
    stored = samples()
    usual = read_ecg(write(tmp_path, stored, plain_header(stored)), "r")
    header = plain_header(stored).replace("r 12", "r 14")
    others = ["gone.dat 0 7/mmHg 0 0 0 0 0 ABP", "~ 77x3:4+5 0(0)/% 0"]
    np.testing.assert_array_equal(read_ecg(write(tmp_path, stored, header + "\n".join(others)), "r"), usual)


def test_skew_moves_a_signal_forward(tmp_path: Path, samples: Samples) -> None:
    """As wfdb does it for one skew; it refuses two different ones. Behind the end the last value stands."""
    stored = samples()
    header = plain_header(stored, "r.dat 16:SKEW 200/mV 16 0 {first} {sum} 0 {lead}")

    def with_skews(skews: Sequence[int]) -> EcgData:
        text = header
        for skew in skews:
            text = text.replace("SKEW", str(skew), 1)
        return write(tmp_path, stored, text)

    ecg = with_skews([0, 30] * 6)
    found = read_record(ecg, "r")
    assert found.is_verified
    assert np.abs(found.ecg_CT[:, :985] - by_wfdb(tmp_path)[:, :985])[:, :980].max() <= TOLERANCE_UV
    skews = [0, 30, 5, 0, 11, 2, 0, 0, 1, 2, 3, 4]
    found = read_record(with_skews(skews), "r")
    moved = np.stack([np.append(stored[late:, c], np.full(late, stored[-1, c])) for c, late in enumerate(skews)], 1)
    assert np.abs(found.ecg_CT - resampled(moved / 200, LEADS)).max() <= TOLERANCE_UV
    with pytest.raises(ValueError, match="broadcast"):
        wfdb.rdrecord(str(tmp_path / "r"))


def test_behind_a_skewed_end_that_was_not_measured_the_last_known_value_stands(
    tmp_path: Path, samples: Samples
) -> None:
    stored, late = samples(), 30
    stored[-1] = -32768
    header = plain_header(stored, f"r.dat 16:{late} 200/mV 16 0 {{first}} {{sum}} 0 {{lead}}")
    found = read_record(write(tmp_path, stored, header), "r")
    moved = np.vstack([stored[late:-1], np.repeat(stored[-2:-1], late + 1, axis=0)])
    assert np.abs(found.ecg_CT - resampled(moved / 200, LEADS)).max() <= TOLERANCE_UV


def test_several_samples_a_frame_are_averaged_as_wfdb_does_it(tmp_path: Path, samples: Samples) -> None:
    finer = samples(num_samples=20_000)
    frames = [1, 2, 4, 2, 1, 4, 2, 2, 2, 2, 2, 2]
    stored = [finer[:: 4 // num, column] for column, num in enumerate(frames)]
    lines = ["r 12 500 5000"]
    for column, (lead, num) in enumerate(zip(LEADS, frames, strict=True)):
        first, checksum = stored[column][0], int(stored[column].sum())
        lines.append(f"r.dat 16x{num} 200(3)/mV 16 0 {first} {checksum} 0 {lead}")
    (tmp_path / "r.hea").write_text("\n".join(lines))
    in_frames = np.hstack([own.reshape(5000, -1) for own in stored])
    in_frames.astype("<i2").tofile(tmp_path / "r.dat")
    found = read_record(ecg_data(tmp_path), "r")
    assert found.is_verified
    assert np.abs(found.ecg_CT - by_wfdb(tmp_path)).max() <= TOLERANCE_UV
    in_frames[600:650, 3:5] = -32768  # III: wfdb averages the mark of a gap with what is beside it
    in_frames.astype("<i2").tofile(tmp_path / "r.dat")
    (tmp_path / "r.hea").write_text("\n".join(line.replace(" 0 III", "III") for line in lines))
    (tmp_path / "r.hea").write_text("\n".join([" ".join([*line.split()[:5], line.split()[-1]]) for line in lines]))
    assert np.abs(read_ecg(ecg_data(tmp_path), "r").astype(int) - found.ecg_CT).max() < 1000


@pytest.mark.parametrize(
    "names",
    [
        "i ii iii avr avf avl v1 v2 v3 v4 v5 v6".split(),  # LUDB
        "I II III AVR AVF AVL V1 V2 V3 V4 V5 V6".split(),
        "DI DII DIII AVR AVF AVL V1 V2 V3 V4 V5 V6".split(),
        [f"MDC_ECG_LEAD_{lead.upper()}" for lead in LEADS],
        [f"Lead {lead}" for lead in LEADS],
        [f"lead_{lead}" for lead in LEADS],
        [f"ECG_{lead}." for lead in LEADS],
        ["I.", "II.", "III.", "aVR", "aVF", "aVL", "C1", "C2", "C3", "C4", "C5", "C6"],
        ["Lead I (Einthoven)", "Lead II", "Lead III", *(f"Lead {lead}" for lead in LEADS[3:])],
    ],
)
def test_spellings_of_leads(tmp_path: Path, samples: Samples, names: list[str]) -> None:
    stored = samples()
    usual = read_ecg(write(tmp_path, stored, plain_header(stored)), "r")
    header = plain_header(stored, "r.dat 16 200/mV 16 0 {first} {sum} 0 <{lead}>")
    for lead, name in zip(LEADS, names, strict=True):
        header = header.replace(f"<{lead}>", name)
    np.testing.assert_array_equal(read_ecg(write(tmp_path, stored, header), "r"), usual)


@pytest.mark.parametrize(
    "name", ["", "VX", "V7", "V3R", "-aVR", "aVR-", "IV", "lead", "lead IV", "II and V1", "V", "1"]
)
def test_other_signals_are_no_leads(name: str) -> None:
    assert lead_of(name) is None


def segmented(folder: Path, stored: np.ndarray, *, is_variable: bool = False) -> EcgData:
    """Record ``r`` in three segments with gains, formats and order of their own."""
    lengths, gains = (1500, 500, 3000), ("200(0)", "100(50)", "200(0)")
    start, lines = 0, []
    for number, (length, gain) in enumerate(zip(lengths, gains, strict=True)):
        order = list(range(12)) if number != 1 or not is_variable else list(range(11, 1, -1))
        part = stored[start : start + length][:, order]
        part = part // 2 + 50 if gain == "100(50)" else part
        header = [f"s{number} {len(order)} 500 {length}"]
        for column, lead in enumerate(order):
            first, checksum = part[0, column], int(part[:, column].sum())
            header.append(f"s{number}.dat 16 {gain}/mV 16 0 {first} {checksum} 0 {LEADS[lead]}")
        (folder / f"s{number}.hea").write_text("\n".join(header))
        part.astype("<i2").tofile(folder / f"s{number}.dat")
        lines.append(f"s{number} {length}")
        start += length
    if is_variable:
        layout = [f"~ 0 200/mV 16 0 0 0 0 {lead}" for lead in LEADS]
        (folder / "layout.hea").write_text("\n".join(["layout 12 500 0", *layout]))
        lines = ["layout 0", *lines[:2], "~ 400", lines[2].replace("3000", "2600")]
        part = stored[2000:4600]
        part.astype("<i2").tofile(folder / "s2.dat")
        rows = [line.split() for line in (folder / "s2.hea").read_text().replace("500 3000", "500 2600").splitlines()]
        for column, row in enumerate(rows[1:]):
            row[6] = str(int(part[:, column].sum()))
        (folder / "s2.hea").write_text("\n".join(map(" ".join, rows)))
    (folder / "r.hea").write_text(f"r/{len(lines)} 12 500 5000 10:00:00\n" + "\n".join(lines))
    return ecg_data(folder)


@pytest.mark.parametrize("is_variable", [False, True])
def test_segments(tmp_path: Path, samples: Samples, is_variable: bool) -> None:
    ecg = segmented(tmp_path, samples(), is_variable=is_variable)
    record = wfdb.rdrecord(str(tmp_path / "r"))
    time = np.arange(5000)
    for lead_T in record.p_signal.T:
        known = ~np.isnan(lead_T)
        lead_T[:] = np.interp(time, time[known], lead_T[known])
    assert is_variable == (not (~np.isnan(wfdb.rdrecord(str(tmp_path / "r")).p_signal)).all())
    found = read_record(ecg, "r")
    assert found.is_verified
    assert np.abs(found.ecg_CT - resampled(record.p_signal, LEADS)).max() <= TOLERANCE_UV


def test_a_segment_without_leads_is_a_gap(tmp_path: Path, samples: Samples) -> None:
    ecg = segmented(tmp_path, samples())
    (tmp_path / "s1.hea").write_text("s1 1 500 500\ns1.dat 16 1/mmHg 16 0 0 0 0 ABP")
    assert rejection(ecg).reason == Reason.FLAT, "a second without a sample"
    (tmp_path / "r.hea").write_text("r/1 12 500 5000\n~ 5000\nextra 7")
    assert rejection(ecg).reason == Reason.LEADS_MISSING


@pytest.mark.parametrize(
    ("reason", "file", "old", "new"),
    [
        (Reason.SEGMENTS, "r.hea", "s1 500", "s1"),
        (Reason.SEGMENTS, "r.hea", "s1 500", "s1 499"),
        (Reason.SEGMENTS, "r.hea", "s2 3000", ""),
        (Reason.SEGMENTS, "s1.hea", "s1 12", "s1/1 12"),
        (Reason.SEGMENTS, "r.hea", "s0 1500\ns1 500", "s0 1400\ns1 600"),
        (Reason.RATE, "s1.hea", "s1 12 500", "s1 12 250"),
        (Reason.DURATION, "r.hea", "12 500 5000 10:00:00\ns0 1500", "12 500\ns0 1400"),
        (Reason.HEADER_MISSING, "r.hea", "s1 500", "s7 500"),
        (Reason.OUTSIDE, "r.hea", "s1 500", "../s1 500"),
        (Reason.OUTSIDE, "s1.hea", "s1.dat", "../s1.dat"),
        (Reason.LEAD_REPEATED, "s1.hea", "V5", "V6"),
        (Reason.UNIT, "s1.hea", "mV", "adu"),
    ],
)
def test_segments_that_do_not_fit(
    tmp_path: Path, samples: Samples, reason: Reason, file: str, old: str, new: str
) -> None:
    ecg = segmented(tmp_path, samples())
    header = tmp_path / file
    assert old in header.read_text()
    header.write_text(header.read_text().replace(old, new))
    assert rejection(ecg).reason == reason
