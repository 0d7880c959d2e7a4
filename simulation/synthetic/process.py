"""The random process behind the generated stays: what is hidden in a stay, and how long it therefore lasts.

A stay hides D correlated standard normal latents. Ten are written into its tables, three into its ECG, and the drive
of the heart rate into both. The length of stay is log-normal in continuous days:

    log(los_days) = log_los_base(site) + sum of Term(site) + log_los_sd e,   e standard normal

A term is a latent, or the product of two, times its log-days. Each term belongs to one kind of evidence, and each kind
can be turned up or down to nothing. Nothing else in a generated hospital knows the length of stay.
Letters in shapes: N stays, D latents, P terms.
"""

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from lemof_model.errors import ConfigError

MICU = "Medical Intensive Care Unit (MICU)"
MICU_SICU = "Medical/Surgical Intensive Care Unit (MICU/SICU)"
SICU = "Surgical Intensive Care Unit (SICU)"
TSICU = "Trauma SICU (TSICU)"
CCU = "Coronary Care Unit (CCU)"
CVICU = "Cardiac Vascular Intensive Care Unit (CVICU)"
NSICU = "Neuro Surgical Intensive Care Unit (Neuro SICU)"

# Each latent is a sum of earlier ones and of its own part, so that its variance is 1.
LINKS: dict[str, dict[str, float]] = {
    "severity": {},
    "frailty": {},
    "rate": {"severity": 0.35},
    "shock": {"severity": 0.5, "rate": 0.2},
    "respiratory": {"severity": 0.45},
    "renal": {"severity": 0.35, "frailty": 0.3},
    "inflammation": {"severity": 0.4, "rate": 0.1},
    "neuro": {"severity": 0.35},
    "liver": {"severity": 0.35, "shock": 0.15},
    "strain": {"severity": 0.2, "frailty": 0.3},
    "trend": {"severity": 0.15},
    "response": {},
    "relapse": {},
    "conduction": {"strain": 0.25, "frailty": 0.1},
    "repolarisation": {"strain": 0.3, "shock": 0.1},
    "rhythm": {"frailty": 0.2, "strain": 0.15},
}
LATENTS = tuple(LINKS)
ECG_LATENTS = ("rate", "conduction", "repolarisation", "rhythm")
EHR_LATENTS = tuple(name for name in LATENTS if name not in ECG_LATENTS or name == "rate")


@dataclass(frozen=True)
class Term:
    """``log_days`` times a latent, or times the product of two, and the kind of evidence that it belongs to."""

    kind: str
    latents: tuple[str, ...]
    log_days: float


TERMS = (
    # Seen in single values of the chart: the state of an organ.
    Term("ehr_local", ("severity",), 0.05),
    Term("ehr_local", ("frailty",), 0.08),
    Term("ehr_local", ("shock",), 0.08),
    Term("ehr_local", ("respiratory",), 0.13),
    Term("ehr_local", ("renal",), 0.06),
    Term("ehr_local", ("inflammation",), 0.07),
    Term("ehr_local", ("neuro",), 0.11),
    Term("ehr_local", ("liver",), 0.04),
    Term("ehr_local", ("strain",), 0.03),
    # Seen in how organs and hours belong together: failures that make each other worse, an answer to treatment.
    Term("ehr_mid", ("shock", "renal"), 0.05),
    Term("ehr_mid", ("respiratory", "inflammation"), 0.05),
    Term("ehr_mid", ("response",), -0.07),
    # Seen in the course of the day.
    Term("ehr_course", ("trend",), 0.09),
    Term("ehr_course", ("relapse",), 0.06),
    # Seen in both: the heart rate.
    Term("shared", ("rate",), 0.04),
    # Seen in the QRS complex and the PR interval, in ST and T of a beat, in the rhythm of the whole record.
    Term("ecg_local", ("conduction",), 0.15),
    Term("ecg_mid", ("repolarisation",), 0.16),
    Term("ecg_record", ("rhythm",), 0.09),
    # Seen only when both are: neither modality alone tells the sign.
    Term("combined", ("repolarisation", "shock"), 0.12),
    Term("combined", ("conduction", "renal"), 0.10),
    Term("combined", ("rhythm", "inflammation"), 0.07),
)


@dataclass(frozen=True)
class CaseMix:
    """What makes one hospital differ: means of its latents, age, length of stay, coverage and habits.

    ``measuring_rate`` is how often it measures, relative to the usual; ``lab_rate`` how readily it orders.
    """

    means: tuple[tuple[str, float], ...]
    age_years: float
    log_los_shift: float
    ecg_coverage: float
    measuring_rate: float
    lab_rate: float
    care_units: tuple[str, ...]


