"""A greedy call that keeps the logits, and how far they are from those of the hand-made reference."""

from typing import Any

import torch

from tests.support.handmade import KeepRule, short_rows
from tests.support.handmade_logits import greedy_logits
from tests.support.models.every_family import Case
from tests.support.subject import GREEDY


def generate_logits(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """New tokens (B, STEPS) and the logits before each (B, STEPS, vocabulary)."""
    output = model.generate(**inputs, **GREEDY)
    assert torch.equal(output.sequences[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])
    return output.sequences[:, inputs["input_ids"].shape[1] :], torch.stack(output.logits, dim=1)


def largest_error(
    case: Case,
    model: Any,
    inputs: dict[str, Any],
    keep: KeepRule,
    tokens: Any,
    logits: Any,
    compact: bool | None = None,
) -> float:
    """The largest difference to the logits of the rows that `keep` leaves, read with `tokens` behind them."""
    rows = short_rows(case, model, inputs, keep, compact)
    expected = [greedy_logits(case, model, row, row_tokens) for row, row_tokens in zip(rows, tokens, strict=True)]
    return float((torch.stack(expected) - logits).abs().max())
