"""Sections that say what was asked and how it went: cohort, levels, training, rounds, privacy, and the footer."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lemof_model import lemof
from lemof_model.study import MODALITIES, SPLITS, Study
from protocol.method import LEARNING
from protocol.pages import Bar, Cell, Styled, Table
from protocol.stages import STAGES
from server.report import words
from server.report.run_files import RunFiles

ENCODERS = {"ecg": "ECG encoder", "ehr": "EHR encoder"}
NOT_RECORDED = "not recorded"


def asked(run: RunFiles) -> dict[str, Any]:
    """The question, the cohort rule, and who brought how many stays."""
    study = run.study
    splits = ", ".join(f"{s.replace('_', ' ')} {words.percent(getattr(study.splits, s))}" for s in SPLITS)
    facts = [
        ("Question", words.question(study.target)),
        ("Asked", words.moment(study.cohort)),
        ("Patients", words.cohort_rule(study.cohort, study.target)),
        ("Deaths", words.deaths_rule(study.target)),
        ("Hospitals", words.participants(study, len(run.sites))),
        ("Model", f"ECG encoder {study.ecg.name}, EHR encoder {study.ehr.name}; {study.strategy.name} over hospitals."),
        ("Splits", f"{splits}, by patient."),
    ]
    rows = [[site, *_census_cells(run, site)] for site in run.sites if site in run.census]
    columns = ["Hospital", "Stays", "Long", "With an ECG"]
    return {"facts": facts, "census": Table(columns, rows, "Stays that hospitals brought, all splits")}


def _census_cells(run: RunFiles, site: str) -> Iterator[str]:
    """Stays, long ones and those with an ECG, as far as the hospital's minimum lets them be known. No part is told as
    more than its whole: of a split whose stays were held back, as many are counted as its parts show."""
    counts = run.census[site]
    whole = [_at_least(counts, split) for split in SPLITS]
    for group in ("ehr", "ehr/1", "ecg"):
        if group == "ecg" and site in run.without_ecgs:
            yield words.NO_ECG
            continue
        known = [counts.get(f"{split}/{group}") for split in SPLITS]
        told = [num or 0 for num in (whole if group == "ehr" else known)]
        sign = words.AT_LEAST if None in known else words.ABOUT if site in run.metrics["privacy"] else ""
        yield f"{sign}{words.count(min(sum(told), sum(whole)))}" if any(told) else words.TOO_FEW


def _at_least(counts: Mapping[str, int], split: str) -> int:
    """The stays of a split: their number, or what the numbers of its parts show."""
    if f"{split}/ehr" in counts:
        return counts[f"{split}/ehr"]
    by_label = [max(counts.get(f"{split}/{m}/{label}", 0) for m in MODALITIES) for label in (0, 1)]
    return max(sum(by_label), counts.get(f"{split}/ecg", 0))


def levels(run: RunFiles) -> list[tuple[Table, str]]:
    """How much each depth of an encoder counts, and how sure the choice of the best one is: without one hospital."""
    return [(_level_table(m, run.importance[m]), _without_one(run.importance[m])) for m in MODALITIES]


def _level_table(modality: str, ranking: Mapping[str, Any]) -> Table:
    importance, best = ranking["level_importance"], ranking["best_level"]
    wins, largest = ranking["winners_in_draws"], max(ranking["level_importance"])
    rows: list[list[Cell]] = []
    for level, mean in enumerate(importance, start=1):
        name = f"Level {level}" + (", best" if level == best else "")
        drawing = Bar(mean / largest if largest else 0.0, f"importance {mean:.4f}", "" if level == best else "quiet")
        won = words.percent(wins[level - 1] / max(sum(wins), 1)) if wins else "not known: noise"
        rows.append([name, words.number(mean, 4), drawing, won])
    caption = f"{modality.upper()}, {words.count(ranking['num_stays'], 'stay')}"
    return Table(["Level", "Importance", "", "Best in draws"], rows, caption, strong_rows=(best - 1,))


def _without_one(ranking: Mapping[str, Any]) -> str:
    """Which level is best when one hospital is left out."""
    best, without = ranking["best_level"], ranking["best_level_without_site"]
    if not without:
        return "one hospital only, so none can be left out"
    told = "; ".join(f"without {site} it is level {level}" for site, level in without.items() if level != best)
    return told or "the best level stays the same"


def training(run: RunFiles) -> dict[str, Any]:
    """Tuning loss over rounds, and the logistic learners."""
    stages, blocks = run.card["stages"], _names_of_blocks(run.study)
    columns = ["Learner", "Steps", "Converged", "Coefficients", "Intercept", "Hospitals"]
    learners = [one.theta for stage in LEARNING for one in stage.learners.values()]
    rows = [_learner_row(name, stages[name]) for name in learners]
    return {
        "curves": [_curve(name, stages[b]["tuning_loss"], stages[b]["best_round"]) for b, name in blocks.items()],
        "learners": Table(columns, rows, "Logistic learners, by Newton steps on all hospitals' sums", (2, 3, 5)),
        "suspicions": [
            f"{name}, round {it['round']}: {it['site']}, whose update was {words.number(it['times'], 2)} times as long "
            f"as the mean of the others', cosine {words.number(it['cosine'], 2)}."
            for block, name in blocks.items()
            for it in stages[block].get("suspicions", [])
        ],
    }


def _names_of_blocks(study: Study) -> dict[str, str]:
    """Every block of weights, as people call it."""
    found = {}
    for modality, name in ENCODERS.items():
        for block in lemof.networks_of(study, modality):
            found[block] = f"{name} {lemof.network_number(block, study) + 1}" if study.folds else name
    for head in lemof.heads_of(study):
        over = f" over encoders {lemof.network_number(head, study) + 1}" if study.folds else ""
        found[head] = f"Attention{over}, head {lemof.half_of(head) + 1}"
    return found


def _curve(name: str, losses: Sequence[float | None], best: int) -> dict[str, Any]:
    """Where each known loss stands over its round, in per cent from the left and from above, and the kept one."""
    known = {index: loss for index, loss in enumerate(losses) if loss is not None}
    high, low = max(known.values(), default=0.0), min(known.values(), default=0.0)
    places = {
        index: (100 * index / max(len(losses) - 1, 1), 6 + 88 * ((high - loss) / (high - low) if high > low else 0.5))
        for index, loss in known.items()
    }
    told = _kept_round([words.number(loss) for loss in losses], best)
    return {"name": name, "told": told, "places": list(places.values()), "kept": places.get(best)}


def _kept_round(losses: Sequence[str], best: int) -> str:
    """Which weights of a block were kept; round 0 is the untrained ones."""
    num_rounds = len(losses) - 1
    if best:
        return f"{losses[0]} before training, {losses[best]} after round {best} of {num_rounds} (kept)"
    return f"{losses[0]} before training; none of {words.count(num_rounds, 'round')} lowered it: untrained weights kept"


def _learner_row(name: str, learner: Mapping[str, Any]) -> list[str]:
    state = "yes" if learner["converged"] else "one noisy step, as planned" if learner["noisy"] else "NO: out of steps"
    if learner["separated"]:
        state += "; inputs separate the outcomes"
    coefficients = ", ".join(words.number(weight, 2) for weight in learner["coef"])
    steps, intercept = str(learner["num_steps"]), words.number(learner["intercept"], 2)
    return [name, steps, state, coefficients, intercept, ", ".join(learner["sites"])]


def rounds(run: RunFiles) -> dict[str, Any]:
    """Who answered how often, what that held, how many bytes it was; refusals, and groups that were left out."""
    answered: Counter[tuple[str, str]] = Counter()
    asked_for: Counter[tuple[str, str]] = Counter()
    sent: Counter[tuple[str, str]] = Counter()
    sites = sorted({row["site"] for row in run.rounds})
    for row in run.rounds:
        asked_for[row["stage"], row["site"]] += 1
        answered[row["stage"], row["site"]] += int(row["answered"])
    for line in run.audit.values():
        for site, ways in line["bytes"].items():
            sent[line["stage"], site] += ways["received"]

    def cell(stage: str, site: str) -> Cell:
        asked_times, times = asked_for[stage, site], answered[stage, site]
        text = f"{times} of {asked_times}" if asked_times else "not asked"
        return [Styled(text, "missed") if times < asked_times else text, f" · {words.size(sent[stage, site])}"]

    rows: list[list[Cell]] = [
        [name, stage.says, *(cell(name, site) for site in sites)] for name, stage in STAGES.items()
    ]
    total = [words.size(sum(sent[stage, site] for stage in STAGES)) for site in sites]
    rows.append(["total", f"{words.count(len({r['number'] for r in run.rounds}), 'round')}", *total])
    columns = ["Stage", "An answer holds", *sites]
    return {
        "answers": Table(columns, rows, "Answers by stage", text_columns=(1,), strong_rows=(len(rows) - 1,)),
        "refusals": list(_refusals(run)),
        "held_back": list(_held_back(run)),
    }


def _refusals(run: RunFiles) -> Iterator[str]:
    """One line for each hospital, stage and reason."""
    numbers: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for row in run.rounds:
        if row["answered"] == "0":
            numbers[row["site"], row["stage"], row["reason"]].append(row["number"])
    for (site, stage, reason), missed in numbers.items():
        yield f"{site}, {stage}, round {', '.join(missed)}: {reason}"


def _held_back(run: RunFiles) -> Iterator[str]:
    """One line for each hospital: the groups by stage."""
    groups: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for line in run.audit.values():
        for site, names in line["too_small"].items():
            groups[site][line["stage"]].update(names)
    for site, stages in sorted(groups.items()):
        yield f"{site}: " + "; ".join(f"{stage}: {', '.join(sorted(names))}" for stage, names in stages.items())


def privacy(run: RunFiles) -> dict[str, Any]:
    """What protects patients beyond sums, whose totals tell too much, and how well members can be told from others."""
    budgets = run.metrics["privacy"]
    if budgets:
        lines = [f"{site}: epsilon {b['epsilon']:.2f} at delta {b['delta']:g}" for site, b in budgets.items()]
    else:
        lines = [
            "No budget was set. Patients' data stayed at their hospital and groups under its minimum were held back, "
            "but the coordinator saw each hospital's exact sums, and sums alone are no guarantee."
        ]
    for block, sites in run.card.get("few_sites", {}).items():
        names = " and ".join(sites) or "no hospital"
        lines.append(f"Only {names} could train the {ENCODERS[block]}: its totals tell each what the others hold.")
    return {"protection": lines, "attack": _membership(run)}


def _membership(run: RunFiles) -> Table:
    """The attack on members, by learner and hospital; a run of an older release has none."""
    rows = []
    for learner, audit in run.metrics.get("membership", {}).items():
        for site, found in [("all hospitals", audit["pooled"]), *sorted(audit["sites"].items())]:
            budget = run.metrics["privacy"].get(site)
            told = f"epsilon {budget['epsilon']:.2f}" if budget else words.NOT_DEFINED
            rows.append([f"{words.NETWORK_NAMES[learner]}, {site}", *_attack_cells(found), told])
    columns = ["Learner and hospital", "Members", "Others", "AUROC", "False alarms, at most", "Found", "Budget"]
    return Table(columns, rows, "Membership attack")


def _attack_cells(found: Mapping[str, Any] | None) -> list[str]:
    """How the attack went at one hospital, or over all."""
    if found is None:
        return [words.TOO_FEW, *[words.NOT_DEFINED] * 4]
    auroc = f"{words.number(found['auroc'])} ({words.between(found['auroc_ci'])})"
    share = f"{words.number(found['true_positive_rate'])} ({words.between(found['true_positive_rate_ci'])})"
    most = words.number(found["max_false_positive_rate"])
    return [words.count(found["num_members"]), words.count(found["num_others"]), auroc, most, share]


def footer(run: RunFiles) -> list[tuple[str, str]]:
    """What tells runs apart, and all that may differ between equal ones."""
    seconds = ", ".join(f"{stage} {value:.1f} s" for stage, value in run.timings["seconds"].items())
    times = [line["time"] for line in run.audit.values()]
    versions = ", ".join(f"{name} {version}" for name, version in run.card.get("versions", {}).items())
    return [
        ("Model", run.card["digest"]),
        ("Plan", run.card["plan_digest"]),
        ("Source", run.card.get("source_digest", NOT_RECORDED)),
        ("Versions", versions or NOT_RECORDED),
        ("First and last answer", f"{min(times)} to {max(times)}" if times else NOT_RECORDED),
        ("Time", f"{seconds}. Rounds that were read from disk on resume count 0."),
    ]
