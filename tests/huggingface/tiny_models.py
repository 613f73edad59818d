"""Tiny models of each family, built from their configs with weights that react, and batches to call them with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaNextVideoConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
)

IMAGE, VIDEO = 95, 96
TEXT_SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
VOCABULARY = {"vocab_size": 99, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}


@dataclass(frozen=True)
class Case:
    """A model and a way to make inputs: `inputs(rows)` takes rows of text ids with "image"/"video" in between."""

    name: str
    build: Callable[[], PreTrainedModel]
    media: Callable[[PreTrainedModel, str, int], dict[str, Any]]
    kinds: tuple[str, ...]


def reactive(model: PreTrainedModel) -> PreTrainedModel:
    """Random weights with activations and logits of order one, so that every visual token matters to the output."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                gain = 1.0 if "embed" in name else 1.4 / fan_in**0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * gain)
        model.lm_head.weight.mul_(2.5)
    model.generation_config.eos_token_id = None
    return model.eval()


def _clip(size: int, patch_size: int = 7) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        image_size=size, patch_size=patch_size, projection_dim=32,
    )  # fmt: skip


def _model(config: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config.text_config.attn_implementation = "sdpa"
    return reactive(AutoModelForImageTextToText.from_config(config))


def _llama() -> LlamaConfig:
    return LlamaConfig(**TEXT_SIZES, **VOCABULARY, num_key_value_heads=2)


def llava() -> PreTrainedModel:
    return _model(LlavaConfig(vision_config=_clip(42), text_config=_llama(), image_token_id=IMAGE))


def llava_next() -> PreTrainedModel:
    return _model(
        LlavaNextConfig(
            vision_config=_clip(28), text_config=_llama(), image_token_id=IMAGE,
            image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]],
        )
    )  # fmt: skip


def llava_next_video() -> PreTrainedModel:
    return _model(
        LlavaNextVideoConfig(
            vision_config=_clip(28), text_config=_llama(), image_token_id=IMAGE, video_token_id=VIDEO,
            image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]],
        )
    )  # fmt: skip


def qwen2_5_vl() -> PreTrainedModel:
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "patch_size": 2, "window_size": 16,
        "out_hidden_size": 32, "fullatt_block_indexes": [1], "tokens_per_second": 2,
    }  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
    text = {**TEXT_SIZES, **VOCABULARY, "num_key_value_heads": 2, "rope_parameters": rope}
    return _model(
        Qwen2_5_VLConfig(
            vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=VIDEO,
            vision_start_token_id=97, vision_end_token_id=98,
        )
    )  # fmt: skip


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def llava_media(model: PreTrainedModel, kind: str, count: int) -> dict[str, Any]:
    size = model.config.vision_config.image_size
    return {"pixel_values": noise(count, 3, size, size, seed=count)}


def llava_next_media(model: PreTrainedModel, kind: str, count: int) -> dict[str, Any]:
    size = model.config.vision_config.image_size
    if kind == "video":
        return {"pixel_values_videos": noise(count, 3, 3, size, size, seed=count)}
    sizes = [(40, 30), (20, 50), (33, 31), (60, 20)][:count]
    return {"pixel_values": noise(count, 5, 3, size, size, seed=count), "image_sizes": torch.tensor(sizes)}


def qwen_media(model: PreTrainedModel, kind: str, count: int) -> dict[str, Any]:
    grids = {"image": [(1, 8, 12), (1, 12, 6), (1, 4, 10)], "video": [(3, 4, 8), (2, 8, 6), (4, 4, 6)]}[kind][:count]
    patches = sum(t * h * w for t, h, w in grids)
    pixels = {"image": "pixel_values", "video": "pixel_values_videos"}[kind]
    extra = {"second_per_grid_ts": torch.full((count,), 1.5)} if kind == "video" else {}
    return {pixels: noise(patches, 3 * 2 * 2 * 2, seed=count), f"{kind}_grid_thw": torch.tensor(grids), **extra}


CASES = {
    case.name: case
    for case in (
        Case("llava", llava, llava_media, ("image",)),
        Case("llava_next", llava_next, llava_next_media, ("image",)),
        Case("llava_next_video", llava_next_video, llava_next_media, ("image", "video")),
        Case("qwen2_5_vl", qwen2_5_vl, qwen_media, ("image", "video")),
    )
}

Row = list[int | str]


def make_inputs(case: Case, model: PreTrainedModel, rows: list[Row]) -> dict[str, Any]:
    """A left-padded batch; each "image" or "video" in a row becomes as many placeholders as it has tokens."""
    inputs: dict[str, Any] = {}
    counts: dict[str, list[int]] = {}
    for kind in case.kinds:
        count = sum(row.count(kind) for row in rows)
        if count:
            media = case.media(model, kind, count)
            inputs |= media
            counts[kind] = [len(tokens) for tokens in features(model, kind, media)]
    expanded = [_expand(row, counts) for row in rows]
    length = max(map(len, expanded))
    inputs["input_ids"] = torch.tensor([[0] * (length - len(row)) + row for row in expanded])
    inputs["attention_mask"] = (inputs["input_ids"] != 0).long()
    if model.config.model_type == "qwen2_5_vl":
        ids = inputs["input_ids"]
        inputs["mm_token_type_ids"] = (ids == IMAGE).int() + 2 * (ids == VIDEO).int()
    return inputs


def features(model: PreTrainedModel, kind: str, inputs: dict[str, Any]) -> list[Tensor]:
    """The visual tokens of each item, [(M, d), ...]."""
    names = {
        "image": ("pixel_values", "image_sizes", "image_grid_thw"),
        "video": ("pixel_values_videos", "video_grid_thw"),
    }
    arguments = {name: inputs[name] for name in names[kind] if name in inputs}
    with torch.no_grad():
        output = getattr(model.model, f"get_{kind}_features")(**arguments, return_dict=True)
    return [item.reshape(-1, item.shape[-1]) for item in output.pooler_output]


def _expand(row: Row, counts: dict[str, list[int]]) -> list[int]:
    ids: list[int] = []
    for part in row:
        ids += [part] if isinstance(part, int) else [IMAGE if part == "image" else VIDEO] * counts[part].pop(0)
    return ids
