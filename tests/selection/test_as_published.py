"""The published procedure's arithmetic: what it rounds, which candidates it leaves, and where it parts from ours."""

import math

import pytest
import torch
from torch import Tensor

from divprune.selection import select
from divprune.selection.as_published import as_published_picks
from tests.selection.cases import tokens
from tests.selection.equality import wrong_pick


def rounded(number: float, dtype: torch.dtype) -> float:
    return float(torch.tensor(number, dtype=torch.float64).to(dtype))


def slow_picks(rows: list[list[float]], num_keep: int, dtype: torch.dtype) -> list[int]:
    """Every length, component, product and distance rounded once to `dtype`; all else in Python's float64."""
    unit = []
    for row in rows:
        length = rounded(math.sqrt(sum(number * number for number in row)), dtype)
        unit.append([rounded(number / length, dtype) if length else 0.0 for number in row])
    distance = [
        [rounded(1 - rounded(sum(a * b for a, b in zip(one, other, strict=True)), dtype), dtype) for other in unit]
        for one in unit
    ]
    everyone = range(len(rows))
    nearest_other = [min((distance[i][j] for j in everyone if j != i), default=math.inf) for i in everyone]
    picks = [max(everyone, key=nearest_other.__getitem__)]
    while len(picks) < num_keep:
        farthest = max(everyone, key=[min(distance[kept][j] for kept in picks) for j in everyone].__getitem__)
        if farthest in picks:
            break
        picks.append(farthest)
    return picks


NEAR_COPIES = torch.tensor([[1.0, 1 / 64], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
"""Worked out by hand. Token 0 has length 1.00012, token 1 has length 1.

Exactly, tokens 0 and 1 are 0.00012 apart, and from token 3 they are 1.99988 and 2. Nearest others: 0.00012, 0.00012,
0.98438 (token 2 to 0), 1 (token 3 to 2). Token 3 is first, then 1 (2), then 2 (1), then 0 (0.00012).

In float16 numbers just above 1 are 0.00098 apart: token 0 has length 1 and is (1, 1/64), so tokens 0 and 1 are at
distance 0 and both are at 2 from token 3. Token 3 is first, then 0, the lowest index of the two, then 2 (63/64). Then
all are at 0 from a kept token, also the kept ones: 0 would be taken again.
"""


@pytest.mark.parametrize(("num_keep", "expected"), [(1, [3]), (2, [3, 0]), (3, [3, 0, 2]), (4, [3, 0, 2])])
def test_float16_cannot_tell_near_copies_apart(num_keep: int, expected: list[int]) -> None:
    assert as_published_picks(NEAR_COPIES.half(), num_keep).tolist() == expected
    assert as_published_picks(NEAR_COPIES, num_keep).tolist() == [3, 1, 2, 0][:num_keep]
    assert select(NEAR_COPIES.half(), num_keep=num_keep).selection_order.tolist() == [3, 1, 2, 0][:num_keep]


def test_copies_end_the_picks() -> None:
    rows = torch.eye(4, dtype=torch.float64)[[0, 1, 0, 1, 2]]
    assert as_published_picks(rows, 5).tolist() == [4, 0, 1]
    assert select(rows, num_keep=5).selection_order.tolist() == [4, 0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("seed", range(25))
def test_half_types_equal_the_slow_procedure(dtype: torch.dtype, seed: int) -> None:
    """With components of -1, 0 and 1 sums of products are exact in float32, in which any machine adds them up."""
    rows = torch.randint(-1, 2, (40, 4), generator=torch.Generator().manual_seed(seed)).to(dtype)
    for num_keep in (1, 2, 9, 40):
        assert as_published_picks(rows, num_keep).tolist() == slow_picks(rows.tolist(), num_keep, dtype)


@pytest.mark.parametrize("kind", ["gaussian", "offset", "near_constant"])
@pytest.mark.parametrize("seed", range(30))
def test_full_precision_gives_the_default_set(kind: str, seed: int) -> None:
    rows = tokens(kind, 60, 16, seed)
    exact = as_published_picks(rows.double(), 20)
    assert exact.equal(select(rows.double(), num_keep=20).selection_order)
    assert wrong_pick(rows, as_published_picks(rows, 20).tolist()) is None


def test_half_types_give_another_set() -> None:
    def differs(seed: int, dtype: torch.dtype) -> bool:
        rows = tokens("gaussian", 576, 64, seed).to(dtype)
        picks = as_published_picks(rows, 56)
        return not picks.sort().values.equal(select(rows, num_keep=56).kept_indices)

    assert any(differs(seed, torch.float16) for seed in range(20))
    assert sum(differs(seed, torch.bfloat16) for seed in range(20)) > 10


def test_zero_vectors_are_far_from_everything_and_one_token_is_kept() -> None:
    rows: Tensor = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]).half()
    assert as_published_picks(rows, 2).tolist() == [1, 0]
    assert as_published_picks(rows[:1], 1).tolist() == [0]


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, 6e4])
def test_what_float16_cannot_hold_is_refused(wrong: float) -> None:
    rows = torch.ones(3, 2).half()
    rows[1] = wrong
    with pytest.raises(ValueError, match=r"must be finite, with lengths within the range of torch.float16, .* \[1\]"):
        as_published_picks(rows, 2)
