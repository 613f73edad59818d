"""`divprune bench` on the embedded model, a checkpoint and a record; refusals in one line."""

from pathlib import Path

import pytest

from divprune.records import load_record
from tests.support.commands import Command

SHORT = ("--new-tokens", 2, "--repeats", 1, "--no-memory")


def test_rows_stand_next_to_unpruned_and_random(divprune: Command) -> None:
    sparse = "sparsevlm:first_layer=1,second_layer=2,third_layer=3"
    names = ["divprune", "vtw:layer=2", "dart:layer=1", sparse]
    outcome = divprune("bench", *(part for name in names for part in ("--method", name)), "--json", *SHORT)
    assert outcome.exit_code == 0, outcome.stderr
    assert len(outcome.stdout.splitlines()) == 1
    rows = outcome.json["rows"]
    assert [row["method"] for row in rows] == ["unpruned", "random", *names]
    assert [row["num_kept"] for row in rows] == [None, 25, 25, 0, 25, 51]
    assert rows[0]["kv_cache_bytes"] > rows[3]["kv_cache_bytes"] > rows[2]["kv_cache_bytes"]
    assert rows[2]["selection_median_seconds"] > 0
    assert outcome.json["config"]["repeats"] == 1


def test_checkpoint_picture_and_record(divprune: Command, llava: Path, picture: Path, tmp_path: Path) -> None:
    arguments = ("--model", llava, "--image", picture, "--num-keep", 5, "--output", tmp_path)
    outcome = divprune("bench", *arguments, *SHORT)
    assert outcome.exit_code == 0, outcome.stderr
    assert "TTFT" in outcome.stdout
    assert max(len(line) for line in outcome.stdout.splitlines() if "MiB" in line) <= 80
    record = load_record(tmp_path / "bench-llava.json")
    assert [row["num_kept"] for row in record.rows] == [None, 5, 5]
    assert record.config["weights"] == "checkpoint"
    assert record.provenance["machine"]["num_threads"] >= 1
    assert len(record.config["foreign_cores"]) == record.config["repeats"] == 1
    assert record.config["rounds_left_out"] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layers", 2), "--layers goes with --architecture"),
        (("--architecture", "llava-1.5-7b", "--model", "x"), "give --model or --architecture, not both"),
        (("--architecture", "llava-1.5-7"), "did you mean 'llava-1.5-7b'?"),
        (("--architecture", "llava-1.5-7b", "--image", "cat.jpg"), "--image and --video go with --model"),
        (("--image", "cat.jpg", "--video", "cat.mp4"), "give --image or --video, not both"),
        (("--keep-ratio", 0.1, "--num-keep", 3), "give --keep-ratio or --num-keep, not both"),
        (("--keep-ratio", 2), "keep_ratio must be in (0, 1], got 2.0"),
        (("--method", "fast"), "did you mean 'fastv'?"),
        (("--output", "no/such/folder"), "--output no/such/folder is no directory; create it first"),
        (("--method", "fastv:layer=99"), "layer"),
    ],
)
def test_mistakes_are_told_in_one_line(divprune: Command, arguments: tuple[object, ...], message: str) -> None:
    outcome = divprune("bench", *arguments, *SHORT)
    assert outcome.exit_code == 2
    assert message in outcome.error
