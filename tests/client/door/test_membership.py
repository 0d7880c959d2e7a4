"""The membership audit at the hospital: whose margins are counted, and when nobody's are."""

import dataclasses

import numpy as np
import pytest

from client.cohort import frozen
from client.cohort.hospital import Hospital, open_hospital
from client.door import egress, stages
from client.site import Limits, load_site
from lemof_model import lemof
from lemof_model.membership import NUM_BINS
from protocol.messages import EvaluationRequest
from protocol.release import Group
from server.blocks import Model
from tests.hospitals import write_hospital
from tests.protocol.test_stages import whole_model
from tests.studies import tiny_study

GROUPS = {
    "membership/encoders/members": "train",
    "membership/encoders/others": "held_out",
    "membership/attention/members": "stack",
    "membership/attention/others": "held_out",
}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    site = write_hospital(tmp_path_factory.mktemp("site"), num_stays=90)
    return open_hospital(load_site(site), tiny_study())


@pytest.fixture(scope="module")
def model() -> Model:
    return whole_model(tiny_study())


def audit(hospital: Hospital, model: Model) -> list[Group]:
    request = EvaluationRequest(study=hospital.study, round=1, split="held_out", model=model)
    return [group for group in stages.groups_of(hospital, request) if group.name.startswith("membership/")]


def test_members_are_those_that_trained_and_others_are_held_out(hospital: Hospital, model: Model) -> None:
    groups = {group.name: group for group in audit(hospital, model)}
    assert set(groups) == set(GROUPS)
    for name, split in GROUPS.items():
        rows = hospital.stays.rows(split)
        histogram = groups[name].sums["histogram"]
        assert groups[name].num_stays == histogram.sum() == len(rows)
        score = lemof.omega_1_log_odds(frozen.levels(hospital, model), model, hospital.study)[rows]
        if "attention" in name:
            score = frozen.omega_2(hospital, model, rows).mean(axis=1)
        positive = int((np.where(hospital.stays.long_stay_N[rows] == 1, score, -score) >= 0).sum())
        assert histogram[NUM_BINS // 2 :].sum() == positive


def test_a_side_leaves_only_with_enough_patients_of_either_label(hospital: Hospital, model: Model) -> None:
    """Score histograms leave by label; a small one could be had by taking the large one away."""
    label = hospital.stays.long_stay_N.copy()
    held_out = hospital.stays.rows("held_out")
    label[held_out] = 0
    label[held_out[:2]] = 1
    lopsided = dataclasses.replace(hospital, stays=dataclasses.replace(hospital.stays, long_stay_N=label))
    groups = audit(lopsided, model)
    request = EvaluationRequest(study=hospital.study, round=1, split="held_out", model=model)
    answer = egress.release(lopsided, Limits(min_cell=3), request, groups)
    assert answer.too_small == ("membership/encoders/others", "membership/attention/others")
    assert set(answer.counts) == {"membership/encoders/members", "membership/attention/members"}
