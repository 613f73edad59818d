"""What methods inside the LLM are told of the layer before is what an unpruned eager run computes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Any, ClassVar, Literal
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from divprune import DivPrune, attach, prune
from divprune.budget import budget
from divprune.errors import UnsupportedModelError
from divprune.huggingface.encoding.items import VisualItem
from divprune.huggingface.layer_pruning.checks import final_norm
from divprune.huggingface.model_inputs import CACHE, cache_in
from divprune.methods import ItemContext
from divprune.methods.base import Method
from divprune.methods.item_context import Need
from tests.support.encoding import encoded_for
from tests.support.float64 import is_rounding
from tests.support.layer_cases import FAMILIES, KINDS_OF_LAYERS, attention_of, build, inputs_of
from tests.support.models.every_family import NO_PLACEHOLDERS, Row
from tests.support.subject import MIXED, ONE_AND_TWO

NEEDS: frozenset[Need] = frozenset(
    {
        "text_embeddings",
        "input_tokens",
        "attention",
        "text_attention",
        "visual_attention",
        "visual_peak_attention",
        "keys",
        "text_keys",
        "visual_query",
        "text_states",
        "final_norm",
    }
)
# And the family with a softcap on its attention logits, which has no sdpa.
COMPUTED_BY = [*product(KINDS_OF_LAYERS, ("sdpa", "eager")), ("paligemma2", "eager")]
ENDS_IN_A_PICTURE: list[Row] = [[1, 5, "image", 6, 7, 8], [1, 9, "image", 10, 11, "image"]]


@dataclass(frozen=True)
class Curious(Method):
    """Wants to know everything, remembers what it is told, and keeps the last tokens."""

    name: ClassVar[str] = "curious"
    needs: ClassVar[frozenset[Need]] = NEEDS
    at: tuple[int, ...] = (1,)
    told: list[tuple[Tensor, ItemContext]] = field(default_factory=list, compare=False)

    @property
    def layers(self) -> tuple[int, ...]:
        return self.at

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        self.told.append((visual_tokens, context))
        return torch.arange(len(visual_tokens) - num_keep, len(visual_tokens))


@dataclass(frozen=True)
class CuriousOnEntering(Curious):
    """The same of the layer that the tokens are about to enter."""

    decoder_layer: ClassVar[Literal["before", "entering"]] = "entering"


@dataclass
class Seen:
    """An eager run: attention (B, heads, n, n) of a layer, its keys (B, key heads, n, d_head), and what comes out.

    `queries` (B, heads, n, d_head).

    `entering` the next layer: the hidden states and, in some models, features added to those of visual tokens.
    """

    attention: Tensor
    keys: Tensor
    states: Tensor
    entering: Tensor
    queries: Tensor


def eager_run(model: PreTrainedModel, inputs: dict[str, Any], layer: int, read: int | None = None) -> Seen:
    """The layer before `layer`, or another one, in the model as it is."""
    read = layer - 1 if read is None else read
    before = model.config.get_text_config()._attn_implementation
    model.set_attn_implementation({"text_config": "eager"})
    with torch.no_grad():
        # A cache without windows, which holds the keys of all tokens.
        cache, entering = DynamicCache(), []
        hook = (
            model.get_decoder()
            .layers[layer]
            .register_forward_pre_hook(
                lambda _, args, kwargs: entering.append((*args, *kwargs.values())[0]), with_kwargs=True
            )
        )
        with queries_seen(model.get_decoder().layers[read].self_attn) as queries:
            output = model(**inputs, output_attentions=True, output_hidden_states=True, **{CACHE: cache})
    model.set_attn_implementation({"text_config": before})
    hook.remove()
    states, keys = output.hidden_states[layer], cache.layers[read].keys
    return Seen(output.attentions[read], keys, states, entering[0], queries[0])


@contextmanager
def queries_seen(attention: Any) -> Iterator[list[Tensor]]:
    """What an attention module hands over to transformers' eager attention."""
    module, seen = sys.modules[type(attention).__module__], []
    eager = module.eager_attention_forward

    def seeing(owner: Any, query: Tensor, *args: Any, **options: Any) -> Any:
        if owner is attention:
            seen.append(query)
        return eager(owner, query, *args, **options)

    with patch.object(module, "eager_attention_forward", seeing):
        yield seen


