"""Which ECG belongs to which stay, from the record list alone: no waveform is opened before it is chosen.

MIMIC-IV-ECG knows patients and times, not stays. An ECG counts for a stay from ``ecg_before_hours`` before ICU
admission to the prediction time, both included; the plan says whether the latest or the first one is used. Of two ECGs
at one time the larger ``study_id`` wins. One ECG may serve two stays of a patient.
"""

import polars as pl

from client.mimic_iv.tables import TIME, Columns, collect, require_unique, scan
from client.site import EcgData
from lemof_model.errors import DataError
from lemof_model.study import CohortSpec

RECORD_LIST: Columns = {"subject_id": pl.Int64, "study_id": pl.Int64, "ecg_time": TIME, "path": pl.String}


def link_ecgs(ecg: EcgData, stays: pl.DataFrame, spec: CohortSpec) -> tuple[pl.DataFrame, dict[str, int]]:
    """The chosen record (``path``) of each stay (``row``) that has one, and how many records were met on the way.

    Raises:
        DataError: the record list is missing or damaged, or repeats a study.
    """
    if not ecg.record_list.is_file():
        raise DataError(
            f"The ECG record list must be a file, got none from {ecg.record_list}. Set data.ecg.record_list or "
            "data.ecg.root, or leave data.ecg out at a hospital without ECGs."
        )
    records = collect(scan(ecg.record_list, RECORD_LIST), ecg.record_list)
    require_unique(records, "study_id", ecg.record_list)
    earliest = pl.col("intime") - pl.duration(seconds=spec.ecg_before_hours * 3600)
    prediction_time = pl.col("intime") + pl.duration(hours=spec.window_hours)
    in_window = records.join(stays.select("row", "subject_id", "intime"), on="subject_id").filter(
        pl.col("ecg_time").is_between(earliest, prediction_time)
    )
    is_latest = spec.ecg_rule == "latest"
    chosen = (
        in_window.sort("row", "ecg_time", "study_id", descending=[False, is_latest, True])
        .group_by("row", maintain_order=True)
        .first()
    )
    counts = {
        "records_listed": records.height,
        "records_without_readable_time": records["ecg_time"].null_count(),
        "records_linked": in_window["study_id"].n_unique(),
        "records_chosen": chosen["study_id"].n_unique(),
        "stays_linked": chosen.height,
    }
    return chosen.select("row", "path"), counts
