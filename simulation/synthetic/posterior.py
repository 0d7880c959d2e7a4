"""The latents that tables show, measured back from a hospital's written files by the noise model of the process.

A group of kin (or a concept alone) has coefficients c = A z + own with own ~ N(0, D), and its values are y - base =
Phi c + error. With M = Phi' S^-1 Phi and r = Phi' S^-1 (y - base), over its values until the prediction time,

    precision of z = R^-1 + sum over groups of A' (I + M D)^-1 M A
    precision * mean = R^-1 mean_0 + sum over groups of A' (I + M D)^-1 r

where S holds the variances of measuring and of rounding, and R is the latents' covariance within a hospital. Nothing
of the stay's own hospital is used: mean_0 and the age are the means over the case mixes. Exact but for what clipping
hides: a value at a limit counts as the mean of what lies beyond it, with the variance of that added.
Letters in shapes: N stays, E EHR latents, G coefficients of a group, B functions of time, V values.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import norm

from client.layouts.mimic_iv.items import LABS, VITALS
from simulation.synthetic.courses import NUM_FUNCTIONS, SHOWN, Array, Shown, functions_at
from simulation.synthetic.process import EHR_LATENTS, LATENTS, Process
from simulation.synthetic.records import RECORDS

SEEN_HOURS = 24.0
HOURS_BEFORE = 8.0
BLOCK_STAYS = 5000
IN_TABLES = [LATENTS.index(name) for name in EHR_LATENTS]


@dataclass(frozen=True)
class Values:
    """Values of one concept on its working scale, with the variance of each one's error; ``stay_V`` is a row."""

    stay_V: NDArray[np.int64]
    hours_V: Array
    values_V: Array
    variance_V: Array


def measured_back(site_folder: Path, process: Process) -> tuple[NDArray[np.int64], Array]:
    """The ICU stays of a written hospital, and the posterior means of their EHR latents.

    Values count as in preparation: until 24 h after ICU admission, laboratory values by when they were reported too,
    and only within the limits of the schema.

    Shape:
        stay ids (N,), means (N, E) in the order of ``EHR_LATENTS``
    """
    stays = _read_stays(site_folder)
    blocks = []
    for start in range(0, stays.height, BLOCK_STAYS):
        block = stays.slice(start, BLOCK_STAYS).with_row_index("stay")
        values = _read_values(site_folder, block, process)
        blocks.append(posterior(process, values, block["age"].to_numpy().astype(np.float64))[0])
    return stays["stay_id"].to_numpy(), np.concatenate(blocks)


def posterior(process: Process, values: dict[str, Values], ages_N: Array) -> tuple[Array, Array]:
    """Mean (N, E) and covariance (N, E, E) of the EHR latents of N stays, given their values and their age."""
    covariance_DD = process.mixing_DD @ process.mixing_DD.T
    prior_EE = np.linalg.inv(covariance_DD[np.ix_(IN_TABLES, IN_TABLES)])
    prior_mean_E = np.mean([[dict(mix.means).get(name, 0.0) for name in EHR_LATENTS] for mix in process.case_mixes], 0)
    precision_NEE = np.repeat(prior_EE[None], len(ages_N), axis=0)
    weighted_NE = np.repeat((prior_EE @ prior_mean_E)[None], len(ages_N), axis=0)
    for members in _groups():
        told_D = process.told_by_rate_D if members == [SHOWN["heart_rate"]] else np.ones(len(LATENTS))
        precision, weighted = _evidence(members, values, told_D, len(ages_N))
        precision_NEE += precision
        weighted_NE += weighted
    frailty, slope, variance, mean_years = _age_model(process)
    precision_NEE[:, frailty, frailty] += slope**2 / variance
    weighted_NE[:, frailty] += slope / variance * (ages_N - mean_years)
    covariance_NEE = np.linalg.inv(precision_NEE)
    return np.einsum("nij,nj->ni", covariance_NEE, weighted_NE), covariance_NEE


