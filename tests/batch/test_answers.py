"""The answers of a batch on disk: nothing lost, nothing asked twice, nothing mixed up."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from divprune.errors import BatchError
from divprune.serving.answers import FORMAT, Answer, AnswerFile
from divprune.serving.questions import Question

SETTINGS = "a-model, divprune, keep_ratio=0.1"


def questions(*names: str, prompt: str = "What?", images: tuple[Path, ...] = ()) -> list[Question]:
    return [Question(name, images, prompt) for name in names]


def answer(name: str, error: str | None = None, text: str = "A circle.") -> Answer:
    return Answer(name, "What?", ("a.png",), SETTINGS, answer=None if error else text, error=error)


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n")]


def left(path: Path, asked: Sequence[Question]) -> list[str]:
    return [question.id for question in AnswerFile(path, SETTINGS, asked).left]


def test_answers_are_there_as_soon_as_they_are_added(tmp_path: Path) -> None:
    path, asked = tmp_path / "answers.jsonl", questions("one", "zwei", "three")
    file = AnswerFile(path, SETTINGS, asked)
    file.add(answer("one"))
    assert ids(path) == ["one"]
    file.add(answer("zwei"))
    assert ids(path) == ["one", "zwei"]
    assert left(path, asked) == ["three"]


def test_failed_questions_and_a_torn_line_are_asked_again(tmp_path: Path) -> None:
    path, asked = tmp_path / "answers.jsonl", questions("one", "two", "three")
    file = AnswerFile(path, SETTINGS, asked)
    for each in (answer("one"), answer("two", error="no such image"), answer("three")):
        file.add(each)
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rindex(b"\n") + 1
    for end in range(last, len(whole)):
        path.write_bytes(whole[:end])
        assert left(path, asked) == ["two", "three"]
        assert ids(path) == ["one", "two"]


def test_answers_to_changed_questions_are_asked_again_and_replaced_when_they_are_there(tmp_path: Path) -> None:
    path, image = tmp_path / "answers.jsonl", tmp_path / "a.png"
    image.write_bytes(b"a cat")
    asked = [*questions("one", images=(image,)), *questions("two")]
    file = AnswerFile(path, SETTINGS, asked)
    for name in ("one", "two"):
        file.add(answer(name))
    assert left(path, asked) == []
    image.write_bytes(b"a dog")  # the same name, another image
    assert left(path, asked) == ["one"]
    assert left(path, [*asked[:1], *questions("two", prompt="Where?")]) == ["one", "two"]
    before = path.read_bytes()
    file = AnswerFile(path, SETTINGS, asked)
    assert path.read_bytes() == before
    file.add(answer("one", text="A dog."))
    assert left(path, asked) == []
    file.finish()
    assert ids(path) == ["one", "two"]
    assert json.loads(path.read_text(encoding="utf-8").split("\n")[0])["answer"] == "A dog."


def test_answers_with_line_separators_are_read_again(tmp_path: Path) -> None:
    path, asked = tmp_path / "answers.jsonl", questions("one")
    AnswerFile(path, SETTINGS, asked).add(answer("one", text="a\u2028b\u2029c\u0085d\x0be"))
    assert left(path, asked) == []


def test_answers_by_other_settings_are_not_mixed_in(tmp_path: Path) -> None:
    path, asked = tmp_path / "answers.jsonl", questions("one")
    AnswerFile(path, SETTINGS, asked).add(answer("one"))
    before = path.read_bytes()
    with pytest.raises(BatchError, match="other settings"):
        AnswerFile(path, "another model", asked)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        "something else\n",
        '{"id": "one"}\n',
        "[]\n",
        '"text"\n',
        '{"my": "only copy"}',  # no newline at its end: not a line of ours that was cut short
        "{",
        '{"image": "a.png", "prompt": "What?"}',
        f'{{"format": "{FORMAT}"}}\n',
        "\n\n",
    ],
)
def test_other_files_are_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BatchError, match="something else"):
        AnswerFile(path, SETTINGS, questions("one"))
    assert path.read_text(encoding="utf-8") == content


def test_a_foreign_tail_behind_our_lines_is_left_alone(tmp_path: Path) -> None:
    path, asked = tmp_path / "answers.jsonl", questions("one")
    AnswerFile(path, SETTINGS, asked).add(answer("one"))
    with path.open("a", encoding="utf-8") as file:
        file.write("a note of mine")
    before = path.read_bytes()
    with pytest.raises(BatchError, match="something else"):
        AnswerFile(path, SETTINGS, asked)
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="in a folder that exists"):
        AnswerFile(tmp_path / "missing" / "answers.jsonl", SETTINGS, [])
    with pytest.raises(BatchError, match="must be a file"):
        AnswerFile(tmp_path, SETTINGS, [])
