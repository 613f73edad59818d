"""`divprune flops`: the paper's rows, any config, and refusals in one line."""

from pathlib import Path

import pytest

from divprune.efficiency.reference_models import architecture_config
from divprune.embedded import checkpoint_path
from tests.support.commands import Command


def test_papers_rows_without_a_model(divprune: Command) -> None:
    rows = divprune("flops", "--json").json["rows"]
    table = {row["model"]: (round(row["full_tflop"], 3), round(row["pruned_tflop"], 3)) for row in rows}
    assert table == {
        "LLaVA-1.5-7B": (3.228, 0.512),
        "LLaVA-1.5-13B": (6.281, 1.002),
        "LLaVA-1.6-7B": (11.849, 1.266),
        "LLaVA-NeXT-Video-7B": (6.539, 0.937),
    }
    assert [round(row["ratio_percent"], 2) for row in rows] == [15.63, 15.71, 10.80, 14.10]
    shown = divprune("flops").stdout
    assert "3.228" in shown
    assert max(len(line) for line in shown.splitlines()) <= 105


def test_one_model_by_name(divprune: Command) -> None:
    (row,) = divprune("flops", "--model", "LLaVA-1.5-7B", "--text-tokens", 48, "--accounting", "exact", "--json").json[
        "rows"
    ]
    parts = row["encoder_tflop"] + row["selection_tflop"]
    assert round(row["full_tflop"] - row["encoder_tflop"], 3) == 8.286
    assert round(row["pruned_tflop"] - parts, 3) == 1.353
    assert row["keep_ratio"] == 0.098


def test_config_file_and_directory(divprune: Command, tmp_path: Path) -> None:
    architecture_config("llava-1.5-7b").save_pretrained(tmp_path)
    named = divprune("flops", "--model", "llava-1.5-7b", "--json").json["rows"][0]
    for path in (tmp_path, tmp_path / "config.json"):
        row = divprune("flops", "--model", path, "--json").json["rows"][0]
        assert row["ratio_percent"] == named["ratio_percent"]
    (embedded,) = divprune("flops", "--model", checkpoint_path(), "--json").json["rows"]
    assert 0 < embedded["ratio_percent"] < 100


def test_config_of_any_language_model_needs_the_visual_tokens(divprune: Command, tmp_path: Path) -> None:
    architecture_config("llava-1.6-7b").save_pretrained(tmp_path)
    assert "--visual-tokens is needed" in divprune("flops", "--model", tmp_path).error
    (row,) = divprune("flops", "--model", tmp_path, "--visual-tokens", 100, "--num-keep", 10, "--json").json["rows"]
    assert row["num_keep"] == 10


def test_layer_and_schedule(divprune: Command) -> None:
    def percent(*arguments: object) -> float:
        return divprune("flops", "--model", "llava-1.5-7b", "--json", *arguments).json["rows"][0]["ratio_percent"]

    assert percent("--layer", 2) > percent("--layer", 1) > percent()
    assert round(percent("--method", "vtw:layer=4"), 2) == 18.46
    assert percent("--method", "vtw", "--layer", 4) == percent("--method", "vtw:layer=4")
    assert round(percent("--method", "fastv:layer=3", "--num-keep", 1), 2) == 15.69


@pytest.mark.parametrize("options", [("vtw", 270.0), ("vtw:layer=8", 144.0), ("sparsevlm", 206.5)])
def test_a_schedule_shows_the_mean_tokens_of_a_layer(divprune: Command, options: tuple[str, float]) -> None:
    method, tokens = options
    arguments = ("flops", "--model", "llava-1.5-7b", "--method", method)
    (row,) = divprune(*arguments, "--json").json["rows"]
    assert round(row["tokens_per_layer"], 1) == tokens
    outcome = divprune(*arguments).stdout
    assert f"\t{tokens} a layer\t" in outcome
    assert "has a schedule of its own" in outcome
    (row,) = divprune("flops", "--model", "llava-1.5-7b", "--num-keep", 56, "--json").json["rows"]
    assert row["tokens_per_layer"] == 56


