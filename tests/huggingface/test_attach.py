"""Attaching, detaching, and what a pruned model refuses."""

import inspect
import sys
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel

from divprune import DivPrune, RandomTokens, attach, prune
from divprune.errors import PruningError
from tests.support.attached import ROWS, assert_same, snapshot
from tests.support.models.every_family import CASES, IMAGE, make_inputs


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return CASES["llava"].build()


@pytest.fixture
def inputs(model: PreTrainedModel) -> dict[str, Any]:
    return make_inputs(CASES["llava"], model, ROWS)


def test_leaving_the_block_restores_the_model(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    before = snapshot(model)
    generate, forward = model.generate, model.forward
    with prune(model, DivPrune(), keep_ratio=0.25):
        assert model.generate != generate
        model.generate(**inputs, max_new_tokens=2)
    assert_same(before, snapshot(model))
    assert model.generate == generate
    assert model.forward == forward


def test_an_exception_restores_the_model(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    before = snapshot(model)
    expected = model.generate(**inputs, max_new_tokens=3)

    def explode(*_: Any) -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), prune(model, DivPrune(), keep_ratio=0.25):
        model.generate(**inputs, max_new_tokens=3, logits_processor=[explode])
    assert_same(before, snapshot(model))
    assert torch.equal(model.generate(**inputs, max_new_tokens=3), expected)


def test_an_exception_inside_generate_leaves_the_model_pruned(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    def explode(*_: Any) -> torch.Tensor:
        raise RuntimeError("stop")

    with prune(model, DivPrune(), keep_ratio=0.25) as pruning:
        expected = model.generate(**inputs, max_new_tokens=3)
        first = pruning.last
        with pytest.raises(RuntimeError, match="stop"):
            model.generate(**inputs, max_new_tokens=3, logits_processor=[explode])
        assert pruning.last is first
        assert torch.equal(model.generate(**inputs, max_new_tokens=3), expected)
        assert model(**inputs).logits.shape[1] < inputs["input_ids"].shape[1]


def test_wrappers_of_others_come_back(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    original = model.forward
    calls = []

    def theirs(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return original(*args, **kwargs)

    model.forward = theirs
    try:
        with prune(model, DivPrune(), keep_ratio=0.25):
            model(**inputs)
        assert model.__dict__["forward"] is theirs
        assert calls == [1]
    finally:
        del model.forward


@pytest.mark.parametrize("first", ["attach", "prune"])
def test_pruning_twice_is_refused(model: PreTrainedModel, first: str) -> None:
    with prune(model, DivPrune(), keep_ratio=0.5):
        with pytest.raises(PruningError, match="pruned already"):
            attach(model, DivPrune(), keep_ratio=0.5)
        with pytest.raises(PruningError, match="pruned already"), prune(model, DivPrune(), keep_ratio=0.5):
            pass
    attach(model, DivPrune(), keep_ratio=0.5).detach()


def test_detach_twice_does_nothing(model: PreTrainedModel) -> None:
    handle = attach(model, "random:seed=3", num_keep=4)
    handle.detach()
    with prune(model, DivPrune(), keep_ratio=0.5):
        handle.detach()
        assert "generate" in model.__dict__


def test_signatures_stay(model: PreTrainedModel) -> None:
    before = inspect.signature(model.generate), inspect.signature(model.forward)
    with prune(model, DivPrune(), keep_ratio=0.5):
        assert (inspect.signature(model.generate), inspect.signature(model.forward)) == before


def test_nothing_of_ours_runs_per_decoded_token(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    calls: dict[int, int] = {}

    def count(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_globals.get("__name__", "").startswith("divprune"):
            calls[current] = calls.get(current, 0) + 1

    with prune(model, DivPrune(), keep_ratio=0.25):
        for current in (2, 12):
            sys.setprofile(count)
            try:
                model.generate(**inputs, max_new_tokens=current)
            finally:
                sys.setprofile(None)
    assert calls[2] == calls[12] > 0


def test_text_alone_passes_untouched(model: PreTrainedModel) -> None:
    inputs = make_inputs(CASES["llava"], model, [[1, 5, 6], [1, 7, 8, 9, 10]])
    expected = model.generate(**inputs, max_new_tokens=4)
    with prune(model, DivPrune(), keep_ratio=0.1) as pruning:
        assert torch.equal(model.generate(**inputs, max_new_tokens=4), expected)
        assert torch.equal(
            model.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=4), expected
        )
    assert pruning.last.items == ()
    assert torch.equal(pruning.last.keep_mask, inputs["attention_mask"].bool())


def test_max_and_min_length_count_the_original_prompt(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    length = inputs["input_ids"].shape[1]
    config = GenerationConfig(max_length=length + 5, min_length=length + 2)
    with prune(model, DivPrune(), keep_ratio=0.1):
        assert model.generate(**inputs, max_length=length + 5).shape[1] == length + 5
        assert model.generate(**inputs, generation_config=config).shape[1] == length + 5
        assert config.max_length == length + 5
        first = model.generate(**inputs, max_new_tokens=1)[:, -1].tolist()
        stops = {"eos_token_id": first, "pad_token_id": 0}
        assert model.generate(**inputs, max_length=length + 9, **stops).shape[1] == length + 1
        assert model.generate(**inputs, max_length=length + 9, min_length=length + 4, **stops).shape[1] > length + 3


def test_a_missing_mask_is_read_from_the_padding(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    without = {name: value for name, value in inputs.items() if name != "attention_mask"}
    with prune(model, DivPrune(), keep_ratio=0.25) as pruning:
        expected = model.generate(**inputs, max_new_tokens=4)
        mask = pruning.last.keep_mask
        assert torch.equal(model.generate(**without, max_new_tokens=4, pad_token_id=0), expected)
        assert torch.equal(pruning.last.keep_mask, mask)


def test_encoded_pictures_are_pruned_too(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    encoded = model.model.get_image_features(inputs["pixel_values"], return_dict=True)
    count = len(encoded.pooler_output[0])
    others = {name: value for name, value in inputs.items() if name != "pixel_values"}
    with prune(model, DivPrune(), keep_ratio=0.25):
        expected = model.generate(**inputs, max_new_tokens=4)
        assert torch.equal(model.generate(**others, mm_encoder_outputs={"image": encoded}, max_new_tokens=4), expected)
    assert len(encoded.pooler_output[0]) == count


@pytest.mark.parametrize(
    "settings", [{"use_cache": False}, {"cache_implementation": "static"}, {"prompt_lookup_num_tokens": 2}]
)
@pytest.mark.parametrize("positions", ["compact", "original"])
def test_other_ways_of_decoding_give_the_greedy_tokens(
    model: PreTrainedModel, settings: dict[str, Any], positions: Any
) -> None:
    inputs = make_inputs(CASES["llava"], model, [[1, 5, "image", 6, 7, "image", 8]])
    # Without a cache transformers counts the placeholders of the whole sequence again, so none may be generated.
    inputs |= {"max_new_tokens": 8, "do_sample": False, "suppress_tokens": [IMAGE]}
    extra = {"disable_compile": True} if "cache_implementation" in settings else {}
    with prune(model, DivPrune(), keep_ratio=0.3, positions=positions):
        expected = model.generate(**inputs)
        assert torch.equal(model.generate(**inputs, **settings, **extra), expected)


def test_labels_are_shortened_with_the_prompt(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    # Placeholders, padding and the first token of a row are no targets.
    labels = inputs["input_ids"].masked_fill(torch.isin(inputs["input_ids"], torch.tensor([0, 1, 95])), -100)
    with prune(model, RandomTokens(), keep_ratio=0.25) as pruning:
        output = model(**inputs, labels=labels)
    kept = [row[mask] for row, mask in zip(labels, pruning.last.keep_mask, strict=True)]
    losses = []
    for logits, row in zip(output.logits, kept, strict=True):
        losses.append(torch.nn.functional.cross_entropy(logits[-len(row) :][:-1], row[1:], reduction="none"))
    flat, targets = torch.cat(losses), torch.cat([row[1:] for row in kept])
    assert torch.allclose(output.loss, flat[targets != -100].mean(), atol=1e-5)


def test_beams_leave_the_model_as_it_was(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    before = snapshot(model)
    with prune(model, DivPrune(), keep_ratio=0.25):
        model.generate(**inputs, max_new_tokens=2, num_beams=2)
    assert_same(before, snapshot(model))


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("stops", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("wrapped", [(), ("generate",)], ids=["bare", "generate wrapped"])
def test_what_others_put_on_the_instance_for_beams_comes_back(
    inputs: dict[str, Any], layer: int, stops: bool, wrapped: tuple[str, ...]
) -> None:
    """Where another library wraps `generate`, the call runs on the model itself and not on its copy."""
    model = CASES["llava"].build()
    for name in (*wrapped, "_expand_multimodal_outputs"):
        setattr(model, name, partial(getattr(model, name)))
    theirs = dict(model.__dict__)

    def stop(*_: Any) -> torch.Tensor:
        raise InterruptedError

    settings: dict[str, Any] = {"max_new_tokens": 2, "num_beams": 2, "logits_processor": [stop] if stops else []}
    with prune(model, DivPrune(layer=layer), keep_ratio=0.25):
        attached = dict(model.__dict__)
        with pytest.raises(InterruptedError) if stops else nullcontext():
            model.generate(**inputs, **settings)
        assert model.__dict__ == attached
    assert model.__dict__ == theirs
