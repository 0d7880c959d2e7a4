"""How often 95 % intervals hold the true AUROC: held-out scores are drawn, and go through the releases of the stages.

    python benchmarks/coverage.py [--draws 2000] [--seed 20261130] [--only TEXT]

Scores are binormal, so each AUROC is known; nothing is trained. At a hospital without a budget patients have one to
four stays, whose scores and outcomes go together; at one with a budget each has one. Three stays in ten have no ECG,
and no score of the ECG alone. Prints one row for each setting: how often the interval of the full model's AUROC over
all hospitals, at the first hospital, and of three differences holds the truth, and how wide it is. The last rows are
the paired bootstrap of patients that intervals came from before.
"""

import argparse
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from client.budget import accounting
from client.budget.accounting import Budget, Schedule
from client.budget.noise import Noise
from lemof_model import metrics
from lemof_model.lemof import POPULATIONS, SCORED, VARIANTS
from lemof_model.study import SPLITS, Study
from protocol.stages import HELD_OUT, INTERVALS
from server.intervals import Intervals, tables_of
from server.run_store import Round, SiteReply

Float = NDArray[np.float64]

STUDY = Study()
DELTA = 1e-5
SHARE_LONG, SHARE_WITH_ECG = 0.35, 0.7
SHARED, OF_PATIENT = 0.8, 0.5  # of a score's variance: what all scores of a stay share, what stays of a patient share
SCALE = 1.5  # log-odds
AUROCS = {
    "usual": dict(zip(SCORED, (0.62, 0.72, 0.74, 0.74, 0.76, 0.73, 0.70), strict=True)),
    "near 1": dict(zip(SCORED, (0.80, 0.94, 0.96, 0.96, 0.97, 0.95, 0.93), strict=True)),
}
COMPARED = (("all", "ehr_single"), ("with_ecg", "ecg_single"), ("all", "gbdt_ehr"))
NUM_BOOTSTRAPS = 200


class Setting(NamedTuple):
    """One row of the table: ``num_private`` of the hospitals have a budget of ``epsilon``."""

    num_sites: int
    num_stays: int
    level: str
    num_private: int = 0
    epsilon: float = 4.0

    def __str__(self) -> str:
        budget = f", {self.num_private} with epsilon {self.epsilon:g}" if self.num_private else ""
        return f"{self.num_sites} x {self.num_stays}, {self.level}{budget}"


@dataclass
class Sampled:
    """Held-out stays as a release sees a hospital."""

    request: Any
    label_N: NDArray[np.int8]
    patient_N: NDArray[np.int64]
    has_ecg_N: NDArray[np.bool_]
    score_VN: Float
    is_private: bool
    name: str = "site"
    study: Study = STUDY
    subgroups: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stays = SimpleNamespace(
            rows=lambda split: np.arange(len(self.label_N)), long_stay_N=self.label_N, patient_N=self.patient_N,
            has_ecg_N=self.has_ecg_N,
        )  # fmt: skip

    def has(self, group: str) -> bool:
        return True

    def scores(self, split: str) -> dict[str, Float]:
        names = VARIANTS if self.is_private else SCORED
        return dict(zip(names, self.score_VN, strict=False))


class Seeded:
    """Noise that a seed tells, for a benchmark alone."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.normal = rng.standard_normal


def stays_of(rng: np.random.Generator, setting: Setting, *, is_private: bool) -> Sampled:
    """One hospital's held-out stays."""
    num = setting.num_stays
    sizes = np.ones(num, int) if is_private else rng.integers(1, 5, num)
    patient = np.repeat(np.arange(num), sizes)[:num]

    def together(*shape: int) -> Float:
        """Standard normals of each stay that those of its patient share a part of."""
        of_patient, own = rng.standard_normal((*shape, num)), rng.standard_normal((*shape, num))
        return np.asarray(np.sqrt(OF_PATIENT) * of_patient[..., patient] + np.sqrt(1 - OF_PATIENT) * own)

    label = (together() < norm.ppf(SHARE_LONG)).astype(np.int8)
    shift = np.sqrt(2.0) * norm.ppf(list(AUROCS[setting.level].values()))
    score = np.sqrt(SHARED) * together() + np.sqrt(1 - SHARED) * together(len(SCORED)) + shift[:, None] * (label - 0.5)
    has_ecg = rng.random(num) < SHARE_WITH_ECG
    score[SCORED.index("ecg_single"), ~has_ecg] = np.nan
    return Sampled(None, label, patient, has_ecg, SCALE * score, is_private)


