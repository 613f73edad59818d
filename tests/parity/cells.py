"""A mode is a way of calling; a cell is what one mode does with one family: ok, refused or not applicable."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from divprune import DivPrune, prune
from divprune.errors import PruningError, UnsupportedModelError
from divprune.huggingface.families.support import Cell
from tests.support.models.every_family import Case
from tests.support.subject import NotApplicableError, Subject

Check = Callable[[Subject], None]
"""Calls the pruned model and compares with the hand-made reference; an error of ours means that it is refused."""


@dataclass(frozen=True)
class Mode:
    """A column of the table.

    Attributes:
        name: the column's title.
        group: the table that it stands in.
        check: what is done.
        attention: the attention implementation of the model; None for its own.
    """

    name: str
    group: str
    check: Check
    attention: str | None = None


def cell_of(mode: Mode, case: Case) -> Cell:
    """Runs a mode. What is neither right nor refused raises, and that is a bug."""
    try:
        subject = Subject(case, mode.attention)
    except pytest.skip.Exception as missing:
        return Cell("n/a", str(missing))
    try:
        mode.check(subject)
    except NotApplicableError as error:
        return Cell("n/a", str(error))
    except (PruningError, UnsupportedModelError) as error:
        assert_usable(subject)
        return Cell("refused", str(error))
    return Cell("ok")


def assert_usable(subject: Subject) -> None:
    """After a refusal the model is as a new one: unpruned, and pruned once more."""
    other = Subject(subject.case, subject.attention)
    inputs = subject.inputs([[1, 5, subject.case.kinds[0], 6, 7]])
    expected, found = other.model(**inputs).logits, subject.model(**inputs).logits
    assert torch.equal(found, expected)
    pruned = []
    for model in (other.model, subject.model):
        with prune(model, DivPrune(), keep_ratio=0.5):
            pruned.append(model(**inputs).logits)
    assert torch.equal(*pruned)
    assert pruned[0].shape[1] < expected.shape[1]
