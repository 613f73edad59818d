"""Which units of an image are encoded: the rule, against a loop that goes over them one by one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from divprune.huggingface.encoding.pixel_prediction import UnitGrid, encoded_instead
from tests.support.handmade_tower import redundant_by_hand


def page(*rows: list[float]) -> Tensor:
    """Units of one value each."""
    return torch.tensor([value for row in rows for value in row], dtype=torch.float64).unsqueeze(1)


def instead(units: Tensor, grid: UnitGrid, window_side: int | None = None, tolerance: float = 0.0) -> list[int]:
    return encoded_instead(units, [grid], window_side, tolerance).tolist()


@given(
    grids=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=3),
    window_side=st.sampled_from([None, 1, 2, 3, 4]),
    colours=st.integers(1, 4),
    tolerance=st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0]),
    seed=st.integers(0, 1000),
)
def test_the_rule_is_that_of_a_reader(
    grids: list[UnitGrid], window_side: int | None, colours: int, tolerance: float, seed: int
) -> None:
    count = sum(frames * rows * columns for frames, rows, columns in grids)
    # Whole numbers, so that differences are exact.
    units = torch.randint(0, colours, (count, 2), generator=torch.Generator().manual_seed(seed)).double()
    found = encoded_instead(units, grids, window_side, tolerance)
    assert found.tolist() == redundant_by_hand(units, grids, window_side, tolerance)
    # What is encoded stands for itself, and every other unit is within the tolerance of what stands for it.
    assert found[found].equal(found)
    assert float((units - units[found]).abs().max()) <= tolerance


def test_copies_of_copies_stand_for_the_first() -> None:
    assert instead(page([7, 7, 7], [1, 7, 7], [1, 1, 7]), (1, 3, 3)) == [0, 0, 0, 3, 0, 0, 3, 3, 0]


def test_where_both_neighbours_tell_the_pixels_the_left_one_does() -> None:
    # Two encoded units of one colour meet at the last one: number 1, from above, and number 2, from the left.
    assert instead(page([0, 7], [7, 7]), (1, 2, 2)) == [0, 1, 2, 2]
    assert instead(page([0, 7], [5, 7]), (1, 2, 2)) == [0, 1, 2, 1]


def test_nothing_is_predicted_from_the_diagonal_or_from_the_end_of_the_row_above() -> None:
    assert instead(page([7, 0], [0, 7]), (1, 2, 2)) == [0, 1, 2, 3]
    assert instead(page([0, 7], [7, 0]), (1, 2, 2)) == [0, 1, 2, 3]


def test_one_colour_is_encoded_once_a_frame_and_once_a_window() -> None:
    units = torch.ones(2 * 3 * 5, 4)
    assert sorted(set(instead(units, (2, 3, 5)))) == [0, 15]
    # Windows of two rows and columns: those at the edge are smaller.
    assert sorted(set(instead(units, (2, 3, 5), 2))) == [0, 2, 4, 10, 12, 14, 15, 17, 19, 25, 27, 29]


def test_a_window_predicts_within_itself() -> None:
    #  a a | a b       left of the border, right of it; then below
    #  a b | a b
    units = page([1, 1, 1, 2], [1, 2, 1, 2])
    assert instead(units, (1, 2, 4), 2) == [0, 0, 2, 3, 0, 5, 2, 3]
    assert instead(units, (1, 2, 4)) == [0, 0, 0, 3, 0, 5, 0, 3]


def test_an_image_predicts_nothing_of_the_next() -> None:
    assert encoded_instead(torch.ones(6, 1), [(1, 1, 2), (1, 2, 2)]).tolist() == [0, 0, 2, 2, 2, 2]


@pytest.mark.parametrize(("tolerance", "encoded"), [(0.0, 4), (0.9, 4), (1.0, 2), (1.9, 2), (2.0, 2), (3.0, 1)])
def test_a_slow_gradient_does_not_fade_into_one_colour(tolerance: float, encoded: int) -> None:
    assert len(set(instead(page([0, 1, 2, 3]), (1, 1, 4), tolerance=tolerance))) == encoded


def test_the_largest_difference_of_all_pixels_counts() -> None:
    units = torch.tensor([[0.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert instead(units, (1, 1, 3), tolerance=0.5) == [0, 1, 2]
    assert instead(units, (1, 1, 3), tolerance=1.0) == [0, 0, 0]


def test_a_pixel_that_is_no_number_equals_none() -> None:
    assert instead(page([float("nan"), float("nan")]), (1, 1, 2)) == [0, 1]
