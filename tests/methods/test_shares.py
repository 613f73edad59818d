"""Sharing a number of tokens among groups."""

import pytest
import torch

from divprune.methods.shares import proportional_shares, weighted_shares


def test_shares_are_in_proportion_and_add_up() -> None:
    # 5 of 3, 4 and 2: 15/9, 20/9 and 10/9, rounded down 1, 2, 1; the largest fraction, 6/9, gets the one that is left.
    assert proportional_shares(5, torch.tensor([3, 4, 2])).tolist() == [2, 2, 1]
    assert proportional_shares(1, torch.tensor([2, 2, 0])).tolist() == [1, 0, 0]
    assert proportional_shares(9, torch.tensor([3, 4, 2])).tolist() == [3, 4, 2]
    assert proportional_shares(0, torch.tensor([0, 0])).tolist() == [0, 0]


def test_shares_go_by_weight_as_far_as_there_is_room() -> None:
    # 10 of weights 5, 3, 2 and 2: 4.17, 2.5, 1.67 and 1.67, rounded down 4, 2, 1, 1; two remain, for the two largest.
    weights = torch.tensor([5.0, 3.0, 2.0, 2.0])
    assert weighted_shares(10, weights, torch.tensor([9, 9, 9, 9])).tolist() == [5, 3, 1, 1]
    # The first has room for three: 3, 2, 1, 1; three remain, one each for the others.
    assert weighted_shares(10, weights, torch.tensor([3, 9, 9, 9])).tolist() == [3, 3, 2, 2]
    # Only the second has room for more than two: 3, 2, 1, 1, then a round each of 3, 2, 2 and, at last, one more.
    assert weighted_shares(11, weights, torch.tensor([3, 9, 2, 2])).tolist() == [3, 4, 2, 2]
    assert weighted_shares(3, torch.zeros(2), torch.tensor([4, 4])).tolist() == [2, 1]


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="the scores of visual_tokens must be finite"):
        weighted_shares(3, torch.tensor([1.0, torch.nan]), torch.tensor([4, 4]))
