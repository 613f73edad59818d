"""Architectures by name, and models with random weights."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, PreTrainedConfig, Qwen2VLImageProcessor

from divprune import prune
from divprune.efficiency import (
    ARCHITECTURES,
    PAPER_ARCHITECTURES,
    architecture_config,
    get_architecture,
    image_like,
    random_inputs,
    random_model,
)
from divprune.efficiency.flops import encoder_flop
from divprune.efficiency.random_models import _patches
from divprune.efficiency.reference_models import Architecture
from divprune.efficiency.shapes import model_shape
from tests.support.shapes import small_config


@pytest.mark.parametrize("architecture", PAPER_ARCHITECTURES, ids=lambda architecture: architecture.name)
def test_architectures_have_the_papers_sizes(architecture: Architecture) -> None:
    text = architecture_config(architecture.name).get_text_config()
    sizes = (text.hidden_size, text.intermediate_size, text.num_hidden_layers)
    assert sizes == ((5120, 13824, 40) if "13b" in architecture.name else (4096, 11008, 32))


def test_number_of_layers_can_be_cut() -> None:
    assert architecture_config("LLaVA-1.5-7B", 2).get_text_config().num_hidden_layers == 2
    assert architecture_config("llava-1.5-7b").get_text_config().num_hidden_layers == 32
    with pytest.raises(ValueError, match="num_layers must be at least 1, got 0"):
        architecture_config("llava-1.5-7b", 0)


def test_unknown_architecture_is_refused_with_a_guess() -> None:
    with pytest.raises(ValueError, match=r"got 'llava-1.5'; did you mean 'llava-1.5-7b'\?"):
        get_architecture("llava-1.5")


def test_random_models_are_seeded_finite_and_can_be_pruned() -> None:
    model = random_model(small_config())
    again = random_model(small_config())
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    inputs = random_inputs(model, get_architecture("llava-1.5-7b"), num_text_tokens=6)
    assert inputs["input_ids"].shape == (1, 6 + 16)
    assert bool(model(**inputs).logits.isfinite().all())
    with prune(model, num_keep=4) as pruning:
        model.generate(**inputs, max_new_tokens=2)
    assert pruning.last is not None
    assert pruning.last.num_kept == 4


def test_random_buffers_are_those_of_an_ordinary_model() -> None:
    ordinary = dict(type(random_model(small_config()))(small_config()).named_buffers())
    for name, buffer in random_model(small_config()).named_buffers():
        assert torch.equal(buffer, ordinary[name]), name


def test_too_few_words_are_refused() -> None:
    with pytest.raises(ValueError, match="num_text_tokens must be at least 2, got 1"):
        random_inputs(random_model(small_config()), get_architecture("llava-1.5-7b"), num_text_tokens=1)


def test_picture_like_noise_is_smooth_and_normalised() -> None:
    plane = image_like(3, 64, 48)
    assert plane.shape == (3, 64, 48)
    assert torch.allclose(plane.mean(dim=(1, 2)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(plane.std(dim=(1, 2)), torch.ones(3), atol=1e-4)
    neighbours = (plane[:, 1:] * plane[:, :-1]).mean()
    assert neighbours > 0.7  # white noise has 0


QWEN_VISION = {"depth": 4, "num_heads": 2, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 256}
QWEN_TEXT = {"hidden_size": 256, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
QWEN_TEXT |= {"num_key_value_heads": 1, "head_dim": 128}


def small_qwen(architecture: Architecture) -> PreTrainedConfig:
    """An architecture of Qwen-VL with all its tokens and rules, and next to no width."""
    vision = dict(architecture.vision) | QWEN_VISION
    if architecture.model_type == "qwen2_vl":
        vision |= {"embed_dim": 32, "hidden_size": 256}
    if "fullatt_block_indexes" in vision:
        vision |= {"fullatt_block_indexes": [3]}
    if "deepstack_visual_indexes" in vision:
        vision |= {"deepstack_visual_indexes": [1, 2]}
    values = {"text_config": dict(architecture.text) | QWEN_TEXT, "vision_config": vision}
    return CONFIG_MAPPING[architecture.model_type](**values, **architecture.placeholders)


@pytest.mark.parametrize("name", ["qwen2-vl-7b", "qwen2.5-vl-7b", "qwen3-vl-8b"])
def test_qwen_gets_patches_of_a_square_image_and_can_be_pruned(name: str) -> None:
    architecture = get_architecture(name)
    assert architecture in ARCHITECTURES
    model = random_model(small_qwen(architecture), dtype=torch.float32)
    inputs = random_inputs(model, architecture, num_text_tokens=6)
    assert inputs["input_ids"].shape == (1, 6 + 576)
    assert int(inputs["mm_token_type_ids"].sum()) == 576
    with prune(model, keep_ratio=0.098) as pruning:
        model.generate(**inputs, max_new_tokens=2)
    assert pruning.last is not None
    assert pruning.last.num_kept == 56


@pytest.mark.parametrize("name", ["qwen2-vl-7b", "qwen2.5-vl-7b", "qwen3-vl-8b"])
def test_patches_are_in_the_order_of_qwens_processor(name: str) -> None:
    architecture = get_architecture(name)
    vision = small_qwen(architecture).vision_config
    side = 24 * vision.spatial_merge_size * vision.patch_size
    image = image_like(3, side, side)
    processor = Qwen2VLImageProcessor(
        do_resize=False, do_rescale=False, do_normalize=False, do_convert_rgb=False, patch_size=vision.patch_size
    )
    expected = processor(images=[image], return_tensors="pt", input_data_format="channels_first")
    found = _patches(vision, 24)
    assert torch.equal(found["image_grid_thw"], expected["image_grid_thw"])
    assert torch.equal(found["pixel_values"], expected["pixel_values"])


@pytest.mark.parametrize("name", ["qwen2-vl-7b", "qwen2.5-vl-7b", "qwen3-vl-8b"])
def test_flops_of_qwens_tower_and_merger_agree_with_torchs_counter(name: str) -> None:
    architecture = get_architecture(name)
    config = small_qwen(architecture)
    model = random_model(config, dtype=torch.float32)
    model.set_attn_implementation("eager")
    pixels = {key: random_inputs(model, architecture, 2)[key] for key in ("pixel_values", "image_grid_thw")}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.base_model.get_image_features(**pixels)
    tower = model_shape(config, num_visual_tokens=576).tower
    assert tower is not None
    # Convolutions and small products of positions aside.
    assert encoder_flop(tower) == pytest.approx(counter.get_total_flops(), rel=0.005)
    assert model_shape(config).tower is None


@pytest.mark.parametrize(("name", "billions"), [("qwen2-vl-7b", 8.29), ("qwen2.5-vl-7b", 8.29), ("qwen3-vl-8b", 8.77)])
def test_qwens_architectures_have_as_many_weights_as_the_checkpoints(name: str, billions: float) -> None:
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(architecture_config(name))
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e9 == pytest.approx(billions, abs=0.005)
