"""What the tests of pruning inside the language model share: families, batches, and the rule of each method."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel, StaticCache

from divprune import VTW, DivPrune, FastV
from divprune.budget import budget
from divprune.methods import Method
from divprune.selection.reference import reference_select
from tests.huggingface.handmade_layers import Entering, FullRow, Rule, full_rows
from tests.huggingface.layer_variants import EAGER_ONLY, INSIDE, LINEAR_FIRST
from tests.huggingface.test_parity import MIXED, ONE_AND_TWO, ONE_AND_TWO_VIDEOS, RATIO, STEPS, WITH_TEXT_ONLY
from tests.huggingface.tiny_models import IMAGE, VIDEO, Row, make_inputs

FAMILIES = tuple(INSIDE)
KINDS_OF_LAYERS = ("llava", "llava_next_video", "qwen2_5_vl", "gemma3", "qwen3_vl", "idefics3")
"""Families that differ in what the hooks meet: plain, videos, M-RoPE, windows and blocks, deepstack, another name."""

CELLS: list[tuple[str, list[Row]]] = [
    (name, rows)
    for name, case in INSIDE.items()
    for rows in (
        ONE_AND_TWO,
        WITH_TEXT_ONLY,
        *((ONE_AND_TWO_VIDEOS,) if "video" in case.kinds else ()),
        *((MIXED,) if "video" in case.kinds and case.mixed else ()),
    )
]
METHODS = (DivPrune, FastV, VTW)
INSIDE_AT = {name: 2 if name in LINEAR_FIRST else 1 for name in FAMILIES}
"""The lowest layer at which each model can lose tokens."""
LAYERS = [
    pytest.param(method, id=f"{method.name}-{method.layer}")
    for method in (DivPrune(layer=1), DivPrune(layer=2), FastV(layer=2), VTW(layer=1))
]
WITH_ATTENTION = [
    *(pytest.param("sdpa", method.values[0], id=f"sdpa-{method.id}") for method in LAYERS),
    pytest.param("eager", DivPrune(layer=1), id="eager-divprune-1"),
    pytest.param("eager", FastV(layer=2), id="eager-fastv-2"),
]
CACHES = [{}, {"use_cache": False}, {"cache_implementation": "static"}]
NO_PLACEHOLDERS = {"suppress_tokens": [IMAGE, VIDEO]}
GREEDY = {"max_new_tokens": STEPS, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}


def settings_of(method: Method) -> dict[str, Any]:
    """What `prune` is told besides the method."""
    return {} if method.count == "schedule" else {"keep_ratio": RATIO}


def rule_of(method: Method) -> Rule:
    """The kept tokens of an item, written down from the paper."""
    return {"divprune": most_different, "fastv": most_attended, "vtw": none_at_all}[method.name]


def most_different(entering: Entering) -> Tensor:
    return reference_select(entering.hidden, count(entering)).sort().values


def most_attended(entering: Entering) -> Tensor:
    # Stable: what lies outside a sliding window gets no attention at all.
    ranked = entering.attention.mean(dim=0).sort(descending=True, stable=True).indices
    return ranked[: count(entering)].sort().values


def none_at_all(_: Entering) -> Tensor:
    return torch.arange(0)


def first_tokens(entering: Entering) -> Tensor:
    """The wrong tokens: every test must notice them."""
    return torch.arange(count(entering))


def count(entering: Entering) -> int:
    return budget(entering.total, keep_ratio=RATIO)


def at_its_layer(name: str, method: Any) -> Any:
    """The method, or the same at layer 2 for models that cannot lose tokens at layer 1."""
    return type(method)(layer=max(method.layer, INSIDE_AT[name]))


def build(name: str, attention: str = "sdpa", **settings: Any) -> PreTrainedModel:
    """A tiny model, or a skipped test where transformers itself cannot."""
    if name in EAGER_ONLY and (attention == "sdpa" or "cache_implementation" in settings):
        pytest.skip("transformers cannot run it like this, pruned or not")
    model = INSIDE[name].build()
    model.set_attn_implementation(attention)
    return model


def attention_of(name: str) -> str:
    return "eager" if name in EAGER_ONLY else "sdpa"


def kinds_of(model: PreTrainedModel) -> list[str]:
    return getattr(model.config.get_text_config(), "layer_types", None) or []


def cache_of(model: PreTrainedModel, kind: str, longest: int) -> Cache:
    config = model.config.get_text_config()
    return DynamicCache(config=config) if kind == "dynamic" else StaticCache(config=config, max_cache_len=longest)


def inputs_of(name: str, model: PreTrainedModel, rows: list[Row]) -> dict[str, Any]:
    return make_inputs(INSIDE[name], model, rows)


def rows_of(name: str, model: PreTrainedModel, inputs: dict[str, Any]) -> list[FullRow]:
    return full_rows(model, inputs, INSIDE[name])


def generate_logits(model: Any, inputs: dict[str, Any], **settings: Any) -> tuple[Tensor, Tensor, Any]:
    """New tokens (B, STEPS), the logits before each (B, STEPS, vocabulary), and the cache."""
    output = model.generate(**(GREEDY | inputs | settings))
    length = inputs["input_ids"].shape[1]
    assert torch.equal(output.sequences[:, :length], inputs["input_ids"])
    return output.sequences[:, length:], torch.stack(output.logits, dim=1), output.past_key_values
