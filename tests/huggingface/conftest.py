"""Logits are compared in float64; a small LLaVA and a batch for it, where a file has no models of its own."""

from typing import Any

import pytest
from transformers import PreTrainedModel

from tests.support.fixtures import compared_logits, logits_in_float64
from tests.support.models.every_family import CASES, make_inputs
from tests.support.subject import ONE_AND_TWO

__all__ = ["compared_logits", "logits_in_float64"]


@pytest.fixture
def model() -> PreTrainedModel:
    return CASES["llava"].build()


@pytest.fixture
def inputs(model: PreTrainedModel) -> dict[str, Any]:
    return make_inputs(CASES["llava"], model, ONE_AND_TWO)
