"""One hospital in MIMIC-IV's shape and size, drawn rather than simulated, so that 20 million rows take a minute.

Patients, stays, diagnoses, treatments and the ECGs themselves are the generator's (``simulation.synthetic``). The two
large tables are not: they have the columns and order of MIMIC-IV, its number of rows per ICU stay (4,600 and 1,675) and
its mix of items. Shares of items, of texts and of empty cells are those of the open demo 2.2: of six chart rows five
are of items that no feature reads.
"""

import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from client.layouts.mimic_iv.items import LABS, VITALS
from simulation.site_file import write_site_file
from simulation.synthetic import treatments
from simulation.synthetic.courses import SHOWN, Shown, draw_coefficients, heart_rate_at, written
from simulation.synthetic.diagnoses import diagnoses_table
from simulation.synthetic.heart import draw_hearts
from simulation.synthetic.process import Latents, Process, SyntheticHospital, draw_latents
from simulation.synthetic.recording import draw_ecg, write_ecg
from simulation.synthetic.records import (
    admissions_table,
    after,
    draw_stays,
    earlier_admissions,
    first_id,
    icustays_table,
    patients_table,
)

CHART_ROWS_PER_STAY, LAB_ROWS_PER_STAY, RECORDS_PER_STAY = 4600, 1675, 8.5  # MIMIC-IV 3.1 and MIMIC-IV-ECG 1.0
BLOCK_STAYS = 200
GZIP_BLOCK = 4 << 20
TIME = "%Y-%m-%d %H:%M:%S"

SLOTS, VALUES_PER_SLOT = 10_000, 32
CHART_SLOTS = {  # of 10,000 rows
    **{220045: 208, 220210: 208, 220277: 202, 220179: 125, 220180: 125, 220181: 125, 220050: 83, 220051: 83},
    **{220052: 83, 223761: 51, 220739: 49, 223900: 49, 223901: 49, 228096: 41, 223835: 26, 225664: 24, 224690: 20},
    **{220621: 14, 225309: 7, 225310: 7, 225312: 7, 223762: 6, 226537: 3, 226512: 2, 226730: 1, 226707: 1},
}
LAB_SLOTS = {
    **{50971: 281, 50983: 279, 50912: 279, 50902: 277, 51006: 276, 51221: 270, 50882: 266, 50868: 265, 51265: 262},
    **{51222: 259, 51277: 256, 51301: 256, 50931: 252, 50960: 229, 50893: 221, 50970: 217, 51275: 139, 51274: 137},
    **{51237: 137, 50878: 108, 50885: 108, 50861: 108, 50863: 106, 50820: 90, 50802: 83, 50821: 83, 50818: 83},
    **{50813: 70, 50862: 58, 51003: 26, 50809: 24, 50911: 17, 50963: 7, 50889: 4},
}
# How the open demo 2.2 spells the units of what is charted: of the rows of items that no feature reads, numeric ones
# among them, most spell none. An item that a feature reads has its own.
OTHER_UNITS = {
    **{"": 13_750, "mmHg": 480, "insp/min": 570, "cmH2O": 750, "mEq/L": 650, "mg/dL": 510, "L/min": 580, "mL": 570},
    **{"%": 560, "sec": 330, "bpm": 260, "ml/hr": 220, "K/uL": 200, "cm": 150, "units": 110, "IU/L": 110},
    **{"mmol/L": 100, "g/dl": 90, "°C": 140, "ml/min": 60, "ng/mL": 25, "mA": 22, "dynes.sec.cm-5/m2": 5},
}
ITEM_UNITS = {223762: "°C", 226707: "Inch"}  # where it is not that of the item that the generator writes
TEXTS = ("Normal", "SR (Sinus Rhythm)", "None", "Clear", "Done", "Yes", "Alert, oriented", 'Says "better"', "LLL Lung")
TEXT_SHARE, ON_THE_HOUR, EMPTY_SHARE, ARTEFACT_SHARE = 0.6, 0.63, 0.003, 0.0005
NEAR_ICU, NO_ADMISSION = 0.35, 0.26  # of laboratory rows


