"""The bundled video model: small, loads like any checkpoint, and answers."""

import json

import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaNextVideoForConditionalGeneration,
    LlavaNextVideoProcessor,
)

from divprune.checkpoints import EMBEDDED_VIDEO, choose_device, load_model
from divprune.embedded import EMBEDDED_FOLDERS, checkpoint_path, generated_video, num_parameters
from divprune.errors import CheckpointError
from divprune.evaluation.scenes.bench import VIDEO_BENCH
from tools.embedded.evaluate import accuracies, answer_batch, answer_scenes

FOLDER = checkpoint_path(EMBEDDED_VIDEO)
MEASURED = json.loads((FOLDER / "accuracy.json").read_text())


@pytest.fixture(scope="module")
def loaded() -> tuple[LlavaNextVideoForConditionalGeneration, LlavaNextVideoProcessor]:
    return AutoModelForImageTextToText.from_pretrained(FOLDER).eval(), AutoProcessor.from_pretrained(FOLDER)


def test_checkpoints_are_small() -> None:
    for name in EMBEDDED_FOLDERS:
        assert sum(file.stat().st_size for file in checkpoint_path(name).iterdir()) <= 12_000_000


def test_checkpoint_loads_by_its_name() -> None:
    loaded = load_model(EMBEDDED_VIDEO, choose_device("cpu"), "float32")
    assert (loaded.name, loaded.model.dtype) == ("embedded-video", torch.float32)
    assert isinstance(loaded.model, LlavaNextVideoForConditionalGeneration)
    assert isinstance(loaded.processor, LlavaNextVideoProcessor)
    assert num_parameters(EMBEDDED_VIDEO) == loaded.model.num_parameters()
    assert f" {num_parameters(EMBEDDED_VIDEO) / 1e6:.1f} M parameters" in VIDEO_BENCH.notice()
    with pytest.raises(CheckpointError, match="the embedded model has no revision 'main'"):
        load_model(EMBEDDED_VIDEO, choose_device("cpu"), "float32", revision="main")


def test_its_tower_is_that_of_the_image_model(
    loaded: tuple[LlavaNextVideoForConditionalGeneration, LlavaNextVideoProcessor],
) -> None:
    image_model = AutoModelForImageTextToText.from_pretrained(checkpoint_path())
    for name, value in image_model.model.vision_tower.state_dict().items():
        assert torch.equal(loaded[0].model.vision_tower.state_dict()[name], value)


def test_checkpoint_answers_test_videos(
    loaded: tuple[LlavaNextVideoForConditionalGeneration, LlavaNextVideoProcessor],
) -> None:
    answered = list(answer_scenes(*loaded, [generated_video(seed) for seed in range(6)], bench=VIDEO_BENCH))
    assert sum(one.is_right for one in answered) / len(answered) > 0.75, accuracies(answered)


def test_padding_does_not_change_answers(
    loaded: tuple[LlavaNextVideoForConditionalGeneration, LlavaNextVideoProcessor],
) -> None:
    asked = [
        (video, VIDEO_BENCH.ask(video)[place]) for video, place in ((generated_video(0), 0), (generated_video(1), 2))
    ]
    together = answer_batch(*loaded, asked, VIDEO_BENCH)
    alone = [answer_batch(*loaded, [one], VIDEO_BENCH)[0] for one in asked]
    assert [one.said for one in together] == [one.said for one in alone]


def test_measured_answers_need_more_than_one_frame() -> None:
    whole, one_frame = MEASURED["videos"], MEASURED["one_frame"]
    assert whole["num_scenes"] == one_frame["num_scenes"] >= 200
    assert whole["kinds"].keys() == set(VIDEO_BENCH.kinds)
    for kind, result in whole["kinds"].items():
        assert result["accuracy"] >= one_frame["kinds"][kind]["accuracy"] + 0.2, kind
    # A guess among four directions, and among at least three colours.
    assert whole["kinds"]["motion"]["accuracy"] >= 0.8
    assert whole["kinds"]["order"]["accuracy"] >= 0.9


def test_card_repeats_the_measured_numbers() -> None:
    card = (FOLDER / "README.md").read_text()
    of_image_model = json.loads((checkpoint_path() / "accuracy.json").read_text())
    for measured, other in ((MEASURED["videos"], MEASURED["one_frame"]), (MEASURED["images"], of_image_model)):
        for kind, result in measured["kinds"].items():
            both = " | ".join(f"{100 * each['accuracy']:.1f} %" for each in (result, other["kinds"][kind]))
            assert f"| {kind} | {both} |" in card
