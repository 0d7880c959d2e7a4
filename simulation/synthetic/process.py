"""The random process behind the generated stays, and the best AUROC that any model can reach on them.

A stay hides a severity s and a cardiac burden c, independent and normal within a hospital. The EHR shows s; the ECG
shows c and u, a blurred view of s. The length of stay is log-normal:

    log(los_days) = log_los_base + severity_slope s + cardiac_slope c + interaction s c + log_los_sd e

so both modalities are needed, and P(long stay | what is seen) has a closed form, from which the bounds come.
Letters in shapes: N stays.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from lemof_model.study import digest_json

MICU = "Medical Intensive Care Unit (MICU)"
MICU_SICU = "Medical/Surgical Intensive Care Unit (MICU/SICU)"
SICU = "Surgical Intensive Care Unit (SICU)"
TSICU = "Trauma SICU (TSICU)"
CCU = "Coronary Care Unit (CCU)"
CVICU = "Cardiac Vascular Intensive Care Unit (CVICU)"
NSICU = "Neuro Surgical Intensive Care Unit (Neuro SICU)"


@dataclass(frozen=True)
class CaseMix:
    """What makes one hospital differ: means of s and c, age, share of stays with an ECG, how often it measures."""

    severity: float
    cardiac: float
    age_years: float
    ecg_coverage: float
    measuring_rate: float
    care_units: tuple[str, ...]


@dataclass(frozen=True)
class Process:
    """All parameters of the process. The standard benchmark is these values, by ``digest``."""

    log_los_base: float = 0.85
    severity_slope: float = 0.34
    cardiac_slope: float = 0.20
    interaction: float = 0.12
    log_los_sd: float = 0.49
    ecg_severity_correlation: float = 0.2
    age_severity_correlation: float = 0.3
    age_sd_years: float = 15.0
    second_stay_share: float = 0.06
    threshold_days: float = 3.0
    min_stay_days: float = 1.0
    case_mixes: tuple[CaseMix, ...] = (
        CaseMix(0.10, 0.00, 64.0, 0.9, 1.0, (MICU, MICU, MICU_SICU, CCU)),
        CaseMix(-0.15, 0.20, 68.0, 0.7, 0.8, (CVICU, CVICU, CCU, SICU)),
        CaseMix(0.25, -0.10, 60.0, 0.5, 1.2, (SICU, TSICU, MICU_SICU, NSICU)),
        CaseMix(0.00, 0.10, 66.0, 0.6, 0.9, (MICU_SICU, MICU, SICU, CVICU)),
    )

    @property
    def digest(self) -> str:
        """Digest of every parameter."""
        return digest_json(dataclasses.asdict(self))

    def case_mix(self, site_index: int, num_sites: int) -> CaseMix:
        """The case mix of a site; the last of several hospitals has no ECG at all."""
        mix = self.case_mixes[site_index % len(self.case_mixes)]
        without_ecg = num_sites > 1 and site_index == num_sites - 1
        return dataclasses.replace(mix, ecg_coverage=0.0) if without_ecg else mix


@dataclass(frozen=True)
class Latents:
    """What is hidden in the N stays of one hospital, and what came of it. Every array has shape (N,)."""

    severity: np.ndarray
    cardiac: np.ndarray
    ecg_severity: np.ndarray
    age_years: np.ndarray
    los_days: np.ndarray
    has_ecg: np.ndarray


def draw_latents(process: Process, mix: CaseMix, num_stays: int, rng: np.random.Generator) -> Latents:
    """Draw N stays of a hospital; ``has_ecg`` says which have one from 24 h before to 24 h after admission."""
    noise = rng.standard_normal((5, num_stays))
    deviation = noise[0]
    severity, cardiac = mix.severity + deviation, mix.cardiac + noise[1]
    ecg_rho, age_rho = process.ecg_severity_correlation, process.age_severity_correlation
    log_los = (
        process.log_los_base
        + process.severity_slope * severity
        + process.cardiac_slope * cardiac
        + process.interaction * severity * cardiac
        + process.log_los_sd * noise[4]
    )
    age = mix.age_years + process.age_sd_years * (age_rho * deviation + np.sqrt(1 - age_rho**2) * noise[3])
    return Latents(
        severity=severity,
        cardiac=cardiac,
        ecg_severity=ecg_rho * deviation + np.sqrt(1 - ecg_rho**2) * noise[2],
        age_years=np.clip(np.round(age), 18, 89).astype(np.int64),
        los_days=np.exp(np.clip(log_los, np.log(0.05), np.log(60.0))),
        has_ecg=rng.random(num_stays) < mix.ecg_coverage,
    )


def long_stay_probabilities(process: Process, mix: CaseMix, latents: Latents) -> dict[str, np.ndarray]:
    """P(long stay | what is seen, stay is in the cohort), each of shape (N,).

    Keys: ``both`` sees s and c, ``ehr`` sees s, ``ecg`` sees c and u. What is not seen is normal and enters the log
    length of stay linearly once the other is fixed, so it only moves the mean and widens the deviation.
    """
    s, c = latents.severity, latents.cardiac
    both = process.log_los_base + process.severity_slope * s + process.cardiac_slope * c + process.interaction * s * c
    c_slope = process.cardiac_slope + process.interaction * s
    s_slope = process.severity_slope + process.interaction * c
    rho = process.ecg_severity_correlation
    s_unseen = s - (mix.severity + rho * latents.ecg_severity)
    seen = {
        "both": (both, np.zeros_like(s)),
        "ehr": (both - c_slope * (c - mix.cardiac), c_slope),
        "ecg": (both - s_slope * s_unseen, s_slope * np.sqrt(1 - rho**2)),
    }
    probabilities = {}
    for name, (mean, unseen_sd) in seen.items():
        sd = np.sqrt(process.log_los_sd**2 + unseen_sd**2)
        longer = [norm.sf((np.log(days) - mean) / sd) for days in (process.threshold_days, process.min_stay_days)]
        probabilities[name] = longer[0] / longer[1]
    return probabilities


def expected_auroc(score: np.ndarray, probability: np.ndarray) -> float:
    """AUROC of ``score`` when stay i is positive with ``probability`` i: each counts on both sides by its weight.

    Example:
        >>> expected_auroc(np.array([0.1, 0.9]), np.array([0.0, 1.0]))
        1.0
    """
    _, group = np.unique(score, return_inverse=True)
    positive, negative = np.bincount(group, probability), np.bincount(group, 1 - probability)
    below = np.cumsum(negative) - negative / 2
    return float((positive * below).sum() / (positive.sum() * negative.sum()))


def best_aurocs(process: Process, hospitals: list[tuple[CaseMix, Latents]]) -> dict[str, dict[str, float]]:
    """The bounds over the generated stays of at least the minimum length, in both populations.

    ``all`` sees the ECG's latents only where a stay has an ECG. A site's case mix counts as known, so no model can
    do better than by chance; a finite held-out sample scatters around the bound.
    """
    columns: dict[str, list[np.ndarray]] = {"both": [], "ehr": [], "ecg": [], "has_ecg": []}
    for mix, latents in hospitals:
        in_cohort = latents.los_days >= process.min_stay_days
        for name, values in long_stay_probabilities(process, mix, latents).items():
            columns[name].append(values[in_cohort])
        columns["has_ecg"].append(latents.has_ecg[in_cohort])
    both, ehr, ecg, has_ecg = (np.concatenate(columns[name]) for name in ("both", "ehr", "ecg", "has_ecg"))
    deployed = np.where(has_ecg, both, ehr)
    truth = {
        "all": {
            "num_stays": len(both),
            "positive_rate": float(both.mean()),
            "upper_bound": expected_auroc(deployed, both),
            "upper_bound_ehr": expected_auroc(ehr, both),
        }
    }
    if has_ecg.any():
        truth["with_ecg"] = {
            "num_stays": int(has_ecg.sum()),
            "positive_rate": float(both[has_ecg].mean()),
            "upper_bound": expected_auroc(both[has_ecg], both[has_ecg]),
            "upper_bound_ehr": expected_auroc(ehr[has_ecg], both[has_ecg]),
            "upper_bound_ecg": expected_auroc(ecg[has_ecg], both[has_ecg]),
        }
    return truth
