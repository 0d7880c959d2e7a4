"""Sections that say what was asked and how it went: cohort, levels, training, rounds, privacy, and the footer."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lemof_model.study import MODALITIES, SPLITS
from protocol.stages import STAGES
from server.report import words
from server.report.markup import Html, bar, curve, definitions, element, items, note, section, table
from server.report.run_files import RunFiles

BLOCKS = {
    "ecg": "ECG encoder",
    "ehr": "EHR encoder",
    "attention/0": "Attention, head 1",
    "attention/1": "Attention, head 2",
}
LEARNERS = ("meta/ecg", "meta/ehr", "omega_1", "final")
NOT_RECORDED = "not recorded"


def asked(run: RunFiles) -> Html:
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
    content = [definitions(facts)]
    if run.census:
        columns = ["Hospital", "Stays", "Long", "With an ECG"]
        rows = [[site, *_census_cells(run, site)] for site in run.sites if site in run.census]
        content.append(table("Stays that hospitals brought, all splits", columns, rows))
        at_least, about = words.AT_LEAST.strip(), words.ABOUT.strip()
        content.append(
            note(
                f"{at_least}: the hospital held back the count of a split. {about}: a privacy budget makes counts "
                "noisy. Too few: held back in every split."
            )
        )
    return section("asked", "What was asked", *content)


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


def levels(run: RunFiles) -> Html:
    """How much each depth of an encoder counts, and how sure the choice of the best one is."""
    tables = [_level_table(modality, run.importance[modality]) for modality in MODALITIES]
    return section(
        "levels",
        "Which depth of each encoder counts",
        note(
            "Mean absolute Shapley value of each level's prediction for its modality's meta-learner, in log-odds, over "
            "all hospitals' stack stays against one background. The best level feeds the attention. Best in draws: how "
            "often it wins when the meta-learner's coefficients are drawn from their distribution."
        ),
        element("div", *tables, css="pair"),
    )


def _level_table(modality: str, ranking: Mapping[str, Any]) -> Html:
    importance, best = ranking["level_importance"], ranking["best_level"]
    wins, largest = ranking["winners_in_draws"], max(ranking["level_importance"])
    rows = []
    for level, mean in enumerate(importance, start=1):
        name = f"Level {level}" + (", best" if level == best else "")
        drawing = bar(mean / largest if largest else 0.0, f"importance {mean:.4f}", "" if level == best else "quiet")
        won = words.percent(wins[level - 1] / max(sum(wins), 1)) if wins else "not known: noise"
        rows.append([name, words.number(mean, 4), drawing, won])
    changed = {site: level for site, level in ranking["best_level_without_site"].items() if level != best}
    without = "; ".join(f"without {site} it is level {level}" for site, level in changed.items())
    if not ranking["best_level_without_site"]:
        without = "one hospital only, so none can be left out"
    return element(
        "div",
        table(
            f"{modality.upper()}, {words.count(ranking['num_stays'], 'stay')}",
            ["Level", "Importance", "", "Best in draws"],
            rows,
            strong_rows=(best - 1,),
        ),
        note(f"Leaving one hospital out: {without or 'the best level stays the same'}."),
    )


def training(run: RunFiles) -> Html:
    """Tuning loss over rounds, and the logistic learners."""
    stages = run.card["stages"]
    figures = []
    for block, name in BLOCKS.items():
        losses, best = stages[block]["tuning_loss"], stages[block]["best_round"]
        told = _kept_round([words.number(loss) for loss in losses], best)
        caption = element("figcaption", element("b", name), f" {told}")
        figures.append(element("figure", curve(losses, best, f"{name}: tuning loss {told}"), caption))
    rows = [_learner_row(name, stages[name]) for name in LEARNERS]
    return section(
        "training",
        "Training",
        note(
            "Tuning loss per stay after each round, each curve on its own scale; the ring marks the weights that were "
            "kept. Encoder losses add up three levels."
        ),
        element("div", *figures, css="figures"),
        table(
            "Logistic learners, by Newton steps on all hospitals' sums",
            ["Learner", "Steps", "Converged", "Coefficients", "Intercept", "Hospitals"],
            rows,
            text_columns=(2, 3, 5),
        ),
    )


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


def rounds(run: RunFiles) -> Html:
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

    def cell(stage: str, site: str) -> Html:
        asked_times, times = asked_for[stage, site], answered[stage, site]
        text = f"{times} of {asked_times}" if asked_times else "not asked"
        return element(
            "span", element("b" if times < asked_times else "span", text), f" · {words.size(sent[stage, site])}"
        )

    rows = [[name, stage.says, *(cell(name, site) for site in sites)] for name, stage in STAGES.items()]
    total = [words.size(sum(sent[stage, site] for stage in STAGES)) for site in sites]
    rows.append(["total", f"{words.count(len({r['number'] for r in run.rounds}), 'round')}", *total])
    return section(
        "rounds",
        "Who took part, and what left each hospital",
        note("Rounds answered of rounds asked, and bytes of the arrays sent. Every answer is a sum over patients."),
        table("Answers by stage", ["Stage", "An answer holds", *sites], rows, (1,), strong_rows=(len(rows) - 1,)),
        element("h3", "Rounds that a hospital did not answer"),
        items(list(_refusals(run)) or ["None: every hospital answered every round it was asked."]),
        element("h3", "Groups that hospitals held back: too small, or leaving a rest that is"),
        items(list(_held_back(run)) or ["None."]),
    )


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


def privacy(run: RunFiles) -> Html:
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
        lines.append(f"Only {names} could train the {BLOCKS[block]}: its totals tell each what the others hold.")
    return section("privacy", "Privacy", items(lines), *_membership(run))


def _membership(run: RunFiles) -> Iterator[Html]:
    """The attack on members, by learner and hospital."""
    audits = run.metrics.get("membership")
    if not audits:
        return
    rows = []
    for learner, audit in audits.items():
        for site, found in [("all hospitals", audit["pooled"]), *sorted(audit["sites"].items())]:
            budget = run.metrics["privacy"].get(site)
            told = f"epsilon {budget['epsilon']:.2f}" if budget else words.NOT_DEFINED
            rows.append([f"{words.LEARNERS[learner]}, {site}", *_attack_cells(found), told])
    yield element("h3", "Can members be told from others?")
    yield note(
        "A membership attack on the finished model: whoever it is surer of is called a member. AUROC 0.5 tells "
        "nothing. Found: members found at a cut that calls at most this share of others members (1 %, or what ten of "
        "them are); as many as false alarms tell nothing. Intervals are 95 %, for the share found with the cut held."
    )
    columns = ["Learner and hospital", "Members", "Others", "AUROC", "False alarms, at most", "Found", "Budget"]
    yield table("Membership attack", columns, rows)


def _attack_cells(found: Mapping[str, Any] | None) -> list[str]:
    """How the attack went at one hospital, or over all."""
    if found is None:
        return [words.TOO_FEW, *[words.NOT_DEFINED] * 4]
    auroc = f"{words.number(found['auroc'])} ({words.between(found['auroc_ci'])})"
    share = f"{words.number(found['true_positive_rate'])} ({words.between(found['true_positive_rate_ci'])})"
    most = words.number(found["max_false_positive_rate"])
    return [words.count(found["num_members"]), words.count(found["num_others"]), auroc, most, share]


def footer(run: RunFiles) -> Html:
    """What tells runs apart, and all that may differ between equal ones."""
    seconds = ", ".join(f"{stage} {value:.1f} s" for stage, value in run.timings["seconds"].items())
    times = [line["time"] for line in run.audit.values()]
    versions = ", ".join(f"{name} {version}" for name, version in run.card.get("versions", {}).items())
    facts = [
        ("Model", run.card["digest"]),
        ("Plan", run.card["plan_digest"]),
        ("Source", run.card.get("source_digest", NOT_RECORDED)),
        ("Versions", versions or NOT_RECORDED),
        ("First and last answer", f"{min(times)} to {max(times)}" if times else NOT_RECORDED),
        ("Time", f"{seconds}. Rounds that were read from disk on resume count 0."),
    ]
    return element(
        "footer", definitions(facts), element("p", "Not a medical device: not for decisions about patients.")
    )
