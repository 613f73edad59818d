"""Models for pruning inside the LLM: every family, some with layers in another order; who is refused."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from transformers import InternVLConfig, PreTrainedModel, Qwen2Config

from tests.support.models import gemma, patch_grids, qwen, relatives, sparse_attention
from tests.support.models.base import IMAGE, TEXT_SIZES, VOCABULARY, build_model
from tests.support.models.every_family import CASES, Case
from tests.support.models.tiles import INTERNVL_VISION

FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"

RUNNING_STATE = "keeps a running state instead of one cache entry a token"
STREAMS = "its layers hand on several streams of hidden states"
BY_SLOTS = "indexer keeps keys of its own by their slots in the cache"

REFUSED = {
    "gemma3n": STREAMS,
    "gemma4": "have no keys and values of their own",
    "qwen3_5": RUNNING_STATE,
    "qwen3_5_moe": RUNNING_STATE,
    "lfm3_vl": RUNNING_STATE,
    "inkling_mm_model": RUNNING_STATE,
    "inkling2": RUNNING_STATE,
    "inkling2_loop": RUNNING_STATE,
    "ernie4_5_vl_moe": "choose experts by moe_mm_token_type_ids",
    "unlimited_ocr": "a ring of later tokens by their slots",
    "mistral_large4": BY_SLOTS,
    "dots3_note": BY_SLOTS,
    "glm5_next": STREAMS,
    "qwen4_exp": STREAMS,
    "hy_v4_vl": STREAMS,
}
"""Tiny models as the other tests build them that cannot lose tokens at any layer, and why."""


def rebuilt(config_of: Callable[[], PreTrainedModel], build: Callable[[Any], PreTrainedModel], **text: Any) -> Any:
    """A family's tiny model with other entries in the configuration of its language model."""

    def build_it() -> PreTrainedModel:
        config = config_of().config
        for name, value in text.items():
            setattr(config.text_config, name, value)
        return build(config)

    return build_it


def late(kind: str) -> dict[str, Any]:
    """The first layer is of another kind."""
    return {"num_hidden_layers": 4, "layer_types": [kind, FULL, FULL, FULL]}


def late_windows() -> PreTrainedModel:
    """The first layer with a sliding window is one that loses tokens."""
    text = Qwen2Config(
        **TEXT_SIZES, **VOCABULARY, num_key_value_heads=2, use_sliding_window=True, sliding_window=60,
        layer_types=[FULL, SLIDING, SLIDING],
    )  # fmt: skip
    return build_model(
        InternVLConfig(vision_config=INTERNVL_VISION, text_config=text, image_token_id=IMAGE, tie_word_embeddings=False)
    )


@cache
def deeper(name: str) -> PreTrainedModel:
    """A family's tiny model with a fourth layer."""
    usual = CASES[name].build
    kinds = getattr(usual().config.text_config, "layer_types", None)
    types = {} if kinds is None else {"layer_types": [*kinds, kinds[0]]}
    return rebuilt(usual, build_model, num_hidden_layers=4, **types)()


def small(config: Any) -> PreTrainedModel:
    return qwen.with_small_logits(build_model(config))


def small_gemma(config: Any) -> PreTrainedModel:
    """Attention without a scale is so sharp that rounding grows layer by layer; the logits are kept small."""
    model = gemma.build_gemma(config)
    with torch.no_grad():
        model.lm_head.weight.div_(10)
    return model


VARIANTS = {
    "gemma4 without shared layers": replace(
        CASES["gemma4"], build=rebuilt(gemma.gemma4, small_gemma, num_kv_shared_layers=0)
    ),
    "qwen3_5 with late attention": replace(
        CASES["qwen3_5"],
        build=rebuilt(qwen.qwen3_5, small, **late(LINEAR)),
    ),
    "lfm2_vl with late attention": replace(
        CASES["lfm2_vl"],
        build=rebuilt(relatives.lfm2_vl, build_model, **late("conv")),
    ),
    "lfm3_vl with late attention": replace(
        CASES["lfm3_vl"],
        build=rebuilt(patch_grids.lfm3_vl, build_model, **late("conv")),
    ),
    "qwen3_5_moe with late attention": replace(
        CASES["qwen3_5_moe"],
        build=rebuilt(relatives.qwen3_5_moe, small, **late(LINEAR)),
    ),
    "dots3_note with late windows": replace(
        CASES["dots3_note"], build=partial(sparse_attention.dots3_note, "indexed_attention", SLIDING, SLIDING)
    ),
    "internvl with late windows": replace(CASES["internvl"], build=late_windows),
}

INSIDE: dict[str, Case] = {name: case for name, case in CASES.items() if name not in REFUSED} | VARIANTS
"""Every model that can lose tokens, from layer 1 on or from that of `LOWEST`."""

LINEAR_FIRST = tuple(name for name in VARIANTS if name.endswith("late attention"))
"""Their layer 0 keeps a running state: tokens can go from layer 2 on."""

LOWEST = dict.fromkeys(
    (*LINEAR_FIRST, "dots3_note with late windows", "lfm2_vl", "minicpmv4_6", "minicpmv4_7", "minicpm_ocr"), 2
)
"""Models with a layer 0 or 1 that is out of the ordinary: the lowest layer at which they can lose tokens."""

EAGER_ONLY = ("paligemma2",)
"""Gemma 2 has no sdpa in transformers, which also cannot run PaliGemma 2 on a static cache, pruned or not."""
