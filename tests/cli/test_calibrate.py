"""`divprune calibrate`: what it writes is what the other commands read, and mistakes are one line."""

from pathlib import Path
from typing import Any

import pytest

from divprune.calibration import FitPruneCalibration, VTWCalibration
from tests.support.commands import Command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibrations")


@pytest.mark.slow
def test_a_recipe_of_the_embedded_model_is_used_by_every_command(divprune: Command, folder: Path) -> None:
    path = folder / "recipe.json"
    outcome = divprune("calibrate", "fitprune", "--samples", 3, "--target-percent", 45, "--output", path, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    method = f"fitprune:recipe={path}"
    result = outcome.json
    assert (result["model"], result["method"], result["output"]) == ("embedded", method, str(path))
    found = FitPruneCalibration.load(path)
    assert result["calibration"]["flop_ratio"] == found.flop_ratio == pytest.approx(0.45, abs=0.005)
    assert (found.num_samples, found.recipe.num_visual_tokens) == (3, 256)
    assert [each.name for each in folder.iterdir()] == ["recipe.json"]

    run = divprune("run", "--method", method, "--prompt", "How many shapes are there?", "--repeats", 1, "--json")
    assert run.exit_code == 0, run.stderr
    left = 256 - sum(found.recipe.drops)
    assert {row["num_kept"] for row in run.json["rows"]} == {left}
    bench = divprune("bench", "--method", method, "--repeats", 1, "--new-tokens", 2, "--no-memory", "--json")
    assert bench.exit_code == 0, bench.stderr
    assert bench.json["rows"][-1]["num_kept"] == left
    costs = divprune("flops", "--model", "llava-1.5-7b", "--method", method, "--json")
    assert 5 < costs.json["rows"][0]["ratio_percent"] < 60
    assert "note: fitprune was calibrated on llava, 4 layers of 192" in costs.stderr
    answers = divprune("eval", "--methods", method, "--limit", 1, "--output", folder / "eval", "--json")
    assert answers.exit_code == 0, answers.stderr
    assert answers.json["rows"][-1]["num_kept"] == left


def test_pictures_of_ones_own(divprune: Command, folder: Path, llava: Path, picture: Path, tmp_path: Path) -> None:
    album = tmp_path / "album"
    album.mkdir()
    for name in ("one.png", "two.png"):
        (album / name).write_bytes(picture.read_bytes())
    (album / "notes.txt").write_text("no picture")
    path = tmp_path / "recipe.json"
    arguments = ("--model", llava, "--image", album, "--prompt", "What?", "--prompt", "Where is it?")
    outcome = divprune("calibrate", "fitprune", *arguments, "--target-percent", 80, "--output", path)
    assert outcome.exit_code == 0, outcome.stderr
    assert f"--method fitprune:recipe={path}".replace(" ", "") in "".join(outcome.stdout.split())
    found = FitPruneCalibration.load(path)
    assert (found.num_samples, found.recipe.num_visual_tokens) == (4, 16)
    # The embedded model is another one.
    other = divprune("run", "--method", f"fitprune:recipe={path}")
    assert other.exit_code == 2
    assert "calibration must be of this model, expected llava, 4 layers" in other.error
    assert "calibrate 'fitprune' again, on this model" in other.error


def test_the_layer_of_vtw(divprune: Command, tmp_path: Path) -> None:
    path = tmp_path / "vtw.json"
    arguments = ("--samples", 2, "--threshold", 100, "--output", path, "--json")
    outcome = divprune("calibrate", "vtw", *arguments)
    assert outcome.exit_code == 0, outcome.stderr
    found = VTWCalibration.load(path)
    assert outcome.json["method"] == f"vtw:layer={found.layer}" == "vtw:layer=1"
    assert outcome.json["calibration"]["divergences"] == {"1": found.divergences[1]}
    later = divprune("calibrate", "vtw", "--first-layer", 2, *arguments)
    assert later.json["method"] == "vtw:layer=2"
    none = divprune("calibrate", "vtw", "--samples", 2, "--threshold", 1e-9, "--output", path)
    assert none.exit_code == 2
    assert "no layer from 1 to 3 meets threshold 1e-09" in none.error
    assert VTWCalibration.load(path).layer == 2


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("fitprune", ["--target-percent", 0], "--target-percent must be in (0, 100), got 0"),
        ("fitprune", ["--target-percent", 100], "--target-percent must be in (0, 100), got 100"),
        ("fitprune", ["--target-percent", 5], "the FLOP target must lie between"),
        ("fitprune", ["--image", "nowhere.png"], "no such image: nowhere.png"),
        ("fitprune", ["--model", "somewhere"], "--image is needed with --model"),
        ("fitprune", ["--output", "no/such/file.json"], "--output no/such/file.json: there is no directory no/such"),
        ("fitprune", ["--output", "."], "--output . is a directory; name another place, such as calibration.json"),
        ("vtw", ["--threshold", 0], "threshold must be above 0, got 0"),
        ("vtw", ["--first-layer", 9], "first_layer must be between 1 and 3 for this model, got 9"),
    ],
)
def test_what_cannot_work_is_one_line(
    divprune: Command, tmp_path: Path, command: str, arguments: list[Any], message: str
) -> None:
    outcome = divprune("calibrate", command, "--samples", 1, "--output", tmp_path / "file.json", *arguments)
    assert outcome.exit_code == 2
    assert message in outcome.error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_pictures(divprune: Command, tmp_path: Path) -> None:
    outcome = divprune("calibrate", "vtw", "--image", tmp_path, "--output", tmp_path / "file.json")
    assert "there are no images in this folder" in outcome.error


@pytest.mark.parametrize(("command", "option"), [("run", "--method"), ("bench", "--method"), ("flops", "--method")])
def test_without_a_recipe_the_remedy_is_told(divprune: Command, command: str, option: str) -> None:
    outcome = divprune(command, option, "fitprune")
    assert outcome.exit_code == 2
    assert "run `divprune calibrate fitprune" in outcome.error


def test_a_file_that_is_no_calibration(divprune: Command, tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"format": ')
    outcome = divprune("run", "--method", f"fitprune:recipe={tmp_path / 'half.json'}")
    assert outcome.exit_code == 2
    assert "must be a FitPrune calibration that divprune saved" in outcome.error
