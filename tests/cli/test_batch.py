"""`divprune batch` with an engine that answers at once, or none: what becomes of the files that it is given."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from divprune.serving.answers import Answer
from divprune.serving.engine import EngineSettings
from divprune.serving.questions import BatchQuestion
from tests.support.commands import Command, Outcome


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("red", "green", "blue"):
        Image.new("RGB", (8, 8), name).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the questions that reach the engine, which answers with the prompt and the first pixel."""
    ids: list[str] = []

    def answers(settings: EngineSettings, questions: Sequence[BatchQuestion]) -> Iterator[Answer]:
        for question in questions:
            ids.append(question.id)
            pixel = [Image.open(path).getpixel((0, 0)) for path in question.images]
            names = tuple(path.name for path in question.images)
            yield Answer(question.id, question.prompt, names, str(settings), answer=f"{question.prompt} {pixel}")

    monkeypatch.setattr("divprune.serving.run.require_vllm", lambda: None)
    monkeypatch.setattr("divprune.serving.run.answers_here", answers)
    return ids


def batch(divprune: Command, source: Path, output: Path, prompt: str = "What?", *arguments: object) -> Outcome:
    return divprune("batch", "a/model", "--input", source, "--prompt", prompt, "--output", output, *arguments)


def answers(path: Path) -> dict[str, str]:
    rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row["answer"] for row in rows}


@pytest.mark.parametrize("content", ['{"precious": 1}', "precious", "{}\n", "\x89PNG\r\n\x1a\n"])
def test_a_file_of_another_program_is_left_as_it_is(
    divprune: Command, images: Path, tmp_path: Path, content: str
) -> None:
    output = tmp_path / "precious.json"
    output.write_bytes(content.encode("latin-1"))
    outcome = batch(divprune, images, output)
    assert outcome.exit_code == 2
    assert "replace it by --force" in outcome.error
    assert output.read_bytes() == content.encode("latin-1")


@pytest.mark.parametrize("kind", ["itself", "spelling", "symlink", "hard link"])
@pytest.mark.parametrize("victim", ["questions.jsonl", "red.png"])
def test_what_is_read_is_never_written_to(
    divprune: Command, images: Path, tmp_path: Path, kind: str, victim: str
) -> None:
    questions = images / "questions.jsonl"
    questions.write_text('{"image": "red.png", "prompt": "What?"}', encoding="utf-8")
    path, other = images / victim, tmp_path / "answers.jsonl"
    before = path.read_bytes()
    if kind == "symlink":
        other.symlink_to(path)
    elif kind == "hard link":
        other.hardlink_to(path)
    output = {"itself": path, "spelling": images / ".." / images.name / victim}.get(kind, other)
    outcome = batch(divprune, questions, output)
    assert outcome.exit_code == 2
    assert "is what the command reads; name another file, such as answers.jsonl" in outcome.error
    assert path.read_bytes() == before


def test_an_image_that_is_not_there_yet_is_no_output(divprune: Command, images: Path) -> None:
    questions = images / "questions.jsonl"
    questions.write_text('{"image": "later.png", "prompt": "What?"}', encoding="utf-8")
    outcome = batch(divprune, questions, images / "later.png")
    assert "is what the command reads" in outcome.error


def test_only_what_changed_is_asked_again(divprune: Command, images: Path, tmp_path: Path, asked: list[str]) -> None:
    output = tmp_path / "answers.jsonl"
    assert batch(divprune, images, output).exit_code == 0
    assert sorted(asked) == ["blue.png", "green.png", "red.png"]
    asked.clear()
    outcome = batch(divprune, images, output)
    assert asked == []
    assert "3 of 3 are answered already" in outcome.stderr
    Image.new("RGB", (8, 8), (1, 2, 3)).save(images / "red.png")
    outcome = batch(divprune, images, output)
    assert asked == ["red.png"]
    assert "1 of 3 have another prompt or image now and are asked again" in outcome.stderr
    assert answers(output)["red.png"] == "What? [(1, 2, 3)]"
    asked.clear()
    outcome = batch(divprune, images, output, "Where?")
    assert sorted(asked) == ["blue.png", "green.png", "red.png"]
    assert all(answer.startswith("Where?") for answer in answers(output).values())
    os.unlink(images / "blue.png")
    outcome = batch(divprune, images, output, "Where?")
    assert "also answers 1 questions that are not in this batch; they stay" in outcome.stderr
    assert sorted(answers(output)) == ["blue.png", "green.png", "red.png"]


@pytest.mark.parametrize(
    "changed",
    [
        ("--method", "random"),
        ("--keep-ratio", "0.098001"),
        ("--num-keep", "3"),
        ("--max-new-tokens", "65"),
        ("--temperature", "0.00000001"),
        ("--", "--seed", "1"),
    ],
)
def test_answers_by_other_settings_are_left_as_they_are(
    divprune: Command, images: Path, tmp_path: Path, asked: list[str], changed: tuple[str, ...]
) -> None:
    output = tmp_path / "answers.jsonl"
    batch(divprune, images, output)
    before = output.read_bytes()
    asked.clear()
    outcome = batch(divprune, images, output, "What?", *changed)
    assert outcome.exit_code == 2
    assert "holds answers of other settings" in outcome.error
    assert asked == []
    assert output.read_bytes() == before
