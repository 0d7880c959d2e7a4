"""Every message comes back from its three plain dicts as it was."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from lemof_model.errors import VersionError
from lemof_model.study import Study
from protocol.messages import (
    REQUESTS,
    Answer,
    AttentionRequest,
    EvaluationRequest,
    Refusal,
    Release,
    answer_from_packet,
    request_from_packet,
    require_same_release,
)

MORE: dict[str, dict[str, Any]] = {
    "census": {"schema_digest": "abc"},
    "evaluation": {"split": "tuning"},
}


@pytest.mark.parametrize("stage", sorted(REQUESTS))
def test_a_request_comes_back_as_it_was(stage: str) -> None:
    model = {"ehr/w": np.arange(6, dtype=np.float32).reshape(2, 3), "best_level": np.array([1, 3])}
    request = REQUESTS[stage](study=Study(seed=3), round=12, source_digest="f00", model=model, **MORE.get(stage, {}))
    packet = request.to_packet()
    assert all(type(value) in (int, float) for value in packet.metrics.values())
    assert all(type(value) is str for value in packet.config.values())
    found = request_from_packet(packet)
    assert type(found) is type(request)
    for field in dataclasses.fields(request):
        if field.name != "model":
            assert getattr(found, field.name) == getattr(request, field.name)
            assert type(getattr(found, field.name)) is type(getattr(request, field.name))
    for name, value in model.items():
        np.testing.assert_array_equal(found.model[name], value)
        assert found.model[name].dtype == value.dtype


def test_an_answer_and_a_refusal_come_back_as_they_were() -> None:
    answer = Answer(
        stage="meta", round=3, site="a", plan_digest="p", source_digest="s", sums={"ehr/x": np.ones(2)},
        counts={"ehr": 5, "train/ecg/1": 2}, too_small=("ecg",),
    )  # fmt: skip
    found = answer_from_packet(answer.to_packet())
    assert isinstance(found, Answer)
    np.testing.assert_array_equal(found.sums["ehr/x"], np.ones(2))
    assert dataclasses.replace(found, sums={}) == dataclasses.replace(answer, sums={})
    refusal = Refusal(stage="meta", round=3, site="a", code=9, reason="too few")
    assert answer_from_packet(refusal.to_packet()) == refusal


@pytest.mark.parametrize("other", [Release("1.0", "b" * 64), Release("1.1", "a" * 64), Release("1.0", "a" * 64, 99)])
def test_another_release_is_refused_with_both_sides_named(other: Release) -> None:
    own = Release("1.0", "a" * 64)
    require_same_release(own, own)
    with pytest.raises(VersionError) as told:
        require_same_release(own, other)
    assert str(own) in str(told.value) and str(other) in str(told.value)


def test_a_plan_that_does_not_have_its_digest_is_refused() -> None:
    packet = AttentionRequest(study=Study(), round=1).to_packet()
    packet.config["study"] = Study(seed=1).to_json()
    with pytest.raises(VersionError, match="Plan digest"):
        request_from_packet(packet)


def test_a_stage_is_asked_by_its_name() -> None:
    assert all(cls.stage == stage for stage, cls in REQUESTS.items())
    assert REQUESTS["evaluation"] is EvaluationRequest
