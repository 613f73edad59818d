"""FastV and VTW on their own, and what a method says about where it acts."""

import pytest
import torch

from divprune import VTW, DivPrune, FastV, RandomTokens, get_method
from divprune.methods import ItemContext, available_methods


def test_fastv_keeps_the_most_attended_in_the_mean_over_heads() -> None:
    attention = torch.tensor([[0.1, 0.4, 0.0, 0.2], [0.3, 0.0, 0.3, 0.2]])  # mean .2 .2 .15 .2
    context = ItemContext(layer=2, attention=attention)
    tokens = torch.zeros(4, 3)
    assert FastV().select(tokens, 2, context).tolist() == [0, 1]
    assert FastV().select(tokens, 4, context).tolist() == [0, 1, 3, 2]
    with pytest.raises(ValueError, match=r"context\.attention must be given"):
        FastV().select(tokens, 2, ItemContext())


def test_vtw_keeps_nothing() -> None:
    method = VTW(layer=3)
    assert method.schedule(576) == ((3, 0),)
    assert method.select(torch.zeros(4, 3), 0, ItemContext()).tolist() == []


def test_methods_say_where_they_act() -> None:
    assert (DivPrune().layers, DivPrune(layer=3).layers, RandomTokens().layers) == ((), (3,), ())
    assert (FastV().layers, VTW().layers, VTW(layer=4).layers) == ((2,), (15,), (4,))
    assert get_method("fastv:layer=3") == FastV(layer=3)
    with pytest.raises(NotImplementedError, match="'divprune' has no schedule"):
        DivPrune().schedule(4)


def test_papers_are_named() -> None:
    papers = {info.name: info.paper for info in available_methods()}
    assert "2403.06764" in papers["fastv"].url
    assert "2405.05803" in papers["vtw"].url
