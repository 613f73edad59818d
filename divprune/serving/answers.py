"""Answers of a batch on disk, one JSON line each, so that an interrupted batch goes on where it stopped."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from divprune.errors import BatchError
from divprune.records import write_whole
from divprune.serving.questions import Question

FORMAT = "divprune answer"
"""Stands in every line: a file is ours only if each line says so."""
_HEAD = f'{{"format": "{FORMAT}", '


@dataclass(frozen=True)
class Answer:
    """One line of the answers.

    Attributes:
        id: of the question.
        prompt: what was asked.
        images: names of the images.
        settings: model, method and count.
        answer: what the model answered; None if it could not be asked.
        finish_reason: "stop", or "length" if the answer was cut at the longest one allowed.
        prompt_tokens: length of the prompt as the language model reads it, after pruning.
        answer_tokens: length of the answer.
        error: why it could not be asked; None if it could.
        question: `Question.fingerprint` of what was asked.
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
    question: str | None = None


class AnswerFile:
    """A JSONL file that answers are added to, each as soon as it is there.

    Attributes:
        path: the file.
        left: the questions that it does not answer: new ones, those that failed, and those whose prompt or images are
            not what was asked under this id before.
    """

    def __init__(self, path: Path, settings: str, questions: Sequence[Question]) -> None:
        """Read what an earlier run left; nothing that it holds is lost before it is replaced.

        Args:
            path: the file; made with the first answer.
            settings: what answers depend on besides the question.
            questions: of this run.

        Raises:
            BatchError: the file holds something else, or answers by other settings, or cannot be written.
        """
        self.path, self._settings = path, settings
        self._fingerprints = {question.id: question.fingerprint() for question in questions}
        self._lines: dict[str, str] = {}
        self._is_tidy = True
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise BatchError(f"{path} must be a file in a folder that exists")
        try:
            with path.open("a", encoding="utf-8"):
                pass
            answered = self._go_on() if path.stat().st_size else set()
        except OSError as error:
            raise BatchError(f"{path} cannot be written: {error.strerror}") from None
        self.left = [question for question in questions if question.id not in answered]

    def add(self, answer: Answer) -> None:
        """Append an answer; an older one to the same id stays until `finish`."""
        found = replace(answer, question=self._fingerprints[answer.id])
        line = _line(found)
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(line + "\n")
        self._is_tidy = self._is_tidy and answer.id not in self._lines
        self._lines[answer.id] = line

    def finish(self) -> None:
        """Leave one line an id, the newest."""
        if not self._is_tidy:
            self._rewrite()

    def _rewrite(self) -> None:
        write_whole(self.path, "".join(f"{line}\n" for line in self._lines.values()))
        self._is_tidy = True

    def _go_on(self) -> set[str]:
        """Ids that are answered as they would be now; a line that an earlier run did not finish is taken away."""
        *whole, broken = self.path.read_bytes().decode("utf-8", errors="replace").split("\n")
        answered: set[str] = set()
        for line in whole:
            found = self._checked(line)
            self._is_tidy = self._is_tidy and found.id not in self._lines
            self._lines[found.id] = line
            is_current = found.error is None and found.question == self._fingerprints.get(found.id)
            (answered.add if is_current else answered.discard)(found.id)
        # Cut short anywhere, one of our lines still begins as they do; without any whole line it must say who wrote it.
        if not (broken.startswith(_HEAD) or (whole and _HEAD.startswith(broken))):
            raise self._foreign()
        if broken:
            self._rewrite()
        return answered

    def _checked(self, line: str) -> Answer:
        try:
            found: dict[str, Any] = json.loads(line)
            if not line.startswith(_HEAD) or found.pop("format") != FORMAT or found.keys() != _NAMES:
                raise self._foreign()
        except ValueError as error:
            raise self._foreign() from error
        if found["settings"] != self._settings:
            raise BatchError(
                f"{self.path} holds answers of other settings, expected {self._settings!r}, "
                f"got {found['settings']!r}; give another --output"
            )
        return Answer(**found)

    def _foreign(self) -> BatchError:
        return BatchError(f"{self.path} holds something else than answers of this command; give another --output")


def _line(answer: Answer) -> str:
    return json.dumps({"format": FORMAT, **asdict(answer)}, ensure_ascii=False)


_NAMES = {field.name for field in fields(Answer)}
