"""Sections that say how good the models are: the answer, the variants, the hospitals, diseases and subgroups."""

from collections.abc import Iterator, Mapping
from math import ceil, floor
from typing import Any

from lemof_model.lemof import POPULATIONS, REFERENCES, VARIANTS
from lemof_model.metrics import are_enough
from protocol.pages import Cell, Column, Interval, Scale, Styled, Table
from server.report import words
from server.report.run_files import RunFiles

Metrics = Mapping[str, Any]


def answer(run: RunFiles) -> dict[str, Any]:
    """The findings in sentences, each with its interval."""
    questions = [
        ("Does the ECG add to the EHR?", "with_ecg", "ehr_single", "the EHR alone"),
        ("Against boosted trees?", "all", "gbdt_ehr", "trees that each hospital trains alone on its EHR"),
        ("Does working together help?", "all", "local_only", "the same method on one hospital's data alone"),
    ]
    findings = []
    for question, population, other, name in questions:
        difference = run.metrics["differences"][population].get(f"full-{other}")
        pooled = [m for model, m in _models(run, population) if m is not None and model in ("full", other)]
        told = words.comparison(difference, name, population, sum(m["auroc_bound"] or 0.0 for m in pooled))
        findings.append((question, told))
    return {
        "generated": _generated(run),
        "performance": words.performance(run.metrics["variants"]["full"]["all"]["pooled"]),
        "is_noisy": bool(run.metrics["privacy"]),
        "findings": findings,
    }


def _generated(run: RunFiles) -> str:
    """That patients are generated, where they are: the first thing to know."""
    if run.generated is None:
        return ""
    some = [site for site in run.sites if site in run.generated["hospitals"]]
    full = run.metrics["variants"]["full"]["all"]["pooled"]
    return words.generated(
        run.generated["ceiling"], some if len(some) < len(run.sites) else (), full["n"] if full else 0
    )


def variants(run: RunFiles) -> dict[str, list[Table]]:
    """Five variants and three references, in both populations, with every metric."""
    scale = auroc_scale(run)
    return {
        "scores": [_score_table(run, population, scale) for population in POPULATIONS],
        "cuts": [_cut_table(run, population) for population in POPULATIONS],
    }


def _score_table(run: RunFiles, population: str, scale: Scale) -> Table:
    """How well scores rank, and how well they are calibrated."""
    columns: list[Column] = ["Model", "AUROC", scale, "AUPRC", "Brier", "ECE", "Calibration slope", "Trained"]
    rows = []
    for name, m in _models(run, population):
        trained = "federated" if name in VARIANTS else "local" if name in REFERENCES else words.NOT_DEFINED
        if m is None:
            cells = [_why_none(run, name, population), "", *[words.NOT_DEFINED] * 4]
        else:
            plain = [value(m, key) for key in ("auprc", "brier", "ece")]
            cells = [auroc_text(m), auroc_drawing(m, scale), *plain, value(m, "calibration_slope", 2)]
        rows.append([words.NAMES[name], *cells, trained])
    return Table(columns, rows, _caption(run, population), text_columns=(7,), strong_rows=(VARIANTS.index("full"),))


def _cut_table(run: RunFiles, population: str) -> Table:
    """Accuracy and macro-F1 at the three cuts."""
    columns: list[Column] = ["Model", *((title, ("Acc.", "F1")) for title in words.CUT_NAMES.values())]
    rows = []
    for name, m in _models(run, population):
        keys = [(cut, key) for cut in words.CUT_NAMES for key in ("acc", "f1_macro")]
        cells = [words.NOT_DEFINED] * 6 if m is None else [words.number(m["cuts"][c][key]) for c, key in keys]
        rows.append([words.NAMES[name], *cells])
    return Table(columns, rows, words.POPULATION_NAMES[population], strong_rows=(VARIANTS.index("full"),))


def _models(run: RunFiles, population: str) -> Iterator[tuple[str, Metrics | None]]:
    """Pooled metrics of variants and references, in the order of the tables."""
    for name in (*VARIANTS, *REFERENCES, "always_short"):
        block = run.metrics["variants" if name in VARIANTS else "reference"][name][population]
        yield name, block and block["pooled"]


def _why_none(run: RunFiles, name: str, population: str) -> Cell:
    """Why a row has no pooled metrics. A reference where the full model has some was not trained everywhere."""
    if (name, population) == ("ecg_single", "all"):
        return words.NOT_DEFINED
    was_evaluated = run.metrics["variants"]["full"][population]["pooled"] is not None
    return Styled(words.NOT_EVERYWHERE, "why") if name in REFERENCES and was_evaluated else words.TOO_FEW


def _caption(run: RunFiles, population: str) -> str:
    """The population, and how many of it are long."""
    full = run.metrics["variants"]["full"][population]["pooled"]
    if full is None:
        return words.POPULATION_NAMES[population]
    share = words.percent(full["n_positive"] / full["n"])
    return f"{words.POPULATION_NAMES[population]}: {words.count(full['n'])} held out, {share} of them long"


def value(m: Metrics, key: str, digits: int = 3) -> str:
    """A metric, or why there is none: too few stays of an outcome, or scores without a spread."""
    if m[key] is None and are_enough(m["n"], m["n_positive"]):
        return words.NOT_DEFINED
    return words.number(m[key], digits)


def auroc_text(m: Metrics | None) -> str:
    """AUROC with interval; and how far counting in bins can be off, where that shows."""
    if m is None or m["auroc"] is None:
        return words.TOO_FEW
    ends = m["auroc_ci"]
    text = words.number(m["auroc"])
    if ends is not None and None not in ends:
        text += f" ({words.number(ends[0])}{words.EN_DASH}{words.number(ends[1])})"
    if (m["auroc_bound"] or 0.0) > words.VISIBLE_BOUND:
        text += f" ±{words.number(m['auroc_bound'])}*"
    return text


