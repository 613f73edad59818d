"""What holds for every registered method."""

import dataclasses

import pytest
import torch

from divprune.methods import ItemContext, available_methods, get_method
from divprune.methods.base import Method
from divprune.methods.merging import MergingMethod
from tests.methods.contexts import VIDEO, full_item, made

NAMES = [info.name for info in available_methods()]
MERGING = [name for name in NAMES if isinstance(made(name), MergingMethod)]
GRIDS = [(1, 6, 10), (3, 4, 5), (1, 1, 1), (1, 1, 2), (2, 7, 7)]
NESTED = {name for name in NAMES if made(name).is_nested}
KEEPS_SUMS = {"pooling", "downsampling", "m3", "tome", "sparsevlm", "prunevid", "vscan", "pact"}
"""Merging methods whose merged tokens are averages."""


def item(name: str, grid: tuple[int, int, int] | None = None, seed: int = 0) -> tuple[torch.Tensor, ItemContext]:
    if name in VIDEO:
        return full_item(grid or (4, 3, 5), seed, "video")
    if name == "globalcom2" and grid is not None:  # reads one grid, or a thumbnail and its tiles
        grid = (1, grid[0] * grid[1], grid[2])
    return full_item(grid or (1, 6, 10), seed, "image")


def counts(method: Method, grid: tuple[int, int, int]) -> list[int]:
    total = grid[0] * grid[1] * grid[2]
    lowest = grid[0] if method.name == "m3" else 1
    return [count for count in (*range(1, 13), 17, 29, total - 1, total) if lowest <= count <= total]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_as_many_distinct_tokens_as_asked_for(name: str, grid: tuple[int, int, int]) -> None:
    method, (tokens, context) = made(name), item(name, grid)
    for num_keep in counts(method, grid):
        picks = method.select(tokens, num_keep, context)
        assert picks.dtype == torch.int64
        assert len(picks) == num_keep or (method.count == "at_most" and 1 <= len(picks) < num_keep)
        assert len(set(picks.tolist())) == len(picks)
        assert set(picks.tolist()) <= set(range(len(tokens)))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_input_gives_the_same_picks(name: str) -> None:
    method, (tokens, context) = made(name), item(name)
    again, context_again = item(name)
    for num_keep in counts(method, (1, 6, 10)):
        assert method.select(tokens, num_keep, context).equal(method.select(again, num_keep, context_again))


@pytest.mark.parametrize("name", sorted(NESTED))
def test_greedy_picks_are_nested(name: str) -> None:
    method, (tokens, context) = made(name), item(name)
    most = method.select(tokens, 40, context)
    for num_keep in (1, 2, 7, 23):
        assert method.select(tokens, num_keep, context).equal(most[:num_keep])


@pytest.mark.parametrize("spec", ["divprune:refine=true", "divprune:distance_dtype=as-published"])
def test_parameters_may_end_the_nesting(spec: str) -> None:
    assert get_method("divprune:min_distance=0.1").is_nested
    assert not get_method(spec).is_nested


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_every_precision_is_taken(name: str, dtype: torch.dtype) -> None:
    method, (tokens, context) = made(name), item(name)
    assert len(set(method.select(tokens.to(dtype), 15, context).tolist())) == 15


@pytest.mark.parametrize("name", NAMES)
def test_equal_tokens_are_no_trouble(name: str) -> None:
    method, (tokens, context) = made(name), item(name)
    same = {
        field.name: torch.ones_like(getattr(context, field.name))
        for field in dataclasses.fields(context)
        if isinstance(getattr(context, field.name), torch.Tensor)
    }
    picks = method.select(torch.ones_like(tokens), 15, dataclasses.replace(context, **same))
    assert len(set(picks.tolist())) == 15


