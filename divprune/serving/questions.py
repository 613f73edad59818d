"""What a batch asks: a folder of images, or one question a line in a JSONL file."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divprune.errors import BatchError
from divprune.media import image_suffixes, is_url, shown_name
from divprune.progress import SILENT, Progress

FIELDS = {"id", "image", "images", "prompt", "answer", "answers"}


@dataclass(frozen=True)
class BatchQuestion:
    """One line of a batch.

    Attributes:
        id: tells the question from all others of the batch.
        images: files or data: URLs, in the order in which they stand before the prompt; none to ask about nothing but
            text.
        prompt: what is asked.
        answers: those that are right, if the input tells; `divprune tune` compares with them.
    """

    id: str
    images: tuple[Path | str, ...]
    prompt: str
    answers: tuple[str, ...] = ()

    @property
    def image_names(self) -> tuple[str, ...]:
        """What the images are called in answers."""
        return tuple(shown_name(image) if isinstance(image, str) else image.name for image in self.images)

    @property
    def files(self) -> tuple[Path, ...]:
        """The images that are files."""
        return tuple(image for image in self.images if isinstance(image, Path))


def read_questions(
    source: Path, prompt: str | None, *, recursive: bool = False, progress: Progress = SILENT
) -> list[BatchQuestion]:
    r"""Read a batch; images are not opened yet.

    Args:
        source: a folder, each of whose images is asked about, in the order of their names; or a JSONL file in UTF-8
            whose lines hold `prompt`, `image` (a path or data: URL) or `images` (a list), and perhaps `id`, and
            `answer` or `answers` (those that are right); paths are relative to the file, and the id of a line without
            one is its number. A line ends at \n alone.
        prompt: asked where no line has a prompt of its own.
        recursive: whether images in subfolders are asked about too; ids are paths within the folder then.
        progress: told what of a folder is left out.

    Raises:
        BatchError: the source is missing or empty, or a line is not of this form.
    """
    if source.is_dir():
        questions = list(_of_folder(source, prompt, recursive, progress))
    elif recursive and source.is_file():
        raise BatchError(f"`recursive` is for folders, and {source} is a file; leave it out")
    elif source.is_file():
        questions = list(_of_file(source, prompt))
    else:
        raise BatchError(f"no such folder or file: {source}")
    if not questions:
        raise BatchError(f"{source} holds nothing to ask about")
    twice = [name for name, count in Counter(question.id for question in questions).items() if count > 1]
    if twice:
        raise BatchError(f"ids must differ in {source}, got {twice[0]!r} more than once")
    return questions


def _of_folder(folder: Path, prompt: str | None, recursive: bool, progress: Progress) -> Iterator[BatchQuestion]:
    if not (prompt or "").strip():
        raise BatchError(f"{folder} holds no questions, only images: say what to ask by `prompt`")
    paths, left_out = _images_of(folder, recursive)
    if left_out:
        why = "links are not followed" if recursive else "`recursive` reads them too"
        progress.note(f"{folder} has {len(left_out)} subfolders that are left out, such as {left_out[0]} ({why})")
    for path in paths:
        yield BatchQuestion(path.relative_to(folder).as_posix(), (path,), prompt or "")


def _images_of(folder: Path, recursive: bool) -> tuple[list[Path], list[str]]:
    """Return the images of a folder in the order of their names, and the names of subfolders that are not read.

    What is hidden (its name begins with a dot) is neither. A link that leads nowhere counts as an image: the question
    about it fails, which says so.

    Raises:
        BatchError: a folder cannot be read.
    """
    endings, paths, left_out = image_suffixes(), [], []

    def stop(error: OSError) -> None:
        raise BatchError(f"{error.filename} cannot be read: {error.strerror}") from None

    for name, folders, files in os.walk(folder, onerror=stop):
        here = Path(name)
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        skipped = [each for each in folders if not recursive or (here / each).is_symlink()]
        left_out += [str(here / each) for each in skipped]
        folders[:] = [each for each in folders if each not in skipped]
        for each in files:
            path = here / each
            is_image = not each.startswith(".") and path.suffix.lower() in endings
            if is_image and (path.is_file() or (path.is_symlink() and not path.exists())):
                paths.append(path)
    return sorted(paths), left_out


def _of_file(path: Path, prompt: str | None) -> Iterator[BatchQuestion]:
    try:
        # Not `read_text` nor `splitlines`: they take other characters for ends of lines too.
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise BatchError(f"{path} must be JSONL in UTF-8, got {error.reason} at byte {error.start}") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield _of_line(json.loads(line), number, path.parent, prompt)
            except (ValueError, RecursionError) as error:
                raise BatchError(f"{path}, line {number}: {error}") from None


def _of_line(fields: Any, number: int, folder: Path, prompt: str | None) -> BatchQuestion:
    if not isinstance(fields, dict):
        raise ValueError(f"must be a JSON object, got {type(fields).__name__}")
    unknown = fields.keys() - FIELDS
    if unknown:
        raise ValueError(f"must have no fields but {', '.join(sorted(FIELDS))}, got {', '.join(sorted(unknown))}")
    images = fields.get("images", [fields["image"]] if "image" in fields else [])
    if not isinstance(images, list) or not all(isinstance(image, str) and image for image in images):
        raise ValueError(f"image must be a path and images a list of paths (or data: URLs), got {images!r:.80}")
    remote = [image for image in images if is_url(image) and image[:5].lower() != "data:"]
    if remote:
        raise ValueError(f"images are not downloaded here, got {shown_name(remote[0])}; save it and name the file")
    asked = fields.get("prompt", prompt)
    if not isinstance(asked, str) or not asked.strip():
        raise ValueError("has no prompt: add one, or give `prompt` for all lines")
    name = fields.get("id", number)
    if isinstance(name, bool) or not isinstance(name, (str, int)):
        raise ValueError(f"id must be a text or a whole number, got {name!r}")
    answers = fields.get("answers", [fields["answer"]] if "answer" in fields else [])
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise ValueError(f"answer must be a text and answers a list of texts, got {answers!r:.80}")
    paths = tuple(image if is_url(image) else folder / image for image in images)
    return BatchQuestion(str(name), paths, asked, tuple(answers))
