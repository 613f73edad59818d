"""Small configurations."""

from transformers import LlavaConfig

SMALL_TEXT = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SMALL_TOWER = {**SMALL_TEXT, "model_type": "clip_vision_model", "num_attention_heads": 4}


def small_config() -> LlavaConfig:
    return LlavaConfig(text_config=SMALL_TEXT, vision_config=SMALL_TOWER, image_token_index=30001)
