"""Tiny checkpoints as engines find them: the hub's files, with random weights that react to every token."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from tests.support.models.base import reactive

TEXT_SIZES = {
    # vLLM's attention on CPUs wants heads of 32 at least.
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "vocab_size": 72, "tie_word_embeddings": False,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SPECIAL_TOKENS = [
    "<pad>", "<s>", "</s>", "<unk>", "<image>", "<video>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>", "<img>", "</img>", "<IMG_CONTEXT>",
]  # fmt: skip
VOCABULARY = {word: index for index, word in enumerate([*SPECIAL_TOKENS, *(f"word{i}" for i in range(54))])}
IMAGE, VIDEO = VOCABULARY["<image>"], VOCABULARY["<video>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}word0 {% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE {% elif part['type'] == 'video' %}VIDEO "
    "{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endif %}{% endfor %}word1"
)


def write_llava(folder: Path) -> None:
    """LLaVA-1.5: 36 tokens a picture."""
    config = LlavaConfig(
        vision_config=clip(84),
        text_config=LlamaConfig(**TEXT_SIZES),
        image_token_index=IMAGE,
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 84}, crop_size={"height": 84, "width": 84}),
        tokenizer=tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template("<image>", "<video>"),
    )
    write(folder, config, processor, hub_names={"vision_tower.": "vision_tower.vision_model."})


def write(folder: Path, config: Any, processor: Any, hub_names: dict[str, str] | None = None) -> None:
    """Save a model of the configuration, and its processor.

    Args:
        folder: Where.
        config: The model's configuration.
        processor: Its processor.
        hub_names: Prefixes of weights that hub checkpoints spell otherwise than transformers now does.
    """
    torch.manual_seed(0)
    model = reactive(AutoModelForImageTextToText.from_config(config))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if hub_names:
        rename_weights(folder / "model.safetensors", hub_names)


def rename_weights(path: Path, hub_names: dict[str, str]) -> None:
    weights = load_file(path)
    for ours, theirs in hub_names.items():
        weights = {name.replace(ours, theirs): weight for name, weight in weights.items()}
    save_file(weights, path, metadata={"format": "pt"})


def chat_template(image: str, video: str) -> str:
    return CHAT_TEMPLATE.replace("IMAGE", image).replace("VIDEO", video)


def clip(image_size: int, patch_size: int = 14) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=2, image_size=image_size,
        patch_size=patch_size, projection_dim=64,
    )  # fmt: skip


def tokenizer(**extra_special_tokens: str) -> PreTrainedTokenizerFast:
    """Splits at blanks."""
    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=extra_special_tokens,
    )
