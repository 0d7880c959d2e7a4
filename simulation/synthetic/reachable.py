"""The AUROC that a model who knew the process, but not its numbers, reaches from the files as they are written.

The latents of every stay are measured back: from its written tables by the process's own noise model (``posterior``),
from its written ECG by a delineator and by trees that learnt from other stays what each latent shows. A logistic
regression on them, with the products that the process itself uses, predicts the long stays, each by a regression that
never saw it. So this figure, unlike the upper bound, pays for noise, missing measurements and a finite sample.
Letters in shapes: N stays, D latents, M measured quantities.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from lemof_model.delong import variance_of_counts
from lemof_model.metrics import auroc
from simulation.synthetic.delineation import MEASURES, measure
from simulation.synthetic.posterior import measured_back
from simulation.synthetic.process import ECG_LATENTS, EHR_LATENTS, Process
from simulation.synthetic.signals import LEADS

NUM_FOLDS = 10
MIN_STAYS_OF_A_CLASS = 30
MOST_NOT_MEASURABLE = 0.8
TREES: dict[str, Any] = {"max_iter": 120, "learning_rate": 0.06, "max_leaf_nodes": 8}  # take what is not measurable
ECG_ONLY = tuple(name for name in ECG_LATENTS if name not in EHR_LATENTS)
EVIDENCE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # read from the tables, read from the ECG
    "": (EHR_LATENTS, ECG_ONLY),
    "_ehr": (EHR_LATENTS, ()),
    "_ecg": ((), ECG_LATENTS),
}


def measure_back(folder: Path, process: Process) -> pl.DataFrame:
    """What a hospital's written files tell, one row per ICU stay: ``back_LATENT`` and ``ecg_QUANTITY`` columns.

    Null where a stay has no ECG in its window; NaN where the ECG does not show a quantity.
    """
    stay_ids, means_NE = measured_back(folder, process)
    stays = pl.read_csv(folder / "icu" / "icustays.csv.gz", try_parse_dates=True)
    back = pl.DataFrame({"stay_id": stay_ids} | {f"back_{n}": means_NE[:, i] for i, n in enumerate(EHR_LATENTS)})
    stays = stays.select("subject_id", "stay_id", "intime", "los").join(back, on="stay_id", how="left")
    ecg = folder / "ecg"
    if not ecg.exists():
        return stays.with_columns(pl.lit(None, pl.Float64).alias(f"ecg_{name}") for name in MEASURES)
    linked = _linked(stays, pl.read_csv(ecg / "record_list.csv", try_parse_dates=True))
    rows = [asdict(measure(_read(ecg / path))) for path in linked["path"]]
    seen = pl.DataFrame(
        {"stay_id": linked["stay_id"]} | {f"ecg_{n}": [float(row[n]) for row in rows] for n in MEASURES}
    )
    return stays.join(seen, on="stay_id", how="left")


def _linked(stays: pl.DataFrame, records: pl.DataFrame) -> pl.DataFrame:
    """The latest ECG of each stay from 24 h before ICU admission to 24 h after it, as preparation links by default."""
    day = pl.duration(hours=24)
    return (
        stays.with_columns(until=pl.col("intime") + day)
        .sort("until")
        .join_asof(
            records.sort("ecg_time"), left_on="until", right_on="ecg_time", by="subject_id", check_sortedness=False
        )
        .filter(pl.col("ecg_time") >= pl.col("intime") - day)
        .select("stay_id", "path")
    )


def _read(path: Path) -> np.ndarray:
    """The samples of a written record, ADC units, shape (S, 12)."""
    return np.fromfile(path.with_suffix(".dat"), "<i2").reshape(-1, len(LEADS))


def reachable_scores(process: Process, stays: pl.DataFrame, seed: int) -> pl.DataFrame:
    """``stays`` with the cross-fitted log-odds ``reachable``, ``reachable_ehr`` and ``reachable_ecg``.

    Null for stays under the minimum length, and ``reachable_ecg`` for stays without ECG. ``reachable`` sees the ECG
    where there is one. All three are null when a class has fewer than 30 stays to learn from.

    Args:
        stays: rows of ``measure_back`` of all hospitals with the true latents by name.
    """
    in_cohort_N = (stays["los"] >= process.min_stay_days).to_numpy()
    long_N = (stays["los"] > process.threshold_days).to_numpy()
    seen_N = stays[f"ecg_{MEASURES[0]}"].is_not_null().to_numpy()
    from_ecg = {name: np.full(len(stays), np.nan) for name in ECG_LATENTS}
    if seen_N.sum() >= MIN_STAYS_OF_A_CLASS:
        measured_NM = stays.select(f"ecg_{name}" for name in MEASURES).to_numpy()[seen_N]
        measured_NM = measured_NM[:, np.isnan(measured_NM).mean(axis=0) < MOST_NOT_MEASURABLE]
        trees = HistGradientBoostingRegressor(**TREES, random_state=seed)
        with threadpool_limits(1):  # so little work that threads only wait for each other
            for name, back_N in from_ecg.items():
                back_N[seen_N] = cross_val_predict(trees, measured_NM, stays[name].to_numpy()[seen_N], cv=_folds(seed))
    scores = {}
    for name, (in_tables, in_ecg) in EVIDENCE.items():
        back = {latent: stays[f"back_{latent}"].to_numpy() for latent in in_tables}
        back |= {latent: from_ecg[latent] for latent in in_ecg}
        products = [term.latents for term in process.terms if len(term.latents) > 1 and set(term.latents) <= set(back)]
        columns = [*back.values(), *(np.prod([back[latent] for latent in latents], axis=0) for latents in products)]
        rows = np.flatnonzero(in_cohort_N & (seen_N | (not in_ecg)))
        score_N = np.full(len(stays), np.nan)
        if min(long_N[rows].sum(), (~long_N[rows]).sum()) >= MIN_STAYS_OF_A_CLASS:
            model = make_pipeline(StandardScaler(), LogisticRegression())
            columns_NP = np.column_stack(columns)[rows]
            score_N[rows] = cross_val_predict(
                model, columns_NP, long_N[rows], cv=_folds(seed), method="decision_function"
            )
        scores[f"reachable{name}"] = score_N
    scores["reachable"] = np.where(seen_N, scores["reachable"], scores["reachable_ehr"])
    return stays.with_columns(pl.Series(name, values).fill_nan(None) for name, values in scores.items())


def _folds(seed: int) -> KFold:
    """Tenths of the stays, at random."""
    return KFold(NUM_FOLDS, shuffle=True, random_state=seed)


def reachable_aurocs(process: Process, stays: pl.DataFrame) -> dict[str, dict[str, float | None]]:
    """``num_stays`` and the AUROC of each reachable score in both populations, with ``_error``, its standard error."""
    cohort = stays.filter(pl.col("los") >= process.min_stay_days)
    with_ecg = cohort.filter(pl.col(f"ecg_{MEASURES[0]}").is_not_null())
    figures: dict[str, dict[str, float | None]] = {}
    for population, rows, names in (("all", cohort, ("", "_ehr")), ("with_ecg", with_ecg, tuple(EVIDENCE))):
        figures[population] = {"num_stays": rows.height}
        for name in names:
            scored = rows.drop_nulls(f"reachable{name}")
            _, group = np.unique(scored[f"reachable{name}"].to_numpy(), return_inverse=True)
            long_N = (scored["los"] > process.threshold_days).to_numpy()
            negative, positive = np.bincount(group, ~long_N), np.bincount(group, long_N)
            known = len(set(long_N.tolist())) == 2
            figures[population][f"reachable{name}"] = float(auroc(negative, positive)) if known else None
            figures[population][f"reachable{name}_error"] = (
                variance_of_counts(negative, positive) ** 0.5 if known else None
            )
    return figures
