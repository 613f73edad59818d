"""What a batch asks: a folder of images, or one question a line in a JSONL file."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divprune.errors import BatchError
from divprune.media import image_suffixes, is_url, shown_name

FIELDS = {"id", "image", "images", "prompt"}


@dataclass(frozen=True)
class BatchQuestion:
    """One line of a batch.

    Attributes:
        id: tells the question from all others of the batch.
        images: files or data: URLs, in the order in which they stand before the prompt; none to ask about nothing but
            text.
        prompt: what is asked.
    """

    id: str
    images: tuple[Path | str, ...]
    prompt: str


def read_questions(source: Path, prompt: str | None) -> list[BatchQuestion]:
    """Read a batch; images are not opened yet.

    Args:
        source: a folder, each of whose images is asked about, in the order of their names; or a JSONL file whose
            lines hold `prompt`, `image` (a path or data: URL) or `images` (a list), and perhaps `id`; paths are
            relative to the file, and the id of a line without one is its number.
        prompt: asked where no line has a prompt of its own.

    Raises:
        BatchError: the source is missing or empty, or a line is not of this form.
    """
    if source.is_dir():
        questions = list(_of_folder(source, prompt))
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


def digests(questions: Sequence[BatchQuestion]) -> dict[str, str | None]:
    """Digest each question: its prompt, and the content of its images in their order, whatever their names.

    Returns:
        SHA-256 by id; None where an image cannot be read.
    """
    images = {path: _digest_of_file(path) for path in dict.fromkeys(path for each in questions for path in each.images)}
    return {each.id: _digest(each.prompt, [images[path] for path in each.images]) for each in questions}


def _digest(prompt: str, images: Sequence[str | None]) -> str | None:
    if None in images:
        return None
    return hashlib.sha256(json.dumps([prompt, *images]).encode()).hexdigest()


def _digest_of_file(path: Path | str) -> str | None:
    """SHA-256 of a file, read piece by piece, or of a URL; None if there is no file to read."""
    if isinstance(path, str):
        return hashlib.sha256(path.encode()).hexdigest()
    try:
        if path.is_file():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        pass
    return None


def _of_folder(folder: Path, prompt: str | None) -> Iterator[BatchQuestion]:
    if not (prompt or "").strip():
        raise BatchError(f"{folder} holds no questions, only images: say what to ask by `prompt`")
    endings = image_suffixes()
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in endings and path.is_file():
            yield BatchQuestion(path.name, (path,), prompt or "")


def _of_file(path: Path, prompt: str | None) -> Iterator[BatchQuestion]:
    try:
        # Not `splitlines`: it also splits at characters that JSON takes within a text.
        lines = path.read_text(encoding="utf-8").split("\n")
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
    return BatchQuestion(str(name), tuple(image if is_url(image) else folder / image for image in images), asked)
