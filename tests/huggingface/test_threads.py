"""Several threads on one pruned model: one call after the other, each with its own result."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from divprune import DivPrune, prune
from tests.support.models.every_family import CASES, make_inputs
from tests.support.subject import RATIO


@pytest.fixture(params=["llava", "qwen2_5_vl"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return CASES[request.param].build()


def test_calls_of_two_threads_do_not_mix(model: PreTrainedModel) -> None:
    case = CASES[model.config.model_type]
    prompts = [make_inputs(case, model, [[1, first, "image", 6]]) for first in range(10, 22)]
    with prune(model, DivPrune(), keep_ratio=RATIO):
        expected = [model.generate(**inputs, max_new_tokens=4) for inputs in prompts]
        with ThreadPoolExecutor(2) as pool:
            outputs = list(pool.map(lambda inputs: model.generate(**inputs, max_new_tokens=4), prompts))
    assert all(torch.equal(one, other) for one, other in zip(outputs, expected, strict=True))


def test_forward_during_anothers_generate_is_pruned(model: PreTrainedModel) -> None:
    inputs = make_inputs(CASES[model.config.model_type], model, [[1, 5, "image", 6]])
    decoding, answered = threading.Event(), []

    def wait(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        decoding.set()
        decoding.wait(0.2)
        return scores

    def ask() -> None:
        decoding.wait(10)
        answered.append(model(**inputs).logits)

    with prune(model, DivPrune(), keep_ratio=RATIO):
        expected: Any = model(**inputs).logits
        other = threading.Thread(target=ask)
        other.start()
        model.generate(**inputs, max_new_tokens=6, logits_processor=[wait])
        other.join()
    assert expected.shape[1] < inputs["input_ids"].shape[1]
    assert torch.equal(answered[0], expected)


def test_each_thread_reads_the_report_of_its_own_call(model: PreTrainedModel) -> None:
    case = CASES[model.config.model_type]
    prompts = [make_inputs(case, model, [[1, *[5, "image"] * count, 6]]) for count in (1, 2, 1, 2)]
    everyone_has_generated = threading.Barrier(4)

    def ask(inputs: dict[str, Any]) -> int:
        model.generate(**inputs, max_new_tokens=1)
        everyone_has_generated.wait(60)
        return len(pruning.last.items)

    with prune(model, DivPrune(), keep_ratio=RATIO) as pruning, ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, prompts)) == [1, 2, 1, 2]
        assert pruning.last is None
    assert repr(pruning).startswith(f"<Pruning of {type(model).__name__}: PruningConfig(method=DivPrune(")
    assert f"keep_ratio={RATIO}" in repr(pruning)
