"""`--encoder` of `flops`, `bench` and `run`: what is encoded is shown, and what cannot work is told in one line."""

import re
from pathlib import Path

import pytest

from tests.support import checkpoint_writers
from tests.support.commands import Command

SHORT = ("--new-tokens", 2, "--repeats", 1, "--no-memory")
ENCODER = ("--encoder", "tome:r=16")
"""Of the embedded model's 256 patches 4 blocks merge 64 away."""


def test_flops_counts_both_encoders(divprune: Command) -> None:
    arguments = ("flops", "--model", "llava-1.5-7b", "--accounting", "exact", "--keep-ratio", 0.5)
    (row,) = divprune(*arguments, "--encoder", "tome:r=8", "--json").json["rows"]
    (whole,) = divprune(*arguments, "--json").json["rows"]
    assert (whole["encoder"], whole["num_encoded"], whole["num_kept"]) == (None, 576, 288)
    assert whole["pruned_encoder_tflop"] == whole["encoder_tflop"]
    assert (row["encoder"], row["num_visual_tokens"], row["num_encoded"], row["num_kept"]) == (
        "tome:r=8",
        576,
        392,
        196,
    )
    assert row["full_tflop"] == whole["full_tflop"]
    assert row["pruned_encoder_tflop"] < row["encoder_tflop"] == whole["encoder_tflop"]
    shown = divprune(*arguments, "--encoder", "tome:r=8").stdout
    assert "LLaVA-1.5-7B\tdivprune\t392 of 576\t0.5\t" in shown
    assert "encoded: visual tokens that tome:r=8 leaves to select from" in shown
    assert "encoded" not in divprune(*arguments[:3]).stdout


def test_flops_of_tiles_and_at_equal_cost(divprune: Command) -> None:
    tiles = ("flops", "--model", "llava-1.6-7b", "--image-size", "672x672", "--encoder", "tome:r=8", "--json")
    (row,) = divprune(*tiles, "--scope", "tile", "--num-keep", 64, "--newlines", "keep").json["rows"]
    assert (row["num_encoded"], row["num_kept"]) == (5 * 392 + 48, 5 * 64 + 48)
    found = []
    for encoder in ((), ("--encoder", "tome:r=8")):
        arguments = ("flops", "--model", "llava-1.5-7b", "--accounting", "exact", "--target-percent", 20, *encoder)
        found.append(divprune(*arguments, "--json").json["rows"][0]["num_keep"])
    assert found[0] < found[1]
    # The paper's own accounting has no encoder in it.
    names = [row["model"] for row in divprune("flops", "--encoder", "tome:r=8", "--json").json["rows"]]
    assert names == ["LLaVA-1.5-7B", "LLaVA-1.5-13B", "LLaVA-1.6-7B"]


def test_bench_measures_every_method_behind_it(divprune: Command) -> None:
    outcome = divprune("bench", *ENCODER, "--keep-ratio", 0.25, "--json", *SHORT)
    assert outcome.exit_code == 0, outcome.stderr
    rows = outcome.json["rows"]
    assert [(row["method"], row["num_encoded"], row["num_kept"]) for row in rows] == [
        ("unpruned", None, None),
        ("random", 192, 48),
        ("divprune", 192, 48),
    ]
    assert outcome.json["config"]["encoder"] == "tome:r=16"
    assert "encoding_median_seconds" not in rows[0]
    for row in rows[1:]:
        assert row["num_visual_tokens"] == 256
        assert 0 < row["encoding_p20_seconds"] <= row["encoding_median_seconds"] <= row["encoding_p80_seconds"]


def test_benchs_table_shows_what_is_encoded(divprune: Command) -> None:
    shown = divprune("bench", *ENCODER, "--num-keep", 25, *SHORT).stdout
    assert "\t25\t" in shown
    assert "unpruned\tall\t" in shown
    assert "kept: of 192 of 256 tokens that tome:r=16 leaves; unpruned is without it." in shown
    assert max(len(line) for line in shown.splitlines() if "\t" in line) <= 80


