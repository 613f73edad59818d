"""Tiny models that take a picture as one grid of tokens and count positions."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen2Config, Qwen3Config

from tests.support.models.base import (
    IMAGE,
    TEXT_SIZES,
    VIDEO,
    VOCABULARY,
    Case,
    Media,
    build_model,
    clip,
    config_of,
    embedded,
    llama,
    noise,
    siglip,
    square_media,
)
from tests.support.models.tiles import END, START, TILE_TOKENS, flat_tiles, one_run, tiles_joined

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
UNTIED = {"tie_word_embeddings": False}
SAM = {
    "hidden_size": 32, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 4,
    "window_size": 4, "global_attn_indexes": [1], "mlp_dim": 64,
}  # fmt: skip


def qwen2() -> Qwen2Config:
    return Qwen2Config(**TEXT_SIZES, **VOCABULARY, num_key_value_heads=2)


def aria() -> PreTrainedModel:
    text = config_of("AriaText")(
        **TEXT_SIZES, **VOCABULARY, num_key_value_heads=2, moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1
    )
    vision = config_of("Idefics3Vision")(**SIZES, image_size=56, patch_size=7)
    return build_model(
        config_of("Aria")(
            vision_config=vision, text_config=text, image_token_index=IMAGE, projector_patch_to_query_dict={64: 16}
        )
    )


def ovis2() -> PreTrainedModel:
    vision = config_of("Ovis2Vision")(
        **SIZES, image_size=56, patch_size=7, vocab_size=64, hidden_stride=2, num_visual_indicator_tokens=3
    )
    return build_model(
        config_of("Ovis2")(
            vision_config=vision, text_config=qwen2(), image_token_id=IMAGE, visual_indicator_token_ids=[90, 91, 92],
            vocab_size=99, hidden_size=32, **UNTIED,
        )
    )  # fmt: skip


def got_ocr2() -> PreTrainedModel:
    vision = config_of("GotOcr2Vision")(**SAM, image_size=80)
    return build_model(
        config_of("GotOcr2")(vision_config=vision, text_config=qwen2(), image_token_index=IMAGE, **UNTIED)
    )


def deepseek_vl_hybrid() -> PreTrainedModel:
    high = config_of("SamVision")(**SAM, image_size=64)
    return build_model(
        config_of("DeepseekVLHybrid")(
            vision_config=siglip(42), high_res_vision_config=high, text_config=llama(), image_token_id=IMAGE, **UNTIED
        )
    )


def qianfan_ocr() -> PreTrainedModel:
    vision = config_of("QianfanOCRVision")(**SIZES, image_size=[56, 56], patch_size=[7, 7])
    text = Qwen3Config(**TEXT_SIZES, **VOCABULARY, num_key_value_heads=2, head_dim=8)
    return build_model(config_of("QianfanOCR")(vision_config=vision, text_config=text, image_token_id=IMAGE, **UNTIED))


def fast_vlm() -> PreTrainedModel:
    """FastViT comes with another package, timm; any tower of convolutions stands in for it."""
    vision = config_of("ConvNext")(
        hidden_sizes=[16, 32], depths=[1, 1], num_stages=2, patch_size=4, image_size=48, hidden_size=32
    )
    return build_model(
        config_of("FastVlm")(vision_config=vision, text_config=qwen2(), image_token_index=IMAGE, **UNTIED)
    )


def perception_lm() -> PreTrainedModel:
    """The tower comes with another package, timm; CLIP's stands in for it."""
    vision = clip(56)
    vision.model_args = {"embed_dim": 32}
    return build_model(
        config_of("PerceptionLM")(
            vision_config=vision, text_config=llama(), image_token_id=IMAGE, video_token_id=VIDEO,
            projector_pooling_ratio=2, **UNTIED,
        )
    )  # fmt: skip


def two_resolutions(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    count = sum(counts)
    return square_media(model, kind, counts) | {"high_res_pixel_values": noise(count, 3, 64, 64, seed=count + 9)}


def with_indicators(kind: str, inputs: Media, index: int, count: int) -> list[int]:
    """Ovis2: the whole picture, then its tiles, with tokens before, between and after them."""
    return [90, *([*[IMAGE] * TILE_TOKENS, 91] * (count // TILE_TOKENS))[:-1], 92]


def indicators_embedded(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Ovis2 embeds the tokens around a picture as the last words of its visual vocabulary."""
    vectors = embedded(model, ids)
    for word, token in enumerate((90, 91, 92)):
        vectors[ids == token] = model.model.visual_embeddings_table(torch.tensor([61 + word]))
    return vectors


def wide_tiles(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    """(pictures, tiles, 3, height, width), or frames instead of tiles."""
    count = sum(counts)
    if kind == "image":
        return {"pixel_values": 2 * noise(count, 2, 3, 56, 56, seed=count)}
    return {"pixel_values_videos": noise(count, 3, 3, 56, 56, seed=count)}


def wide_joined(model: PreTrainedModel, kind: str, inputs: Media, entries: Any) -> list[Tensor]:
    return [torch.cat(list(tiles)) for tiles in entries.split(2 if kind == "image" else 3)]


def framed(kind: str, inputs: Media, index: int, count: int) -> list[int]:
    return [START, *[IMAGE if kind == "image" else VIDEO] * count, END]


BOTH = ("image", "video")
SINGLE_GRID_CASES = (
    Case("aria", aria, flat_tiles, spell=one_run, items=tiles_joined),
    Case("ovis2", ovis2, flat_tiles, spell=with_indicators, items=tiles_joined, embeds=indicators_embedded),
    Case("got_ocr2", got_ocr2, square_media),
    Case("deepseek_vl_hybrid", deepseek_vl_hybrid, two_resolutions),
    Case("qianfan_ocr", qianfan_ocr, flat_tiles, spell=one_run, items=tiles_joined),
    Case("fast_vlm", fast_vlm, square_media),
    Case("perception_lm", perception_lm, wide_tiles, BOTH, spell=framed, items=wide_joined),
)
