"""SparseVLM and DART against rules written down again, on the hand-made reference's layers.

SparseVLM drops at three layers and merges there, so these models have one layer more than the other tests'.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune import prune
from divprune.budget import budget
from divprune.methods import DART, Count, ItemContext, Merged, MergingMethod, SparseVLM, Stage
from divprune.methods.base import Method
from tests.support.beams import BEAM_STEPS, best_beams
from tests.support.float64 import is_different, is_rounding
from tests.support.handmade_entering import Entering, FullRow, Rule
from tests.support.handmade_layers import full_rows, run
from tests.support.layer_cases import CACHES, generate_logits
from tests.support.layer_turns import Talk
from tests.support.layer_variants import deeper
from tests.support.models.every_family import CASES, NO_PLACEHOLDERS, Row, make_inputs
from tests.support.subject import MIXED, ONE_AND_TWO, RATIO

FAMILIES = ("llava", "llava_next", "qwen2_5_vl", "internvl", "qwen3_vl", "gemma3")
KEPT = {1: 300, 2: 200, 3: 110}
SPARSE = SparseVLM(first_layer=1, second_layer=2, third_layer=3)
WITHOUT = SparseVLM(first_layer=1, second_layer=2, third_layer=3, recycle=False)


def sparse(layer: int, recycle: bool) -> Rule:
    def rule(entering: Entering) -> tuple[Tensor, Tensor]:
        scores = attention_of_raters(entering)
        order = sorted(range(len(scores)), key=lambda token: (-float(scores[token]), token))
        num_kept = min(len(order), max(1, round(KEPT[layer] * entering.total / 576)))
        dropped = order[num_kept:]
        best = sorted(dropped[: int(0.3 * len(dropped)) + 1]) if recycle else []
        groups = {token: [token] for token in order[:num_kept]} | (grouped(entering.hidden, best) if best else {})
        kept = sorted(groups)
        weights = torch.zeros(len(kept), len(order))
        for number, anchor in enumerate(kept):
            weights[number, groups[anchor]] = 1 / len(groups[anchor])
        return torch.tensor(kept), weights

    return rule


def attention_of_raters(entering: Entering) -> Tensor:
    resemblance = torch.stack(
        [torch.softmax(entering.text_embeddings @ token, dim=0) for token in entering.input_tokens]
    ).mean(dim=0)
    rates = [number for number, value in enumerate(resemblance) if value > resemblance.mean()]
    assert len(rates) < len(resemblance)
    return entering.text_attention.mean(dim=0)[rates or slice(None)].mean(dim=0)


def grouped(hidden: Tensor, tokens: list[int]) -> dict[int, list[int]]:
    """Density peaks, token by token: the members of each centre."""
    apart = (hidden[tokens][:, None] - hidden[tokens][None]).norm(dim=-1) / hidden.shape[1] ** 0.5
    count = int(len(tokens) / 10) + 1
    density = [float(torch.exp(-apart[one].sort().values[:count].square().mean())) for one in range(len(tokens))]
    peaks = []
    for one in range(len(tokens)):
        # Of equals the first counts as the denser.
        denser = [two for two in range(len(tokens)) if (density[two], -two) > (density[one], -one)]
        peaks.append(density[one] * float(apart[one, denser].min() if denser else apart[one].max()))
    centres = sorted(range(len(tokens)), key=lambda one: -peaks[one])[:count]
    groups: dict[int, list[int]] = {tokens[centre]: [] for centre in centres}
    for one, token in enumerate(tokens):
        groups[tokens[min(centres, key=lambda centre: float(apart[one, centre]))]].append(token)
    return groups


def different(model: PreTrainedModel) -> Rule:
    norm = model.get_decoder().norm

    def rule(entering: Entering) -> Tensor:
        num_keep = budget(entering.total, keep_ratio=RATIO)
        states = torch.nn.functional.normalize(norm(entering.hidden), dim=-1)
        text = torch.nn.functional.normalize(norm(entering.text_states), dim=-1)
        own, others = loudest(entering.keys)[:num_keep], loudest(entering.text_keys)
        asking = [states[token] for token in own] + [text[token] for token in others]
        kept = list(own)
        for number, pivot in enumerate(asking):
            fair = (num_keep - len(own)) // len(asking) + (number < (num_keep - len(own)) % len(asking))
            left = [token for token in range(len(states)) if token not in kept]
            kept += sorted(left, key=lambda token: float(states[token] @ pivot))[:fair]
        return torch.tensor(sorted(kept))

    return rule


def loudest(keys: Tensor) -> list[int]:
    return keys.transpose(0, 1).flatten(1).abs().sum(dim=1).topk(min(4, keys.shape[1])).indices.tolist()


def first_tokens(rule: Rule) -> Rule:
    """As many tokens as a rule keeps, and the wrong ones."""

    def wrong(entering: Entering) -> Tensor:
        kept = rule(entering)
        return torch.arange(len(kept[0] if isinstance(kept, tuple) else kept))

    return wrong


def rules_of(method: Method, model: PreTrainedModel) -> dict[int, Rule]:
    if isinstance(method, SparseVLM):
        return {layer: sparse(layer, method.recycle) for layer in method.layers}
    return {layer: different(model) for layer in method.layers}


def error(model: Any, rows: list[FullRow], rules: dict[int, Rule], tokens: Tensor, logits: Tensor) -> float:
    expected = [
        run(model, row, new_tokens[:-1], rules, with_keys=True).logits
        for row, new_tokens in zip(rows, tokens, strict=True)
    ]
    return float((torch.stack(expected) - logits).abs().max())


def check(name: str, method: Method, rows: list[Row], settings: dict[str, Any]) -> None:
    model = deeper(name)
    inputs = make_inputs(CASES[name], model, rows)
    with prune(model, method, **({} if method.count == "schedule" else {"keep_ratio": RATIO})) as pruning:
        tokens, logits, _ = generate_logits(model, inputs, **NO_PLACEHOLDERS, **settings)
    full, rules = full_rows(model, inputs, CASES[name]), rules_of(method, model)
    assert is_rounding(error(model, full, rules, tokens, logits))
    for layer, rule in rules.items():
        assert is_different(error(model, full, rules | {layer: first_tokens(rule)}, tokens, logits))
    for item in pruning.last.items:
        asked = budget(item.num_visual_tokens, keep_ratio=RATIO)
        expected = method.schedule(item.num_visual_tokens)[-1].num_keep if method.count == "schedule" else asked
        assert item.num_kept == expected


@pytest.mark.parametrize("method", [SPARSE, WITHOUT, DART(layer=1), DART(layer=2)], ids=repr)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_equals_the_reference(name: str, method: Method) -> None:
    check(name, method, ONE_AND_TWO, {})


@pytest.mark.parametrize("method", [SPARSE, DART(layer=1)], ids=lambda method: method.name)
@pytest.mark.parametrize("settings", CACHES[1:], ids=str)
def test_merged_tokens_are_read_again_in_every_pass(method: Method, settings: dict[str, Any]) -> None:
    check("llava", method, ONE_AND_TWO, settings)


def test_videos_and_pictures_in_one_prompt() -> None:
    check("qwen2_5_vl", SPARSE, MIXED, {})
    check("qwen2_5_vl", DART(layer=1), MIXED, {})


def test_recycling_changes_what_the_model_reads() -> None:
    model = deeper("llava")
    inputs = make_inputs(CASES["llava"], model, ONE_AND_TWO)
    with prune(model, SPARSE):
        tokens, logits, _ = generate_logits(model, inputs, **NO_PLACEHOLDERS)
    rows = full_rows(model, inputs, CASES["llava"])
    assert is_different(error(model, rows, rules_of(WITHOUT, model), tokens, logits))


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("method", [SPARSE, DART(layer=1)], ids=lambda method: method.name)
def test_a_later_turn_with_a_picture_of_its_own(name: str, kind: str, method: Method) -> None:
    model = deeper(name)
    talk = Talk(name, kind, model=model)
    with prune(model, method, **({} if method.count == "schedule" else {"keep_ratio": RATIO})):
        said, tokens, logits = talk.run(new_ids_only=True)
    rules = rules_of(method, model)
    assert is_rounding(talk.error(rules, said, tokens, logits, with_keys=True))
    wrong = {layer: first_tokens(rule) for layer, rule in rules.items()}
    assert is_different(talk.error(wrong, said, tokens, logits, with_keys=True))


def test_beams_read_the_merged_tokens() -> None:
    model = deeper("llava")
    inputs = make_inputs(CASES["llava"], model, ONE_AND_TWO)
    settings = {"num_beams": 3, "do_sample": False, "max_new_tokens": BEAM_STEPS, **NO_PLACEHOLDERS}
    with prune(model, SPARSE):
        new_tokens = model.generate(**inputs, **settings)[:, inputs["input_ids"].shape[1] :]
    rows = full_rows(model, inputs, CASES["llava"])
    assert [best_beams(model, row, rules_of(SPARSE, model), 3)[0][1] for row in rows] == new_tokens.tolist()


def test_gradients_flow_through_merged_tokens() -> None:
    """The derivative along one direction of the pixels is what a small step shows."""
    torch.manual_seed(0)
    model = CASES["llava"].build().double()
    inputs = make_inputs(CASES["llava"], model, ONE_AND_TWO)
    pixels = inputs.pop("pixel_values").double()
    direction = torch.randn_like(pixels)

    def value(step: float, at: Tensor) -> Tensor:
        return model(**inputs, pixel_values=at + step * direction).logits[:, -1].square().sum()

    with prune(model, ToOne()):
        at = pixels.clone().requires_grad_()
        value(0.0, at).backward()
        with torch.no_grad():
            shown = float(value(1e-3, pixels) - value(-1e-3, pixels)) / 2e-3
    assert at.grad is not None
    assert float((at.grad * direction).sum()) == pytest.approx(shown, rel=0.01)


@dataclass(frozen=True)
class ToOne(MergingMethod):
    """All tokens of a picture become their mean, twice each, before the second layer."""

    name: ClassVar[str] = "to-one"
    count: ClassVar[Count] = "schedule"

    @property
    def layers(self) -> tuple[int, ...]:
        return (1,)

    def schedule(self, num_visual_tokens: int) -> tuple[Stage, ...]:
        return (Stage(1, 2),)

    def merge(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
        return Merged(torch.full((2, len(visual_tokens)), 1 / len(visual_tokens)), torch.tensor([0, 5]))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_merged_tokens_stand_in_the_places_of_their_anchors(attention: str) -> None:
    model = deeper("llava")
    model.set_attn_implementation({"text_config": attention})
    inputs = make_inputs(CASES["llava"], model, ONE_AND_TWO)

    def mean(entering: Entering) -> tuple[Tensor, Tensor]:
        total = len(entering.hidden)
        return torch.tensor([0, 5]), torch.full((2, total), 1 / total)

    with prune(model, ToOne()) as pruning:
        tokens, logits, _ = generate_logits(model, inputs, **NO_PLACEHOLDERS)
    model.set_attn_implementation({"text_config": "sdpa"})
    rows = full_rows(model, inputs, CASES["llava"])
    assert is_rounding(error(model, rows, {1: mean}, tokens, logits))
    assert is_different(error(model, rows, {1: lambda entering: mean(entering)[0]}, tokens, logits))
    assert [item.kept_indices.tolist() for item in pruning.last.items] == [[0, 5]] * 3


def test_prompts_of_pictures_alone() -> None:
    """Nobody rates there, so that SparseVLM refuses; DART has its visual pivots. The model is usable after."""
    model = deeper("llava")
    inputs = make_inputs(CASES["llava"], model, [["image"]])
    with prune(model, SPARSE), pytest.raises(ValueError, match="the prompt must hold text for method 'sparsevlm'"):
        model.generate(**inputs, max_new_tokens=2)
    with prune(model, DART(layer=1), num_keep=7) as pruning:
        model.generate(**inputs, max_new_tokens=2)
    assert pruning.last.num_kept == 7
    check("llava", SPARSE, ONE_AND_TWO, {})
