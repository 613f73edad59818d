"""DART on its own: pivots, shares, and who is unlike them."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from divprune import get_method
from divprune.methods import DART, ItemContext
from divprune.methods.dart import pivots, shares


def at(*degrees: float) -> torch.Tensor:
    """Unit vectors (n, 2) at some angles."""
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def context(loudness: Sequence[float], text: Sequence[float] = (), text_loudness: Sequence[float] = ()) -> ItemContext:
    """Keys (2 heads, n, 1) that are as loud as told, and text at some angles."""
    return ItemContext(
        keys=torch.tensor(loudness)[None, :, None].expand(2, -1, -1) / 2,
        text_keys=torch.tensor(text_loudness)[None, :, None].expand(2, -1, -1) / 2,
        text_states=at(*text),
        final_norm=lambda states: states,
    )


def test_pivots_are_the_largest_whole_keys() -> None:
    # l1 norms over both heads: 3, 5, 4, 5.5, 1, and 5 again.
    one = torch.tensor([[1.0, -1.0], [0.0, 4.0], [2.0, 2.0], [-5.0, 0.0], [1.0, 0.0], [5.0, 0.0]])
    two = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 0.5], [0.0, 0.0], [0.0, 0.0]])
    assert pivots(torch.stack([one, two])).tolist() == [3, 1, 5, 2]


def test_shares_are_even_and_the_first_get_more() -> None:
    assert shares(20, 8) == [3, 3, 3, 3, 2, 2, 2, 2]
    assert shares(3, 8) == [1, 1, 1, 0, 0, 0, 0, 0]
    assert shares(0, 4) == [0, 0, 0, 0]


def test_each_pivot_in_turn_takes_what_is_least_like_it() -> None:
    tokens = at(0, 10, 20, 30, 180, 170, 90, 100, 200, 40)
    loud = context([9, 8, 7, 6, 1, 1, 1, 1, 1, 1])
    # The pivots are 0, 10, 20 and 30 degrees. The first takes 180 degrees, the second 200 (190 away, 170 the other way
    # round; 170 degrees is 160 away), the third 170, and the fourth 100.
    assert DART().select(tokens, 8, loud).tolist() == [0, 1, 2, 3, 4, 8, 5, 7]
    # Six: the first two take one each.
    assert DART().select(tokens, 6, loud).tolist() == [0, 1, 2, 3, 4, 8]


def test_text_pivots_take_after_the_visual_ones() -> None:
    tokens = at(0, 0, 0, 0, 180, 180, 180, 180, 90, -80, 5)
    loudness = [9.0, 8, 7, 6, 1, 1, 1, 1, 1, 1, 1]
    told = context(loudness, text=[45, 270, 90], text_loudness=[0, 3, 5])
    # Seven pivots share five tokens: each visual pivot takes one at 180 degrees; then the louder text, at 90 degrees,
    # the one at -80.
    assert DART().select(tokens, 9, told).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 9]
    other = context(loudness, text=[45, 270, 90], text_loudness=[0, 5, 3])
    assert DART().select(tokens, 9, other).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_tokens_are_compared_behind_the_last_norm() -> None:
    tokens = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.5, 0.1], [0.5, 0.2]])
    loud = context([9, 8, 7, 6, 1, 1])
    assert DART().select(tokens, 5, loud).tolist() == [0, 1, 2, 3, 5]
    # Shifted, the pivots stand at -39 degrees, and the others at -54 and -50.
    turned = replace(loud, final_norm=lambda states: states - torch.tensor([0.0, 0.8]))
    assert DART().select(tokens, 5, turned).tolist() == [0, 1, 2, 3, 4]


def test_fewer_tokens_than_pivots_are_the_loudest() -> None:
    told = context([1, 4, 2, 3], text=[0], text_loudness=[1])
    assert DART().select(at(0, 1, 2, 3), 2, told).tolist() == [1, 3]
    assert DART().select(at(0, 1), 2, context([1, 4])).tolist() == [1, 0]


def test_the_layer_is_a_parameter() -> None:
    assert get_method("dart:layer=5") == DART(layer=5)
    assert (DART().layers, DART(layer=5).layers) == ((2,), (5,))
    with pytest.raises(ValueError, match="layer must be at least 1, got 0"):
        DART(layer=0)
