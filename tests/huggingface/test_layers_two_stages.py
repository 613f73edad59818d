"""Methods that drop tokens both before the LLM and inside it, against the hand-made reference."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from divprune import attach, prune
from divprune.budget import budget
from divprune.errors import UnsupportedModelError
from divprune.methods import ItemContext, get_method
from divprune.methods.base import Method, Stage
from divprune.methods.item_context import Need
from divprune.selection.reference import reference_select
from tests.support.beams import BEAM_STEPS, best_beams
from tests.support.float64 import is_different, is_rounding
from tests.support.handmade_entering import Entering, FullRow, Rule
from tests.support.handmade_layers import run
from tests.support.layer_cases import (
    CACHES,
    KINDS_OF_LAYERS,
    attention_of,
    build,
    generate_logits,
    inputs_of,
    rows_of,
)
from tests.support.layer_turns import Talk
from tests.support.models.every_family import CASES, NO_PLACEHOLDERS, Row, make_inputs
from tests.support.subject import ONE_AND_TWO

FIRST, SECOND = 0.6, 0.3
"""Of all tokens."""


@dataclass(frozen=True)
class Both(Method):
    """The most different before the LLM, the most attended of them at layer 2."""

    name: ClassVar[str] = "both"
    layer_needs: ClassVar[frozenset[Need]] = frozenset({"attention"})
    layers: ClassVar[tuple[int, ...]] = (0, 2)  # type: ignore[assignment]

    def stages(self, num_keep: int, num_visual_tokens: int) -> tuple[Stage, ...]:
        return Stage(0, budget(num_visual_tokens, keep_ratio=FIRST)), Stage(2, num_keep)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        if context.layer == 0:
            assert context.attention is None
            return reference_select(visual_tokens, num_keep)
        assert context.attention is not None
        return context.attention.mean(dim=0).sort(descending=True, stable=True).indices[:num_keep]


def different(entering: Entering) -> Tensor:
    return reference_select(entering.hidden, budget(entering.total, keep_ratio=FIRST)).sort().values


def attended(entering: Entering) -> Tensor:
    ranked = entering.attention.mean(dim=0).sort(descending=True, stable=True).indices
    return ranked[: budget(entering.total, keep_ratio=SECOND)].sort().values


def first_tokens(ratio: float) -> Rule:
    return lambda entering: torch.arange(budget(entering.total, keep_ratio=ratio))


RULES: dict[int, Rule] = {0: different, 2: attended}


def error(model: Any, rows: list[FullRow], rules: dict[int, Rule], tokens: Tensor, logits: Tensor) -> float:
    expected = [run(model, row, new[:-1], rules).logits for row, new in zip(rows, tokens, strict=True)]
    return float((torch.stack(expected) - logits).abs().max())


def check(name: str, attention: str, settings: dict[str, Any]) -> None:
    model = build(name, attention)
    inputs = inputs_of(name, model, ONE_AND_TWO)
    with prune(model, Both(), keep_ratio=SECOND) as pruning:
        tokens, logits, _ = generate_logits(model, inputs, **NO_PLACEHOLDERS, **settings)
    rows = rows_of(name, model, inputs)
    assert is_rounding(error(model, rows, RULES, tokens, logits))
    for layer, ratio in ((0, FIRST), (2, SECOND)):
        assert is_different(error(model, rows, RULES | {layer: first_tokens(ratio)}, tokens, logits))
    for item in pruning.last.items:
        assert item.num_kept == budget(item.num_visual_tokens, keep_ratio=SECOND)
    lengths = pruning.last.sequence_lengths
    assert lengths[0] == lengths[1] > lengths[2]
    assert lengths[0] < inputs["input_ids"].shape[1]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", KINDS_OF_LAYERS)
def test_every_kind_of_layers_equals_the_reference(name: str, attention: str) -> None:
    check(name, attention, {})


@pytest.mark.parametrize("settings", CACHES[1:], ids=str)
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3", "qwen3_vl"])
def test_every_cache_equals_the_reference(name: str, settings: dict[str, Any]) -> None:
    check(name, attention_of(name), settings)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("new_ids_only", [True, False])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "qwen3_vl"])
def test_a_later_turn_with_an_image_of_its_own(name: str, new_ids_only: bool, kind: str) -> None:
    model = build(name)
    talk = Talk(name, kind, model=model)
    with prune(model, Both(), keep_ratio=SECOND):
        said, tokens, logits = talk.run(new_ids_only=new_ids_only)
    assert is_rounding(talk.error(RULES, said, tokens, logits))
    wrong = RULES | {0: first_tokens(FIRST)}
    assert is_different(talk.error(wrong, said, tokens, logits))


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_a_later_turn_of_text_alone(name: str, kind: str) -> None:
    model = build(name, attention_of(name))
    first: list[Row] = [[1, 5, "image", 6, 7, 8], [1, 9, "image", 12, 13, 14]]
    talk = Talk(name, kind, ([*first], [[31, 32, 33], [41, 42, 43]]), model)
    with prune(model, Both(), keep_ratio=SECOND):
        said, tokens, logits = talk.run(new_ids_only=True)
    assert is_rounding(talk.error(RULES, said, tokens, logits))
    assert is_different(talk.error(RULES | {0: first_tokens(FIRST)}, said, tokens, logits))


def test_beams_equal_the_reference() -> None:
    model = build("llava")
    inputs = inputs_of("llava", model, ONE_AND_TWO)
    settings = {"num_beams": 3, "do_sample": False, "max_new_tokens": BEAM_STEPS, **NO_PLACEHOLDERS}
    with prune(model, Both(), keep_ratio=SECOND):
        new_tokens = model.generate(**inputs, **settings)[:, inputs["input_ids"].shape[1] :]
    rows = rows_of("llava", model, inputs)
    assert [best_beams(model, row, RULES, 3)[0][1] for row in rows] == new_tokens.tolist()


def test_a_layer_zero_that_is_out_of_the_ordinary_is_refused() -> None:
    model = build("qwen3_5 with late attention")
    with pytest.raises(UnsupportedModelError, match="its layer 0 is 'linear_attention'"), prune(model, Both()):
        pass


def test_layer_zero_alone_is_no_stage_inside_the_llm() -> None:
    @dataclass(frozen=True)
    class Zero(Both):
        layers: ClassVar[tuple[int, ...]] = (0,)  # type: ignore[assignment]

    with pytest.raises(ValueError, match="layer must be between 1 and 2 for this model, got 0"):
        attach(build("llava"), Zero())


def test_everything_is_as_before_afterwards() -> None:
    model = build("llava")
    inputs = inputs_of("llava", model, ONE_AND_TWO)
    expected = model.generate(**inputs, **NO_PLACEHOLDERS, max_new_tokens=4)
    with prune(model, Both(), keep_ratio=SECOND):
        _, _, cache = generate_logits(model, inputs)
    assert "get_seq_length" not in vars(cache)
    assert model.generate(**inputs, **NO_PLACEHOLDERS, max_new_tokens=4).equal(expected)


@pytest.mark.parametrize(
    ("family", "kind", "spec"),
    [
        ("qwen2_5_vl", "video", "flashvid:layer=2"),
        ("llava_next_video", "video", "flashvid:layer=2"),
        ("qwen2_5_vl", "video", "holitom:layer=2"),
        ("llava_next_video", "video", "holitom:layer=2"),
        ("qwen2_5_vl", "video", "prunevid:layer=2"),
        ("llava", "image", "vscan:layer=2,early_layer=0"),
        ("llava_next", "image", "vscan:layer=2,early_layer=0"),
        ("internvl", "image", "vscan:layer=2,early_layer=0"),
    ],
)
def test_methods_with_two_stages_keep_what_they_say(family: str, kind: str, spec: str) -> None:
    model, method = CASES[family].build(), get_method(spec)
    inputs = make_inputs(CASES[family], model, [[1, 5, kind, 6, 7, 8]])
    with prune(model, method, keep_ratio=0.4) as pruning:
        tokens, logits, _ = generate_logits(model, inputs, **NO_PLACEHOLDERS)
        again, logits_again, _ = generate_logits(model, inputs, **NO_PLACEHOLDERS)
    assert tokens.equal(again)
    assert logits.equal(logits_again)
    (item,) = pruning.last.items
    total = item.num_visual_tokens
    before, inside = method.stages(budget(total, keep_ratio=0.4), total)
    assert item.num_kept == inside.num_keep
    length = inputs["input_ids"].shape[1]
    expected = length - total + before.num_keep, length - total + inside.num_keep
    lengths = pruning.last.sequence_lengths
    assert (lengths[0], lengths[1], lengths[2]) == (expected[0], *expected)
    with prune(model, get_method(spec.replace("layer=2", "layer=0", 1)), keep_ratio=0.4) as pruning:
        generate_logits(model, inputs, **NO_PLACEHOLDERS)
    assert pruning.last.num_kept == budget(total, keep_ratio=0.4)
