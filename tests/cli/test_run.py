"""`divprune run` on checkpoints in the real on-disk layouts."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from tests.support import checkpoint_writers
from tests.support.commands import Command

ROW_KEYS = [
    "images",
    "prompt",
    "answer_unpruned",
    "answer",
    "answer_random",
    "num_visual_tokens",
    "num_encoded",
    "num_kept",
    "kept_indices",
    "max_min_distance",
    "prefill_seconds_unpruned",
    "prefill_seconds",
    "selection_seconds",
]
SHORT = ("--max-new-tokens", 4, "--repeats", 1)


def test_json_is_the_only_thing_on_standard_output(divprune: Command, llava: Path, picture: Path) -> None:
    outcome = divprune("run", "--model", llava, "--image", picture, "--num-keep", 5, "--json", *SHORT)
    assert outcome.exit_code == 0
    assert len(outcome.stdout.splitlines()) == 1
    assert "question" in outcome.stderr  # the table
    assert list(outcome.json) == ["model", "method", "keep_ratio", "encoder", "rows"]
    assert outcome.json["model"] == str(llava)
    assert outcome.json["method"] == "divprune"
    assert outcome.json["keep_ratio"] is None
    assert outcome.json["encoder"] is None


def test_row_reports_answers_counts_and_times(divprune: Command, llava: Path, picture: Path) -> None:
    arguments = ("--prompt", "What is this?", "--keep-ratio", 0.25, "--json", *SHORT)
    outcome = divprune("run", "--model", llava, "--image", picture, *arguments)
    (row,) = outcome.json["rows"]
    assert outcome.json["keep_ratio"] == 0.25
    assert list(row) == ROW_KEYS
    assert row["images"] == [str(picture)]
    assert row["prompt"] == "What is this?"
    assert (row["num_visual_tokens"], row["num_encoded"], row["num_kept"]) == (16, 16, 4)
    assert row["kept_indices"] == sorted(set(row["kept_indices"]))
    assert len(row["kept_indices"]) == 4
    assert set(row["kept_indices"]) <= set(range(16))
    assert 0 < row["max_min_distance"] < 2
    assert 0 < row["selection_seconds"] < row["prefill_seconds"]
    assert row["prefill_seconds_unpruned"] > 0


def test_answers_are_those_of_the_library(divprune: Command, llava: Path, picture: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from divprune import prune

    processor = AutoProcessor.from_pretrained(llava)
    model = AutoModelForImageTextToText.from_pretrained(llava)
    text = "USER: <image> What is this? ASSISTANT:"
    inputs = processor(text=[text], images=[Image.open(picture)], return_tensors="pt")

    def answer() -> str:
        new = model.generate(**inputs, max_new_tokens=4, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        return processor.batch_decode(new, skip_special_tokens=True)[0]

    outcome = divprune(
        "run", "--model", llava, "--image", picture, "--prompt", "What is this?", "--num-keep", 3, "--json", *SHORT
    )
    (row,) = outcome.json["rows"]
    assert row["answer_unpruned"] == answer()
    with prune(model, num_keep=3) as pruning:
        assert row["answer"] == answer()
    assert row["kept_indices"] == pruning.last.items[0].kept_indices.tolist()


def test_without_comparison_the_unpruned_fields_are_null(divprune: Command, llava: Path, picture: Path) -> None:
    outcome = divprune("run", "--model", llava, "--image", picture, "--no-compare", "--json", *SHORT)
    (row,) = outcome.json["rows"]
    assert row["answer_unpruned"] is None
    assert row["prefill_seconds_unpruned"] is None
    assert row["num_kept"] == 2  # the default share, 0.098 of 16


def test_single_kept_token_has_no_distance(divprune: Command, llava: Path, picture: Path) -> None:
    outcome = divprune("run", "--model", llava, "--image", picture, "--num-keep", 1, "--json", *SHORT)
    assert outcome.json["rows"][0]["max_min_distance"] is None


def test_several_pictures_share_one_prompt(divprune: Command, llava: Path, picture: Path) -> None:
    arguments = ("--image", picture, "--image", picture, "--num-keep", 4, "--json", *SHORT)
    (row,) = divprune("run", "--model", llava, *arguments).json["rows"]
    assert row["images"] == [str(picture), str(picture)]
    assert (row["num_visual_tokens"], row["num_kept"]) == (32, 8)
    first, second = row["kept_indices"][:4], row["kept_indices"][4:]
    assert second == [16 + index for index in first]  # the same picture twice


def test_every_prompt_is_a_row(divprune: Command, llava: Path, picture: Path) -> None:
    prompts = ("--prompt", "word1", "--prompt", "word2")
    rows = divprune("run", "--model", llava, "--image", picture, *prompts, "--json", *SHORT).json["rows"]
    assert [row["prompt"] for row in rows] == ["word1", "word2"]
    assert rows[0]["kept_indices"] == rows[1]["kept_indices"]


def test_other_methods_and_their_parameters(divprune: Command, llava: Path, picture: Path) -> None:
    def kept(method: str) -> list[int]:
        arguments = ("--method", method, "--num-keep", 4, "--no-compare", "--json", *SHORT)
        return divprune("run", "--model", llava, "--image", picture, *arguments).json["rows"][0]["kept_indices"]

    assert kept("random:seed=1") == kept("random:seed=1") != kept("random:seed=2")


def test_a_method_with_its_own_counts_needs_no_budget(divprune: Command, llava: Path, picture: Path) -> None:
    outcome = divprune("run", "--model", llava, "--image", picture, "--method", "vtw:layer=1", "--json")
    assert outcome.json["keep_ratio"] is None
    assert outcome.json["rows"][0]["num_kept"] == 0
    assert outcome.json["rows"][0]["kept_indices"] == []


@pytest.mark.usefixtures("terminal")
def test_table_fits_eighty_columns(divprune: Command, llava: Path, picture: Path) -> None:
    prompt = "Is there anything in this picture that would surprise somebody who has never seen a cat? " * 2
    outcome = divprune("run", "--model", llava, "--image", picture, "--prompt", prompt, *SHORT)
    assert max(map(len, outcome.stdout.splitlines())) <= 80
    for word in ("tokens", "prefill", "selection", "answer", "16", "2", "ms"):
        assert word in outcome.stdout


def test_prompts_and_names_are_shown_as_they_are(divprune: Command, llava: Path, picture: Path) -> None:
    prompt = "[red]this?[/red] :smile: \x1b[31m"
    outcome = divprune("run", "--model", llava, "--image", picture, "--prompt", prompt, *SHORT)
    assert "[red]this?[/red]" in outcome.stdout
    assert ":smile:" in outcome.stdout
    assert "\x1b" not in outcome.stdout


def test_real_llava_layout_on_a_photograph(divprune: Command, checkpoints: Path, picture: Path) -> None:
    model = checkpoint_writers.write_llava(checkpoints / "llava-1.5", image_size=336, dtype="float16")
    report = checkpoints / "report.html"
    arguments = ("--image", picture, "--num-keep", 56, "--report", report, "--json", *SHORT)
    outcome = divprune("run", "--model", model, *arguments)
    (row,) = outcome.json["rows"]
    assert (row["num_visual_tokens"], row["num_kept"]) == (576, 56)
    assert len(row["kept_indices"]) == 56
    assert report.read_text().count('class="kept"') == 56


@pytest.mark.parametrize("family", ["llava_next_video", "qwen2_5_vl"])
def test_clips(divprune: Command, checkpoints: Path, clip: Path, family: str) -> None:
    pytest.importorskip("torchvision")
    model = getattr(checkpoint_writers, f"write_{family}")(checkpoints / family)
    arguments = ("--video", clip, "--num-frames", 4, "--keep-ratio", 0.5, "--json", *SHORT)
    outcome = divprune("run", "--model", model, *arguments)
    assert outcome.exit_code == 0, outcome.stderr
    (row,) = outcome.json["rows"]
    assert row["images"] == [str(clip)]
    assert row["num_kept"] == round(0.5 * row["num_visual_tokens"])


def test_a_method_reads_a_clip_checkpoint(divprune: Command, checkpoints: Path, llava: Path, picture: Path) -> None:
    clip = checkpoint_writers.write_clip(checkpoints / "whole-clip")
    model = checkpoint_writers.write_llava_with_tower(checkpoints / "clip-llava", clip)
    arguments = ("--image", picture, "--method", f"cdpruner:clip={clip}", "--num-keep", 5, "--json", *SHORT)
    outcome = divprune("run", "--model", model, *arguments)
    assert outcome.exit_code == 0, outcome.stderr
    assert outcome.json["rows"][0]["num_kept"] == 5
    outcome = divprune("run", "--model", llava, *arguments)
    assert outcome.exit_code == 2
    assert "clip must be the checkpoint whose vision tower the model has" in outcome.stderr


def test_tiles_and_newlines(divprune: Command, checkpoints: Path, clip: Path, picture: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    model = checkpoint_writers.write_llava_next_video(checkpoints / "tiles")
    arguments = ("--model", model, "--num-keep", 2, "--scope", "tile", "--json", *SHORT)
    # 451 x 300 on 2 x 2 tiles of 4 x 4 patches: 6 of 8 rows are left, each with a newline token.
    for newlines, num_kept in (("budget", 5 * 2), ("keep", 5 * 2 + 6)):
        page = tmp_path / f"{newlines}.html"
        outcome = divprune("run", "--image", picture, "--newlines", newlines, "--report", page, *arguments)
        assert outcome.exit_code == 0, outcome.stderr
        (row,) = outcome.json["rows"]
        assert (row["num_visual_tokens"], row["num_kept"]) == (16 + 6 * 9, num_kept)
        assert "num_keep 2, scope tile" in page.read_text(encoding="utf-8")
    outcome = divprune("run", "--video", clip, *arguments)
    assert outcome.exit_code == 2
    assert "for a video, got 'tile'" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--scope", "tile"), "scope must be 'item', 'frame' or 'sample' for 'llava', got 'tile'"),
        (("--newlines", "keep"), "newlines must be 'budget' for 'llava', got 'keep'"),
    ],
)
@pytest.mark.parametrize("name", ["run", pytest.param("bench", marks=pytest.mark.slow)])
def test_a_model_without_tiles_has_none(
    divprune: Command, llava: Path, picture: Path, name: str, arguments: tuple[str, ...], reason: str
) -> None:
    outcome = divprune(name, "--model", llava, "--image", picture, "--repeats", 1, *arguments)
    assert outcome.exit_code == 2
    assert reason in outcome.stderr


def test_picture_and_clip_in_one_prompt(divprune: Command, checkpoints: Path, clip: Path, picture: Path) -> None:
    pytest.importorskip("torchvision")
    model = checkpoint_writers.write_qwen2_5_vl(checkpoints / "both")
    arguments = ("--image", picture, "--video", clip, "--num-frames", 4, "--json", *SHORT)
    outcome = divprune("run", "--model", model, *arguments)
    assert outcome.exit_code == 0, outcome.stderr
    assert outcome.json["rows"][0]["images"] == [str(picture), str(clip)]


def test_model_without_chat_template_gets_placeholders_and_says_so(
    divprune: Command, checkpoints: Path, picture: Path
) -> None:
    model = checkpoint_writers.write_llava(checkpoints / "plain", chat_template=False)
    outcome = divprune("run", "--model", model, "--image", picture, "--json", *SHORT)
    assert outcome.exit_code == 0
    assert "has no chat template" in outcome.stderr
    assert outcome.json["rows"][0]["num_visual_tokens"] == 16


def test_grey_picture_and_long_name(divprune: Command, llava: Path, tmp_path: Path) -> None:
    path = tmp_path / f"{'very-' * 30}long.png"
    Image.fromarray(data.camera()).save(path)
    outcome = divprune("run", "--model", llava, "--image", path, "--json", *SHORT)
    assert outcome.exit_code == 0
    assert outcome.json["rows"][0]["images"] == [str(path)]


def test_picture_of_one_pixel(divprune: Command, llava: Path, tmp_path: Path) -> None:
    path = tmp_path / "dot.png"
    Image.fromarray(np.zeros((1, 1, 3), dtype=np.uint8)).save(path)
    assert divprune("run", "--model", llava, "--image", path, "--json", *SHORT).exit_code == 0


def test_json_has_no_rounding(divprune: Command, llava: Path, picture: Path) -> None:
    outcome = divprune("run", "--model", llava, "--image", picture, "--json", *SHORT)
    line = outcome.stdout.splitlines()[-1]
    assert json.dumps(json.loads(line)) == line
