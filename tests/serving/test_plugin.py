"""The plugin is idle unless asked, and what engines cache and reserve follows the budget."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from vllm import ModelRegistry
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.encoder_budget import MultiModalBudget

from divprune.vllm_plugin import SERVED_FAMILIES
from divprune.vllm_plugin.mrope import as_columns, from_columns
from divprune.vllm_plugin.registration import register
from tests.serving.cases import CASES, picture, prompts
from tests.serving.engines import answers, ask
from tests.serving.writers import WRITERS

Engine = Callable[..., Any]


def test_every_family_is_tested() -> None:
    assert len(WRITERS) == len(SERVED_FAMILIES)


def test_registering_again_changes_nothing() -> None:
    register()
    before = dict(ModelRegistry.models)
    register()
    assert {name: (model.module_name, model.class_name) for name, model in before.items()} == {
        name: (model.module_name, model.class_name) for name, model in ModelRegistry.models.items()
    }
    assert {family.pruned_architecture for family in SERVED_FAMILIES} <= set(before)


def test_registering_imports_no_model() -> None:
    code = """
import sys
from vllm.plugins import load_general_plugins
load_general_plugins()
from vllm import ModelRegistry
print("DivPruneLlavaForConditionalGeneration" in ModelRegistry.get_supported_archs())
print([name for name in sys.modules if name.startswith("divprune")])
"""
    finished = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    known, imported = finished.stdout.splitlines()[-2:]
    assert known == "True"
    assert "divprune.methods" not in imported
    assert "divprune.vllm_plugin.family_models" not in imported


def test_an_unpruned_model_is_left_alone(engine: Engine) -> None:
    case = CASES["llava"]
    text, media = prompts(case)[0]
    whole = answers(ask(engine("llava", None, **case.settings), [(text, media)]))
    assert whole[0][0] == len(text.split()) - 1 + 36
    assert answers(ask(engine("llava", {"keep_ratio": 1.0}, **case.settings), [(text, media)])) == whole


def test_hashes_tell_budgets_and_methods_apart(engine: Engine) -> None:
    settings = CASES["llava"].settings
    hashes = set()
    for pruning in ({"keep_ratio": 0.25}, {"keep_ratio": 0.5}, {"num_keep": 9}, {"keep_ratio": 0.25, "method": "norm"}):
        config = engine("llava", pruning, **settings).llm_engine.vllm_config.model_config
        processor = MULTIMODAL_REGISTRY.create_processor(config)
        items = processor.info.parse_mm_data({"image": [picture(0)]})
        hashes.add(processor("word3 <image>", items)["mm_hashes"]["image"][0])
    assert len(hashes) == 4


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_room_is_made_for_kept_tokens(name: str, engine: Engine) -> None:
    """So that profiling encodes as many pictures at once as the scheduler will."""
    case = CASES[name]
    settings = case.settings | {"limit_mm_per_prompt": {"image": 3, "video": 0}}
    config = engine(name, {"keep_ratio": 0.25}, **settings).llm_engine.vllm_config
    budget = MultiModalBudget(config, MULTIMODAL_REGISTRY)
    assert budget.mm_max_toks_per_item == {"image": 9}
    assert budget.mm_max_items_per_batch["image"] == min(budget.get_encoder_budget() // 9, 8 * 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_coordinates_survive_half_precision(dtype: torch.dtype) -> None:
    coordinates = torch.tensor([[0, 255, 256, 257], [300, 1023, 4095, 65535], [1, 2, 3, 513]])
    assert torch.equal(from_columns(as_columns(coordinates, torch.zeros(4, 8, dtype=dtype))), coordinates)


def test_positions_move_in_place_and_the_buffer_is_cleared(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replayed CUDA graphs read the addresses that were captured, and nothing may be left for the next step."""
    case = CASES["qwen2_vl"]
    llm = engine("qwen2_vl", {"keep_ratio": 0.25}, **case.settings)
    model = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner.model
    address, seen = model.place_buffer.data_ptr(), []
    forward = model.language_model.model.forward

    def watched(*arguments: Any, **keywords: Any) -> Any:
        seen.append((keywords["positions"].data_ptr(), bool(model.place_buffer.any())))
        return forward(*arguments, **keywords)

    monkeypatch.setattr(model.language_model.model, "forward", watched)
    ask(llm, prompts(case))
    assert {where for where, _ in seen} == {seen[0][0]}
    assert not any(left for _, left in seen)
    assert model.place_buffer.data_ptr() == address
