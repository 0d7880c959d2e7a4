"""All hospitals' cohorts as one: what the federation is held against. Only a simulation can do this."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from client.cohort.store import ECG_SHAPE, load_cohort, replacing, write_cohort
from client.site import load_site
from lemof_model.errors import DataError
from lemof_model.study import SplitSpec, Target

SITE_FILE = """\
# All hospitals of a simulation as one site: made to compare with, never a real hospital.
version: 1
site: {name: pooled}
data: {ehr: {root: .}}
limits: {few_sites: allow}
"""


def pool_hospitals(site_files: Sequence[Path], out: Path) -> Path:
    """Write ``out/{site.yaml,cohort}`` from prepared hospitals, rows in the order of the sites' names.

    Splits are functions of the patient, so every stay is in the split it had at its hospital.

    Raises:
        DataError: a patient is in two hospitals, or the cohorts were prepared for different plans.
    """
    sites = sorted((load_site(path) for path in site_files), key=lambda site: site.site.name)
    cohorts = [load_cohort(site.prepare.output) for site in sites]
    first = cohorts[0]
    if any(cohort.spec != first.spec for cohort in cohorts):
        raise DataError(
            rule="Pooled cohorts must be prepared for one plan", got="several", fix="Prepare them again with --plan."
        )
    patients = [set(cohort.patient_hash.tolist()) for cohort in cohorts]
    if len(set().union(*patients)) != sum(map(len, patients)):
        raise DataError(rule="A patient must be in one hospital", got="some in two", fix="Split the source again.")
    out.mkdir(parents=True, exist_ok=True)
    (out / "site.yaml").write_text(SITE_FILE)
    with replacing(out / "cohort") as folder:
        num_ecgs = [len(cohort.ecg) for cohort in cohorts]
        offsets = np.cumsum([0, *num_ecgs])
        ecg = np.lib.format.open_memmap(folder / "ecg.npy", "w+", np.int16, (sum(num_ecgs), *ECG_SHAPE))
        for cohort, offset in zip(cohorts, offsets, strict=False):
            ecg[offset : offset + len(cohort.ecg)] = cohort.ecg
        ecg.flush()
        index = [
            np.where(cohort.ecg_index >= 0, cohort.ecg_index + offset, -1)
            for cohort, offset in zip(cohorts, offsets, strict=False)
        ]
        write_cohort(
            folder,
            spec=first.spec,
            target=Target(**first.manifest["target"]),
            splits=SplitSpec(**first.manifest["split_spec"]),
            stays=pd.concat([cohort.stays for cohort in cohorts], ignore_index=True),
            features=np.concatenate([cohort.features for cohort in cohorts]),
            grid=np.concatenate([cohort.grid for cohort in cohorts]),
            num_stays_with_ecg=sum(cohort.manifest["num_stays_with_ecg"] for cohort in cohorts),
            ecg_index=np.concatenate(index),
            attrition=[{"reason": "in the cohort", "num_stays": sum(cohort.num_stays for cohort in cohorts)}],
            facts={},
        )
    return out / "site.yaml"
