"""`divprune eval --suite scenes` on a few scenes: its table, its record, and refusals in one line."""

from pathlib import Path

import pytest

from divprune.records import load_record
from tests.support.commands import Command

FEW = ("--limit", 3, "--keep-ratio", 0.1, "--equal", "tokens")


def test_rows_and_record_say_the_same(divprune: Command, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    outcome = divprune("eval", "--suite", "scenes", "--methods", "divprune vtw", *FEW, "--output", folder, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    assert len(outcome.stdout.splitlines()) == 1
    rows = outcome.json["rows"]
    assert [row["method"] for row in rows] == ["unpruned", "picture withheld", "divprune", "vtw"]
    assert [row["num_kept"] for row in rows] == [256, 0, 26, None]
    assert "below the model's 4 decoder layers, got 15" in rows[3]["refusal"]
    assert rows[0]["mean_percent"] > rows[1]["mean_percent"]
    assert rows[2]["mean_low_percent"] <= rows[2]["mean_percent"] <= rows[2]["mean_high_percent"]
    record = load_record(folder / "eval-scenes.json")
    assert record.rows == rows
    assert "toy scenes" in record.config["notice"]
    # The answers are in the record; nothing else stays.
    assert [path.name for path in folder.iterdir()] == ["eval-scenes.json"]


def test_the_table_fits_and_says_what_it_is(terminal: None, divprune: Command, tmp_path: Path) -> None:
    outcome = divprune("eval", "--methods", "random", *FEW, "--output", tmp_path)
    assert outcome.exit_code == 0, outcome.stderr
    assert "toy scenes" in " ".join(outcome.stdout.split())
    assert max(map(len, outcome.stdout.splitlines()[:-2])) <= 80
    header = next(line for line in outcome.stdout.splitlines() if "F1" in line)
    assert "CIDEr" in header
    assert "95 %" in header
    assert "toy" in " ".join(divprune("eval", "--help").stdout.split())


def test_retention_has_a_table_of_its_own(divprune: Command, tmp_path: Path) -> None:
    wanted = ("eval", "--methods", "random", *FEW, "--output", tmp_path, "--retention")
    outcome = divprune(*wanted)
    assert outcome.exit_code == 0, outcome.stderr
    assert "retained" in outcome.stdout
    rows = load_record(tmp_path / "eval-scenes.json").rows
    found = [row["retention_percent"] for row in rows]
    assert found[:2] == [pytest.approx(100), pytest.approx(0)]
    assert 0 < found[2] < 100
    assert f"{found[2]:.1f}" in outcome.stdout
    videos = divprune(*wanted, "--suite", "scenes-video", "--json")
    assert [row["retention_percent"] is not None for row in videos.json["rows"]] == [True] * 3


def test_videos_have_a_suite_of_their_own(terminal: None, divprune: Command, tmp_path: Path) -> None:
    wanted = ("--suite", "scenes-video", "--methods", "evs first-frames divprune-per-frame", *FEW, "--output", tmp_path)
    outcome = divprune("eval", *wanted, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    rows = outcome.json["rows"]
    names = ["unpruned", "video withheld", "evs", "first-frames", "divprune-per-frame"]
    assert [row["method"] for row in rows] == names
    assert [row["num_kept"] for row in rows] == [512, 0, 51, 51, 48]
    record = load_record(tmp_path / "eval-scenes-video.json")
    assert (record.rows, record.config["model"]) == (rows, "embedded-video")
    assert "toy videos" in record.config["notice"]
    shown = divprune("eval", *wanted).stdout
    header = next(line for line in shown.splitlines() if "F1" in line)
    assert all(word in header for word in ("count", "color", "motion", "order"))
    assert "CIDEr" not in shown
    assert max(map(len, shown.splitlines()[:-2])) <= 80
    refused = divprune("eval", "--suite", "scenes-video", "--model", "embedded", "--output", tmp_path)
    assert refused.exit_code == 2
    assert "asks the model 'embedded-video'" in refused.error
    assert "cannot be combined" in divprune("eval", "--suite", "scenes-video gqa", "--model", "embedded").error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "divprun"), "did you mean 'divprune'"),
        (("--methods", "divprune:layer=-1"), "layer must be at least 0"),
        (("--keep-ratio", 1.5), "keep_ratio must be in (0, 1], got 1.5"),
    ],
)
def test_what_cannot_work_is_refused(divprune: Command, tmp_path: Path, arguments: tuple, message: str) -> None:
    outcome = divprune("eval", *arguments, "--limit", 1, "--output", tmp_path)
    assert outcome.exit_code == 2
    assert message in outcome.error
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_file_is_refused(divprune: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "--output" in divprune("eval", "--output", tmp_path / "file").error


def test_the_command_knows_every_built_in_suite() -> None:
    from divprune.cli.scenes import SCENE_SUITES
    from divprune.evaluation.scenes.bench import BENCHES

    assert tuple(BENCHES) == SCENE_SUITES
