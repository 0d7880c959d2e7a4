"""From score histograms to ``metrics.json``: calibration and cuts from ``tuning``, every metric from ``held_out``.

Metrics of a site that sent one label of a group only are null. So is every metric over fewer than five stays of either
outcome (``metrics.FEWEST_OF_AN_OUTCOME``): such a number is no result; how many stays there are is told all the same.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lemof_model import delong, logistic, membership, metrics
from lemof_model.delong import Interval
from lemof_model.features import DISEASES
from lemof_model.lemof import POPULATIONS, REFERENCES, SCORED, VARIANTS
from lemof_model.study import Study
from server.intervals import Intervals
from server.pooled import complete_sites, counts_of, mended
from server.run_store import Round

Cuts = dict[str, dict[str, dict[str, float]]]
Counts = tuple[NDArray[np.float64], NDArray[np.float64]]

MEASURES = (
    "auroc", "auroc_ci", "auroc_bound", "auprc", "auprc_bound", "brier", "ece", "ece_bound", "calibration_slope"
)  # fmt: skip


class _Scale(NamedTuple):
    """What the bins of one variant in one population mean: their edges, and Platt's pair."""

    edges: NDArray[np.float64]
    pair: NDArray[np.float64]

    @classmethod
    def of(cls, model: Mapping[str, Any], name: str) -> "_Scale":
        return cls(model[f"edges/{name}"], model[f"calibration/{name}"])


def calibrate_and_cut(tuning: Round, study: Study) -> tuple[dict[str, NDArray[Any]], Cuts]:
    """Platt's pair, the three cuts on the scores as they are, and the bin edges for ``held_out`` of each variant and
    population."""
    edges = metrics.bin_edges(study.evaluation)
    found: dict[str, NDArray[Any]] = {}
    cuts: Cuts = {}
    for population in POPULATIONS:
        cuts[population] = {}
        sites = complete_sites(tuning, f"{population}/all")
        if len(sites) < study.fewest_sites:
            sites = []  # what follows is sent to every hospital
        for index, name in enumerate(SCORED):
            negative, positive = mended(counts_of(tuning, f"{population}/all", sites, index, study.evaluation.num_bins))
            pair = np.array([1.0, 0.0])
            if study.evaluation.calibration == "platt":
                pair = metrics.platt(negative, positive, metrics.middles(edges))
            cuts[population][name] = metrics.best_cuts(negative, positive, edges, pair)
            found[f"calibration/{population}/{name}"] = pair
            counts = negative + positive
            if any(tuning.sites[site].delta for site in sites):
                counts = metrics.bulk(counts)
            found[f"edges/{population}/{name}"] = metrics.fine_edges(
                counts, edges, list(cuts[population][name].values())
            )
    return found, cuts


def metrics_of(
    held_out: Round,
    study: Study,
    model: Mapping[str, Any],
    cuts: Cuts,
    privacy: Mapping[str, Mapping[str, float]] | None = None,
    told: Round | None = None,
) -> dict[str, Any]:
    """The content of ``metrics.json``; ``privacy`` is what sites with a budget have spent, ``told`` the sums that
    intervals are made of."""
    intervals = Intervals(held_out, told, study)

    def table(wanted: Sequence[str]) -> dict[str, Any]:
        return {
            name: {
                population: _variant(
                    held_out,
                    intervals,
                    population,
                    name,
                    _Scale.of(model, f"{population}/{name}"),
                    cuts[population][name],
                )
                for population in POPULATIONS
            }
            for name in wanted
        }

    variants = table(VARIANTS)
    variants["ecg_single"]["all"] = None
    references: dict[str, Any] = table(REFERENCES)
    for name in REFERENCES:
        for population in POPULATIONS:
            references[name][population] |= {"trained": "local"} | _incomplete(references, variants, name, population)
    references["always_short"] = {p: _map(_always_short, variants["ehr_single"][p]) for p in POPULATIONS}
    return {
        "target": dataclasses.asdict(study.target),
        "best_level": {"ecg": int(model["best_level"][0]), "ehr": int(model["best_level"][1])},
        "variants": variants,
        "reference": references,
        "differences": {
            population: intervals.differences(population) if _is_result(variants["full"][population]["pooled"]) else {}
            for population in POPULATIONS
        },
        "membership": _membership(held_out),
        "privacy": {site: dict(values) for site, values in (privacy or {}).items()},
    }


def _membership(held_out: Round) -> dict[str, Any]:
    """The attack on members, of each network: by site, and over all sites that sent both of its histograms."""

    def one(network: str, sites: Sequence[str]) -> dict[str, Any] | None:
        names = [f"membership/{network}/{who}" for who in ("members", "others")]
        complete = [site for site in sites if all(name in held_out.sites[site].counts for name in names)]
        if not complete:
            return None
        members, others = (
            np.sum([held_out.sites[site].sums[f"{name}/histogram"] for site in complete], axis=0) for name in names
        )
        found = membership.attack(members, others)
        is_result = found and min(found["num_members"], found["num_others"]) >= metrics.FEWEST_OF_AN_OUTCOME
        return found if is_result else None

    answered = held_out.answered()
    return {
        network: {"pooled": one(network, answered), "sites": {site: one(network, [site]) for site in answered}}
        for network in membership.NETWORKS
    }


