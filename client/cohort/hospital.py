"""A hospital opened for one study: its cohort as the arrays that the method reads.

Labels, splits and folds are made here from the threshold and the salt in the request; the cohort holds none of them.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from client.cohort.census import Census
from client.cohort.labels import hours_to_icu_of, studied
from client.cohort.store import load_cohort
from client.site import SiteConfig
from lemof_model.errors import OtherPlanError
from lemof_model.features import DISEASES
from lemof_model.splits import fold_of, network_of, split_of
from lemof_model.stays import AGE_LIMIT_YEARS, Stays
from lemof_model.study import SPLITS, Study


@dataclass(frozen=True, eq=False)
class Hospital:
    """One site in one study.

    ``subgroups``, diseases among them, stratify an evaluation, one bool array each; ``stay_id_N`` are the stays' ids as
    the tables have them. Under a privacy budget a patient has one stay; ``num_left_out`` counts the others.
    ``has_ecgs`` is whether the hospital has any at all: a site file without ``data.ecg``, and a cohort made from it,
    has none.
    """

    name: str
    folder: Path
    cohort_digest: str
    study: Study
    stays: Stays
    subgroups: dict[str, NDArray[np.bool_]]
    stay_id_N: NDArray[Any]
    num_left_out: int = 0
    has_ecgs: bool = True

    @cached_property
    def census(self) -> Census:
        """The sets of stays that its census counts."""
        return Census(self.stays)


def open_hospital(site: SiteConfig, study: Study) -> Hospital:
    """Open the site's cohort for a study; opened once per process, unless the cohort changes.

    Raises:
        DataError: no cohort.
        OtherPlanError: a cohort that was prepared for another ``cohort`` section.
    """
    folder = site.prepare.output
    manifest = folder / "manifest.json"
    stamp = manifest.stat().st_mtime_ns if manifest.is_file() else 0
    has_ecg_data = site.data.ecg is not None
    return _open(site.site.name, folder, stamp, study.to_json(), site.privacy is not None, has_ecg_data)


@lru_cache(maxsize=16)
def _open(name: str, folder: Path, stamp: int, study_json: str, is_private: bool, has_ecg_data: bool) -> Hospital:
    """Read the cohort; ``stamp`` makes a changed cohort a new one."""
    study = Study.from_json(study_json)
    cohort = load_cohort(folder)
    if cohort.spec != study.cohort:
        raise OtherPlanError(
            rule="The cohort must be prepared for the plan's cohort section",
            got=f"one for another section from {name}",
            fix="Run: lemof-client --site SITE prepare --plan PLAN.yaml",
        )
    hours_to_icu_N = hours_to_icu_of(cohort.features)
    label, keep = studied(cohort.stays, hours_to_icu_N, study.target, study.cohort)
    kept = np.flatnonzero(keep)
    patient = cohort.patient_hash
    split_N = split_of(patient, study.splits)
    if study.folds:
        split_N[split_N == SPLITS.index("train")] = SPLITS.index("stack")
    stays = Stays(
        features_NF=np.asarray(cohort.features),
        ecg_MCT=cohort.ecg,
        ecg_row_N=np.asarray(cohort.ecg_index),
        grid_NTG=cohort.grid,
        grid_row_N=np.arange(cohort.num_stays),
        long_stay_N=label,
        split_N=split_N,
        fold_N=fold_of(patient, study.splits.salt),
        patient_N=patient,
        network_N=network_of(patient, study.splits.salt, study.folds),
    )
    digest, num_left_out = str(cohort.manifest["digests"]["cohort"]), 0
    if is_private:
        one = _one_stay_per_patient(patient[kept], cohort.stays["stay_id"].to_numpy()[kept], study.splits.salt)
        digest, num_left_out, kept = f"{digest}/one", len(kept) - len(one), kept[one]
    table, has_ecgs = cohort.stays.iloc[kept], has_ecg_data or len(cohort.ecg) > 0
    stay_id_N = table["stay_id"].to_numpy()
    return Hospital(
        name, folder, digest, study, stays.select(kept), _subgroups(table), stay_id_N, num_left_out, has_ecgs
    )


def _one_stay_per_patient(patient_N: NDArray[np.uint64], stay_id_N: NDArray[Any], salt: str) -> NDArray[np.int64]:
    """The row of each patient's stay with the smallest hash, in the order of rows: no stay is likelier than another,
    and the choice depends on no other patient."""
    hashes = [hashlib.blake2b(f"{salt}/stay\0{stay}".encode()).digest() for stay in stay_id_N.tolist()]
    smallest: dict[int, int] = {}
    for row, patient in enumerate(patient_N.tolist()):
        if patient not in smallest or hashes[row] < hashes[smallest[patient]]:
            smallest[patient] = row
    return np.sort(np.fromiter(smallest.values(), np.int64, len(smallest)))


def _subgroups(stays: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """Diseases and subgroups, one bool array each; a stay may be in several."""
    found = {f"disease:{name}": stays[name].to_numpy() for name in DISEASES}
    for sex in ("female", "male"):
        found[f"sex:{sex}"] = (stays["sex"] == sex).to_numpy()
    older = stays["age"].to_numpy() >= AGE_LIMIT_YEARS
    found[f"age:under_{AGE_LIMIT_YEARS}"], found[f"age:{AGE_LIMIT_YEARS}_and_over"] = ~older, older
    return found
