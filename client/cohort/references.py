"""Two references that a hospital makes alone, to hold the federated model against: ``local_only``, the same plan on its
own data, and ``gbdt_ehr``, gradient-boosted trees on its EHR table. Their weights never leave; only their scores enter
the evaluation. Both are made once and kept in the cohort's cache.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.cohort.frozen import Tokens, batches_of, cached, levels, omega_2, text
from client.cohort.hospital import Hospital
from lemof_model import importance, lemof, logistic, training
from lemof_model.stays import CATEGORY_COLUMNS, Rows, feature_sums, scaling_from
from lemof_model.study import MODALITIES, TrainingSpec

MIN_ROWS = 2


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
    if not (_has_both_classes(label[fitted]) and _has_both_classes(label[tuning])):
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
    study, stays, label = hospital.study, hospital.stays, hospital.stays.long_stay_N
    out = np.full(len(label), np.nan)
    wanted = np.concatenate([stays.rows(split) for split in ("stack", "tuning", "held_out")])
    usable = [m for m in MODALITIES if _has_both_classes(label[stays.rows("train", m)])]
    usable = [m for m in usable if _has_both_classes(label[stays.rows("stack", m)])]
    if "ehr" not in usable:
        return out
    scaling = scaling_from(feature_sums(stays.features_NF[stays.rows("train")]))
    model: dict[str, NDArray[Any]] = lemof.prefixed("scaling", scaling) | lemof.initial_networks(study)
    for modality in usable:
        model |= _train_alone(hospital, modality, model)
    level = levels(hospital, model, kind="levels-local")
    best, stack = {"ecg": 1, "ehr": 1}, stays.rows("stack")
    for modality in usable:
        rows = lemof.g_inputs(level[modality][stays.rows("stack", modality)], study)
        theta = logistic.fit(rows, label[stays.rows("stack", modality)], study.logistic.c)
        model[f"meta/{modality}"] = theta
        best[modality] = importance.best_level(importance.importance_sums(theta, rows, rows.mean(axis=0)))
    if "ecg" not in usable:
        out[wanted] = lemof.meta_log_odds(level["ehr"], "ehr", model, study)[wanted]
        return out
    model["best_level"] = np.array([best[m] for m in MODALITIES])
    has_indicator = len(np.unique(stays.has_ecg_N[stack])) == 2
    rows = lemof.omega_1_rows(level, model, study, has_indicator=has_indicator)
    model["omega_1"] = logistic.fit(rows[stack], label[stack], study.logistic.c)
    model |= lemof.initial_heads(study, model["best_level"])
    model |= _train_heads_alone(hospital, model)
    omega_1 = lemof.omega_1_log_odds(level, model, study)
    heads = np.full((len(label), lemof.NUM_HEADS), np.nan)
    heads[wanted] = omega_2(hospital, model, wanted, kind="tokens-local")
    omega_2_N = lemof.cross_fit(heads, stays.fold_N, np.isin(np.arange(len(label)), stack))
    u = lemof.final_rows(omega_1, omega_2_N, study)
    out[wanted] = logistic.decision(logistic.fit(u[stack], label[stack], study.logistic.c), u[wanted])
    return out


def _train_alone(hospital: Hospital, modality: str, model: lemof.Model) -> dict[str, NDArray[Any]]:
    """Train one network for the plan's rounds; the round with the best loss on the hospital's own ``tuning`` wins."""
    network = lemof.network(hospital.study, modality, model)
    batch_of, stays = batches_of(hospital, modality, model), hospital.stays
    tuning = stays.rows("tuning", modality)
    fitted = stays.rows("train", modality)
    kept = _rounds(hospital, modality, network, batch_of, fitted, tuning, hospital.study.encoders)
    return lemof.prefixed(modality, kept)


def _train_heads_alone(hospital: Hospital, model: lemof.Model) -> dict[str, NDArray[Any]]:
    """Train both cross-fit heads."""
    stays, tokens = hospital.stays, Tokens(hospital, model, kind="tokens-local")
    stack = stays.rows("stack")
    out: dict[str, NDArray[Any]] = {}
    for fold in range(lemof.NUM_HEADS):
        head = lemof.attention_head(hospital.study, model, fold)
        rows = stack[stays.fold_N[stack] == fold]
        spec = hospital.study.attention.training
        kept = _rounds(hospital, f"attention/{fold}", head, tokens.batch, rows, stays.rows("tuning"), spec)
        out |= lemof.prefixed(f"attention/{fold}", kept)
    return out


def _rounds(
    hospital: Hospital, what: str, model: Any, batch_of: Any, rows: Rows, tuning: Rows, spec: TrainingSpec
) -> dict[str, NDArray[Any]]:
    """Train in place round by round, with the plan's patience, and return the weights of the best round."""
    best_loss, best_round, kept = np.inf, 0, training.to_arrays(model)
    label = hospital.stays.long_stay_N
    for number in range(1, spec.num_rounds + 1):
        seed = training.derive_seed(hospital.study.seed, hospital.name, "local_only", what, number)
        training.train(model, batch_of, label, rows, spec, seed=seed, number=number)
        loss = training.loss_of(training.log_odds(model, batch_of, tuning), label[tuning]) if len(tuning) else -number
        if loss < best_loss:
            best_loss, best_round, kept = loss, number, training.to_arrays(model)
        if spec.patience and number - best_round >= spec.patience:
            break
    return kept


def _has_both_classes(labels: NDArray[np.int8]) -> bool:
    """Whether something can be learnt from these labels at all."""
    return len(labels) >= MIN_ROWS and len(np.unique(labels)) == 2
