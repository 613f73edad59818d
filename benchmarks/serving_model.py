"""A checkpoint to serve: Qwen2.5-VL-7B's width with fewer layers and random weights, in the hub's on-disk layout."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from divprune.efficiency.random_model import random_model

ARCHITECTURE = "qwen2.5-vl-7b"
DECODER_LAYERS, TOWER_LAYERS = 28, 32
NUM_WORDS = 32_000
"""Fewer than the 152,064 of the real one, whose output layer would weigh more than the few decoder layers."""
SPECIAL_WORDS = (
    "<pad>", "<s>", "</s>", "<unk>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
PATCH, MERGE = 14, 2
MOST_PIXELS = 1280 * (PATCH * MERGE) ** 2
CHAT_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|> <|image_pad|> <|vision_end|> "
    "{% elif part['type'] == 'video' %}<|vision_start|> <|video_pad|> <|vision_end|> "
    "{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
)


@dataclass(frozen=True)
class Checkpoint:
    """What was written, and what it costs in plain PyTorch on this machine.

    Attributes:
        num_layers: Decoder layers.
        num_tower_layers: Layers of the vision encoder.
        num_image_tokens: Visual tokens of the image that was timed.
        encoder_seconds: Median time of the vision encoder and its merger on that image.
        prefill_seconds: Median time of the LLM on a prompt of as many tokens.
    """

    num_layers: int
    num_tower_layers: int
    num_image_tokens: int
    encoder_seconds: float
    prefill_seconds: float

    def as_config(self) -> dict[str, Any]:
        """Return what a record tells of it."""
        return {"architecture": ARCHITECTURE, "vocabulary": NUM_WORDS, **asdict(self)}


def write_checkpoint(folder: Path, num_layers: int) -> Checkpoint:
    """Write a model whose vision encoder is as much shallower as its LLM, with a tokenizer that splits at blanks."""
    num_tower_layers = max(1, round(TOWER_LAYERS * num_layers / DECODER_LAYERS))
    model = random_model(_config(num_layers, num_tower_layers))
    costs = _costs(model)
    model.save_pretrained(folder)
    _processor().save_pretrained(folder)
    return Checkpoint(num_layers, num_tower_layers, *costs)


def _config(num_layers: int, num_tower_layers: int) -> Qwen2_5_VLConfig:
    places = {word: place for place, word in enumerate(SPECIAL_WORDS)}
    text = {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": num_layers, "num_attention_heads": 28,
        "num_key_value_heads": 4, "max_position_embeddings": 32768, "vocab_size": NUM_WORDS + len(SPECIAL_WORDS),
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
    }  # fmt: skip
    vision = {
        "depth": num_tower_layers, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
        "out_hidden_size": 3584, "patch_size": PATCH, "spatial_merge_size": MERGE, "window_size": 112,
        "fullatt_block_indexes": [num_tower_layers - 1], "tokens_per_second": 2,
    }  # fmt: skip
    return Qwen2_5_VLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=places["<|image_pad|>"],
        video_token_id=places["<|video_pad|>"],
        vision_start_token_id=places["<|vision_start|>"],
        vision_end_token_id=places["<|vision_end|>"],
        tie_word_embeddings=False,
    )


@torch.no_grad()
def _costs(model: PreTrainedModel, rows: int = 16, columns: int = 16) -> tuple[int, float, float]:
    patches = torch.randn(rows * columns * MERGE**2, 3 * 2 * PATCH**2, dtype=model.dtype)
    grid = torch.tensor([[1, rows * MERGE, columns * MERGE]])
    words = torch.full((1, rows * columns), len(SPECIAL_WORDS))
    encoder = _seconds(lambda: model.base_model.get_image_features(pixel_values=patches, image_grid_thw=grid))
    prefill = _seconds(lambda: model(input_ids=words, logits_to_keep=1))
    return rows * columns, encoder, prefill


def _seconds(call: Callable[[], object]) -> float:
    times = []
    for _ in range(4):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return median(times[1:])


def _processor() -> Qwen2_5_VLProcessor:
    words = [*SPECIAL_WORDS, *(f"w{number}" for number in range(NUM_WORDS))]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(word, normalized=False, special=True) for word in SPECIAL_WORDS])
    limits = {
        "size": {"shortest_edge": 4 * (PATCH * MERGE) ** 2, "longest_edge": MOST_PIXELS},
        "patch_size": PATCH,
        "merge_size": MERGE,
        "temporal_patch_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**limits),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="<pad>",
            bos_token="<s>",
            eos_token="</s>",
            unk_token="<unk>",
            extra_special_tokens={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        ),
        video_processor=Qwen2VLVideoProcessor(**limits),
        chat_template=CHAT_TEMPLATE,
    )
