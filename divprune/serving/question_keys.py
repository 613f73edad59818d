"""What answers are filed under: a question's prompt and images, by their content or by what the file system tells."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from divprune.serving.questions import BatchQuestion


@dataclass(frozen=True)
class QuestionKey:
    """SHA-256 of a question, by which its answer is found again; its id is no part of it.

    Attributes:
        content: of the prompt and the content of the images in their order, whatever their names; None if it was not
            read or cannot be.
        names: of the prompt and the path, size and time of change of each image; None if there is no such file.
    """

    content: str | None
    names: str | None


FileMarks = tuple[tuple[int, ...] | None, ...]
"""What tells that files were changed, in bytes and nanoseconds; None for a file that is not there."""


def question_keys(questions: Sequence[BatchQuestion], *, trust_names: bool) -> dict[str, QuestionKey]:
    """Find the key of each question.

    Args:
        questions: of a batch.
        trust_names: whether images are left unread; the keys' `content` is None then.

    Returns:
        Keys by id.
    """
    images = list(dict.fromkeys(image for question in questions for image in question.images))
    contents = {} if trust_names else {image: _of_image(image, _content) for image in images}
    names = {image: _of_image(image, _name_size_and_time) for image in images}
    return {
        each.id: QuestionKey(
            None if trust_names else _digest(each.prompt, [contents[image] for image in each.images]),
            _digest(each.prompt, [names[image] for image in each.images]),
        )
        for each in questions
    }


def marks_of(question: BatchQuestion) -> FileMarks:
    """Return what tells whether an image of a question is changed, exchanged and changed back included."""
    return tuple(map(_mark, question.files))


def _digest(prompt: str, images: Sequence[str | None]) -> str | None:
    if None in images:
        return None
    return hashlib.sha256(json.dumps([prompt, *images]).encode()).hexdigest()


def _of_image(image: Path | str, of_file: Callable[[Path], str]) -> str | None:
    """Return a digest of a file or a URL; None if there is no file to read."""
    if isinstance(image, str):
        return hashlib.sha256(image.encode()).hexdigest()
    try:
        return of_file(image) if image.is_file() else None
    except OSError:
        return None


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name_size_and_time(path: Path) -> str:
    found = path.stat()
    return json.dumps([os.path.abspath(path), found.st_size, found.st_mtime_ns])


def _mark(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
