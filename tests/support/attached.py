"""What must be as it was after a model is detached."""

from typing import Any

import torch
from transformers import PreTrainedModel

ROWS = [[1, 5, "image", 6, 7, 8], [1, 9, "image", 10, 11, "image", 12]]


def snapshot(model: PreTrainedModel) -> tuple[Any, ...]:
    hooks = [
        (name, len(module._forward_hooks), len(module._forward_pre_hooks)) for name, module in model.named_modules()
    ]
    attributes = {name: sorted(module.__dict__) for name, module in model.named_modules()}
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return hooks, attributes, model.config.to_dict(), model.generation_config.to_dict(), weights


def assert_same(before: tuple[Any, ...], after: tuple[Any, ...]) -> None:
    assert before[:-1] == after[:-1]
    assert before[-1].keys() == after[-1].keys()
    assert all(torch.equal(before[-1][name], after[-1][name]) for name in before[-1])
