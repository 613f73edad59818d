"""Tiny models of Google's families, whose visual tokens see each other both ways."""

import inspect

import torch
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    Gemma4Config,
    GemmaConfig,
    PaliGemmaConfig,
    PreTrainedModel,
)

from tests.support.models.base import (
    IMAGE,
    TEXT_SIZES,
    VIDEO,
    VOCABULARY,
    Case,
    Media,
    build_model,
    mm_types,
    noise,
    siglip,
    square_media,
)

START, END = 90, 91
SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
HEADS = {"num_key_value_heads": 2, "head_dim": 8}


def build_gemma(config: PaliGemmaConfig | Gemma3Config | Gemma4Config) -> PreTrainedModel:
    """These families multiply their text embeddings by sqrt(hidden_size), which would drown the visual tokens."""
    model = build_model(config)
    with torch.no_grad():
        model.get_input_embeddings().weight.div_(TEXT_SIZES["hidden_size"] ** 0.5)
    return model


def paligemma() -> PreTrainedModel:
    text = GemmaConfig(**TEXT_SIZES, **VOCABULARY, **HEADS)
    return build_gemma(_paligemma(text))


def paligemma2() -> PreTrainedModel:
    """With a cap on attention logits that these, of order one, feel; Gemma 2's own is 50."""
    text = Gemma2Config(
        **TEXT_SIZES, **VOCABULARY, **HEADS, query_pre_attn_scalar=8, sliding_window=20, layer_types=SLIDING,
        # transformers 5.18 forgets the cap on the final logits here, pruned or not.
        attn_logit_softcapping=1.0, final_logit_softcapping=None,
    )  # fmt: skip
    model = build_gemma(_paligemma(text))
    model.set_attn_implementation("eager")  # transformers 5.18 takes sdpa, which knows no cap
    return model


def _paligemma(text: GemmaConfig | Gemma2Config) -> PaliGemmaConfig:
    return PaliGemmaConfig(
        vision_config=siglip(28), text_config=text, image_token_index=IMAGE, projection_dim=32, hidden_size=32,
        vocab_size=99, tie_word_embeddings=False,
    )  # fmt: skip


def gemma3() -> PreTrainedModel:
    text = Gemma3TextConfig(
        **TEXT_SIZES, **VOCABULARY, **HEADS, query_pre_attn_scalar=8, sliding_window=20, layer_types=SLIDING
    )
    return build_gemma(
        Gemma3Config(
            vision_config=siglip(56), text_config=text, image_token_index=IMAGE, mm_tokens_per_image=16,
            tie_word_embeddings=False,
        )
    )  # fmt: skip


def gemma4() -> PreTrainedModel:
    text = {
        **TEXT_SIZES, **VOCABULARY, **HEADS, "num_hidden_layers": 4, "global_head_dim": 8, "sliding_window": 20,
        "layer_types": ["sliding_attention", "full_attention"] * 2, "use_bidirectional_attention": "vision",
        "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 99, "num_kv_shared_layers": 2,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 4, "head_dim": 8, "pooling_kernel_size": 2, "patch_size": 2,
        "position_embedding_size": 32,
    }  # fmt: skip
    return build_gemma(
        Gemma4Config(
            vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=VIDEO, audio_token_id=0,
            audio_config=None, tie_word_embeddings=False,
        )
    )  # fmt: skip


def gemma4_media(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    """Patches filled up to 64 with position (-1, -1); 3 frames a video."""
    count = sum(counts)
    if kind == "image":
        positions = torch.stack([_grid(rows, columns) for rows, columns in [(6, 8), (8, 4), (6, 6)][:count]])
        return {"pixel_values": noise(count, 64, 12, seed=count).sigmoid(), "image_position_ids": positions}
    positions = torch.stack([_grid(4, 6)] * 3 * count)
    media = {"pixel_values_videos": noise(3 * count, 64, 12, seed=count).sigmoid(), "video_position_ids": positions}
    if "num_frames_per_video" in inspect.signature(model.model.get_video_features).parameters:
        return {**media, "num_frames_per_video": torch.tensor([3] * count)}
    return {name: value.unflatten(0, (count, 3)) for name, value in media.items()}


def _grid(rows: int, columns: int) -> Tensor:
    """(64, 2) patch coordinates (x, y)."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    positions = torch.stack([x, y], dim=-1).flatten(0, 1)
    return torch.cat([positions, torch.full((64 - len(positions), 2), -1)])


def framed(kind: str, inputs: Media, index: int, count: int) -> list[int]:
    if kind == "image":
        return [START, *[IMAGE] * count, END]
    return [token for second in range(3) for token in [60 + second, START, *[VIDEO] * (count // 3), END]]


def image_types(ids: Tensor, kinds: tuple[str, ...]) -> dict[str, Tensor]:
    return {"token_type_ids": (ids == IMAGE).long()}


def suffix_types(ids: Tensor, kinds: tuple[str, ...]) -> dict[str, Tensor]:
    """PaliGemma: all of the prompt is prefix (0); the last two tokens play the suffix of a training prompt."""
    types = torch.zeros_like(ids)
    types[:, -2:] = 1
    return {"token_type_ids": types}


BOTH = ("image", "video")
GEMMA_CASES = (
    Case("paligemma", paligemma, square_media, types=suffix_types, block="prefix"),
    Case("paligemma2", paligemma2, square_media, types=suffix_types, block="prefix"),
    Case("gemma3", gemma3, square_media, spell=framed, types=image_types, block="runs"),
    Case("gemma4", gemma4, gemma4_media, BOTH, spell=framed, types=mm_types, block="sliding runs"),
)
