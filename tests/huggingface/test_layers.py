"""Dropping tokens at decoder layer K equals the hand-made reference: layers run one by one, tokens left out between.

Every family that is not refused is compared on one padded batch, with DivPrune at the lowest layer that it allows;
`layer_cases.REPRESENTATIVE` say which ones are compared in all other ways too.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor

from divprune import DivPrune, FastV, prune
from divprune.methods import ItemContext, Method
from divprune.methods.base import Stage
from divprune.methods.item_context import Need
from divprune.selection.reference import reference_select
from tests.support.float64 import is_different, is_rounding
from tests.support.handmade_entering import Entering, FullRow, Rule
from tests.support.handmade_layers import Reference, run
from tests.support.layer_cases import (
    CACHES,
    CELLS,
    FAMILIES,
    FROM_1,
    INSIDE_AT,
    KINDS_OF_LAYERS,
    METHODS,
    REPRESENTATIVE,
    WITH_ATTENTION,
    at_its_layer,
    attention_of,
    build,
    first_tokens,
    generate_logits,
    inputs_of,
    most_attended,
    most_different,
    rows_of,
    rule_of,
    settings_of,
)
from tests.support.models.every_family import NO_PLACEHOLDERS, Row
from tests.support.subject import ONE_AND_TWO, RATIO

cells = pytest.mark.parametrize(("name", "rows"), CELLS)
attentions = pytest.mark.parametrize("attention", ["sdpa", "eager"])


def references(rows: list[FullRow], model: Any, rules: dict[int, Rule], tokens: Tensor) -> list[Reference]:
    return [run(model, row, new_tokens[:-1], rules) for row, new_tokens in zip(rows, tokens, strict=True)]


def largest_error(rows: list[FullRow], model: Any, rules: dict[int, Rule], tokens: Tensor, logits: Tensor) -> float:
    expected = torch.stack([reference.logits for reference in references(rows, model, rules, tokens)])
    return float((expected - logits).abs().max())


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_equals_the_reference(name: str) -> None:
    check_greedy(name, ONE_AND_TWO, attention_of(name), DivPrune(layer=1))


@cells
@pytest.mark.parametrize(("attention", "method"), WITH_ATTENTION)
def test_greedy_equals_the_reference_and_would_notice_other_tokens(
    name: str, rows: list[Row], attention: str, method: Any
) -> None:
    check_greedy(name, rows, attention, method)


def check_greedy(name: str, rows: list[Row], attention: str, method: Any) -> None:
    """Logits, and what the report tells, are the reference's, and not those of other tokens."""
    model, method = build(name, attention), at_its_layer(name, method)
    inputs = inputs_of(name, model, rows)
    with prune(model, method, **settings_of(method)) as pruning:
        tokens, logits, _ = generate_logits(model, inputs, **NO_PLACEHOLDERS)
    full = rows_of(name, model, inputs)
    expected = references(full, model, {method.layer: rule_of(method)}, tokens)
    assert is_rounding((torch.stack([reference.logits for reference in expected]) - logits).abs().max())
    assert is_different(largest_error(full, model, {method.layer: first_tokens}, tokens, logits))
    assert_reported(full, inputs, pruning.last, expected)


@pytest.mark.parametrize("name", FROM_1)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_the_layer_matters(name: str, method: Any) -> None:
    model = build(name, attention_of(name))
    inputs = inputs_of(name, model, ONE_AND_TWO)
    with prune(model, method(layer=1), **settings_of(method())):
        tokens, logits, _ = generate_logits(model, inputs, **NO_PLACEHOLDERS)
    full = rows_of(name, model, inputs)
    assert is_different(largest_error(full, model, {2: rule_of(method())}, tokens, logits))


def assert_reported(rows: list[FullRow], inputs: dict[str, Any], report: Any, expected: list[Reference]) -> None:
    """Kept indices of each item, and the mask of the columns that the last layers see."""
    items = iter(report.items)
    mask = inputs["attention_mask"].bool()
    for number, (row, reference) in enumerate(zip(rows, expected, strict=True)):
        for places, kept in zip(row.items, reference.kept, strict=True):
            item = next(items)
            assert (item.row, item.num_visual_tokens) == (number, len(places))
            assert item.kept_indices.tolist() == kept.tolist() == sorted(item.selection_order.tolist())
            mask[number, row.padding + places] = False
            mask[number, row.padding + places[kept]] = True
    assert next(items, None) is None
    assert torch.equal(report.keep_mask, mask)


