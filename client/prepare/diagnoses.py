"""What the codes of admissions tell of stays: diseases of the stay's own, and comorbidities that are known when it
begins. Groups: ``lemof_model.icd``.

An admission is coded when it is over: diseases stratify an evaluation and are never a feature, and of comorbidities
only those of admissions count that ended before this one began.
"""

import polars as pl

from lemof_model.features import DISEASES
from lemof_model.icd import COMORBIDITY_PREFIXES, DISEASE_PREFIXES


def with_diseases(stays: pl.DataFrame, groups: pl.DataFrame) -> pl.DataFrame:
    """Add a column for each disease: whether the stay's admission has one of its codes (``groups`` by admission), and
    ``is_coded``: whether it has any code at all."""
    coded = groups.select("hadm_id", *DISEASE_PREFIXES, is_coded=True)
    joined = stays.join(coded, on="hadm_id", how="left").sort("row")
    return joined.with_columns(pl.col(*DISEASES, "is_coded").fill_null(False))


def num_coded(stays: pl.DataFrame) -> dict[str, int]:
    """How many admissions the stays of ``with_diseases`` belong to, and how many of these have any code."""
    admissions = stays.unique("hadm_id")
    return {"admissions": admissions.height, "admissions_coded": int(admissions["is_coded"].sum())}


def with_earlier_comorbidities(stays: pl.DataFrame, admissions: pl.DataFrame, groups: pl.DataFrame) -> pl.DataFrame:
    """Add ``earlier_NAME`` for each comorbidity: 1 where an earlier admission of the patient has one of its codes
    (``groups`` by admission)."""
    earlier = (
        stays.select("row", "subject_id", begin="admittime")
        .join(admissions.select("subject_id", "hadm_id", "dischtime"), on="subject_id")
        .filter(pl.col("dischtime") < pl.col("begin"))
        .select("row", "hadm_id")
    )
    flags = earlier.join(groups, on="hadm_id").group_by("row").agg(pl.col(name).any() for name in COMORBIDITY_PREFIXES)
    return (
        stays.join(flags, on="row", how="left").sort("row").with_columns(pl.col(*COMORBIDITY_PREFIXES).fill_null(False))
    )