def _groups() -> list[list[Shown]]:
    """Concepts whose own parts are independent of each other's; what shows no latent is left out."""
    groups: dict[str, list[Shown]] = {}
    for shown in SHOWN.values():
        if shown.loads or shown.course:
            groups.setdefault(shown.kin or shown.name, []).append(shown)
    return list(groups.values())


def _evidence(members: list[Shown], values: dict[str, Values], told_D: Array, num_stays: int) -> tuple[Array, Array]:
    """A' (I + M D)^-1 M A and A' (I + M D)^-1 r of one group."""
    width = NUM_FUNCTIONS * len(members)
    information_NGG = np.zeros((num_stays, width, width))
    weighted_NG = np.zeros((num_stays, width))
    for index, shown in enumerate(members):
        part = slice(index * NUM_FUNCTIONS, (index + 1) * NUM_FUNCTIONS)
        information_NGG[:, part, part], weighted_NG[:, part] = _sums(values[shown.name], shown.base, num_stays)
    slopes_GE = np.concatenate([(shown.slopes_BD * told_D)[:, IN_TABLES] for shown in members])
    share = np.array([shown.kin_share for shown in members])
    correlation = np.outer(share, share) + np.diag(1 - share**2)
    own_sd_G = np.concatenate([shown.own_sd_B for shown in members])
    own_GG = np.kron(correlation, np.eye(NUM_FUNCTIONS)) * np.outer(own_sd_G, own_sd_G)
    right = np.concatenate([information_NGG @ slopes_GE, weighted_NG[..., None]], axis=-1)
    solved = slopes_GE.T @ np.linalg.solve(np.eye(width) + information_NGG @ own_GG, right)
    return solved[..., :-1], solved[..., -1]


def _sums(seen: Values, base: float, num_stays: int) -> tuple[Array, Array]:
    """M (N, B, B) and r (N, B) of one concept."""
    functions_VB = functions_at(seen.hours_V)
    weights_VB = functions_VB / seen.variance_V[:, None]
    information = np.empty((num_stays, NUM_FUNCTIONS, NUM_FUNCTIONS))
    weighted = np.empty((num_stays, NUM_FUNCTIONS))
    for i in range(NUM_FUNCTIONS):
        weighted[:, i] = np.bincount(seen.stay_V, weights_VB[:, i] * (seen.values_V - base), num_stays)
        for j in range(i + 1):
            total_N = np.bincount(seen.stay_V, weights_VB[:, i] * functions_VB[:, j], num_stays)
            information[:, i, j] = information[:, j, i] = total_N
    return information, weighted


def _age_model(process: Process) -> tuple[int, float, float, float]:
    """Age = mean + slope * frailty + error: index of frailty, slope, variance of the error, mean."""
    slope, alone = RECORDS.age_frailty, 1 - RECORDS.age_frailty**2
    mean_years = float(np.mean([mix.age_years for mix in process.case_mixes]))
    return EHR_LATENTS.index("frailty"), RECORDS.age_sd_years * slope, RECORDS.age_sd_years**2 * alone, mean_years


def _read_stays(folder: Path) -> pl.DataFrame:
    """``subject_id``, ``stay_id``, ``intime`` and ``age`` of every ICU stay."""
    stays, admissions, patients = (
        pl.read_csv(folder / table, try_parse_dates=True)
        for table in ("icu/icustays.csv.gz", "hosp/admissions.csv.gz", "hosp/patients.csv.gz")
    )
    return (
        stays.join(admissions.select("hadm_id", "admittime"), on="hadm_id", how="left")
        .join(patients.select("subject_id", "anchor_age", "anchor_year"), on="subject_id", how="left")
        .with_columns(age=pl.col("anchor_age") + pl.col("admittime").dt.year() - pl.col("anchor_year"))
        .select("subject_id", "stay_id", "intime", "age")
    )


