"""Settings and requests: what is said wrongly is refused before it reaches the engine. vLLM is not needed here."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from divprune.budget import Budget
from divprune.errors import CheckpointError, UnsupportedModelError
from divprune.methods import EVS, ItemContext, get_method
from divprune.vllm_plugin import SERVED_FAMILIES, PruningSettings, pruned_overrides
from divprune.vllm_plugin.families import served_family
from divprune.vllm_plugin.refusals import refuse_method, refuse_tower, served_with
from divprune.vllm_plugin.settings import allowed_count, as_integers, from_integers
from divprune.vllm_plugin.vision_layers import layers_read, num_layers_built

LLAVA = {"architectures": ["LlavaForConditionalGeneration"]}


def test_overrides_name_the_pruned_architecture_and_carry_the_settings() -> None:
    overrides = pruned_overrides(LLAVA, keep_ratio=0.098, method="random:seed=3")
    assert overrides["architectures"] == ["DivPruneLlavaForConditionalGeneration"]
    carried = PruningSettings.of(SimpleNamespace(divprune=overrides["divprune"]))
    assert carried == PruningSettings(keep_ratio=0.098, method="random:seed=3")


def test_a_model_that_is_not_served_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"architectures must name one .* got \['MistralForCausalLM'\]"):
        pruned_overrides({"architectures": ["MistralForCausalLM"]}, keep_ratio=0.5)


@pytest.mark.parametrize("content", ["[1]", "{", '{"architectures": 5}', '{"architectures": [null]}', "\x00"])
def test_a_damaged_configuration_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        pruned_overrides(tmp_path, keep_ratio=0.5)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({}, "exactly one of keep_ratio and num_keep"),
        ({"keep_ratio": 0.0}, r"keep_ratio must be in \(0, 1\]"),
        ({"keep_ratio": 0.5, "num_keep": 3}, "exactly one"),
        ({"keep_ratio": 0.5, "method": "divprun"}, "did you mean 'divprune'"),
        ({"keep_ratio": 0.5, "keepratio": 0.5}, "knows keep_ratio, .* got 'keepratio'"),
        ({"num_keep": 64, "scope": "tile", "newlines": "keep"}, "knows keep_ratio, .* got 'newlines', 'scope'"),
    ],
)
def test_wrong_settings_are_refused(given: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        PruningSettings.of(SimpleNamespace(divprune=given))


def test_missing_settings_are_refused() -> None:
    with pytest.raises(ValueError, match='must have an entry "divprune"'):
        PruningSettings.of(SimpleNamespace())


@pytest.mark.parametrize("wrong", [0, 2, -0.5, math.nan, math.inf, "abc", None, True, [0.5]])
def test_wrong_ratios_of_requests_are_value_errors(wrong: object) -> None:
    settings = PruningSettings(keep_ratio=0.5, allow_request_ratio=True)
    with pytest.raises(ValueError, match="keep_ratio"):
        settings.request_budget({"keep_ratio": wrong})


def test_requests_may_not_ask_unless_allowed() -> None:
    with pytest.raises(ValueError, match="started without"):
        PruningSettings(keep_ratio=0.5).request_budget({"keep_ratio": 0.25})


def test_requests_may_not_ask_for_more_than_the_server_keeps() -> None:
    server = Budget(keep_ratio=0.25)
    assert allowed_count(Budget(keep_ratio=0.1), server, 576) == 58
    with pytest.raises(ValueError, match="at most 144 of 576 tokens here, got 288"):
        allowed_count(Budget(keep_ratio=0.5), server, 576)


@pytest.mark.parametrize("budget", [Budget(keep_ratio=0.098), Budget(keep_ratio=1.0), Budget(num_keep=56)])
def test_a_budget_travels_as_integers(budget: Budget) -> None:
    assert from_integers(as_integers(budget)) == budget


SERVED = ("divprune", "divprune:metric=l2", "random:seed=3", "uniform", "norm", "otprune")


@pytest.mark.parametrize("spec", SERVED)
@pytest.mark.parametrize("family", SERVED_FAMILIES, ids=lambda family: family.architecture)
def test_methods_that_need_only_the_encoders_output_are_served(spec: str, family: Any) -> None:
    refuse_method(get_method(spec), family, family.modalities)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("fastv", "acts inside the LLM"),
        ("divprune:layer=2", "acts inside the LLM"),
        ("cdpruner", "reads the question \\(text_embeddings\\), and what an item keeps must not depend on it"),
        ("cdpruner:clip=folder", "reads the question \\(clip_text\\)"),
        ("eadp", "reads the question"),
        ("mmtok", "reads the question"),
        ("divprune:distance_dtype=as-published", "may keep another number of tokens than it is asked for"),
        ("pooling", "may keep another number of tokens than it is asked for"),
        ("vscan:layer=1", "acts inside the LLM"),
        ("evs", "cannot select from images"),
    ],
)
def test_other_methods_are_refused_with_the_reason(spec: str, reason: str) -> None:
    family = served_family("Qwen2VLForConditionalGeneration")
    assert family is not None
    with pytest.raises(ValueError, match=reason):
        refuse_method(get_method(spec), family, family.modalities)


IN_TOWERS = (
    "cls-attention",
    "hiprune",
    "holov",
    "prumerge",
    "prumerge-plus",
    "tome",
    "vispruner",
    "visionzip",
    "vscan",
)


@pytest.mark.parametrize("spec", IN_TOWERS)
@pytest.mark.parametrize("family", SERVED_FAMILIES, ids=lambda family: family.architecture)
def test_methods_that_need_the_vision_tower_are_served_where_it_is_read(spec: str, family: Any) -> None:
    if family.reads_tower:
        refuse_method(get_method(spec), family, ("image",))
    else:
        with pytest.raises(ValueError, match=f"'{spec}' cannot be served: it needs .* is not known of"):
            refuse_method(get_method(spec), family, family.modalities)


def test_what_is_served_by_architecture() -> None:
    served = served_with(get_method("hiprune"))
    assert "LlavaOnevisionForConditionalGeneration" in served["image"]
    assert "LlavaOnevisionForConditionalGeneration" not in served["video"]  # frames and a newline token form no grids
    assert served_with(get_method("fastv")) == {}


def tower_config(kind: str = "clip_vision_model", layers: int = 24, **fields: Any) -> Any:
    vision = SimpleNamespace(model_type=kind, num_hidden_layers=layers)
    given = {"vision_feature_layer": -2, "vision_feature_select_strategy": "default"} | fields
    return SimpleNamespace(model_type="llava", vision_config=vision, **given)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (tower_config("pixtral"), "it needs early_vision_attention, .* and only CLIP and SigLIP towers can be read"),
        (tower_config(vision_feature_layer=[-2, -5]), "the projector reads several layers at once"),
        (tower_config(vision_feature_select_strategy="full"), "the CLS token is one of the visual tokens"),
        (tower_config(layers=9), "early_layer must be between -9 and 8, got 9"),
    ],
)
def test_towers_that_cannot_be_read_are_refused(config: Any, reason: str) -> None:
    family = served_family("LlavaForConditionalGeneration")
    assert family is not None
    with pytest.raises(ValueError, match=reason):
        refuse_tower(get_method("hiprune"), family, config)
    refuse_tower(get_method("divprune"), family, config)


def test_a_siglip_tower_has_no_cls_token_to_leave_out() -> None:
    family = served_family("LlavaOnevisionForConditionalGeneration")
    assert family is not None
    config = tower_config("siglip_vision_model", vision_feature_select_strategy="full")
    refuse_tower(get_method("hiprune"), family, config)


@pytest.mark.parametrize(("feature_layer", "built"), [(-2, 23), (-1, 24), (12, 12)])
def test_layers_are_counted_from_the_whole_tower(feature_layer: int, built: int) -> None:
    config = tower_config(vision_feature_layer=feature_layer)
    assert num_layers_built(config) == built
    assert [layer for _, layer in layers_read(config, get_method("hiprune"))] == [23, 9]
    assert [layer for _, layer in layers_read(config, get_method("visionzip"))] == [22]


def test_where_layers_see_windows_the_next_that_sees_all_is_read() -> None:
    vision = SimpleNamespace(depth=32, fullatt_block_indexes=[7, 15, 23, 31])
    config = SimpleNamespace(model_type="qwen2_5_vl", vision_config=vision)
    assert [layer for _, layer in layers_read(config, get_method("hiprune"))] == [31, 15]


def test_a_method_for_videos_is_served_where_only_videos_are() -> None:
    family = served_family("Qwen2VLForConditionalGeneration")
    assert family is not None
    refuse_method(EVS(), family, ("video",))
    assert ItemContext().modality == "image"
