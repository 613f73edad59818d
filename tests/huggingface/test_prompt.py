"""Shortening and restoring prompts, on generated cases against plain Python lists."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from divprune.huggingface.gather_tokens import (
    PADDING,
    compact_positions,
    gather_index_of,
    gather_tokens,
    reorder_tokens,
    restore_sequences,
)

Rows = list[tuple[int, list[bool]]]


@st.composite
def padded_rows(draw: st.DrawFn) -> tuple[list[list[bool]], int]:
    """Rows of "does this token stay", each with at least one that does, and the length they are padded to."""
    count = draw(st.integers(1, 4))
    rows = [draw(st.lists(st.booleans(), min_size=1, max_size=12)) for _ in range(count)]
    for row in rows:
        row[draw(st.integers(0, len(row) - 1))] = True
    return rows, max(map(len, rows)) + draw(st.integers(0, 3))


def batch(rows: list[list[bool]], length: int, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    keep, mask = torch.ones(len(rows), length, dtype=torch.bool), torch.zeros(len(rows), length, dtype=torch.int64)
    for number, row in enumerate(rows):
        start = length - len(row) if left else 0
        keep[number, start : start + len(row)] = torch.tensor(row)
        mask[number, start : start + len(row)] = 1
    return keep, mask


@given(padded_rows(), st.booleans())
def test_each_row_keeps_its_tokens_in_order_and_its_side(case: tuple[list[list[bool]], int], left: bool) -> None:
    rows, length = case
    keep, mask = batch(rows, length, left)
    gather_index = gather_index_of(keep, mask)
    if keep.all():
        assert gather_index.tolist() == [list(range(length))] * len(rows)
        return
    longest = max(sum(row) for row in rows)
    assert gather_index.shape == (len(rows), longest)
    padded_right = bool((mask[:, -1] == 0).any())
    for number, row in enumerate(rows):
        start = length - len(row) if left else 0
        columns = [start + index for index, stays in enumerate(row) if stays]
        padding = [PADDING] * (longest - len(columns))
        assert gather_index[number].tolist() == (columns + padding if padded_right else padding + columns)


@given(padded_rows())
def test_every_per_token_tensor_is_taken_alike(case: tuple[list[list[bool]], int]) -> None:
    rows, length = case
    keep, mask = batch(rows, length, True)
    gather_index = gather_index_of(keep, mask)
    ids = torch.arange(keep.numel()).view_as(keep) + 100
    taken = gather_tokens(ids, gather_index, -7)
    for number in range(len(rows)):
        expected = [int(ids[number, column]) if column != PADDING else -7 for column in gather_index[number].tolist()]
        assert taken[number].tolist() == expected
    stacked = gather_tokens(torch.stack([ids, ids + 1]), gather_index, -7)
    assert torch.equal(stacked[0], taken)
    assert torch.equal(stacked[1][gather_index >= 0], taken[gather_index >= 0] + 1)
    shared = gather_tokens(torch.arange(length)[None], gather_index, PADDING)
    assert torch.equal(shared, gather_index)


def test_reordering_touches_only_the_items_slots() -> None:
    gather_index = torch.tensor([[-1, 0, 3, 5, 8], [0, 1, 2, 3, 4]])
    moved = reorder_tokens(gather_index, 0, torch.tensor([3, 5, 8]), torch.tensor([8, 3, 5]))
    assert moved.tolist() == [[-1, 0, 8, 3, 5], [0, 1, 2, 3, 4]]
    assert gather_index[0].tolist() == [-1, 0, 3, 5, 8]


def test_compact_positions_skip_padding() -> None:
    assert compact_positions(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])).tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]


def test_restored_sequences_repeat_the_prompt_for_each_return() -> None:
    sequences = torch.tensor([[0, 5, 91], [0, 5, 92], [6, 7, 93], [6, 7, 94]])
    restored = restore_sequences(sequences, torch.tensor([[0, 1, 5], [6, 9, 7]]), pruned_length=2)
    assert restored.tolist() == [[0, 1, 5, 91], [0, 1, 5, 92], [6, 9, 7, 93], [6, 9, 7, 94]]
