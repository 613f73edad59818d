"""The suite of videos: what it compares, batches like single questions, and its own baselines."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune import prune
from divprune.efficiency.shapes import model_shape
from divprune.efficiency.workloads import Workload
from divprune.embedded import VIDEO_KINDS, checkpoint_path, generated_video, video_questions
from divprune.errors import ArgumentError
from divprune.evaluation.scenes import SceneOptions, run_scenes
from divprune.evaluation.scenes.baselines import BLIND_VIDEO, UNPRUNED, FirstFrames
from divprune.evaluation.scenes.bench import VIDEO_BENCH
from divprune.evaluation.scenes.cases import Case, default_methods, suite_cases
from divprune.evaluation.scenes.questions import batches
from divprune.evaluation.scenes.suite import Suite
from divprune.methods import ItemContext, available_methods

NUM_VIDEOS = 3


@pytest.fixture(scope="module")
def embedded() -> tuple[Any, Any]:
    folder: Path = checkpoint_path("embedded-video")
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def plan(embedded: tuple[Any, Any], names: list[str], *arguments: Any) -> list[Case]:
    return suite_cases(names, model_shape(embedded[0].config), Workload(12, 512), *arguments, bench=VIDEO_BENCH)


def test_videos_are_answered_under_methods_for_videos_and_baselines(embedded: tuple[Any, Any]) -> None:
    names = default_methods(VIDEO_BENCH)
    assert names[:5] == ["divprune", "random", "uniform", "divprune-per-frame", "first-frames"]
    for_videos = {info.name for info in available_methods() if info.modalities == ("video",)}
    assert "evs" in for_videos
    assert {name.partition(":")[0] for name in names[5:]} == for_videos
    cases = plan(embedded, names, None, ["tokens"])
    assert [case.name for case in cases[:2]] == [UNPRUNED, BLIND_VIDEO]
    # 0.25, 0.1 and 0.05 of 512 tokens.
    assert [case.num_keep for case in cases if case.name == "evs"] == [128, 51, 26]
    # The same for each of 8 frames, rounded down.
    per_frame = [case for case in cases if case.name == "divprune-per-frame"]
    assert [(case.num_keep, case.scope) for case in per_frame] == [(16, "frame"), (6, "frame"), (3, "frame")]
    assert len({case.key for case in cases}) == len(cases)


def test_a_frame_is_as_dear_as_its_tokens(embedded: tuple[Any, Any]) -> None:
    by_frame, whole = plan(embedded, ["divprune-per-frame", "uniform"], [0.25], ["tokens"])[2:]
    assert by_frame.flop_percent == whole.flop_percent


def test_first_frames_keeps_the_first_tokens() -> None:
    picks = FirstFrames().select(torch.zeros(12, 4), 5, ItemContext("video", grid=(3, 2, 2)))
    assert picks.tolist() == [0, 1, 2, 3, 4]


def alone(embedded: tuple[Any, Any], case: Case) -> list[str]:
    """Every question by itself: the processor's own inputs, the video encoded each time."""
    model, processor = embedded
    found = []
    for seed in range(NUM_VIDEOS):
        video = generated_video(seed)
        for question in video_questions(video):
            content = [{"type": "video"}] if case.name != BLIND_VIDEO else []
            message = {"role": "user", "content": [*content, {"type": "text", "text": question.prompt}]}
            text = processor.apply_chat_template([message], add_generation_prompt=True)
            inputs = processor(videos=[list(video.frames)] if content else None, text=text, return_tensors="pt")
            output = generate(model, inputs, case)[0, inputs["input_ids"].shape[1] :]
            found.append(processor.decode(output, skip_special_tokens=True).strip())
    return found


def generate(model: Any, inputs: Any, case: Case) -> torch.Tensor:
    if case.method is None:
        return model.generate(**inputs, do_sample=False, max_new_tokens=6)
    with prune(model, case.method, num_keep=case.num_keep, scope=case.scope):
        return model.generate(**inputs, do_sample=False, max_new_tokens=6)


def test_batches_with_shared_encodings_answer_like_single_questions(embedded: tuple[Any, Any]) -> None:
    names = ["divprune", "evs", "uniform", "divprune-per-frame", "first-frames"]
    cases = plan(embedded, names, [0.1], ["tokens"])
    suite = Suite(*embedded, NUM_VIDEOS, bench=VIDEO_BENCH)
    rows = suite.run(cases)
    for case, row in zip(cases, rows, strict=True):
        assert row["refusal"] is None
        assert [one.prediction for one in suite.answered(case)] == alone(embedded, case)
        assert row.keys() >= {f"{kind}_percent" for kind in VIDEO_KINDS}
        assert "caption_cider" not in row
    assert [row["num_kept"] for row in rows] == [512, 0, 51, 51, 51, 48, 51]


def test_methods_that_read_the_encoder_get_pixels(embedded: tuple[Any, Any]) -> None:
    (case,) = plan(embedded, ["visionzip"], [0.1], ["tokens"])[2:]
    suite = Suite(*embedded, 1, bench=VIDEO_BENCH)
    (row,) = suite.run([case])
    assert row["refusal"] is None
    assert row["num_kept"] == 51


def test_the_model_is_as_before_where_its_encoder_was_skipped(embedded: tuple[Any, Any]) -> None:
    (batch,) = batches(*embedded, [generated_video(0)], VIDEO_BENCH)
    assert batch.generate("placed") == batch.generate("tokens") == batch.generate("pixels")
    assert "get_video_features" not in vars(embedded[0].base_model)


def test_an_unknown_suite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="`suite` must be one of scenes, scenes-video, got 'scenes-audio'"):
        run_scenes(SceneOptions(suite="scenes-audio", output=tmp_path))


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (("globalcom2",), "'globalcom2' .* video"),
        (("downsampling", "globalcom2"), "video"),
        (("fitprune",), "recipe must be given"),
    ],
)
def test_what_cannot_run_on_videos_is_refused_before_anything_runs(
    methods: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=message):
        run_scenes(SceneOptions(suite="scenes-video", methods=methods, output=tmp_path))
    assert not list(tmp_path.iterdir())