def _incomplete(references: Any, variants: Any, name: str, population: str) -> dict[str, None]:
    """A reference that some hospital could not train is not over the same stays as the variants: no pooled metrics."""
    pooled, full = (table[population]["pooled"] for table in (references[name], variants["full"]))
    return {"pooled": None} if pooled is not None and (full is None or pooled["n"] != full["n"]) else {}


def _is_result(m: dict[str, Any] | None) -> bool:
    """Whether enough stays are behind an M."""
    return m is not None and m["auroc"] is not None


def _variant(
    reply: Round, intervals: Intervals, population: str, name: str, scale: _Scale, cuts: Mapping[str, float]
) -> dict[str, Any]:
    """Pooled, per site, per disease and per subgroup metrics of one variant in one population."""
    index = SCORED.index(name)

    def one(member: str, sites: Sequence[str], interval: Interval | None = None) -> dict[str, Any] | None:
        group = f"{population}/{member}"
        complete = [site for site in sites if site in complete_sites(reply, group)]
        counts = counts_of(reply, group, complete, index, len(scale.edges) - 1)
        if member != "all" and sum(c.sum() for c in counts):
            interval = delong.interval_of_counts(*counts)
        return _metrics(counts, scale, cuts, interval)

    answered = reply.answered()
    members = {group.split("/")[1] for group in reply.counts if group.startswith(f"{population}/")}
    subgroups = sorted(m for m in members if m.startswith(("sex:", "age:")))
    return {
        "pooled": one("all", answered, intervals.pooled(population, name)),
        "sites": {site: one("all", [site], intervals.of_site(population, name, site)) for site in answered},
        "diseases": {disease: one(f"disease:{disease}", answered) for disease in DISEASES},
        "subgroups": {member: one(member, answered) for member in subgroups},
    }


def _metrics(
    counts: Counts, scale: _Scale, cuts: Mapping[str, float], interval: Interval | None
) -> dict[str, Any] | None:
    """One M of ``metrics.json``, its metrics null where too few stays of an outcome are behind it; None over nobody.
    The AUROC is that of noisy counts as they are: to mend them draws it towards chance."""
    negative, positive = mended(counts)
    num_stays, num_positive = round(float(negative.sum() + positive.sum())), round(float(positive.sum()))
    if not num_stays:
        return None
    is_result = metrics.are_enough(sum(c.sum() for c in counts), counts[1].sum())
    at_cuts = {}
    for name, cut in cuts.items():
        called = metrics.confusion(negative, positive, int(np.searchsorted(scale.edges, cut)))
        probability = float(logistic.sigmoid(metrics.calibrate(np.array(cut), scale.pair)))
        at_cuts[name] = {"threshold": 0.5 if name == "half" else probability, **_at_cut(called, is_result=is_result)}
    log_odds_B = metrics.calibrate(metrics.middles(scale.edges), scale.pair)
    found: dict[str, Any] = dict.fromkeys(MEASURES)
    if is_result:
        found |= {
            "auroc": float(np.clip(metrics.auroc(*counts), 0.0, 1.0)),
            "auroc_ci": interval,
            "auroc_bound": metrics.auroc_bound(negative, positive),
            "auprc": metrics.auprc(negative, positive),
            "auprc_bound": metrics.auprc_bound(negative, positive),
            "brier": metrics.brier(negative, positive, log_odds_B),
            "ece": metrics.ece(negative, positive, log_odds_B),
            "ece_bound": metrics.ece_bound(negative, positive, scale.edges, scale.pair),
            "calibration_slope": metrics.calibration_slope(negative, positive, log_odds_B),
        }
    return {"n": num_stays, "n_positive": num_positive, **found, "cuts": at_cuts}


def _at_cut(called: metrics.Confusion, *, is_result: bool) -> dict[str, float | None]:
    """How well stays are called long or short at a cut."""
    found = {
        "acc": called.accuracy, "f1_macro": called.f1_macro,
        "sensitivity": called.sensitivity, "specificity": called.specificity,
    }  # fmt: skip
    return dict(found) if is_result else dict.fromkeys(found)


def _always_short(m: dict[str, Any]) -> dict[str, Any]:
    """The M of calling every stay short with probability 0 of a long one."""
    positive, negative = m["n_positive"], m["n"] - m["n_positive"]
    is_result, share = _is_result(m), positive / m["n"]
    called = metrics.Confusion(tp=0.0, fp=0.0, tn=float(negative), fn=float(positive))
    cut = {"threshold": 1.0, **_at_cut(called, is_result=is_result)}
    found: dict[str, Any] = dict.fromkeys(MEASURES)
    if is_result:
        found |= {"auroc": 0.5, "auprc": share, "brier": share, "ece": share}
        found |= dict.fromkeys(("auroc_bound", "auprc_bound", "ece_bound"), 0.0)
    return {"n": m["n"], "n_positive": positive, **found, "cuts": {"half": cut, "macro_f1": cut, "accuracy": cut}}


def _map(function: Any, table: Any) -> Any:
    """Apply ``function`` to every M of a table."""
    if table is None:
        return None
    if "n_positive" in table:
        return function(table)
    return {key: _map(function, value) for key, value in table.items()}
