"""A second question on the cache that the first answer left; with the whole conversation's ids or only the new ones."""

from functools import partial
from types import SimpleNamespace

import torch

from tests.parity.cells import Mode
from tests.support.conversation import Conversation, by_hand, second_turn
from tests.support.float64 import is_different, is_rounding
from tests.support.handmade import KeepRule
from tests.support.handmade_logits import greedy_logits
from tests.support.models.every_family import Row
from tests.support.subject import STEPS, Subject, divprune_rule, first_tokens

NO_REPORT = SimpleNamespace(last=SimpleNamespace(keep_mask=None))
"""Stands for the pruning handle: the same conversation is held without pruning where it fails with it."""


def _assert_second_turn(subject: Subject, rows: list[Row], asked: list[Row], new_ids_only: bool) -> None:
    """The logits of the second answer equal those of the whole conversation read at once."""
    for positions in subject.positions:
        talk, _ = subject.pruned(
            lambda: second_turn(
                subject.case, subject.model, NO_REPORT, rows, asked, new_ids_only=new_ids_only, steps=STEPS
            ),
            positions=positions,
        )
        assert is_rounding(_error(subject, talk, divprune_rule(), positions))
        assert is_different(_error(subject, talk, first_tokens, positions))


def _error(subject: Subject, talk: Conversation, keep: KeepRule, positions: str) -> float:
    rows = zip(by_hand(talk, subject.model, keep, positions == "compact"), talk.second.tokens, strict=True)
    expected = [greedy_logits(subject.case, subject.model, row, tokens) for row, tokens in rows]
    return float((torch.stack(expected) - talk.second.logits).abs().max())


def _text(subject: Subject, new_ids_only: bool) -> None:
    """Two rows of different length, the shorter one padded."""
    picture = subject.case.kinds[0]
    rows: list[Row] = [[1, 5, picture, 6, 7, 8], [1, 9, picture, 10, 11, 12, 13]]
    _assert_second_turn(subject, rows, [[31, 32, 33], [41, 42, 43]], new_ids_only)


def _picture(subject: Subject, new_ids_only: bool) -> None:
    picture = subject.case.kinds[0]
    _assert_second_turn(subject, [[1, 5, picture, 6, 7, 8]], [[31, picture, 32, 33]], new_ids_only)


MODES = [
    Mode("text, full ids", "Second turn", partial(_text, new_ids_only=False)),
    Mode("text, new ids", "Second turn", partial(_text, new_ids_only=True)),
    Mode("new image, full ids", "Second turn", partial(_picture, new_ids_only=False)),
    Mode("new image, new ids", "Second turn", partial(_picture, new_ids_only=True)),
]
