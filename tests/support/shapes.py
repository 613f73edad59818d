"""Small configurations."""

from transformers import LlavaConfig

_SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL_TEXT = {**_SIZES, "model_type": "llama", "vocab_size": 30100}
SMALL_TOWER = {**_SIZES, "model_type": "clip_vision_model", "image_size": 56, "patch_size": 14}


def small_config() -> LlavaConfig:
    return LlavaConfig(text_config=SMALL_TEXT, vision_config=SMALL_TOWER, image_token_index=30001)
