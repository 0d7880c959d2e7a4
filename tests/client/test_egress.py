"""The door of a hospital: what leaves, what is left out, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest

from client import egress, stages
from client.egress import Group
from client.site import Limits, load_site
from lemof_model import lemof
from lemof_model.errors import LemofError, TooLittleDataError
from lemof_model.stays import NUMERIC_COLUMNS
from lemof_model.study import Study
from lemof_model.wire import REQUESTS, Answer, CensusRequest, MetaRequest, Refusal, StatisticsRequest
from tests.hospitals import write_hospital
from tests.studies import tiny_study

LIMITS = Limits(min_patients=50, min_cell=11, max_update_mb=1)
REQUEST = StatisticsRequest(study=Study(), round=4)
HOSPITAL: Any = SimpleNamespace(name="hospital_a", cohort_digest="abc")  # all that the door reads of a hospital


def group(name: str, num_patients: int, minimum: Literal["patients", "cell"], **sums: Any) -> Group:
    return Group(name, num_patients, num_patients + 3, minimum, {key: np.asarray(value) for key, value in sums.items()})


def release(*groups: Group) -> Answer:
    return egress.release(HOSPITAL, LIMITS, REQUEST, groups)


def test_an_answer_holds_sums_and_counts_by_group_and_says_to_what_it_answers() -> None:
    answer = release(group("ehr", 50, "patients", x=[1.0, 2.0]), group("ecg", 80, "patients", x=[3.0]))
    assert {name: value.tolist() for name, value in answer.sums.items()} == {"ehr/x": [1.0, 2.0], "ecg/x": [3.0]}
    assert answer.counts == {"ehr": 53, "ecg": 83}  # stays; the limits are about patients
    assert (answer.stage, answer.round, answer.site, answer.too_small) == ("statistics", 4, "hospital_a", ())
    assert answer.plan_digest == Study().digest


@pytest.mark.parametrize(("minimum", "limit"), [("patients", 50), ("cell", 11)])
def test_a_group_below_its_minimum_stays_and_is_named(minimum: Literal["patients", "cell"], limit: int) -> None:
    large = group("large", 500, "patients", x=1.0)
    answer = release(large, group("enough", limit, minimum, x=2.0), group("few", limit - 1, minimum, x=3.0))
    assert set(answer.sums) == {"large/x", "enough/x"} and set(answer.counts) == {"large", "enough"}
    assert answer.too_small == ("few",)


def test_nothing_leaves_when_every_group_that_is_fitted_with_is_too_small() -> None:
    with pytest.raises(TooLittleDataError, match=r"statistics needs at least 50 patients.*Nothing was sent") as caught:
        release(group("ehr", 49, "patients", x=1.0), group("ecg", 0, "patients", x=1.0), group("t", 10, "cell", x=1.0))
    assert caught.value.exit_status == 9


def test_cells_that_are_all_too_small_are_left_out_and_the_study_goes_on() -> None:
    answer = release(group("a", 10, "cell", histogram=[3, 7]), group("b", 0, "cell", histogram=[0, 0]))
    assert (answer.sums, answer.counts, answer.too_small) == ({}, {}, ("a", "b"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(LemofError, match=r"finite numbers, got NaN or infinity in ehr/x\. Nothing was sent"):
        release(group("ehr", 50, "patients", x=[1.0, value]))


def test_an_answer_larger_than_the_site_allows_is_refused() -> None:
    release(group("ehr", 50, "patients", x=np.zeros(125_000)))
    with pytest.raises(LemofError, match=r"no larger than the hospital allows \(limits.max_update_mb\), got 1.0 MB in"):
        release(group("ehr", 50, "patients", x=np.zeros(125_001)))


def part(name: str, num_patients: int, *within: str) -> Group:
    return Group(name, num_patients, num_patients, "cell", {"x": np.asarray(1.0)}, within)


def test_a_part_whose_rest_is_too_small_stays_too_or_a_subtraction_would_tell() -> None:
    whole = part("all", 100)
    answer = release(whole, part("female", 95, "all"), part("male", 5, "all"))
    assert (set(answer.counts), answer.too_small) == ({"all"}, ("female", "male"))
    answer = release(whole, part("female", 60, "all"), part("male", 40, "all"))
    assert answer.too_small == ()
    answer = release(whole, part("everyone", 100, "all"))  # a rest of nobody tells of nobody
    assert answer.too_small == ()
    answer = release(part("few", 5), part("most", 95, "few"))  # what stays home can not be subtracted from
    assert answer.too_small == ("few",)


def test_an_element_with_too_few_stays_behind_it_is_nought() -> None:
    sums = {"num_present": np.array([50.0, 10.0, 11.0]), "x": np.array([7.0, 8.0, 9.0])}
    answer = release(Group("ehr", 50, 50, "patients", sums, counted_by="num_present"))
    assert answer.sums["ehr/num_present"].tolist() == [50.0, 0.0, 11.0]
    assert answer.sums["ehr/x"].tolist() == [7.0, 0.0, 9.0]


# --- the same, met through a whole hospital ---------------------------------------------------------------------------


@pytest.fixture
def hospital(tmp_path: Path) -> Callable[..., Path]:
    def write(**limits: Any) -> Path:
        return write_hospital(tmp_path, num_stays=60, **limits)

    return write


def test_a_hospital_with_too_few_patients_refuses_in_words_and_with_the_exit_status(
    hospital: Callable[..., Path],
) -> None:
    site = load_site(hospital(min_patients=50))
    study = tiny_study()
    refusal = stages.answer(site, StatisticsRequest(study=study, round=2))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.stage, refusal.round, refusal.site) == (9, "statistics", 2, "hospital_a")
    assert refusal.reason == TooLittleDataError.told_outside, "no limit of the site leaves"


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_newton_sums_that_are_not_finite_do_not_leave(hospital: Callable[..., Path]) -> None:
    study = tiny_study()
    num_numeric = len(NUMERIC_COLUMNS)
    scaling = {"mean": np.zeros(num_numeric, np.float32), "scale": np.ones(num_numeric, np.float32)}
    model = lemof.prefixed("scaling", scaling) | lemof.initial_networks(study)
    model |= {"meta/ecg": np.full(4, np.nan), "meta/ehr": np.zeros(4)}
    refusal = stages.answer(load_site(hospital()), MetaRequest(study=study, round=3, model=model))
    assert isinstance(refusal, Refusal) and refusal.code == 1
    assert "finite numbers" in refusal.reason


def test_another_release_is_refused_at_the_census(hospital: Callable[..., Path]) -> None:
    site = load_site(hospital())
    request = CensusRequest(study=tiny_study(), round=1, source_digest="0" * 64, schema_digest="1" * 64)
    refusal = stages.answer(site, request)
    assert isinstance(refusal, Refusal) and refusal.code == 8
    assert "Install the same lemof release on both sides" in refusal.reason


def test_every_stage_has_a_handler() -> None:
    assert set(stages.HANDLERS) == set(REQUESTS.values())
