"""Every ECG encoder with every EHR encoder, named in a plan file, through the whole federated protocol.

An encoder runs for a stay as often as the method needs it: in the encoders' rounds, once for the level log-odds, once
for the tokens, and never after that.
"""

import inspect
import itertools
import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from torch.nn.modules.module import register_module_forward_hook

from client.cohort.hospital import Hospital, open_hospital
from client.cohort.references import reference_scores
from client.site import load_site
from lemof_model import lemof
from lemof_model.encoders.registry import ENCODERS
from lemof_model.pyramid import PyramidEncoder
from lemof_model.study import MODALITIES, Study
from protocol.messages import Request
from protocol.plan import load_plan
from simulation.local_transport import LocalTransport
from tests.hospitals import write_hospital
from tests.studies import Watched, run_tiny

ECG_SIZES = {"width": 8, "num_tokens": 4}
SIZES: dict[str, dict[str, int]] = {
    "cnn": ECG_SIZES,
    "lstm": ECG_SIZES,
    "resnet": ECG_SIZES,
    "wavenet": {**ECG_SIZES, "num_layers": 2},
    "ft_transformer": {"width": 8},
    "mlp": {"width": 16},
    "tab_transformer": {"width": 8, "num_heads": 2, "num_tokens": 2, "pooled_width": 8},
    "tabnet": {"width": 8},
    "tpc": {"width": 8, "num_temporal": 1, "num_pointwise": 2},
}
PAIRS = list(itertools.product(ENCODERS["ecg"], ENCODERS["ehr"]))


def write_plan(folder: Path, ecg: str, ehr: str) -> Path:
    """The plan of a pair: one round of each kind."""
    training = {"num_rounds": 1, "batch_size": 16}
    plan = {
        "few_sites": "allow",
        "ecg": {"name": ecg, "sizes": SIZES[ecg]},
        "ehr": {"name": ehr, "sizes": SIZES[ehr]},
        "splits": {"train": 0.2, "stack": 0.2, "tuning": 0.2, "held_out": 0.4},  # enough of each outcome to measure
        "encoders": training,
        "attention": {"width": 4, "training": training},
        "evaluation": {"num_bins": 40},
    }
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


class EncodersSeen(Watched):
    """Counts the stays that encoders are run on, by modality, stage and round of the stage (1 is the first)."""

    def __init__(self, inner: LocalTransport) -> None:
        super().__init__(inner)
        self.num_stays: Counter[tuple[str, str, int]] = Counter()

    def before(self, stage: str, request: Request) -> None:
        self.now = stage, sum(asked == stage for asked, _, _ in self.asked)

    def hook(self, module: torch.nn.Module, _: Any, levels: Any) -> None:
        if isinstance(module, PyramidEncoder):
            modality = next(m for m in MODALITIES if type(module) in ENCODERS[m].values())
            as_last_B = (levels[0].pooled_BD == levels[0].pooled_BD[-1:]).all(dim=1).tolist()
            filled = itertools.takewhile(bool, reversed(as_last_B[:-1]))  # an inference batch is filled up
            self.num_stays[modality, *self.now] += len(as_last_B) - len(list(filled))


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two hospitals: in one some stays lack an ECG, in the other all of them do."""
    folder = tmp_path_factory.mktemp("hospitals")
    return [
        write_hospital(folder, "a", num_stays=70),
        write_hospital(folder, "b", first_id=1_000, ecg_share=0.0, num_stays=40),
    ]


@pytest.fixture
def seen(sites: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EncodersSeen]:
    watched = EncodersSeen(LocalTransport(sites, memory=tmp_path / "told"))
    for site in sites:  # what one pair froze would serve the next
        shutil.rmtree(load_site(site).prepare.output / ".cache", ignore_errors=True)

    def references(hospital: Hospital) -> dict[str, NDArray[np.float64]]:
        """What a hospital trains alone runs encoders of its own, which are not the study's."""
        asked, watched.now = watched.now, ("references", 0)
        scores = reference_scores(hospital)
        watched.now = asked
        return scores

    monkeypatch.setattr("client.door.view.reference_scores", references)
    handle = register_module_forward_hook(watched.hook)
    yield watched
    handle.remove()


def num_stays(sites: list[Path], study: Study, modality: str, splits: tuple[str, ...]) -> int:
    stays = [open_hospital(load_site(path), study).stays for path in sites]
    return sum(len(part.rows(split, modality)) for part in stays for split in splits)


def test_twenty_pairs() -> None:
    assert len(PAIRS) == 20 and sorted(SIZES) == sorted(name for names in ENCODERS.values() for name in names)


@pytest.mark.parametrize(("ecg", "ehr"), PAIRS)
def test_a_pair_runs_the_whole_protocol(
    ecg: str, ehr: str, sites: list[Path], seen: EncodersSeen, tmp_path: Path
) -> None:
    study = load_plan(write_plan(tmp_path, ecg, ehr))
    assert (study.ecg.name, study.ehr.name) == (ecg, ehr)
    run_tiny(study, seen, tmp_path / "run")

    sent = [request.model for request in seen.requests if request.stage == "encoders"]
    for modality in MODALITIES:
        before, after = (lemof.part(model, modality) for model in sent[:2])
        assert any((after[name] != before[name]).any() for name in before), "a round of training moves the weights"

    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    for name, population in itertools.product((*lemof.VARIANTS, "local_only"), lemof.POPULATIONS):
        found = metrics["reference" if name == "local_only" else "variants"][name][population]
        if (name, population) == ("ecg_single", "all"):
            assert found is None
            continue
        assert math.isfinite(found["pooled"]["auroc"]) and math.isfinite(found["pooled"]["auprc"])
        assert (found["sites"]["b"] is None) == (population == "with_ecg")

    outside = ("stack", "tuning", "held_out")
    assert {key: count for key, count in seen.num_stays.items() if key[1] not in ("encoders", "references")} == {
        (modality, stage, 1): num_stays(sites, study, modality, splits)
        for modality in MODALITIES
        for stage, splits in (("meta", ("train", *outside)), ("attention", outside))
    }


def test_the_guide_tells_the_sizes_of_every_encoder(repository: Path) -> None:
    section = (repository / "docs/user_guide.md").read_text().split("## 6. Choose encoders")[1].split("\n## ")[0]
    shared = next(line for line in section.splitlines() if line.startswith("All four read"))
    for modality, name in [(modality, name) for modality, names in ENCODERS.items() for name in names]:
        row = next(line for line in section.splitlines() if line.startswith(f"| `{name}`"))
        told = re.findall(r"`(\w+)` ([0-9.]*[0-9])", row + (shared if modality == "ecg" else ""))
        parameters = inspect.signature(ENCODERS[modality][name]).parameters.values()
        sizes = {p.name: p.default for p in parameters if p.default is not p.empty}
        assert {key: float(value) for key, value in told} == sizes, name
