"""Tiny models that cut large pictures into equal tiles."""

import torch
from torch import Tensor
from transformers import (
    AyaVisionConfig,
    Cohere2Config,
    Idefics3Config,
    InternVLConfig,
    PreTrainedModel,
    Qwen2Config,
    SmolVLMConfig,
)

from tests.support.models.base import (
    IMAGE,
    TEXT_SIZES,
    VOCABULARY,
    Case,
    Media,
    build_model,
    llama,
    noise,
    siglip,
)

TILE_COUNTS = [3, 1, 2]
"""Tiles of each picture of a call, the whole picture among them."""
TILE_TOKENS = 16
START, TILE_TAG, NEWLINE, END, WHOLE_TAG = 90, 91, 92, 93, 94


INTERNVL_VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": [56, 56], "patch_size": [7, 7],
}  # fmt: skip


def internvl() -> PreTrainedModel:
    text = Qwen2Config(**TEXT_SIZES, **VOCABULARY, num_key_value_heads=2)
    return build_model(
        InternVLConfig(vision_config=INTERNVL_VISION, text_config=text, image_token_id=IMAGE, tie_word_embeddings=False)
    )


def aya_vision() -> PreTrainedModel:
    text = Cohere2Config(
        **TEXT_SIZES, **VOCABULARY, num_key_value_heads=2, sliding_window=20,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )  # fmt: skip
    return build_model(
        AyaVisionConfig(vision_config=siglip(56), text_config=text, image_token_index=IMAGE, tie_word_embeddings=False)
    )


def idefics(config: type[Idefics3Config | SmolVLMConfig]) -> PreTrainedModel:
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": 56, "patch_size": 7,
    }  # fmt: skip
    return build_model(config(vision_config=vision, text_config=llama(), image_token_id=IMAGE, scale_factor=2))


def idefics3() -> PreTrainedModel:
    return idefics(Idefics3Config)


def smolvlm() -> PreTrainedModel:
    return idefics(SmolVLMConfig)


def flat_tiles(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    tiles = sum(TILE_COUNTS[: sum(counts)])
    return {"pixel_values": noise(tiles, 3, 56, 56, seed=tiles)}


def nested_tiles(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    """(rows, tiles, 3, height, width), filled up with black tiles."""
    items = iter(TILE_COUNTS)
    tiles = [sum(next(items) for _ in range(count)) for count in counts]
    pixels = torch.zeros(len(counts), max(tiles), 3, 56, 56)
    for row, number in enumerate(tiles):
        pixels[row, :number] = noise(number, 3, 56, 56, seed=row)
    return {"pixel_values": pixels, "pixel_attention_mask": torch.ones(*pixels.shape[:2], 56, 56, dtype=torch.int64)}


def tiles_joined(model: PreTrainedModel, kind: str, inputs: Media, entries: list[Tensor] | Tensor) -> list[Tensor]:
    tokens = torch.cat([entry.reshape(-1, entry.shape[-1]) for entry in entries])
    items = []
    for count in TILE_COUNTS:
        items.append(tokens[: count * TILE_TOKENS])
        tokens = tokens[count * TILE_TOKENS :]
    return [item for item in items if len(item)]


def one_run(kind: str, inputs: Media, index: int, count: int) -> list[int]:
    return [START, *[IMAGE] * count, END]


def tagged_tiles(kind: str, inputs: Media, index: int, count: int) -> list[int]:
    """Each tile behind its tag, the whole picture last."""
    ids: list[int] = []
    for _ in range(count // TILE_TOKENS - 1):
        ids += [START, TILE_TAG, *[IMAGE] * TILE_TOKENS]
    return [*ids, NEWLINE, START, WHOLE_TAG, *[IMAGE] * TILE_TOKENS, START]


TILED_CASES = (
    Case("internvl", internvl, flat_tiles, spell=one_run, items=tiles_joined),
    Case("aya_vision", aya_vision, flat_tiles, spell=tagged_tiles, items=tiles_joined),
    Case("idefics3", idefics3, nested_tiles, spell=tagged_tiles, items=tiles_joined),
    Case("smolvlm", smolvlm, nested_tiles, spell=tagged_tiles, items=tiles_joined),
)
