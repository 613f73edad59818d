"""More tiny models whose position ids are (frame, row, column) coordinates."""

from typing import Any

import torch
import transformers
from packaging.version import Version
from torch import Tensor
from transformers import AutoModelForMultimodalLM, PreTrainedModel

from tests.support.models.base import IMAGE, VIDEO, Case, Media, build_model, config_of, mm_types, noise, reactive
from tests.support.models.crops import minicpm
from tests.support.models.qwen import (
    BOTH,
    ROPE,
    SPECIAL,
    TEXT,
    VISION,
    grid_media,
    merged_grid,
    one_stretch,
    stretch_a_frame,
    timestamped,
)

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
UNTIED = {"tie_word_embeddings": False}
DEEP = {
    **VISION, "depth": 3, "out_hidden_size": 32, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]
}  # fmt: skip
INTERLEAVED = {"rope_parameters": {**ROPE, "mrope_interleaved": True}}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


def paddleocr_vl() -> PreTrainedModel:
    vision = config_of("PaddleOCRVision")(**SIZES, image_size=16, patch_size=2)
    text = config_of("PaddleOCRText")(**TEXT, head_dim=8, **UNTIED)
    return build_model(config_of("PaddleOCRVL")(vision_config=vision, text_config=text, **SPECIAL, **UNTIED))


def cosmos3_edge() -> PreTrainedModel:
    vision = config_of("Cosmos3EdgeVision", since="5.23")(**SIZES, num_patches=64, patch_size=2)
    text = config_of("Cosmos3EdgeText")(**TEXT, head_dim=8)
    return build_model(
        config_of("Cosmos3Edge")(vision_config=vision, text_config=text, projector_hidden_size=32, **SPECIAL, **UNTIED)
    )


def cosmos3_omni() -> PreTrainedModel:
    text = {**TEXT, "head_dim": 8, "model_type": "qwen3_vl_text", **INTERLEAVED}
    return build_model(config_of("Cosmos3Omni")(vision_config=dict(DEEP), text_config=text, **SPECIAL, **UNTIED))


def cohere_compass() -> PreTrainedModel:
    vision = config_of("CohereCompassVision")(**DEEP)
    text = config_of("CohereCompassText")(
        **TEXT | {"rope_parameters": {"full_attention": INTERLEAVED["rope_parameters"], "sliding_attention": None}},
        layer_types=["sliding_attention", "full_attention", "sliding_attention"], sliding_window=20,
    )  # fmt: skip
    return build_model(config_of("CohereCompass")(vision_config=vision, text_config=text, **SPECIAL, **UNTIED))


def ernie4_5_vl_moe() -> PreTrainedModel:
    vision = config_of("Ernie4_5_VLMoeVision")(**VISION, temporal_merge_size=2)
    text = config_of("Ernie4_5_VLMoeText")(
        **TEXT | {"rope_parameters": {**ROPE, "mrope_section": [1, 1, 2]}}, moe_intermediate_size=[16, 16], moe_k=2,
        moe_num_experts=4, moe_num_shared_experts=1,
    )  # fmt: skip
    return build_model(
        config_of("Ernie4_5_VLMoe")(
            vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=VIDEO,
            image_start_token_id=97, image_end_token_id=98, video_start_token_id=93, video_end_token_id=94, **UNTIED,
        )
    )  # fmt: skip


def hunyuan_vl() -> PreTrainedModel:
    vision = config_of("HunYuanVLVision")(**SIZES, patch_size=2, out_hidden_size=32, max_image_size=32)
    text = config_of("HunYuanVLText")(
        **TEXT | {"rope_parameters": {**ROPE, "mrope_section": [1, 1, 1, 1]}}, head_dim=8, **UNTIED
    )
    return build_model(config_of("HunYuanVL")(vision_config=vision, text_config=text, image_token_id=IMAGE, **UNTIED))


def newline_grid(kind: str, inputs: Media, index: int) -> list[list[tuple[int, int, int]]]:
    """A token that begins, rows that end in a newline token, a token that ends."""
    _, rows, columns = merged_grid(kind, inputs, index)
    return [[(0, 0, 0), *((0, h, w) for h in range(rows) for w in range(columns + 1)), (0, 0, 0)]]


