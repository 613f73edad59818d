"""A tiny InternVL in the layout of its remote code, made from one in transformers' layout that the reference reads."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer

from tests.serving.checkpoints import VOCABULARY, chat_template, tokenizer, write
from tests.serving.tiled_checkpoints import internvl_config, internvl_processor

CONTEXT = VOCABULARY["<IMG_CONTEXT>"]
IMAGE_PROCESSOR = {
    "image_size": 56, "min_dynamic_patch": 1, "max_dynamic_patch": 4, "dynamic_image_size": True, "use_thumbnail": True,
}  # fmt: skip
TILE_TOKENS = 16

NAMES = {
    r"^vision_tower\.embeddings\.cls_token": "vision_model.embeddings.class_embedding",
    r"^vision_tower\.embeddings\.position_embeddings": "vision_model.embeddings.position_embedding",
    r"^vision_tower\.embeddings\.patch_embeddings\.projection": "vision_model.embeddings.patch_embedding",
    r"^vision_tower\.encoder\.layer": "vision_model.encoder.layers",
    r"lambda_": "ls",
    r"attention\.projection_layer": "attn.proj",
    r"layernorm_before": "norm1",
    r"layernorm_after": "norm2",
    r"^multi_modal_projector\.layer_norm": "mlp1.0",
    r"^multi_modal_projector\.linear_1": "mlp1.1",
    r"^multi_modal_projector\.linear_2": "mlp1.3",
}
CONFIG_CODE = """
from transformers import PretrainedConfig, Qwen2Config


class InternVisionConfig(PretrainedConfig):
    model_type = "intern_vit_6b"


class InternVLChatConfig(PretrainedConfig):
    model_type = "internvl_chat"

    def __init__(self, vision_config=None, llm_config=None, **kwargs):
        super().__init__(**kwargs)
        self.vision_config = InternVisionConfig(**(vision_config or {}))
        self.llm_config = Qwen2Config(**(llm_config or {}))
"""


def write_internvl_chat(folder: Path) -> None:
    native = internvl_config()
    native.image_token_id = CONTEXT
    write(folder / "native", native, internvl_processor())
    save_file(renamed(load_file(folder / "native" / "model.safetensors")), folder / "model.safetensors")
    text = native.text_config.to_dict() | {"architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": False}
    vision = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56,
        "patch_size": 7, "num_channels": 3, "qkv_bias": False, "qk_normalization": False, "norm_type": "layer_norm",
        "layer_norm_eps": 1e-6, "hidden_act": "gelu", "initializer_factor": 1.0, "attention_dropout": 0.0,
        "dropout": 0.0, "drop_path_rate": 0.0, "use_flash_attn": False,
    }  # fmt: skip
    config = {
        "architectures": ["InternVLChatModel"], "model_type": "internvl_chat", "vision_config": vision,
        "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"}, "llm_config": text,
        "downsample_ratio": 0.5, "dynamic_image_size": True, "force_image_size": 56, "min_dynamic_patch": 1,
        "max_dynamic_patch": 4, "ps_version": "v2", "select_layer": -1, "use_thumbnail": True, "torch_dtype": "float32",
        "tie_word_embeddings": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "configuration_internvl_chat.py").write_text(CONFIG_CODE, encoding="utf-8")
    own = tokenizer()
    own.chat_template = chat_template("<image>", "<video>")
    own.save_pretrained(folder)


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of the remote code; queries, keys and values of the vision encoder are one matrix there."""
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        for ours, theirs in NAMES.items():
            name = re.sub(ours, theirs, name)
        found[name] = weight
    for layer in range(2):
        part = f"vision_model.encoder.layers.{layer}."
        joined = [found.pop(f"{part}attention.{kind}_proj.weight") for kind in "qkv"]
        found[f"{part}attn.qkv.weight"] = torch.cat(joined)
    return found


def chat_processor(folder: Path) -> Callable[..., Any]:
    """vLLM's processor, for want of one in transformers; what it gives, under transformers' names."""
    from vllm.transformers_utils.processors import internvl

    # vLLM 0.33 renamed them.
    image_class, whole_class = (
        getattr(internvl, f"InternVLChat{kind}", None) or getattr(internvl, f"InternVL{kind}")
        for kind in ("ImageProcessor", "Processor")
    )
    processor = whole_class(
        image_class(**IMAGE_PROCESSOR), AutoTokenizer.from_pretrained(folder), image_seq_length=TILE_TOKENS
    )

    def call(**arguments: Any) -> Any:
        inputs = processor(**arguments)
        if "pixel_values_flat" in inputs:
            inputs["pixel_values"] = inputs.pop("pixel_values_flat")
        return inputs

    return call
