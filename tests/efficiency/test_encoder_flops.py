"""FLOPs of a vision encoder that merges patches, and of all behind it: those that torch counts in real passes."""

from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlavaConfig, PreTrainedModel

from divprune import prune
from divprune.budget import Budget
from divprune.efficiency.equal_flops import num_keep_for_ratio
from divprune.efficiency.flops import compare, encoder_flop
from divprune.efficiency.reference_models import architecture_shape
from divprune.efficiency.shapes import model_shape
from divprune.efficiency.workloads import Workload
from divprune.encoder_options import TomeEncoder
from divprune.errors import UnsupportedModelError
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.encoding.tome_encoder import merging_patches
from divprune.methods import DivPrune, RandomTokens
from tests.huggingface.test_tome_encoder import CASES_HERE, OPTIONS
from tests.support.models.base import IMAGE, build_model, llama, siglip
from tests.support.models.every_family import CASES, make_inputs

NAMES = ("llava", "llava-siglip", "llava_next")
ALL = (*OPTIONS, TomeEncoder(1, "decreasing"))


def subject(name: str) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model whose attention is made of products that torch counts on a CPU, too."""
    model = CASES_HERE[name].build()
    model.set_attn_implementation("eager")
    return model, make_inputs(CASES_HERE[name], model, [[5, "image", 6, 7]])


def counted(call: Any, context: AbstractContextManager[Any]) -> int:
    with torch.no_grad(), context, FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def num_passes(name: str, inputs: dict[str, Any]) -> int:
    return len(inputs["pixel_values"][0]) if name == "llava_next" else 1


@pytest.mark.parametrize("option", ALL, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_takes_what_torch_counts(name: str, option: TomeEncoder) -> None:
    model, inputs = subject(name)
    sizes = {"image_sizes": inputs["image_sizes"]} if name == "llava_next" else {}
    base: Any = model.base_model
    found = counted(
        lambda: base.get_image_features(inputs["pixel_values"], **sizes),
        merging_patches(ModelAdapter.of(model), option),
    )
    tower = model_shape(model.config).tower
    assert tower is not None
    assert num_passes(name, inputs) * encoder_flop(tower, option) == found
    assert encoder_flop(tower, option) < encoder_flop(tower)


@pytest.mark.parametrize(("layer", "has_head"), [(-1, True), (2, True), (-2, False)])
def test_a_pooling_head_and_an_early_layer_are_counted(layer: int, has_head: bool) -> None:
    """SigLIP's head pools what is left; behind the layer that the projector reads none is computed."""
    vision = siglip(42)
    vision.num_hidden_layers, vision.vision_use_head = 4, has_head
    config = LlavaConfig(
        vision_config=vision, text_config=llama(), image_token_id=IMAGE, vision_feature_layer=layer,
        vision_feature_select_strategy="full",
    )  # fmt: skip
    model = build_model(config)
    model.set_attn_implementation("eager")
    base: Any = model.base_model
    pixels = torch.randn(1, 3, 42, 42, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    option = TomeEncoder(3)
    found = counted(lambda: base.get_image_features(pixels), merging_patches(ModelAdapter.of(model), option))
    tower = model_shape(config).tower
    assert tower is not None
    assert encoder_flop(tower, option) == found


@pytest.mark.parametrize("option", ALL, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_whole_prefill_takes_what_torch_counts(name: str, option: TomeEncoder) -> None:
    model, inputs = subject(name)
    shape = model_shape(model.config, num_passes(name, inputs))
    total = int((inputs["input_ids"] == IMAGE).sum())
    tiles = shape.encoder_passes
    assert shape.tower is not None
    # Of newline tokens it is told in the next test; random tokens cost the same whatever they are chosen from.
    prompt = Workload(inputs["input_ids"].shape[1] - total, total, tiles)
    cost = compare(shape, [prompt], RandomTokens(), Budget(num_keep=3), "exact", encoder=option)
    less = prune(model, "random", num_keep=3, encoder=option)
    assert counted(lambda: model(**inputs, logits_to_keep=1), less) == cost.pruned_flop
    whole = prune(model, "random", keep_ratio=1.0)
    assert counted(lambda: model(**inputs, logits_to_keep=1), whole) == cost.full_flop
    assert cost.encoder_flop == tiles * encoder_flop(shape.tower)
    assert cost.pruned_encoder_flop == tiles * encoder_flop(shape.tower, option)


@pytest.mark.parametrize("size", [(56, 56), (56, 28), (50, 31), (23, 56), (56, 9)], ids=str)
def test_what_is_left_of_padded_tiles_is_counted_at_most(size: tuple[int, int]) -> None:
    """Equal for images that fill their tiles; never fewer than a call finds."""
    from divprune.huggingface.families.anyres_layouts import anyres_counts

    model = CASES_HERE["llava_next"].build()
    height, width = size
    found = anyres_counts(model.config, width, height)
    seed = torch.Generator().manual_seed(width)
    pixels = torch.randn(1, found.num_tiles, 3, 28, 28, dtype=torch.float64, generator=seed)
    ids = torch.tensor([[5, *[IMAGE] * found.num_visual_tokens, 6]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    with prune(model, keep_ratio=0.5, encoder="tome:r=1") as pruning, torch.no_grad():
        model(**inputs, image_sizes=torch.tensor([size]))
    report = pruning.last
    assert report is not None
    prompt = Workload(2, found.num_visual_tokens, found.num_tiles, found.num_newlines)
    shape = model_shape(model.config, found.num_tiles)
    cost = compare(shape, [prompt], DivPrune(), Budget(keep_ratio=0.5), "paper", encoder=TomeEncoder(1))
    assert report.num_visual_tokens == prompt.num_visual_tokens
    assert report.num_encoded <= cost.num_encoded <= prompt.num_visual_tokens
    if size in ((56, 56), (56, 28)):
        assert report.num_encoded == cost.num_encoded < prompt.num_visual_tokens


def test_the_budget_and_the_selection_are_of_what_is_left() -> None:
    shape, prompt = architecture_shape("llava-1.5-7b"), Workload(48, 576)
    cost = compare(shape, [prompt], DivPrune(), Budget(keep_ratio=0.5), "exact", encoder=TomeEncoder(8))
    # 23 of the 24 blocks are computed, and each merges 8 of 576 patches away.
    assert cost.num_encoded == 576 - 23 * 8 == 392
    assert cost.tokens_per_layer == 196
    assert cost.selection_flop == 2 * 392**2 * 4096
    whole = compare(shape, [prompt], DivPrune(), Budget(keep_ratio=0.5), "exact")
    assert (whole.num_encoded, whole.encoder_flop) == (576, cost.encoder_flop)
    assert whole.pruned_encoder_flop == whole.encoder_flop
    assert whole.full_flop == cost.full_flop
    paper = compare(shape, [prompt], DivPrune(), Budget(num_keep=196), "paper", encoder=TomeEncoder(8))
    assert paper == compare(shape, [prompt], DivPrune(), Budget(keep_ratio=0.5), "paper", encoder=TomeEncoder(8))
    assert paper.ratio == compare(shape, [prompt], DivPrune(), Budget(num_keep=196), "paper").ratio


def test_a_cheaper_encoder_leaves_more_tokens_at_equal_flops() -> None:
    shape, prompts = architecture_shape("llava-1.5-7b"), [Workload(48, 576)]
    found = [num_keep_for_ratio(0.25, shape, prompts, DivPrune(), "exact", each) for each in (None, TomeEncoder(8))]
    assert found[0] < found[1]
    cost = compare(shape, prompts, DivPrune(), Budget(num_keep=found[1]), "exact", encoder=TomeEncoder(8))
    more = compare(shape, prompts, DivPrune(), Budget(num_keep=found[1] + 1), "exact", encoder=TomeEncoder(8))
    assert abs(cost.ratio - 0.25) <= more.ratio - cost.ratio
    with pytest.raises(ValueError, match="all 392"):
        num_keep_for_ratio(0.9, shape, prompts, DivPrune(), "exact", TomeEncoder(8))


@pytest.mark.parametrize("name", ["vipllava", "llava_onevision", "llava_next_video", "qwen2_5_vl", "internvl"])
def test_other_towers_are_refused(name: str) -> None:
    shape = model_shape(CASES[name].build().config, pooled_video=name == "llava_next_video", num_visual_tokens=16)
    with pytest.raises(UnsupportedModelError, match="encoder option 'tome'"):
        compare(shape, [Workload(5, 16)], DivPrune(), Budget(num_keep=4), "paper", encoder=TomeEncoder(1))