@pytest.mark.parametrize("name", NAMES)
def test_what_a_method_needs_is_what_it_reads(name: str) -> None:
    method, (tokens, context) = made(name), item(name)
    bare = ItemContext(modality=context.modality, grid=context.grid if name in ("uniform", "eadp") else None)
    enough = dataclasses.replace(bare, **{need: getattr(context, need) for need in method.needs})
    assert method.select(tokens, 8, enough).equal(method.select(tokens, 8, context))
    # What merging methods mix is the integration's to read, and DivPrune* reads attention only to count.
    # Either of grid and pieces is enough to pool; the picture is made coarser before.
    unread = {"patch_features"} if name in MERGING else {"vision_attention"} if name == "divprune-star" else set()
    unread |= {"grid", "pieces"} if name == "downsampling" else set()
    for need in method.needs - unread:
        with pytest.raises(ValueError, match=rf"context\.{need} must be given to method '{method.name}'"):
            method.select(tokens, 8, dataclasses.replace(enough, **{need: None}))


@pytest.mark.parametrize("name", NAMES)
def test_adaptive_counts_are_within_the_item(name: str) -> None:
    method = made(name)
    if method.count != "adaptive" and name != "divprune":
        with pytest.raises(NotImplementedError, match="give keep_ratio or num_keep"):
            method.adaptive_count(torch.zeros(60, 4), ItemContext())
        return
    for seed in range(5):
        tokens, context = item(name, seed=seed)
        count = method.adaptive_count(tokens, context)
        assert 1 <= count <= len(tokens)
        assert len(method.select(tokens, count, context)) == count


@pytest.mark.parametrize("name", NAMES)
def test_layers_ascend_and_schedules_never_grow(name: str) -> None:
    method = made(name)
    assert list(method.layers) == sorted(set(method.layers))
    assert all(layer >= 1 for layer in method.layers)
    if method.count != "schedule":
        with pytest.raises(NotImplementedError, match="give keep_ratio or num_keep"):
            method.schedule(60)
        return
    for total in (1, 2, 7, 60, 576):
        stages = method.schedule(total)
        assert tuple(stage.layer for stage in stages) == method.layers
        counts = [total, *(stage.num_keep for stage in stages), 0]
        assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", MERGING)
def test_merged_tokens_hold_their_anchor(name: str, grid: tuple[int, int, int]) -> None:
    method, (tokens, context) = made(name), item(name, grid)
    for num_keep in counts(method, grid):
        merged = method.merge(tokens, num_keep, context)
        assert merged.weights.shape == (len(merged.anchors), len(tokens))
        assert merged.anchors.equal(merged.anchors.sort().values)
        assert bool((merged.weights >= 0).all())
        assert bool((merged.weights.gather(1, merged.anchors[:, None]) > 0).all())


@pytest.mark.parametrize("name", MERGING)
def test_all_tokens_kept_stay_as_they_are(name: str) -> None:
    tokens, context = item(name)
    merged = made(name).merge(tokens, len(tokens), context)
    assert merged.tokens(tokens).equal(tokens)


@pytest.mark.parametrize("name", sorted(KEEPS_SUMS))
def test_averages_weigh_one(name: str) -> None:
    tokens, context = item(name, (1, 8, 8))
    for num_keep in (1, 4, 16, 31):
        weights = made(name).merge(tokens, num_keep, context).weights
        assert weights.sum(dim=1).allclose(torch.ones(len(weights)))
        if name == "tome" or (num_keep in (1, 4, 16) and name not in ("sparsevlm", "pact")):
            # Every token is in exactly one of them, so sums weighted by sizes are those of the tokens; SparseVLM and
            # PACT lose some.
            sizes = (weights > 0).sum(dim=1, keepdim=True).float()
            assert (sizes * weights).sum(dim=0).allclose(torch.ones(64))


def test_the_lists_above_are_complete() -> None:
    # Each of them keeps other tokens where it keeps more; every other method is tried by the test of nested picks.
    assert set(NAMES) - NESTED == {
        "uniform",
        "pooling",
        "downsampling",
        "m3",
        "tome",
        "prumerge",
        "prumerge-plus",
        "visionzip",
        "vispruner",
        "sparsevlm",
        "dart",
        "dycoke",
        "vidcom2",
        "prunevid",
        "holitom",
        "fastvid",
        "flashvid",
        "holov",
        "hiprune",
        "vscan",
        "globalcom2",
        "pact",
    }
    assert set(MERGING) - KEEPS_SUMS == {"prumerge", "prumerge-plus", "visionzip", "holitom", "fastvid", "flashvid"}
