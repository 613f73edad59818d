"""Settings that cannot work on a model or on what it is shown: refused by every command, before weights are read."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from divprune import checkpoints
from divprune.calibration import run as calibration_run
from divprune.efficiency import subject as efficiency_subject
from divprune.evaluation.scenes import run as scenes_run
from divprune.experiments import harness as harness_module
from tests.support import checkpoint_writers
from tests.support.commands import Command

NOT_FOR_IMAGES = "compares the frames of a video, got an item of modality 'image'"
NO_TILES = "scope must be 'item', 'frame' or 'sample' for 'llava', got 'tile'"
NO_NEWLINES = "newlines must be 'budget' for 'llava', got 'keep'"
NO_LAYER = "decoder layers, got 99|layer must be between 1 and 3 for this model, got 99"
NO_VISION_LAYER = "early_layer must be between -5 and 4, got 99"
IMPOSSIBLE: dict[str, tuple[tuple[object, ...], str]] = {
    "a video method on an image": (("evs",), NOT_FOR_IMAGES),
    "another video method on an image": (("vidcom2",), NOT_FOR_IMAGES),
    "tiles of a family without": (("divprune", "--scope", "tile"), NO_TILES),
    "newlines of a family without": (("divprune", "--newlines", "keep"), NO_NEWLINES),
    "a decoder layer that is not there": (("fastv:layer=99",), NO_LAYER),
    "a vision layer that is not there": (("hiprune:early_layer=99",), NO_VISION_LAYER),
    "a CLIP checkpoint that is none": (("cdpruner:clip=nowhere",), "clip must be the folder of a CLIP checkpoint"),
}


@pytest.fixture(autouse=True)
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights may be read, no process started and nothing asked."""

    def stop(*_: Any, **__: Any) -> None:
        raise AssertionError("weights are read")

    for module in (calibration_run, efficiency_subject, scenes_run, checkpoints):
        monkeypatch.setattr(module, "load_model", stop)
    monkeypatch.setattr(efficiency_subject, "in_own_process", stop)
    monkeypatch.setattr(harness_module, "import_module", stop)


def assert_refused(divprune: Command, message: str, *arguments: object) -> None:
    outcome = divprune(*arguments)
    assert outcome.exit_code == 2, outcome.stderr
    assert re.search(message, outcome.error)


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_on_the_embedded_model(divprune: Command, tmp_path: Path, name: str) -> None:
    (method, *others), message = IMPOSSIBLE[name]
    output = ("--output", tmp_path / "new")
    assert_refused(divprune, message, "run", "--method", method, *others)
    assert_refused(divprune, message, "bench", "--method", method, *others)
    harness = ("--suite", "gqa", "--model", "embedded", "--methods", method, *others)
    assert_refused(divprune, message, "eval", *harness, *output)
    if not others:
        assert_refused(divprune, message, "eval", "--suite", "scenes", "--methods", method, *output)
    table = ("table1", "--model", "embedded", "--methods", method, "--tasks", "gqa", *others)
    assert_refused(divprune, message, "reproduce", *table, *output)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", ["run", "bench"])
def test_on_what_is_shown(divprune: Command, tmp_path: Path, clip: Path, command: str) -> None:
    model = checkpoint_writers.write_llava_next_video(tmp_path / "video")
    shown = (command, "--model", model, "--video", clip)
    assert_refused(divprune, "is for images, got an item of modality 'video'", *shown, "--method", "globalcom2")
    assert_refused(divprune, "scope must be 'frame', 'item' or 'sample' for a video", *shown, "--scope", "tile")
    assert_refused(divprune, "a 'llava' model takes no video", command, "--video", clip)


def test_positions_of_a_family_with_coordinates(divprune: Command, tmp_path: Path) -> None:
    model = checkpoint_writers.write_qwen2_5_vl(tmp_path / "qwen")
    arguments = ("eval", "--suite", "gqa", "--model", model, "--positions", "compact", "--output", tmp_path / "new")
    assert_refused(divprune, "positions must be 'original' or None for 'qwen2_5_vl'", *arguments)


