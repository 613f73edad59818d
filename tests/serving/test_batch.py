"""`divprune batch` with real engines: in one process, resumed after a kill, and on two workers under Ray."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from tests.serving.servers import processes_of, wait_until_gone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NUM_PICTURES = 40
FLAGS = ("--dtype", "float32", "--max-model-len", "512", "--enforce-eager")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    draw = numpy.random.default_rng(0)
    for number in range(NUM_PICTURES):
        pixels = draw.integers(0, 256, (60, 90, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


def start(model: Path, output: Path, pictures: Path, arguments: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Starts `divprune batch` as a user would."""
    code = "from divprune.cli.main import app; app()"
    asked = ("--input", str(pictures), "--prompt", "word3 word4", "--output", str(output), "--max-new-tokens", "6")
    command = [sys.executable, "-c", code, "batch", str(model), *asked, "--keep-ratio", "0.25", "--json", *arguments]
    environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    return subprocess.Popen(
        [*command, "--", *FLAGS],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    out, err = process.communicate()
    lines = out.strip().splitlines()
    return process.returncode, json.loads(lines[-1]) if lines else {}, err


def answers(path: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


@pytest.fixture(scope="module")
def whole(checkpoint: Callable[[str], Path], pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers of an uninterrupted run."""
    output = tmp_path_factory.mktemp("whole") / "answers.jsonl"
    code, result, errors = finish(start(checkpoint("llava"), output, pictures))
    assert code == 0, errors
    assert result == {"output": str(output), "num_questions": NUM_PICTURES, "num_failed": 0}
    return output


def test_every_picture_is_answered_from_a_short_prompt(whole: Path) -> None:
    rows = answers(whole)
    assert sorted(rows) == [f"{number:02}.png" for number in range(NUM_PICTURES)]
    # 9 of 36 visual tokens, four words of the prompt.
    assert {row["prompt_tokens"] for row in rows.values()} == {13}
    assert len({row["answer"] for row in rows.values()}) > NUM_PICTURES // 2


def test_a_killed_batch_goes_on_where_it_stopped(
    whole: Path, checkpoint: Callable[[str], Path], pictures: Path, tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    first = start(checkpoint("llava"), output, pictures)
    deadline = time.monotonic() + 240
    while not (output.exists() and output.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    engine = processes_of(first.pid)
    assert any("EngineCore" in command for command in engine.values())
    first.kill()
    # Nobody but the engine itself can know now that it is of no use.
    wait_until_gone(engine)
    first.communicate()
    before = output.read_text(encoding="utf-8").count("\n")
    assert before > 0
    code, _, errors = finish(start(checkpoint("llava"), output, pictures))
    assert code == 0, errors
    assert f"{before} of {NUM_PICTURES} are answered already" in errors
    assert answers(output) == answers(whole)


def test_questions_that_cannot_be_asked_are_named_and_tried_again(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (50, 50), "red").save(folder / "good.png")
    (folder / "text.png").write_text("no picture", encoding="utf-8")
    questions = folder / "questions.jsonl"
    rows = [
        {"id": "good", "image": "good.png", "prompt": "word3"},
        {"id": "text", "image": "text.png", "prompt": "word3"},
        {"id": "missing", "image": "missing.png", "prompt": "word3"},
        {"id": "long", "image": "good.png", "prompt": "word3 " * 600},
        {"id": "words", "prompt": "word5 word6"},
    ]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    output = tmp_path / "answers.jsonl"
    code, result, errors = finish(start(checkpoint("llava"), output, questions))
    assert code == 2
    assert result["num_failed"] == 3
    assert "3 of 5 questions could not be asked" in errors
    said = answers(output)
    assert "not an image" in said["text"]["error"]
    assert "no such image" in said["missing"]["error"]
    assert said["long"]["error"]
    assert said["good"]["answer"]
    assert said["words"]["answer"]
    Image.new("RGB", (50, 50), "blue").save(folder / "text.png")
    _, result, errors = finish(start(checkpoint("llava"), output, questions))
    assert "2 of 5 are answered already" in errors
    assert result["num_failed"] == 2
    assert answers(output)["text"]["answer"]


def test_two_workers_say_the_same(
    whole: Path, checkpoint: Callable[[str], Path], pictures: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs ray")
    output = tmp_path / "answers.jsonl"
    code, result, errors = finish(start(checkpoint("llava"), output, pictures, ("--workers", "2")))
    assert code == 0, errors
    assert result["num_failed"] == 0
    assert answers(output) == answers(whole)