@dataclass
class Place:
    """Where an item's tokens, and the text and all visual tokens of its prompt, stand in what enters a layer."""

    item: VisualItem
    tokens: Tensor
    text: Tensor
    visual: Tensor
    last: int
    text_ids: Tensor
    input_tokens: Tensor


def places(model: PreTrainedModel, inputs: dict[str, Any], keep_ratio: float = 1.0) -> list[Place]:
    """Of every item, whose last tokens are left; rows are padded on the left."""
    with torch.no_grad():
        items = encoded_for(model, inputs).items
    stays = inputs["attention_mask"].bool()
    for item in items:
        stays[
            item.row,
            item.placeholders[: len(item.placeholders) - budget(len(item.placeholders), keep_ratio=keep_ratio)],
        ] = False
    width = int(stays.sum(dim=1).max()) if keep_ratio < 1 else stays.shape[1]
    return [_place(item, [each for each in items if each.row == item.row], inputs, stays, width) for item in items]


def _place(item: VisualItem, own: list[VisualItem], inputs: dict[str, Any], stays: Tensor, width: int) -> Place:
    mask = inputs["attention_mask"][item.row].bool()
    standing = stays[item.row].nonzero().squeeze(1)
    slots = torch.full((len(mask),), -1).index_copy(0, standing, torch.arange(width - len(standing), width))
    visual = torch.cat([each.placeholders for each in own])
    text = mask.index_fill(0, visual, False).nonzero().squeeze(1)
    after = text[text > visual.max()]
    text = after if len(after) else text
    return Place(
        item=item,
        tokens=slots[item.placeholders][slots[item.placeholders] >= 0],
        text=slots[text],
        visual=slots[visual][slots[visual] >= 0],
        last=int(slots[mask.nonzero().max()]),
        text_ids=inputs["input_ids"][item.row, text],
        input_tokens=torch.cat([each.visual_tokens for each in own]),
    )


def assert_told(
    model: PreTrainedModel, told: list[tuple[Tensor, ItemContext]], seen: Seen, expected: list[Place]
) -> None:
    """Every field, computed by hand from the eager run."""
    assert len(told) == len(expected)
    for (tokens, context), at in zip(told, expected, strict=True):
        row = at.item.row
        attention, keys, states = seen.attention[row], seen.keys[row], seen.states[row]
        fields = {
            "attention": attention[:, at.last, at.tokens],
            "text_attention": attention[:, at.text][:, :, at.tokens],
            "visual_attention": attention[:, at.visual].mean(dim=1)[:, at.tokens],
            "visual_peak_attention": attention[:, at.visual].amax(dim=0).mean(dim=0)[at.tokens],
            "keys": keys[:, at.tokens],
            "text_keys": keys[:, at.text],
            "visual_query": seen.queries[row][:, at.visual].mean(dim=1),
            "text_states": states[at.text],
            "text_embeddings": model.get_input_embeddings()(at.text_ids),
            "input_tokens": at.input_tokens,
        }
        assert fields.keys() == NEEDS - {"final_norm"}
        for name, value in fields.items():
            got = getattr(context, name)
            assert got.shape == value.shape, name
            assert is_rounding((got - value).abs().max()), name
        assert is_rounding((tokens - seen.entering[row, at.tokens]).abs().max())
        assert context.final_norm is model.get_decoder().norm


