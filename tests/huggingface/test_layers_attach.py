"""Pruning inside the LLM: what is restored, what is refused, and what is saved."""

from typing import Any

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_utils import AttentionInterface

from divprune import VTW, DivPrune, FastV, RandomTokens, attach, prune
from divprune.errors import PruningError
from divprune.huggingface.model_inputs import CACHE, cache_in
from tests.support.attached import ROWS, assert_same, snapshot
from tests.support.layer_cases import (
    FAMILIES,
    INSIDE_AT,
    REPRESENTATIVE,
    at_its_layer,
    attention_of,
    build,
    inputs_of,
    kinds_of,
    settings_of,
)
from tests.support.models.every_family import CASES, make_inputs
from tests.support.subject import RATIO

INSIDE = [DivPrune(layer=1), FastV(layer=2), VTW(layer=1)]
inside = pytest.mark.parametrize("method", INSIDE, ids=lambda method: method.name)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return CASES["llava"].build()


@pytest.fixture
def inputs(model: PreTrainedModel) -> dict[str, Any]:
    return make_inputs(CASES["llava"], model, ROWS)


def state(model: PreTrainedModel) -> tuple[Any, ...]:
    """Everything that hooks and probes touch; the attention configs by identity."""
    configs = [id(module.config) for module in model.modules() if hasattr(module, "config")]
    return (configs, dict(AttentionInterface._global_mapping), *snapshot(model))


class StopHereError(Exception):
    """Raised in the middle of a call."""


@inside
def test_after_each_call_and_detach_the_model_is_as_before(
    model: PreTrainedModel, inputs: dict[str, Any], method: Any
) -> None:
    before = state(model)
    unpruned = model.generate(**inputs, max_new_tokens=3)
    with prune(model, method, **settings_of(method)):
        attached = state(model)
        model.generate(**inputs, max_new_tokens=3)
        model(**inputs)
        assert_same(attached, state(model))
    assert_same(before, state(model))
    assert torch.equal(model.generate(**inputs, max_new_tokens=3), unpruned)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_as_before(name: str) -> None:
    model = build(name, attention_of(name))
    inputs = inputs_of(name, model, ROWS)
    model(**inputs)  # transformers keeps a number of its own (`rope_deltas`) from the first call on
    before = state(model)
    with prune(model, DivPrune(layer=INSIDE_AT[name]), keep_ratio=RATIO):
        model.generate(**inputs, max_new_tokens=2)
    assert_same(before, state(model))


@inside
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_exception_in_a_layer_restores_the_model(
    model: PreTrainedModel, inputs: dict[str, Any], method: Any, place: int
) -> None:
    def explode(*_: Any) -> None:
        raise StopHereError

    with prune(model, method, **settings_of(method)) as pruning:
        expected = model.generate(**inputs, max_new_tokens=3)
        last = pruning.last
        handle = model.model.language_model.layers[place].mlp.register_forward_pre_hook(explode)
        before = state(model)
        for call in (lambda: model.generate(**inputs, max_new_tokens=3), lambda: model(**inputs)):
            with pytest.raises(StopHereError):
                call()
            assert_same(before, state(model))
        handle.remove()
        assert pruning.last is last
        assert torch.equal(model.generate(**inputs, max_new_tokens=3), expected)


@pytest.mark.parametrize("name", REPRESENTATIVE)
@pytest.mark.parametrize("method", [DivPrune(), *INSIDE], ids=lambda method: f"{method.name}-{method.layer}")
def test_the_report_tells_the_real_cache(name: str, method: Any) -> None:
    if method.layer:
        method = at_its_layer(name, method)
    model = build(name, attention_of(name))
    inputs = inputs_of(name, model, ROWS)
    sizes = {}
    for pruned in (False, True):
        if pruned:
            pruning = attach(model, method, **settings_of(method))
        output = model.generate(**inputs, max_new_tokens=1, return_dict_in_generate=True)
        cache = cache_in(output)
        layers = [layer for layer in cache.layers if hasattr(layer, "get_seq_length")]
        sizes[pruned] = sum(each.nbytes for layer in layers for each in (layer.keys, layer.values))
    report = pruning.last
    # Layers with a running state hold no columns, and the others what they saw, or a window of it.
    seen = zip(cache.layers, report.sequence_lengths, strict=True)
    assert all(layer.get_seq_length() == length for layer, length in seen if hasattr(layer, "get_seq_length"))
    assert (report.kv_cache_bytes, report.kv_cache_bytes_unpruned) == (sizes[True], sizes[False])
    # A window may be full even with what is left.
    assert report.kv_cache_bytes < report.kv_cache_bytes_unpruned or "sliding_attention" in kinds_of(model)
    longest = int(report.keep_mask.sum(dim=-1).max())
    assert report.sequence_lengths == tuple(
        inputs["input_ids"].shape[1] if number < method.layer else longest
        for number in range(len(model.get_decoder().layers))
    )
    model.generate(input_ids=torch.tensor([[1, 5, 6, 7]]), max_new_tokens=1)
    pruning.detach()
    assert set(pruning.last.sequence_lengths) == {4}
    assert pruning.last.kv_cache_bytes == pruning.last.kv_cache_bytes_unpruned > 0


