"""Methods that drop at several layers: PyramidDrop against the hand-made reference."""

from typing import Any

import pytest
import torch
from torch import Tensor

from divprune import prune
from divprune.huggingface.model_inputs import cache_in
from divprune.methods import PyramidDrop
from tests.support.float64 import is_different, is_rounding
from tests.support.handmade_entering import Entering, Rule
from tests.support.handmade_layers import run
from tests.support.layer_cases import (
    CACHES,
    FROM_1,
    KINDS_OF_LAYERS,
    attention_of,
    build,
    generate_logits,
    inputs_of,
    rows_of,
)
from tests.support.models.every_family import NO_PLACEHOLDERS
from tests.support.subject import MIXED, ONE_AND_TWO

PYRAMID = PyramidDrop(first_layer=1, layers_per_stage=1, num_drops=2, stage_ratio=0.5)


def most_attended(share: float) -> Rule:
    def rule(entering: Entering) -> Tensor:
        ranked = entering.own_attention().mean(dim=0).sort(descending=True, stable=True).indices
        return ranked[: max(1, int(entering.total * share))].sort().values

    return rule


def first_tokens(share: float) -> Rule:
    return lambda entering: torch.arange(max(1, int(entering.total * share)))


def error(model: Any, rows: Any, rules: dict[int, Rule], tokens: Tensor, logits: Tensor) -> float:
    expected = [run(model, row, new_tokens[:-1], rules).logits for row, new_tokens in zip(rows, tokens, strict=True)]
    return float((torch.stack(expected) - logits).abs().max())


@pytest.mark.parametrize(
    ("name", "settings"),
    [(name, {}) for name in FROM_1] + [(name, settings) for name in KINDS_OF_LAYERS for settings in CACHES[1:]],
)
def test_pyramid_drop_equals_the_reference(name: str, settings: dict[str, Any]) -> None:
    model = build(name, attention_of(name), **settings)
    inputs = inputs_of(name, model, ONE_AND_TWO)
    with prune(model, PYRAMID) as pruning:
        tokens, logits, _ = generate_logits(model, inputs, **NO_PLACEHOLDERS, **settings)
    rows = rows_of(name, model, inputs)
    shares = {1: 0.5, 2: 0.5**2}
    right = {layer: most_attended(share) for layer, share in shares.items()}
    assert is_rounding(error(model, rows, right, tokens, logits))
    for wrong in (
        {1: first_tokens(0.5), 2: most_attended(0.5**2)},
        {1: most_attended(0.5), 2: first_tokens(0.5**2)},
        {1: most_attended(0.5)},
    ):
        assert is_different(error(model, rows, wrong, tokens, logits))
    assert [item.num_kept for item in pruning.last.items] == [
        max(1, int(item.num_visual_tokens * 0.5**2)) for item in pruning.last.items
    ]


def test_pyramid_drop_does_not_read_the_layer_before() -> None:
    """Neighbouring layers attend to other tokens: with the layer before, the reference says something else."""
    model = build("llava_next_video")
    inputs = inputs_of("llava_next_video", model, ONE_AND_TWO)
    with prune(model, PYRAMID):
        tokens, logits, _ = generate_logits(model, inputs, **NO_PLACEHOLDERS)

    def of_the_layer_before(entering: Entering) -> Tensor:
        ranked = entering.attention.mean(dim=0).sort(descending=True, stable=True).indices
        return ranked[: max(1, int(entering.total * 0.5))].sort().values

    rules = {1: of_the_layer_before, 2: most_attended(0.5**2)}
    assert is_different(error(model, rows_of("llava_next_video", model, inputs), rules, tokens, logits))


@pytest.mark.parametrize("name", KINDS_OF_LAYERS)
def test_lengths_and_bytes_are_told_per_layer(name: str) -> None:
    model = build(name)
    with prune(model, PYRAMID) as pruning:
        output = model.generate(**inputs_of(name, model, ONE_AND_TWO), max_new_tokens=1, return_dict_in_generate=True)
    layers = cache_in(output).layers
    assert pruning.last.sequence_lengths == tuple(layer.get_seq_length() for layer in layers)
    assert len(set(pruning.last.sequence_lengths)) == 3
    assert pruning.last.kv_cache_bytes == sum(each.nbytes for layer in layers for each in (layer.keys, layer.values))


@pytest.mark.parametrize("scope", ["frame", "sample"])
def test_counts_are_of_all_the_tokens_of_a_scope(scope: Any) -> None:
    model = build("llava_next_video")
    inputs = inputs_of("llava_next_video", model, MIXED)
    with prune(model, PYRAMID, scope=scope) as pruning:
        model.generate(**inputs, max_new_tokens=1)
    kept = [item.num_kept for item in pruning.last.items]
    totals = [item.num_visual_tokens for item in pruning.last.items]
    if scope == "sample":
        assert (kept[0] + kept[1], kept[2]) == (int((totals[0] + totals[1]) * 0.5**2), int(totals[2] * 0.5**2))
    else:
        assert kept[1] == 3 * max(1, int(totals[1] / 3 * 0.5**2))


def test_layers_that_the_model_does_not_have_are_refused() -> None:
    with (
        pytest.raises(ValueError, match=r"layer must be between 1 and 2 for this model, got \(8, 16, 24\)"),
        prune(build("llava"), PyramidDrop()),
    ):
        pass
