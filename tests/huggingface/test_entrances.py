"""Every way into a pruned model prunes or is refused, whatever other libraries put on it before or after."""

import functools
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune import DivPrune, FastV, attach, prune
from divprune.errors import PruningError
from divprune.methods.base import Method
from tests.support.models.every_family import CASES, IMAGE, VIDEO, make_inputs
from tests.support.subject import RATIO

METHODS: tuple[Method, ...] = (DivPrune(), FastV(layer=2))


def replaced_forward(self: PreTrainedModel, **inputs: Any) -> Tensor:
    """Call the body and the head, as libraries with a fused loss do."""
    return self.lm_head(self.model(**inputs).last_hidden_state)


def wrap_forward(model: PreTrainedModel) -> list[str]:
    """Wrap `forward` as it is found, as accelerate and TRL do; notes each call."""
    called: list[str] = []
    before = model.forward

    @functools.wraps(before)
    def forward(*args: Any, **kwargs: Any) -> Any:
        called.append("forward")
        return before(*args, **kwargs)

    model.forward = forward
    return called


@pytest.mark.parametrize("name", CASES)
def test_images_that_reach_the_body_past_the_pruning_are_refused(name: str) -> None:
    case, model = CASES[name], CASES[name].build()
    inputs = make_inputs(case, model, [[1, 5, "image", 6]])
    if model.base_model is model:
        pytest.skip("no body of its own in this version of transformers")
    with prune(model), torch.no_grad():
        with pytest.raises(PruningError, match=r"images came past the pruning: the body \(model.model\)"):
            model.base_model(**inputs)
        # The refusal leaves the model as it was.
        model(**inputs)


def test_the_body_takes_text_and_is_free_again_after_detach(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    expected = model.model(**inputs).last_hidden_state
    with prune(model):
        model.model(input_ids=torch.tensor([[1, 5, 6]]))
        with pytest.raises(PruningError):
            model.model(inputs["input_ids"], inputs["pixel_values"])
    assert torch.equal(model.model(**inputs).last_hidden_state, expected)
    assert not model.model._forward_pre_hooks


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_forward_replaced_since_is_refused(model: PreTrainedModel, inputs: dict[str, Any], method: Method) -> None:
    with prune(model, method, keep_ratio=RATIO):
        expected = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    pruning = attach(model, method, keep_ratio=RATIO)
    model.forward = foreign = MethodType(replaced_forward, model)
    with pytest.raises(PruningError, match=r"another library has replaced model.forward since.*after the trainer"):
        model(**inputs)
    assert model(input_ids=torch.tensor([[1, 5, 6]])).shape[:2] == (1, 3)
    pruning.detach()
    assert model.forward is foreign
    assert model(**inputs).shape[:2] == inputs["input_ids"].shape
    del model.forward
    with prune(model, method, keep_ratio=RATIO):
        assert torch.equal(model.generate(**inputs, max_new_tokens=3, do_sample=False), expected)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_wrappers_around_ours_keep_working(model: PreTrainedModel, inputs: dict[str, Any], method: Method) -> None:
    unpruned = model(**inputs).logits
    with prune(model, method, keep_ratio=RATIO):
        expected, answer = model(**inputs).logits, model.generate(**inputs, max_new_tokens=3)
    pruning = attach(model, method, keep_ratio=RATIO)
    called = wrap_forward(model)
    assert torch.equal(model(**inputs).logits, expected)
    assert called == ["forward"]
    assert torch.equal(model.generate(**inputs, max_new_tokens=3), answer)
    assert len(called) == 4
    pruning.detach()
    # The other library's wrapper still holds ours, which passes calls on.
    assert torch.equal(model(**inputs).logits, unpruned)
    with prune(model, method, keep_ratio=RATIO):
        assert torch.equal(model(**inputs).logits, expected)
    assert torch.equal(model(**inputs).logits, unpruned)
    assert len(called) == 7


def test_wrappers_taken_off_in_the_other_order(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    unpruned = model(**inputs).logits
    pruning = attach(model, keep_ratio=RATIO)
    ours = model.__dict__["forward"]
    wrap_forward(model)
    model.forward = ours
    pruning.detach()
    assert not {"forward", "generate", "compile"} & set(model.__dict__)
    assert torch.equal(model(**inputs).logits, unpruned)


def test_a_compile_of_another_library_comes_back_or_stays(model: PreTrainedModel) -> None:
    def before() -> None: ...

    def since() -> None: ...

    model.compile = before
    with prune(model):
        assert model.compile is not before
    assert model.compile is before
    pruning = attach(model)
    model.compile = since
    pruning.detach()
    assert model.compile is since


def test_compiling_a_pruned_model_is_refused_or_pruned(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    with prune(model, keep_ratio=RATIO):
        expected = model(**inputs).logits
        with pytest.raises(PruningError, match=r"model.compile\(\) must not be called while the model is pruned"):
            model.compile(backend="eager")
        assert model._compiled_call_impl is None
        assert torch.equal(torch.compile(model, backend="eager")(**inputs).logits, expected)
    model.compile(backend="eager")


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_prompt_lookup_proposes_no_placeholders(name: str) -> None:
    """As in LLaVA's own template: what the prompt ends with stood before an image, whose placeholders come next."""
    case, model = CASES[name], CASES[name].build()
    inputs = make_inputs(case, model, [[1, 5, "image", 6, 7, "image", 8, 5, 6, 7, 5, 6, 7]])
    with prune(model, keep_ratio=RATIO):
        expected = model.generate(**inputs, max_new_tokens=12, suppress_tokens=[IMAGE, VIDEO])
        answer = model.generate(**inputs, max_new_tokens=12, prompt_lookup_num_tokens=3)
    assert torch.equal(answer, expected)
