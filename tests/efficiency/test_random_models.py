"""Architectures by name, and models with random weights."""

import pytest
import torch

from divprune import prune
from divprune.efficiency import (
    ARCHITECTURES,
    architecture_config,
    get_architecture,
    image_like,
    random_inputs,
    random_model,
)
from divprune.efficiency.reference_models import Architecture
from tests.support.shapes import SMALL_TEXT, SMALL_TOWER, small_config

SMALL_TEXT |= {"num_attention_heads": 2, "vocab_size": 30100}
SMALL_TOWER |= {"num_attention_heads": 2, "image_size": 56, "patch_size": 14}


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name)
def test_architectures_have_the_papers_sizes(architecture: Architecture) -> None:
    text = architecture_config(architecture.name).get_text_config()
    sizes = (text.hidden_size, text.intermediate_size, text.num_hidden_layers)
    assert sizes == ((5120, 13824, 40) if "13b" in architecture.name else (4096, 11008, 32))


def test_number_of_layers_can_be_cut() -> None:
    assert architecture_config("LLaVA-1.5-7B", 2).get_text_config().num_hidden_layers == 2
    assert architecture_config("llava-1.5-7b").get_text_config().num_hidden_layers == 32
    with pytest.raises(ValueError, match="num_layers must be at least 1, got 0"):
        architecture_config("llava-1.5-7b", 0)


def test_unknown_architecture_is_refused_with_a_guess() -> None:
    with pytest.raises(ValueError, match=r"got 'llava-1.5'; did you mean 'llava-1.5-7b'\?"):
        get_architecture("llava-1.5")


def test_random_models_are_seeded_finite_and_can_be_pruned() -> None:
    model = random_model(small_config())
    again = random_model(small_config())
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    inputs = random_inputs(model, get_architecture("llava-1.5-7b"), num_text_tokens=6)
    assert inputs["input_ids"].shape == (1, 6 + 16)
    assert bool(model(**inputs).logits.isfinite().all())
    with prune(model, num_keep=4) as pruning:
        model.generate(**inputs, max_new_tokens=2)
    assert pruning.last is not None
    assert pruning.last.num_kept == 4


def test_random_buffers_are_those_of_an_ordinary_model() -> None:
    ordinary = dict(type(random_model(small_config()))(small_config()).named_buffers())
    for name, buffer in random_model(small_config()).named_buffers():
        assert torch.equal(buffer, ordinary[name]), name


def test_too_few_words_are_refused() -> None:
    with pytest.raises(ValueError, match="num_text_tokens must be at least 2, got 1"):
        random_inputs(random_model(small_config()), get_architecture("llava-1.5-7b"), num_text_tokens=1)


def test_picture_like_noise_is_smooth_and_normalised() -> None:
    plane = image_like(3, 64, 48)
    assert plane.shape == (3, 64, 48)
    assert torch.allclose(plane.mean(dim=(1, 2)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(plane.std(dim=(1, 2)), torch.ones(3), atol=1e-4)
    neighbours = (plane[:, 1:] * plane[:, :-1]).mean()
    assert neighbours > 0.7  # white noise has 0
