"""Two references that a hospital makes alone, to hold the federated model against: ``local_only``, the same plan on its
own data, and ``gbdt_ehr``, gradient-boosted trees on its EHR table. Their weights never leave; only their scores enter
the evaluation. Both are made once and kept in the cohort's cache.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.cohort.alone import EHR_ALONE, LEMOF, Alone, has_both_classes
from client.cohort.frozen import cached, text
from client.cohort.hospital import Hospital
from lemof_model import lemof, logistic, training
from lemof_model.stays import CATEGORY_COLUMNS
from lemof_model.study import SPLITS


def reference_scores(hospital: Hospital) -> dict[str, NDArray[np.float64]]:
    """Log-odds of both references for every stay; NaN where a reference could not be trained (too few stays, or one
    class only) and on ``train`` for ``local_only``."""

    def compute(folder: Path) -> None:
        np.savez(folder / "scores.npz", gbdt_ehr=gbdt_ehr(hospital), local_only=local_only(hospital))

    with np.load(
        cached(hospital, "references", {"study": text(hospital.study.to_json())}, compute) / "scores.npz"
    ) as scores:
        return {name: scores[name] for name in lemof.REFERENCES}


def gbdt_ehr(hospital: Hospital) -> NDArray[np.float64]:
    """LightGBM on the EHR table, NaN left as NaN; trained on ``train`` and ``stack``, stopped early on ``tuning``."""
    import lightgbm

    stays = hospital.stays
    fitted = np.concatenate([stays.rows("train"), stays.rows("stack")])
    tuning = stays.rows("tuning")
    label = stays.long_stay_N
    out = np.full(len(label), np.nan)
    if not (has_both_classes(label[fitted]) and has_both_classes(label[tuning])):
        return out
    settings: dict[str, Any] = {
        "objective": "binary", "learning_rate": 0.05, "num_leaves": 15, "min_data_in_leaf": 20, "lambda_l2": 1.0,
        "feature_fraction": 0.5, "bagging_fraction": 0.8, "bagging_freq": 1, "num_threads": 1, "deterministic": True,
        "seed": training.derive_seed(hospital.study.seed, hospital.name, "gbdt_ehr") % 2**31, "verbosity": -1,
    }  # fmt: skip
    data = lightgbm.Dataset(stays.features_NF[fitted], label[fitted], categorical_feature=CATEGORY_COLUMNS.tolist())
    valid = data.create_valid(stays.features_NF[tuning], label[tuning])
    stop = lightgbm.early_stopping(50, verbose=False)
    booster = lightgbm.train(settings, data, num_boost_round=500, valid_sets=[valid], callbacks=[stop])
    out[:] = booster.predict(stays.features_NF, raw_score=True)
    return out


def local_only(hospital: Hospital) -> NDArray[np.float64]:
    """The whole method on this hospital alone: log-odds of its ``full`` outside ``train``.

    A hospital without ECG, or with too few, trains the EHR alone and keeps its meta prediction.
    """
    stays, study, alone = hospital.stays, hospital.study, Alone(hospital)
    out = np.full(len(stays.split_N), np.nan)
    wanted = alone.outside_train
    if "ehr" not in alone.usable:
        return out
    if "ecg" not in alone.usable:
        alone.take(EHR_ALONE)
        out[wanted] = lemof.meta_log_odds(alone.levels["ehr"], "ehr", alone.model, study)[wanted]
        return out
    alone.take(LEMOF)
    in_stack = stays.split_N[wanted] == SPLITS.index("stack")
    omega_2 = lemof.cross_fit(alone.omega_2(wanted), stays.fold_N[wanted], in_stack)
    omega_1 = lemof.omega_1_log_odds(alone.levels, alone.model, study)[wanted]
    out[wanted] = logistic.decision(alone.model["final"], lemof.final_rows(omega_1, omega_2, study))
    return out
