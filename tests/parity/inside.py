"""Dropping tokens at decoder layer K, against layers run one by one with tokens left out between them."""

from functools import partial
from typing import Any

import torch

from divprune import VTW, DivPrune, FastV
from divprune.methods import Method
from tests.parity.cells import Mode
from tests.parity.decoding import require_no_other_logits_unpruned
from tests.parity.direct import NOTHING
from tests.support.beams import BEAM_STEPS, best_beams
from tests.support.float64 import is_different, is_rounding
from tests.support.handmade_entering import FullRow
from tests.support.handmade_layers import full_rows, run
from tests.support.layer_cases import first_tokens, rule_of, settings_of
from tests.support.models.every_family import NO_PLACEHOLDERS
from tests.support.subject import NEW_TOKENS, Subject

LAYER = 2  # of 3: families that add features after their first layers can drop tokens only from there on


def _assert_drops(subject: Subject, method: Method, layer: int = LAYER, **settings: Any) -> None:
    for rows in subject.batches:
        inputs = subject.inputs(rows)
        (tokens, logits, _), _ = subject.pruned(
            partial(subject.generate, inputs, **settings), method, **_budget_of(method)
        )
        errors = []
        for rule in (rule_of(method), first_tokens):
            pairs = zip(_rows(subject, inputs), tokens, strict=True)
            expected = [run(subject.model, row, ids[:-1], {layer: rule}).logits for row, ids in pairs]
            errors.append(float((torch.stack(expected) - logits).abs().max()))
        if not is_rounding(errors[0]):
            require_no_other_logits_unpruned(subject, inputs, settings)
        assert is_rounding(errors[0])
        assert is_different(errors[1])


def _budget_of(method: Method) -> dict[str, Any]:
    return {"keep_ratio": None} | settings_of(method)


def _rows(subject: Subject, inputs: dict[str, Any]) -> list[FullRow]:
    return full_rows(subject.model, inputs, subject.case)


def dynamic(subject: Subject) -> None:
    _assert_drops(subject, DivPrune(layer=LAYER))


def static(subject: Subject) -> None:
    _assert_drops(subject, DivPrune(layer=LAYER), cache_implementation="static", disable_compile=True)


def fastv(subject: Subject) -> None:
    _assert_drops(subject, FastV(layer=LAYER))


def vtw(subject: Subject) -> None:
    # Late layers with a window hardly see the picture: withdraw it early, so that a wrong withdrawal shows.
    _assert_drops(subject, VTW(layer=1), layer=1)


def beams(subject: Subject) -> None:
    method = DivPrune(layer=LAYER)
    settings = {**NEW_TOKENS, "num_beams": 3, "do_sample": False, "return_dict_in_generate": True}
    settings |= {"max_new_tokens": BEAM_STEPS, **NO_PLACEHOLDERS}
    for rows in subject.batches:
        inputs = subject.inputs(rows)
        call = partial(subject.call, **inputs, **settings, output_scores=True)
        output, _ = subject.pruned(call, method)
        by_hand = _rows(subject, inputs)
        best = [best_beams(subject.model, row, {LAYER: rule_of(method)}, 3)[0] for row in by_hand]
        assert output.sequences[:, inputs["input_ids"].shape[1] :].tolist() == [tokens for _, tokens in best]
        assert is_rounding((output.sequences_scores - torch.tensor([score for score, _ in best])).abs().max())
        wrong = [run(subject.model, row, NOTHING, {LAYER: first_tokens}).logits[0].log_softmax(-1) for row in by_hand]
        # Row n's first beam; the others are the same at the first step.
        assert is_different((output.scores[0][::3] - torch.stack(wrong)).abs().max())


GROUP = "Inside the language model"
MODES = [
    Mode("layer K", GROUP, dynamic),
    Mode("static cache at K", GROUP, static),
    Mode("eager at K", GROUP, dynamic, attention="eager"),
    Mode("beams at K", GROUP, beams),
    Mode("FastV", GROUP, fastv),
    Mode("VTW", GROUP, vtw),
]
