"""Training: losses fall, an interrupted run ends where an uninterrupted one does, packed questions stay independent."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, LlavaForConditionalGeneration

from divprune.embedded import questions, scene
from tools.embedded.labels import IGNORED, kind_index, patch_labels
from tools.embedded.language_stage import LanguageStage, packed_logits
from tools.embedded.loop import Schedule, Stage, optimizers, run_stage, train_step
from tools.embedded.model import (
    NUM_VISUAL_TOKENS,
    PATCH_SIZE,
    PATCHES_PER_SIDE,
    build,
    configuration,
    shrink_residual_stream,
)
from tools.embedded.packing import PREFIX_IDS, pack
from tools.embedded.processing import build_processor
from tools.embedded.tower_stage import TowerHeads, TowerStage, draw_batch, patch_features
from tools.embedded.train import export


def small_model() -> LlavaForConditionalGeneration:
    return build(configuration(width=64, tower_layers=2, language_layers=1))


def test_labels_mark_objects_and_centres() -> None:
    one = scene(11, "train")
    labels = patch_labels([one])
    assert labels.classes["kind"].shape == (1, NUM_VISUAL_TOKENS)
    assert int(labels.is_center.sum()) == len(one.objects)
    for item in one.objects:
        patch = item.center_y // PATCH_SIZE * PATCHES_PER_SIDE + item.center_x // PATCH_SIZE
        assert labels.classes["kind"][0, patch] == 1 + kind_index(item)
        assert labels.present_kinds[0, kind_index(item)] == 1
    assert int(labels.present_kinds.sum()) == len({item.name for item in one.objects})
    assert set(labels.classes["kind"].unique().tolist()) <= {
        0,
        IGNORED,
        *(1 + kind_index(item) for item in one.objects),
    }


class OneBatch:
    """A stage that is shown the same scenes again and again."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.name, self.trained = stage, stage.name, stage.trained

    def loss(self, step: int) -> torch.Tensor:
        return self.stage.loss(0)

    def scores(self) -> dict[str, float]:
        return {}


@pytest.mark.parametrize("make", [TowerStage, LanguageStage])
def test_loss_falls_on_a_handful_of_scenes(make: type[TowerStage] | type[LanguageStage]) -> None:
    stage = OneBatch(make(small_model(), batch_size=4))
    schedule = Schedule(num_steps=30, warmup_steps=3)
    chosen = optimizers(stage.trained, schedule)
    losses = [train_step(stage, chosen, schedule, step) for step in range(20)]
    assert losses[-1] < 0.7 * losses[0]


class Interruption(Exception):
    """Stands for a kill."""


class Interrupted(OneBatch):
    """A stage that is killed at one step."""

    def loss(self, step: int) -> torch.Tensor:
        if step == 3:
            raise Interruption
        return self.stage.loss(step)


class Plain(OneBatch):
    """A stage without the time-consuming scores."""

    def loss(self, step: int) -> torch.Tensor:
        return self.stage.loss(step)


def test_resumed_run_ends_in_the_same_state(tmp_path: Path) -> None:
    schedule = Schedule(num_steps=5, warmup_steps=2, check_every=2)
    whole = tmp_path / "whole"
    parts = tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    expected = Plain(TowerStage(small_model(), batch_size=2))
    run_stage(expected, schedule, whole)
    with pytest.raises(Interruption):
        run_stage(Interrupted(TowerStage(small_model(), batch_size=2)), schedule, parts)
    resumed = Plain(TowerStage(small_model(), batch_size=2))
    run_stage(resumed, schedule, parts)
    for name, value in expected.trained.state_dict().items():
        torch.testing.assert_close(resumed.trained.state_dict()[name], value, rtol=0, atol=0)


def test_whole_stage_trains_the_tower_and_the_language_stage_does_not() -> None:
    for heads in (None, TowerHeads(64)):
        stage = LanguageStage(small_model(), batch_size=2, heads=heads)
        stage.loss(0).backward()
        gradient = stage.model.model.vision_tower.embeddings.patch_embedding.weight.grad
        assert (gradient is not None) == (heads is not None)


@torch.no_grad()
def test_packed_logits_equal_those_of_single_prompts() -> None:
    model, processor = build(configuration(width=128)).eval(), build_processor()
    scenes = [scene(seed, "validation") for seed in range(2)]
    rows = [questions(one, 1) for one in scenes]
    batch = pack(rows)
    packed = packed_logits(model, patch_features(model, draw_batch(scenes)), batch)
    for row, asked in enumerate(rows):
        for place, question in enumerate(asked):
            text = f"USER: <image>\n{question.prompt} ASSISTANT: {question.answer}</s>"
            inputs = processor(images=scenes[row].image, text=text, return_tensors="pt")
            alone = model(**inputs).logits[0, len(PREFIX_IDS) :]
            mine = packed[row][batch.question_index[row, len(PREFIX_IDS) :] == place]
            torch.testing.assert_close(mine, alone, rtol=1e-4, atol=1e-5)


def test_exported_model_loads_in_single_precision(tmp_path: Path) -> None:
    model = small_model()
    export(model, build_processor(), tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert loaded.dtype == torch.float32
    assert all(
        torch.equal(value.half(), loaded.state_dict()[name].half()) for name, value in model.state_dict().items()
    )


@torch.no_grad()
def test_shrinking_the_residual_stream_only_scales_the_features() -> None:
    model, pixels = small_model(), draw_batch([scene(0, "train")])
    features = patch_features(model, pixels)
    summary = model.model.vision_tower(pixels).pooler_output
    shrink_residual_stream(model, factor=4.0)
    torch.testing.assert_close(4 * patch_features(model, pixels), features, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(model.model.vision_tower(pixels).pooler_output, summary, rtol=1e-2, atol=1e-2)
