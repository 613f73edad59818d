"""What served methods keep, and what is answered, equal those of `prune` in transformers, item for item."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from vllm import LLM

from divprune import prune
from divprune.methods import available_methods, get_method
from divprune.methods.item_context import Modality
from divprune.vllm_plugin.families import served_family
from divprune.vllm_plugin.refusals import why_refused
from divprune.vllm_plugin.tower_model import TowerModel
from tests.serving.cases import CASES, RATIO, VIDEO_CASES, Case, prompts, reference, video_prompts
from tests.serving.engines import NUM_TOKENS, Prompt, answers, ask
from tests.serving.reference import arguments

Engine = Callable[..., Any]
Checkpoint = Callable[[str], Path]

SHALLOW = {"hiprune": "hiprune:early_layer=0", "vscan": "vscan:early_layer=0"}
"""Methods that read a layer which tiny vision towers do not have."""
DEEPEST = "hiprune:early_layer=0"
"""Reads the tower's first layer and its last one, which LLaVA's projector does not."""
IMAGES = {"image": 3, "video": 0}
VIDEOS = {"image": 0, "video": 2}
ARCHITECTURES = {
    "llava": "LlavaForConditionalGeneration",
    "llava_next": "LlavaNextForConditionalGeneration",
    "llava_next_video": "LlavaNextVideoForConditionalGeneration",
    "llava_onevision": "LlavaOnevisionForConditionalGeneration",
    "internvl": "InternVLForConditionalGeneration",
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
}


def served(name: str, kind: Modality) -> list[str]:
    """The methods that are served for a family and need more than tokens."""
    family = served_family(ARCHITECTURES[name])
    assert family is not None
    specs = [SHALLOW.get(info.name, info.name) for info in available_methods() if not info.acts.startswith("inside")]
    methods = {spec: get_method(spec) for spec in specs}
    return [spec for spec, method in methods.items() if method.needs and not why_refused(method, family, kind)]


OF_IMAGES = [(name, spec) for name in ("llava", "llava_next", "llava_onevision") for spec in served(name, "image")]
OF_VIDEOS = [
    (name, spec)
    for name in ("llava_onevision", "llava_next_video", "qwen2_5_vl")
    for spec in served(name, "video")
]  # fmt: skip


def model_of(llm: LLM) -> Any:
    """The model of an engine in the test's own process."""
    return llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner.model


class Kept:
    """What an engine keeps of each item that it encodes, in their order."""

    def __init__(self, llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[Tensor] = []
        finished = model_of(llm).finished

        def noted(kind: Any, items: Any, kept: Any, kwargs: Any) -> Any:
            self.rows += kept
            return finished(kind, items, kept, kwargs)

        monkeypatch.setattr(model_of(llm), "finished", noted)


def choose_by(llm: LLM, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an engine choose by another method, as if it had been started with it; its caches are emptied."""
    model, method = model_of(llm), get_method(spec)
    monkeypatch.setattr(model, "pruning_method", method)
    if isinstance(model, TowerModel):
        monkeypatch.setattr(model, "capture", model.captured_by(method))
    forget(llm)


def forget(llm: LLM) -> None:
    llm.reset_prefix_cache()
    llm.reset_mm_cache()
    llm.llm_engine.engine_core.engine_core.reset_encoder_cache()


def transformers_answers(
    name: str, folder: Path, spec: str, asked: list[Prompt]
) -> tuple[list[Tensor], list[list[int]]]:
    """What `prune` keeps of each item that was not shown before, and answers."""
    own, kept, ids, shown = reference(name, folder), [], [], set()
    with prune(own.model, spec, keep_ratio=RATIO) as pruning:
        for text, media in asked:
            inputs = own.processor(text=text, **arguments(media), return_tensors="pt")
            inputs = {key: value for key, value in inputs.items() if key != "image_num_patches"}
            output = own.model.generate(**inputs, max_new_tokens=NUM_TOKENS, do_sample=False, eos_token_id=None)
            ids.append(output[0, inputs["input_ids"].shape[1] :].tolist())
            pixels = [*media.get("image", []), *(frames for frames, _ in media.get("video", []))]
            for item, value in zip(pruning.last.items if pixels else [], pixels, strict=True):
                if value.tobytes() not in shown:
                    kept.append(item.kept_indices)
                shown.add(value.tobytes())
    return kept, ids


def assert_same(llm: LLM, kept: Kept, wanted: tuple[list[Tensor], list[list[int]]], asked: list[Prompt]) -> None:
    given = answers(ask(llm, asked))
    assert [rows.tolist() for rows in kept.rows] == [rows.tolist() for rows in wanted[0]]
    assert [ids for _, ids in given] == wanted[1]


@pytest.mark.parametrize(("name", "spec"), OF_IMAGES)
def test_methods_for_images(
    name: str, spec: str, engine: Engine, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One engine a family; one picture is shown twice, and encoded once."""
    asked = prompts(CASES[name])
    llm = engine(name, {"keep_ratio": RATIO, "method": DEEPEST}, limit_mm_per_prompt=IMAGES)
    choose_by(llm, spec, monkeypatch)
    kept = Kept(llm, monkeypatch)
    assert_same(llm, kept, transformers_answers(name, checkpoint(name), spec, asked), asked)


def only_videos(case: Case) -> list[Prompt]:
    return [prompt for prompt in video_prompts(case) if not prompt[1].get("image")]


@pytest.mark.parametrize(("name", "spec"), OF_VIDEOS)
def test_methods_for_videos(
    name: str, spec: str, engine: Engine, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = VIDEO_CASES[name]
    asked = only_videos(case)
    settings = {"limit_mm_per_prompt": case.limits | {"image": 0}}
    first = next(spec for family, spec in OF_VIDEOS if family == name)
    llm = engine(name, {"keep_ratio": RATIO, "method": first}, **settings)
    choose_by(llm, spec, monkeypatch)
    kept = Kept(llm, monkeypatch)
    assert_same(llm, kept, transformers_answers(name, checkpoint(name), spec, asked), asked)
