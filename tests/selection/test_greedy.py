"""The shared greedy loop and its objectives, each against the rule written out in full."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from divprune.selection.distances import cosine_similarities, unit_range
from divprune.selection.greedy import Objective, greedy_picks
from divprune.selection.objectives import (
    Balanced,
    Closeness,
    Constant,
    Coverage,
    Determinant,
    Relevance,
    Suppression,
)

M, K = 13, 8


def tokens(seed: int, total: int = M, width: int = 20) -> Tensor:
    return torch.randn(total, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scores(seed: int, total: int = M) -> Tensor:
    return torch.rand(total, generator=torch.Generator().manual_seed(100 + seed), dtype=torch.float64)


def similarity(seed: int) -> Tensor:
    rows = tokens(seed)
    rows = rows / rows.norm(dim=1, keepdim=True)
    return rows @ rows.T


def slow_picks(gain: Callable[[list[int], int], float], count: int = K, total: int = M) -> list[int]:
    """argmax of the gain of each token, given the list of those chosen; nothing is kept from step to step."""
    chosen: list[int] = []
    while len(chosen) < count:
        chosen.append(max((token for token in range(total) if token not in chosen), key=lambda t: gain(chosen, t)))
    return chosen


def determinant(seed: int) -> tuple[Objective, list[int]]:
    kernel = similarity(seed) * scores(seed)[:, None] * scores(seed)
    slow = slow_picks(lambda chosen, token: float(torch.linalg.det(kernel[[*chosen, token]][:, [*chosen, token]])))
    return Determinant(kernel[None], K), slow


def coverage(seed: int) -> tuple[Objective, list[int]]:
    cover, scale = similarity(seed), scores(seed)

    def gain(chosen: list[int], token: int) -> float:
        total = 0.0
        for row in range(M):
            best = max([float(cover[row, s]) for s in chosen], default=0.0)
            total += max(0.0, float(cover[row, token]) - max(0.0, best))
        return float(scale[token]) * total

    return Coverage(cover[None], scale[None]), slow_picks(gain)


def relevance(seed: int) -> tuple[Objective, list[int]]:
    near, worth = similarity(seed), scores(seed)

    def gain(chosen: list[int], token: int) -> float:
        return 0.3 * float(worth[token]) - 0.7 * max([float(near[token, s]) for s in chosen], default=0.0)

    return Relevance(worth[None], near[None], 0.3), slow_picks(gain)


def suppression(seed: int) -> tuple[Objective, list[int]]:
    near, first = (-5 * (1 - similarity(seed)) ** 2).exp(), scores(seed).tolist()
    left, picks = dict(enumerate(first)), []
    while len(picks) < K:
        pick = max(left, key=lambda token: (left[token], first[token]))
        score = left.pop(pick)
        picks.append(pick)
        left = {token: max(0.0, value - float(near[pick, token]) * score) for token, value in left.items()}
    return Suppression(scores(seed)[None], near[None]), picks


def closeness(seed: int) -> tuple[Objective, list[int]]:
    distance = 1 - similarity(seed)

    def gain(chosen: list[int], token: int) -> float:
        others = chosen or [other for other in range(M) if other != token]
        values = [float(distance[token, other]) for other in others]
        return -(max(values) if chosen else min(values))

    return Closeness(distance[None]), slow_picks(gain)


OBJECTIVES = [determinant, coverage, relevance, suppression, closeness]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("seed", range(8))
def test_picks_are_those_of_the_rule_written_out(
    objective: Callable[[int], tuple[Objective, list[int]]], seed: int
) -> None:
    fast, slow = objective(seed)
    assert greedy_picks(fast, K)[0].tolist() == slow


def test_a_sum_of_objectives_scales_each_over_the_tokens_left() -> None:
    for seed in range(5):
        near, worth = similarity(seed), scores(seed)

        def scaled(values: dict[int, float]) -> dict[int, float]:
            low, high = min(values.values()), max(values.values())
            return {token: (value - low) / (high - low) if high > low else 0.0 for token, value in values.items()}

        chosen = [int(worth.argmax())]
        while len(chosen) < M:
            left = [token for token in range(M) if token not in chosen]
            best = {row: max(0.0, *(float(near[row, s]) for s in chosen)) for row in range(M)}
            relevant = scaled({token: float(worth[token]) for token in left})
            covers = scaled(
                {token: sum(max(0.0, float(near[row, token]) - best[row]) for row in range(M)) for token in left}
            )
            differs = scaled({token: 1 - max(float(near[token, s]) for s in chosen) for token in left})
            chosen.append(max(left, key=lambda t: relevant[t] + 2 * covers[t] + 0.5 * differs[t]))
        redundancy = Relevance(torch.zeros(1, M, dtype=torch.float64), near[None], 0.0)
        terms = (1.0, Constant(worth[None])), (2.0, Coverage(near[None])), (0.5, redundancy)
        assert greedy_picks(Balanced(*terms), M, first=worth.argmax()[None])[0].tolist() == chosen


def test_a_batch_gives_the_picks_of_its_sets() -> None:
    near = torch.stack([similarity(seed) for seed in range(4)])
    worth = torch.stack([scores(seed) for seed in range(4)])
    for make in (
        lambda rows: Determinant(near[rows], K),
        lambda rows: Coverage(near[rows], worth[rows]),
        lambda rows: Relevance(worth[rows], near[rows], 0.5),
        lambda rows: Suppression(worth[rows], near[rows].abs()),
        lambda rows: Closeness(1 - near[rows]),
        lambda rows: Balanced((1.0, Constant(worth[rows])), (1.0, Coverage(near[rows]))),
    ):
        whole = greedy_picks(make(slice(0, 4)), K)
        assert whole.tolist() == [greedy_picks(make(slice(row, row + 1)), K)[0].tolist() for row in range(4)]
        assert whole[:, :3].equal(greedy_picks(make(slice(0, 4)), 3))


def test_ties_go_to_the_lowest_index_and_nothing_is_picked_twice() -> None:
    same = torch.ones(1, 5, 5)
    for objective in (Determinant(same, 5), Determinant(0 * same, 5), Coverage(same), Closeness(0 * same)):
        assert greedy_picks(objective, 5)[0].tolist() == [0, 1, 2, 3, 4]
    assert greedy_picks(Relevance(torch.ones(1, 1), torch.ones(1, 1, 1), 0.5), 1).tolist() == [[0]]


def test_determinants_keep_their_rank() -> None:
    rows = tokens(0, total=40, width=6)
    kernel = rows @ rows.T
    picks = greedy_picks(Determinant(kernel[None], 40), 40)[0]
    assert sorted(picks.tolist()) == list(range(40))
    assert torch.linalg.matrix_rank(kernel[picks[:6]][:, picks[:6]]) == 6


@pytest.mark.parametrize("num_keep", [0, 6])
def test_a_count_out_of_range_is_refused(num_keep: int) -> None:
    with pytest.raises(
        ValueError, match=f"num_keep must be between 1 and the number of visual tokens, 5, got {num_keep}"
    ):
        greedy_picks(Coverage(torch.ones(1, 5, 5)), num_keep)


def test_similarities_are_the_products_themselves() -> None:
    # (1, 0) . (2^-30, 1) = 2^-30 exactly: the second is 1 long to the last bit. 1 - (1 - 2^-30) is 0 in float32.
    rows = torch.tensor([[1.0, 0.0], [2.0**-30, 1.0], [0.0, 0.0]])
    assert cosine_similarities(rows[None])[0].tolist() == [[1.0, 2.0**-30, 0.0], [2.0**-30, 1.0, 0.0], [0.0, 0.0, 0.0]]


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="must be finite"):
        greedy_picks(Constant(torch.tensor([[0.0, torch.nan]])), 1)
    with pytest.raises(ValueError, match="must be finite"):
        cosine_similarities(torch.full((1, 3, 2), torch.inf))


def test_scores_are_scaled_to_the_unit_range() -> None:
    assert unit_range(torch.tensor([[2.0, 4.0, 3.0], [1.0, 1.0, 1.0]])).tolist() == [[0, 1, 0.5], [0, 0, 0]]