@pytest.mark.parametrize("name", KINDS_OF_LAYERS)
@attentions
@pytest.mark.parametrize("settings", CACHES, ids=str)
@pytest.mark.parametrize("method", [DivPrune(layer=1), FastV(layer=1)], ids=lambda method: method.name)
def test_rows_without_padding_that_keep_different_counts(
    name: str, attention: str, settings: dict[str, Any], method: Method
) -> None:
    """No padding means no mask from transformers, and the shortened rows need one."""
    model = build(name, attention)
    one, two = [[1, 5, "image", 6, 7, 8], [1, 9, "image", 10, 11, "image", 12]]
    lengths = inputs_of(name, model, [one, two])["attention_mask"].sum(dim=-1)
    one += [20 + place % 60 for place in range(int(lengths[1] - lengths[0]))]
    inputs = inputs_of(name, model, [one, two]) | NO_PLACEHOLDERS
    assert bool(inputs["attention_mask"].all())
    with prune(model, method, keep_ratio=RATIO) as pruning:
        tokens, logits, _ = generate_logits(model, inputs, **settings)
    assert len(set(pruning.last.keep_mask.sum(dim=-1).tolist())) == 2
    full = rows_of(name, model, inputs)
    assert is_rounding(largest_error(full, model, {1: rule_of(method)}, tokens, logits))
    assert is_different(largest_error(full, model, {1: first_tokens}, tokens, logits))


@dataclass(frozen=True)
class Halves(Method):
    """A schedule over two layers: half of what enters stays, at the first by difference, at the second by attention."""

    name: ClassVar[str] = "halves"
    count: ClassVar[Literal["exact", "schedule"]] = "schedule"
    needs: ClassVar[frozenset[Need]] = frozenset({"attention"})

    @property
    def layers(self) -> tuple[int, ...]:
        return (1, 2)

    def schedule(self, num_visual_tokens: int) -> tuple[Stage, ...]:
        return Stage(1, num_visual_tokens // 2), Stage(2, num_visual_tokens // 2 // 2)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        if context.layer == 1:
            return reference_select(visual_tokens, num_keep)
        assert context.attention is not None
        return context.attention.mean(dim=0).topk(num_keep).indices


def half_different(entering: Entering) -> Tensor:
    return reference_select(entering.hidden, len(entering.hidden) // 2).sort().values


def half_attended(entering: Entering) -> Tensor:
    return entering.attention.mean(dim=0).topk(len(entering.hidden) // 2).indices.sort().values


@pytest.mark.parametrize("name", FROM_1)
@pytest.mark.parametrize("settings", CACHES, ids=str)
def test_a_schedule_drops_at_several_layers(name: str, settings: dict[str, Any]) -> None:
    model = build(name, attention_of(name), **settings)
    inputs = inputs_of(name, model, ONE_AND_TWO)
    with prune(model, Halves()) as pruning:
        tokens, logits, _ = generate_logits(model, inputs, **NO_PLACEHOLDERS, **settings)
    rules = {1: half_different, 2: half_attended}
    full = rows_of(name, model, inputs)
    expected = references(full, model, rules, tokens)
    assert is_rounding((torch.stack([reference.logits for reference in expected]) - logits).abs().max())
    assert is_different(largest_error(full, model, {1: half_different}, tokens, logits))
    assert_reported(full, inputs, pruning.last, expected)
    lengths = pruning.last.sequence_lengths
    assert list(lengths) == sorted(lengths, reverse=True)
    assert len(set(lengths)) == 3


@pytest.mark.parametrize("name", KINDS_OF_LAYERS)
def test_sample_scope_shares_one_budget_over_a_row(name: str) -> None:
    model = build(name)
    inputs = inputs_of(name, model, ONE_AND_TWO)
    for method, rule in ((DivPrune(layer=1), most_different), (FastV(layer=1), most_attended)):
        with prune(model, method, keep_ratio=RATIO, scope="sample") as pruning:
            model.generate(**inputs, max_new_tokens=1)
        row = rows_of(name, model, inputs)[1]
        row.items, row.ends = [torch.cat(row.items)], row.ends[:1]
        expected = run(model, row, torch.arange(0), {1: rule}).kept[0]
        first, second = pruning.last.items[1:]
        together = torch.cat([first.kept_indices, second.kept_indices + first.num_visual_tokens])
        assert together.tolist() == expected.tolist()


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_keeping_everything_leaves_logits_bit_identical(name: str) -> None:
    model = build(name, attention_of(name))
    inputs = inputs_of(name, model, ONE_AND_TWO)
    tokens, logits, _ = generate_logits(model, inputs)
    for method in (DivPrune(layer=INSIDE_AT[name]), FastV(layer=2)):
        with prune(model, method, keep_ratio=1.0):
            pruned_tokens, pruned_logits, _ = generate_logits(model, inputs)
        assert torch.equal(pruned_tokens, tokens)
        assert torch.equal(pruned_logits, logits)
