"""Tiny models of the LLaVA family."""

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LlavaConfig,
    LlavaNextConfig,
    LlavaNextVideoConfig,
    LlavaOnevisionConfig,
    Mistral3Config,
    MistralConfig,
    PixtralVisionConfig,
    PreTrainedModel,
    Qwen2Config,
    VideoLlavaConfig,
    VipLlavaConfig,
)

from tests.support.models.base import (
    IMAGE,
    TEXT_SIZES,
    VIDEO,
    VOCABULARY,
    Case,
    Media,
    build_model,
    clip,
    llama,
    noise,
    siglip,
    square_media,
)

TILES = [[28, 56], [56, 28], [56, 56]]
BREAK, END = 90, 91


def llava() -> PreTrainedModel:
    return build_model(LlavaConfig(vision_config=clip(42), text_config=llama(), image_token_id=IMAGE))


def pixtral_tower() -> PixtralVisionConfig:
    return PixtralVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=56, patch_size=7
    )


def llava_pixtral() -> PreTrainedModel:
    return build_model(
        LlavaConfig(
            vision_config=pixtral_tower(), text_config=llama(), image_token_id=IMAGE, vision_feature_layer=-1,
            vision_feature_select_strategy="full",
        )
    )  # fmt: skip


def mistral3() -> PreTrainedModel:
    text = MistralConfig(**TEXT_SIZES, **VOCABULARY, num_key_value_heads=2, head_dim=8, sliding_window=None)
    return build_model(
        Mistral3Config(
            vision_config=pixtral_tower(), text_config=text, image_token_index=IMAGE, tie_word_embeddings=False
        )
    )


def vipllava() -> PreTrainedModel:
    return build_model(
        VipLlavaConfig(
            vision_config=clip(42), text_config=llama(), image_token_index=IMAGE, vision_feature_layers=[-1, -2, 1]
        )
    )


def video_llava() -> PreTrainedModel:
    return build_model(
        VideoLlavaConfig(
            vision_config=clip(28), text_config=llama(), image_token_index=IMAGE, video_token_index=VIDEO
        )
    )  # fmt: skip


def llava_next() -> PreTrainedModel:
    return build_model(
        LlavaNextConfig(
            vision_config=clip(28), text_config=llama(), image_token_id=IMAGE, image_grid_pinpoints=TILES
        )
    )  # fmt: skip


def llava_next_video() -> PreTrainedModel:
    return build_model(
        LlavaNextVideoConfig(
            vision_config=clip(28), text_config=llama(), image_token_id=IMAGE, video_token_id=VIDEO,
            image_grid_pinpoints=TILES,
        )
    )  # fmt: skip


def llava_onevision() -> PreTrainedModel:
    text = Qwen2Config(**TEXT_SIZES, **VOCABULARY, num_key_value_heads=2)
    return build_model(
        LlavaOnevisionConfig(
            vision_config=siglip(28), text_config=text, image_token_index=IMAGE, video_token_index=VIDEO,
            image_grid_pinpoints=TILES, vision_aspect_ratio="anyres_max_2",
        )
    )  # fmt: skip


SIZES = [(40, 30), (20, 50), (33, 31), (60, 20)]


def anyres_media(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    size, count = model.config.vision_config.image_size, sum(counts)
    if kind == "video":
        return {"pixel_values_videos": noise(count, 3, 3, size, size, seed=count)}
    return {"pixel_values": noise(count, 5, 3, size, size, seed=count), "image_sizes": torch.tensor(SIZES[:count])}


def onevision_media(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    """A picture alone in its row is cut into tiles; several in a row are not."""
    extra = {"batch_num_images": torch.tensor([count for count in counts if count])} if kind == "image" else {}
    return anyres_media(model, kind, counts) | extra


def video_llava_media(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    size, count = model.config.vision_config.image_size, sum(counts)
    if kind == "video":
        return {"pixel_values_videos": noise(count, 3, 3, size, size, seed=count)}
    parameters = inspect.signature(model.model.get_image_features).parameters
    name = "pixel_values" if "pixel_values" in parameters else "pixel_values_images"
    return {name: noise(count, 3, size, size, seed=count)}


def frames_joined(model: PreTrainedModel, kind: str, inputs: Media, entries: Tensor) -> list[Tensor]:
    return list(entries) if kind == "image" else [torch.cat(list(frames)) for frames in entries.split(3)]


def ragged_media(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    sizes = [(28, 42), (56, 28), (42, 42)][: sum(counts)]
    return {"pixel_values": noise(sum(counts), 3, 56, 56, seed=sum(counts)), "image_sizes": torch.tensor(sizes)}


def with_breaks(patch_size: int) -> Any:
    """Pixtral's prompts: a break token after every row of patches, an end token after the last."""

    def spell(kind: str, inputs: Media, index: int, count: int) -> list[int]:
        rows, columns = (int(side) // patch_size for side in inputs["image_sizes"][index])
        assert rows * columns == count
        return [*([IMAGE] * columns + [BREAK]) * (rows - 1), *[IMAGE] * columns, END]

    return spell


BOTH = ("image", "video")
LLAVA_CASES = (
    Case("llava", llava, square_media),
    Case("llava_pixtral", llava_pixtral, ragged_media, spell=with_breaks(7)),
    Case("llava_next", llava_next, anyres_media),
    Case("llava_next_video", llava_next_video, anyres_media, BOTH),
    Case("llava_onevision", llava_onevision, onevision_media, BOTH),
    Case("vipllava", vipllava, square_media),
    Case("video_llava", video_llava, video_llava_media, BOTH, items=frames_joined),
    Case("mistral3", mistral3, ragged_media, spell=with_breaks(14)),
)
