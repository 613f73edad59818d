"""Copies, files, and changes of a pruned model."""

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, PreTrainedModel

from divprune import DivPrune, prune
from divprune.errors import PruningError
from tests.support.models.every_family import CASES


def test_copies_of_a_pruned_model_are_refused(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    fresh = CASES["llava"].build()  # once called, a model holds hooks of transformers that cannot be pickled anyway
    with prune(fresh, DivPrune(), keep_ratio=0.25):
        for attempt in (copy.deepcopy, pickle.dumps, lambda model: torch.save(model, io.BytesIO())):
            with pytest.raises(PruningError, match="cannot be copied or pickled"):
                attempt(fresh)
    with prune(model, DivPrune(), keep_ratio=0.25):
        expected = model.generate(**inputs, max_new_tokens=3)
        with pytest.raises(PruningError, match="cannot be copied or pickled"):
            copy.deepcopy(model)
        assert torch.equal(model.generate(**inputs, max_new_tokens=3), expected)
    twin = copy.deepcopy(model)
    with prune(twin, DivPrune(), keep_ratio=0.25):
        assert torch.equal(twin.generate(**inputs, max_new_tokens=3), expected)


def test_a_pruned_model_can_be_saved(model: PreTrainedModel, inputs: dict[str, Any], tmp_path: Path) -> None:
    expected = model.generate(**inputs, max_new_tokens=3)
    with prune(model, DivPrune(), keep_ratio=0.25):
        model.save_pretrained(tmp_path)
        state = model.state_dict()
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert torch.equal(loaded.generate(**inputs, max_new_tokens=3), expected)
    assert state.keys() == model.state_dict().keys()


def test_a_model_may_change_after_attach(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    with prune(model, DivPrune(), keep_ratio=0.25) as pruning:
        expected = model.generate(**inputs, max_new_tokens=3)
        model.to(torch.float64)
        wide = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
        assert torch.equal(model.generate(**wide, max_new_tokens=3), expected)
        assert pruning.last.items[0].kept_tokens.dtype == torch.float64
        model.to("meta")
        with pytest.raises((NotImplementedError, RuntimeError)):
            model.generate(**wide, max_new_tokens=3)
        model.train()
        assert model.training
    model.eval()


def test_a_new_generation_config_counts_at_once(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    with prune(model, DivPrune(), keep_ratio=0.25):
        model.generate(**inputs, max_new_tokens=3)
        model.generation_config.max_new_tokens = 7
        assert model.generate(**inputs).shape[1] == inputs["input_ids"].shape[1] + 7


def test_a_model_compiled_as_a_whole_is_refused(model: PreTrainedModel) -> None:
    model.compile(backend="eager")
    with (
        pytest.raises(PruningError, match=r"model.compile\(\) must not have been called"),
        prune(model, DivPrune(), keep_ratio=0.25),
    ):
        pass


@torch.no_grad()
@pytest.mark.slow
def test_a_compiled_forward_gives_the_same_tokens(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    with prune(model, DivPrune(), keep_ratio=0.25):
        expected = model.generate(**inputs, max_new_tokens=4)
        logits = model(**inputs).logits
    model.forward = torch.compile(model.forward, backend="eager")
    compiled = model.forward
    with prune(model, DivPrune(), keep_ratio=0.25):
        assert torch.equal(model.generate(**inputs, max_new_tokens=4), expected)
        assert torch.allclose(model(**inputs).logits, logits, atol=1e-5)
    assert model.forward is compiled


@pytest.mark.slow
def test_the_compiled_decoding_of_a_static_cache_gives_the_same_tokens(
    model: PreTrainedModel, inputs: dict[str, Any]
) -> None:
    from transformers import CompileConfig

    config = CompileConfig(backend="eager", mode=None, fullgraph=True)
    config._compile_all_devices = True
    settings = {"max_new_tokens": 4, "cache_implementation": "static"}
    with prune(model, DivPrune(), keep_ratio=0.25):
        expected = model.generate(**inputs, max_new_tokens=4)
        for _ in range(2):
            assert torch.equal(model.generate(**inputs, **settings, compile_config=config), expected)
    assert not hasattr(model, "_compiled_call")
