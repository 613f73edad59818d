"""Answers of a batch on disk, one JSON line each, so that an interrupted batch goes on where it stopped."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from divprune.errors import BatchError
from divprune.records import write_whole


@dataclass(frozen=True)
class Answer:
    """One line of the answers.

    Attributes:
        id: of the question.
        prompt: what was asked.
        images: names of the pictures.
        answer: what the model says; None if it could not be asked.
        finish_reason: "stop", or "length" if the answer was cut at the longest one allowed.
        prompt_tokens: length of the prompt as the language model reads it, after pruning.
        answer_tokens: length of the answer.
        error: why it could not be asked; None if it could.
        settings: model, method and count.
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


class AnswerFile:
    """A JSONL file that answers are added to, each as soon as it is there."""

    def __init__(self, path: Path, settings: str) -> None:
        """Read what an earlier run left; a line that it did not finish, and questions that failed, are asked again.

        Args:
            path: the file; made with the first answer.
            settings: what answers depend on besides the question.

        Raises:
            BatchError: the file holds something else, or answers by other settings, or cannot be written.
        """
        self.path, self._settings = path, settings
        self.answered: set[str] = set()
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise BatchError(f"{path} must be a file in a folder that exists")
        try:
            with path.open("a", encoding="utf-8"):
                pass
            if path.stat().st_size:
                self._go_on()
        except OSError as error:
            raise BatchError(f"{path} cannot be written: {error.strerror}") from None

    def add(self, answer: Answer) -> None:
        """Append an answer."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(answer), ensure_ascii=False) + "\n")
        self.answered.add(answer.id)

    def _go_on(self) -> None:
        text = self.path.read_text(encoding="utf-8", errors="replace")
        whole, _, broken = text.rpartition("\n")
        kept = []
        for line in whole.splitlines():
            fields = self._checked(line)
            if fields["error"] is None:
                kept.append(line)
                self.answered.add(fields["id"])
        if broken or len(kept) < len(whole.splitlines()):
            write_whole(self.path, "".join(f"{line}\n" for line in kept))

    def _checked(self, line: str) -> dict[str, Any]:
        try:
            fields: dict[str, Any] = json.loads(line)
            Answer(**fields)
        except (ValueError, TypeError):
            raise BatchError(
                f"{self.path} holds something else than answers of this command; give another --output"
            ) from None
        if fields["settings"] != self._settings:
            raise BatchError(
                f"{self.path} holds answers of other settings, expected {self._settings!r}, "
                f"got {fields['settings']!r}; give another --output"
            )
        return fields
