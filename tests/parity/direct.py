"""Calling the model itself: logits over the short prompt, and the loss of labels."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tests.parity.cells import Mode
from tests.support.float64 import is_different, is_rounding
from tests.support.handmade import KeepRule
from tests.support.handmade_logits import all_logits
from tests.support.models.every_family import IMAGE, VIDEO
from tests.support.subject import Subject, divprune_rule, first_tokens

NOTHING = torch.tensor([], dtype=torch.int64)


def forward(subject: Subject) -> None:
    for rows in subject.batches:
        inputs = subject.inputs(rows)
        output, report = subject.pruned(partial(subject.model, **inputs))
        counts = [len(expected) for expected in _row_logits(subject, inputs, divprune_rule())]
        assert report.keep_mask.sum(dim=-1).tolist() == counts
        assert is_rounding(_error(output.logits.detach(), _row_logits(subject, inputs, divprune_rule())))
        assert is_different(_error(output.logits.detach(), _row_logits(subject, inputs, first_tokens)))


def _row_logits(subject: Subject, inputs: dict[str, Any], keep: KeepRule) -> list[Tensor]:
    """(n', vocabulary) of each row."""
    rows = subject.reference_rows(inputs, keep)
    return [all_logits(subject.case, subject.model, row, NOTHING) for row in rows]


def _error(logits: Tensor, expected: list[Tensor]) -> float:
    pairs = zip(logits, expected, strict=True)
    return max(float((row[-len(other) :] - other).abs().max()) for row, other in pairs)


def labels(subject: Subject) -> None:
    """The loss of all text behind the first token; placeholders and padding are no targets."""
    wrong = []
    for rows in subject.batches:
        inputs = subject.inputs(rows)
        no_targets = torch.isin(inputs["input_ids"], torch.tensor([0, 1, IMAGE, VIDEO]))
        targets = inputs["input_ids"].masked_fill(no_targets, -100)
        call = partial(subject.model, **inputs, labels=targets)
        output, _ = subject.pruned(call)
        assert is_rounding(abs(output.loss.item() - _loss_by_hand(subject, inputs, targets, divprune_rule())))
        wrong.append(abs(output.loss.item() - _loss_by_hand(subject, inputs, targets, first_tokens)))
    # The mean over a batch's targets may hide the wrong tokens, in one batch but not in all.
    assert is_different(max(wrong))


def _loss_by_hand(subject: Subject, inputs: dict[str, Any], targets: Tensor, keep: KeepRule) -> float:
    """Mean cross-entropy of the labels at the kept columns, each with the logits of the column before."""
    losses = []
    for number, row in enumerate(subject.reference_rows(inputs, keep)):
        logits = all_logits(subject.case, subject.model, row, NOTHING)
        wanted = targets[number, row.columns]
        losses.append(functional.cross_entropy(logits[:-1], wanted[1:], reduction="none")[wanted[1:] != -100])
    return float(torch.cat(losses).mean())


MODES = [Mode("forward", "Model call", forward), Mode("labels", "Model call", labels)]
