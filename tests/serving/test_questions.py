"""What a batch asks: folders of pictures and JSONL files, and every way in which they can be wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from divprune.errors import BatchError
from divprune.serving.questions import BatchQuestion, read_questions


def lines(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def test_a_folder_asks_about_each_picture_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt"):
        Image.new("RGB", (4, 4)).save(tmp_path / name, format="PNG")
    (tmp_path / "c.png").mkdir()
    questions = read_questions(tmp_path, "What is it?")
    assert questions == [
        BatchQuestion("a.JPG", (tmp_path / "a.JPG",), "What is it?"),
        BatchQuestion("b.png", (tmp_path / "b.png",), "What is it?"),
    ]


class Noted:
    """Keeps what is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def image(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save(path, format="PNG")
    return path


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """A folder with images, subfolders, and what is none of a user's images."""
    folder = tmp_path / "images"
    for name in ("b.png", "._b.png", ".hidden.png", "sub/c.png", "sub/.d.png", ".git/e.png", "a/z.png"):
        image(folder / name)
    (folder / "notes.pdf").write_bytes(b"%PDF-1.4")
    (folder / "linked.png").symlink_to(folder / "b.png")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    image(tmp_path / "elsewhere" / "f.png")
    (folder / "elsewhere").symlink_to(tmp_path / "elsewhere")
    return folder


def test_a_folder_has_no_pdf_and_nothing_hidden_but_links_that_lead_nowhere(nested: Path) -> None:
    told: Any = Noted()
    assert [each.id for each in read_questions(nested, "A?", progress=told)] == ["b.png", "gone.png", "linked.png"]
    (note,) = told.notes
    assert "has 3 subfolders that are left out" in note
    assert "`recursive`" in note


def test_subfolders_are_read_when_asked_for(nested: Path) -> None:
    told: Any = Noted()
    questions = read_questions(nested, "A?", recursive=True, progress=told)
    assert [each.id for each in questions] == ["a/z.png", "b.png", "gone.png", "linked.png", "sub/c.png"]
    assert all(each.images == (nested / each.id,) for each in questions)
    (note,) = told.notes
    assert "1 subfolders that are left out" in note
    assert "links are not followed" in note


def test_a_file_has_no_subfolders(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="`recursive` is for folders"):
        read_questions(lines(tmp_path / "questions.jsonl", {"prompt": "A?"}), None, recursive=True)


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text('{"prompt": "A?"}\n{"prompt": "B?"}', encoding="utf-8-sig")
    assert [question.prompt for question in read_questions(file, None)] == ["A?", "B?"]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_names_of_files_may_hold_other_line_ends(tmp_path: Path, mark: str) -> None:
    name = f"a{mark}b.png"
    image(tmp_path / "images" / name)
    assert [each.id for each in read_questions(tmp_path / "images", "A?")] == [name]
    file = lines(tmp_path / "questions.jsonl", {"prompt": "A?", "image": f"images/{name}"})
    file.write_text(file.read_text(encoding="utf-8").encode().decode("unicode_escape"), encoding="utf-8")
    (question,) = read_questions(file, None)
    assert question.image_names == (name,)
    assert question.files[0].is_file()


def test_lines_say_what_is_asked(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "questions.jsonl",
        {"id": "first", "image": "one.png", "prompt": "A?"},
        {"images": ["one.png", "sub/two.png"]},
        {"prompt": "No picture?"},
    )
    assert read_questions(file, "Otherwise?") == [
        BatchQuestion("first", (tmp_path / "one.png",), "A?"),
        BatchQuestion("2", (tmp_path / "one.png", tmp_path / "sub/two.png"), "Otherwise?"),
        BatchQuestion("3", (), "No picture?"),
    ]


def test_blank_lines_are_left_out_and_numbers_stay(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text('{"prompt": "A?"}\n\n{"prompt": "B?"}', encoding="utf-8")
    assert [question.id for question in read_questions(file, None)] == ["1", "3"]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_a_prompt_may_hold_other_line_ends(tmp_path: Path, mark: str) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(f'{{"prompt": "A{mark}B?"}}\r\n{{"prompt": "C?"}}\r\n', encoding="utf-8", newline="")
    assert [question.prompt for question in read_questions(file, None)] == [f"A{mark}B?", "C?"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([1], "line 1: must be a JSON object, got list"),
        ({"prompt": "A?", "picture": "a.png"}, "no fields but answer, answers, id, image, images, prompt, got picture"),
        ({"prompt": "A?", "images": "a.png"}, "images a list of paths"),
        ({"prompt": "A?", "image": ""}, "image must be a path"),
        ({"prompt": "A?", "image": 3}, "image must be a path"),
        ({"image": "a.png"}, "has no prompt"),
        ({"prompt": "  "}, "has no prompt"),
        ({"prompt": "A?", "id": True}, "id must be a text or a whole number"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, row: object, reason: str) -> None:
    with pytest.raises(BatchError, match=reason):
        read_questions(lines(tmp_path / "questions.jsonl", row), None)


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text('{"prompt": "A?"}\n{"prompt": \n', encoding="utf-8")
    with pytest.raises(BatchError, match="line 2: "):
        read_questions(file, None)


def test_the_same_id_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match=r"ids must differ .* got '2' more than once"):
        read_questions(lines(tmp_path / "questions.jsonl", {"id": 2, "prompt": "A?"}, {"prompt": "B?"}), None)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "questions.jsonl").write_bytes(content)
    with pytest.raises(BatchError, match="holds nothing to ask about"):
        read_questions(tmp_path / "questions.jsonl", "A?")


def test_a_folder_needs_a_prompt_and_pictures(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="by `prompt`"):
        read_questions(tmp_path, None)
    with pytest.raises(BatchError, match="holds nothing"):
        read_questions(tmp_path, "A?")


def test_what_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="no such folder or file"):
        read_questions(tmp_path / "missing", "A?")
    (tmp_path / "questions.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(BatchError, match="UTF-8"):
        read_questions(tmp_path / "questions.jsonl", "A?")
