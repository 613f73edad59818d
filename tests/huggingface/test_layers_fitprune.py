"""FitPrune drops at several layers like the hand-made reference; its calibration sees what an eager run does."""

from typing import Any

import pytest
import torch
from torch import Tensor

from divprune import prune
from divprune.calibration.attention_mass import attention_masses
from divprune.errors import CalibrationError
from divprune.huggingface.fingerprint import fingerprint
from divprune.methods import FitPrune, FitPruneRecipe
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
from tests.support.subject import ONE_AND_TWO

METHOD = FitPrune(FitPruneRecipe((5, 4), 10))
"""Half of the tokens go before layer 1, and nine tenths in all before layer 2."""
GONE = {1: 5, 2: 9}


def left(total: int, layer: int) -> int:
    return total - round(GONE[layer] * total / 10)


def least_attended_go(layer: int) -> Rule:
    def rule(entering: Entering) -> Tensor:
        cross = entering.text_attention.max(dim=0).values.mean(dim=0)
        own = entering.visual_attention.max(dim=0).values.mean(dim=0)
        # Stable: what lies outside a sliding window gets no attention at all.
        order = (cross * own).sort(descending=True, stable=True).indices
        return order[: left(entering.total, layer)].sort().values

    return rule


def by_text_alone(layer: int) -> Rule:
    return lambda entering: (
        entering.text_attention.max(dim=0).values.mean(dim=0).sort(descending=True, stable=True)
        .indices[: left(entering.total, layer)].sort().values
    )  # fmt: skip


def error(model: Any, rows: Any, rules: dict[int, Rule], tokens: Tensor, logits: Tensor) -> float:
    expected = [run(model, row, new_tokens[:-1], rules).logits for row, new_tokens in zip(rows, tokens, strict=True)]
    return float((torch.stack(expected) - logits).abs().max())


@pytest.mark.parametrize(
    ("name", "settings"),
    [(name, {}) for name in (*FROM_1, "llava_next", "internvl")]
    + [(name, settings) for name in KINDS_OF_LAYERS[:2] for settings in CACHES[1:]],
)
def test_fitprune_equals_the_reference(name: str, settings: dict[str, Any]) -> None:
    model = build(name, attention_of(name), **settings)
    inputs = inputs_of(name, model, ONE_AND_TWO)
    with prune(model, METHOD) as pruning:
        tokens, logits, _ = generate_logits(model, inputs, **NO_PLACEHOLDERS, **settings)
    rows = rows_of(name, model, inputs)
    rules = {layer: least_attended_go(layer) for layer in GONE}
    assert is_rounding(error(model, rows, rules, tokens, logits))
    # At one of the two layers both rules may leave the same tokens.
    by_text = ({1: by_text_alone(1), 2: rules[2]}, {1: rules[1], 2: by_text_alone(2)})
    assert is_different(max(error(model, rows, wrong, tokens, logits) for wrong in by_text))
    assert is_different(error(model, rows, {1: rules[1]}, tokens, logits))
    assert [item.num_kept for item in pruning.last.items] == [
        left(item.num_visual_tokens, 2) for item in pruning.last.items
    ]


@pytest.mark.parametrize("name", ["llava", "llava_next_video", "qwen2_5_vl"])
def test_everything_may_go_before_the_last_layer_that_drops(name: str) -> None:
    model = build(name)
    with prune(model, FitPrune(FitPruneRecipe((99, 1), 100))) as pruning:
        model.generate(**inputs_of(name, model, ONE_AND_TWO), max_new_tokens=2, **NO_PLACEHOLDERS)
    assert pruning.last.num_kept == 0


@pytest.mark.parametrize("name", KINDS_OF_LAYERS)
def test_masses_are_those_of_an_unpruned_eager_run(name: str) -> None:
    model = build(name)
    inputs = inputs_of(name, model, ONE_AND_TWO)
    heard: list[dict[int, tuple[Tensor, Tensor]]] = []
    for row in rows_of(name, model, inputs):
        items: list[dict[int, tuple[Tensor, Tensor]]] = [{} for _ in row.items]
        for layer in (1, 2):
            waiting = iter(items)

            def keeps_all(entering: Entering, layer: int = layer, waiting: Any = waiting) -> Tensor:
                parts = (entering.visual_attention, entering.text_attention)
                next(waiting)[layer] = tuple(part.max(dim=0).values.mean(dim=0) for part in parts)  # type: ignore[assignment]
                return torch.arange(entering.total)

            run(model, row, torch.arange(0), {layer: keeps_all})
        heard += items
    seen = attention_masses(model, [inputs])
    assert len(seen.masses) == len(heard) == 3
    for mass, expected in zip(seen.masses, heard, strict=True):
        for layer in (1, 2):
            assert (mass.visual[layer - 1] - expected[layer][0]).abs().max() < 1e-5
            assert (mass.text[layer - 1] - expected[layer][1]).abs().max() < 1e-5
    visual = [sum(len(item) for item in row.items) for row in rows_of(name, model, inputs)]
    text = [int(mask.sum()) - count for mask, count in zip(inputs["attention_mask"], visual, strict=True)]
    assert list(seen.prompts) == list(zip(text, visual, strict=True))
    assert seen.model == fingerprint(model)
    assert "forward" not in model.__dict__


def test_only_the_layers_that_are_asked_for_are_listened_to() -> None:
    model = build("llava")
    inputs = inputs_of("llava", model, ONE_AND_TWO)
    both, last = attention_masses(model, [inputs]), attention_masses(model, [inputs], first_layer=1)
    assert last.first_layer == 1
    for one, two in zip(last.masses, both.masses, strict=True):
        assert one.visual.equal(two.visual[1:])
        assert one.text.equal(two.text[1:])


def test_samples_without_pictures_are_refused() -> None:
    model = build("llava")
    words = torch.tensor([[1, 5, 6]])
    picture = inputs_of("llava", model, ONE_AND_TWO)
    with pytest.raises(ValueError, match="samples must hold prompts with images, got none in sample 1"):
        attention_masses(model, [picture, {"input_ids": words, "attention_mask": words.sign()}])
    with pytest.raises(ValueError, match="samples must hold at least one prompt, got none"):
        attention_masses(model, [])
    with pytest.raises(ValueError, match="first_layer must be between 0 and 1 for this model, got 2"):
        attention_masses(model, [picture], first_layer=2)
    assert "forward" not in model.__dict__


def test_another_models_recipe_is_refused_and_the_model_is_as_before() -> None:
    model = build("llava")
    strange = FitPrune(FitPruneRecipe((1, 1), 9, "llava, 32 layers of 4096, weights 0123456789abcdef"))
    with pytest.raises(
        CalibrationError, match=r"expected llava, 3 layers .* got that of llava, 32 layers .* calibrate"
    ):
        prune(model, strange).__enter__()
    assert "forward" not in model.__dict__
    own = FitPrune(FitPruneRecipe((1, 1), 9, fingerprint(model)))
    with prune(model, own):
        pass
    with pytest.raises(ValueError, match=r"layer must be between 1 and 2 for this model, got \(1, 3\)"):
        prune(model, FitPrune(FitPruneRecipe((1, 0, 1), 9))).__enter__()
    with pytest.raises(ValueError, match="`keep_ratio` and `num_keep` must be left out with 'fitprune'"):
        prune(model, own, keep_ratio=0.5).__enter__()
