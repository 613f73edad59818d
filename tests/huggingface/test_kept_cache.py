"""Caches between calls: what may continue from which, and what is refused."""

import copy
from typing import Any

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel, StaticCache

from divprune import DivPrune, attach, prune
from divprune.errors import PruningError
from divprune.huggingface.model_inputs import CACHE, cache_in
from tests.support.conversation import GREEDY, longer
from tests.support.float64 import is_rounding
from tests.support.handmade import short_rows
from tests.support.handmade_logits import greedy_logits
from tests.support.models.every_family import CASES, make_inputs
from tests.support.subject import RATIO, divprune_rule
from tests.support.turns import FIRST

kept = {**GREEDY, "max_new_tokens": 4}


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return CASES["llava"].build()


@pytest.fixture
def inputs(model: PreTrainedModel) -> dict[str, Any]:
    return make_inputs(CASES["llava"], model, FIRST)


def test_a_cache_of_an_unpruned_run_takes_text_but_no_pictures(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    unpruned = model.generate(**inputs, **kept)
    cache = cache_in(unpruned)
    text = longer(inputs, unpruned.sequences, [[31, 32], [41, 42]])
    expected = model.generate(**text, **kept, **{CACHE: copy.deepcopy(cache)}).sequences
    with prune(model, DivPrune(), keep_ratio=RATIO):
        assert torch.equal(model.generate(**text, **kept, **{CACHE: copy.deepcopy(cache)}).sequences, expected)
        with pytest.raises(PruningError, match="the cache must be empty when images come in, or hold earlier"):
            model.generate(**inputs, **{CACHE: cache}, max_new_tokens=2)
        model.generate(**inputs, max_new_tokens=2)


def test_a_pruned_cache_is_locked_for_an_unpruned_model(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    for method in (DivPrune(), DivPrune(layer=1)):
        handle = attach(model, method, keep_ratio=RATIO)
        cache = DynamicCache(config=model.config.get_text_config())
        output = model.generate(**inputs, **kept, **{CACHE: cache})
        handle.detach()
        text = longer(inputs, output.sequences, [[31, 32], [41, 42]])
        length = cache.get_seq_length()
        with pytest.raises(PruningError, match="the cache holds a pruned prompt, and this model is not pruned"):
            model.generate(**text, **kept, **{CACHE: cache})
        with pytest.raises(PruningError, match="holds a pruned prompt"):
            model(input_ids=text["input_ids"][:, -1:], **{CACHE: cache})
        assert cache.get_seq_length() == length
        with prune(model, method, keep_ratio=RATIO):
            expected = model.generate(**text, **kept, **{CACHE: copy.deepcopy(cache)}).sequences
            assert torch.equal(model.generate(**text, **kept, **{CACHE: cache}).sequences, expected)


def test_a_full_keep_ratio_does_not_lock_the_cache(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    with prune(model, DivPrune(), keep_ratio=1.0):
        output = model.generate(**inputs, **kept)
    text = longer(inputs, output.sequences, [[31, 32], [41, 42]])
    model.generate(**text, **kept, **{CACHE: cache_in(output)})


def test_a_locked_cache_stays_locked_after_an_error(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    def explode(*_: Any) -> torch.Tensor:
        raise RuntimeError("stop")

    with prune(model, DivPrune(), keep_ratio=RATIO):
        output = model.generate(**inputs, **kept)
        text = longer(inputs, output.sequences, [[31, 32], [41, 42]])
        with pytest.raises(RuntimeError, match="stop"):
            model.generate(**text, **{CACHE: cache_in(output)}, logits_processor=[explode], max_new_tokens=1)
        with pytest.raises(PruningError, match="a call that used it was interrupted"):
            model.generate(**text, **{CACHE: cache_in(output)}, max_new_tokens=1)
    with pytest.raises(PruningError, match="this model is not pruned"):
        model.generate(**text, **{CACHE: cache_in(output)}, max_new_tokens=1)


@pytest.mark.parametrize("wrong", ["other conversation", "other padding", "new ids without their mask", "nothing new"])
def test_ids_that_do_not_fit_the_cache_are_refused(model: PreTrainedModel, inputs: dict[str, Any], wrong: str) -> None:
    with prune(model, DivPrune(), keep_ratio=RATIO):
        output = model.generate(**inputs, **kept)
        text = longer(inputs, output.sequences, [[31, 32], [41, 42]])
        expected = model.generate(**text, **kept, **{CACHE: copy.deepcopy(cache_in(output))}).sequences
        bad = {
            "other conversation": {**text, "input_ids": text["input_ids"].roll(1, dims=1)},
            "other padding": {**text, "attention_mask": torch.ones_like(text["attention_mask"])},
            "new ids without their mask": {"input_ids": text["input_ids"][:, -3:]},
            "nothing new": {"input_ids": output.sequences[:, :-1], "attention_mask": text["attention_mask"][:, :-3]},
        }[wrong]
        with pytest.raises(PruningError, match="input_ids"):
            model.generate(**bad, max_new_tokens=1, **{CACHE: cache_in(output)})
        assert torch.equal(model.generate(**text, **kept, **{CACHE: cache_in(output)}).sequences, expected)


def test_caches_that_were_cut_or_come_from_beams_are_refused(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    with prune(model, DivPrune(), keep_ratio=RATIO):
        output = model.generate(**inputs, **kept)
        text = longer(inputs, output.sequences, [[31, 32], [41, 42]])
        cache_in(output).crop(-12)
        with pytest.raises(PruningError, match="must hold the whole pruned prompt"):
            model.generate(**text, **{CACHE: cache_in(output)})
        beams = model.generate(**inputs, **kept, num_beams=2, num_return_sequences=2)
        many = {name: value.repeat_interleave(2, dim=0) for name, value in text.items()}
        with pytest.raises(PruningError, match="must not come from beam search"):
            model.generate(**many, **{CACHE: cache_in(beams)})


def test_a_reset_cache_may_be_used_again(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=120)
    settings = {**kept, CACHE: cache, "disable_compile": True}
    with prune(model, DivPrune(), keep_ratio=RATIO):
        expected = model.generate(**inputs, **settings).sequences
        cache.reset()
        assert torch.equal(model.generate(**inputs, **settings).sequences, expected)


def test_several_returned_sequences_continue_each(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    sampling = {**kept, "do_sample": True, "num_return_sequences": 2}
    torch.manual_seed(0)
    with prune(model, DivPrune(), keep_ratio=RATIO):
        many = model.generate(**inputs, **sampling)
        whole = {**inputs, "attention_mask": inputs["attention_mask"].repeat_interleave(2, dim=0)}
        text = longer(whole, many.sequences, [[31, 32]] * 4)
        answers = model.generate(**text, **kept, **{CACHE: cache_in(many)})
        tokens = torch.cat([many.sequences[:, len(inputs["input_ids"][0]) :], text["input_ids"][:, -2:]], dim=-1)
    rows = [row for row in short_rows(CASES["llava"], model, inputs, divprune_rule()) for _ in range(2)]
    later = torch.cat([tokens, answers.sequences[:, text["input_ids"].shape[1] :]], dim=-1)
    for number, row in enumerate(rows):
        expected = greedy_logits(CASES["llava"], model, row, later[number])[-4:]
        assert is_rounding((expected - torch.stack(answers.logits, dim=1)[number]).abs().max())


def test_positions_may_be_given_in_a_later_turn_if_they_are_those_of_the_original(
    model: PreTrainedModel, inputs: dict[str, Any]
) -> None:
    for positions, is_refused in (("compact", True), (None, False)):
        with prune(model, DivPrune(), keep_ratio=RATIO, positions=positions):
            output = model.generate(**inputs, **kept)
            text = longer(inputs, output.sequences, [[31, 32], [41, 42]])
            given = {"position_ids": (text["attention_mask"].cumsum(-1) - 1).clamp(min=0)}
            cache = cache_in(output)
            if is_refused:
                with pytest.raises(PruningError, match="position_ids must not be given"):
                    model.generate(**text, **kept, **given, **{CACHE: cache})
            else:
                expected = model.generate(**text, **kept, **{CACHE: copy.deepcopy(cache)}).sequences
                assert torch.equal(model.generate(**text, **kept, **given, **{CACHE: cache}).sequences, expected)