def auroc_drawing(m: Metrics | None, scale: Scale, css: str = "") -> Cell:
    """AUROC with interval as a drawing."""
    if m is None or m["auroc"] is None:
        return ""
    ends = None if m["auroc_ci"] is None or None in m["auroc_ci"] else m["auroc_ci"]
    return Interval(scale, m["auroc"], ends, f"AUROC {auroc_text(m)}", css)


def auroc_scale(run: RunFiles) -> Scale:
    """From the lowest to the highest pooled AUROC in tenths, chance as reference; hospitals may stand out of it."""
    seen = [0.4, 0.6]
    for block in (run.metrics["variants"], run.metrics["reference"]):
        for populations in block.values():
            for entry in populations.values():
                for m in (entry and entry["pooled"], *((entry and entry["sites"].values()) or ())):
                    if m is not None and m["auroc"] is not None:
                        seen += [m["auroc"], *(end for end in m["auroc_ci"] or () if end is not None)]
    return Scale(floor(10 * min(seen)) / 10, ceil(10 * max(seen)) / 10, 0.5)


def differences(run: RunFiles) -> list[Table]:
    """Paired differences, drawn."""
    entries = run.metrics["differences"]
    ends = [abs(end) for block in entries.values() for d in block.values() for end in d["auroc_ci"] or ()]
    width = ceil(20 * max(ends, default=0.05)) / 20
    scale = Scale(-width, width, 0.0)
    return [
        Table(
            ["Full model minus", "AUROC difference", scale],
            [_difference_row(key.removeprefix("full-"), entry, scale) for key, entry in entries[population].items()],
            words.POPULATION_NAMES[population],
        )
        for population in POPULATIONS
        if entries[population]
    ]


def _difference_row(other: str, difference: Metrics, scale: Scale) -> list[Cell]:
    ends = difference["auroc_ci"]
    if ends is None:
        return [words.NAMES[other], words.TOO_FEW, ""]
    text = f"{words.signed(difference['auroc'])} ({words.between(ends)})"
    return [words.NAMES[other], text, Interval(scale, difference["auroc"], ends, f"difference {text}")]


def hospitals(run: RunFiles) -> list[Table]:
    """AUROC at each hospital and pooled: the full model, and what the hospital reaches alone."""
    scale = auroc_scale(run)
    columns: list[Column] = ["Hospital", "Stays (long)", "Full, federated", "Local only", scale]
    return [
        Table(columns, list(_hospital_rows(run, population, scale)), words.POPULATION_NAMES[population])
        for population in POPULATIONS
    ]


def _hospital_rows(run: RunFiles, population: str, scale: Scale) -> Iterator[list[Cell]]:
    ours, alone = run.metrics["variants"]["full"][population], run.metrics["reference"]["local_only"][population]
    pairs = [(site, ours["sites"].get(site), alone["sites"].get(site)) for site in run.sites]
    for name, m, local in [*pairs, ("All hospitals", ours["pooled"], alone["pooled"])]:
        drawing = [auroc_drawing(m, scale), auroc_drawing(local, scale, "hollow")]
        if population == "with_ecg" and name in run.without_ecgs:
            yield [name, words.NO_ECG, *[words.NOT_DEFINED] * 2, ""]
            continue
        why = words.NOT_TRAINED if name in run.sites else words.NOT_EVERYWHERE
        is_untrained = m is not None and local is None
        whole, noisy = run.metrics["variants"]["full"]["all"], run.metrics["privacy"]
        is_noisy = name in noisy if name in run.sites else bool(noisy)
        stays = _stays(m, whole["sites"].get(name, whole["pooled"]), is_noisy=is_noisy)
        yield [name, stays, auroc_text(m), why if is_untrained else auroc_text(local), drawing]


def _stays(m: Metrics | None, whole: Metrics | None, *, is_noisy: bool) -> str:
    """How many stays, and how many of them are long, of a ``whole``. Counts of a hospital with a privacy budget are
    noisy, each with its own noise: they are told as about so many, and no part as more than its whole."""
    if m is None:
        return words.TOO_FEW
    most = whole or m
    num, num_long = min(m["n"], most["n"]), min(m["n_positive"], most["n_positive"], m["n"], most["n"])
    return f"{words.ABOUT if is_noisy else ''}{words.count(num)} ({words.count(num_long)})"


def subgroups(run: RunFiles) -> Table:
    """One model, stratified by discharge disease and by subgroup."""
    scale = Scale(0.2, 1.0, 0.5)
    parts = ("Stays (long)", "EHR alone", "Full (95 % interval)", scale)
    columns: list[Column] = ["Group", *((words.POPULATION_NAMES[name], parts) for name in POPULATIONS)]
    full, ehr = (run.metrics["variants"][name] for name in ("full", "ehr_single"))
    rows = []
    for kind in ("subgroups", "diseases"):
        for name in full["all"][kind]:
            cells = [
                cell
                for population in POPULATIONS
                for cell in _group_cells(
                    run, full[population], full[population][kind].get(name), ehr[population][kind].get(name), scale
                )
            ]
            rows.append([name.replace("_", " ").replace(":", ": "), *cells])
    return Table(columns, rows, "Subgroups and diseases")


def _group_cells(
    run: RunFiles, whole: Mapping[str, Any], full: Metrics | None, ehr: Metrics | None, scale: Scale
) -> list[Cell]:
    point = words.TOO_FEW if ehr is None else words.number(ehr["auroc"])
    stays = _stays(full, whole["pooled"], is_noisy=bool(run.metrics["privacy"]))
    return [stays, point, auroc_text(full), auroc_drawing(full, scale)]
