"""Beam search by hand."""

from typing import Any

import torch
from torch import Tensor

from tests.support.handmade_entering import FullRow, Rule
from tests.support.handmade_layers import run
from tests.support.models.every_family import NO_PLACEHOLDERS

BEAM_STEPS = 4


def best_beams(model: Any, row: FullRow, rules: dict[int, Rule], num_beams: int) -> list[tuple[float, list[int]]]:
    """Plain beam search without an end token: (mean log-probability, tokens), best first."""
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    for _ in range(BEAM_STEPS):
        grown = []
        for score, tokens in beams:
            logits = next_logits(model, row, torch.tensor(tokens, dtype=torch.int64), rules).log_softmax(-1)
            best = logits.index_fill(-1, torch.tensor(NO_PLACEHOLDERS["suppress_tokens"]), -torch.inf).topk(num_beams)
            grown += [
                (score + value, [*tokens, token])
                for value, token in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            ]
        beams = sorted(grown, reverse=True)[:num_beams]
    return [(score / BEAM_STEPS, tokens) for score, tokens in beams]


def next_logits(model: Any, row: FullRow, later: Tensor, rules: dict[int, Rule]) -> Tensor:
    return run(model, row, later, rules).logits[-1]
