"""What the vision encoder made is used again, and changes no answer."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from divprune import prune
from divprune.errors import UnsupportedModelError
from divprune.huggingface.encoding.encoder_memory import EncoderMemory, current_memory, remembering
from tests.support.models.every_family import CASES, Row, make_inputs

ROW: Row = [1, 5, "image", 6, 7, 8]
PLENTY = 2**30
METHODS = (
    "divprune",
    "visionzip",
    "vispruner",
    "prumerge",
    "hiprune:early_layer=0",
    "fastv:layer=1",
    "scope",
    "random",
)


def answered(model: PreTrainedModel, method: str, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, list[int]]:
    with prune(model, method, keep_ratio=0.5) as pruning:
        output = model.generate(
            **inputs, max_new_tokens=3, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
    assert pruning.last is not None
    return torch.stack(output.logits), pruning.last.items[0].kept_indices.tolist()


@pytest.mark.parametrize("family", ["llava", "llava_next", "internvl", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_the_same_answer_from_one_pass(family: str, method: str, place: str, tmp_path: Path) -> None:
    case = CASES[family]
    model = case.build()
    inputs = make_inputs(case, model, [ROW])
    try:
        logits, kept = answered(model, method, inputs)
    except UnsupportedModelError as error:  # its encoder is not known
        pytest.skip(str(error))
    memory = EncoderMemory(PLENTY, tmp_path if place == "disk" else None)
    with remembering(memory):
        for _ in range(3):
            remembered, kept_again = answered(model, method, inputs)
            assert torch.equal(remembered, logits)
            assert kept_again == kept
    assert memory.num_passes == 1
    assert 0 < memory.num_bytes < PLENTY
    assert bool(list(tmp_path.iterdir())) == (place == "disk")


def test_a_folder_serves_the_next_run_and_forgives_damaged_files(tmp_path: Path) -> None:
    case = CASES["qwen3_vl"]
    model = case.build()
    inputs = make_inputs(case, model, [ROW])
    first = EncoderMemory(PLENTY, tmp_path)
    with remembering(first):
        expected = answered(model, "divprune", inputs)
    (path,) = tmp_path.iterdir()
    again = EncoderMemory(PLENTY, tmp_path)
    assert again.num_bytes == path.stat().st_size
    with remembering(again):
        logits, kept = answered(model, "divprune", inputs)
    assert torch.equal(logits, expected[0])
    assert (kept, again.num_passes) == (expected[1], 0)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"[]" * 50):
        path.write_bytes(damaged)
        memory = EncoderMemory(PLENTY, tmp_path)
        with remembering(memory):
            assert torch.equal(answered(model, "divprune", inputs)[0], expected[0])
        assert memory.num_passes == 1
        assert path.read_bytes() == whole
    full = EncoderMemory(len(whole), tmp_path)
    with remembering(full):
        answered(model, "divprune", inputs | {"pixel_values": inputs["pixel_values"] + 1})
    assert list(tmp_path.iterdir()) == [path]


def test_other_images_and_other_needs_are_encoded_anew() -> None:
    case = CASES["llava"]
    model = case.build()
    inputs = make_inputs(case, model, [ROW])
    memory = EncoderMemory(PLENTY)
    with remembering(memory):
        answered(model, "divprune", inputs)
        answered(model, "random", inputs)
        assert memory.num_passes == 1
        answered(model, "visionzip", inputs)
        assert memory.num_passes == 2
        answered(model, "divprune", inputs | {"pixel_values": inputs["pixel_values"] + 1})
        assert memory.num_passes == 3


def test_what_is_too_much_is_not_kept() -> None:
    case = CASES["llava"]
    model = case.build()
    inputs = make_inputs(case, model, [ROW])
    whole = EncoderMemory(PLENTY)
    with remembering(whole):
        answered(model, "divprune", inputs)
    small = replace(whole, max_bytes=whole.num_bytes - 1, num_bytes=0, num_passes=0, _known={})
    with remembering(small):
        answered(model, "divprune", inputs)
        answered(model, "divprune", inputs)
    assert (small.num_passes, small.num_bytes) == (2, 0)


def test_memories_nest_and_end() -> None:
    outer, inner = EncoderMemory(1), EncoderMemory(1)
    with remembering(outer):
        with remembering(inner):
            assert current_memory() is inner
        assert current_memory() is outer
    assert current_memory() is None