@pytest.mark.parametrize(("name", "attention"), COMPUTED_BY)
@pytest.mark.parametrize("rows", [ONE_AND_TWO, ENDS_IN_A_PICTURE], ids=["text last", "picture last"])
@pytest.mark.parametrize("layer", [1, 2])
def test_the_first_layer_that_drops_is_told_what_the_unpruned_model_computes(
    name: str, rows: list[Row], layer: int, attention: str
) -> None:
    model = build(name, attention)
    inputs, method = inputs_of(name, model, rows), Curious((layer,))
    with prune(model, method, keep_ratio=0.5), torch.no_grad():
        model(**inputs)
    assert_told(model, method.told, eager_run(model, inputs, layer), places(model, inputs))


@pytest.mark.parametrize(("name", "attention"), COMPUTED_BY)
@pytest.mark.parametrize("layer", [1, 2])
def test_a_method_may_read_the_layer_that_the_tokens_are_about_to_enter(name: str, layer: int, attention: str) -> None:
    """All of them: what the unpruned model computes there. The cache and the configuration are as without it."""
    model = build(name, attention)
    inputs, method = inputs_of(name, model, ONE_AND_TWO), CuriousOnEntering((layer,))
    with prune(model, method, keep_ratio=0.5), torch.no_grad():
        cache = cache_in(model(**inputs, use_cache=True))
    assert_told(model, method.told, eager_run(model, inputs, layer, read=layer), places(model, inputs))
    with prune(model, Curious((layer,)), keep_ratio=0.5), torch.no_grad():
        expected = cache_in(model(**inputs, use_cache=True))
    for one, two in zip(cache.layers, expected.layers, strict=True):
        assert one.get_seq_length() == two.get_seq_length()
        assert one.keys.equal(two.keys)
    assert not any(
        "capture" in str(layer.self_attn.config._attn_implementation) for layer in model.get_decoder().layers
    )


@pytest.mark.parametrize("name", KINDS_OF_LAYERS)
def test_beams_and_static_caches_are_told_the_same_of_the_layer_itself(name: str) -> None:
    model = build(name)
    inputs = inputs_of(name, model, ONE_AND_TWO)
    positions = inputs["attention_mask"].cumsum(dim=-1).sub(1).clamp(min=0)
    placed = inputs if "qwen" in name else inputs | {"position_ids": positions}
    for settings in ({"num_beams": 3}, {"use_cache": False}, {"cache_implementation": "static"}):
        method = CuriousOnEntering((1,))
        with prune(model, method, keep_ratio=0.5):
            model.generate(**inputs, **settings, **NO_PLACEHOLDERS, max_new_tokens=2)
        assert_told(model, method.told, eager_run(model, placed, 1, read=1), places(model, inputs))


