"""The bfloat16 filter, sent its way on any processor: near to the exact distances, worth its price, never a result."""

import pytest
import torch
from torch import Tensor

from divprune.selection import approximate_distances
from divprune.selection.approximate_distances import RoughDistances
from divprune.selection.distances import ALL, Distances
from divprune.selection.lazy import LazyGreedy
from tests.selection.cases import KINDS, tokens
from tests.selection.equality import wrong_pick

# A zero vector is at distance 1 from everything, which no difference of vectors tells.
TOLD = [kind for kind in KINDS if kind != "zero_rows"]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate_distances, "multiplies_bfloat16", lambda device: True)


@pytest.mark.parametrize("kind", TOLD)
@pytest.mark.parametrize(("total", "width"), [(40, 8), (300, 64), (900, 33)])
def test_nearness_is_the_exact_distance_but_for_rounding(kind: str, total: int, width: int) -> None:
    distances = Distances(tokens(kind, total, width, total), "cosine")
    rough, rows = RoughDistances(distances), torch.arange(0, total, 3)
    _, square = distances.centred_unit_tokens(torch.float32)
    # Each number and each sum is rounded once to 8 digits; none is larger than these lengths make it.
    length = square.sqrt()
    largest = (length[rows, None] + length).square() + square.mean()
    assert rough.nearness(rows, ALL).dtype == torch.bfloat16
    error = (rough.nearness(rows, ALL).float() - (rough.origin - distances.block(rows, ALL))).abs()
    # Float32 rounds the exact distances of unit vectors.
    assert (error <= torch.finfo(torch.bfloat16).eps * largest + 4 * torch.finfo(torch.float32).eps).all()


def test_without_the_instructions_or_the_metric_nearness_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.arange(40)
    for metric, fast in (("l1", True), ("l2", True), ("cosine", False)):
        monkeypatch.setattr(approximate_distances, "multiplies_bfloat16", lambda device, able=fast: able)
        distances = Distances(tokens("gaussian", 40, 8, 0), metric)
        assert RoughDistances(distances).nearness(rows, ALL).equal(-distances.block(rows, ALL))


class Counted(Distances):
    """Counts the distances that were computed at full precision."""

    computed = 0

    def block(self, rows: Tensor | slice, columns: Tensor | slice) -> Tensor:
        block = super().block(rows, columns)
        self.computed += block.numel()
        return block

    def pairs(self, first: Tensor, second: Tensor) -> Tensor:
        self.computed += len(first)
        return super().pairs(first, second)


def computed(rows: Tensor) -> int:
    """How many distances it took to pick a tenth of the tokens, which are the right ones."""
    distances = Counted(rows, "cosine")
    greedy = LazyGreedy(distances)
    greedy.run(len(rows) // 10)
    assert wrong_pick(rows, greedy.picks) is None
    return distances.computed


@pytest.mark.parametrize("kind", ["gaussian", "offset", "duplicates", "near_constant"])
def test_a_broken_filter_costs_distances_and_no_pick(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, draw, nearness = tokens(kind, 1200, 32, 1), torch.Generator().manual_seed(0), RoughDistances.nearness
    usual = computed(rows)
    for broken in (
        lambda self, rows, columns: -nearness(self, rows, columns),
        lambda self, rows, columns: torch.randn(nearness(self, rows, columns).shape, generator=draw),
        lambda self, rows, columns: torch.full_like(nearness(self, rows, columns), -torch.inf),
    ):
        monkeypatch.setattr(RoughDistances, "nearness", broken)
        # Where many tokens are about equal, no filter helps.
        assert computed(rows) > 2 * usual or kind not in ("gaussian", "offset")
