"""Tiny checkpoints of families that cut a large picture into tiles, 16 tokens each."""

from pathlib import Path
from typing import Any

from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaNextVideoConfig,
    LlavaNextVideoProcessor,
    LlavaNextVideoVideoProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    Qwen2Config,
    SiglipVisionConfig,
)

from tests.serving.checkpoints import IMAGE, TEXT_SIZES, VIDEO, chat_template, clip, tokenizer, write

PINPOINTS = [[56, 112], [112, 56], [112, 112]]
TEMPLATE = chat_template("<image>", "<video>")
CLIP_ON_HUB = {"vision_tower.": "vision_tower.vision_model."}
SQUARE = {"size": {"height": 56, "width": 56}}


def write_llava_next(folder: Path) -> None:
    config = LlavaNextConfig(
        vision_config=clip(56), text_config=LlamaConfig(**TEXT_SIZES), image_token_index=IMAGE,
        image_grid_pinpoints=PINPOINTS, vision_feature_select_strategy="default", vision_feature_layer=-2,
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = LlavaNextProcessor(
        image_processor=anyres(), tokenizer=tokenizer(), patch_size=14, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=TEMPLATE,
    )  # fmt: skip
    write(folder, config, processor, CLIP_ON_HUB)


def write_llava_next_video(folder: Path) -> None:
    """Frames of 4 x 4 tokens; vLLM wants an image_size of patch_size ** 2 at least."""
    config = LlavaNextVideoConfig(
        vision_config=clip(56, 7), text_config=LlamaConfig(**TEXT_SIZES), image_token_index=IMAGE,
        video_token_index=VIDEO, image_grid_pinpoints=PINPOINTS, vision_feature_select_strategy="default",
        vision_feature_layer=-2,
        tie_word_embeddings=False,
    )  # fmt: skip
    frames = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
    processor = LlavaNextVideoProcessor(
        video_processor=LlavaNextVideoVideoProcessor(**frames), image_processor=anyres(), tokenizer=tokenizer(),
        patch_size=7, vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=TEMPLATE,
    )  # fmt: skip
    write(folder, config, processor, CLIP_ON_HUB)


def write_llava_onevision(folder: Path) -> None:
    vision = SiglipVisionConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14,
        vision_use_head=False,
    )  # fmt: skip
    config = LlavaOnevisionConfig(
        vision_config=vision, text_config=Qwen2Config(**TEXT_SIZES), image_token_index=IMAGE, video_token_index=VIDEO,
        image_grid_pinpoints=PINPOINTS, vision_aspect_ratio="anyres_max_9", vision_feature_select_strategy="full",
        vision_feature_layer=-1, tie_word_embeddings=False,
    )  # fmt: skip
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(image_grid_pinpoints=PINPOINTS, **SQUARE),
        video_processor=LlavaOnevisionVideoProcessor(**SQUARE),
        tokenizer=tokenizer(), num_image_tokens=16, vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9", chat_template=TEMPLATE,
    )  # fmt: skip
    write(folder, config, processor, CLIP_ON_HUB)


def write_internvl(folder: Path) -> None:
    """At most four tiles and the whole picture."""
    write(folder, internvl_config(), internvl_processor())


def internvl_config() -> InternVLConfig:
    vision = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": [56, 56], "patch_size": [7, 7],
    }  # fmt: skip
    return InternVLConfig(
        vision_config=vision, text_config=Qwen2Config(**TEXT_SIZES), image_token_id=IMAGE, tie_word_embeddings=False
    )


def internvl_processor() -> Any:
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(crop_to_patches=True, min_patches=1, max_patches=4, **SQUARE),
        video_processor=InternVLVideoProcessor(**SQUARE),
        tokenizer=tokenizer(
            start_image_token="<|vision_start|>", end_image_token="<|vision_end|>", context_image_token="<image>",
            video_token="<video>",
        ),
        image_seq_length=16,
        chat_template=TEMPLATE,
    )  # fmt: skip


def anyres() -> LlavaNextImageProcessor:
    size = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
    return LlavaNextImageProcessor(image_grid_pinpoints=PINPOINTS, **size)
