"""Lines of a batch's answer file: how an answer is written, and how a line of ours is told from anything else."""

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from divprune.jsonl_log import split_lines
from divprune.outputs import FileKind
from divprune.serving.question_keys import QuestionKey

LINE_FORMAT = 1
_MARK = "divprune_answer"
_CONTENT, _NAMES = "question_sha256", "question_names_sha256"
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
        answer: what it holds.
        key: of the question that was asked; None in both where an image could not be read, or was changed meanwhile.
    """

    content: bytes
    answer: Answer
    key: QuestionKey

    @property
    def id(self) -> str:
        """The id that the question had."""
        return self.answer.id

    @property
    def is_answered(self) -> bool:
        """Whether it holds an answer, not an error."""
        return self.answer.error is None


class NotOursError(ValueError):
    """A file holds a line that `divprune batch` did not write; `number` says which, from 1."""

    def __init__(self, number: int) -> None:
        super().__init__(f"line {number} is none of ours")
        self.number = number


def written(answer: Answer, key: QuestionKey) -> bytes:
    """Return an answer as a line, its end included."""
    fields = {_MARK: LINE_FORMAT, "id": answer.id, _CONTENT: key.content, _NAMES: key.names, **asdict(answer)}
    # Half a surrogate pair has no UTF-8; written as \udXXX it is the same text in JSON.
    return json.dumps(fields, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def read_lines(content: bytes) -> list[Line]:
    """Read a whole file; a last line that a crash tore, known by its beginning, is left out.

    Raises:
        NotOursError: anything else is in the file.
    """
    lines = []
    whole = split_lines(content)
    for number, line in enumerate(whole, start=1):
        found = _read(line)
        if found is None:
            raise NotOursError(number)
        lines.append(found)
    torn = b"" if not content or content.endswith(b"\n") else content.rpartition(b"\n")[2]
    if not _START.startswith(torn[: len(_START)]):
        raise NotOursError(len(whole) + 1)
    return lines


def _read(line: bytes) -> Line | None:
    """Return what a line of ours holds, None for any other."""
    try:
        fields: Any = json.loads(line)
        if not isinstance(fields, dict) or fields.pop(_MARK, None) != LINE_FORMAT:
            return None
        key = QuestionKey(fields.pop(_CONTENT), fields.pop(_NAMES))
        answer = Answer(**fields | {"images": tuple(fields["images"])})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    texts = (answer.id, answer.prompt, answer.settings, *answer.images)
    return Line(line, answer, key) if all(isinstance(text, str) for text in texts) else None
