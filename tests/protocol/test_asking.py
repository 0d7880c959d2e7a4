"""What a request may bring: nothing that could take on the length of a hospital's data or break a bound on noise."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lemof_model.errors import DoorError
from lemof_model.stays import NUMERIC_COLUMNS
from protocol.asking import check_request
from protocol.messages import EncodersRequest, EvaluationRequest, ImportanceRequest, IntervalsRequest, MetaRequest
from protocol.method import untrained
from protocol.stages import ENCODERS, LEMOF, META, STATISTICS
from tests.studies import tiny_study

STUDY = tiny_study()
NUM_BINS = STUDY.evaluation.num_bins


def model(**changed: Any) -> dict[str, NDArray[Any]]:
    arrays = untrained((STATISTICS, ENCODERS, META), STUDY)
    return arrays | {name.replace("__", "/"): value for name, value in changed.items()}


def test_a_whole_model_passes() -> None:
    check_request(ImportanceRequest(study=STUDY, round=9, model=model()))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"background__ehr": np.zeros((1, 1, 3))},
            r"got background/ehr of float64 and shape \(1, 1, 3\)",
        ),
        ({"background__ehr": np.zeros((313, 3))}, "background/ehr"),
        ({"scaling__mean": np.zeros((313, len(NUMERIC_COLUMNS)))}, "scaling/mean"),
        ({"meta__ehr": np.zeros(5)}, "meta/ehr"),
        ({"meta__ehr": np.array(["a", "b", "c", "d"])}, "meta/ehr"),
        ({"patients": np.zeros(3)}, "patients"),
        ({"edges/all/full": np.zeros(9_999)}, r"got edges/all/full of float64 and shape \(9999,\)"),
        ({"meta__ehr": np.array([1.7e308, -1.7e308, 0.0, 0.0])}, r"finite numbers up to 1e\+06, got .* in meta/ehr"),
        ({"best_level": np.array([1, 4])}, "best_level must be two levels from 1 to 3"),
    ],
)
def test_arrays_that_the_plan_does_not_imply_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DoorError, match=message):
        check_request(ImportanceRequest(study=STUDY, round=9, model=model(**changed)))


def test_a_model_that_lacks_what_the_stage_reads_is_refused() -> None:
    lacking = {name: value for name, value in model().items() if not name.startswith("ecg/")}
    with pytest.raises(DoorError, match="the whole model so far, got none of ecg/"):
        check_request(MetaRequest(study=STUDY, round=9, model=lacking))


def test_edges_in_another_order_are_refused_for_a_bin_would_depend_on_other_stays() -> None:
    edges = np.linspace(-8.0, 8.0, NUM_BINS + 1)
    request = EvaluationRequest(study=STUDY, round=9, split="held_out", model={"edges/all/full": edges})
    with pytest.raises(DoorError, match="the whole model so far"):  # the edges themselves pass
        check_request(request)
    swapped = {"edges/all/full": edges[::-1].copy()}
    with pytest.raises(DoorError, match="edges/all/full must be in rising order"):
        check_request(EvaluationRequest(study=STUDY, round=9, split="held_out", model=swapped))


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int8", "int64", "bool"])
def test_whole_numbers_are_refused_where_a_model_has_none(kind: str) -> None:
    """A difference of unsigned numbers is never negative, so no order could be seen in them."""
    edges = (np.arange(NUM_BINS + 1)[::-1] % 2).astype(kind)
    with pytest.raises(DoorError, match=f"got edges/all/full of {kind}"):
        check_request(EvaluationRequest(study=STUDY, round=9, split="held_out", model={"edges/all/full": edges}))
    found = untrained(LEMOF, STUDY)
    changed = {name: np.rint(value).astype(kind) for name, value in found.items() if name.startswith("placement")}
    with pytest.raises(DoorError, match=f"got placement/with_ecg of {kind}"):
        check_request(IntervalsRequest(study=STUDY, round=9, model=found | changed))


@pytest.mark.parametrize("number", [0, -1, -(2**40), 2**31])
def test_a_round_that_no_study_has_is_refused_before_its_learning_rate_is_negative(number: int) -> None:
    with pytest.raises(DoorError, match=f"number of encoders must be from 1 to 1000000, got {number} from"):
        check_request(EncodersRequest(study=STUDY, round=9, number=number, model=model()))


@pytest.mark.parametrize("name", ["placement/all", "auroc/with_ecg"])
def test_placements_that_no_histograms_give_are_refused(name: str) -> None:
    """A table of another order could single stays out; one beyond 0 and 1 would pass the bound of a square."""
    found = untrained(LEMOF, STUDY)
    check_request(IntervalsRequest(study=STUDY, round=9, model=found))
    wrong = [found[name] + 0.6, found[name] - 0.6]
    wrong += [found[name][..., ::-1].copy()] if name.startswith("placement") else []
    for value in wrong:
        with pytest.raises(DoorError, match=f"{name} must be shares from 0 to 1"):
            check_request(IntervalsRequest(study=STUDY, round=9, model={**found, name: value}))
