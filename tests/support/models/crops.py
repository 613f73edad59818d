"""Tiny models that look at a picture as a whole and at crops of it."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.support.models.base import IMAGE, TEXT_SIZES, VIDEO, VOCABULARY, Case, Media, build_model, config_of, noise
from tests.support.models.qwen import ROPE, with_small_logits
from tests.support.models.tiles import TILE_COUNTS, nested_tiles, tagged_tiles, tiles_joined

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT: dict[str, Any] = {**TEXT_SIZES, **VOCABULARY, "num_key_value_heads": 2}
UNTIED = {"tie_word_embeddings": False}
SAM = {
    "hidden_size": 32, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64,
    "patch_size": 4, "window_size": 4, "global_attn_indexes": [1], "mlp_dim": 64, "downsample_channels": [16, 32],
}  # fmt: skip
EXPERTS = {
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "n_group": 1, "topk_group": 1, "mlp_layer_types": ["dense", "sparse", "sparse"],
}  # fmt: skip


def deepseek_ocr2() -> PreTrainedModel:
    encoder = {**SIZES, "num_key_value_heads": 2, "vocab_size": 9}
    vision = config_of("DeepseekOcr2Vision")(sam_config=dict(SAM), encoder_config=encoder)
    text = config_of("DeepseekOcr2Text")(**TEXT, **EXPERTS)
    config = config_of("DeepseekOcr2")(vision_config=vision, text_config=text, image_token_id=IMAGE, **UNTIED)
    return with_small_logits(build_model(config))


def unlimited_ocr() -> PreTrainedModel:
    encoder = {**SIZES, "image_size": 4, "patch_size": 1}
    vision = config_of("UnlimitedOcrVision")(sam_config=dict(SAM), encoder_config=encoder)
    text = config_of("UnlimitedOcrText")(**TEXT, **EXPERTS)
    return build_model(
        config_of("UnlimitedOcr")(vision_config=vision, text_config=text, image_token_id=IMAGE, **UNTIED)
    )


def step3p7() -> PreTrainedModel:
    vision = config_of("Step3p7Vision")(
        **SIZES, image_size=64, patch_size=4, mlp_ratio=2.0, max_position_embeddings=256
    )
    text = config_of("Step3p7Text")(
        **TEXT, head_dim=8, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, share_expert_dim=16,
        mlp_layer_types=["dense", "sparse", "sparse"], sliding_window=20,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )  # fmt: skip
    return build_model(config_of("Step3p7")(vision_config=vision, text_config=text, image_token_id=IMAGE))


def granite_docling() -> PreTrainedModel:
    vision = config_of("GraniteDoclingVision")(
        **SIZES | {"num_hidden_layers": 3}, image_size=56, patch_size=7, out_hidden_size=32, scale_factor=2,
        deepstack_visual_indexes=[0, 1],
    )  # fmt: skip
    text = config_of("GraniteDoclingText")(
        **TEXT, embedding_multiplier=1.0, logits_scaling=1.0, residual_multiplier=1.0, attention_multiplier=0.35
    )
    return build_model(
        config_of("GraniteDocling")(vision_config=vision, text_config=text, image_token_id=IMAGE, **UNTIED)
    )


def minicpm(name: str, **tags: int) -> PreTrainedModel:
    vision = config_of(f"{name}Vision")(**SIZES, image_size=32, patch_size=2, insert_layer_id=0)
    text = {
        **TEXT, "model_type": "qwen3_5_text", "head_dim": 16, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "layer_types": ["full_attention", "linear_attention", "full_attention"],
        "rope_parameters": {**ROPE, "mrope_interleaved": True, "partial_rotary_factor": 0.5},
    }  # fmt: skip
    config = config_of(name)(
        vision_config=vision,
        text_config=text,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        insert_layer_id=0,
        **UNTIED,
        **tags,
    )
    return with_small_logits(build_model(config))


def minicpmv4_6() -> PreTrainedModel:
    config_of("MiniCPMV4_6", since="5.23")
    return minicpm("MiniCPMV4_6")


def minicpm_ocr() -> PreTrainedModel:
    return minicpm("MiniCPMOcr")


CROPS = [2, 0, 1]
"""Crops of each picture of a call."""


def cropped_media(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    count = sum(counts)
    media = {"pixel_values": noise(count, 3, 64, 64, seed=count), "num_local_patches": CROPS[:count]}
    return media | {"pixel_values_local": noise(sum(CROPS[:count]), 3, 64, 64, seed=count + 5)}


def gridded_media(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    return cropped_media(model, kind, counts) | {"patches_grid": [(2, 1), (1, 1), (1, 1)][: sum(counts)]}


def masked_tiles(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    """A mask says which tiles are there."""
    pixels = nested_tiles(model, kind, counts)["pixel_values"]
    items = iter(TILE_COUNTS)
    tiles = torch.tensor([sum(next(items) for _ in range(count)) for count in counts])
    return {"pixel_values": pixels, "pixel_attention_mask": torch.arange(pixels.shape[1]) < tiles[:, None]}


SLICES = [[(8, 12), (8, 8), (8, 8)], [(16, 16)], [(8, 8), (8, 16), (8, 16)]]
"""Patches (rows, columns) of the whole and of each slice of a picture; 16 of them, or 4, are one token."""


def sliced_media(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    """All patches of a call side by side, (1, 3, patch, patches * patch)."""
    sizes = [size for picture in SLICES[: sum(counts)] for size in picture]
    num_patches = sum(rows * columns for rows, columns in sizes)
    return {"pixel_values": noise(1, 3, 2, 2 * num_patches, seed=num_patches), "target_sizes": torch.tensor(sizes)}


def slices_joined(model: PreTrainedModel, kind: str, inputs: Media, entries: list[Tensor]) -> list[Tensor]:
    counts = [len(picture) for picture in SLICES]
    ends = [sum(counts[: number + 1]) for number in range(len(counts)) if sum(counts[:number]) < len(entries)]
    return [torch.cat(entries[end - count : end]) for end, count in zip(ends, counts, strict=False)]


def sliced(kind: str, inputs: Media, index: int, count: int) -> list[int]:
    """The whole picture first; it and each slice between tags of their own."""
    merged = sum(rows * columns for rows, columns in SLICES[index]) // count
    whole, *slices = (rows * columns // merged for rows, columns in SLICES[index])
    return [90, *[IMAGE] * whole, 91, *(token for size in slices for token in [92, *[IMAGE] * size, 93])]


CROP_CASES = (
    Case("deepseek_ocr2", deepseek_ocr2, cropped_media),
    Case("unlimited_ocr", unlimited_ocr, gridded_media),
    Case("step3p7", step3p7, cropped_media),
    Case("granite_docling", granite_docling, masked_tiles, spell=tagged_tiles, items=tiles_joined),
    Case("minicpmv4_6", minicpmv4_6, sliced_media, spell=sliced, items=slices_joined),
    Case("minicpm_ocr", minicpm_ocr, sliced_media, spell=sliced, items=slices_joined),
)
