"""Lines of a batch's answer file: how an answer is written, and how a line of ours is told from anything else."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from divprune.jsonl_log import split_lines
from divprune.outputs import FileKind

LINE_FORMAT = 1
_MARK = "divprune_answer"
_DIGEST = "question_sha256"
_START = f'{{"{_MARK}": {LINE_FORMAT}, '.encode()
"""Every line begins like this, so that a torn first line is known for ours."""
ANSWERS = FileKind("answer file of `divprune batch`", "answers.jsonl", rb"\A" + re.escape(_START))


@dataclass(frozen=True)
class Answer:
    """One line of the answers.

    Attributes:
        id: of the question.
        prompt: what was asked.
        images: names of the images.
        answer: what the model generated; None if it could not be asked.
        finish_reason: "stop", or "length" if the answer was cut at the longest one allowed.
        prompt_tokens: length of the prompt as the language model reads it, after pruning.
        answer_tokens: length of the answer.
        error: why it could not be asked; None if it could.
        settings: model, method and count.
        note: what there is to know of how its images were read, such as which page; None if nothing.
    """

    id: str
    prompt: str
    images: tuple[str, ...]
    settings: str
    answer: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    error: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Line:
    """An answer as it stands in the file.

    Attributes:
        content: its bytes, without the end of the line.
        id: of the question.
        digest: of the question that was asked, see `questions.digests`; None if an image could not be read.
        settings: that it was made with.
        is_answered: whether it holds an answer, not an error.
    """

    content: bytes
    id: str
    digest: str | None
    settings: str
    is_answered: bool


class NotOursError(ValueError):
    """A file holds a line that `divprune batch` did not write; `number` says which, from 1."""

    def __init__(self, number: int) -> None:
        super().__init__(f"line {number} is none of ours")
        self.number = number


def written(answer: Answer, digest: str | None) -> bytes:
    """Return an answer as a line, its end included."""
    fields = {_MARK: LINE_FORMAT, "id": answer.id, _DIGEST: digest, **asdict(answer)}
    # Half a surrogate pair has no UTF-8; written as \udXXX it is the same text in JSON.
    return json.dumps(fields, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def read_lines(content: bytes) -> list[Line]:
    """Read a whole file; a last line that a crash tore is left out.

    A torn line counts as ours only after lines of ours, or if it begins like one.

    Raises:
        NotOursError: anything else is in the file.
    """
    lines = []
    for number, line in enumerate(split_lines(content), start=1):
        found = _read(line)
        if found is None:
            raise NotOursError(number)
        lines.append(found)
    if content and not lines and not content.startswith(_START):
        raise NotOursError(1)
    return lines


def as_content(lines: Sequence[Line]) -> bytes:
    """Return a file of these lines."""
    return b"".join(line.content + b"\n" for line in lines)


def _read(line: bytes) -> Line | None:
    """Return what a line of ours holds, None for any other."""
    try:
        fields: Any = json.loads(line)
        if not isinstance(fields, dict) or fields.pop(_MARK, None) != LINE_FORMAT:
            return None
        digest = fields.pop(_DIGEST)
        answer = Answer(**fields)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not all(isinstance(text, str) for text in (answer.id, answer.settings)):
        return None
    return Line(line, answer.id, digest, answer.settings, answer.error is None)
