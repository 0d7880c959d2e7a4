"""Counts come back as they went, in fewer bytes, and nothing but what was packed is read."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lemof_model.errors import DoorError
from protocol import compact

WHOLE = arrays.arrays(
    st.sampled_from(compact.WHOLE),
    st.sampled_from([(), (0,), (7,), (2, 9), (3, 2, 4)]),
    elements=st.sampled_from([0, 0, 0, 0, 1, 2, 100]),
)


@settings(max_examples=200, deadline=None)
@given(WHOLE)
def test_whole_numbers_come_back_to_the_bit(value: Any) -> None:
    sent = {"a/histogram": value, "a/loss": np.array(0.5), "a/negative": np.array([-1, 3])}
    packed, table = compact.pack(sent)
    back = compact.unpack(packed, table)
    assert back.keys() == sent.keys()
    for name, one in sent.items():
        assert (back[name].dtype, back[name].shape) == (one.dtype, one.shape)
        np.testing.assert_array_equal(back[name], one)
    assert compact.num_bytes(sent) == sum(one.nbytes for one in packed.values()) <= sum(v.nbytes for v in sent.values())


def test_large_counts_and_far_bins_come_back() -> None:
    value = np.zeros(100_000, np.int64)
    value[[0, 70_000, 99_999]] = 2**40, 1, 300
    packed, table = compact.pack({"h": value})
    assert sum(one.nbytes for one in packed.values()) < 50
    np.testing.assert_array_equal(compact.unpack(packed, table)["h"], value)


def test_the_bins_of_a_hospital_take_few_bytes() -> None:
    scores = np.random.default_rng(0).integers(0, 400, (7, 200))
    value = np.stack([np.bincount(row, minlength=400) for row in scores]).astype(np.int32)
    assert compact.num_bytes({"h": value}) <= 400 * 7 < value.nbytes / 3


U1, TABLE = np.array([1], np.uint8), {"h": ["int32", [9]]}


@pytest.mark.parametrize(
    ("packed", "table"),
    [
        ({}, TABLE),
        ({"h~gaps": U1}, TABLE),
        ({"h~gaps": U1, "h~values": U1}, {"h": ["float64", [9]]}),
        ({"h~gaps": U1, "h~values": U1}, {"h": ["int32", []]}),
        ({"h~gaps": U1, "h~values": U1}, {"h": ["int32", [-9]]}),
        ({"h~gaps": U1, "h~values": U1}, {"h": ["int32", [True]]}),
        ({"h~gaps": U1, "h~values": U1}, {"h": ["int32", [1 << 20, 1 << 20]]}),
        ({"h~gaps": U1, "h~values": U1}, {"h": ["int32", [9], 1]}),
        ({"h~gaps": U1, "h~values": U1}, {"h": "int32"}),
        ({"h~gaps": np.array([9], np.uint8), "h~values": U1}, TABLE),
        ({"h~gaps": np.array([1, 0], np.uint8), "h~values": np.array([1, 1], np.uint8)}, TABLE),
        ({"h~gaps": np.array([2**63, 2**63], np.uint64), "h~values": np.array([1, 1], np.uint8)}, TABLE),
        ({"h~gaps": np.array([1], np.int8), "h~values": U1}, TABLE),
        ({"h~gaps": U1, "h~values": np.array([1.0])}, TABLE),
        ({"h~gaps": U1, "h~values": np.array([2**31], np.uint32)}, TABLE),
        ({"h~gaps": U1, "h~values": np.array([1, 1], np.uint8)}, TABLE),
        ({"h": np.zeros(8, np.uint8)}, TABLE),
        ({"h": np.zeros(9)}, TABLE),
    ],
)
def test_what_no_packing_makes_is_refused(packed: Any, table: Any) -> None:
    with pytest.raises(DoorError):
        compact.unpack(packed, table)


def test_many_arrays_together_are_no_more_than_the_most() -> None:
    table = {f"h{number}": ["int64", [compact.MOST_ELEMENTS // 2]] for number in range(3)}
    packed = {f"{name}{end}": U1 for name in table for end in (compact.GAPS, compact.VALUES)}
    with pytest.raises(DoorError, match="Counts of a message must be"):
        compact.unpack(packed, table)
