"""The answers of a batch on disk: nothing lost, nothing asked twice, nothing mixed up."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from divprune.errors import ArgumentError, BatchError
from divprune.outputs import forced
from divprune.serving import question_keys
from divprune.serving.answers import Answer, AnswerFile
from divprune.serving.questions import BatchQuestion

SETTINGS = "a-model, divprune, keep_ratio=0.1"
NAMES = ("one", "two", "three")


@pytest.fixture
def questions(tmp_path: Path) -> list[BatchQuestion]:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.png").write_bytes(name.encode())
    return [BatchQuestion(name, (folder / f"{name}.png",), "What?") for name in NAMES]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def answer(question: BatchQuestion, text: str = "A circle.", error: str | None = None) -> Answer:
    images = tuple(image.name for image in question.images)
    return Answer(question.id, question.prompt, images, SETTINGS, answer=None if error else text, error=error)


def answer_all(path: Path, questions: Sequence[BatchQuestion], text: str = "A circle.") -> list[str]:
    """Answer what is left; return what that was."""
    file = AnswerFile(path, SETTINGS, questions)
    for question in file.left:
        file.add(answer(question, text))
    file.finish()
    return ids_of(file.left)


def ids_of(questions: Sequence[BatchQuestion]) -> list[str]:
    return [question.id for question in questions]


def left(path: Path, questions: Sequence[BatchQuestion]) -> list[str]:
    return ids_of(AnswerFile(path, SETTINGS, questions).left)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def said(path: Path) -> dict[str, str]:
    found = rows(path)
    assert len({row["id"] for row in found}) == len(found)
    return {row["id"]: row["answer"] for row in found}


def test_answers_are_there_as_soon_as_they_are_added(path: Path, questions: list[BatchQuestion]) -> None:
    file = AnswerFile(path, SETTINGS, questions)
    assert file.left == questions
    assert not path.exists()
    for count, question in enumerate(questions, start=1):
        file.add(answer(question))
        assert [row["id"] for row in rows(path)] == list(NAMES[:count])
        assert left(path, questions) == list(NAMES[count:])


def test_failed_questions_and_a_torn_line_are_asked_again(path: Path, questions: list[BatchQuestion]) -> None:
    file = AnswerFile(path, SETTINGS, questions)
    file.add(answer(questions[0]))
    file.add(answer(questions[1], error="no such image"))
    file.add(answer(questions[2]))
    path.write_bytes(path.read_bytes()[:-9])
    assert answer_all(path, questions, "A square.") == ["two", "three"]
    assert said(path) == {"one": "A circle.", "two": "A square.", "three": "A square."}
    assert {row["error"] for row in rows(path)} == {None}


def test_looking_at_answers_changes_nothing(path: Path, questions: list[BatchQuestion]) -> None:
    answer_all(path, questions)
    torn = path.read_bytes()[:-9]
    path.write_bytes(torn)
    assert left(path, questions) == ["three"]
    assert path.read_bytes() == torn


@pytest.mark.parametrize("lost", [9, 60, 130])
def test_a_torn_first_line_is_asked_again(path: Path, questions: list[BatchQuestion], lost: int) -> None:
    AnswerFile(path, SETTINGS, questions).add(answer(questions[0]))
    path.write_bytes(path.read_bytes()[:-lost])
    assert answer_all(path, questions) == list(NAMES)
    assert list(said(path)) == list(NAMES)


def test_a_last_line_that_only_lacks_its_end_is_kept(path: Path, questions: list[BatchQuestion]) -> None:
    answer_all(path, questions[:1])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert answer_all(path, questions, "A square.") == ["two", "three"]
    assert said(path) == {"one": "A circle.", "two": "A square.", "three": "A square."}


def test_an_empty_file_is_filled(path: Path, questions: list[BatchQuestion]) -> None:
    path.touch()
    answer_all(path, questions)
    assert list(said(path)) == list(NAMES)


def test_another_prompt_is_asked_and_replaces_the_answer(path: Path, questions: list[BatchQuestion]) -> None:
    answer_all(path, questions)
    changed = [questions[0], replace(questions[1], prompt="Which colour?"), questions[2]]
    assert answer_all(path, changed, "Red.") == ["two"]
    assert said(path) == {"one": "A circle.", "two": "Red.", "three": "A circle."}
    assert left(path, changed) == []
    assert left(path, questions) == ["two"]


def test_another_image_of_the_same_name_is_asked_and_replaces_the_answer(
    path: Path, questions: list[BatchQuestion]
) -> None:
    answer_all(path, questions)
    # As long as before, and as old: neither size nor time tells them apart.
    image = questions[1].images[0]
    before = image.stat()
    image.write_bytes(b"owt")
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert answer_all(path, questions, "Blue.") == ["two"]
    assert said(path) == {"one": "A circle.", "two": "Blue.", "three": "A circle."}


def test_the_order_of_images_and_their_number_matter(path: Path, questions: list[BatchQuestion]) -> None:
    first, second = (question.images[0] for question in questions[:2])
    both = BatchQuestion("both", (first, second), "What changed?")
    answer_all(path, [both])
    assert left(path, [both]) == []
    for images in ((second, first), (first,), (first, second, second), ()):
        assert left(path, [replace(both, images=images)]) == ["both"]


def test_an_image_that_only_moved_is_not_asked_again(
    path: Path, questions: list[BatchQuestion], tmp_path: Path
) -> None:
    answer_all(path, questions)
    moved = questions[0].images[0].rename(tmp_path / "elsewhere.jpg")
    assert left(path, [replace(questions[0], images=(moved,)), *questions[1:]]) == []


def test_a_renamed_image_takes_its_answer_along(path: Path, questions: list[BatchQuestion]) -> None:
    answer_all(path, questions)
    image = questions[1].images[0]
    moved = image.rename(image.with_name("zwei.png"))
    renamed = [questions[0], BatchQuestion("zwei", (moved,), "What?"), questions[2]]
    assert answer_all(path, renamed, "A square.") == []
    assert [(row["id"], row["images"]) for row in rows(path)] == [
        ("one", ["one.png"]), ("zwei", ["zwei.png"]), ("three", ["three.png"]),
    ]  # fmt: skip
    assert set(said(path).values()) == {"A circle."}


def numbered(questions: Sequence[BatchQuestion]) -> list[BatchQuestion]:
    """With default ids, by the number of the line."""
    return [replace(question, id=str(number)) for number, question in enumerate(questions, start=1)]


def test_an_inserted_line_is_asked_and_the_others_keep_their_answers(
    path: Path, questions: list[BatchQuestion]
) -> None:
    first, *others = questions
    answer_all(path, numbered(others))
    longer = numbered([first, *others])
    file = AnswerFile(path, SETTINGS, longer)
    assert (ids_of(file.left), file.num_changed, file.num_gone, file.num_other) == (["1"], 0, 0, 0)
    assert answer_all(path, longer, "New.") == ["1"]
    assert [(row["id"], row["images"], row["answer"]) for row in rows(path)] == [
        ("1", ["one.png"], "New."), ("2", ["two.png"], "A circle."), ("3", ["three.png"], "A circle."),
    ]  # fmt: skip


def test_an_answer_whose_number_is_anothers_now_goes_and_is_counted(path: Path, questions: list[BatchQuestion]) -> None:
    answer_all(path, numbered(questions))
    shorter = numbered(questions[1:])
    assert AnswerFile(path, SETTINGS, shorter).num_gone == 1
    assert answer_all(path, shorter, "New.") == []
    assert [(row["id"], row["images"]) for row in rows(path)] == [("1", ["two.png"]), ("2", ["three.png"])]


def test_the_same_question_twice_has_two_answers(path: Path, questions: list[BatchQuestion]) -> None:
    twice = numbered([questions[0], questions[0]])
    answer_all(path, twice[:1], "First.")
    assert answer_all(path, twice, "Second.") == ["2"]
    assert said(path) == {"1": "First.", "2": "Second."}


def test_by_trusted_names_no_image_is_read(
    path: Path, questions: list[BatchQuestion], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_all(path, questions)
    monkeypatch.setattr(question_keys, "_content", lambda *_: pytest.fail("an image was read"))
    assert AnswerFile(path, SETTINGS, questions, trust_names=True).left == []


@pytest.mark.parametrize("change", ["size", "time", "name"])
def test_trusted_names_are_path_size_and_time(path: Path, questions: list[BatchQuestion], change: str) -> None:
    answer_all(path, questions)
    image, asked = questions[1].images[0], list(questions)
    before = image.stat()
    if change == "name":
        asked[1] = replace(questions[1], images=(image.rename(image.with_name("zwei.png")),))
    elif change == "size":
        image.write_bytes(b"longer")
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert ids_of(AnswerFile(path, SETTINGS, asked, trust_names=True).left) == ["two"]


def test_answers_by_trusted_names_count_for_nothing_without(path: Path, questions: list[BatchQuestion]) -> None:
    file = AnswerFile(path, SETTINGS, questions, trust_names=True)
    for question in questions:
        file.add(answer(question))
    file.finish()
    assert AnswerFile(path, SETTINGS, questions, trust_names=True).left == []
    read = AnswerFile(path, SETTINGS, questions)
    assert (read.left, read.num_unread, read.num_changed) == (questions, 3, 0)


def test_an_image_that_changes_while_the_batch_runs_is_asked_about_again(
    path: Path, questions: list[BatchQuestion]
) -> None:
    file = AnswerFile(path, SETTINGS, questions)
    image = questions[1].images[0]
    before, content = image.stat(), image.read_bytes()
    image.write_bytes(b"owt")
    # Read by the engine here, and put back as it was.
    image.write_bytes(content)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    for question in questions:
        file.add(answer(question))
    file.finish()
    assert file.num_unsettled == 1
    assert left(path, questions) == ["two"]


def test_a_lost_image_does_not_cost_its_answer_when_numbers_shift(path: Path, questions: list[BatchQuestion]) -> None:
    answer_all(path, numbered(questions[1:]))
    questions[1].images[0].unlink()
    with pytest.raises(BatchError, match=r"two\.png cannot be read any more"):
        AnswerFile(path, SETTINGS, numbered(questions))


def test_until_all_is_asked_again_the_old_answers_are_there(path: Path, questions: list[BatchQuestion]) -> None:
    answer_all(path, questions)
    changed = [replace(question, prompt="Where?") for question in questions]
    file = AnswerFile(path, SETTINGS, changed)
    file.add(answer(changed[0], "Left."))
    # Killed here. Both the new question and the old ones go on.
    assert left(path, changed) == ["two", "three"]
    assert left(path, questions) == []
    assert answer_all(path, changed, "Right.") == ["two", "three"]
    assert said(path) == {"one": "Left.", "two": "Right.", "three": "Right."}


def test_a_file_that_was_not_finished_is_finished_without_asking(path: Path, questions: list[BatchQuestion]) -> None:
    answer_all(path, questions)
    changed = [replace(question, prompt="Where?") for question in questions]
    file = AnswerFile(path, SETTINGS, changed)
    for question in file.left:
        file.add(answer(question, "Left."))
    assert len(rows(path)) == 6
    assert answer_all(path, changed) == []
    assert said(path) == dict.fromkeys(NAMES, "Left.")


def test_answers_to_questions_of_other_batches_stay(path: Path, questions: list[BatchQuestion]) -> None:
    answer_all(path, questions[:2])
    file = AnswerFile(path, SETTINGS, questions[1:])
    assert (ids_of(file.left), file.num_other) == (["three"], 1)
    assert answer_all(path, questions[1:]) == ["three"]
    assert list(said(path)) == ["two", "three", "one"]


def test_changed_questions_are_counted(path: Path, questions: list[BatchQuestion]) -> None:
    file = AnswerFile(path, SETTINGS, questions)
    file.add(answer(questions[0]))
    file.add(answer(questions[1], error="too long"))
    changed = [replace(question, prompt="Where?") for question in questions]
    assert AnswerFile(path, SETTINGS, questions).num_changed == 0
    assert AnswerFile(path, SETTINGS, changed).num_changed == 1


def test_an_image_that_is_missing_now_does_not_cost_its_answer(path: Path, questions: list[BatchQuestion]) -> None:
    answer_all(path, questions)
    before = path.read_bytes()
    questions[1].images[0].unlink()
    with pytest.raises(BatchError, match=r"two\.png .*restore it.*take question 'two' out.*another `output`"):
        AnswerFile(path, SETTINGS, questions)
    assert path.read_bytes() == before


def test_an_image_that_was_never_there_is_asked_about_each_time(path: Path, questions: list[BatchQuestion]) -> None:
    image = questions[1].images[0]
    image.unlink()
    file = AnswerFile(path, SETTINGS, questions)
    for question in file.left:
        file.add(answer(question, error=None if question.images[0].exists() else "no such image"))
    file.finish()
    assert left(path, questions) == ["two"]
    image.write_bytes(b"here now")
    assert answer_all(path, questions, "A square.") == ["two"]
    assert said(path) == {"one": "A circle.", "two": "A square.", "three": "A circle."}


def test_answers_by_other_settings_are_not_mixed_in(path: Path, questions: list[BatchQuestion]) -> None:
    answer_all(path, questions[:1])
    before = path.read_bytes()
    with pytest.raises(BatchError, match="other settings"):
        AnswerFile(path, "another model", questions)
    assert path.read_bytes() == before


OURS = "OURS"
"""Stands for a complete line of this command."""
OLD = json.dumps({"id": "one", "prompt": "What?", "images": [], "settings": SETTINGS, "answer": "A.", "error": None})


@pytest.mark.parametrize(
    "content",
    [
        "precious, without an end of line",
        '{"precious": 1}',
        '{"divprune": {"keep_ratio": 0.1}}',
        "{",
        '{"id": "one", "prompt": "What?"}',
        "something else\n",
        '{"id": "one"}\n',
        "[]\n",
        '"text"\n',
        "\n",
        "1\n2",
        f"{OURS}\nsomething else\n",
        f"{OURS}\nsomething else\n{OURS}\n",
        f"{OURS}\n\n{OURS}\n",
        f"something else\n{OURS}",
        f"{OURS}\nprecious, without an end of line",
        f'{OURS}\n{{"precious": ',
        f"{OLD}\n",
    ],
)
def test_other_files_are_left_alone(path: Path, questions: list[BatchQuestion], content: str) -> None:
    answer_all(path, questions[:1])
    ours = path.read_text(encoding="utf-8").rstrip("\n")
    written = content.replace(OURS, ours).encode()
    path.write_bytes(written)
    with pytest.raises((BatchError, ArgumentError), match=r"line \d+ .*give another `output`|and is no answer file of"):
        AnswerFile(path, SETTINGS, questions)
    assert path.read_bytes() == written


def test_by_force_the_first_answer_replaces_another_file(path: Path, questions: list[BatchQuestion]) -> None:
    path.write_bytes(b"precious")
    with forced():
        file = AnswerFile(path, SETTINGS, questions)
        assert file.left == questions
        file.finish()
        assert path.read_bytes() == b"precious"
        for question in questions:
            file.add(answer(question))
        file.finish()
    assert left(path, questions) == []


def test_an_image_is_no_file_for_answers(path: Path, questions: list[BatchQuestion]) -> None:
    content = bytes(range(256)) * 3
    path.write_bytes(content)
    with pytest.raises(ArgumentError, match="and is no answer file of"):
        AnswerFile(path, SETTINGS, questions)
    assert path.read_bytes() == content


@pytest.mark.parametrize("text", ["a\u2028b\x85c\x0b", "half a pair: \ud83d", "ß 猫 🐈", "two\r\nlines"])
def test_answers_may_hold_any_text(path: Path, questions: list[BatchQuestion], text: str) -> None:
    asked = [replace(questions[0], id=f"id {text}", prompt=f"What is {text}?"), questions[1]]
    answer_all(path, asked, text)
    assert left(path, asked) == []
    assert said(path)[f"id {text}"] == text


def test_a_place_that_cannot_be_written_is_refused(path: Path, questions: list[BatchQuestion], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"there is no directory .*create it first"):
        AnswerFile(tmp_path / "missing" / "answers.jsonl", SETTINGS, questions)
    with pytest.raises(ArgumentError, match="is a directory"):
        AnswerFile(tmp_path, SETTINGS, questions)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BatchError, match="must be a file"):
        AnswerFile(tmp_path / "pipe", SETTINGS, questions)


def test_a_link_to_answers_stays_a_link(path: Path, questions: list[BatchQuestion], tmp_path: Path) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    answer_all(link, questions[:1])
    answer_all(link, [replace(questions[0], prompt="Where?")], "Left.")
    assert link.is_symlink()
    assert said(path) == {"one": "Left."}


def fail(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_whole_lines(
    path: Path, questions: list[BatchQuestion], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = AnswerFile(path, SETTINGS, questions)
    file.add(answer(questions[0]))
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(BatchError, match=r"No space left on device.*make room and run the same command again"):
            file.add(answer(questions[1]))
    assert path.read_bytes() == before
    assert left(path, questions) == ["two", "three"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_crash_while_the_file_is_finished_loses_nothing(
    path: Path, questions: list[BatchQuestion], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    answer_all(path, questions)
    changed = [replace(question, prompt="Where?") for question in questions]
    file = AnswerFile(path, SETTINGS, changed)
    for question in file.left:
        file.add(answer(question, "Left."))
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, step, fail)
        with pytest.raises(BatchError, match="make room"):
            file.finish()
    assert path.read_bytes() == before
    assert answer_all(path, changed) == []
    assert said(path) == dict.fromkeys(NAMES, "Left.")


def test_a_crash_after_any_byte_can_be_gone_on_from(path: Path, questions: list[BatchQuestion]) -> None:
    answer_all(path, questions)
    whole = path.read_bytes()
    first = whole.index(b"\n")
    for size in (*range(first, len(whole), 11), *range(len(whole) - 5, len(whole))):
        path.write_bytes(whole[:size])
        answer_all(path, questions)
        assert path.read_bytes() == whole
