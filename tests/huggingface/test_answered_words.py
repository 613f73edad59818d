"""Apertus 1.5 answers with fewer words than it reads: those of images and sounds are never answered."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from divprune import VTW, DivPrune, prune
from divprune.methods import Method
from tests.support.float64 import is_rounding
from tests.support.layer_cases import settings_of
from tests.support.models.every_family import CASES, IMAGE, make_inputs
from tests.support.models.newline_rows import NUM_WORDS
from tests.support.subject import ONE_AND_TWO


@pytest.mark.parametrize("method", [DivPrune(), DivPrune(layer=1), VTW(layer=1)], ids=str)
def test_the_loss_is_over_the_words_that_can_be_answered(method: Method) -> None:
    case = CASES["apertus1p5"]
    model = case.build()
    assert model.config.text_config.vocab_size > NUM_WORDS
    inputs = make_inputs(case, model, ONE_AND_TWO)
    labels = inputs["input_ids"].masked_fill(torch.isin(inputs["input_ids"], torch.tensor([0, 1, IMAGE])), -100)
    with prune(model, method, **settings_of(method)) as pruning:
        output = model(**inputs, labels=labels)
    losses = []
    for logits, row, mask in zip(output.logits, labels, pruning.last.keep_mask, strict=True):
        targets = row[mask]
        assert logits.shape[-1] == NUM_WORDS
        losses.append(cross_entropy(logits[-len(targets) :][:-1], targets[1:], reduction="none")[targets[1:] != -100])
    assert is_rounding(abs(output.loss - torch.cat(losses).mean()))
    output.loss.backward()
    is_code = torch.arange(len(model.get_input_embeddings().weight)) > NUM_WORDS
    grads = model.get_input_embeddings().weight.grad[is_code].abs().sum()
    assert grads > 0
