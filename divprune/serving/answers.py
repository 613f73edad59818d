"""Answers of a batch on disk, one JSON line each, so that an interrupted batch goes on where it stopped."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from divprune.errors import BatchError
from divprune.jsonl_log import append_line
from divprune.outputs import safe_output, write_whole
from divprune.serving.answer_lines import ANSWERS, Answer, Line, NotOursError, as_content, read_lines, written
from divprune.serving.questions import BatchQuestion, digests

__all__ = ["Answer", "AnswerFile"]


class AnswerFile:
    """A JSONL file that answers are added to, each as soon as it is there.

    A line is the answer to a question if it has the question's id and digest. Lines of changed questions stay until all
    questions are answered: only `finish` takes them out, so that a run stopped at any time has lost nothing.

    Attributes:
        left: the questions that have no answer yet.
        num_changed: how many of them have an answer to another prompt or other images under their id.
        num_other: answers in the file whose ids are not in the batch; they stay.
    """

    def __init__(self, path: Path, settings: str, questions: Sequence[BatchQuestion]) -> None:
        """Read what an earlier run left; nothing is written yet.

        Args:
            path: the file; made with the first answer.
            settings: what answers depend on besides the question.
            questions: the batch.

        Raises:
            BatchError: the file holds something else, or answers by other settings, or cannot be written, or an image
                of an answered question cannot be read any more.
        """
        self.path, self._settings = path, settings
        # A link stays a link: what it points to is replaced.
        self._target = Path(os.path.realpath(path))
        safe_output("output", path, ANSWERS)
        if path.exists() and not path.is_file():
            raise BatchError(f"{path} must be a file: answers are read again; give another `output`")
        # Replaced by the first answer, not earlier; see `forced`.
        self._is_foreign = path.exists() and path.stat().st_size > 0 and not ANSWERS.is_kind_of(path)
        lines = self._read()
        self._digests = digests(questions)
        answered = [line for line in lines if line.is_answered]
        _check_images(path, questions, self._digests, {line.id for line in answered})
        current = {line.id for line in answered if self._is_current(line)}
        self.left = [question for question in questions if question.id not in current]
        self.num_changed = len({line.id for line in answered} & self._digests.keys() - current)
        self.num_other = len({line.id for line in lines} - self._digests.keys())

    def add(self, answer: Answer) -> None:
        """Append an answer: one line, on disk when this returns.

        Raises:
            BatchError: the disk takes no more.
        """
        line = written(answer, self._digests[answer.id])
        with self._writing():
            (write_whole if self._is_foreign else append_line)(self._target, line)
        self._is_foreign = False

    def finish(self) -> None:
        """Keep one line for each id, the current one where there is one; in one step, or not at all.

        Raises:
            BatchError: the disk takes no more.
        """
        content = as_content(self._latest(self._read()))
        if not self._is_foreign and content != self._content():
            with self._writing():
                write_whole(self._target, content)

    def _latest(self, lines: Iterable[Line]) -> list[Line]:
        """Return each id's last line, where its first one stood; an answer to another question never goes before."""
        latest: dict[str, Line] = {}
        for line in lines:
            before = latest.get(line.id)
            if before is None or self._is_current(line) or not self._is_current(before):
                latest[line.id] = line
        return list(latest.values())

    def _is_current(self, line: Line) -> bool:
        """Tell whether a line is about the question of this id, as it is asked now."""
        return line.digest is not None and line.digest == self._digests.get(line.id)

    def _content(self) -> bytes:
        if self._is_foreign:
            return b""
        try:
            return self._target.read_bytes()
        except FileNotFoundError:
            return b""

    def _read(self) -> list[Line]:
        try:
            lines = read_lines(self._content())
        except NotOursError as error:
            raise BatchError(
                f"{self.path} holds something else than answers of this version's `divprune batch` (line "
                f"{error.number} is none) and is left as it is; give another `output`"
            ) from None
        except OSError as error:
            raise BatchError(f"{self.path} cannot be read: {error.strerror}; give another `output`") from None
        for line in lines:
            if line.settings != self._settings:
                raise BatchError(
                    f"{self.path} holds answers of other settings, expected {self._settings!r}, got "
                    f"{line.settings!r}; give another `output`"
                )
        return lines

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BatchError(
                f"{self.path} cannot be written: {error.strerror}; make room and run the same command again: it goes "
                "on from the answers that are there"
            ) from None


def _check_images(
    path: Path, questions: Sequence[BatchQuestion], found: dict[str, str | None], answered: set[str]
) -> None:
    """Refuse to put an error in place of an answer because a disk, say, is not mounted."""
    for question in questions:
        if question.id in answered and found[question.id] is None:
            files = [image for image in question.images if isinstance(image, Path)]
            missing = [image for image in files if not os.access(image, os.R_OK) or not image.is_file()]
            raise BatchError(
                f"{(missing or files)[0]} cannot be read any more, and {path} has an answer about it: "
                f"restore it, or take question {question.id!r} out, or give another `output`"
            )
