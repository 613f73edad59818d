"""What a method of somebody else returns is checked on every way into the model, before anything is pruned by it."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from divprune import prune
from divprune.errors import SelectionError
from divprune.methods import ItemContext, Merged, MergingMethod, Method
from divprune.methods.checks import checked_selection
from tests.support.models.every_family import CASES, make_inputs
from tests.support.subject import ONE_AND_TWO


def written(tokens: Tensor, value: float) -> Tensor:
    tokens[0] = value
    return torch.arange(len(tokens))


WRONG: dict[str, tuple[Callable[[Tensor, int], Any], str]] = {
    "one too few": (lambda tokens, k: torch.arange(k - 1), "return 3 indices, got 2"),
    "one too many": (lambda tokens, k: torch.arange(k + 1), "return 3 indices, got 4"),
    "none": (lambda tokens, k: torch.arange(0), "return 3 indices, got 0"),
    "nothing": (lambda tokens, k: None, r"return one \(k,\) int64 tensor, got NoneType"),
    "a list": (lambda tokens, k: list(range(k)), r"return one \(k,\) int64 tensor, got list"),
    "negative": (lambda tokens, k: -torch.arange(1, k + 1), r"return indices from 0 to \d+, got -3 to -1"),
    "too large": (lambda tokens, k: torch.arange(k) + len(tokens), r"return indices from 0 to \d+, got \d+ to"),
    "twice": (lambda tokens, k: torch.zeros(k, dtype=torch.int64), "return distinct indices"),
    "two axes": (lambda tokens, k: torch.arange(k)[None], r"got Tensor torch.int64 of shape \(1, 3\)"),
    "a mask": (lambda tokens, k: torch.ones(9, dtype=torch.bool), r"got Tensor torch.bool of shape \(9,\)"),
    "int32": (lambda tokens, k: torch.arange(k, dtype=torch.int32), "got Tensor torch.int32"),
    "scores": (lambda tokens, k: torch.rand(k), "got Tensor torch.float"),
    "written to": (lambda tokens, k: written(tokens, 1.0)[:k], "not write to visual_tokens"),
    "filled with NaN": (lambda tokens, k: written(tokens, float("nan"))[:k], "not write to visual_tokens"),
}


class Foreign(Method):
    name: ClassVar[str] = "foreign"
    wrong: ClassVar[Callable[[Tensor, int], Any]]

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        answer: Tensor = type(self).wrong(visual_tokens, num_keep)
        return answer


class Inside(Foreign):
    layers = (1,)


class Merging(MergingMethod):
    name: ClassVar[str] = "foreign"
    wrong: ClassVar[Callable[[Tensor, int], Any]]

    def merge(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
        return Merged(torch.ones(num_keep, len(visual_tokens)), type(self).wrong(visual_tokens, num_keep))


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("path", [Foreign, Inside, Merging])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_answer_is_an_error_that_names_the_method(wrong: str, path: Any, inference: bool) -> None:
    answer, message = WRONG[wrong]
    method = type("Wrong", (path,), {"wrong": staticmethod(answer)})()
    model, case = CASES["llava"].build(), CASES["llava"]
    inputs = make_inputs(case, model, ONE_AND_TWO)
    with prune(model, "divprune", num_keep=3):
        expected = model.generate(**inputs, max_new_tokens=2)
    for settings in ({"num_keep": 3}, {"num_keep": 3, "scope": "frame"}):
        with prune(model, method, **settings) as pruning:
            with (
                torch.inference_mode(inference),
                pytest.raises(SelectionError, match=f"method 'foreign' must.*{message}"),
            ):
                model.generate(**inputs, max_new_tokens=2)
            assert pruning.last is None
    with prune(model, "divprune", num_keep=3):
        assert torch.equal(model.generate(**inputs, max_new_tokens=2), expected)


@pytest.mark.parametrize("weights", [torch.ones(2, 36), torch.full((3, 36), torch.nan), torch.ones(3, 35)])
def test_weights_of_another_shape_or_not_finite(weights: Tensor) -> None:
    class Wrong(Merging):
        def merge(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
            return Merged(weights, torch.arange(num_keep))

    model = CASES["llava"].build()
    inputs = make_inputs(CASES["llava"], model, ONE_AND_TWO)
    with prune(model, Wrong(), num_keep=3), pytest.raises(SelectionError, match=r"finite weights of shape \(3, 36\)"):
        model.generate(**inputs, max_new_tokens=2)


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_served_goes_by_the_same_check(wrong: str) -> None:
    answer, message = WRONG[wrong]
    method = type("Wrong", (Foreign,), {"wrong": staticmethod(answer)})()
    with pytest.raises(SelectionError, match=message):
        checked_selection(method, torch.rand(9, 4), 3, ItemContext())
