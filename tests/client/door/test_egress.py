"""The door of a hospital: what leaves, what is left out, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from client.cohort.census import Census
from client.door import egress, stages
from client.site import Limits, SiteConfig, load_site
from lemof_model import lemof
from lemof_model.errors import DoorError, LemofError, NotAllowedError, TooLittleDataError
from lemof_model.study import SPLITS, Study
from protocol.messages import (
    REQUESTS,
    Answer,
    CensusRequest,
    EncodersRequest,
    MetaRequest,
    Refusal,
    Request,
    StatisticsRequest,
)
from protocol.method import LEARNING, untrained
from protocol.release import Form, Group
from protocol.stages import STAGES
from tests.hospitals import write_hospital
from tests.studies import tiny_study

LIMITS = Limits(min_patients=50, min_cell=11, max_update_mb=1)
REQUEST = StatisticsRequest(study=Study(), round=4)
NUM_STAYS, BLOCK = 20_000, 1_000


def hospital_of(**changes: Any) -> Any:
    """All that the door reads of a hospital: each block of 1,000 stays begins with four of one patient."""
    row = np.arange(NUM_STAYS)
    stays: dict[str, Any] = {
        "patient_N": np.where(row % BLOCK < 4, row - row % BLOCK, row),
        "has_ecg_N": np.zeros(NUM_STAYS, bool),
        "long_stay_N": np.zeros(NUM_STAYS, int),
        "rows": lambda split, modality: row if split == "train" else row[:0],
    }
    census = Census(SimpleNamespace(**stays | changes))  # type: ignore[arg-type]
    return SimpleNamespace(name="hospital_a", cohort_digest="abc", census=census)


HOSPITAL = hospital_of()


def rows_of(num_patients: int, block: int = 0) -> NDArray[np.int64]:
    """Three stays more than patients, from one block."""
    return np.arange(num_patients + 3 if num_patients else 0) + BLOCK * block


def group(name: str, num_patients: int, minimum: Literal["patients", "cell"], **sums: Any) -> Group:
    """A group of its own, which shares no stay with those of other names."""
    rows = rows_of(num_patients, sum(map(ord, name)) % (NUM_STAYS // BLOCK))
    return Group(name, rows, minimum, {key: np.asarray(value) for key, value in sums.items()})


def release(*groups: Group, hospital: Any = HOSPITAL) -> Answer:
    """Release groups whose names and forms are all as declared: what is declared has tests of its own."""
    forms = {g.name: {key: Form(value.shape, (value.dtype.name,)) for key, value in g.sums.items()} for g in groups}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(egress, "STAGES", {"statistics": SimpleNamespace(forms=lambda request: forms)})
        return egress.release(hospital, LIMITS, REQUEST, groups)


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
    with pytest.raises(TooLittleDataError, match=r"at least 50 patients .* of statistics\. Nothing was sent") as caught:
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


def part(name: str, begin: int, end: int) -> Group:
    """Some patients of one row of them."""
    return Group(name, np.arange(begin, end) + 10, "cell", {"x": np.asarray(1.0)})


def test_a_part_whose_rest_is_too_small_stays_too_or_a_subtraction_would_tell() -> None:
    whole = part("all/0", 0, 100)
    answer = release(whole, part("sex:female/0", 0, 95), part("sex:male/0", 95, 100))
    assert (set(answer.counts), answer.too_small) == ({"all/0"}, ("sex:female/0", "sex:male/0"))
    answer = release(whole, part("sex:female/0", 0, 60), part("sex:male/0", 60, 100))
    assert answer.too_small == ()
    answer = release(whole, part("everyone/0", 0, 100))  # a rest of nobody tells of nobody
    assert answer.too_small == ()
    fitted = replace(part("ehr", 200, 240), minimum="patients")  # too small, and counted beside a loss all the same
    answer = release(whole, fitted, part("ehr/0", 200, 230), part("ehr/1", 230, 240))
    assert (set(answer.counts), answer.too_small) == ({"all/0"}, ("ehr", "ehr/0", "ehr/1"))
    assert release(whole, fitted, part("ehr/0", 200, 229), part("ehr/1", 229, 240)).too_small == ("ehr",)


@pytest.mark.parametrize(("num_others", "leaves"), [(0, True), (1, False), (10, False), (11, True)])
def test_a_part_of_a_whole_that_another_stage_counts(num_others: int, leaves: bool) -> None:
    whole = np.arange(30 + num_others) + 10
    hospital = hospital_of(rows=lambda split, modality: whole if split == "held_out" else whole[:0])
    assert bool(release(part("all/0", 0, 30), hospital=hospital).counts) is leaves


def test_groups_of_one_kind_may_not_add_up_to_a_whole_but_for_a_few() -> None:
    whole = part("all/0", 0, 300)
    ages = [part("age:young/0", 0, 100), part("age:middle/0", 100, 200)]
    assert release(whole, *ages, part("age:old/0", 200, 300)).too_small == ()
    assert release(whole, *ages, part("age:old/0", 200, 295)).too_small == ("age:young/0", "age:middle/0", "age:old/0")
    few = [part("age:old/0", 200, 292), part("age:oldest/0", 292, 300)]  # the oldest stay, and would be what is left
    held = ("age:young/0", "age:middle/0", "age:old/0", "age:oldest/0")
    assert release(whole, *ages, *few).too_small == held
    diseases = [part("disease:a/0", 0, 100), part("disease:b/0", 90, 295)]  # they overlap: what is left is not known
    assert release(whole, *diseases).too_small == ()
    of_another = part("sex:female/0", 0, 150)
    assert set(release(whole, *ages, *few, of_another).counts) == {"all/0", "sex:female/0"}


def test_what_lies_in_a_group_that_is_held_back_for_its_rest_is_held_back_too() -> None:
    whole, most = part("all/0", 0, 105), part("all/1", 0, 100)
    parts = [part("sex:female/1", 0, 40), part("sex:male/1", 40, 100)]
    assert release(whole, most, *parts).too_small == ("all/1", "sex:female/1", "sex:male/1")


def test_stays_with_an_ecg_stand_beside_all_stays() -> None:
    has_ecg = np.zeros(NUM_STAYS, bool)
    has_ecg[10:105] = True
    hospital = hospital_of(has_ecg_N=has_ecg)
    assert release(part("all/0", 0, 100), part("with_ecg/0", 0, 95), hospital=hospital).too_small == ()
    assert release(part("all/0", 0, 100), part("with_ecg/0", 0, 94), hospital=hospital).too_small == ("with_ecg/0",)


def test_the_minimum_of_a_group_about_others_is_held_over_them() -> None:
    trained = replace(part("head", 0, 20), minimum="patients", about=(rows_of(60, 1),))
    assert release(trained).counts == {"head": 20}
    few = replace(trained, about=(rows_of(60, 1), rows_of(49, 2)))
    assert release(group("a", 50, "patients", x=1.0), few).too_small == ("head",)


def test_an_element_with_too_few_stays_behind_it_is_nought() -> None:
    sums = {"num_present": np.array([50.0, 10.0, 11.0]), "x": np.array([7.0, 8.0, 9.0])}
    answer = release(Group("ehr", rows_of(50), "patients", sums, counted_by="num_present"))
    assert answer.sums["ehr/num_present"].tolist() == [50.0, 0.0, 11.0]
    assert answer.sums["ehr/x"].tolist() == [7.0, 0.0, 9.0]


# --- what a plan, or our own mistake, might try to get out ------------------------------------------------------------


STUDY = tiny_study()
TRAINED = lemof.part(lemof.initial_networks(STUDY), "ehr")


def let_out(*groups: Group, max_norms: dict[str, float] | None = None) -> Answer:
    """The real list, for a round of training."""
    return egress.release(HOSPITAL, LIMITS, EncodersRequest(study=STUDY, round=2), groups, max_norms)


def trained(**changes: Any) -> Group:
    sums = {f"weights/{name}": np.asarray(value, np.float64) for name, value in TRAINED.items()}
    return Group("ehr", rows_of(60), "patients", sums | changes)


def counted(num_stays: Any) -> Group:
    return Group("tuning/ehr", rows_of(60), "cell", public=(num_stays, 60))


def test_weights_as_the_plan_implies_them_leave() -> None:
    assert len(let_out(trained()).sums) == len(TRAINED)


@pytest.mark.parametrize(
    ("group_", "message"),
    [
        (Group("patients", rows_of(60), "patients"), "send listed groups only, got 'patients'"),
        (Group("ehr", rows_of(60), "patients", {"ages": np.zeros(60)}), "send listed arrays only, got 'ehr/ages'"),
        (
            Group("tuning/ehr", rows_of(60), "cell", {"loss": np.zeros(60)}),
            r"tuning/ehr/loss as float64 of shape \(\), got float64 of shape \(60,\)",
        ),
        (counted(np.zeros(60)), r"in one whole number, got float64 of shape \(60,\)"),
        (counted([4, 2] * 30), "in one whole number, got list"),
        (counted(2**4000), "in one whole number, got int"),
        (
            trained(**{"weights/heads.0.bias": np.full(1, np.nan)}),
            "finite numbers, got NaN or infinity in ehr/weights/he",
        ),
        (trained(**{"weights/heads.0.bias": np.zeros(10)}), r"float64 of shape \(1,\), got float64 of shape \(10,\)"),
        (trained(**{"weights/heads.0.bias": np.zeros(1, complex)}), r"got complex128 of shape \(1,\)"),
        (trained(**{"weights/heads.0.bias": [0.0]}), r"as float64 of shape \(1,\), got list"),
    ],
    ids=lambda value: value.name if isinstance(value, Group) else "",
)
def test_what_is_not_on_the_list_does_not_leave(group_: Group, message: str) -> None:
    with pytest.raises(DoorError, match=rf"encoders must .*{message}.*Nothing was sent"):
        let_out(group_)


def test_a_private_sum_beyond_what_clip_and_noise_allow_does_not_leave() -> None:
    loss = Group("tuning/ehr", rows_of(60), "cell", {"loss": np.asarray(90.0)})
    assert let_out(loss, max_norms={"tuning/ehr/loss": 91.0}).sums["tuning/ehr/loss"] == 90.0
    for most in ({"tuning/ehr/loss": 89.0}, {}):  # what has no limit may not leave under a budget
        with pytest.raises(DoorError, match="tuning/ehr/loss within the norm that clipping and noise allow"):
            let_out(loss, max_norms=most)


def test_a_census_over_too_few_patients_tells_nothing() -> None:
    request = CensusRequest(study=STUDY, round=1, schema_digest="")
    small = [Group(f"{split}/ehr", rows_of(49, 5 * n), "patients") for n, split in enumerate(SPLITS)]
    with pytest.raises(TooLittleDataError, match=r"must have at least 50 patients .* of census\. Nothing was sent"):
        egress.release(HOSPITAL, LIMITS, request, small)


def admit(request: Request, **limits: Any) -> None:
    egress.admit(cast(SiteConfig, SimpleNamespace(limits=Limits(**limits), privacy=None)), request)


def test_a_stage_that_the_site_forbids_is_refused_by_name() -> None:
    request = StatisticsRequest(study=STUDY, round=1, num_sites=3)
    admit(request)
    with pytest.raises(NotAllowedError, match=r"\(limits.stages\), got a request for statistics") as caught:
        admit(request, stages=("census", "encoders"))
    assert caught.value.exit_status == 3 and caught.value.told_outside is None


@pytest.mark.parametrize(
    ("num_sites", "plan", "site", "is_admitted"),
    [
        (3, "refuse", "refuse", True),
        (2, "refuse", "refuse", False),
        (2, "allow", "refuse", False),
        (2, "refuse", "allow", False),
        (2, "allow", "allow", True),
        (0, "allow", "refuse", False),
    ],
)
def test_a_total_over_two_hospitals_needs_the_consent_of_plan_and_site(
    num_sites: int, plan: str, site: str, is_admitted: bool
) -> None:
    request = StatisticsRequest(study=tiny_study(few_sites=plan), round=1, num_sites=num_sites)
    if is_admitted:
        admit(request, few_sites=site)
        return
    with pytest.raises(
        NotAllowedError, match=f"At least 3 hospitals .*, got {num_sites} in statistics.*few_sites: allow"
    ):
        admit(request, few_sites=site)


def test_weights_that_are_no_numbers_are_refused_before_anything_is_computed() -> None:
    model = {"ehr/heads.0.bias": np.full(1, np.nan, np.float32)}
    with pytest.raises(
        DoorError, match=r"finite numbers up to 1e\+06, got NaN, infinity or more in ehr/heads\.0\.bias from"
    ):
        admit(EncodersRequest(study=STUDY, round=2, num_sites=3, model=model))


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
    told = "Too few patients in every group that was asked for (ehr); nothing was sent."
    assert refusal.reason == told, "the group is named, no limit of the site leaves"


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_newton_sums_that_are_not_finite_do_not_leave(hospital: Callable[..., Path]) -> None:
    study = tiny_study()
    model = untrained(LEARNING, study) | {"meta/ecg": np.full(4, np.nan)}
    refusal = stages.answer(load_site(hospital()), MetaRequest(study=study, round=3, model=model))
    assert isinstance(refusal, Refusal) and refusal.code == 1
    assert "finite numbers" in refusal.reason


def test_another_release_is_refused_at_the_census(hospital: Callable[..., Path]) -> None:
    site = load_site(hospital())
    request = CensusRequest(study=tiny_study(), round=1, source_digest="0" * 64, schema_digest="1" * 64)
    refusal = stages.answer(site, request)
    assert isinstance(refusal, Refusal) and refusal.code == 8
    assert "Install the same lemof release on both sides" in refusal.reason


def test_every_stage_is_declared() -> None:
    assert [stage.request for stage in STAGES.values()] == list(REQUESTS.values())


def test_whatever_is_refused_stands_in_the_log_of_the_site(
    hospital: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    refusal = stages.answer(
        load_site(hospital(few_sites="refuse")), StatisticsRequest(study=STUDY, round=2, num_sites=2)
    )
    assert isinstance(refusal, Refusal) and refusal.code == 3
    assert refusal.reason in caplog.text and "declined statistics: At least 3 hospitals" in caplog.text
