"""Tiny models whose position ids are (frame, row, column) coordinates."""

import torch
from torch import Tensor
from transformers import (
    Glm4vConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
    Qwen3_5Config,
    Qwen3VLConfig,
)

from tests.support.models.base import (
    IMAGE,
    TEXT_SIZES,
    VIDEO,
    VOCABULARY,
    Case,
    Media,
    build_model,
    mm_types,
    noise,
)

SPECIAL = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": 97, "vision_end_token_id": 98}
ROPE = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
TEXT = {**TEXT_SIZES, **VOCABULARY, "num_key_value_heads": 2, "rope_parameters": ROPE}
VISION = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "patch_size": 2}


def qwen2_vl() -> PreTrainedModel:
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "patch_size": 2}
    return build_model(Qwen2VLConfig(vision_config=vision, text_config=TEXT, **SPECIAL))


def qwen2_5_vl() -> PreTrainedModel:
    vision = {
        **VISION, "window_size": 16, "out_hidden_size": 32, "fullatt_block_indexes": [1], "tokens_per_second": 2
    }  # fmt: skip
    return build_model(Qwen2_5_VLConfig(vision_config=vision, text_config=TEXT, **SPECIAL))


def qwen3_vl() -> PreTrainedModel:
    vision = {
        **VISION, "depth": 3, "out_hidden_size": 32, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]
    }  # fmt: skip
    text = {**TEXT, "head_dim": 8, "rope_parameters": {**ROPE, "mrope_interleaved": True}}
    return build_model(Qwen3VLConfig(vision_config=vision, text_config=text, **SPECIAL))


def with_small_logits(model: PreTrainedModel) -> PreTrainedModel:
    """Linear attention, and long prompts, round more coarsely, so that their logits are kept small."""
    with torch.no_grad():
        model.lm_head.weight.div_(4)
    return model


def qwen3_5() -> PreTrainedModel:
    vision = {**VISION, "out_hidden_size": 32, "num_position_embeddings": 64}
    text = {
        **TEXT, "head_dim": 16, "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "rope_parameters": {**ROPE, "mrope_interleaved": True, "partial_rotary_factor": 0.5},
    }  # fmt: skip
    return with_small_logits(build_model(Qwen3_5Config(vision_config=vision, text_config=text, **SPECIAL)))


def glm4v() -> PreTrainedModel:
    vision = {**VISION, "out_hidden_size": 32, "image_size": 16}
    text = {**TEXT, "rope_parameters": {**ROPE, "partial_rotary_factor": 1.0}}
    tokens = {"image_token_id": IMAGE, "video_token_id": VIDEO}
    return build_model(Glm4vConfig(vision_config=vision, text_config=text, **tokens))


def grid_media(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    count = sum(counts)
    grids = {"image": [(1, 8, 12), (1, 12, 6), (1, 4, 10)], "video": [(3, 4, 8), (2, 8, 6), (4, 4, 6)]}[kind][:count]
    vision = model.config.vision_config
    width = 3 * getattr(vision, "temporal_patch_size", 1) * vision.patch_size**2
    pixels = {"image": "pixel_values", "video": "pixel_values_videos"}[kind]
    patches = noise(sum(t * h * w for t, h, w in grids), width, seed=count)
    return {pixels: patches, f"{kind}_grid_thw": torch.tensor(grids)}


def timed_media(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    extra = {"second_per_grid_ts": torch.full((sum(counts),), 1.5)} if kind == "video" else {}
    return grid_media(model, kind, counts) | extra


def merged_grid(kind: str, inputs: Media, index: int) -> tuple[int, int, int]:
    steps, rows, columns = inputs[f"{kind}_grid_thw"][index].tolist()
    return steps, rows // 2, columns // 2


def one_stretch(kind: str, inputs: Media, index: int) -> list[list[tuple[int, int, int]]]:
    """A whole item is one block of coordinates; Qwen2.5-VL counts its frames in time (2 positions a second)."""
    steps, rows, columns = merged_grid(kind, inputs, index)
    seconds = inputs.get("second_per_grid_ts") if kind == "video" else None
    step = 1 if seconds is None else int(2 * seconds[index])
    return [[(t * step, h, w) for t in range(steps) for h in range(rows) for w in range(columns)]]


def stretch_a_frame(kind: str, inputs: Media, index: int) -> list[list[tuple[int, int, int]]]:
    """Text stands between the frames, and each frame is a picture of its own."""
    steps, rows, columns = merged_grid(kind, inputs, index)
    return [[(0, h, w) for h in range(rows) for w in range(columns)]] * steps


def timestamped(kind: str, inputs: Media, index: int, count: int) -> list[int]:
    return _frames(kind, inputs, index, count, VIDEO if kind == "video" else IMAGE)


def timestamped_images(kind: str, inputs: Media, index: int, count: int) -> list[int]:
    return _frames(kind, inputs, index, count, IMAGE)


def _frames(kind: str, inputs: Media, index: int, count: int, token: int) -> list[int]:
    steps = merged_grid(kind, inputs, index)[0]
    frame = [97, *[token] * (count // steps), 98]
    return frame if kind == "image" else [token for second in range(steps) for token in [60 + second, *frame]]


def glm_types(ids: Tensor, kinds: tuple[str, ...]) -> dict[str, Tensor]:
    return {"mm_token_type_ids": (ids == IMAGE).int() * (2 if "video" in kinds else 1)}


BOTH = ("image", "video")
QWEN_CASES = (
    Case("qwen2_vl", qwen2_vl, grid_media, BOTH, types=mm_types, cells=one_stretch),
    Case("qwen2_5_vl", qwen2_5_vl, timed_media, BOTH, types=mm_types, cells=one_stretch),
    Case("qwen3_vl", qwen3_vl, grid_media, BOTH, timestamped, types=mm_types, cells=stretch_a_frame),
    Case("qwen3_5", qwen3_5, grid_media, BOTH, timestamped, types=mm_types, cells=stretch_a_frame),
    Case("glm4v", glm4v, grid_media, BOTH, timestamped_images, types=glm_types, cells=stretch_a_frame, mixed=False),
)