@pytest.mark.parametrize("name", KINDS_OF_LAYERS)
def test_a_later_layer_is_told_of_what_is_left(name: str) -> None:
    model = build(name)
    inputs, method = inputs_of(name, model, ONE_AND_TWO), Curious((1, 2))
    with prune(model, method, keep_ratio=0.4), torch.no_grad():
        model(**inputs)
    with prune(model, Curious((1,)), keep_ratio=0.4):
        seen = eager_run(model, inputs, 2)
    second = method.told[len(method.told) // 2 :]
    assert_told(model, second, seen, places(model, inputs, 0.4))


@pytest.mark.parametrize("name", KINDS_OF_LAYERS)
def test_beams_are_told_the_same_as_one_row(name: str) -> None:
    model = build(name)
    inputs = inputs_of(name, model, ONE_AND_TWO)
    # As `generate` counts them; `forward` counts padding too.
    positions = inputs["attention_mask"].cumsum(dim=-1).sub(1).clamp(min=0)
    placed = inputs if "qwen" in name else inputs | {"position_ids": positions}
    for settings in ({"num_beams": 3}, {"use_cache": False}, {"cache_implementation": "static"}):
        method = Curious((1,))
        with prune(model, method, keep_ratio=0.5):
            model.generate(**inputs, **settings, **NO_PLACEHOLDERS, max_new_tokens=2)
        assert_told(model, method.told, eager_run(model, placed, 1), places(model, inputs))


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
@pytest.mark.parametrize("layer", [1, 2])
def test_a_later_turn_is_told_of_its_own_text_and_picture(name: str, layer: int) -> None:
    """What earlier turns said is attended, and not asked about."""
    model = build(name)
    first, second = ([[1, 5, "image", 6, 7, 8]], [[31, 32, "image", 33, 34]])
    inputs, later = inputs_of(name, model, first), inputs_of(name, model, second)  # type: ignore[arg-type]
    whole = {
        key: torch.cat([value, later[key]], dim=-1 if value.shape == inputs["input_ids"].shape else 0)
        for key, value in inputs.items()
    }
    with prune(model, Curious((layer,)), keep_ratio=1.0), torch.no_grad():
        cache = cache_in(model(**inputs, use_cache=True))
    method = Curious((layer,))
    with prune(model, method, keep_ratio=1.0), torch.no_grad():
        model(**later | {"attention_mask": whole["attention_mask"]}, **{CACHE: cache})
    seen, expected = eager_run(model, whole, layer), places(model, whole)[1]
    expected.visual = expected.visual[torch.isin(expected.visual, expected.item.placeholders)]
    expected.input_tokens = expected.item.visual_tokens
    assert_told(model, method.told, seen, [expected])


def test_visual_attention_does_not_depend_on_how_much_is_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llava")
    inputs, told = inputs_of("llava", model, ONE_AND_TWO), []
    for read_at_once in (2**26, 5 * 2 * 4 * inputs["input_ids"].shape[1], 1):
        monkeypatch.setattr("divprune.huggingface.layer_pruning.decoder_capture.READ_AT_ONCE", read_at_once)
        method = Curious((1,))
        with prune(model, method, keep_ratio=0.5), torch.no_grad():
            model(**inputs)
        told.append(torch.cat([context.visual_attention for _, context in method.told], dim=1))  # type: ignore[misc]
    assert (told[0] - told[1]).abs().max() < 1e-7
    assert (told[0] - told[2]).abs().max() < 1e-7


def test_a_shared_budget_is_told_of_all_pictures_of_a_row() -> None:
    model = build("llava_next_video")
    inputs = inputs_of("llava_next_video", model, MIXED)
    alone, shared = Curious((1,)), Curious((1,))
    for method, scope in ((alone, "item"), (shared, "sample")):
        with prune(model, method, num_keep=1, scope=scope), torch.no_grad():
            model(**inputs)
    # Images come before videos where each is asked about alone: one of both in the first row, one image in the second.
    image, other_image, video = (context for _, context in alone.told)
    for name, axis in {"attention": 1, "text_attention": 2, "visual_attention": 1, "keys": 1}.items():
        both, one = (getattr(context, name) for _, context in shared.told)
        assert both.equal(torch.cat([getattr(image, name), getattr(video, name)], dim=axis))
        assert one.equal(getattr(other_image, name))


def test_a_model_without_a_known_last_norm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llava")
    monkeypatch.setattr("divprune.huggingface.layer_pruning.checks.FINAL_NORMS", ("no_such_norm",))
    with pytest.raises(UnsupportedModelError, match="'curious' needs the norm behind the last decoder layer"):
        attach(model, Curious(), keep_ratio=0.5)
    attach(model, DivPrune(layer=1), keep_ratio=0.5).detach()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_a_known_last_norm(name: str) -> None:
    assert final_norm(build(name, attention_of(name)).get_decoder()) is not None


def test_what_only_decoder_layers_know_is_not_known_before_them() -> None:
    model = build("llava")
    with pytest.raises(ValueError, match=r"'curious' needs attention.*must name layers"):
        attach(model, Curious(()), keep_ratio=0.5)
