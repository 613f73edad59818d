"""What cannot be pruned, or not in this way, is refused with the reason."""

from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, PreTrainedModel

from divprune import DivPrune, attach, prune
from divprune.errors import PruningError, UnsupportedModelError
from tests.support.attached import ROWS
from tests.support.models.every_family import CASES, make_inputs


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return CASES["llava"].build()


@pytest.fixture
def inputs(model: PreTrainedModel) -> dict[str, Any]:
    return make_inputs(CASES["llava"], model, ROWS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep_ratio": 0.5, "num_keep": 3}, "exactly one of keep_ratio and num_keep"),
        ({"keep_ratio": 1.5}, r"keep_ratio must be in \(0, 1\], got 1.5"),
        ({"keep_ratio": float("nan")}, "keep_ratio"),
        ({"num_keep": 0}, "num_keep must be at least 1, got 0"),
        ({"keep_ratio": 0.5, "scope": "batch"}, "scope must be one of 'item', 'frame', 'tile', 'sample', got 'batch'"),
        ({"keep_ratio": 0.5, "order": "random"}, "order must be one of 'sorted', 'selection', got 'random'"),
        ({"keep_ratio": 0.5, "positions": "3d"}, "positions must be one of 'compact', 'original', got '3d'"),
    ],
)
def test_bad_arguments_are_refused(model: PreTrainedModel, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attach(model, DivPrune(), **settings)
    assert "generate" not in model.__dict__


def test_compact_positions_are_refused_for_mrope() -> None:
    with pytest.raises(ValueError, match="'original' or None for 'qwen2_5_vl'"):
        attach(CASES["qwen2_5_vl"].build(), DivPrune(), keep_ratio=0.5, positions="compact")


def test_other_families_are_refused_with_the_list() -> None:
    other = BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8))
    with pytest.raises(UnsupportedModelError, match=r"'bert' .it does not generate.*`divprune families` lists"):
        attach(other, DivPrune(), keep_ratio=0.5)
    with pytest.raises(UnsupportedModelError, match="str"):
        attach("llava", DivPrune(), keep_ratio=0.5)


def test_a_count_mismatch_is_refused(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    with prune(model, DivPrune(), keep_ratio=0.5):
        with pytest.raises(
            PruningError, match=r"one placeholder for each visual token: got 108 .* for 72 image tokens"
        ):
            model.generate(**{**inputs, "pixel_values": inputs["pixel_values"][:2]})
        ids = torch.full((2, 18), 95)
        with pytest.raises(PruningError, match="span rows 0 to 1"):
            model.generate(input_ids=ids, pixel_values=inputs["pixel_values"][:1])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"cache_implementation": "paged"}, "paged"),
        ({"assistant_model": "self"}, "assistant_model must be None"),
        ({"inputs_embeds": torch.zeros(2, 3, 32)}, "input_ids must be given"),
        ({"attention_mask": torch.ones(2, 1, 84, 84)}, r"shape \(batch, length\)"),
    ],
)
def test_what_cannot_work_is_refused(
    model: PreTrainedModel, inputs: dict[str, Any], extra: dict[str, Any], message: str
) -> None:
    extra = (
        {name: model if value == "self" else value for name, value in extra.items()}
        if "assistant_model" in extra
        else extra
    )
    with prune(model, DivPrune(), keep_ratio=0.5), pytest.raises(PruningError, match=message):
        model.generate(**{**inputs, **extra}, max_new_tokens=2)


def test_images_and_videos_with_one_placeholder_are_refused_in_one_call() -> None:
    case = CASES["glm4v"]
    model = case.build()
    inputs = make_inputs(case, model, [[1, 5, "image", 6]]) | case.media(model, "video", [1])
    with prune(model, DivPrune(), keep_ratio=0.5), pytest.raises(PruningError, match="in calls of their own"):
        model.generate(**inputs)
