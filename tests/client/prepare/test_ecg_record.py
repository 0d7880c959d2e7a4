"""ECG records: equal to wfdb and scipy where those are right, rejected with a reason where they would be silent."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb
from scipy.signal import resample_poly

from client.site import EcgData
from lemof_model.errors import DataError
from lemof_model.features import ECG_LEADS
from readers.ecg import record as ecg_record
from readers.ecg.faults import ADVICE, Reason, RejectedRecordError, Rejection, refuse_too_many
from readers.ecg.header import Header, parse_header
from readers.ecg.record import LIMIT_UV, has_flat_leads, read_ecg
from readers.ecg.samples import read_with_wfdb

WriteRecord = Callable[..., None]
Samples = Callable[..., np.ndarray]
LEADS = ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]
INVALID = -32768


def ecg_data(root: Path, **settings: Any) -> EcgData:
    return EcgData.model_validate({"root": root, **settings}, context={"folder": root})


def reference(path: Path, hz: int = 500) -> np.ndarray:
    """What everybody would write, for a record without gaps."""
    record = wfdb.rdrecord(str(path))
    by_name = {name.upper(): record.p_signal[:, column] for column, name in enumerate(record.sig_name)}
    microvolts = np.stack([1000 * resample_poly(by_name[lead.upper()], 100, hz) for lead in ECG_LEADS])
    return microvolts.clip(-LIMIT_UV, LIMIT_UV)


def rejection(ecg: EcgData, path: str) -> RejectedRecordError:
    with pytest.raises(RejectedRecordError) as caught:
        read_ecg(ecg, path)
    return caught.value


def test_equals_wfdb_and_resample_poly(tmp_path: Path, write_record: WriteRecord, samples: Samples) -> None:
    """Headers that differ in gain, baseline, order and rate follow each other, so a wrong cache would show."""
    rng = np.random.default_rng(0)
    ecg = ecg_data(tmp_path, accept_hz=[250, 500, 1000])
    for number in range(60):
        hz = int(rng.choice([250, 500, 500, 1000]))
        names = list(rng.permutation([name.lower() if number % 5 == 0 else name for name in LEADS]))
        path = tmp_path / f"r{number}"
        write_record(path, samples(number, 10 * hz), hz=hz, names=names, gain="GAIN")
        gains = rng.choice(["200.0(0)", "200(0)", "187.5(12)", "1000(-300)", "187.5(-12)"], 12)
        header = path.with_suffix(".hea")
        first, *others = header.read_text().split("GAIN")
        header.write_text(first + "".join(f"{gain}{text}" for gain, text in zip(gains, others, strict=True)))
        if number % 3 == 0:
            header.write_text(f"{header.read_text()}# <age>: ü\n", encoding="utf-8")
        found = read_ecg(ecg, path.name)
        assert found.dtype == np.int16
        assert np.abs(found - reference(path, hz)).max() <= 0.5 + 1e-2
        assert len(np.unique(found)) > 100


def test_a_cached_layout_is_not_used_for_other_settings(
    tmp_path: Path, write_record: WriteRecord, samples: Samples
) -> None:
    write_record(tmp_path / "1", samples(num_samples=2500), hz=250)
    assert rejection(ecg_data(tmp_path), "1").reason == Reason.RATE
    assert read_ecg(ecg_data(tmp_path, accept_hz=[250]), "1").any()
    assert rejection(ecg_data(tmp_path), "1").reason == Reason.RATE


@pytest.mark.parametrize("kind", ["16", "212", "24", "32"])
def test_wfdb_reads_what_is_not_plain(tmp_path: Path, samples: Samples, kind: str) -> None:
    signal = samples() / 400
    signal[100:200, 0] = np.nan
    wfdb.wrsamp(
        "1", 500, ["mV"] * 12, LEADS, signal, fmt=[kind] * 12, adc_gain=[200] * 12, baseline=[7] * 12,
        write_dir=str(tmp_path),
    )  # fmt: skip
    ecg = ecg_data(tmp_path)
    header = parse_header((tmp_path / "1.hea").read_text(), ecg)
    assert isinstance(header, Header) and (header.layout.plain_offset is None) == (kind != "16")
    found = read_ecg(ecg, "1")
    assert np.abs(found[1:] - reference(tmp_path / "1")[1:]).max() <= 0.5 + 1e-2
    gap_uv = 1000 * np.interp(np.arange(100, 200), [99, 200], signal[[99, 200], 0])
    np.testing.assert_allclose(found[0, 25:35], gap_uv[25:75:5], atol=20)


def test_plain_reading_equals_wfdb(
    tmp_path: Path, write_record: WriteRecord, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = samples()
    stored[100:300, 4] = INVALID
    write_record(tmp_path / "1", stored, gain="187.5(12)")
    plain = read_ecg(ecg_data(tmp_path), "1")
    monkeypatch.setattr(ecg_record, "read_samples", read_with_wfdb)
    np.testing.assert_array_equal(read_ecg(ecg_data(tmp_path), "1"), plain)


def test_up_to_five_flat_or_lost_leads_are_zero_and_artefacts_clipped(
    tmp_path: Path, write_record: WriteRecord, samples: Samples
) -> None:
    stored = samples()
    stored[:, 0] = 500
    stored[:, 1] = INVALID
    stored[2000:2500, 2] = 4000  # 20 mV
    write_record(tmp_path / "1", stored)
    found = read_ecg(ecg_data(tmp_path), "1")
    assert not found[:2].any()
    assert found[2, 450] == found.max() == LIMIT_UV


@pytest.mark.parametrize("value", [0, INVALID])
@pytest.mark.parametrize(("num_leads", "num_still", "is_dropped"), [(6, 500, True), (6, 499, False), (5, 5000, False)])
def test_a_second_without_signal_in_six_leads_drops_a_record(
    tmp_path: Path, write_record: WriteRecord, samples: Samples, num_leads: int, num_still: int, is_dropped: bool,
    value: int,
) -> None:  # fmt: skip
    stored = samples()
    for lead in range(num_leads):
        start = 0 if num_still == 5000 else 137 * (lead + 1)
        stored[start : start + num_still, lead] = value
        stored[start - 1 : start, lead] = stored[start + num_still : start + num_still + 1, lead] = 99
    write_record(tmp_path / "1", stored)
    if is_dropped:
        assert rejection(ecg_data(tmp_path), "1").reason == Reason.FLAT
    else:
        read_ecg(ecg_data(tmp_path), "1")


def test_flat_seconds_are_found_as_a_slow_search_finds_them() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        hz = int(rng.choice([20, 21, 50]))
        samples_CT = rng.integers(0, 9, (12, 10 * hz)).astype(np.int16)
        for lead in range(12):
            start, size = rng.integers(0, 9 * hz), rng.integers(hz - 3, hz + 3)
            samples_CT[lead, start : start + size] = 3
        slow = sum(
            any(np.ptp(samples_T[start : start + hz]) == 0 for start in range(9 * hz + 1)) for samples_T in samples_CT
        )
        allowed = int(rng.integers(0, 12))
        assert has_flat_leads(samples_CT, hz, allowed) == (slow > allowed)


def test_missing_leads_are_zero_where_the_site_says_so(
    tmp_path: Path, write_record: WriteRecord, samples: Samples
) -> None:
    write_record(tmp_path / "12", samples())
    write_record(tmp_path / "10", samples()[:, 2:], names=LEADS[2:])
    write_record(tmp_path / "6", samples()[:, 6:], names=LEADS[6:])
    zero = ecg_data(tmp_path, on_missing_lead="zero")
    expected = read_ecg(zero, "12")
    expected[:2] = 0
    np.testing.assert_array_equal(read_ecg(zero, "10"), expected)
    error = rejection(zero, "6")
    assert (error.reason, error.detail) == (Reason.LEADS_MISSING, "I II III aVR aVL aVF")
    assert rejection(ecg_data(tmp_path), "6").reason == Reason.LEADS_MISSING  # on_missing_lead would not help
    assert str(rejection(ecg_data(tmp_path), "10")) == "E204 lead missing: I II"


def test_flat_leads_count_with_missing_ones(tmp_path: Path, write_record: WriteRecord, samples: Samples) -> None:
    stored = samples()[:, 2:]
    stored[:, :4] = 0
    write_record(tmp_path / "1", stored, names=LEADS[2:])
    assert rejection(ecg_data(tmp_path, on_missing_lead="zero"), "1").reason == Reason.FLAT


def test_more_channels_than_twelve_leads_do_no_harm(
    tmp_path: Path, write_record: WriteRecord, samples: Samples
) -> None:
    stored = np.hstack([samples(1), samples(2)[:, :3]])
    write_record(tmp_path / "15", stored, names=[*LEADS, "Vx", "Vy", "Vz"])
    write_record(tmp_path / "12", samples(1))
    np.testing.assert_array_equal(read_ecg(ecg_data(tmp_path), "15"), read_ecg(ecg_data(tmp_path), "12"))


def test_microvolts_of_a_whole_site(tmp_path: Path, write_record: WriteRecord, samples: Samples) -> None:
    """The setting overrules headers; advice on it is given only where it would help."""
    for name, gain, unit in (("mv", "200(0)", "mV"), ("uv", "0.2(0)", "uV"), ("wrong", "0.2(0)", "mV"),
                             ("unknown", "0.2(0)", "adu"), ("small", "200000(0)", "mV")):  # fmt: skip
        write_record(tmp_path / name, samples(), gain=gain, unit=unit)
    by_header, all_uv = ecg_data(tmp_path), ecg_data(tmp_path, units="uV")
    expected = read_ecg(by_header, "mv")
    for ecg, name in ((by_header, "uv"), (all_uv, "uv"), (all_uv, "wrong"), (all_uv, "unknown")):
        np.testing.assert_array_equal(read_ecg(ecg, name), expected)
    assert rejection(all_uv, "mv").reason == Reason.NO_MICROVOLTS
    assert rejection(all_uv, "small").reason == Reason.AMPLITUDE
    assert rejection(by_header, "wrong").reason == Reason.MICROVOLTS
    assert str(rejection(by_header, "unknown")) == f"{Reason.UNIT}: adu"
    assert rejection(by_header, "small").reason == Reason.AMPLITUDE
    told = {reason for reason in Reason if "data.ecg.units: uV" in ADVICE[reason]}
    assert told == {Reason.MICROVOLTS, Reason.NO_MICROVOLTS}
    assert ADVICE[Reason.NO_MICROVOLTS].startswith("Take data.ecg.units: uV out")


@pytest.mark.parametrize(
    ("reason", "detail", "change"),
    [
        (Reason.CHECKSUM, "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6", {"checksum_error": 5}),
        (Reason.UNIT, "mmHg", {"unit": "mmHg"}),
        (Reason.RATE, "250 Hz", {"hz": 250}),
        (Reason.RATE, "499 Hz", {"hz": 499}),
        (Reason.RATE_BROKEN, "40 Hz", {"hz": 40}),
        (Reason.RATE_BROKEN, "500.5 Hz", {"hz": 500.5}),
        (Reason.DURATION, "9.998 s", {"num_samples": 4999}),
        (Reason.LEAD_MISSING, "V6", {"names": [*LEADS[:11], "V7"]}),
        (Reason.LEADS_MISSING, "aVR aVL aVF V1 V2 V3 V4 V5 V6", {"names": [*LEADS[:3], *"ABCDEFGHJ"]}),
        (Reason.LEAD_REPEATED, "V5", {"names": [*LEADS[:11], "Lead v5"]}),
        (Reason.UNNAMED, "", {"names": [""] * 12}),
        (Reason.GAIN, "0", {"gain": "0(0)"}),
        (Reason.GAIN, "-200", {"gain": "-200(0)"}),
        (Reason.GAIN_FIELD, "form '9,999/aa'", {"gain": "1,000"}),
        (Reason.MICROVOLTS, None, {"gain": "0.2(0)"}),
        (Reason.AMPLITUDE, None, {"gain": "200000(0)"}),
        (Reason.FLAT, "", {"flat": True}),
        (Reason.SIGNALS_MISSING, "", {"delete": ".dat"}),
        (Reason.HEADER_MISSING, "", {"delete": ".hea"}),
        (Reason.UNREADABLE, "Is a directory", {"folder": ".dat"}),
        (Reason.SIZE, "60,000 bytes, header says 120,000", {"cut": ".dat"}),
        (Reason.SIZE, "0 bytes, header says 120,000", {"empty": ".dat"}),
        (Reason.EMPTY, "", {"empty": ".dat", "head": "12 500 0"}),
        (Reason.EMPTY, "", {"empty": ".dat", "head": "12 500"}),
        (Reason.NUM_SIGNALS, "12 of 13", {"head": "13 500 5000"}),
        (Reason.NUM_SIGNALS, "12 of 0", {"head": "0 500 5000"}),
        (Reason.RECORD_LINE, "number of signals", {"head": "Hz 500"}),
        (Reason.RECORD_LINE, "number of signals", {"head": ""}),
        (Reason.RECORD_LINE, "number of signals", {"head": "² 500 5000"}),
        (Reason.RECORD_LINE, "sampling frequency", {"head": "12 500Hz 5000"}),
        (Reason.RECORD_LINE, "number of samples", {"head": "12 500 14:50:55"}),
        (Reason.RECORD_LINE, "number of samples", {"head": "12 500 5000.5"}),
        (Reason.RECORD_LINE, "number of samples", {"head": "12 500 -5000"}),
        (Reason.FORMAT, "form '99aaa'", {"kind": "16bit"}),
        (Reason.FORMAT, "form '99:-9'", {"kind": "16:-2"}),
        (Reason.FORMAT_UNKNOWN, "17", {"kind": "17"}),
        (Reason.SIGNAL_LINE, "", {"line": "1.dat"}),
        (Reason.NUM_SIGNALS, "6 of 12", {"cut": ".hea"}),
        (Reason.RECORD_LINE, "none", {"empty": ".hea"}),
        (Reason.RECORD_LINE, None, {"noise": ".hea"}),
    ],
)
def test_what_cannot_be_used_is_rejected_with_its_reason(
    tmp_path: Path, write_record: WriteRecord, samples: Samples, reason: Reason, detail: str | None,
    change: dict[str, Any],
) -> None:  # fmt: skip
    (tmp_path / "a b").mkdir()
    change = dict(change)
    stored = samples()[: change.pop("num_samples", None)] * (0 if change.pop("flat", False) else 1)
    head, kind, line = (change.pop(part, None) for part in ("head", "kind", "line"))
    damage = {kind: change.pop(kind, None) for kind in ("delete", "cut", "empty", "noise", "folder")}
    write_record(tmp_path / "a b/1", stored, **change)
    header = tmp_path / "a b/1.hea"
    if head is not None:
        header.write_text(header.read_text().replace("12 500 5000", head, 1))
    if kind is not None:
        header.write_text(header.read_text().replace("dat 16", f"dat {kind}"))
    if line is not None:
        header.write_text("\n".join([*header.read_text().splitlines()[:-1], line]))
    for kind, suffix in damage.items():
        if suffix:
            file = tmp_path / f"a b/1{suffix}"
            content = file.read_bytes()
            file.unlink()
            if kind == "folder":
                file.mkdir()
            elif kind != "delete":
                file.write_bytes(
                    {"cut": content[: len(content) // 2], "noise": np.random.default_rng(0).bytes(500)}.get(kind, b"")
                )
    error = rejection(ecg_data(tmp_path), "a b/1")
    assert error.reason == reason
    assert detail is None or error.detail == detail


def test_every_reason_has_its_code_and_its_advice() -> None:
    """Nobody is told to copy files whose header is at fault."""
    assert list(ADVICE) == list(Reason)
    for reason in Reason:
        assert reason[:5] in ("E202 ", "E203 ", "E204 ", "E205 ", "E206 ") and ": " not in reason
        assert "Copy" not in ADVICE[reason] or not any(part in reason for part in ("line", "field", "unit", "gain"))


def test_a_header_of_any_bytes_is_rejected_by_a_reason(
    tmp_path: Path, write_record: WriteRecord, samples: Samples
) -> None:
    """Bytes turned, lines lost and fields moved in a header raise nothing else, and take no time."""
    write_record(tmp_path / "1", samples())
    whole = (tmp_path / "1.hea").read_text()
    rng, ecg, num_read = np.random.default_rng(0), ecg_data(tmp_path), 0
    fields = [
        "",
        "9" * 5000,
        "1e999",
        "-1",
        "1-2",
        "~",
        "\ud55c",
        "(",
        "16x999999999:9+9",
        "508",
        "/",
        "\x00",
        "²",
        "1/3",
    ]
    for _ in range(400):
        lines = whole.splitlines()
        for _ in range(rng.integers(1, 4)):
            row, words = int(rng.integers(len(lines))), fields
            tokens = lines[row].split(" ")
            tokens[int(rng.integers(len(tokens)))] = words[int(rng.integers(len(words)))]
            lines[row] = " ".join(tokens)
        (tmp_path / "1.hea").write_text("\n".join(lines), encoding="utf-8")
        try:
            read_ecg(ecg, "1")
            num_read += 1
        except RejectedRecordError as error:
            assert error.reason in Reason
    assert 0 < num_read < 200


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("p1\\s1\\1", Reason.BACKSLASH),
        ("p1/s1/1.hea", Reason.SUFFIX),
        ("p1/s1/1.DAT", Reason.SUFFIX),
        ("/data/p1/s1/1", Reason.ABSOLUTE),
        ("C:\\data\\1", Reason.ABSOLUTE),
        ("C:/data/1", Reason.ABSOLUTE),
        ("p1/s1/2", Reason.HEADER_MISSING),
        ("p1/s1/1/2", Reason.HEADER_MISSING),
        ("../1", Reason.OUTSIDE),
        ("", Reason.HEADER_MISSING),
    ],
)
def test_a_path_that_leads_to_no_header_is_named_for_what_it_is(
    tmp_path: Path, write_record: WriteRecord, samples: Samples, path: str, reason: Reason
) -> None:
    write_record(tmp_path / "p1/s1/1", samples())
    write_record(tmp_path / "p1/s1/1.hea", samples())
    ecg = ecg_data(tmp_path)
    assert read_ecg(ecg, "p1/s1/1.hea").any(), "a name may end so"
    (tmp_path / "p1/s1/1.hea.hea").unlink()
    assert rejection(ecg, path).reason == reason
    assert "record list" in ADVICE[reason]


def test_records_outside_the_tree_are_refused(tmp_path: Path, write_record: WriteRecord, samples: Samples) -> None:
    root = tmp_path / "tree"
    write_record(tmp_path / "away/1", samples())
    write_record(root / "in/1", samples())
    (root / "in/1.hea").rename(root / "in/2.hea")
    (root / "in/1.hea").write_text((root / "in/2.hea").read_text().replace("1.dat", "../../away/1.dat"))
    (root / "linked").symlink_to(tmp_path / "away")
    (root / "within").symlink_to(root / "in")
    write_record(root / "file/1", samples())
    (root / "file/1.dat").unlink()
    (root / "file/1.dat").symlink_to(tmp_path / "away/1.dat")
    ecg = ecg_data(root)
    for path in ("linked/1", "../away/1", "in/../../away/1", "file/1", "in/1"):
        assert rejection(ecg, path).reason == Reason.OUTSIDE, path
    assert rejection(ecg, str(tmp_path / "away/1")).reason == Reason.ABSOLUTE
    assert read_ecg(ecg, "within/2").any()
    (tmp_path / "root").symlink_to(root)
    assert read_ecg(ecg_data(tmp_path / "root"), "in/2").any()


def test_a_header_for_wfdb_names_no_file_outside_the_tree(
    tmp_path: Path, write_record: WriteRecord, samples: Samples
) -> None:
    write_record(tmp_path / "away/1", samples())
    write_record(tmp_path / "tree/1", samples())
    header = tmp_path / "tree/1.hea"
    header.write_text(header.read_text().replace("1.dat 16 ", "../away/1.dat 16x1 "))
    assert rejection(ecg_data(tmp_path / "tree"), "1").reason == Reason.OUTSIDE


def test_too_many_bad_records_stop_a_preparation() -> None:
    bad: dict[str, Rejection] = {f"p1/{number}": (Reason.UNIT, unit) for number, unit in enumerate(["adu", "NU"] * 5)}
    refuse_too_many(bad, 10, 0.01)  # a handful stops nothing
    bad |= {f"p2/{number}": (Reason.CHECKSUM, "") for number in range(5)}
    refuse_too_many(bad, 1500, 0.01)
    with pytest.raises(
        DataError,
        match=r"usable but for 14 of 1,499, got 15 bad ones \(10 unit not known, 5 checksum wrong; first: row 1,234 of "
        r"the record list: adu\)\. Write the unit .* \[E205\]",
    ) as caught:
        refuse_too_many(bad, 1499, 0.01, {"p1/0": 1234})
    assert "p1" not in str(caught.value)
