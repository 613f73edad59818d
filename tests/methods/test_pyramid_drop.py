"""PyramidDrop on its own: its stages and its ranking."""

import pytest
import torch

from divprune import get_method
from divprune.methods import ItemContext, PyramidDrop


def test_the_defaults_are_the_papers() -> None:
    assert PyramidDrop().layers == (8, 16, 24)
    assert PyramidDrop().schedule(576) == ((8, 288), (16, 144), (24, 72))
    # Layer 8 itself says which of its tokens go, then 16 and 24.
    assert PyramidDrop.decoder_layer == "entering"


def test_counts_are_shares_of_all_tokens_rounded_down_and_never_zero() -> None:
    assert PyramidDrop(stage_ratio=0.3).schedule(101) == ((8, 30), (16, 9), (24, 2))
    assert [stage.num_keep for stage in PyramidDrop().schedule(3)] == [1, 1, 1]


def test_layers_follow_the_parameters() -> None:
    method = get_method("pyramiddrop:first_layer=2,layers_per_stage=3,num_drops=2,stage_ratio=0.25")
    assert method == PyramidDrop(first_layer=2, layers_per_stage=3, num_drops=2, stage_ratio=0.25)
    assert method.schedule(64) == ((2, 16), (5, 4))
    assert method.layers == (2, 5)


def test_the_most_attended_stay_in_the_mean_over_heads() -> None:
    attention = torch.tensor([[0.1, 0.4, 0.0, 0.2], [0.3, 0.0, 0.3, 0.2]])  # mean .2 .2 .15 .2
    context = ItemContext(layer=8, attention=attention)
    assert PyramidDrop().select(torch.zeros(4, 3), 3, context).tolist() == [0, 1, 3]
    with pytest.raises(ValueError, match=r"context\.attention must be given"):
        PyramidDrop().select(torch.zeros(4, 3), 2, ItemContext())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"first_layer": 0}, "first_layer must be at least 1, got 0"),
        ({"layers_per_stage": 0}, "layers_per_stage must be at least 1, got 0"),
        ({"num_drops": 0}, "num_drops must be at least 1, got 0"),
        ({"stage_ratio": 1.0}, r"stage_ratio must be in \(0, 1\), got 1.0"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PyramidDrop(**parameters)  # type: ignore[arg-type]