def _read_values(folder: Path, stays: pl.DataFrame, process: Process) -> dict[str, Values]:
    """The values of every concept in a block of stays; ``stay`` is a stay's row."""
    tables = {"stay_id": folder / "icu/chartevents.csv.gz", "subject_id": folder / "hosp/labevents.csv.gz"}
    until = pl.duration(hours=SEEN_HOURS)
    parts = []
    for key, path in tables.items():
        known_then = pl.col("storetime") <= pl.col("intime") + until if key == "subject_id" else pl.lit(True)
        parts.append(
            pl.scan_csv(path, try_parse_dates=True)
            .select(key, "itemid", "charttime", "storetime", "valuenum")
            .join(stays.lazy().select("stay", key, "intime"), on=key)
            .filter(
                pl.col("charttime").is_between(
                    -pl.duration(hours=HOURS_BEFORE) + pl.col("intime"), pl.col("intime") + until
                )
            )
            .filter(known_then)
            .join(_items().lazy(), on="itemid")
            .filter((pl.col("valuenum") > pl.col("low")) & (pl.col("valuenum") <= pl.col("high")))
            .select(
                "name",
                "stay",
                hours=(pl.col("charttime") - pl.col("intime")).dt.total_seconds() / 3600,
                value=pl.col("valuenum") * pl.col("factor") + pl.col("offset"),
            )
        )
    rows = pl.concat(pl.collect_all(parts)).sort("name", "stay", "hours", "value")  # sums must not depend on threads
    by_name = rows.partition_by("name", as_dict=True, include_key=False)
    nothing = pl.DataFrame(schema={"stay": pl.UInt32, "hours": pl.Float64, "value": pl.Float64})
    return {name: _working(shown, by_name.get((name,), nothing), process) for name, shown in SHOWN.items()}


def _items() -> pl.DataFrame:
    """For each item and unit of the schema: the concept, its limits, and how it becomes the unit that is shown."""
    rows = []
    for concept in (*VITALS, *LABS):
        shown = SHOWN[concept.name]
        own = max((item for item in concept.items if item.item_id == shown.item_id), key=lambda item: item.high)
        rows += [
            {"itemid": item.item_id, "name": concept.name, "low": float(item.low), "high": float(item.high)}
            | {"factor": item.factor / own.factor, "offset": (item.offset - own.offset) / own.factor}
            for item in concept.items
        ]
    return pl.DataFrame(rows)


def _working(shown: Shown, rows: pl.DataFrame, process: Process) -> Values:
    """Written values on the working scale; those at a limit stand for all beyond it."""
    natural_V = rows["value"].to_numpy()
    step = 10.0**-shown.digits
    scale_V = natural_V if shown.log else np.ones_like(natural_V)
    values_V = np.log(natural_V) if shown.log else natural_V
    variance_V = shown.measurement_sd**2 + (step / scale_V) ** 2 / 12
    mean, sd = _marginal(shown, process)
    for limit, sign in ((shown.least, -1.0), (shown.most, 1.0)):
        if (at_limit := np.abs(natural_V - limit) < step / 2).any():
            inner = limit - sign * step / 2
            edge = sign * ((np.log(inner) if shown.log else inner) - mean) / sd
            beyond = norm.pdf(edge) / norm.sf(edge)
            values_V = np.where(at_limit, mean + sign * sd * beyond, values_V)
            variance_V = np.where(at_limit, variance_V + sd**2 * (1 + edge * beyond - beyond**2), variance_V)
    return Values(rows["stay"].to_numpy().astype(np.int64), rows["hours"].to_numpy(), values_V, variance_V)


def _marginal(shown: Shown, process: Process) -> tuple[float, float]:
    """Mean and standard deviation of a single value over all stays and hours of the first day."""
    functions_TB = functions_at(np.arange(SEEN_HOURS))
    slopes_TD = functions_TB @ shown.slopes_BD
    moved_TD = slopes_TD @ process.mixing_DD
    own_TB = functions_TB * shown.own_sd_B
    variance = (moved_TD**2).sum(1).mean() + (own_TB**2).sum(1).mean() + shown.measurement_sd**2
    return shown.base, float(np.sqrt(variance))