def test_a_clip_checkpoint_of_other_sizes(divprune: Command, tmp_path: Path) -> None:
    model = checkpoint_writers.write_llava(tmp_path / "llava")
    larger = checkpoint_writers.write_clip(tmp_path / "larger", image_size=70)
    arguments = ("--model", model, "--method", f"cdpruner:clip={larger}")
    for command in ("run", "bench"):
        assert_refused(divprune, "clip must be the checkpoint whose vision tower the model has", command, *arguments)


def test_whose_a_tower_is_shows_in_one_process_before_any_is_measured(
    divprune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = checkpoint_writers.write_clip(tmp_path / "own", seed=1)
    other = checkpoint_writers.write_clip(tmp_path / "other", seed=2)
    model = checkpoint_writers.write_llava_with_tower(tmp_path / "llava", own)
    monkeypatch.undo()
    called: list[str] = []

    def here(function: Callable[..., Any], *arguments: Any) -> Any:
        called.append(function.__name__)
        return function(*arguments)

    monkeypatch.setattr(efficiency_subject, "in_own_process", here)
    outcome = divprune("bench", "--model", model, "--method", f"cdpruner:clip={other}")
    assert outcome.exit_code == 2
    assert "a tower that was trained further no longer belongs" in outcome.stderr
    assert called == ["_require_fitting"]


def test_calibration_of_layers_that_are_not_there(divprune: Command, tmp_path: Path) -> None:
    arguments = ("calibrate", "vtw", "--output", tmp_path / "vtw.json", "--first-layer", 9)
    assert_refused(divprune, "first_layer must be between 1 and 3 for this model, got 9", *arguments)


def test_other_backends_say_what_they_do_not_take(divprune: Command, tmp_path: Path) -> None:
    served = ("--suite", "gqa", "--model", "embedded", "--backend", "vllm", "--output", tmp_path / "new")
    assert_refused(divprune, "--scope is for --backend hf, not for vllm", "eval", *served, "--scope", "tile")
    assert_refused(divprune, "--newlines is for --backend hf, not for vllm", "eval", *served, "--newlines", "keep")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("llava-1.5-7b", "--method", "evs"), NOT_FOR_IMAGES),
        (("llava-next-video-7b", "--method", "globalcom2"), "is for images, got an item of modality 'video'"),
        (("llava-1.5-7b", "--scope", "tile"), NO_TILES),
        (("llava-1.5-13b", "--newlines", "keep"), NO_NEWLINES),
        (("llava-next-video-7b", "--scope", "tile"), "scope must be 'frame', 'item' or 'sample' for a video"),
        (("llava-1.5-7b", "--image-size", "640x480"), "--image-size is for models that cut images into LLaVA-NeXT's"),
        (("llava-1.6-7b", "--image-size", "640"), "--image-size must be WIDTHxHEIGHT in pixels"),
        (("llava-1.6-7b", "--image-size", "0x9"), "--image-size must be WIDTHxHEIGHT in pixels, at least 1x1"),
        (("llava-1.6-7b", "--visual-tokens", 9, "--scope", "tile"), "--visual-tokens does not tell tiles"),
        (("llava-1.6-7b", "--image-size", "9x9", "--visual-tokens", 9), "give --image-size or --visual-tokens"),
        (("llava-1.6-7b", "--target-percent", 20, "--scope", "tile"), "--target-percent is for --scope item"),
    ],
)
def test_flops(divprune: Command, arguments: tuple[object, ...], message: str) -> None:
    assert_refused(divprune, message, "flops", "--model", *arguments)


def test_a_plan_of_tiles_for_models_without(divprune: Command) -> None:
    assert_refused(divprune, NO_TILES, "reproduce", "table1", "--dry-run", "--scope", "tile")
    assert_refused(divprune, NOT_FOR_IMAGES, "reproduce", "table1", "--dry-run", "--methods", "evs")
    plan = divprune("reproduce", "llava-next", "--dry-run", "--model", "llava-1.5-7b", "--json").json["tables"][0]
    assert {run["method"] for run in plan["runs"]} == {"unpruned", "random", "divprune"}
    assert {refused["reason"][: len(NO_TILES)] for refused in plan["not_run"]} >= {NO_TILES}


def test_folders_without_a_model(divprune: Command, tmp_path: Path, picture: Path) -> None:
    shutil.copy(picture, tmp_path)
    assert_refused(divprune, "is no checkpoint: it has no config.json", "bench", "--model", tmp_path)
