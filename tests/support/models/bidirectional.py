"""More tiny models whose visual tokens see each other both ways, or whose ids are looked up twice."""

import inspect

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.support.models.base import (
    IMAGE,
    TEXT_SIZES,
    VIDEO,
    VOCABULARY,
    Case,
    Media,
    build_model,
    config_of,
    mm_types,
    noise,
)
from tests.support.models.gemma import BOTH, HEADS, build_gemma, framed

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
UNTIED = {"tie_word_embeddings": False}


def gemma3n() -> PreTrainedModel:
    """MobileNet comes with another package, timm; any tower of convolutions stands in for it."""
    text = config_of("Gemma3nText")(
        **TEXT_SIZES | VOCABULARY | HEADS | {"num_hidden_layers": 4}, sliding_window=20,
        layer_types=["sliding_attention", "full_attention"] * 2, hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=IMAGE, num_kv_shared_layers=2, laurel_rank=8, altup_num_inputs=2,
        activation_sparsity_pattern=[0.0] * 4,
    )  # fmt: skip
    config = config_of("Gemma3n")(
        text_config=text, image_token_id=IMAGE, audio_token_id=98, vision_soft_tokens_per_image=16, **UNTIED,
        vision_config={"hidden_size": 32, "vocab_offset": IMAGE, "vocab_size": 2, "label_names": ["none"]},
        audio_config={
            "hidden_size": 16, "vocab_offset": 97, "vocab_size": 2, "conf_num_attention_heads": 2,
            "conf_num_hidden_layers": 1, "input_feat_size": 16, "sscp_conv_channel_size": [4, 4],
        },
    )  # fmt: skip
    tower = config_of("ConvNext")(hidden_sizes=[16, 32], depths=[1, 1], num_stages=2, patch_size=4, image_size=32)
    for name in ("hidden_size", "vocab_offset", "vocab_size", "rms_norm_eps"):
        setattr(tower, name, getattr(config.vision_config, name))
    object.__setattr__(config, "vision_config", tower)  # the config itself takes no other tower
    model = build_gemma(config)
    model.lm_head.weight.data[VIDEO:] = 0  # ids that only pictures and sounds have, which the reference cannot embed
    return model


def gemma4_unified() -> PreTrainedModel:
    text = {
        **TEXT_SIZES, **VOCABULARY, **HEADS, "num_hidden_layers": 4, "global_head_dim": 8, "sliding_window": 20,
        "layer_types": ["sliding_attention", "full_attention"] * 2, "use_bidirectional_attention": "vision",
    }  # fmt: skip
    vision = {"patch_size": 2, "pooling_kernel_size": 2, "mm_embed_dim": 32, "mm_posemb_size": 32}
    return build_gemma(
        config_of("Gemma4Unified")(
            vision_config={**vision, "output_proj_dims": 32}, text_config=text, image_token_id=IMAGE,
            video_token_id=VIDEO, audio_token_id=0, audio_config=None, **UNTIED,
        )
    )  # fmt: skip


def molmo2() -> PreTrainedModel:
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8}
    vision = config_of("Molmo2Vision")(**SIZES | heads, image_size=[42, 42], patch_size=7)
    adapter = config_of("Molmo2Adapter")(
        **heads, vision_feature_layer=[1, 0], hidden_size=32, intermediate_size=64, text_hidden_size=32
    )
    text = config_of("Molmo2Text")(
        **TEXT_SIZES, num_key_value_heads=2, head_dim=8, vocab_size=99, additional_vocab_size=1
    )
    config = config_of("Molmo2")(
        vision_config=vision, adapter_config=adapter, text_config=text, image_patch_id=IMAGE, **UNTIED
    )
    return build_model(config)


def small_squares(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    return {"pixel_values": noise(sum(counts), 3, 32, 32, seed=sum(counts))}


def merged_patches(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    """Patches filled up to 24 with position (-1, -1); 3 frames a video."""
    grids = [(4, 6), (6, 3), (4, 4)] if kind == "image" else [(2, 4)] * 9
    grids = grids[: sum(counts) * (1 if kind == "image" else 3)]
    positions = torch.stack([_positions(rows, columns) for rows, columns in grids])
    pixels = {"image": "pixel_values", "video": "pixel_values_videos"}[kind]
    media = {pixels: noise(len(grids), 24, 48, seed=len(grids)), f"{kind}_position_ids": positions}
    if kind == "image":
        return media
    if "num_frames_per_video" in inspect.signature(model.model.get_video_features).parameters:
        return {**media, "num_frames_per_video": torch.tensor([3] * sum(counts))}
    return {name: value.unflatten(0, (sum(counts), 3)) for name, value in media.items()}


def _positions(rows: int, columns: int) -> Tensor:
    """(24, 2) patch coordinates (x, y)."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    positions = torch.stack([x, y], dim=-1).flatten(0, 1)
    return torch.cat([positions, torch.full((24 - len(positions), 2), -1)])


def pooled_patches(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    """A picture is 3 x 3 tokens of the whole, then 2 x 3 of a crop; a video is 3 frames of 2 x 3."""
    crops, per_crop = (2, [9, 6]) if kind == "image" else (3, [6, 6, 6])
    count = sum(counts)
    starts = torch.arange(count * crops) * 36
    pooled = [start + _pooled(size // 3) for start, size in zip(starts, per_crop * count, strict=True)]
    grid = [3, 3, 2, 3] if kind == "image" else [3, 2, 3]
    pixels = {"image": "pixel_values", "video": "pixel_values_videos"}[kind]
    return {
        pixels: noise(count * crops, 36, 147, seed=count), f"{kind}_token_pooling": torch.cat(pooled),
        f"{kind}_grids": torch.tensor([grid] * count),
    }  # fmt: skip


def _pooled(rows: int) -> Tensor:
    """(rows * 3, 4) the patches, in 6 columns, of each token."""
    corners = (torch.arange(rows)[:, None] * 12 + torch.arange(3) * 2).flatten()
    return corners[:, None] + torch.tensor([0, 1, 6, 7])


def rows_ended(kind: str, inputs: Media, index: int, count: int) -> list[int]:
    """A token after every row of three; both kinds have one placeholder."""
    return [90, *([IMAGE] * 3 + [91]) * (count // 3), 92]


def visual_types(ids: Tensor, kinds: tuple[str, ...]) -> dict[str, Tensor]:
    return {"mm_token_type_ids": torch.isin(ids, torch.tensor([IMAGE, 90, 91, 92])).int()}


def placeholders_embedded(model: PreTrainedModel, ids: Tensor) -> Tensor:
    return model.get_input_embeddings()(ids).clone()


BIDIRECTIONAL_CASES = (
    Case("gemma3n", gemma3n, small_squares, spell=framed),
    Case("gemma4_unified", gemma4_unified, merged_patches, BOTH, spell=framed, types=mm_types, block="runs"),
    Case(
        "molmo2", molmo2, pooled_patches, BOTH, spell=rows_ended, types=visual_types, block="mm_token_type_ids",
        mixed=False, adds=True, embeds=placeholders_embedded,
    ),
)  # fmt: skip
