"""What the tests of pruning inside the LLM share: families, batches, and the rule of each method."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel, StaticCache

from divprune import VTW, DivPrune, FastV
from divprune.budget import budget
from divprune.huggingface.model_inputs import cache_in
from divprune.methods import Method
from divprune.selection.reference import reference_select
from tests.support.handmade_entering import Entering, FullRow, Rule
from tests.support.handmade_layers import full_rows
from tests.support.layer_variants import EAGER_ONLY, INSIDE, LOWEST
from tests.support.models.every_family import Row, make_inputs
from tests.support.subject import MIXED, ONE_AND_TWO, ONE_AND_TWO_VIDEOS, RATIO, STEPS, WITH_TEXT_ONLY

FAMILIES = tuple(INSIDE)
KINDS_OF_LAYERS = ("llava", "llava_next_video", "qwen2_5_vl", "gemma3", "qwen3_vl", "idefics3")
"""Families that differ in what the hooks meet: plain, videos, M-RoPE, windows and blocks, deepstack, another name."""

REPRESENTATIVE = (*KINDS_OF_LAYERS, "paligemma", "hunyuan_vl", "qwen3_5 with late attention")
"""And what layers other than these meet in few families: a prefix, coordinates on four axes, a running state before K.

Only these are run through every method, layer, attention, cache and way of calling; the others, which differ from one
of them before the LLM or within a layer, through one batch and one later turn each."""

CELLS: list[tuple[str, list[Row]]] = [
    (name, rows)
    for name in REPRESENTATIVE
    for rows in (
        ONE_AND_TWO,
        WITH_TEXT_ONLY,
        *((ONE_AND_TWO_VIDEOS,) if "video" in INSIDE[name].kinds else ()),
        *((MIXED,) if "video" in INSIDE[name].kinds and INSIDE[name].mixed else ()),
    )
]
METHODS = (DivPrune, FastV, VTW)
INSIDE_AT = {name: LOWEST.get(name, 1) for name in FAMILIES}
"""The lowest layer at which each model can lose tokens."""
FROM_1 = [name for name in REPRESENTATIVE if INSIDE_AT[name] == 1]
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
    """The method, or the same at the lowest layer at which the model can lose tokens."""
    return type(method)(layer=max(method.layer, INSIDE_AT[name]))


def build(name: str, attention: str = "sdpa", **settings: Any) -> PreTrainedModel:
    """A tiny model, or a skipped test where transformers itself cannot."""
    if name in EAGER_ONLY and (attention == "sdpa" or "cache_implementation" in settings):
        pytest.skip("transformers cannot run it like this, pruned or not")
    model = _built(name)
    model.set_attn_implementation({"text_config": attention})
    return model


@cache
def _built(name: str) -> PreTrainedModel:
    """Built once: tests leave the models as they find them, which `test_layers_attach` checks for every family."""
    return INSIDE[name].build()


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
    return output.sequences[:, length:], torch.stack(output.logits, dim=1), cache_in(output)
