"""A checkpoint to serve: Qwen2.5-VL-7B's width with fewer layers and random weights, in the hub's on-disk layout."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from divprune.efficiency.random_models import random_model

DECODER_LAYERS, TOWER_LAYERS = 28, 32
NUM_WORDS = 32_000
"""Fewer than the 152,064 of the real one, whose output layer would weigh more than the few decoder layers."""
SPECIAL_WORDS = (
    "<pad>", "<s>", "</s>", "<unk>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
PATCH, MERGE = 14, 2
MAX_PIXELS = 1280 * (PATCH * MERGE) ** 2
CHAT_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|> <|image_pad|> <|vision_end|> "
    "{% elif part['type'] == 'video' %}<|vision_start|> <|video_pad|> <|vision_end|> "
    "{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
)


@dataclass(frozen=True)
class Width:
    """What a model's layers cost; heads have 128 values in the LLM and 80 in the vision encoder."""

    architecture: str
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_key_value_heads: int
    vision_hidden_size: int
    vision_intermediate_size: int


WIDTHS = {
    "7b": Width("qwen2.5-vl-7b", 3584, 18944, 28, 4, 1280, 3420),
    # To try a benchmark; its numbers tell nothing of models.
    "toy": Width("toy", 256, 512, 2, 1, 160, 256),
}


@dataclass(frozen=True)
class Checkpoint:
    """What was written.

    Attributes:
        architecture: Whose width it has.
        num_layers: Decoder layers.
        num_tower_layers: Layers of the vision encoder.
        num_words: Size of the vocabulary.
    """

    architecture: str
    num_layers: int
    num_tower_layers: int
    num_words: int

    def as_config(self) -> dict[str, Any]:
        """Return what a record tells of it."""
        return asdict(self)


def write_checkpoint(folder: Path, width: Width, num_layers: int) -> Checkpoint:
    """Write a model whose vision encoder is as much shallower as its LLM, with a tokenizer that splits at blanks."""
    num_tower_layers = max(1, round(TOWER_LAYERS * num_layers / DECODER_LAYERS))
    random_model(_config(width, num_layers, num_tower_layers)).save_pretrained(folder)
    _processor().save_pretrained(folder)
    return Checkpoint(width.architecture, num_layers, num_tower_layers, NUM_WORDS)


def _config(width: Width, num_layers: int, num_tower_layers: int) -> Qwen2_5_VLConfig:
    places = {word: place for place, word in enumerate(SPECIAL_WORDS)}
    text = {
        "hidden_size": width.hidden_size, "intermediate_size": width.intermediate_size, "num_hidden_layers": num_layers,
        "num_attention_heads": width.num_heads, "num_key_value_heads": width.num_key_value_heads,
        "max_position_embeddings": 32768, "vocab_size": NUM_WORDS + len(SPECIAL_WORDS), "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    vision = {
        "depth": num_tower_layers, "hidden_size": width.vision_hidden_size, "num_heads": width.vision_hidden_size // 80,
        "intermediate_size": width.vision_intermediate_size, "out_hidden_size": width.hidden_size, "patch_size": PATCH,
        "spatial_merge_size": MERGE, "window_size": 112, "fullatt_block_indexes": [num_tower_layers - 1],
        "tokens_per_second": 2,
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


def _processor() -> Qwen2_5_VLProcessor:
    words = [*SPECIAL_WORDS, *(f"w{number}" for number in range(NUM_WORDS))]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(word, normalized=False, special=True) for word in SPECIAL_WORDS])
    limits = {
        "size": {"shortest_edge": 4 * (PATCH * MERGE) ** 2, "longest_edge": MAX_PIXELS},
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
