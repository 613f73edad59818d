"""`encoder="pixel-dedup"` from pixels to answer: equal to an encoder, a prompt and an LLM put together by hand."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune import attach, prune
from divprune.budget import budget
from divprune.encoder_options import PixelDedup
from divprune.errors import UnsupportedModelError
from divprune.huggingface.encoding.pixel_dedup import DEDUPLICATED
from divprune.selection.reference import reference_select
from tests.support.float64 import is_different, is_rounding
from tests.support.greedy_calls import generate_logits
from tests.support.handmade import Item, KeepRule, short_row
from tests.support.handmade_logits import greedy_logits
from tests.support.handmade_tower import redundant_by_hand, tower_by_hand
from tests.support.models.every_family import CASES, built, make_inputs
from tests.support.subject import MIXED, ONE_AND_TWO, ONE_AND_TWO_VIDEOS, WITH_TEXT_ONLY

THREE = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
ROWS = {"image": ONE_AND_TWO, "video": ONE_AND_TWO_VIDEOS}
PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}
WINDOW = 4


def with_repeats(inputs: dict[str, Any], noise: float = 0.0) -> dict[str, Any]:
    """The same batch with units of two colours."""
    generator = torch.Generator().manual_seed(3)
    for name in PIXELS.values():
        if name in inputs:
            palette = inputs[name][:8].clone().unflatten(0, (2, 4))
            drawn = torch.randint(0, 2, (len(inputs[name]) // 4,), generator=generator)
            pixels = palette[drawn].flatten(0, 1)
            inputs[name] = pixels + torch.empty_like(pixels).uniform_(-noise, noise, generator=generator)
    return inputs


def items_by_hand(
    name: str, model: PreTrainedModel, kind: str, inputs: dict[str, Any], tolerance: float = 0.0
) -> tuple[list[Item], list[list[int]]]:
    """Each image or video, a copy in place of what is not encoded, and which of its tokens are."""
    tower: Any = model.base_model.visual
    pixels, grids = inputs[PIXELS[kind]], inputs[f"{kind}_grid_thw"]
    in_units = [(frames, rows // 2, columns // 2) for frames, rows, columns in grids.tolist()]
    side = WINDOW if hasattr(tower, "window_size") else None
    instead = redundant_by_hand(pixels.unflatten(0, (-1, 4)).flatten(1), in_units, side, tolerance)
    left = sorted(set(instead))
    with torch.no_grad():
        tokens, deep = tower_by_hand(tower, pixels, grids, left)
    rows = [left.index(unit) for unit in instead]
    items, encoded, start = [], [], 0
    for index, (frames, height, width) in enumerate(in_units):
        end = start + frames * height * width
        cells = CASES[name].cells
        stretches = None if cells is None else cells(kind, inputs, index)
        items.append(Item(tokens[rows[start:end]], [each[rows[start:end]] for each in deep], stretches, index))
        encoded.append([unit - start for unit in left if start <= unit < end])
        start = end
    return items, encoded


def divprune_of(items: list[Item], encoded: list[list[int]], keep_ratio: float) -> KeepRule:
    """Algorithm 1 on the tokens that were encoded; the budget is a fraction of them."""
    left = {item.tokens.data_ptr(): torch.tensor(own) for item, own in zip(items, encoded, strict=True)}

    def keep(tokens: Tensor) -> Tensor:
        own = left[tokens.data_ptr()]
        return own[reference_select(tokens[own], budget(len(own), keep_ratio=keep_ratio))].sort().values

    return keep


def error_by_hand(
    name: str, model: PreTrainedModel, kind: str, inputs: dict[str, Any], found: Any, keep: KeepRule, items: list[Item]
) -> float:
    tokens, logits = found
    queues = {kind: [replace(item, columns=[], places=[]) for item in items]}
    expected = []
    for row in range(len(tokens)):
        short = short_row(CASES[name], model, inputs, row, queues, keep, None)
        expected.append(greedy_logits(CASES[name], model, short, tokens[row]))
    return float((torch.stack(expected) - logits).abs().max())


@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize("name", DEDUPLICATED)
def test_answers_are_those_of_the_tokens_that_were_encoded(name: str, kind: str) -> None:
    model = built(name)
    if kind not in CASES[name].kinds:
        pytest.skip(f"this transformers gives {name} no {kind}s")
    inputs = with_repeats(make_inputs(CASES[name], model, ROWS[kind]))
    items, encoded = items_by_hand(name, model, kind, inputs)
    with prune(model, "divprune", keep_ratio=0.25, encoder="pixel-dedup") as pruning:
        found = generate_logits(model, inputs)
    keep = divprune_of(items, encoded, 0.25)
    assert is_rounding(error_by_hand(name, model, kind, inputs, found, keep, items))
    for report, item, own in zip(pruning.last.items, items, encoded, strict=True):
        assert (report.num_visual_tokens, report.num_encoded) == (len(item.tokens), len(own))
        assert len(own) < len(item.tokens)
        # Indices are of the full grid.
        assert report.kept_indices.tolist() == keep(item.tokens).tolist()

    def all_first(tokens: Tensor) -> Tensor:
        return torch.arange(len(keep(tokens)))

    assert is_different(error_by_hand(name, model, kind, inputs, found, all_first, items))


@pytest.mark.parametrize("name", THREE)
def test_a_tolerance_is_handed_on(name: str) -> None:
    model = built(name)
    inputs = with_repeats(make_inputs(CASES[name], model, ONE_AND_TWO), noise=0.005)
    items, encoded = items_by_hand(name, model, "image", inputs, tolerance=0.02)
    with prune(model, "divprune", keep_ratio=0.5, encoder="pixel-dedup:tolerance=0.02") as pruning:
        found = generate_logits(model, inputs)
    assert [item.num_encoded for item in pruning.last.items] == [len(own) for own in encoded]
    keep = divprune_of(items, encoded, 0.5)
    assert is_rounding(error_by_hand(name, model, "image", inputs, found, keep, items))
    with prune(model, "divprune", keep_ratio=0.5, encoder=PixelDedup()) as pruning:
        generate_logits(model, inputs)
    assert all(item.num_encoded == item.num_visual_tokens for item in pruning.last.items)


@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize("name", THREE)
def test_where_nothing_repeats_answers_are_those_without_the_option(name: str, kind: str) -> None:
    model = built(name)
    inputs = make_inputs(CASES[name], model, ROWS[kind])
    with prune(model, "divprune", keep_ratio=0.25):
        expected = generate_logits(model, inputs)
    with prune(model, "divprune", keep_ratio=0.25, encoder="pixel-dedup"):
        found = generate_logits(model, inputs)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("name", THREE)
def test_images_and_videos_in_one_call_are_told_apart(name: str) -> None:
    model = built(name)
    inputs = with_repeats(make_inputs(CASES[name], model, MIXED))
    with prune(model, "divprune", keep_ratio=0.5, encoder="pixel-dedup") as pruning:
        model.generate(**inputs, max_new_tokens=2)
    for kind in ("image", "video"):
        _, encoded = items_by_hand(name, model, kind, inputs)
        own = [item for item in pruning.last.items if item.modality == kind]
        assert [item.num_encoded for item in own] == [len(each) for each in encoded]
        for item, each in zip(own, encoded, strict=True):
            assert item.num_kept == budget(len(each), keep_ratio=0.5)
            assert set(item.kept_indices.tolist()) <= set(each)


@pytest.mark.parametrize("scope", ["item", "sample", "frame"])
def test_ratios_are_of_what_is_left(scope: Any) -> None:
    model = built("qwen2_vl")
    inputs = with_repeats(make_inputs(CASES["qwen2_vl"], model, ONE_AND_TWO_VIDEOS))
    with prune(model, "divprune", keep_ratio=1.0, encoder="pixel-dedup", scope=scope) as pruning:
        model.generate(**inputs, max_new_tokens=1)
    _, encoded = items_by_hand("qwen2_vl", model, "video", inputs)
    assert [item.kept_indices.tolist() for item in pruning.last.items] == encoded


@pytest.mark.parametrize(
    "method", ["random", "uniform", "norm", "minmax", "visionzip", "vispruner", "scope", "prumerge"]
)
@pytest.mark.parametrize("name", THREE)
def test_any_method_before_the_llm_selects_from_what_is_left(name: str, method: str) -> None:
    model = built(name)
    inputs = with_repeats(make_inputs(CASES[name], model, ONE_AND_TWO))
    with prune(model, method, num_keep=4, encoder="pixel-dedup") as pruning:
        model.generate(**inputs, max_new_tokens=2)
    _, encoded = items_by_hand(name, model, "image", inputs)
    for item, own in zip(pruning.last.items, encoded, strict=True):
        assert item.num_kept == 4
        assert set(item.kept_indices.tolist()) <= set(own)


def test_rows_of_text_alone_and_several_turns_work() -> None:
    model = built("qwen2_5_vl")
    inputs = with_repeats(make_inputs(CASES["qwen2_5_vl"], model, WITH_TEXT_ONLY))
    with prune(model, "divprune", keep_ratio=0.5, encoder="pixel-dedup"):
        first = model.generate(**inputs, max_new_tokens=3, return_dict_in_generate=True, do_sample=False)
        ids = torch.cat([first.sequences, torch.full((len(first.sequences), 2), 7)], dim=1)
        more = torch.ones(len(ids), 5, dtype=torch.int64)
        again = model.generate(
            input_ids=ids,
            attention_mask=torch.cat([inputs["attention_mask"], more], dim=1),
            past_key_values=first.past_key_values,
            max_new_tokens=2,
            do_sample=False,
        )
    assert again.shape[1] == ids.shape[1] + 2


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("pixel-dedup:tolerance=-1", "tolerance must be a number from 0 on, got -1"),
        ("pixel-dedup:tolerance=nan", "tolerance must be a number from 0 on, got nan"),
        ("pixel-dedup:tolerance=inf", "tolerance must be a number from 0 on, got inf"),
        ("pixel-dedup:r=8", "encoder option 'pixel-dedup' has no parameter 'r'"),
    ],
)
def test_wrong_tolerances_are_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attach(built("qwen2_vl"), "divprune", encoder=spec)


@pytest.mark.parametrize("name", ["llava", "glm4v", "internvl"])
def test_other_models_are_refused_when_it_is_attached(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"'pixel-dedup' cannot be used with '{name}' models"):
        attach(built(name), "divprune", encoder="pixel-dedup")


@pytest.mark.parametrize("method", ["pooling", "fastv", "divprune:layer=1"])
def test_methods_that_need_whole_grids_or_the_llm_are_refused(method: str) -> None:
    with pytest.raises(ValueError, match=r"encoder must be None for method .*, got 'pixel-dedup': the method"):
        attach(built("qwen2_vl"), method, encoder="pixel-dedup")
