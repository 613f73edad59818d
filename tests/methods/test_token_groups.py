"""Groups of tokens, step by step."""

import pytest
import torch

from divprune.methods.token_groups import DROPPED, TokenGroups

TOKENS = torch.tensor([[1.0], [2.0], [6.0], [8.0], [20.0]], dtype=torch.float64)


def test_groups_become_their_means() -> None:
    groups = TokenGroups.around(torch.tensor([1, 1, 1, 3, DROPPED]))
    assert groups.values(TOKENS).flatten().tolist() == pytest.approx([0.0, 3.0, 0.0, 8.0, 0.0])
    merged = groups.merged()
    assert merged.anchors.tolist() == [1, 3]
    assert merged.tokens(TOKENS).flatten().tolist() == pytest.approx([3.0, 8.0], abs=1e-6)


def test_anchors_may_weigh_more() -> None:
    # 0.6 of token 1 and 0.2 each of 0 and 2; 0.6 is more than 1 / 3. A group of one is its anchor.
    groups = TokenGroups.around(torch.tensor([1, 1, 1, 3, DROPPED]), 0.6)
    assert groups.weights.tolist() == pytest.approx([0.2, 0.6, 0.2, 1.0, 0.0])
    # 0.4 is less than 1 / 2: the mean of two.
    assert TokenGroups.around(torch.tensor([0, 0]), 0.4).weights.tolist() == [0.5, 0.5]


def test_groups_are_grouped_again_by_their_anchors() -> None:
    pairs = TokenGroups.around(torch.tensor([0, 0, 2, 2, DROPPED]))
    both = pairs.then(TokenGroups.around(torch.tensor([2, DROPPED, 2, DROPPED, DROPPED]), 0.75))
    # 0.75 of the mean of 2 and 3, 0.25 of that of 0 and 1.
    assert both.anchor_of.tolist() == [2, 2, 2, 2, DROPPED]
    assert both.weights.tolist() == [0.125, 0.125, 0.375, 0.375, 0.0]
