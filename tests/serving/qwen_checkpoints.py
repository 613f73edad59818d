"""Tiny Qwen-VL checkpoints: patches are merged 2 x 2, at most 36 tokens a picture, M-RoPE."""

from pathlib import Path
from typing import Any

from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from tests.serving.checkpoints import TEXT_SIZES, VOCABULARY, chat_template, tokenizer, write

ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
SPECIAL = {
    "image_token_id": VOCABULARY["<|image_pad|>"], "video_token_id": VOCABULARY["<|video_pad|>"],
    "vision_start_token_id": VOCABULARY["<|vision_start|>"],
    "vision_end_token_id": VOCABULARY["<|vision_end|>"], "tie_word_embeddings": False,
}  # fmt: skip
TEMPLATE = chat_template("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>")
VISION = {"depth": 2, "hidden_size": 64, "intermediate_size": 96, "num_heads": 2, "patch_size": 14}
MAX_TOKENS = 36


def write_qwen2_vl(folder: Path) -> None:
    vision = {"depth": 2, "embed_dim": 64, "hidden_size": 64, "num_heads": 2, "patch_size": 14, "mlp_ratio": 2}
    config = Qwen2VLConfig(vision_config=vision, text_config={**TEXT_SIZES, "rope_parameters": ROPE}, **SPECIAL)
    write(folder, config, processor(Qwen2VLProcessor, Qwen2VLVideoProcessor))


def write_qwen2_5_vl(folder: Path) -> None:
    vision = {
        **VISION, "out_hidden_size": 64, "window_size": 56, "fullatt_block_indexes": [1], "tokens_per_second": 2,
    }  # fmt: skip
    config = Qwen2_5_VLConfig(vision_config=vision, text_config={**TEXT_SIZES, "rope_parameters": ROPE}, **SPECIAL)
    write(folder, config, processor(Qwen2_5_VLProcessor, Qwen2VLVideoProcessor))


def write_qwen3_vl(folder: Path) -> None:
    """With two features for deeper layers."""
    vision = {
        **VISION, "depth": 3, "out_hidden_size": 64, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1],
    }  # fmt: skip
    text = {**TEXT_SIZES, "head_dim": 32, "rope_parameters": {**ROPE, "mrope_interleaved": True}}
    config = Qwen3VLConfig(vision_config=vision, text_config=text, **SPECIAL)
    write(folder, config, processor(Qwen3VLProcessor, Qwen3VLVideoProcessor))


def processor(processor_class: Any, video_class: Any) -> Any:
    limits = {
        "size": {"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * MAX_TOKENS},
        "patch_size": 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
        # vLLM normalises pictures and videos alike, on the device, by the values of the former.
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    return processor_class(
        image_processor=Qwen2VLImageProcessor(**limits),
        tokenizer=tokenizer(image_token="<|image_pad|>", video_token="<|video_pad|>"),
        video_processor=video_class(**limits),
        chat_template=TEMPLATE,
    )
