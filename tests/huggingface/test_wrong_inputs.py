"""Whatever is handed to `attach` and to a pruned model's calls: a short error with the remedy, and a usable model."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, PreTrainedModel

from divprune import DivPrune, RandomTokens, attach, prune
from divprune.errors import DivpruneError, UnsupportedModelError
from tests.support.models.every_family import CASES, make_inputs
from tests.support.subject import ONE_AND_TWO

ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    98,
    10**30,
    float("nan"),
    float("inf"),
    "",
    "0.1",
    "x",
    [],
    [0.1],
    {},
    {"a": 1},
]
TAKEN = {"method": [None], "keep_ratio": [None, [0.1]], "num_keep": [None, 98, 10**30], "positions": [None]}
"""What is no mistake: nothing given, and more tokens than there are."""
METHODS: list[Any] = [
    *ODD, RandomTokens, "nope", "random:seed=x", "random:seed", "random:pond=3", "divprune:refine=yes",
    "divprune:layer=99", "divprune:layer=-1", "divprune:metric=cos", "fastv:layer=0", "vtw:layer=x", "fitprune",
    "fitprune:recipe=/nowhere",
    "divprune:", ":", "divprune:seed=1", "random:seed=1:2", "pyramiddrop:first_layer=1e9",
]  # fmt: skip


class Holder(nn.Module):
    """Holds a model as DataParallel, DistributedDataParallel and pipelines do."""

    def __init__(self, name: str, model: nn.Module) -> None:
        super().__init__()
        setattr(self, name, model)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return CASES["llava"].build()


def assert_short_error(error: pytest.ExceptionInfo[BaseException], what: object) -> None:
    text = str(error.value)
    assert isinstance(error.value, (DivpruneError, ValueError, TypeError)), what
    assert 0 < len(text) < 300, (what, text)
    assert "\n" not in text, (what, text)


@pytest.mark.parametrize("argument", ["method", "keep_ratio", "num_keep", "scope", "order", "positions"])
def test_wrong_arguments(model: PreTrainedModel, argument: str) -> None:
    for value in METHODS if argument == "method" else ODD:
        if any(value is each or (value == each and type(value) is type(each)) for each in TAKEN.get(argument, [])):
            continue
        if value in ("divprune:",):  # the method without parameters
            continue
        with pytest.raises(Exception) as error:
            attach(model, **{argument: value})
        assert_short_error(error, value)
        assert not {"generate", "forward", "compile"} & set(model.__dict__), value


def test_wrong_models(model: PreTrainedModel) -> None:
    bert = BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8))
    expected = {
        "a transformers model, got NoneType": None,
        "a transformers model, got str": "llava-hf/llava-1.5-7b-hf",
        "a transformers model, got type": type(model),
        "a transformers model, got Linear": nn.Linear(2, 2),
        r"got Holder; attach to its \.module": Holder("module", model),
        r"got Holder; attach to its \.model": Holder("model", model),
        r"attach to its \._orig_mod; to compile it": torch.compile(model, backend="eager"),
        "one that generates, got LlavaModel, the body of 'llava'": model.model,
        "no adapter for 'bert'": bert,
        "no adapter for 'llama'": model.model.language_model,
    }
    for message, wrong in expected.items():
        with pytest.raises(UnsupportedModelError, match=message) as error:
            attach(wrong)
        assert_short_error(error, wrong)


def test_a_methods_parameter_beside_the_method_is_told_where_it_goes(model: PreTrainedModel) -> None:
    with pytest.raises(TypeError, match="seed must be a parameter of the method, as in 'random:seed=3'"):
        attach(model, "random", seed=3)
    with pytest.raises(TypeError, match="as in 'divprune:kept=3'"), prune(model, DivPrune(), kept=3):
        pass
    with pytest.raises(ValueError, match=r"keep_ratio must be in \(0, 1\], got 98\.0; to keep 98 % write 0\.98"):
        attach(model, keep_ratio=98)


@pytest.mark.parametrize("method", ["divprune", "fastv:layer=2"])
def test_wrong_calls_leave_the_model_as_it_was(model: PreTrainedModel, method: str) -> None:
    inputs = make_inputs(CASES["llava"], model, ONE_AND_TWO)
    ids, pixels, mask = inputs["input_ids"], inputs["pixel_values"], inputs["attention_mask"]
    embeddings = model.get_input_embeddings()(ids)
    wrong: list[dict[str, Any]] = [
        {"input_ids": ids},
        {"input_ids": ids[:, :5], "pixel_values": pixels},
        {"input_ids": ids[0], "pixel_values": pixels},
        {"pixel_values": pixels},
        {"input_ids": ids, "pixel_values": pixels[:1]},
        {"input_ids": ids, "pixel_values": torch.cat([pixels, pixels])},
        {"input_ids": ids, "pixel_values": pixels, "attention_mask": mask[:, 1:]},
        {"input_ids": ids, "pixel_values": pixels, "attention_mask": mask[:1]},
        {"input_ids": ids, "pixel_values": pixels, "position_ids": torch.arange(3)[None]},
        {"inputs_embeds": embeddings, "pixel_values": pixels, "attention_mask": mask},
        {"input_ids": ids.float(), "pixel_values": pixels},
    ]
    with prune(model, method, keep_ratio=0.3):
        expected = model.generate(**inputs, max_new_tokens=3)
        for call in (lambda **each: model.generate(**each, max_new_tokens=2), model):
            for each in wrong:
                with pytest.raises(Exception) as error:
                    call(**each)
                assert_short_error(error, {name: tuple(value.shape) for name, value in each.items()})
                assert torch.equal(model.generate(**inputs, max_new_tokens=3), expected)
        assert model.generate(inputs_embeds=embeddings[:, :2], attention_mask=mask[:, :2], max_new_tokens=2).shape == (
            2,
            2,
        )
