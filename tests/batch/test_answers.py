"""The answers of a batch on disk: nothing lost, nothing asked twice, nothing mixed up."""

import json
from pathlib import Path

import pytest

from divprune.errors import BatchError
from divprune.serving.answers import Answer, AnswerFile

SETTINGS = "a-model, divprune, keep_ratio=0.1"


def answer(name: str, error: str | None = None) -> Answer:
    return Answer(name, "What?", ("a.png",), SETTINGS, answer=None if error else "A circle.", error=error)


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_answers_are_there_as_soon_as_they_are_added(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    file = AnswerFile(path, SETTINGS)
    file.add(answer("one"))
    assert ids(path) == ["one"]
    file.add(answer("zwei"))
    assert ids(path) == ["one", "zwei"]
    assert AnswerFile(path, SETTINGS).answered == {"one", "zwei"}


def test_failed_questions_and_a_torn_line_are_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    file = AnswerFile(path, SETTINGS)
    for each in (answer("one"), answer("two", error="no such picture"), answer("three")):
        file.add(each)
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[:-9], encoding="utf-8")
    assert AnswerFile(path, SETTINGS).answered == {"one"}
    assert ids(path) == ["one"]


def test_answers_by_other_settings_are_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    AnswerFile(path, SETTINGS).add(answer("one"))
    before = path.read_bytes()
    with pytest.raises(BatchError, match="other settings"):
        AnswerFile(path, "another model")
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["something else\n", '{"id": "one"}\n', "[]\n", '"text"\n'])
def test_other_files_are_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BatchError, match="something else"):
        AnswerFile(path, SETTINGS)
    assert path.read_text(encoding="utf-8") == content


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="in a folder that exists"):
        AnswerFile(tmp_path / "missing" / "answers.jsonl", SETTINGS)
    with pytest.raises(BatchError, match="must be a file"):
        AnswerFile(tmp_path, SETTINGS)