def test_count_at_equal_flops(divprune: Command) -> None:
    arguments = ("flops", "--model", "llava-1.5-7b", "--target-percent", 15.63, "--json")
    assert divprune(*arguments).json["rows"][0]["num_keep"] == 56
    assert divprune(*arguments, "--layer", 1).json["rows"][0]["num_keep"] == 39


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target-percent", 1), "the FLOP target must lie between"),
        (("--target-percent", 101), "--target-percent must be in (0, 100], got 101"),
        (("--target-percent", 20, "--num-keep", 3), "give one of --keep-ratio, --num-keep and --target-percent"),
        (("--method", "vtw", "--num-keep", 3), "--keep-ratio and --num-keep must be left out with 'vtw'"),
        (("--method", "random", "--layer", 3), "--layer: method 'random' acts before the LLM only"),
        (("--layer", 99), "layer must be below the model's 32 decoder layers, got 99"),
        (("--method", "divprun"), "did you mean 'divprune'?"),
        (("--model", "llava-9"), "--model llava-9 is neither one of llava-1.5-7b"),
        (("--keep-ratio", 1.5), "keep_ratio must be in (0, 1], got 1.5"),
    ],
)
def test_mistakes_are_told_in_one_line(divprune: Command, arguments: tuple[object, ...], message: str) -> None:
    outcome = divprune("flops", *arguments)
    assert outcome.exit_code == 2
    assert message in outcome.error


def test_damaged_config(divprune: Command, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    assert "cannot read the config" in divprune("flops", "--model", tmp_path).error


@pytest.mark.parametrize(
    ("arguments", "total", "kept"),
    [
        # Five tiles of 24 x 24 tokens, and 48 rows that end in a newline token.
        (("--scope", "tile", "--num-keep", 128), 2928, 640),
        (("--scope", "tile", "--num-keep", 64), 2928, 320),
        (("--scope", "tile", "--num-keep", 32, "--newlines", "keep"), 2928, 160 + 48),
        (("--scope", "tile", "--keep-ratio", 0.25, "--newlines", "rows"), 2928, 720 + 48),
        (("--num-keep", 5000), 2928, 2928),
    ],
)
def test_tiles_and_newline_tokens(divprune: Command, arguments: tuple[object, ...], total: int, kept: int) -> None:
    shared = ("flops", "--model", "llava-1.6-7b", "--image-size", "672x672", "--json")
    (row,) = divprune(*shared, *arguments).json["rows"]
    assert (row["num_visual_tokens"], row["num_kept"], row["tokens_per_layer"]) == (total, kept, kept)


def test_the_size_of_an_image_tells_its_tiles(divprune: Command) -> None:
    # 640 x 480 is scaled to 672 x 504: 36 rows of 48 and a newline token. A strip becomes three tiles in a row.
    for size, total, passes in (("640x480", 576 + 36 * 49, 5), ("1008x336", 576 + 24 * 73, 4)):
        arguments = ("flops", "--model", "llava-1.6-7b", "--image-size", size, "--accounting", "exact", "--json")
        (row,) = divprune(*arguments).json["rows"]
        assert row["num_visual_tokens"] == total
        (whole,) = divprune("flops", "--model", "llava-1.5-7b", "--accounting", "exact", "--json").json["rows"]
        assert row["encoder_tflop"] == pytest.approx(passes * whole["encoder_tflop"])


def test_frames_keep_numbers_of_their_own(divprune: Command) -> None:
    arguments = ("flops", "--model", "llava-next-video-7b", "--scope", "frame", "--num-keep", 14, "--json")
    assert divprune(*arguments).json["rows"][0]["num_kept"] == 8 * 14


def test_only_models_that_a_setting_fits_are_listed(divprune: Command) -> None:
    for arguments, models in ((("--method", "evs"), ["LLaVA-NeXT-Video-7B"]), (("--scope", "tile"), ["LLaVA-1.6-7B"])):
        rows = divprune("flops", *arguments, "--json").json["rows"]
        assert [row["model"] for row in rows] == models