@dataclass(frozen=True)
class Process:
    """All parameters of the process; the standard benchmark is these values (``parameters_digest``).

    The eight kinds of evidence multiply the log-days of their terms. ``difficulty`` multiplies the part of the length
    of stay that is chance. ``coupling`` multiplies every link between an ECG's latents and the others, their means by
    hospital, and what the heart rate shows of others. ``shift`` is the standard deviation, relative to a term, by which
    each hospital's own process departs from the common one.
    """

    ehr_local: float = 1.0
    ehr_mid: float = 1.0
    ehr_course: float = 1.0
    shared: float = 1.0
    ecg_local: float = 1.0
    ecg_mid: float = 1.0
    ecg_record: float = 1.0
    combined: float = 1.0
    difficulty: float = 1.0
    coupling: float = 1.0
    shift: float = 0.0
    log_los_base: float = 0.76
    log_los_sd: float = 0.5
    second_stay_share: float = 0.06
    threshold_days: float = 3.0
    min_stay_days: float = 1.0
    terms: tuple[Term, ...] = TERMS
    links: dict[str, dict[str, float]] = field(default_factory=lambda: LINKS)
    case_mixes: tuple[CaseMix, ...] = (
        CaseMix((("severity", 0.1), ("inflammation", 0.15)), 64.0, 0.0, 0.92, 1.0, 1.0, (MICU, MICU, MICU_SICU, CCU)),
        CaseMix(
            (("strain", 0.4), ("repolarisation", 0.2), ("severity", -0.1)),
            *(68.0, -0.1, 0.78, 0.85, 1.1),
            (CVICU, CVICU, CCU, SICU),
        ),
        CaseMix((("neuro", 0.4), ("frailty", -0.3)), 60.0, 0.1, 0.68, 1.1, 0.85, (SICU, TSICU, MICU_SICU, NSICU)),
        CaseMix((("frailty", 0.2), ("renal", 0.2)), 66.0, 0.05, 0.7, 0.95, 1.0, (MICU_SICU, MICU, SICU, CVICU)),
    )

    def hospital(self, index: int, num_sites: int, seed: int) -> "SyntheticHospital":
        """The hospital with this index; the last of several has no ECG at all."""
        mix = self.case_mixes[index % len(self.case_mixes)]
        if num_sites > 1 and index == num_sites - 1:
            mix = dataclasses.replace(mix, ecg_coverage=0.0)
        departure_P = np.random.default_rng([seed, index, 3]).standard_normal(len(self.terms))
        strengths_P = np.array([getattr(self, term.kind) * term.log_days for term in self.terms])
        means = dict(mix.means)
        return SyntheticHospital(
            index=index,
            mix=mix,
            mean_D=np.array([means.get(name, 0.0) * (self.coupling if name in ECG_LATENTS else 1) for name in LATENTS]),
            log_days_P=strengths_P * (1 + self.shift * departure_P),
            log_los_base=self.log_los_base + mix.log_los_shift,
        )

    def log_los(self, latents_ND: np.ndarray, hospital: "SyntheticHospital") -> np.ndarray:
        """Expected log(los_days) given all latents; shape (..., D) -> (...)."""
        expected = np.full(latents_ND.shape[:-1], hospital.log_los_base)
        for term, log_days in zip(self.terms, hospital.log_days_P, strict=True):
            product = latents_ND[..., LATENTS.index(term.latents[0])]
            for name in term.latents[1:]:
                product = product * latents_ND[..., LATENTS.index(name)]
            expected += log_days * product
        return expected

    @property
    def told_by_rate_D(self) -> np.ndarray:
        """What multiplies each latent in the heart rate, which the ECG shows too: 1, or the coupling; shape (D,)."""
        return np.where(np.array(LATENTS) == "rate", 1.0, self.coupling)

    @property
    def mixing_DD(self) -> np.ndarray:
        """Lower triangular, shape (D, D): latents = mixing @ independent normals; its rows have norm 1."""
        mixing_DD = np.zeros((len(LATENTS), len(LATENTS)))
        for row, (name, links) in enumerate(self.links.items()):
            for source, weight in links.items():
                apart = (name in ECG_LATENTS) != (source in ECG_LATENTS)
                mixing_DD[row] += weight * (self.coupling if apart else 1.0) * mixing_DD[LATENTS.index(source)]
            own = 1 - mixing_DD[row] @ mixing_DD[row]
            if own <= 0:
                raise ConfigError(
                    rule=f"coupling must leave {name} a part of its own", got=f"{self.coupling}", fix="Try 2 or less."
                )
            mixing_DD[row, row] = np.sqrt(own)
        return mixing_DD


TURNABLE = (
    *("ehr_local", "ehr_mid", "ehr_course", "shared", "ecg_local", "ecg_mid", "ecg_record", "combined"),
    *("difficulty", "coupling", "shift"),
)
CONTROLS: dict[str, dict[str, float]] = {
    "positive": {"combined": 3.0},
    "no-ecg-signal": dict.fromkeys(("shared", "ecg_local", "ecg_mid", "ecg_record", "combined", "coupling"), 0.0),
}


@dataclass(frozen=True)
class SyntheticHospital:
    """One hospital of a process: its case mix, the means of its latents and its own log-days of every term."""

    index: int
    mix: CaseMix
    mean_D: np.ndarray
    log_days_P: np.ndarray
    log_los_base: float


@dataclass(frozen=True)
class Latents:
    """What is hidden in the N stays of one hospital, and what came of it."""

    values_ND: np.ndarray
    los_days: np.ndarray
    has_ecg: np.ndarray

    def __getitem__(self, name: str) -> np.ndarray:
        """One latent of every stay, shape (N,)."""
        column: np.ndarray = self.values_ND[:, LATENTS.index(name)]
        return column


def draw_latents(process: Process, hospital: SyntheticHospital, num_stays: int, rng: np.random.Generator) -> Latents:
    """Draw N stays of a hospital; ``has_ecg`` says which have one from 24 h before to 24 h after admission."""
    values_ND = hospital.mean_D + rng.standard_normal((num_stays, len(LATENTS))) @ process.mixing_DD.T
    chance = process.difficulty * process.log_los_sd * rng.standard_normal(num_stays)
    log_los = process.log_los(values_ND, hospital) + chance
    return Latents(
        values_ND=values_ND,
        los_days=np.exp(np.clip(log_los, np.log(0.05), np.log(60.0))),
        has_ecg=rng.random(num_stays) < hospital.mix.ecg_coverage,
    )
