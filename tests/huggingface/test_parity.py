"""Pruned generation equals the hand-made reference: kept rows fed as embeddings with the right positions."""

from typing import Any

import pytest
import torch

from divprune import DivPrune, prune
from divprune.budget import budget
from divprune.selection.reference import reference_select
from tests.huggingface.handmade import KeepRule, short_rows
from tests.huggingface.handmade_logits import all_logits, generate_by_hand, greedy_logits
from tests.huggingface.tiny_models import CASES, IMAGE, VIDEO, Case, Row, make_inputs

TOLERANCE = 1e-4
RATIO = 0.3
STEPS = 9  # prefill and 8 decoded tokens
# A generated placeholder means nothing, and Gemma 4 embeds it as padding.
NEW_TOKENS = {"max_new_tokens": STEPS, "suppress_tokens": [IMAGE, VIDEO]}

ONE_AND_TWO: list[Row] = [[1, 5, "image", 6, 7, 8], [1, 9, "image", 10, 11, "image", 12, 13, 14, 15]]
WITH_TEXT_ONLY: list[Row] = [[1, 5, 21, 22, 6], [1, "image", 9, 10, 31], [1, 41, 42]]
ONE_AND_TWO_VIDEOS: list[Row] = [[1, 5, "video", 6, 7, 8, 9, 10], [1, 9, "video", 10, 11, "video", 12]]
MIXED: list[Row] = [[1, "image", 5, "video", 6, 7, 8], [1, 7, "image", 8, 51]]

CELLS = [
    (name, rows)
    for name, case in CASES.items()
    for rows in (
        ONE_AND_TWO,
        WITH_TEXT_ONLY,
        *((ONE_AND_TWO_VIDEOS,) if "video" in case.kinds else ()),
        *((MIXED,) if "video" in case.kinds and case.mixed else ()),
    )
]
cells = pytest.mark.parametrize(("name", "rows"), CELLS)


def positions_of(name: str) -> list[str]:
    return ["original"] if CASES[name].cells else list(CASES[name].positions)


def divprune_rule(ratio: float = RATIO, order: str = "sorted") -> KeepRule:
    def keep(visual_tokens: torch.Tensor) -> torch.Tensor:
        picks = reference_select(visual_tokens, budget(len(visual_tokens), keep_ratio=ratio))
        return picks if order == "selection" else picks.sort().values

    return keep


def first_tokens(visual_tokens: torch.Tensor) -> torch.Tensor:
    return torch.arange(budget(len(visual_tokens), keep_ratio=RATIO))


