"""Ways of generating from one prompt."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.parity.cells import Mode
from tests.support.float64 import is_different, is_rounding
from tests.support.handmade import KeepRule
from tests.support.handmade_logits import generate_by_hand
from tests.support.models.every_family import NO_PLACEHOLDERS, Row
from tests.support.subject import (
    NEW_TOKENS,
    ONE_AND_TWO,
    NotApplicableError,
    Subject,
    divprune_rule,
    first_tokens,
)

SCORED = {**NEW_TOKENS, "return_dict_in_generate": True, "output_scores": True}


def assert_decodes(subject: Subject, rows: list[Row], **settings: Any) -> None:
    """A greedy run equals the reference, with every kind of positions."""
    inputs = subject.inputs(rows)
    for positions in subject.positions:
        (tokens, logits, _), report = subject.pruned(partial(subject.generate, inputs, **settings), positions=positions)
        error = subject.greedy_error(inputs, divprune_rule(), positions, tokens, logits)
        if not is_rounding(error):
            require_no_other_logits_unpruned(subject, inputs, settings)
        assert is_rounding(error), error
        assert is_different(subject.greedy_error(inputs, first_tokens, positions, tokens, logits))
        expected_mask = torch.zeros_like(report.keep_mask)
        for number, row in enumerate(subject.reference_rows(inputs, divprune_rule(), positions)):
            expected_mask[number, row.columns] = True
        assert torch.equal(report.keep_mask, expected_mask)


def require_no_other_logits_unpruned(subject: Subject, inputs: dict[str, Any], settings: dict[str, Any]) -> None:
    """Tells a way of generating that changes the logits of the unpruned model."""
    _, plain, _ = subject.generate(inputs)
    _, logits, _ = subject.generate(inputs, **settings)
    difference = float((plain - logits).abs().max())
    if not is_rounding(difference):
        raise NotApplicableError("transformers computes other logits this way, without pruning too")


def greedy(subject: Subject) -> None:
    for rows in subject.batches:
        assert_decodes(subject, rows)


def static_cache(subject: Subject) -> None:
    for rows in subject.batches:
        assert_decodes(subject, rows, cache_implementation="static", disable_compile=True)


def no_cache(subject: Subject) -> None:
    # The model reads its answer again with the pictures, and would take generated marks of pictures for theirs.
    for rows in subject.batches:
        assert_decodes(subject, rows, use_cache=False, **NO_PLACEHOLDERS)


def chunked_prefill(subject: Subject) -> None:
    # Not videos: in pieces Qwen3.5's linear attention rounds a long prompt a little more coarsely than the tolerance.
    for rows in subject.batches[:2]:
        assert_decodes(subject, rows, prefill_chunk_size=7)


def prompt_lookup(subject: Subject) -> None:
    assert_decodes(subject, [_repetitive(subject)], prompt_lookup_num_tokens=2)


def assisted(subject: Subject) -> None:
    assistant = subject.case.build()
    assert_decodes(subject, [_repetitive(subject)], assistant_model=assistant)


def _repetitive(subject: Subject) -> Row:
    """A single row: transformers looks up and assists only those."""
    kind = subject.case.kinds[0]
    return [1, 5, kind, 6, 7, kind, 8, 5, 6, 7, 5, 6, 7]


def selection_order(subject: Subject) -> None:
    inputs = subject.inputs(ONE_AND_TWO)
    for positions in subject.positions:
        (tokens, logits, _), _ = subject.pruned(
            partial(subject.generate, inputs), order="selection", positions=positions
        )

        def error(keep: KeepRule, to: tuple[str, Tensor, Tensor] = (positions, tokens, logits)) -> float:
            return subject.greedy_error(inputs, keep, *to)

        assert is_rounding(error(divprune_rule(order="selection")))
        assert is_different(error(first_tokens))
        if positions == "compact":
            # With original positions attention hardly tells orders apart: only the causal mask between visual tokens.
            assert is_different(error(divprune_rule()))


def beams(subject: Subject) -> None:
    _assert_beams(subject, returned=1)


def beams_returned(subject: Subject) -> None:
    _assert_beams(subject, returned=2)


def _assert_beams(subject: Subject, returned: int) -> None:
    settings = {**SCORED, "num_beams": 3, "num_return_sequences": returned, "do_sample": False}
    for rows in subject.batches:
        inputs = subject.inputs(rows)
        output, _ = subject.pruned(partial(subject.call, **inputs, **settings))
        right = _beams_by_hand(subject, inputs, divprune_rule(), settings)
        wrong = _beams_by_hand(subject, inputs, first_tokens, settings)
        new_tokens = output.sequences[:, inputs["input_ids"].shape[1] :]
        assert torch.equal(new_tokens, torch.cat([tokens for tokens, _ in right]))
        scores = torch.cat([expected.sequences_scores for _, expected in right])
        assert is_rounding((output.sequences_scores - scores).abs().max())
        # Row n's first beam; the others are the same at the first step.
        first_step = output.scores[0][::3]
        assert is_rounding(_difference(first_step, torch.stack([expected.scores[0][0] for _, expected in right])))
        assert is_different(_difference(first_step, torch.stack([expected.scores[0][0] for _, expected in wrong])))


def _beams_by_hand(
    subject: Subject, inputs: dict[str, Any], keep: KeepRule, settings: dict[str, Any]
) -> list[tuple[Tensor, Any]]:
    return [generate_by_hand(subject.model, row, **settings) for row in subject.reference_rows(inputs, keep)]


def sampling(subject: Subject) -> None:
    settings = {**SCORED, "do_sample": True, "num_return_sequences": 2, "top_k": 20}
    for row in [row for rows in subject.batches for row in rows]:
        # Sampling draws for a whole batch at once, so each row is compared alone.
        inputs = subject.inputs([row])
        torch.manual_seed(3)
        output, _ = subject.pruned(partial(subject.call, **inputs, **settings))
        sequences = output.sequences[:, inputs["input_ids"].shape[1] :]
        for keep, is_right in ((divprune_rule(), True), (first_tokens, False)):
            torch.manual_seed(3)
            tokens, expected = generate_by_hand(subject.model, subject.reference_rows(inputs, keep)[0], **settings)
            if is_right:
                assert torch.equal(sequences, tokens)
                assert is_rounding(max(map(_difference, output.scores, expected.scores)))
            elif any(isinstance(part, str) for part in row):
                assert is_different(_difference(output.scores[0], expected.scores[0]))


def _difference(scores: Tensor, expected: Tensor) -> float:
    """Largest difference between scores, some of which are -inf: those of tokens that may not come."""
    finite = torch.isfinite(expected) & torch.isfinite(scores)
    return float((scores - expected)[finite].abs().max())


MODES = [
    Mode("greedy", "Decoding", greedy),
    Mode("sampling", "Decoding", sampling),
    Mode("beams", "Decoding", beams),
    Mode("beams, several returned", "Decoding", beams_returned),
    Mode("prompt lookup", "Decoding", prompt_lookup),
    Mode("assisted", "Decoding", assisted),
    Mode("static cache", "Caches and order", static_cache),
    Mode("no cache", "Caches and order", no_cache),
    Mode("chunked prefill, images", "Caches and order", chunked_prefill),
    Mode("selection order", "Caches and order", selection_order),
]