def test_run_shows_what_is_encoded(divprune: Command, llava: Path, picture: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    arguments = ("run", "--model", llava, "--image", picture, "--encoder", "tome:r=2", "--keep-ratio", 0.5)
    outcome = divprune(*arguments, "--repeats", 1, "--max-new-tokens", 4, "--report", page, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    (row,) = outcome.json["rows"]
    assert outcome.json["encoder"] == "tome:r=2"
    assert row["num_visual_tokens"] == 16
    assert row["num_encoded"] < 16
    assert row["num_kept"] == len(row["kept_indices"]) == round(0.5 * row["num_encoded"])
    assert all(0 <= index < 16 for index in row["kept_indices"])
    html = page.read_text(encoding="utf-8")
    assert f"16 → {row['num_encoded']} → {row['num_kept']}" in html
    assert "keep_ratio 0.5, encoder tome:r=2" in html
    assert f"{row['num_kept']} random" in html
    assert "encoded)" in divprune(*arguments, "--repeats", 1, "--max-new-tokens", 4).stdout


REFUSED = {
    "no such option": (("--encoder", "tom:r=8"), "encoder must be an option such as 'tome:r=8'.*did you mean 'tome'"),
    "no such parameter": (("--encoder", "tome:k=8"), "encoder option 'tome' has no parameter 'k'"),
    "no number": (("--encoder", "tome"), "needs a number of patches to merge in each block: tome:r=8"),
    "a small number": (("--encoder", "tome:r=0"), "r must be a whole number of patches, at least 1, got 0"),
    "a large number": (("--encoder", "tome:r=500"), "r must be smaller than 500"),
    "a method of the encoder": (
        ("--encoder", "tome:r=8", "--method", "visionzip"),
        "encoder must be None for method 'visionzip', got 'tome:r=8': the method reads",
    ),
    "a method inside": (
        ("--encoder", "tome:r=8", "--method", "fastv"),
        "encoder must be None for method 'fastv', got 'tome:r=8': the method drops tokens inside",
    ),
}


@pytest.mark.parametrize("command", ["run", "bench", "flops"])
@pytest.mark.parametrize("name", REFUSED)
def test_mistakes_are_told_in_one_line(
    divprune: Command, monkeypatch: pytest.MonkeyPatch, command: str, name: str
) -> None:
    monkeypatch.setattr("divprune.checkpoints.load_model", None)
    monkeypatch.setattr("divprune.efficiency.subject.load_model", None)
    arguments, message = REFUSED[name]
    outcome = divprune(command, *arguments)
    assert outcome.exit_code == 2, outcome.stderr
    assert outcome.stdout == ""
    assert re.search(message, outcome.error)


@pytest.mark.parametrize("command", ["run", "bench"])
def test_models_and_media_that_it_does_not_fit(divprune: Command, tmp_path: Path, clip: Path, command: str) -> None:
    video = checkpoint_writers.write_llava_next_video(tmp_path / "video")
    outcome = divprune(command, "--model", video, "--video", clip, "--encoder", "tome:r=1")
    assert outcome.exit_code == 2
    assert "encoder option 'tome' is for images, got a video" in outcome.error
    qwen = checkpoint_writers.write_qwen2_5_vl(tmp_path / "qwen")
    outcome = divprune(command, "--model", qwen, "--encoder", "tome:r=1")
    assert outcome.exit_code == 2
    assert "that of this 'qwen2_5_vl' model is another" in outcome.error
    outcome = divprune(command, "--encoder", "tome:r=1", "--config", tmp_path / "tuned.json")
    assert outcome.exit_code == 2
    assert "--config says how to prune; leave --encoder out" in outcome.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--encoder", "pixel-dedup"), "depends on the image, and sizes do not tell; `divprune bench` measures it"),
        (("--model", "llava-1.5-7b", "--visual-tokens", 100), "give --encoder or --visual-tokens, not both"),
        (("--model", "llava-next-video-7b"), "encoder option 'tome' is for images, got a video"),
        (("--model", "qwen3-vl-8b"), "encoder option 'tome' is counted for images in CLIP and SigLIP encoders"),
        (("--model", "llava-1.5-7b", "--target-percent", 95), "(all 392)"),
    ],
)
def test_flops_says_what_sizes_do_not_tell(divprune: Command, arguments: tuple[object, ...], message: str) -> None:
    outcome = divprune("flops", "--encoder", "tome:r=8", *arguments)
    assert outcome.exit_code == 2
    assert message in outcome.error


def test_a_config_of_tiles_needs_the_size_of_the_image(divprune: Command, tmp_path: Path) -> None:
    from divprune.efficiency.reference_models import architecture_config

    architecture_config("llava-1.6-7b").save_pretrained(tmp_path)
    outcome = divprune("flops", "--model", tmp_path, "--encoder", "tome:r=8")
    assert outcome.exit_code == 2
    assert "--image-size is needed with --encoder" in outcome.error
    sized = ("flops", "--model", tmp_path, "--image-size", "672x672", "--encoder", "tome:r=8", "--json")
    assert divprune(*sized).json["rows"][0]["num_encoded"] == 5 * 392 + 48
