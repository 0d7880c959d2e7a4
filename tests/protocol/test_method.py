"""The list of stages that a method is: whole, in an order in which each finds what the next ones read."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from client.cohort import alone
from lemof_model import lemof
from lemof_model.study import Study
from protocol.asking import check_request, shapes_of_model
from protocol.method import LEARNING, requests_of, steps_of, untrained
from protocol.stage import Stage, by_name
from protocol.stages import ATTENTION, CENSUS, IMPORTANCE, LEMOF, META, STAGES, STATISTICS
from server import coordinator
from tests.studies import tiny_study


@pytest.mark.parametrize("is_private", [False, True])
def test_the_untrained_model_is_one_that_every_stage_can_be_asked_with(is_private: bool) -> None:
    for request, times in requests_of(tiny_study(), is_private=is_private):
        check_request(request)
        assert times >= 1


def test_what_stages_say_that_they_find_is_what_a_model_may_have() -> None:
    """A part left out of ``finds``, or of the arrays that a request may bring, shows here."""
    (request, _), study = next(iter(requests_of(Study()))), Study()
    names = shapes_of_model(dataclasses.replace(request, model=untrained(LEMOF, study)))
    assert {name.split("/")[0] for name in names} == {part for stage in STAGES.values() for part in stage.finds}
    at_once = {part for stage in LEMOF for part in stage.finds} - {"calibration"}
    assert {name.split("/")[0] for name in untrained(LEMOF, study)} == at_once


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((CENSUS, STATISTICS, META), "stage meta: it reads ecg, ehr, which no stage before it finds"),
        ((*LEARNING[4:], *LEARNING[:4]), "stage importance: it reads scaling, ecg, ehr, meta, background"),
    ],
)
def test_an_order_in_which_something_is_read_before_it_is_found_is_refused(
    stages: tuple[Stage, ...], message: str
) -> None:
    for conductor in (coordinator, alone):
        with pytest.raises(TypeError, match=message):
            conductor.steps(stages)


def test_methods_share_a_stage_and_do_not_declare_another_by_its_name() -> None:
    assert by_name((*LEMOF, CENSUS, META)) == by_name(LEMOF)
    with pytest.raises(TypeError, match="stage meta: it must be declared once, got two"):
        by_name((*LEMOF, dataclasses.replace(META, says="something else")))


def test_a_stage_that_a_conductor_cannot_do_is_named() -> None:
    class AgesRequest(IMPORTANCE.request):  # type: ignore[name-defined, misc]
        stage = "ages"

    unknown: Any = dataclasses.replace(IMPORTANCE, request=AgesRequest)
    for conductor, who in ((coordinator, "the coordinator"), (alone, "a hospital alone")):
        with pytest.raises(TypeError, match=f"stage ages: {who} must know how to do it"):
            conductor.steps((*LEARNING[:4], unknown))
    two = dataclasses.replace(
        META, releases=(*META.releases, *ATTENTION.releases), finds=(*META.finds, *ATTENTION.finds)
    )
    with pytest.raises(TypeError, match="stage meta: one learner may ride along"):
        coordinator.trained(two)
    with pytest.raises(TypeError, match="stage census: nobody must know how to do it"):
        steps_of((CENSUS,), {}, {}, who="nobody")


def test_learners_start_at_what_is_best_when_nothing_is_known() -> None:
    """The mean of the levels; the prediction of the EHR, which every stay has; that of omega_1 (docs/privacy.md)."""
    model, levels_NK = untrained(LEMOF, tiny_study()), np.random.default_rng(0).uniform(-2, 2, (2, 9, 3))
    levels = {"ecg": np.where(np.arange(9)[:, None] % 3, levels_NK[0], np.nan), "ehr": levels_NK[1]}
    scores = lemof.predict(levels, np.arange(9.0), model, tiny_study())
    np.testing.assert_allclose(scores["ehr_single"], levels["ehr"].mean(axis=1))
    np.testing.assert_array_equal(scores["m1"], scores["ehr_single"])
    np.testing.assert_array_equal(scores["full"], scores["m1"])