def edges_of(rng: np.random.Generator, setting: Setting) -> dict[str, Float]:
    """Bin edges as tuning stays give them, half as many as are held out."""
    tuning = [stays_of(rng, setting, is_private=False) for _ in range(max(setting.num_sites // 2, 1))]
    equal, found = metrics.bin_edges(STUDY.evaluation), {}
    for (v, name), population in itertools.product(enumerate(SCORED), POPULATIONS):
        score = np.concatenate([one.score_VN[v] for one in tuning])
        counts = metrics.histograms(score[None], [equal])[0].astype(np.float64)
        counts = metrics.bulk(counts) if setting.num_private else counts
        found[f"edges/{population}/{name}"] = metrics.fine_edges(counts, equal, [-1.0, 0.0, 1.0])
    return found


def planned(setting: Setting) -> Schedule:
    """The noise of a whole study of the default plan under the budget."""
    nothing = accounting.no_curves()
    budget = Budget(setting.epsilon, DELTA, setting.epsilon)
    made = accounting.schedule(STUDY, budget, before=nothing, own=nothing)
    counts = {f"{split}/{modality}{y}": setting.num_stays for split in SPLITS for modality in ("ecg", "ehr")
              for y in ("", "/0", "/1")}  # fmt: skip
    return Schedule(made.noise, {}, counts)


def asked(release: Any, views: Sequence[Sampled], noises: Sequence[Noise | None], request: Any) -> Round:
    """One round: the release of every hospital."""
    sites = {}
    for number, (view, noise) in enumerate(zip(views, noises, strict=True)):
        view.request = request
        groups = release.exact(view) if noise is None else release.noisy(view, noise)
        sums: dict[str, NDArray[Any]] = {}
        counts: dict[str, int] = {}
        for group in groups:
            counts[group.name] = group.num_stays
            sums |= {f"{group.name}/{name}": value for name, value in group.sums.items()}
        sites[f"h{number}"] = SiteReply(counts, delta=0.0 if noise is None else DELTA, sums=sums)
    return Round("", 0, {}, {}, sites)


def one_draw(rng: np.random.Generator, setting: Setting, edges: Mapping[str, Float], schedule: Schedule) -> Intervals:
    """The intervals of one study."""
    views = [stays_of(rng, setting, is_private=k < setting.num_private) for k in range(setting.num_sites)]
    noises = [Noise(schedule, Seeded(rng)) if view.is_private else None for view in views]  # type: ignore[arg-type]
    held_out = asked(HELD_OUT, views, noises, SimpleNamespace(study=STUDY, split="held_out", model=edges))
    model = {**edges, **tables_of(held_out, STUDY)}
    return Intervals(
        held_out, asked(INTERVALS.releases[0], views, noises, SimpleNamespace(study=STUDY, model=model)), STUDY
    )


def found_in(intervals: Intervals, setting: Setting) -> Iterator[tuple[str, float, Any]]:
    """Name, truth and interval of what is judged."""
    truth = AUROCS[setting.level]
    yield "pooled", truth["full"], intervals.pooled("all", "full")
    yield "a hospital", truth["full"], intervals.of_site("all", "full", "h0")
    differences = {population: intervals.differences(population) for population in POPULATIONS}
    for population, name in COMPARED:
        if found := differences[population].get(f"full-{name}"):
            yield f"minus {name}", truth["full"] - truth[name], found["auroc_ci"]


def bootstrapped(rng: np.random.Generator, setting: Setting) -> Iterator[tuple[str, float, Any]]:
    """The same from the paired bootstrap: percentiles of 200 draws of patients with Poisson weights."""
    views, truth = [stays_of(rng, setting, is_private=False) for _ in range(setting.num_sites)], AUROCS[setting.level]
    label = np.concatenate([view.label_N for view in views])
    weight = np.concatenate(
        [rng.poisson(1.0, (NUM_BOOTSTRAPS, view.patient_N[-1] + 1))[:, view.patient_N] for view in views], axis=1
    )
    edges = np.linspace(-8.0, 8.0, 401)

    def aurocs(name: str, of: Any = slice(None)) -> Float:
        score = np.concatenate([view.score_VN[SCORED.index(name)] for view in views])[of]
        counts = np.zeros((2, NUM_BOOTSTRAPS, 400))
        for y in (0, 1):
            mine = label[of] == y
            one_hot = np.zeros((int(mine.sum()), 400))
            one_hot[np.arange(len(one_hot)), metrics.bins(score[mine], edges)] = 1.0
            counts[y] = weight[:, of][:, mine] @ one_hot
        return metrics.auroc(*counts)

    full = aurocs("full")
    yield "pooled", truth["full"], np.nanpercentile(full, [2.5, 97.5])
    yield "a hospital", truth["full"], np.nanpercentile(aurocs("full", slice(setting.num_stays)), [2.5, 97.5])
    for name in ("ehr_single", "gbdt_ehr"):
        yield f"minus {name}", truth["full"] - truth[name], np.nanpercentile(full - aurocs(name), [2.5, 97.5])


def row(setting: Setting, num_draws: int, seed: int, *, is_bootstrap: bool = False) -> str:
    """One setting's coverage in per cent and mean width, for each interval."""
    rng = np.random.default_rng([seed, *str(setting).encode(), is_bootstrap])
    edges, schedule, began = edges_of(rng, setting), planned(setting), time.monotonic()
    seen: dict[str, list[tuple[bool, float]]] = {}
    num_none: dict[str, int] = {}
    for _ in range(num_draws):
        drawn = (
            bootstrapped(rng, setting) if is_bootstrap else found_in(one_draw(rng, setting, edges, schedule), setting)
        )
        for name, truth, interval in drawn:
            if interval is None:
                num_none[name] = num_none.get(name, 0) + 1
                continue
            low, high = interval
            seen.setdefault(name, []).append((low <= truth <= high, high - low))
    cells = []
    for name, pairs in seen.items():
        held, width = np.mean([pair[0] for pair in pairs]), np.mean([pair[1] for pair in pairs])
        none = f" ({num_none[name]} none)" if name in num_none else ""
        cells.append(f"{name} {100 * held:.1f} ({width:.3f}){none}")
    what = "bootstrap, " if is_bootstrap else ""
    return f"{what}{setting}: {'; '.join(cells)}  [{(time.monotonic() - began) / num_draws * 1e3:.0f} ms]"


def settings() -> Iterator[Setting]:
    """All rows of the table."""
    for num_stays, num_sites in itertools.product((50, 200, 1000), (3, 8)):
        yield Setting(num_sites, num_stays, "usual")
        yield Setting(num_sites, num_stays, "usual", num_private=num_sites)
        yield Setting(num_sites, num_stays, "usual", num_private=1)
    for num_stays in (50, 200, 1000):
        yield Setting(5, num_stays, "near 1")
        yield Setting(5, num_stays, "near 1", num_private=5)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=20261130)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    for setting in settings():
        if given.only in str(setting):
            print(row(setting, given.draws, given.seed), flush=True)
    for num_stays in (50, 200, 1000):
        setting = Setting(3, num_stays, "usual")
        if given.only in f"bootstrap {setting}":
            print(row(setting, given.draws, given.seed, is_bootstrap=True), flush=True)


if __name__ == "__main__":
    main()
