"""Inputs that do not fit together, and edge cases that do: a clear error or the right result, and a usable model."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from divprune import DivPrune, prune
from divprune.errors import PruningError
from divprune.huggingface.model_inputs import CACHE, cache_in
from tests.support.greedy_calls import largest_error
from tests.support.models.every_family import CASES, IMAGE, make_inputs
from tests.support.subject import ONE_AND_TWO, divprune_rule, first_tokens


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl", "gemma3", "idefics3"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return CASES[request.param].build()


@pytest.fixture
def inputs(model: PreTrainedModel) -> dict[str, Any]:
    return make_inputs(CASES[model.config.model_type], model, ONE_AND_TWO)


@pytest.fixture
def pruned(model: PreTrainedModel, inputs: dict[str, Any]) -> Iterator[PreTrainedModel]:
    """A pruned model that must still answer as before when the test is over."""
    with prune(model, DivPrune(), keep_ratio=0.25):
        expected = model.generate(**inputs, max_new_tokens=3)
        yield model
        assert torch.equal(model.generate(**inputs, max_new_tokens=3), expected)


def calls(model: PreTrainedModel) -> tuple[Any, Any]:
    return (lambda **inputs: model.generate(**inputs, max_new_tokens=2)), model


def test_one_placeholder_too_many_or_too_few_is_refused(pruned: PreTrainedModel, inputs: dict[str, Any]) -> None:
    ids = inputs["input_ids"]
    column = int((ids[0] == IMAGE).nonzero()[0])
    for value, where in ((7, column), (IMAGE, len(ids[0]) - 1)):
        wrong = ids.clone()
        wrong[0, where] = value
        for call in calls(pruned):
            with pytest.raises(PruningError, match="input_ids must hold one placeholder for each visual token"):
                call(**{**inputs, "input_ids": wrong})


def test_placeholders_without_pixels_are_refused(pruned: PreTrainedModel, inputs: dict[str, Any]) -> None:
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    for call in calls(pruned):
        with pytest.raises(PruningError, match="the call brings no pixels"):
            call(**text)


def test_new_placeholders_without_pixels_are_refused_on_a_kept_cache(
    pruned: PreTrainedModel, inputs: dict[str, Any]
) -> None:
    output = pruned.generate(**inputs, max_new_tokens=2, return_dict_in_generate=True)
    ids = torch.cat([output.sequences, torch.tensor([[31, IMAGE, 32]] * 2)], dim=-1)
    mask = torch.ones_like(ids)
    mask[:, : inputs["input_ids"].shape[1]] = inputs["attention_mask"]
    with pytest.raises(PruningError, match="input_ids hold 2 new image placeholders"):
        pruned.generate(input_ids=ids, attention_mask=mask, **{CACHE: cache_in(output)}, max_new_tokens=2)


def test_pixels_without_placeholders_are_refused(pruned: PreTrainedModel, inputs: dict[str, Any]) -> None:
    ids = inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE, 7)
    for call in calls(pruned):
        with pytest.raises(PruningError, match="got 0 placeholders"):
            call(**{**inputs, "input_ids": ids})


def test_a_tiny_ratio_keeps_one_token_of_each_item(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    with prune(model, DivPrune(), keep_ratio=1e-6) as pruning:
        model.generate(**inputs, max_new_tokens=2, num_beams=2)
        assert [item.num_kept for item in pruning.last.items] == [1, 1, 1]
        model(**inputs)
        assert [item.num_kept for item in pruning.last.items] == [1, 1, 1]


@pytest.mark.parametrize("ratio", [0.1, 1.0])
def test_an_image_of_one_token_keeps_it(ratio: float) -> None:
    case = CASES["qwen2_5_vl"]
    model = case.build()
    inputs = make_inputs(case, model, [[1, 5, "image", 6]])
    inputs |= {"pixel_values": inputs["pixel_values"][:4], "image_grid_thw": torch.tensor([[1, 2, 2]])}
    for name, value in (("input_ids", [1, 5, IMAGE, 6]), ("mm_token_type_ids", [0, 0, 1, 0])):
        inputs[name] = torch.tensor([value])
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    expected = model.generate(**inputs, max_new_tokens=4)
    with prune(model, DivPrune(), keep_ratio=ratio) as pruning:
        assert torch.equal(model.generate(**inputs, max_new_tokens=4), expected)
        assert pruning.last.items[0].num_kept == pruning.last.items[0].num_visual_tokens == 1
        assert pruning.last.items[0].max_min_distance is None


def test_more_tokens_asked_for_than_there_are_keep_all(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    expected = model.generate(**inputs, max_new_tokens=3)
    with prune(model, DivPrune(), num_keep=10_000):
        assert torch.equal(model.generate(**inputs, max_new_tokens=3), expected)


def test_the_number_format_of_the_model_is_kept() -> None:
    """In bfloat16 the choice is still the one that float32 makes of the same tokens."""
    case = CASES["llava"]
    model = case.build().to(torch.bfloat16)
    inputs = make_inputs(case, model.float(), ONE_AND_TWO)
    model.to(torch.bfloat16)
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    with prune(model, DivPrune(), keep_ratio=0.3) as pruning:
        output = model.generate(
            **inputs, max_new_tokens=3, return_dict_in_generate=True, output_logits=True, suppress_tokens=[IMAGE]
        )
    tokens = model.model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output
    for item, visual_tokens in zip(pruning.last.items, tokens, strict=True):
        assert item.kept_indices.tolist() == divprune_rule(0.3)(visual_tokens.float()).tolist()
        assert item.kept_tokens.dtype == torch.bfloat16
    new_tokens = output.sequences[:, inputs["input_ids"].shape[1] :]
    logits = torch.stack(output.logits, dim=1)
    kept = iter([item.kept_indices for item in pruning.last.items])
    inputs["pixel_values"] = inputs["pixel_values"].float()
    wide = model.float()
    assert largest_error(case, wide, inputs, lambda _: next(kept), new_tokens, logits) < 0.5
    assert largest_error(case, wide, inputs, first_tokens, new_tokens, logits) > 1
