"""Conversations of two turns."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
import transformers

from tests.support.conversation import Conversation, by_hand
from tests.support.handmade import KeepRule, ShortRow
from tests.support.handmade_logits import greedy_logits
from tests.support.models.every_family import Row

FIRST: list[Row] = [[1, 5, "image", 6, 7, 8], [1, 9, "image", 10, 11, 12, 13]]


IMAGES: list[Row] = [[31, "image", 32], [41, "image", 42]]


def largest_error(talk: Conversation, model: Any, keep: KeepRule, compact: bool | None = None) -> float:
    return error_of(by_hand(talk, model, keep, compact), talk, model)


def error_of(rows: Iterable[ShortRow], talk: Conversation, model: Any) -> float:
    expected = [
        greedy_logits(talk.case, model, row, tokens) for row, tokens in zip(rows, talk.second.tokens, strict=True)
    ]
    return float((torch.stack(expected) - talk.second.logits).abs().max())


def skip_where_transformers_is_wrong(name: str, asked: list[Row]) -> None:
    if name == "gemma3" and asked is IMAGES and transformers.__version__.startswith("5.18."):
        pytest.skip("transformers 5.18 itself places Gemma 3's images wrongly on a kept cache: refused, see below")
