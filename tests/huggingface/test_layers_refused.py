"""Models whose layers cannot lose tokens half-way, each with its reason."""

import re
from typing import Any

import pytest

from divprune import DivPrune, attach
from divprune.errors import UnsupportedModelError
from tests.support.layer_variants import REFUSED
from tests.support.models.every_family import CASES


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            {"layer_types": ["full_attention", "linear_attention", "full_attention"]},
            "layer 1 is 'linear_attention', which keeps a running state instead of one cache entry a token, so that no "
            "mask can leave padding out; choose a method that acts before the LLM, or a layer from 2 on",
        ),
        (
            {"layer_types": ["full_attention", "full_attention", "conv"]},
            "layer 2 is 'conv', which keeps a running state instead of one cache entry a token, so that no mask can "
            "leave padding out; choose a method that acts before the LLM",
        ),
        (
            {"layer_types": ["full_attention", "full_attention", "moe"]},
            "layer 2 is 'moe', which is no ordinary attention",
        ),
        (
            {"layer_types": ["full_attention", "full_attention", "hybrid_sliding"]},
            "layer 2 is 'hybrid_sliding', which keeps a running state",
        ),
        ({"hc_mult": 4}, "its layers hand on several streams of hidden states for each token instead of one"),
        ({"num_kv_shared_layers": 1}, "its last 1 layers have no keys and values of their own and read those of"),
    ],
)
def test_layers_that_cannot_lose_tokens_are_refused(setting: dict[str, Any], message: str) -> None:
    model = CASES["qwen2_5_vl"].build()
    for name, value in setting.items():
        setattr(model.config.text_config, name, value)
    with pytest.raises(UnsupportedModelError, match=re.escape(message)):
        attach(model, DivPrune(layer=1), keep_ratio=0.5)
    attach(model, DivPrune(), keep_ratio=0.5).detach()


@pytest.mark.parametrize("name", REFUSED)
def test_families_that_cannot_lose_tokens_half_way_say_why(name: str) -> None:
    model = CASES[name].build()
    for layer in range(1, model.config.get_text_config().num_hidden_layers):
        with pytest.raises(UnsupportedModelError, match=f"{model.config.model_type}.*{REFUSED[name]}.*before the LLM"):
            attach(model, DivPrune(layer=layer), keep_ratio=0.5)
    attach(model, DivPrune(), keep_ratio=0.5).detach()