def test_bfloat16_caches_are_half_as_large(inputs: dict[str, Any]) -> None:
    model = CASES["llava"].build().bfloat16()
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    with prune(model, DivPrune(layer=1), keep_ratio=RATIO) as pruning:
        cache = cache_in(model.generate(**inputs, max_new_tokens=1, return_dict_in_generate=True))
    assert pruning.last.kv_cache_bytes == sum(2 * layer.keys.nbytes for layer in cache.layers)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("divprune:layer=3", {"keep_ratio": 0.5}, "layer must be between 1 and 2 for this model, got 3"),
        ("vtw", {}, "layer must be between 1 and 2 for this model, got 15"),
        ("divprune:layer=-1", {"keep_ratio": 0.5}, "layer must be at least 0, got -1"),
        ("fastv:layer=0", {"keep_ratio": 0.5}, "layer must be at least 1, got 0"),
        ("divprune:layer=1", {"keep_ratio": 0.5, "positions": "compact"}, "positions must be 'original' or None"),
        ("divprune:layer=1", {"keep_ratio": 0.5, "order": "selection"}, "order must be 'sorted' for 'divprune'"),
        ("vtw:layer=1", {"keep_ratio": 0.5}, "`keep_ratio` and `num_keep` must be left out with 'vtw'"),
    ],
)
def test_bad_arguments_are_refused(model: PreTrainedModel, method: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attach(model, method, **settings)
    assert "generate" not in model.__dict__


def test_a_method_that_reads_a_decoder_layer_names_where_it_drops(model: PreTrainedModel) -> None:
    class Loudest(RandomTokens):
        needs = frozenset({"keys"})

    with pytest.raises(ValueError, match=r"needs keys of a decoder layer.*layers = \(4,\) reads layer 3"):
        attach(model, Loudest())


def test_a_layer_is_an_integer() -> None:
    for wrong in (1.0, True, "1"):
        with pytest.raises(TypeError, match="layer must be an integer"):
            DivPrune(layer=wrong)


def test_ways_of_calling_that_cannot_work_are_refused(inputs: dict[str, Any]) -> None:
    model = CASES["llava"].build()
    with prune(model, DivPrune(layer=1), keep_ratio=0.5):
        with pytest.raises(PruningError, match="prefill_chunk_size must be None"):
            model.generate(**inputs, prefill_chunk_size=4, max_new_tokens=2)
        model.config.text_config._attn_implementation = "flex_attention"
        for call in (model.generate, model.forward):
            with pytest.raises(PruningError, match=r"must be 'sdpa' or 'eager' .*'flex_attention'"):
                call(**inputs)
        model.config.text_config._attn_implementation = "sdpa"
        model.train()
        model.model.language_model.layers[0].gradient_checkpointing = True
        with pytest.raises(PruningError, match="gradient checkpointing must be off"):
            model(**inputs)


def test_caches_that_do_not_fit_are_refused(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    settings = {"max_new_tokens": 2, "return_dict_in_generate": True}
    with prune(model, DivPrune(layer=1), keep_ratio=0.5):
        output = model.generate(**inputs, **settings)
        with pytest.raises(PruningError, match="attention_mask must cover the 78 cached tokens and the new"):
            model.generate(**inputs, **{CACHE: cache_in(output)})
        cache_in(output).crop(-5)
        with pytest.raises(PruningError, match="must hold the whole pruned prompt of 77 tokens"):
            model.generate(input_ids=output.sequences, **{CACHE: cache_in(output)})
        three_rows = cache_in(model.generate(**inputs, **settings))
        three_rows.batch_select_indices(torch.tensor([0, 1, 1]))
        with pytest.raises(PruningError, match="must hold the 2 rows that were pruned, or copies of each, got 3"):
            model(input_ids=torch.tensor([[5], [6], [7]]), **{CACHE: three_rows})
        cache = cache_in(model.generate(**inputs, **settings))
        with pytest.raises(PruningError, match="attention_mask must cover the cached prompt"):
            model.generate(input_ids=torch.tensor([[5], [6]]), **{CACHE: cache})
    with prune(model, DivPrune(), keep_ratio=0.5):
        short = model.generate(**inputs, **settings)
    with prune(model, DivPrune(layer=1), keep_ratio=0.5), pytest.raises(PruningError, match="the cache holds a"):
        model.generate(**inputs, **{CACHE: cache_in(short)})


def test_a_reset_cache_can_be_used_again(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    cache = DynamicCache()
    text = {"input_ids": torch.tensor([[1, 5, 6, 7]]), "max_new_tokens": 3}
    with prune(model, DivPrune(layer=1), keep_ratio=0.5):
        expected = model.generate(**text)
        model.generate(**inputs, max_new_tokens=2, **{CACHE: cache})
        cache.reset()
        assert torch.equal(model.generate(**text, **{CACHE: cache}), expected)


def test_a_cache_keeps_what_was_dropped_whatever_method_is_attached_later(
    model: PreTrainedModel, inputs: dict[str, Any]
) -> None:
    turns = []
    for later in (DivPrune(layer=1), RandomTokens()):
        with prune(model, DivPrune(layer=1), keep_ratio=0.3):
            first = model.generate(**inputs, max_new_tokens=3, return_dict_in_generate=True)
        mask = torch.cat([inputs["attention_mask"], torch.ones(2, 3, dtype=torch.int64)], dim=-1)
        with prune(model, later, keep_ratio=0.3):
            turns.append(
                model.generate(first.sequences, attention_mask=mask, **{CACHE: cache_in(first)}, max_new_tokens=3)
            )
    assert torch.equal(*turns)
