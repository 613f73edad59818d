"""One call taken apart: parts in order, hooks gone, pruned calls too."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune import prune
from divprune.efficiency import get_architecture, random_inputs, random_model, seconds_of, time_generation
from tests.support.shapes import small_config


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return random_model(small_config())


@pytest.fixture(scope="module")
def inputs(model: PreTrainedModel) -> dict[str, Tensor]:
    return random_inputs(model, get_architecture("llava-1.5-7b"), num_text_tokens=6)


def test_parts_fit_into_the_whole(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    timing = time_generation(model, inputs, 5)
    assert timing.num_new_tokens == 5
    assert 0 < timing.prefill_seconds < timing.ttft_seconds
    assert timing.ttft_seconds + timing.decode_seconds <= timing.end_to_end_seconds
    assert timing.decode_seconds_per_token == timing.decode_seconds / 4


def test_pruned_prefill_is_the_short_one(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    lengths = []
    handle = model.get_decoder().register_forward_hook(lambda _, __, output: lengths.append(output[0].shape[1]))
    with prune(model, num_keep=4) as pruning:
        timing = time_generation(model, inputs, 2)
    handle.remove()
    assert lengths == [10, 1]
    assert pruning.last is not None
    assert timing.ttft_seconds > timing.prefill_seconds + pruning.last.encoding_seconds


def test_no_hooks_stay(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    time_generation(model, inputs, 1)
    with pytest.raises(ValueError, match="num_new_tokens must be at least 1, got 0"):
        time_generation(model, inputs, 0)
    with pytest.raises(ValueError, match="unpack"):
        time_generation(model, {"input_ids": inputs["input_ids"], "pixel_values": torch.zeros(2)}, 1)
    decoder = model.get_decoder()
    assert not decoder._forward_hooks
    assert not decoder._forward_pre_hooks


def test_seconds_of_a_call() -> None:
    calls: list[int] = []
    assert seconds_of(lambda: calls.append(1), torch.device("cpu")) >= 0
    assert calls == [1]