class Sizes(NamedTuple):
    """How much to write."""

    num_rows: int
    num_ecgs: int

    @property
    def num_stays(self) -> int:
        """Stays behind so many rows; at least two for each ECG."""
        return max(self.num_rows // CHART_ROWS_PER_STAY, 2 * self.num_ecgs, 10)


@dataclass(frozen=True)
class Shaped:
    """What was written: ``bare_csv`` holds the rows of chartevents.csv.gz, ``half_gz`` those of stays up to an id."""

    site_file: Path
    bare_csv: Path
    half_gz: Path
    half_last_stay: int


def write_hospital(folder: Path, sizes: Sizes, *, seed: int = 7) -> Shaped:
    """Write ``folder/{hosp,icu,ecg,site.yaml}``, and beside them chartevents as bare csv and its first half."""
    process = Process()
    hospital = process.hospital(0, 1, seed)
    rng = np.random.default_rng(seed)
    latents = draw_latents(process, hospital, sizes.num_stays, rng)
    stays = draw_stays(process, hospital, latents, rng)
    earlier = earlier_admissions(stays, latents, rng)
    weight_kg_N = rng.uniform(50, 110, stays.height)
    for name in ("hosp", "icu", "ecg", "bare", "half"):
        (folder / name).mkdir(parents=True)
    tables = {
        "hosp/patients": patients_table(stays),
        "hosp/admissions": admissions_table(stays, earlier),
        "hosp/diagnoses_icd": diagnoses_table(stays, earlier, latents, rng),
        "icu/icustays": icustays_table(stays),
        "icu/outputevents": treatments.output_events(stays, latents.values_ND, hospital.mix, rng),
        "icu/inputevents": treatments.input_events(stays, latents.values_ND, weight_kg_N, rng),
        "icu/procedureevents": treatments.procedure_events(stays, latents.values_ND, weight_kg_N, rng),
    }
    for name, table in tables.items():
        table.write_csv(folder / f"{name}.csv", datetime_format=TIME)
    by_id = stays.sort("stay_id")
    bare, half = folder / "bare" / "chartevents.csv", folder / "half" / "chartevents.csv.gz"
    half_bytes = _write_chart(bare, by_id, sizes.num_rows, rng)
    gzip_file(bare, folder / "icu" / "chartevents.csv.gz")
    gzip_file(bare, half, half_bytes)
    _write_labs(folder / "hosp" / "labevents.csv.gz", by_id, rng)
    _write_ecgs(folder / "ecg", stays, process, hospital, latents, sizes.num_ecgs, rng)
    write_site_file(folder, stays.height, "ecg")
    return Shaped(folder / "site.yaml", bare, half, by_id["stay_id"][by_id.height // 2 - 1])


def gzip_file(source: Path, target: Path, num_bytes: int | None = None) -> None:
    """One gzip member like any other, its blocks deflated side by side at level 1 (as pigz does)."""
    left = source.stat().st_size if num_bytes is None else num_bytes
    size, crc, num_threads = left, 0, os.cpu_count() or 1
    with source.open("rb") as raw, target.open("wb") as out, ThreadPoolExecutor(num_threads) as pool:
        out.write(b"\x1f\x8b\x08" + bytes(5) + b"\x04\xff")
        while left:
            blocks: list[bytes] = []
            while left and len(blocks) < 4 * num_threads:
                blocks.append(raw.read(min(GZIP_BLOCK, left)))
                left -= len(blocks[-1])
            deflated = pool.map(_deflate, blocks)
            for block in blocks:
                crc = zlib.crc32(block, crc)
            out.writelines(deflated)
        out.write(b"\x03\x00" + struct.pack("<II", crc, size % 2**32))


def _deflate(block: bytes) -> bytes:
    """Raw deflate that ends on a byte and refers to nothing before it."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)


def _write_chart(path: Path, stays: pl.DataFrame, num_rows: int, rng: np.random.Generator) -> int:
    """Rows of each stay in proportion to its length, by time; the number of bytes of the first half of the stays."""
    pool = _pool(CHART_SLOTS, 230_000, 1_292, rng)
    los_minutes_N = stays["los_days"].to_numpy() * 1440
    last_N = np.rint(np.cumsum(los_minutes_N) / los_minutes_N.sum() * num_rows).astype(np.int64)
    rows_N = np.diff(last_N, prepend=0)
    half_bytes = 0
    columns = "subject_id hadm_id stay_id caregiver_id charttime storetime itemid value valuenum valueuom warning"
    with path.open("wb") as file:
        for start, stop in _blocks(stays.height):
            block = stays[start:stop]
            stay_E = np.repeat(np.arange(block.height), rows_N[start:stop])
            minutes_E = (rng.random(len(stay_E)) * los_minutes_N[start + stay_E]).astype(np.int64)
            events = _events(block, stay_E, minutes_E, pool, rng)
            nurse = 1_000 + (pl.col("stay_id") * 7919 + pl.col("charttime").dt.epoch("s") // 43_200) % 30_000
            full = events.with_columns(caregiver_id=nurse, warning=pl.lit(0)).select(columns.split())
            full.write_csv(file, include_header=start == 0, datetime_format=TIME)
            if stop <= stays.height // 2:
                half_bytes = file.tell()
    return half_bytes


def _blocks(num_stays: int) -> list[tuple[int, int]]:
    """Stays in blocks, first and last; one ends in the middle."""
    starts = sorted({*range(0, num_stays, BLOCK_STAYS), num_stays // 2})
    return list(pairwise([*starts, num_stays]))


def _write_labs(path: Path, stays: pl.DataFrame, rng: np.random.Generator) -> None:
    """A third of the rows from 12 h before a stay to its end, the others within two years of it."""
    pool = _pool(LAB_SLOTS, 54_000, 464, rng)  # no feature reads an item from 54,000 on
    columns = (
        "labevent_id subject_id hadm_id specimen_id itemid order_provider_id charttime storetime value valuenum "
        "valueuom ref_range_lower ref_range_upper flag priority comments"
    )
    bare = path.with_suffix("")
    with bare.open("wb") as file:
        for start, stop in _blocks(stays.height):
            block = stays[start:stop]
            stay_E = np.repeat(np.arange(block.height), LAB_ROWS_PER_STAY)
            near_E = (rng.random(len(stay_E)) * (block["los_days"].to_numpy()[stay_E] + 0.5) - 0.5) * 1440
            far_E = rng.uniform(-730, 730, len(stay_E)) * 1440
            is_near_E = rng.random(len(stay_E)) < NEAR_ICU
            events = _events(block, stay_E, np.where(is_near_E, near_E, far_E).astype(np.int64), pool, rng)
            number = start * LAB_ROWS_PER_STAY + pl.int_range(pl.len())
            without = pl.Series(rng.random(events.height) < NO_ADMISSION)
            events.with_columns(
                labevent_id=number,
                specimen_id=number // 8,
                hadm_id=pl.when(~without).then("hadm_id"),
                order_provider_id=pl.lit(None, pl.String),
                ref_range_lower=pl.lit(3.5),
                ref_range_upper=pl.lit(5.1),
                flag=pl.when(without).then(pl.lit("abnormal")),
                priority=pl.lit("ROUTINE"),
                comments=pl.when(pl.col("valuenum").is_null()).then(pl.lit("SPECIMEN HEMOLYZED, REPEAT.")),
            ).select(columns.split()).write_csv(file, include_header=start == 0, datetime_format=TIME)
    gzip_file(bare, path)
    bare.unlink()


def _events(
    stays: pl.DataFrame,
    stay_E: NDArray[np.int64],
    minutes_E: NDArray[np.int64],
    pool: pl.DataFrame,
    rng: np.random.Generator,
) -> pl.DataFrame:
    """An event of the pool for each stay and minute since admission, in the order of stays and times."""
    admitted_N = stays["intime"].dt.epoch("s").to_numpy() // 60
    minute_E = admitted_N[stay_E] + minutes_E
    minute_E = np.where(rng.random(len(stay_E)) < ON_THE_HOUR, minute_E // 60 * 60, minute_E)
    key_E = np.sort(stay_E << 32 | minute_E)
    minute_E = key_E & 0xFFFFFFFF
    times = {"charttime": _time(minute_E), "storetime": _time(minute_E + 1 + key_E % 89)}  # what is charted together
    keys = stays.select("subject_id", "hadm_id", "stay_id")[key_E >> 32]
    values = pool[rng.integers(pool.height, size=len(stay_E))]
    return pl.concat([keys, pl.DataFrame(times), values], how="horizontal")


def _time(minute_E: NDArray[np.int64]) -> NDArray[np.datetime64]:
    """Minutes since 1970 as times."""
    return (60_000_000 * minute_E).astype("datetime64[us]")


def _pool(slots: dict[int, int], first_other: int, num_others: int, rng: np.random.Generator) -> pl.DataFrame:
    """Items with their values, as often as they are met: a row drawn from it is a row of the table."""
    frames = []
    for item_id, num_slots in slots.items():
        shown, values = _values(item_id, num_slots * VALUES_PER_SLOT, rng)
        number = pl.Series("valuenum", values)
        text = number.cast(pl.Int64).cast(pl.String) if shown.digits == 0 else number.cast(pl.String)
        number = pl.Series("valuenum", np.where(rng.random(len(values)) < EMPTY_SHARE, np.nan, values))
        frames.append(
            pl.DataFrame(
                {"itemid": np.full(len(values), item_id), "value": text, "valuenum": number.fill_nan(None)}
            ).with_columns(valueuom=pl.lit(ITEM_UNITS.get(item_id, shown.unit) or None, pl.String))
        )
    num_left = (SLOTS - sum(slots.values())) * VALUES_PER_SLOT
    numbers = pl.Series("valuenum", rng.normal(80, 25, num_left).round(1))
    is_text = pl.Series(rng.random(num_left) < TEXT_SHARE)
    share = np.array(list(OTHER_UNITS.values())) / sum(OTHER_UNITS.values())
    units = pl.Series(rng.choice(list(OTHER_UNITS), num_left, p=share)).replace("", None)
    others = pl.DataFrame(
        {
            "itemid": first_other + rng.integers(num_others, size=num_left),
            "value": rng.choice(TEXTS, num_left),
            "valuenum": numbers,
        }
    ).with_columns(
        value=pl.when(is_text).then("value").otherwise(pl.col("valuenum").cast(pl.String)),
        valuenum=pl.when(~is_text).then("valuenum"),
        valueuom=pl.when(~is_text).then(units),
    )
    return pl.concat([*frames, others])


def _values(item_id: int, num_values: int, rng: np.random.Generator) -> tuple[Shown, NDArray[np.float64]]:
    """Values of an item as the generator would write them, in the item's own unit, a few of them typing errors."""
    concept, item = next((one, item) for one in (*VITALS, *LABS) for item in one.items if item.item_id == item_id)
    shown = SHOWN[concept.name]
    spread = np.hypot(shown.own_sd, shown.measurement_sd) + 0.3 * float(np.linalg.norm([w for _, w in shown.loads]))
    values = written(shown, _centre(shown) + spread * rng.standard_normal(num_values))
    if item_id != shown.item_id:
        usual = next(one for one in concept.items if one.item_id == shown.item_id)
        values = ((values * usual.factor + usual.offset - item.offset) / item.factor).round(1)
    return shown, np.where(rng.random(num_values) < ARTEFACT_SHARE, shown.artefact or 999_999, values)


def _centre(shown: Shown) -> float:
    """The middle of a concept on its working scale."""
    return shown.base + sum(weight * _centre(SHOWN[name]) for name, weight in shown.follows)


def _write_ecgs(
    folder: Path,
    stays: pl.DataFrame,
    process: Process,
    hospital: SyntheticHospital,
    latents: Latents,
    num_ecgs: int,
    rng: np.random.Generator,
) -> None:
    """A record for each of the first stays, and a list that names eight in ten others of years before.

    Those lead to the same files, by paths with more slashes, for none may repeat: nobody should open them but
    ``check``, which reads any record.
    """
    hearts = draw_hearts(latents["conduction"], latents["repolarisation"], latents["rhythm"], rng)
    courses_NB = draw_coefficients("heart_rate", latents.values_ND * process.told_by_rate_D, rng)
    hours_N = rng.uniform(-20, 20, stays.height)
    rate_N = heart_rate_at(courses_NB, hours_N)
    study = first_id(4, hospital.index)
    chosen = stays.head(num_ecgs).select(
        "subject_id",
        study_id=study + pl.int_range(pl.len()),
        ecg_time=after("intime", pl.lit(pl.Series(hours_N[:num_ecgs]))),
    )
    path = pl.format("files/p{}/p{}/s{}/{}", pl.col("subject_id") // 10_000, "subject_id", "study_id", "study_id")
    chosen = chosen.with_columns(path=path)
    for row, (subject_id, study_id, _, where) in enumerate(chosen.iter_rows()):
        adc_SL = draw_ecg(hearts[row], rate_N[row], rng)
        write_ecg((folder / where).parent, str(study_id), adc_SL, subject_id)
    num_others = int(RECORDS_PER_STAY * stays.height) - num_ecgs if num_ecgs else 0
    others = chosen[rng.integers(max(num_ecgs, 1), size=num_others)].with_columns(
        study_id=study + num_ecgs + pl.int_range(pl.len()), ecg_time=pl.col("ecg_time") - pl.duration(days=1_500)
    )
    again = others.select(pl.int_range(pl.len()).over("path") + 2).to_series().to_list()
    longer = [where.replace("/", "/" * num, 1) for where, num in zip(others["path"], again, strict=True)]
    others = others.with_columns(path=pl.Series(longer, dtype=pl.String))
    listed = pl.concat([chosen, others]).sort("subject_id", "ecg_time", "study_id")
    listed.select("subject_id", "study_id", pl.col("study_id").alias("file_name"), "ecg_time", "path").write_csv(
        folder / "record_list.csv", datetime_format=TIME
    )
