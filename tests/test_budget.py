"""How many tokens are kept."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from divprune.budget import KEEP_RATIO_STEPS, Budget, budget


@pytest.mark.parametrize(
    ("total", "keep_ratio", "expected"),
    [(576, 0.098, 56), (1152, 0.1, 115), (2880, 0.098, 282), (5, 0.5, 2), (7, 0.5, 4), (1, 0.01, 1), (10, 1, 10)],
)
def test_keep_ratio_uses_pythons_round_and_keeps_at_least_one(total, keep_ratio, expected):
    assert budget(total, keep_ratio=keep_ratio) == expected


def test_num_keep_is_clipped_to_the_number_of_tokens():
    assert budget(10, num_keep=3) == 3
    assert budget(10, num_keep=30) == 10


@given(st.integers(1, 100_000), st.floats(0, 1, exclude_min=True))
def test_count_is_between_one_and_all(total, keep_ratio):
    assert 1 <= budget(total, keep_ratio=keep_ratio) <= total


@given(st.integers(1, 100_000), st.integers(1, KEEP_RATIO_STEPS))
def test_an_engine_may_carry_the_ratio_as_an_integer(total, steps):
    ratio = steps / KEEP_RATIO_STEPS
    assert budget(total, keep_ratio=ratio) == max(1, round(ratio * total))
    assert budget(total, keep_ratio=ratio + 1e-9 if ratio < 1 else 1) == budget(total, keep_ratio=ratio)


@pytest.mark.parametrize("keep_ratio", [0, -0.1, 1.5, math.nan, math.inf])
def test_keep_ratio_out_of_range_is_refused(keep_ratio):
    with pytest.raises(ValueError, match=r"keep_ratio must be in \(0, 1\], got"):
        budget(10, keep_ratio=keep_ratio)


@pytest.mark.parametrize("arguments", [{}, {"keep_ratio": 0.5, "num_keep": 3}])
def test_exactly_one_of_the_two_is_needed(arguments):
    with pytest.raises(ValueError, match="exactly one of keep_ratio and num_keep"):
        Budget(**arguments)


WRONG_TYPES = [{"keep_ratio": "0.5"}, {"keep_ratio": True}, {"num_keep": 2.0}, {"num_keep": True}]


@pytest.mark.parametrize("arguments", WRONG_TYPES)
def test_wrong_types_are_refused(arguments):
    with pytest.raises(TypeError, match=f"{next(iter(arguments))} must be"):
        Budget(**arguments)


@pytest.mark.parametrize(("total", "num_keep"), [(0, 1), (-1, 1), (5, 0)])
def test_counts_below_one_are_refused(total, num_keep):
    with pytest.raises(ValueError, match="must be at least 1, got"):
        budget(total, num_keep=num_keep)
