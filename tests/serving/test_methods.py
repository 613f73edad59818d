"""What served methods keep, and what is answered, equal those of `prune` in transformers, item for item."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from vllm import LLM

from divprune.methods import available_methods, get_method
from divprune.methods.item_context import Modality
from divprune.vllm_plugin.families import SERVED_FAMILIES
from divprune.vllm_plugin.refusals import served_with, why_refused
from divprune.vllm_plugin.tower_model import TowerModel
from tests.serving.cases import CASES, RATIO, VIDEO_CASES, Case, prompts, transformers_answers, video_prompts
from tests.serving.engines import Prompt, answers, ask

Engine = Callable[..., Any]
Checkpoint = Callable[[str], Path]

SHALLOW = {"hiprune": "hiprune:early_layer=0", "vscan": "vscan:early_layer=0"}
"""Methods that read a layer which tiny vision towers do not have."""
DEEPEST = "hiprune:early_layer=0"
"""Reads the tower's first layer and its last one, which LLaVA's projector does not."""
IMAGES = {"image": 3, "video": 0}
MODELS = {"llava": "PrunedLlava", "llava_onevision": "PrunedLlavaOnevision"}


def served(name: str, kind: Modality) -> list[str]:
    """The methods that are served for a family and need more than tokens."""
    family = next(family for family in SERVED_FAMILIES if family.model == MODELS[name])
    specs = [SHALLOW.get(info.name, info.name) for info in available_methods() if not info.acts.startswith("inside")]
    methods = {spec: get_method(spec) for spec in specs}
    return [spec for spec, method in methods.items() if method.needs and not why_refused(method, family, kind)]


SOME = ("visionzip", "prumerge", DEEPEST, "scope")
"""One for each kind of thing that is read: keys and CLS features, heads as one, two layers, the projector's input."""
OF_VIDEOS_ALONE = ("evs", "dycoke", "prunevid", "holitom", "fastvid", "flashvid", "vidcom2")
OF_IMAGES = [
    *((name, spec) for name in ("llava", "llava_onevision") for spec in served(name, "image")),
    *((name, spec) for name in ("llava_next", "internvl", "qwen2_vl", "qwen2_5_vl", "qwen3_vl") for spec in SOME),
]
OF_VIDEOS = [
    *(("llava_onevision", spec) for spec in ("visionzip", "prumerge", "scope")),
    *(("llava_next_video", spec) for spec in ("evs", "dycoke", "prunevid")),
    *(("qwen2_5_vl", spec) for spec in ("visionzip", *OF_VIDEOS_ALONE)),
    *(("qwen3_vl", spec) for spec in ("visionzip", "prunevid", "flashvid")),
]


def test_every_served_method_is_compared_on_a_family_that_has_it() -> None:
    made = [get_method(info.name) for info in available_methods() if not info.acts.startswith("inside")]
    compared = {spec.partition(":")[0] for _, spec in (*OF_IMAGES, *OF_VIDEOS)}
    assert {method.name for method in made if method.needs and served_with(method)} == compared


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


def assert_same(llm: LLM, kept: Kept, wanted: tuple[list[Tensor], list[list[int]]], asked: list[Prompt]) -> None:
    given = answers(ask(llm, asked))
    assert [rows.tolist() for rows in kept.rows] == [rows.tolist() for rows in wanted[0]]
    assert [ids for _, ids in given] == wanted[1]


@pytest.mark.parametrize(("name", "spec"), OF_IMAGES)
def test_methods_for_images(
    name: str, spec: str, engine: Engine, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One engine a family; one image is shown twice, and encoded once."""
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


@pytest.mark.parametrize(("name", "spec"), [("llava", "visionzip"), ("llava_onevision", "prumerge")])
def test_engines_started_with_a_method(name: str, spec: str, engine: Engine, checkpoint: Checkpoint) -> None:
    """Chunks end inside items; the second time blocks come from the prefix cache; then items are encoded one by one."""
    case = CASES[name]
    asked = prompts(case) + (video_prompts(case) if case.video else [])
    llm = engine(name, {"keep_ratio": RATIO, "method": spec}, **case.settings, max_num_batched_tokens=24)
    _, wanted = transformers_answers(name, checkpoint(name), spec, asked)
    again = []
    for _ in range(2):
        again = ask(llm, asked)
        assert [ids for _, ids in answers(again)] == wanted
    assert sum(output.num_cached_tokens for output in again) >= 32
    forget(llm)
    assert [answers(ask(llm, [prompt]))[0][1] for prompt in asked] == wanted
