"""Tiny models whose language models attend to a few chosen keys, or to none at all in most layers."""

from typing import Any

from transformers import PreTrainedModel

from tests.support.models.base import IMAGE, TEXT_SIZES, VIDEO, VOCABULARY, Case, Media, build_model, config_of
from tests.support.models.llava import pixtral_tower, ragged_media, with_breaks
from tests.support.models.mrope_variants import grid_media_of_frames, mm_types
from tests.support.models.patch_grids import SLIDING, doubled_frames
from tests.support.models.qwen import (
    BOTH,
    ROPE,
    SPECIAL,
    VISION,
    grid_media,
    stretch_a_frame,
    timestamped,
    with_small_logits,
)

UNTIED = {"tie_word_embeddings": False}
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT: dict[str, Any] = {**TEXT_SIZES, **VOCABULARY, "num_key_value_heads": 2}
EXPERTS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_shared_experts": 1}
LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
INDEXER = {"index_topk": 512, "index_head_dim": 16, "index_n_heads": 2}
DENSE_FIRST = {"mlp_layer_types": ["dense", "sparse", "sparse"]}


def mistral_large4() -> PreTrainedModel:
    text = config_of("MistralLarge4Text")(
        **TEXT | {k: v for k, v in LATENT.items() if k != "q_lora_rank"}, **EXPERTS, **INDEXER, **DENSE_FIRST
    )
    return build_model(
        config_of("MistralLarge4")(vision_config=pixtral_tower(), text_config=text, image_token_index=IMAGE, **UNTIED)
    )


def dots3_note(*kinds: str) -> PreTrainedModel:
    vision = config_of("Dots3NoteVision")(
        **SIZES,
        patch_size=2,
        moe_intermediate_size=16,
        mlp_layer_types=["dense", "dense"],
        adapter_in_dim=32,
        adapter_out_dim=32,
    )
    audio = config_of("Dots3NoteAudio")(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        feature_size=16,
        downsample_hidden_size=8,
        adapter_input_size=32,
        adapter_out_dim=32,
    )
    text = config_of("Dots3NoteText")(
        **TEXT | LATENT,
        **EXPERTS,
        **INDEXER,
        **DENSE_FIRST,
        head_dim=16,
        sliding_window=20,
        layer_types=list(kinds) or ["indexed_attention", "sliding_attention", "indexed_attention"],
        shared_experts_intermediate_size=16,
        swa_num_attention_heads=4,
        swa_num_key_value_heads=4,
        swa_head_dim=16,
        swa_qk_nope_head_dim=8,
        swa_v_head_dim=8,
        swa_q_lora_rank=16,
        swa_kv_lora_rank=16,
        swa_qk_rope_head_dim=8,
    )
    return build_model(
        config_of("Dots3Note")(
            vision_config=vision,
            audio_config=audio,
            text_config=text,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            audio_token_id=94,
        )
    )


def muse_spark() -> PreTrainedModel:
    vision = config_of("MuseSparkVision")(
        **SIZES, patch_size=2, pos_emb_height=8, pos_emb_width=8, max_position_embeddings=64
    )
    text = config_of("MuseSparkText")(
        **TEXT,
        head_dim=8,
        **SLIDING,
        output_multiplier=0.5,
        moe_intermediate_size=16,
        num_local_experts=4,
        num_experts_per_tok=2,
        moe_hidden_size=16,
        **DENSE_FIRST,
    )
    audio = {"patch_sizes": [4], "hidden_sizes": [16], "depths": [1], "num_hidden_layers": 1, "out_hidden_size": 32}
    return build_model(
        config_of("MuseSpark")(
            vision_config=vision,
            text_config=text,
            audio_config=audio,
            out_hidden_size=32 * 4,
            projector_hidden_size=32,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            audio_token_id=94,
        )
    )


def glm5_next() -> PreTrainedModel:
    vision = config_of("Glm5NextVision")(**VISION, out_hidden_size=32, image_size=16, projection_intermediate_size=32)
    text = config_of("Glm5NextText")(
        **TEXT | LATENT | {"qk_rope_head_dim": 0},
        **EXPERTS,
        **INDEXER,
        **DENSE_FIRST,
        linear_head_dim=8,
        linear_num_heads=4,
        hc_mult=2,
        index_kpool=4,
        layer_types=["linear_attention", "indexed_attention", "linear_attention"],
    )
    return with_small_logits(
        build_model(
            config_of("Glm5Next")(
                vision_config=vision,
                text_config=text,
                image_token_id=IMAGE,
                video_token_id=VIDEO,
                image_start_token_id=97,
                image_end_token_id=98,
                video_start_token_id=93,
                video_end_token_id=94,
                **UNTIED,
            )
        )
    )


def qwen4_exp() -> PreTrainedModel:
    vision = config_of("Qwen4ExpVision")(**VISION, out_hidden_size=32, num_position_embeddings=64)
    text = config_of("Qwen4ExpText")(
        **{k: v for k, v in TEXT.items() if k not in ("intermediate_size", "eos_token_id")},
        head_dim=16,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        num_experts_per_tok=2,
        num_experts=4,
        hc_count=2,
        hc_lowrank=8,
        indexer_n_heads=2,
        indexer_kv_heads=1,
        indexer_head_dim=16,
        indexer_budget=512,
        indexer_compress_ratio=4,
        ple_layer_ids=[1],
        eos_token_id=2,
        ngram_vocab_size_base=50,
        make_ngram_vocab_size_divisible_by=2,
        split_ngram_parts=1,
        heads_per_ngram=2,
        layer_types=["linear_attention", "indexed_attention", "linear_attention"],
        rope_parameters={**ROPE, "mrope_interleaved": True, "partial_rotary_factor": 0.5},
    )
    return with_small_logits(
        build_model(config_of("Qwen4Exp")(vision_config=vision, text_config=text, **SPECIAL, **UNTIED))
    )


def bracketed(kind: str, inputs: Media, index: int, count: int) -> list[int]:
    """One placeholder for both; the tokens around it tell a video."""
    return [97, *[IMAGE] * count, 98] if kind == "image" else [93, *[IMAGE] * count, 94]


SPARSE_CASES = (
    Case("mistral_large4", mistral_large4, ragged_media, spell=with_breaks(14)),
    Case("dots3_note", dots3_note, grid_media_of_frames, BOTH, timestamped),
    Case("muse_spark", muse_spark, doubled_frames, BOTH, timestamped),
    Case("glm5_next", glm5_next, grid_media, BOTH, spell=bracketed, mixed=False, positions=("compact",)),
    Case("qwen4_exp", qwen4_exp, grid_media, BOTH, timestamped, types=mm_types, cells=stretch_a_frame),
)
