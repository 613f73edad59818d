"""PACT on cases worked out by hand."""

import pytest
import torch
from torch import Tensor

from divprune.methods import ItemContext, get_method
from divprune.methods.pact import PACT
from tests.methods.test_video_methods import rows


def keyed(*degrees: float, norms: list[float]) -> tuple[Tensor, ItemContext]:
    """Hidden states of the given norms, keys of one head at these directions, and a query that likes all keys alike."""
    turned = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    keys = torch.stack([turned.cos(), turned.sin()], dim=1).unsqueeze(0)
    tokens = torch.tensor(norms, dtype=torch.float64).unsqueeze(1)
    return tokens, ItemContext(layer=4, keys=keys, visual_query=torch.zeros(2, 2, dtype=torch.float64))


def test_tokens_that_matter_are_clustered_and_near_ones_recovered() -> None:
    # int(.55 x 8) = 4 by norm, since the query has no say: 0, 2, 4 and 6, at 0, 20, 90 and 180 degrees. Cosine
    # distances .06 from 0 to 20, .66 from 20 to 90, 1 from 0 to 90 and from 90 to 180. Densities: 0: 1 + .970 + .607 +
    # .368 = 2.944; 20: .970 + 1 + .720 + .379 = 3.069; 90: .607 + .720 + 1 + .607 = 2.933; 180: 2.354. So 20 is the
    # densest, 0 joins it, and 90 and 180 are centres: three tokens. Of the dropped, 30 degrees (.015 from 20) and 120
    # (.134 from 90) are within .21; 132 (.257 from 90) within .315; 230 (.357 from 180) is not.
    tokens, context = keyed(0, 30, 20, 120, 90, 132, 180, 230, norms=[4, 1, 4, 1, 4, 1, 4, 1])
    assert PACT().adaptive_count(tokens, context) == 3
    third = pytest.approx(1 / 3)
    assert rows(PACT().merge(tokens, 3, context)) == {
        2: {0: third, 1: third, 2: third}, 4: {3: third, 4: third, 5: third}, 6: {6: 1.0}
    }  # fmt: skip
    # The caller says two: 20 degrees, and of 90 and 180, .66 and 1 from denser ones, the latter. 90 is nearest to 20.
    assert sorted(rows(PACT().merge(tokens, 2, context))[2]) == [0, 1, 2, 4]
    assert PACT().select(tokens, 2, context).tolist() == [2, 6]
    # And six: six are important, those of norm 1 with the lowest indices besides, and each is its own.
    assert PACT().select(tokens, 6, context).tolist() == [0, 1, 2, 3, 4, 6]


def test_importance_is_what_the_mean_query_attends_to_times_the_norm() -> None:
    # Two heads of the query share one of the keys. q . k / sqrt 2 of the first: 2, 0, 0; of the second: 0, 2, 0:
    # softmax .787, .107, .107 and .107, .787, .107, on average .447, .447 and .107; times norms 1, 1.1 and 4:
    # .447, .491, .426. int(.7 x 3) = 2 stay.
    keys = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]], dtype=torch.float64)
    keys = torch.cat([keys, torch.zeros(1, 3, 1, dtype=torch.float64)], dim=2)
    scale = 2 * 3**0.5
    query = torch.tensor([[scale, 0.0, 0.0], [0.0, scale, 0.0]], dtype=torch.float64)
    keys[0, 2] = torch.tensor([0.0, 0.0, 1.0])
    context = ItemContext(layer=4, keys=keys, visual_query=query)
    tokens = torch.tensor([[1.0], [1.1], [4.0]], dtype=torch.float64)
    method = PACT(important_ratio=0.7)
    assert method.adaptive_count(tokens, context) == 2
    assert method.select(tokens, 2, context).tolist() == [0, 1]
    # With a norm of 5 the third matters more: .533.
    assert method.select(torch.tensor([[1.0], [1.1], [5.0]]), 2, context).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("pact:layer=0", "layer must be at least 1, got 0"),
        ("pact:important_ratio=2", "important_ratio must be between 0 and 1, got 2"),
        ("pact:cutoff=-1", "cutoff must be between 0 and 2, got -1"),
    ],
)
def test_parameters_out_of_range_are_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_method(spec)
