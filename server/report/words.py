"""Numbers and findings in words. A finding is a difference whose interval leaves zero out; all else is no clear one.

Scores are counted in bins, so an AUROC may be off by its bound: an interval is judged with the bound added to
both ends.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lemof_model.metrics import FEWEST_OF_AN_OUTCOME
from lemof_model.study import CohortSpec, Study, Target

VISIBLE_BOUND = 0.005
FEW_FOR_AN_ORDER = 1000  # held-out stays below which the standard error of an AUROC is above .015, as models differ
TOO_FEW = "too few"
NO_ECG = "no ECG"
ABOUT = "\N{ALMOST EQUAL TO} "
AT_LEAST = "\N{GREATER-THAN OR EQUAL TO} "
TOO_FEW_RULE = f"Too few: below {FEWEST_OF_AN_OUTCOME} held-out stays of an outcome, or held back by a hospital."
NOT_EVERYWHERE = "not every hospital gave it"
NOT_TRAINED = "not trained"
MINUS = "\N{MINUS SIGN}"
EN_DASH = "\N{EN DASH}"
NOT_DEFINED = EN_DASH

NAMES = {
    "ecg_single": "ECG alone",
    "ehr_single": "EHR alone",
    "m1": "LeMoF, only M1",
    "m2": "LeMoF, only M2",
    "full": "LeMoF, full",
    "gbdt_ehr": "Trees on the EHR",
    "local_only": "One hospital's data",
    "always_short": "Always “short”",
}
NETWORK_NAMES = {"encoders": "Encoders (M1)", "attention": "Attention (M2)"}
POPULATION_NAMES = {"with_ecg": "Stays with an ECG", "all": "All stays"}
CUT_NAMES = {"half": "Cut at 0.5", "macro_f1": "Cut for macro-F1", "accuracy": "Cut for accuracy"}


def number(value: float | None, digits: int = 3) -> str:
    """A number with a true minus sign.

    Example:
        >>> number(0.71349), number(None), number(-1.2, 1) == f"{MINUS}1.2"
        ('0.713', 'too few', True)
    """
    return TOO_FEW if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float) -> str:
    """A difference with its sign.

    Example:
        >>> signed(0.01649)
        '+0.016'
    """
    return f"{value:+.3f}".replace("-", MINUS)


def count(value: int, what: str = "") -> str:
    """A count, with its thing in the right number.

    Example:
        >>> count(1234, "stay"), count(1, "hospital")
        ('1,234 stays', '1 hospital')
    """
    plural = "" if value == 1 else "s"
    return f"{value:,} {what}{plural}" if what else f"{value:,}"


def percent(share: float) -> str:
    """A share in whole per cent.

    Example:
        >>> percent(0.387)
        '39 %'
    """
    return f"{100 * share:.0f} %"


def size(num_bytes: int) -> str:
    """Bytes for people.

    Example:
        >>> size(980), size(1_069_352)
        ('980 B', '1.1 MB')
    """
    for unit, factor in (("MB", 1_000_000), ("kB", 1_000)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes} B"


def between(ends: Sequence[float | None] | None) -> str:
    """An interval.

    Example:
        >>> between([0.7, 0.75]), between(None)
        ('0.700 to 0.750', 'no interval')
    """
    if ends is None or None in ends:
        return "no interval"
    return " to ".join(number(end) for end in ends)


def question(target: Target) -> str:
    """What is predicted, as a question."""
    unit = {"icu": "ICU", "hospital": "hospital"}[target.unit]
    return f"Will the {unit} stay last longer than {target.threshold_days:g} days?"


def cohort_rule(cohort: CohortSpec, target: Target) -> str:
    """Who is studied."""
    known = {"icu": "", "hospital": " Hospital stays past the threshold at the prediction are left out."}[target.unit]
    return (
        f"Patients of at least {cohort.min_age_years} years whose ICU stay lasted at least "
        f"{cohort.min_stay_hours:g} hours (a shorter one would be over before its prediction).{known}"
    )


def moment(cohort: CohortSpec) -> str:
    """When the prediction is made, and from what."""
    gap = f" (and a gap of {cohort.gap_hours} hours after it)" if cohort.gap_hours else ""
    return (
        f"{cohort.window_hours} hours after ICU admission{gap}, from vital signs, laboratory values and admission data "
        f"known by then, and the {cohort.ecg_rule} 12-lead ECG from {cohort.ecg_before_hours:g} hours before admission "
        "on. Stays without an ECG take part."
    )


def deaths_rule(target: Target) -> str:
    """What happens to deaths."""
    if target.deaths == "exclude":
        return "Stays that ended in death are left out."
    return "Stays that ended in death are kept, although a death shortens a stay."


NOISY = (
    "Hospitals with a privacy budget count their scores with noise, and give no reference models. Where they take "
    "part, intervals of AUROCs and of differences hold the noise as well; other numbers may be off by more than the "
    "chance in patients (docs/privacy_utility.md)."
)


def performance(m: Mapping[str, Any] | None) -> str:
    """How well the full model ranks, held against chance."""
    if m is None or m["auroc"] is None:
        counted = "" if m is None else f", got {count(m['n'])} of which {count(m['n_positive'])} are long"
        return (
            f"Too few held-out stays: the full model can be judged on {FEWEST_OF_AN_OUTCOME} of each outcome at least"
            f"{counted}."
        )
    text = (
        f"Over {count(m['n'], 'held-out stay')} ({count(m['n_positive'])} long), the full model ranks a long stay "
        f"above a short one with an AUROC of {number(m['auroc'])}"
    )
    ends, bound = m["auroc_ci"], m["auroc_bound"] or 0.0
    if ends is None or None in ends:
        return f"{text}; no interval could be computed."
    verdict = {
        1: "better than chance",
        0: "not clearly different from chance",
        -1: "worse than chance",
    }[_side(ends, 0.5, bound)]
    return f"{text} (95 % interval {between(ends)}): {verdict} (0.5).{_caution(bound)}"


def generated(ceiling: Mapping[str, float], hospitals: Sequence[str] = (), num_stays: int = 0) -> str:
    """What must be said where patients are generated; ``hospitals`` where only these are, ``num_stays`` held out."""
    who = f"The patients of {' and '.join(hospitals)} are" if hospitals else "These patients are"
    text = f"{who} generated: numbers say that the machinery works, and nothing about medicine."
    if ceiling:
        text += (
            f" No model can do better than an AUROC of {number(ceiling['all'])} over all stays and "
            f"{number(ceiling['with_ecg'])} over stays with an ECG (truth.json, which no training reads)."
        )
    if 0 < num_stays < FEW_FOR_AN_ORDER:
        text += (
            f" So few held-out stays ({num_stays:,}) decide no order between models: an interval holds the chance in "
            "patients, not that in training."
        )
    return text


def comparison(difference: Mapping[str, Any] | None, other: str, population: str, bound: float = 0.0) -> str:
    """Full against another score, as a paired difference; ``bound`` adds up the bounds of both AUROCs."""
    name = POPULATION_NAMES[population]
    over = f"Over {name[0].lower()}{name[1:]}"
    if difference is None or difference["auroc_ci"] is None:
        return f"{over}, not compared with {other}: too few stays, or not every hospital gave what it takes."
    ends = difference["auroc_ci"]
    verdict = {
        1: f"the full model is better than {other}",
        0: f"no clear difference between the full model and {other}",
        -1: f"the full model is worse than {other}",
    }[_side(ends, 0.0, bound)]
    return f"{over}, {verdict}: {signed(difference['auroc'])} AUROC (95 % interval {between(ends)}).{_caution(bound)}"


def _side(ends: Sequence[float], value: float, bound: float) -> int:
    """1 when the interval lies above a value, -1 below it, 0 when it holds it."""
    low, high = ends
    return int(low - bound > value) - int(high + bound < value)


def _caution(bound: float) -> str:
    """A sentence where counting in bins matters."""
    return f" Many scores share a bin: this may be off by {number(bound)}." if bound > VISIBLE_BOUND else ""


def participants(study: Study, num_sites: int) -> str:
    """How many hospitals, and how many must answer."""
    return f"{count(num_sites, 'hospital')}; a round counts when at least {min(study.min_sites, num_sites)} answer."
