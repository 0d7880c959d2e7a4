"""Rows put together from the last answers, as a coordinator could: bins with one patient, joined over the variants.

Sums of squared differences of two scores fit few ways alone to pair the bins of their histograms, if all digits leave.

Bootstrap histograms once carried the weights of each patient's 200 draws, alike in every variant and group: a bin with
one patient showed them, and equal weights were the same patient (194 fingerprints of 202 stays).
"""

import itertools
from pathlib import Path

import numpy as np
import pytest

from client.door import stages
from client.site import load_site
from lemof_model import lemof
from protocol.kinds import rounded
from protocol.messages import Answer, EvaluationRequest, IntervalsRequest
from protocol.method import LEARNING, untrained
from protocol.stages import LEMOF
from tests.hospitals import write_hospital
from tests.studies import tiny_study


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """The held-out answer of a hospital without a budget, in bins as fine as those of a trained model."""
    study, site = tiny_study(), load_site(write_hospital(tmp_path_factory.mktemp("site"), num_stays=300))
    edges = {f"edges/{p}/{name}": np.linspace(-0.5, 0.5, 41) for p in lemof.POPULATIONS for name in lemof.SCORED}
    model = untrained(LEARNING, study) | edges
    found = stages.answer(site, EvaluationRequest(study=study, round=1, split="held_out", model=model))
    assert isinstance(found, Answer)
    return found


def fingerprints(answer: Answer, group: str) -> dict[int, set[bytes]]:
    """What is told beside each count of one patient, by variant: its column in every array over the same bins."""
    counts_VB = answer.sums[f"{group}/histogram"]
    beside = [
        value.reshape(-1, *counts_VB.shape)
        for name, value in answer.sums.items()
        if name.startswith(f"{group}/") and value.shape[-2:] == counts_VB.shape
    ]
    columns = np.concatenate(beside).astype(np.float64)
    return {v: {columns[:, v, b].tobytes() for b in np.flatnonzero(counts_VB[v] == 1)} for v in range(len(counts_VB))}


@pytest.mark.parametrize("label", [0, 1])
def test_a_bin_with_one_patient_tells_no_more_than_its_count(answer: Answer, label: int) -> None:
    """So nothing says which bins of two variants hold the same patient."""
    by_variant = [marks for marks in fingerprints(answer, f"all/all/{label}").values() if marks]
    assert len(by_variant) > 2, "there are bins with one patient"
    seen = [mark for marks in by_variant for mark in marks]
    followed = {mark for mark in seen if seen.count(mark) > 1 and set(np.frombuffer(mark)) != {1.0}}
    assert not followed, f"{len(followed)} patients can be followed from one variant to another"
    assert len(set(seen)) == 1


def test_no_array_of_a_group_has_an_axis_but_those_of_scores_and_bins(answer: Answer) -> None:
    for name, value in answer.sums.items():
        assert name.endswith("/histogram") and value.ndim <= 2, name


def test_sums_of_differences_do_not_say_which_bins_of_two_scores_are_one_patient() -> None:
    """Eight long stays and the tables of a large federation: with all digits one pairing of their bins fits the sum."""
    rng, num = np.random.default_rng(3), 8
    centred = rng.uniform(-0.5, 0.5, (2, num))  # of two scores, by known histograms: who is who is not known
    told = rounded(np.array(((centred[0] - centred[1]) ** 2).sum()))
    pairings = np.array(list(itertools.permutations(range(num))))
    sums = ((centred[0] - centred[1][pairings]) ** 2).sum(axis=1)
    assert (np.abs(sums - sums[0]) < 1e-12).sum() == 1
    assert (rounded(sums) == told).sum() > 100


def test_what_leaves_of_placements_has_three_digits(tmp_path: Path) -> None:
    study, site = tiny_study(), load_site(write_hospital(tmp_path, num_stays=300))
    model = untrained(LEMOF, study)
    found = stages.answer(site, IntervalsRequest(study=study, round=1, model=model))
    assert isinstance(found, Answer)
    sums = [value for name, value in found.sums.items() if name.endswith(("/pooled", "/own"))]
    assert len(sums) == 4 and all(
        np.allclose(value, rounded(value), rtol=1e-12, atol=0) and value.any() for value in sums
    )


def test_few_with_an_ecg_are_not_told_of_among_all(tmp_path: Path) -> None:
    """``with_ecg`` is held back, and so is the score of the ECG alone among all stays."""
    study, site = tiny_study(), load_site(write_hospital(tmp_path, num_stays=300, ecg_share=0.1, min_cell=11))
    edges = {f"edges/{p}/{name}": np.linspace(-0.5, 0.5, 41) for p in lemof.POPULATIONS for name in lemof.SCORED}
    model = untrained(LEMOF, study) | edges
    histograms = stages.answer(site, EvaluationRequest(study=study, round=1, split="held_out", model=model))
    sums = stages.answer(site, IntervalsRequest(study=study, round=2, model=model))
    assert isinstance(histograms, Answer) and isinstance(sums, Answer)
    assert "with_ecg/all/1" in histograms.too_small and "with_ecg" in sums.too_small
    ecg = lemof.SCORED.index("ecg_single")
    of_all = [histograms.sums[f"all/all/{y}/histogram"] for y in (0, 1)]
    assert all(value.any() and not value[ecg].any() for value in of_all)
    assert all(
        sums.sums[f"all/{name}"][:2].any() and not sums.sums[f"all/{name}"][:, ecg].any() for name in ("pooled", "own")
    )
