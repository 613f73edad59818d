"""Ways of calling a model that drops tokens at layer K, each against the hand-made reference.

For the families of `layer_cases.REPRESENTATIVE`, or the fewer of `KINDS_OF_LAYERS`.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from divprune import VTW, DivPrune, FastV, prune
from divprune.huggingface.model_inputs import CACHE, cache_in
from tests.support.beams import BEAM_STEPS, best_beams, next_logits
from tests.support.float64 import is_different, is_rounding
from tests.support.handmade_entering import FullRow
from tests.support.handmade_layers import run
from tests.support.handmade_logits import language_model
from tests.support.layer_cases import (
    CELLS,
    KINDS_OF_LAYERS,
    LAYERS,
    REPRESENTATIVE,
    at_its_layer,
    attention_of,
    build,
    cache_of,
    first_tokens,
    generate_logits,
    inputs_of,
    kinds_of,
    rows_of,
    rule_of,
    settings_of,
)
from tests.support.layer_variants import INSIDE
from tests.support.models.every_family import IMAGE, NO_PLACEHOLDERS, VIDEO, Row
from tests.support.subject import ONE_AND_TWO, RATIO, STEPS

cells = pytest.mark.parametrize(("name", "rows"), CELLS)
representative = pytest.mark.parametrize("name", REPRESENTATIVE)
kinds_of_layers = pytest.mark.parametrize("name", KINDS_OF_LAYERS)
methods = pytest.mark.parametrize(
    "method", [DivPrune(layer=1), FastV(layer=2), VTW(layer=1)], ids=lambda method: f"{method.name}-{method.layer}"
)


def errors(model: Any, rows: list[FullRow], method: Any, tokens: Tensor, logits: Tensor) -> tuple[float, float]:
    """Largest error against the reference of the method, and against the one with the wrong tokens."""
    largest = []
    for rule in (rule_of(method), first_tokens):
        expected = [
            run(model, row, new_tokens[:-1], {method.layer: rule}).logits
            for row, new_tokens in zip(rows, tokens, strict=True)
        ]
        largest.append(float((torch.stack(expected) - logits).abs().max()))
    return largest[0], largest[1]


@representative
@pytest.mark.parametrize("method", LAYERS)
@pytest.mark.parametrize("settings", [{"use_cache": False}, {"cache_implementation": "static"}], ids=str)
def test_without_a_cache_and_with_a_static_one(name: str, method: Any, settings: dict[str, Any]) -> None:
    model, method = build(name, attention_of(name), **settings), at_its_layer(name, method)
    # Without a cache transformers counts the placeholders of the whole sequence again, so none may be generated.
    inputs = inputs_of(name, model, ONE_AND_TWO)
    with prune(model, method, **settings_of(method)):
        tokens, logits, _ = generate_logits(model, inputs, **NO_PLACEHOLDERS, **settings)
    right, wrong = errors(model, rows_of(name, model, inputs), method, tokens, logits)
    assert is_rounding(right)
    assert is_different(wrong)


@kinds_of_layers
@methods
def test_prompt_lookup_gives_the_greedy_tokens(name: str, method: Any) -> None:
    model = build(name)
    inputs = inputs_of(name, model, [[1, 5, "image", 6, 7, "image", 8, 5, 6, 7, 5, 6, 7]])
    with prune(model, method, **settings_of(method)):
        expected, _, _ = generate_logits(model, inputs, max_new_tokens=16, suppress_tokens=[IMAGE, VIDEO])
        tokens, logits, _ = generate_logits(model, inputs, max_new_tokens=16, prompt_lookup_num_tokens=3)
    assert torch.equal(tokens, expected)
    right, wrong = errors(model, rows_of(name, model, inputs), method, tokens, logits)
    assert is_rounding(right)
    assert is_different(wrong)


@pytest.mark.parametrize(
    ("name", "method", "returned"),
    [(name, DivPrune(layer=1), 2) for name in REPRESENTATIVE]
    + [(name, method, 1) for name in KINDS_OF_LAYERS for method in (FastV(layer=2), VTW(layer=1))],
)
def test_beams_equal_beams_by_hand(name: str, method: Any, returned: int) -> None:
    model, method = build(name, attention_of(name)), at_its_layer(name, method)
    inputs = inputs_of(name, model, [[1, 41, 42], *ONE_AND_TWO])
    settings = {"num_beams": 3, "num_return_sequences": returned, "do_sample": False, "output_scores": True}
    settings |= {"max_new_tokens": BEAM_STEPS, "return_dict_in_generate": True, **NO_PLACEHOLDERS}
    with prune(model, method, **settings_of(method)):
        pruned = model.generate(**inputs, **settings)
    new_tokens = pruned.sequences[:, inputs["input_ids"].shape[1] :].tolist()
    rows = rows_of(name, model, inputs)
    expected = [beam for row in rows for beam in best_beams(model, row, {method.layer: rule_of(method)}, 3)[:returned]]
    assert [tokens for _, tokens in expected] == new_tokens
    assert is_rounding((pruned.sequences_scores - torch.tensor([score for score, _ in expected])).abs().max())
    wrong = [beam for row in rows for beam in best_beams(model, row, {method.layer: first_tokens}, 3)[:returned]]
    assert is_different((pruned.sequences_scores - torch.tensor([score for score, _ in wrong])).abs().max())


@kinds_of_layers
@methods
def test_sampling_equals_sampling_by_hand(name: str, method: Any) -> None:
    model = build(name)
    settings = {"do_sample": True, "num_return_sequences": 2, "top_k": 20, "max_new_tokens": STEPS}
    for part in ONE_AND_TWO:  # sampling draws for a whole batch at once, so each row is compared alone
        inputs = inputs_of(name, model, [part])
        torch.manual_seed(3)
        with prune(model, method, **settings_of(method)):
            sequences = model.generate(**inputs, **settings)
        row = rows_of(name, model, inputs)[0]
        drawn = torch.zeros(2, 0, dtype=torch.int64)
        torch.manual_seed(3)
        for _ in range(STEPS):
            logits = torch.stack([next_logits(model, row, later, {method.layer: rule_of(method)}) for later in drawn])
            logits = logits.masked_fill(logits < logits.topk(20).values[:, -1:], -torch.inf)
            drawn = torch.cat([drawn, torch.multinomial(logits.softmax(dim=-1), 1)], dim=-1)
        assert torch.equal(sequences[:, inputs["input_ids"].shape[1] :], drawn)


@representative
@pytest.mark.parametrize("method", [DivPrune(layer=1), FastV(layer=2)], ids=lambda method: method.name)
@pytest.mark.parametrize("new_ids_only", [False, True], ids=["full ids", "new ids"])
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_second_turn_on_the_kept_cache(name: str, method: Any, new_ids_only: bool, kind: str) -> None:
    model = build(name, attention_of(name), **({"cache_implementation": "static"} if kind == "static" else {}))
    method = at_its_layer(name, method)
    inputs = inputs_of(name, model, ONE_AND_TWO)
    length = inputs["input_ids"].shape[1]
    cache = cache_of(model, kind, length + 40)
    question = torch.tensor([[31, 32, 33], [41, 42, 43]])
    with prune(model, method, **settings_of(method)) as pruning:
        first, _, _ = generate_logits(model, inputs, **{CACHE: cache}, **NO_PLACEHOLDERS)
        dropped = ~pruning.last.keep_mask
        ids = torch.cat([inputs["input_ids"], first, question], dim=-1)
        mask = torch.cat([inputs["attention_mask"], torch.ones(2, STEPS + 3, dtype=torch.int64)], dim=-1)
        asked = ids[:, length + STEPS - 1 :] if new_ids_only else ids
        turn = {"input_ids": asked, "attention_mask": mask, **NO_PLACEHOLDERS}
        second, logits, _ = generate_logits(model, turn, **{CACHE: cache})
        assert torch.equal(pruning.last.keep_mask[:, :length], ~dropped)
    later = torch.cat([first, question, second], dim=-1)
    is_sliding = set(kinds_of(model)[method.layer :]) == {"sliding_attention"}
    for rule, is_right in ((rule_of(method), True), (first_tokens, False)):
        expected = torch.stack(
            [
                run(model, row, tokens[:-1], {method.layer: rule}).logits[-STEPS:]
                for row, tokens in zip(rows_of(name, model, inputs), later, strict=True)
            ]
        )
        error = (expected - logits).abs().max()
        # By now the pictures may be out of sight for a sliding layer.
        assert is_rounding(error) if is_right else is_different(error) or is_sliding


@cells
@methods
def test_forward_gives_the_reference_logits_over_the_short_prompt(name: str, rows: list[Row], method: Any) -> None:
    model, method = build(name, attention_of(name)), at_its_layer(name, method)
    inputs = inputs_of(name, model, rows)
    full = rows_of(name, model, inputs)
    with prune(model, method, **settings_of(method)) as pruning:
        output = model(**inputs, use_cache=True)
        token = output.logits[:, -1, :IMAGE].argmax(dim=-1, keepdim=True)
        mask = torch.cat([inputs["attention_mask"], torch.ones_like(token)], dim=-1)
        cached = {CACHE: cache_in(output), "attention_mask": mask}
        if INSIDE[name].cells:  # which cannot tell them, pruned or not
            cached["position_ids"] = torch.cat([row.positions[..., -1:] + 1 for row in full], dim=1)
        step = model(input_ids=token, **cached).logits
    for number, row in enumerate(full):
        expected = run(model, row, token[number], {method.layer: rule_of(method)}).logits
        assert is_rounding((torch.stack([output.logits[number, -1], step[number, -1]]) - expected).abs().max())
    assert output.logits.shape[1] == pruning.last.sequence_lengths[-1]


def test_labels_are_shortened_with_the_prompt_and_gradients_flow() -> None:
    model = build("llava")
    inputs = inputs_of("llava", model, ONE_AND_TWO)
    labels = inputs["input_ids"].masked_fill(torch.isin(inputs["input_ids"], torch.tensor([0, 1, IMAGE])), -100)
    for method in (DivPrune(layer=1), FastV(layer=1)):
        with prune(model, method, keep_ratio=RATIO) as pruning:
            output = model(**inputs, labels=labels)
            as_tuple = model(**inputs, labels=labels, return_dict=False)
        losses = []
        for logits, row, mask in zip(output.logits, labels, pruning.last.keep_mask, strict=True):
            targets = row[mask]
            losses.append(
                torch.nn.functional.cross_entropy(logits[-len(targets) :][:-1], targets[1:], reduction="none")
            )
        flat = torch.cat(losses)
        assert torch.allclose(output.loss, flat[flat != 0].mean(), atol=1e-5)
        assert torch.equal(as_tuple[0], output.loss)
        assert torch.equal(as_tuple[1], output.logits)
        output.loss.backward()
        assert model.model.multi_modal_projector.linear_2.weight.grad.abs().sum() > 0
        model.zero_grad()


@representative
@methods
def test_gradients_flow_through_the_kept_tokens(name: str, method: Any) -> None:
    model, method = build(name, attention_of(name)), at_its_layer(name, method)
    inputs = inputs_of(name, model, ONE_AND_TWO)
    with prune(model, method, **settings_of(method)):
        model(**inputs).logits[:, -1].square().sum().backward()
    # Kept tokens pass every layer, so the weights behind each of them count; dropped ones reach the first layer only.
    for layer in language_model(model).layers:
        gradients = [weights.grad for weights in layer.parameters() if weights.grad is not None]
        assert any(bool(gradient.abs().sum() > 0) for gradient in gradients)
    embedded = [weights.grad for key, weights in model.named_parameters() if "proj" in key and "language" not in key]
    assert any(gradient is not None and bool(gradient.abs().sum() > 0) for gradient in embedded)


@kinds_of_layers
@methods
def test_forward_takes_rows_padded_on_the_right(name: str, method: Any) -> None:
    model = build(name)
    inputs = inputs_of(name, model, ONE_AND_TWO)
    rows = rows_of(name, model, inputs)
    per_token = [key for key in inputs if inputs[key].shape == inputs["input_ids"].shape]
    for key in per_token:
        inputs[key] = torch.stack([values.roll(-row.padding) for values, row in zip(inputs[key], rows, strict=True)])
    with prune(model, method, **settings_of(method)) as pruning:
        logits = model(**inputs).logits
    for number, row in enumerate(rows):
        last = int(pruning.last.keep_mask[number].sum()) - 1
        expected = run(model, row, torch.arange(0), {method.layer: rule_of(method)}).logits[-1]
        assert is_rounding((logits[number, last] - expected).abs().max())
