"""What holds for every registered method that acts inside the LLM only."""

import dataclasses

import pytest
import torch
from torch import Tensor

from divprune.methods import FitPrune, FitPruneRecipe, ItemContext, Method, available_methods, get_method
from tests.methods.contexts import full_item, noise

CALIBRATED: dict[str, Method] = {"fitprune": FitPrune(FitPruneRecipe((20, 10, 0, 5), 60))}
"""Methods that cannot do without parameters."""
NAMES = [info.name for info in available_methods() if info.acts.startswith("inside")]


def made(name: str) -> Method:
    return CALIBRATED.get(name) or get_method(name)


NESTED = {name for name in NAMES if made(name).is_nested}


def entering(method: Method, grid: tuple[int, int, int] = (1, 6, 10), seed: int = 0) -> tuple[Tensor, ItemContext]:
    """Tokens before the first layer that drops, and all there is to know about them."""
    tokens, context = full_item(grid, seed)
    total = len(tokens)
    attention = noise(4, 5, total, seed=seed + 11).softmax(dim=-1)
    heard = {
        "attention": attention[:, -1],
        "text_attention": attention,
        "visual_attention": noise(4, total, seed=seed + 12).softmax(dim=-1),
        "visual_peak_attention": noise(total, seed=seed + 16).softmax(dim=-1),
        "keys": noise(2, total, 4, seed=seed + 13),
        "text_keys": noise(2, 5, 4, seed=seed + 14),
        "text_states": noise(5, 8, seed=seed + 15),
        "input_tokens": tokens,
        "final_norm": torch.nn.Identity(),
    }
    return tokens, dataclasses.replace(context, layer=method.layers[0], **heard)  # type: ignore[arg-type]


@pytest.mark.parametrize("grid", [(1, 6, 10), (3, 4, 5), (1, 1, 1), (1, 1, 2), (2, 7, 7)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_as_many_distinct_tokens_as_asked_for(name: str, grid: tuple[int, int, int]) -> None:
    method = made(name)
    tokens, context = entering(method, grid)
    for num_keep in {1, 2, 3, 17, len(tokens) - 1, len(tokens)} & set(range(1, len(tokens) + 1)):
        picks = method.select(tokens, num_keep, context)
        assert picks.dtype == torch.int64
        assert len(picks) == len(set(picks.tolist())) == num_keep
        assert set(picks.tolist()) <= set(range(len(tokens)))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_input_gives_the_same_picks_in_every_precision(name: str) -> None:
    method = made(name)
    tokens, context = entering(method)
    again, context_again = entering(method)
    assert method.select(tokens, 15, context).equal(method.select(again, 15, context_again))
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        assert len(set(method.select(tokens.to(dtype), 15, context).tolist())) == 15


@pytest.mark.parametrize("name", sorted(NESTED))
def test_picks_are_nested(name: str) -> None:
    method = made(name)
    tokens, context = entering(method)
    most = method.select(tokens, 40, context)
    for num_keep in (1, 2, 7, 23):
        assert method.select(tokens, num_keep, context).equal(most[:num_keep])


@pytest.mark.parametrize("name", sorted({"fastv", "pyramiddrop", "fitprune"} & set(NAMES)))
def test_ties_go_to_the_lowest_index(name: str) -> None:
    method = made(name)
    tokens, context = entering(method)
    same = {
        field.name: torch.ones_like(getattr(context, field.name))
        for field in dataclasses.fields(context)
        if isinstance(getattr(context, field.name), Tensor)
    }
    picks = method.select(tokens, 15, dataclasses.replace(context, **same))
    assert picks.tolist() == list(range(15))


@pytest.mark.parametrize("name", NAMES)
def test_what_a_method_needs_is_what_it_reads(name: str) -> None:
    method = made(name)
    tokens, context = entering(method)
    enough = ItemContext(layer=context.layer, **{need: getattr(context, need) for need in method.needs})  # type: ignore[arg-type]
    assert method.select(tokens, 8, enough).equal(method.select(tokens, 8, context))


@pytest.mark.parametrize("name", NAMES)
def test_layers_ascend_and_schedules_never_grow(name: str) -> None:
    method = made(name)
    assert list(method.layers) == sorted(set(method.layers))
    assert method.layers[0] >= 1
    if method.count != "schedule":
        return
    for total in (1, 2, 7, 60, 576):
        stages = method.schedule(total)
        assert tuple(stage.layer for stage in stages) == method.layers
        counts = [total, *(stage.num_keep for stage in stages), 0]
        assert counts == sorted(counts, reverse=True)
