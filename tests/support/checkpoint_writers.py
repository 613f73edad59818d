"""Checkpoints in the real on-disk layouts, with random weights: what `from_pretrained` finds, only narrow."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaNextVideoProcessor,
    LlavaProcessor,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
)

TEMPLATE = (
    "{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'video' %}VIDEO"
    "{% else %}{{ part['text'] }}{% endif %} {% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""A chat template as LLaVA-1.5's; IMAGE and VIDEO stand for the family's placeholders."""

WORDS = [f"word{index}" for index in range(40)]
_SPECIAL_TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "<video>", "<|vision_start|>", "<|vision_end|>"]
_CLIP_MEAN, _CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def write_llava(folder: Path, *, image_size: int = 56, chat_template: bool = True, dtype: str = "float32") -> Path:
    """LLaVA-1.5: (image_size / 14) ** 2 tokens a picture, 576 at 336 pixels."""
    config = LlavaConfig(
        vision_config=_vision_config(image_size),
        text_config=_llama_config(),
        image_token_id=_token_id("<image>"),
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
    )
    processor = LlavaProcessor(
        image_processor=_clip_processor(image_size),
        tokenizer=_tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_template("<image>", "<video>") if chat_template else None,
    )
    return _write(folder, LlavaForConditionalGeneration, config, processor, dtype)


def write_llava_next_video(folder: Path) -> Path:
    """LLaVA-NeXT-Video: each 56 x 56 frame gives 4 x 4 patches, pooled to 2 x 2 tokens."""
    from transformers import LlavaNextImageProcessor, LlavaNextVideoVideoProcessor

    pinpoints = [[56, 112], [112, 56], [112, 112]]
    size = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
    config = LlavaNextVideoConfig(
        vision_config=_vision_config(56),
        text_config=_llama_config(),
        image_token_id=_token_id("<image>"),
        video_token_id=_token_id("<video>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
    )
    processor = LlavaNextVideoProcessor(
        video_processor=LlavaNextVideoVideoProcessor(**size),
        image_processor=LlavaNextImageProcessor(image_grid_pinpoints=pinpoints, **size),
        tokenizer=_tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_template("<image>", "<video>"),
    )
    return _write(folder, LlavaNextVideoForConditionalGeneration, config, processor)


def write_qwen2_5_vl(folder: Path) -> Path:
    """Qwen2.5-VL: 14 pixel patches merged 2 x 2, two video frames a temporal step, M-RoPE."""
    from transformers import Qwen2VLVideoProcessor

    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32, "patch_size": 14,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 56, "fullatt_block_indexes": [1],
    }  # fmt: skip
    text = {
        "vocab_size": _vocabulary_size(), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=_token_id("<image>"),
        video_token_id=_token_id("<video>"),
        vision_start_token_id=_token_id("<|vision_start|>"),
        vision_end_token_id=_token_id("<|vision_end|>"),
    )
    tokenizer = _tokenizer(image_token="<image>", video_token="<video>")
    limits = {"size": {"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 16}}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**limits),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**limits),
        chat_template=_template("<|vision_start|> <image> <|vision_end|>", "<|vision_start|> <video> <|vision_end|>"),
    )
    return _write(folder, Qwen2_5_VLForConditionalGeneration, config, processor)


def write_clip(folder: Path, *, image_size: int = 56, seed: int = 1) -> Path:
    """A whole CLIP as openai/clip-vit-large-patch14-336 comes: two towers, projections, vocab.json and merges.txt.

    Its tokenizer knows single letters, and its text tower reads 12 tokens.
    """
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789:?!.,"]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    start, end = len(vocabulary) - 2, len(vocabulary) - 1
    text = CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=12, projection_dim=16, bos_token_id=start, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    torch.manual_seed(seed)
    vision = _vision_config(image_size)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "bos_token": "<|startoftext|>", "model_max_length": 12}
    ends = dict.fromkeys(("eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | ends))
    return folder


def write_llava_with_tower(folder: Path, clip: Path) -> Path:
    """LLaVA-1.5 whose vision tower is that of a CLIP checkpoint."""
    write_llava(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    tower = CLIPVisionModel.from_pretrained(clip)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.save_pretrained(folder)
    return folder


def write_text_model(folder: Path) -> Path:
    """A language model without eyes: not something this library can prune."""
    MistralForCausalLM(
        MistralConfig(
            vocab_size=_vocabulary_size(),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
    ).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def _write(folder: Path, model_class: Any, config: Any, processor: Any, dtype: str = "float32") -> Path:
    torch.manual_seed(0)
    model = model_class(config).to(getattr(torch, dtype))
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _vocabulary() -> dict[str, int]:
    words = [*_SPECIAL_TOKENS, "USER:", "ASSISTANT:", "What", "is", "this?", *WORDS]
    return {word: index for index, word in enumerate(words)}


def _vocabulary_size() -> int:
    return len(_vocabulary())


def _token_id(token: str) -> int:
    return _vocabulary()[token]


def _tokenizer(**extra_special_tokens: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(_vocabulary(), unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in _SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=extra_special_tokens,
        padding_side="left",
    )


def _template(image: str, video: str) -> str:
    return TEMPLATE.replace("IMAGE", image).replace("VIDEO", video)


def _clip_processor(image_size: int) -> CLIPImageProcessor:
    return CLIPImageProcessor(
        size={"shortest_edge": image_size},
        crop_size={"height": image_size, "width": image_size},
        image_mean=_CLIP_MEAN,
        image_std=_CLIP_STD,
    )


def _vision_config(image_size: int) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=image_size,
        patch_size=14,
        projection_dim=32,
    )


def _llama_config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=_vocabulary_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
