"""The bundled model: small, loads like any checkpoint, answers, and its card repeats the measured numbers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from divprune.embedded import checkpoint_path, num_parameters, questions, scene
from divprune.evaluation.scenes import notice
from divprune.records import load_record
from tools.embedded.evaluate import accuracies, answer_batch, answer_scenes

MEASURED = json.loads((checkpoint_path() / "accuracy.json").read_text())


@pytest.fixture(scope="module")
def loaded() -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    folder = checkpoint_path()
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def test_checkpoint_is_small() -> None:
    assert sum(file.stat().st_size for file in checkpoint_path().iterdir()) <= 12_000_000


def test_the_number_of_parameters_comes_from_the_weights(
    loaded: tuple[LlavaForConditionalGeneration, LlavaProcessor],
) -> None:
    total = loaded[0].num_parameters()
    assert num_parameters() == total
    assert f" {total / 1e6:.1f} M parameters" in notice()
    assert f" {total / 1e6:.1f} million parameters" in (checkpoint_path() / "README.md").read_text(encoding="utf-8")
    for record in ("eval-scenes", "greedy", "samples"):
        assert load_record(Path("results") / f"{record}.json").config["notice"] == notice()


def test_checkpoint_loads_as_llava(loaded: tuple[LlavaForConditionalGeneration, LlavaProcessor]) -> None:
    model, processor = loaded
    assert isinstance(model, LlavaForConditionalGeneration)
    assert isinstance(processor, LlavaProcessor)
    assert model.dtype == torch.float32
    assert model.config.vision_feature_layer == -2
    assert processor.num_additional_image_tokens == 1


@pytest.mark.slow
def test_checkpoint_answers_test_scenes(loaded: tuple[LlavaForConditionalGeneration, LlavaProcessor]) -> None:
    kinds = ("existence", "count", "color", "shape", "position")
    answered = list(answer_scenes(*loaded, [scene(seed) for seed in range(24)], kinds, batch_size=36))
    right = sum(one.is_right for one in answered) / len(answered)
    assert right > 0.85, accuracies(answered)


def test_padding_does_not_change_answers(loaded: tuple[LlavaForConditionalGeneration, LlavaProcessor]) -> None:
    asked = [(scene(seed), questions(scene(seed))[place]) for seed, place in ((0, 0), (1, 2), (2, -1))]
    together = answer_batch(*loaded, asked)
    alone = [answer_batch(*loaded, [one])[0] for one in asked]
    assert [one.said for one in together] == [one.said for one in alone]


def test_measured_accuracies_reach_the_targets() -> None:
    assert MEASURED["num_scenes"] >= 500
    for kind, least in {"existence": 0.95, "color": 0.95, "shape": 0.95, "position": 0.95, "count": 0.90}.items():
        assert MEASURED["kinds"][kind]["accuracy"] >= least, kind


def test_card_repeats_the_measured_numbers() -> None:
    card = (checkpoint_path() / "README.md").read_text()
    for kind, result in MEASURED["kinds"].items():
        assert f"| {kind} | {100 * result['accuracy']:.1f} % | {result['num_questions']} |" in card


def test_importing_the_package_loads_no_deep_learning_library() -> None:
    code = "import sys, divprune.embedded; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
