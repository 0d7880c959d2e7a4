"""From score histograms to ``metrics.json``: calibration and cuts from ``tuning``, every metric from ``held_out``.

A site counts in a group only with both labels: where one of them was too small to leave the site, the other would bend
the pooled curve. Metrics of such a site are null. So is every metric over fewer than five stays of either outcome
(``metrics.FEWEST_OF_AN_OUTCOME``): such a number is no result; how many stays there are is told all the same.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lemof_model import logistic, membership, metrics
from lemof_model.features import DISEASES
from lemof_model.lemof import POPULATIONS, REFERENCES, SCORED, VARIANTS
from lemof_model.study import Study
from server.run_store import Round

Cuts = dict[str, dict[str, dict[str, float]]]
Counts = tuple[NDArray[np.float64], NDArray[np.float64]]

MEASURES = ("auroc", "auroc_ci", "auroc_bound", "auprc", "brier", "ece", "calibration_slope")
COMPARED = ("ecg_single", "ehr_single", "m1", "m2", *REFERENCES)


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
        sites = _complete_sites(tuning, f"{population}/all")
        if len(sites) < study.fewest_sites:
            sites = []  # what follows is sent to every hospital
        for index, name in enumerate(SCORED):
            negative, positive = _histogram(tuning, f"{population}/all", sites, index, study.evaluation.num_bins)
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
) -> dict[str, Any]:
    """The content of ``metrics.json``; ``privacy`` is what sites with a budget have spent."""

    def table(wanted: Sequence[str]) -> dict[str, Any]:
        return {
            name: {
                population: _variant(
                    held_out, population, name, _Scale.of(model, f"{population}/{name}"), cuts[population][name]
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
        "differences": {population: _differences(held_out, population) for population in POPULATIONS},
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


def _complete_sites(reply: Round, group: str) -> list[str]:
    """Sites that sent both labels of a group."""
    return [s for s, r in reply.sites.items() if f"{group}/0" in r.counts and f"{group}/1" in r.counts]


def _histogram(reply: Round, group: str, sites: Sequence[str], index: int, num_bins: int) -> Counts:
    """Counts per bin by label of one variant, added over sites, noise below 0 mended; zeros over none."""
    if not sites:
        return np.zeros(num_bins), np.zeros(num_bins)

    def added(label: int) -> NDArray[np.float64]:
        rows = [reply.sites[site].sums[f"{group}/{label}/histogram"][index] for site in sites]
        return metrics.nonnegative(np.asarray(np.sum(rows, axis=0), dtype=np.float64))

    return added(0), added(1)


def _have_bootstrap(reply: Round, group: str, sites: Sequence[str]) -> bool:
    """Whether there are sites, and all of them sent bootstrap histograms; one with a privacy budget does not."""
    return bool(sites) and all(f"{group}/0/bootstrap" in reply.sites[site].sums for site in sites)


def _bootstrap_aurocs(reply: Round, group: str, sites: Sequence[str], index: int) -> NDArray[np.float64]:
    """AUROC of one variant under each bootstrap draw."""

    def added(label: int) -> NDArray[np.float64]:
        draws = [reply.sites[site].sums[f"{group}/{label}/bootstrap"][:, index].astype(np.float64) for site in sites]
        return np.asarray(np.sum(draws, axis=0))

    return metrics.auroc(added(0), added(1))


def _variant(reply: Round, population: str, name: str, scale: _Scale, cuts: Mapping[str, float]) -> dict[str, Any]:
    """Pooled, per site, per disease and per subgroup metrics of one variant in one population."""
    index = SCORED.index(name)

    def one(member: str, sites: Sequence[str]) -> dict[str, Any] | None:
        group = f"{population}/{member}"
        complete = [site for site in sites if site in _complete_sites(reply, group)]
        counts = _histogram(reply, group, complete, index, len(scale.edges) - 1)
        interval = None
        if sum(c.sum() for c in counts) and not any(reply.sites[site].delta for site in complete):
            interval = metrics.auroc_interval_delong(*counts)
        if _have_bootstrap(reply, group, complete):
            interval = metrics.percentile_interval(_bootstrap_aurocs(reply, group, complete, index))
        return _metrics(counts, scale, cuts, interval)

    answered = reply.answered()
    members = {group.split("/")[1] for group in reply.counts if group.startswith(f"{population}/")}
    subgroups = sorted(m for m in members if m.startswith(("sex:", "age:")))
    return {
        "pooled": one("all", answered),
        "sites": {site: one("all", [site]) for site in answered},
        "diseases": {disease: one(f"disease:{disease}", answered) for disease in DISEASES},
        "subgroups": {member: one(member, answered) for member in subgroups},
    }


def _metrics(
    counts: Counts, scale: _Scale, cuts: Mapping[str, float], interval: tuple[float, float] | None
) -> dict[str, Any] | None:
    """One M of ``metrics.json``, its metrics null where too few stays of an outcome are behind it; None over nobody."""
    negative, positive = counts
    num_stays, num_positive = round(float(negative.sum() + positive.sum())), round(float(positive.sum()))
    if not num_stays:
        return None
    is_result = metrics.are_enough(num_stays, num_positive)
    at_cuts = {}
    for name, cut in cuts.items():
        called = metrics.confusion(negative, positive, int(np.searchsorted(scale.edges, cut)))
        probability = float(logistic.sigmoid(metrics.calibrate(np.array(cut), scale.pair)))
        at_cuts[name] = {"threshold": 0.5 if name == "half" else probability, **_at_cut(called, is_result=is_result)}
    log_odds_B = metrics.calibrate(metrics.middles(scale.edges), scale.pair)
    found: dict[str, Any] = dict.fromkeys(MEASURES)
    if is_result:
        found |= {
            "auroc": float(metrics.auroc(negative, positive)),
            "auroc_ci": list(interval) if interval is not None else None,
            "auroc_bound": metrics.auroc_bound(negative, positive),
            "auprc": metrics.auprc(negative, positive),
            "brier": metrics.brier(negative, positive, log_odds_B),
            "ece": metrics.ece(negative, positive, log_odds_B),
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
    is_result, share = metrics.are_enough(m["n"], positive), positive / m["n"]
    called = metrics.Confusion(tp=0.0, fp=0.0, tn=float(negative), fn=float(positive))
    cut = {"threshold": 1.0, **_at_cut(called, is_result=is_result)}
    found: dict[str, Any] = dict.fromkeys(MEASURES)
    if is_result:
        found |= {"auroc": 0.5, "auroc_bound": 0.0, "auprc": share, "brier": share, "ece": share}
    return {"n": m["n"], "n_positive": positive, **found, "cuts": {"half": cut, "macro_f1": cut, "accuracy": cut}}


def _map(function: Any, table: Any) -> Any:
    """Apply ``function`` to every M of a table."""
    if table is None:
        return None
    if "n_positive" in table:
        return function(table)
    return {key: _map(function, value) for key, value in table.items()}


def _differences(reply: Round, population: str) -> dict[str, Any]:
    """Paired AUROC differences, full minus each other, over the same bootstrap draws and the same stays."""
    group = f"{population}/all"
    sites = _complete_sites(reply, group)
    if not _have_bootstrap(reply, group, sites):
        return {}
    full = SCORED.index("full")
    out = {}
    for name in COMPARED:
        index = SCORED.index(name)
        counts, ours = (_histogram(reply, group, sites, row, 0) for row in (index, full))
        num_stays = sum(c.sum() for c in ours)
        if sum(c.sum() for c in counts) != num_stays or not metrics.are_enough(num_stays, ours[1].sum()):
            continue  # a reference that some site could not train is not over the same stays
        draws = _bootstrap_aurocs(reply, group, sites, full) - _bootstrap_aurocs(reply, group, sites, index)
        point = float(metrics.auroc(*ours) - metrics.auroc(*counts))
        out[f"full-{name}"] = {"auroc": point, "auroc_ci": list(metrics.percentile_interval(draws))}
    return out