def split_by_grid(model: PreTrainedModel, kind: str, inputs: Media, entries: Any) -> list[Tensor]:
    """5.18 hands all pictures over as one."""
    counts = [len(newline_grid(kind, inputs, index)[0]) for index in range(len(inputs["image_grid_thw"]))]
    return list(torch.cat([entry.reshape(-1, entry.shape[-1]) for entry in entries]).split(counts))


def sequence_and_grid(ids: list[int], items: list[tuple[list[int], Any, int]]) -> list[tuple[int, ...]]:
    """Place in the prompt, then column, row and number of the picture; its first and last token count as text."""
    places: list[tuple[int, ...]] = [(column,) * 4 for column in range(len(ids))]
    for columns, (cells,), number in items:
        for column, (_, y, x) in zip(columns[1:-1], cells[1:-1], strict=True):
            places[column] = (column, x, y, number)
    return places


def minicpmv4_7() -> PreTrainedModel:
    return minicpm("MiniCPMV4_7", image_start_id=90, image_end_id=91, slice_start_id=92, slice_end_id=93, newline_id=94)


def whole_media(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    """Pictures that are not sliced."""
    sizes = torch.tensor([(8, 12), (16, 16), (16, 8)][: sum(counts)])
    return {"pixel_values": noise(1, 3, 2, 2 * int(sizes.prod(-1).sum()), seed=len(sizes)), "target_sizes": sizes}


def bracketed(kind: str, inputs: Media, index: int, count: int) -> list[int]:
    return [90, *[IMAGE] * count, 91]


def whole_grid(kind: str, inputs: Media, index: int) -> list[list[tuple[int, int, int]]]:
    rows, columns = (int(size) // 4 for size in inputs["target_sizes"][index])
    return [[(0, h, w) for h in range(rows) for w in range(columns)]]


def bracket_places(ids: list[int], items: list[tuple[list[int], Any, int]]) -> list[tuple[int, ...]]:
    """The token before a picture lies above and left of its first cell, the one behind below and right of its last."""
    places: list[tuple[int, ...]] = []
    base = 0
    for columns, (cells,), _ in items:
        for _ in range(len(places), columns[0] - 1):
            places.append((base,) * 3)
            base += 1
        rows, width = (max(cell[axis] for cell in cells) + 1 for axis in (1, 2))
        places.append((base, max(base - 1, 0), max(base - 1, 0)))
        places += [(base, base + row, base + column) for _, row, column in cells]
        places.append((base, base + rows, base + width))
        base += max(rows, width) + 1
    return places + [(base + number,) * 3 for number in range(len(ids) - len(places))]


def build_thinker(config: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config.text_config.attn_implementation = "sdpa"
    return reactive(AutoModelForMultimodalLM.from_config(config))


AUDIO = {
    "num_mel_bins": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "d_model": 16,
    "n_window": 4, "output_dim": 32,
}  # fmt: skip


def qwen2_5_omni_thinker() -> PreTrainedModel:
    vision = {**VISION, "window_size": 16, "out_hidden_size": 32, "fullatt_block_indexes": [1]}
    config = config_of("Qwen2_5OmniThinker")(
        vision_config=vision, text_config=dict(TEXT), audio_config=AUDIO, image_token_index=IMAGE,
        video_token_index=VIDEO, audio_token_index=94, audio_start_token_id=92, audio_end_token_id=93,
        vision_start_token_id=97, vision_end_token_id=98, position_id_per_seconds=2,
    )  # fmt: skip
    return build_thinker(config)


def qwen3_omni_moe_thinker() -> PreTrainedModel:
    config = config_of("Qwen3OmniMoeThinker")(
        vision_config=dict(DEEP), text_config={**TEXT, **EXPERTS, "head_dim": 8, **INTERLEAVED},
        audio_config={**AUDIO, "n_window_infer": 8, "downsample_hidden_size": 8}, **SPECIAL,
        audio_token_id=94, audio_start_token_id=92, position_id_per_seconds=2,
    )  # fmt: skip
    return build_thinker(config)


def thinker_media(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    extra = {"video_second_per_grid": torch.full((sum(counts),), 1.5)} if kind == "video" else {}
    return grid_media(model, kind, counts) | extra


def framed(kind: str, inputs: Media, index: int, count: int) -> list[int]:
    return [97, *[IMAGE if kind == "image" else VIDEO] * count, 98]


def thinker_stretch(kind: str, inputs: Media, index: int) -> list[list[tuple[int, int, int]]]:
    """Two positions a second, 1.5 seconds a step."""
    steps, rows, columns = merged_grid(kind, inputs, index)
    step = 3 if kind == "video" else 1
    return [[(t * step, h, w) for t in range(steps) for h in range(rows) for w in range(columns)]]


def image_patches(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    """(patches, 3, height, width)."""
    media = grid_media_of_frames(model, kind, counts)
    return media | {"pixel_values": media["pixel_values"].unflatten(-1, (3, 2, 2))}


def grid_media_of_frames(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    """A patch is of one frame."""
    grids = {"image": [(1, 8, 12), (1, 12, 6), (1, 4, 10)], "video": [(4, 4, 8), (2, 8, 6), (4, 4, 6)]}[kind]
    grids = grids[: sum(counts)]
    pixels = {"image": "pixel_values", "video": "pixel_values_videos"}[kind]
    patches = noise(sum(t * h * w for t, h, w in grids), 12, seed=len(grids))
    return {pixels: patches, f"{kind}_grid_thw": torch.tensor(grids)}


def merged_in_time(kind: str, inputs: Media, index: int) -> list[list[tuple[int, int, int]]]:
    """Two frames of a video are one step."""
    steps, rows, columns = merged_grid(kind, inputs, index)
    steps = steps // 2 if kind == "video" else steps
    return [[(t, h, w) for t in range(steps) for h in range(rows) for w in range(columns)]]


def expert_types(ids: Tensor, kinds: tuple[str, ...]) -> dict[str, Tensor]:
    """ERNIE has experts for pictures, and counts the tokens around them in."""
    around = torch.isin(ids, torch.tensor([IMAGE, VIDEO, 93, 94, 97, 98]))
    return mm_types(ids, kinds) | {"moe_mm_token_type_ids": around.int()}


def ernie_framed(kind: str, inputs: Media, index: int, count: int) -> list[int]:
    return [97, *[IMAGE] * count, 98] if kind == "image" else [93, *[VIDEO] * count, 94]


# 5.18's Cohere Compass refuses to generate from videos.
IS_OLD = Version(transformers.__version__) < Version("5.19")
THINKER: dict[str, Any] = {"spell": framed, "cells": thinker_stretch, "times": True}
MROPE_CASES = (
    Case("paddleocr_vl", paddleocr_vl, image_patches, types=mm_types, cells=one_stretch),
    Case(
        "cosmos3_edge", cosmos3_edge, grid_media_of_frames, BOTH, timestamped, types=mm_types, cells=stretch_a_frame,
    ),
    Case("cosmos3_omni", cosmos3_omni, grid_media, BOTH, timestamped, types=mm_types, cells=stretch_a_frame),
    Case(
        "cohere_compass", cohere_compass, grid_media, ("image",) if IS_OLD else BOTH, timestamped, types=mm_types,
        cells=stretch_a_frame,
    ),
    Case(
        "hunyuan_vl", hunyuan_vl, grid_media_of_frames, types=mm_types, cells=newline_grid, text_row=False,
        places=sequence_and_grid, items=split_by_grid,
    ),
    Case(
        "minicpmv4_7", minicpmv4_7, whole_media, spell=bracketed, types=mm_types, cells=whole_grid,
        places=bracket_places,
    ),
    Case(
        "ernie4_5_vl_moe", ernie4_5_vl_moe, grid_media_of_frames, BOTH, ernie_framed, types=expert_types,
        cells=merged_in_time,
    ),
    Case("qwen2_5_omni_thinker", qwen2_5_omni_thinker, thinker_media, BOTH, **THINKER),
    Case("qwen3_omni_moe_thinker", qwen3_omni_moe_thinker, thinker_media, BOTH, **THINKER),
)  # fmt: skip
