"""Tiny models whose rows of visual tokens end in a token of their own, in the prompt or among the encoder's."""

import torch
from transformers import PreTrainedModel

from tests.support.models.base import IMAGE, VIDEO, Case, Media, build_model, config_of, mm_types, noise
from tests.support.models.qwen import BOTH, ROPE, grid_media, merged_grid
from tests.support.models.sparse_attention import DENSE_FIRST, EXPERTS, INDEXER, LATENT, SIZES, TEXT, UNTIED

NUM_WORDS, NUM_CODES, NUM_SOUNDS = 99, 512, 8


def apertus1p5() -> PreTrainedModel:
    """Its encoder says which of 512 words each square of 2 x 2 pixels is; none of them can be answered."""
    text = config_of("Apertus1p5Text")(
        **TEXT | {"vocab_size": NUM_WORDS + NUM_CODES + NUM_SOUNDS},
        output_vocab_size=NUM_WORDS,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    vision = {
        "codebook_size": NUM_CODES,
        "embed_dim": 32,
        "latent_channels": 32,
        "base_channels": 32,
        "channel_multiplier": [1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [],
    }
    audio = {
        "model_type": "wavtokenizer_encoder",
        "num_filters": 4,
        "hidden_size": 16,
        "codebook_dim": 16,
        "codebook_size": NUM_SOUNDS,
        "num_lstm_layers": 1,
    }
    return build_model(
        config_of("Apertus1p5")(
            text_config=text,
            vision_config=vision,
            audio_config=audio,
            image_token_id=IMAGE,
            audio_token_id=94,
            image_token_offset=NUM_WORDS,
            audio_token_offset=NUM_WORDS + NUM_CODES,
        )
    )


def hy_v4_vl() -> PreTrainedModel:
    vision = config_of("HYV4VLVision")(**SIZES, out_hidden_size=32, patch_size=2, max_image_size=32)
    text = config_of("HYV4VLText")(
        **TEXT | LATENT, **EXPERTS, **INDEXER, **DENSE_FIRST, hc_mult=2, rope_parameters=ROPE
    )
    return build_model(
        config_of("HYV4VL")(
            vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=VIDEO, **UNTIED
        )
    )


def padded_media(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    sizes = torch.tensor([(8, 12), (12, 6), (4, 10)][: sum(counts)])
    return {"pixel_values": noise(len(sizes), 3, 12, 12, seed=len(sizes)), "image_sizes": sizes}


def rows_joined(kind: str, inputs: Media, index: int, count: int) -> list[int]:
    """How many rows and columns, then the rows with a token between them."""
    rows, columns = (side // 2 for side in inputs["image_sizes"][index].tolist())
    joined = [[IMAGE] * columns, *[[91, *[IMAGE] * columns] for _ in range(rows - 1)]]
    return [90, 60 + rows, 59, 60 + columns, 92, *(token for row in joined for token in row), 93]


def newline_a_row(kind: str, inputs: Media, index: int) -> list[list[tuple[int, int, int]]]:
    """Rows are one token longer than the image, and every frame starts behind the last in time, rows and columns."""
    steps, rows, columns = merged_grid(kind, inputs, index)
    block = max(rows, columns + 1)
    starts = [step * block for step in range(steps)]
    return [[(t, t + row, t + column) for t in starts for row in range(rows) for column in range(columns + 1)]]


ROW_CASES = (
    Case("apertus1p5", apertus1p5, padded_media, spell=rows_joined),
    Case("hy_v4_vl", hy_v4_vl, grid_media, BOTH, types=mm_types, cells=newline_a_row),
)
