"""What pruning leaves as it is, for every family; tests/parity compares everything else with the reference."""

import pytest
import torch

from divprune import DivPrune, prune
from tests.support.float64 import is_different
from tests.support.models.every_family import CASES
from tests.support.subject import (
    ONE_AND_TWO,
    RATIO,
    Subject,
    divprune_rule,
    positions_of,
)


@pytest.mark.parametrize("name", [name for name in CASES if len(positions_of(name)) > 1])
def test_positions_matter(name: str) -> None:
    subject = Subject(CASES[name])
    inputs = subject.inputs(ONE_AND_TWO)
    with prune(subject.model, DivPrune(), keep_ratio=RATIO, positions="original"):
        tokens, logits, _ = subject.generate(inputs)
    assert is_different(subject.greedy_error(inputs, divprune_rule(), "compact", tokens, logits))


@pytest.mark.parametrize("name", CASES)
def test_full_keep_ratio_leaves_logits_bit_identical(name: str) -> None:
    subject = Subject(CASES[name])
    for rows in subject.batches:
        inputs = subject.inputs(rows)
        tokens, logits, _ = subject.generate(inputs)
        direct = subject.model(**inputs).logits
        with prune(subject.model, DivPrune(), keep_ratio=1.0) as pruning:
            pruned_tokens, pruned_logits, _ = subject.generate(inputs)
            pruned_direct = subject.model(**inputs).logits
        assert torch.equal(tokens, pruned_tokens)
        assert torch.equal(logits, pruned_logits)
        assert torch.equal(direct, pruned_direct)
        assert torch.equal(pruning.last.keep_mask, inputs["attention_mask"].bool())