def generate_logits(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """New tokens (B, STEPS) and the logits before each (B, STEPS, vocabulary)."""
    output = model.generate(**inputs, **NEW_TOKENS, do_sample=False, return_dict_in_generate=True, output_logits=True)
    assert torch.equal(output.sequences[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])
    return output.sequences[:, inputs["input_ids"].shape[1] :], torch.stack(output.logits, dim=1)


def largest_error(
    case: Case, model: Any, inputs: dict[str, Any], keep: KeepRule, compact: bool, tokens: Any, logits: Any
) -> float:
    rows = short_rows(case, model, inputs, keep, compact)
    expected = [greedy_logits(case, model, row, row_tokens) for row, row_tokens in zip(rows, tokens, strict=True)]
    return float((torch.stack(expected) - logits).abs().max())


@cells
def test_greedy_equals_the_reference_and_would_notice_other_tokens(name: str, rows: list[Row]) -> None:
    model = CASES[name].build()
    inputs = make_inputs(CASES[name], model, rows)
    for positions in positions_of(name):
        with prune(model, DivPrune(), keep_ratio=RATIO, positions=positions) as pruning:
            tokens, logits = generate_logits(model, inputs)
        compact = positions == "compact"
        assert largest_error(CASES[name], model, inputs, divprune_rule(), compact, tokens, logits) < TOLERANCE
        assert largest_error(CASES[name], model, inputs, first_tokens, compact, tokens, logits) > 100 * TOLERANCE
        expected_mask = torch.zeros_like(pruning.last.keep_mask)
        for number, row in enumerate(short_rows(CASES[name], model, inputs, divprune_rule(), compact)):
            expected_mask[number, row.columns] = True
        assert torch.equal(pruning.last.keep_mask, expected_mask)


@pytest.mark.parametrize("name", [name for name in CASES if len(positions_of(name)) > 1])
def test_positions_matter(name: str) -> None:
    model = CASES[name].build()
    inputs = make_inputs(CASES[name], model, ONE_AND_TWO)
    with prune(model, DivPrune(), keep_ratio=RATIO, positions="original"):
        tokens, logits = generate_logits(model, inputs)
    assert largest_error(CASES[name], model, inputs, divprune_rule(), True, tokens, logits) > 100 * TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_selection_order_feeds_the_tokens_as_picked(name: str) -> None:
    model = CASES[name].build()
    inputs = make_inputs(CASES[name], model, ONE_AND_TWO)
    for positions in positions_of(name):
        with prune(model, DivPrune(), keep_ratio=RATIO, order="selection", positions=positions):
            tokens, logits = generate_logits(model, inputs)
        compact = positions == "compact"
        picked = divprune_rule(order="selection")
        assert largest_error(CASES[name], model, inputs, picked, compact, tokens, logits) < TOLERANCE
        if compact:
            # With original positions attention hardly tells orders apart: only the causal mask between visual tokens.
            assert largest_error(CASES[name], model, inputs, divprune_rule(), compact, tokens, logits) > 100 * TOLERANCE


GENERATE = {**NEW_TOKENS, "return_dict_in_generate": True, "output_scores": True}


@cells
@pytest.mark.parametrize("returned", [1, 2])
def test_beams_equal_beams_from_embeddings(name: str, rows: list[Row], returned: int) -> None:
    model = CASES[name].build()
    inputs = make_inputs(CASES[name], model, rows)
    settings = {**GENERATE, "num_beams": 3, "num_return_sequences": returned, "do_sample": False}
    with prune(model, DivPrune(), keep_ratio=RATIO):
        pruned = model.generate(**inputs, **settings)
    for keep, is_right in ((divprune_rule(), True), (first_tokens, False)):
        for number, short in enumerate(short_rows(CASES[name], model, inputs, keep, CASES[name].cells is None)):
            expected_tokens, expected = generate_by_hand(model, short, **settings)
            returned_rows = slice(number * returned, (number + 1) * returned)
            new_tokens = pruned.sequences[returned_rows, inputs["input_ids"].shape[1] :]
            error = (pruned.sequences_scores[returned_rows] - expected.sequences_scores).abs().max()
            if is_right or not any(isinstance(part, str) for part in rows[number]):
                assert torch.equal(new_tokens, expected_tokens)
                assert error < TOLERANCE
            else:
                assert error > TOLERANCE


@cells
def test_sampling_equals_sampling_from_embeddings(name: str, rows: list[Row]) -> None:
    model = CASES[name].build()
    settings = {**GENERATE, "do_sample": True, "num_return_sequences": 2, "top_k": 20}
    for row in rows:  # sampling draws for a whole batch at once, so each row is compared alone
        inputs = make_inputs(CASES[name], model, [row])
        torch.manual_seed(3)
        with prune(model, DivPrune(), keep_ratio=RATIO):
            pruned = model.generate(**inputs, **settings)
        short = short_rows(CASES[name], model, inputs, divprune_rule(), CASES[name].cells is None)[0]
        torch.manual_seed(3)
        expected_tokens, expected = generate_by_hand(model, short, **settings)
        assert torch.equal(pruned.sequences[:, inputs["input_ids"].shape[1] :], expected_tokens)
        finite = torch.isfinite(expected.scores[-1])
        assert (pruned.scores[-1] - expected.scores[-1])[finite].abs().max() < TOLERANCE


@cells
def test_full_keep_ratio_leaves_logits_bit_identical(name: str, rows: list[Row]) -> None:
    model = CASES[name].build()
    inputs = make_inputs(CASES[name], model, rows)
    tokens, logits = generate_logits(model, inputs)
    direct = model(**inputs).logits
    with prune(model, DivPrune(), keep_ratio=1.0) as pruning:
        pruned_tokens, pruned_logits = generate_logits(model, inputs)
        pruned_direct = model(**inputs).logits
    assert torch.equal(tokens, pruned_tokens)
    assert torch.equal(logits, pruned_logits)
    assert torch.equal(direct, pruned_direct)
    assert torch.equal(pruning.last.keep_mask, inputs["attention_mask"].bool())


@cells
def test_forward_gives_the_reference_logits_over_the_short_prompt(name: str, rows: list[Row]) -> None:
    model = CASES[name].build()
    inputs = make_inputs(CASES[name], model, rows)
    with prune(model, DivPrune(), keep_ratio=RATIO) as pruning:
        logits = model(**inputs).logits
    for number, row in enumerate(short_rows(CASES[name], model, inputs, divprune_rule(), CASES[name].cells is None)):
        expected = all_logits(CASES[name], model, row, torch.tensor([], dtype=torch.int64))
        assert int(pruning.last.keep_mask[number].sum()) == len(expected)
        assert (logits[number, -len(expected) :] - expected).abs().max() < TOLERANCE
