"""Answers of a batch on disk, one JSON line each, so that an interrupted batch goes on where it stopped."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from divprune.errors import BatchError
from divprune.jsonl_log import append_line
from divprune.outputs import safe_output, write_whole
from divprune.serving.answer_lines import ANSWERS, Answer, Line, NotOursError, read_lines, written
from divprune.serving.question_keys import QuestionKey, marks_of, question_keys
from divprune.serving.questions import BatchQuestion

__all__ = ["Answer", "AnswerFile"]


class AnswerFile:
    """A JSONL file that answers are added to, each as soon as it is there.

    An answer is found again by its question's key (prompt and images): a question that got another id, because its
    image was renamed or a line was inserted above it, takes its answer along. Lines of changed questions stay until all
    questions are answered: only `finish` takes them out, so that a run stopped at any time has lost nothing.

    Attributes:
        left: the questions that have no answer yet.
        num_changed: how many of them have an answer to another prompt or other images under their id.
        num_unread: how many of them were answered under `trust_names`, so that the images' content is not known.
        num_gone: answers to questions that are not in the batch, under ids that are; `finish` takes them out.
        num_other: answers in the file whose ids are not in the batch; they stay.
        num_unsettled: added answers to questions whose images were changed while the batch ran.
    """

    def __init__(
        self, path: Path, settings: str, questions: Sequence[BatchQuestion], *, trust_names: bool = False
    ) -> None:
        """Read what an earlier run left; nothing is written yet.

        Args:
            path: the file; made with the first answer.
            settings: what answers depend on besides the question.
            questions: the batch.
            trust_names: whether images are known by path, size and time of change, and not read.

        Raises:
            BatchError: the file holds something else, or answers by other settings, or cannot be written, or an image
                of an answered question cannot be read any more.
        """
        self.path, self._settings, self._trust_names = path, settings, trust_names
        # A link stays a link: what it points to is replaced.
        self._target = Path(os.path.realpath(path))
        safe_output("output", path, ANSWERS)
        if path.exists() and not path.is_file():
            raise BatchError(f"{path} must be a file: answers are read again; give another `output`")
        # Replaced by the first answer, not earlier; see `forced`.
        self._is_foreign = path.exists() and path.stat().st_size > 0 and not ANSWERS.is_kind_of(path)
        lines = self._read()
        self._questions = {question.id: question for question in questions}
        # Before the images are read, so that none is changed unnoticed.
        self._marks = {question.id: marks_of(question) for question in questions}
        self._keys = question_keys(questions, trust_names=trust_names)
        current = self._current(lines)
        self.left = [question for question in questions if question.id not in current]
        self.num_unsettled = 0
        self._count(lines, current)

    def add(self, answer: Answer) -> None:
        """Append an answer: one line, on disk when this returns.

        Raises:
            BatchError: the disk takes no more.
        """
        key = self._keys[answer.id]
        if marks_of(self._questions[answer.id]) != self._marks[answer.id]:
            # Nobody knows which image the engine has seen; without a key it is asked again.
            key = QuestionKey(None, None)
            self.num_unsettled += answer.error is None
        line = written(answer, key)
        with self._writing():
            (write_whole if self._is_foreign else append_line)(self._target, line)
        self._is_foreign = False

    def finish(self) -> None:
        """Keep one line for each id, those of the batch first and in its order; in one step, or not at all.

        Raises:
            BatchError: the disk takes no more.
        """
        if self._is_foreign:
            return
        lines = self._read()
        current = self._current(lines)
        taken = {id(line) for line in current.values()}
        spare = {line.id: line for line in lines if id(line) not in taken}
        kept = [self._renewed(name, current.get(name), spare.get(name)) for name in self._questions]
        kept += [line.content + b"\n" for name, line in spare.items() if name not in self._questions]
        content = b"".join(kept)
        if content != self._content():
            with self._writing():
                write_whole(self._target, content)

    def _current(self, lines: Sequence[Line]) -> dict[str, Line]:
        """Find the answer to each question: one under its own id, else one that no other question takes.

        Returns:
            Lines by the ids that questions have now.
        """
        by_key: dict[str, dict[str, Line]] = defaultdict(dict)
        for line in lines:
            known = self._known(line.key)
            if line.is_answered and known is not None:
                by_key[known][line.id] = line
        found: dict[str, Line] = {}
        for is_own in (True, False):
            for name, key in self._keys.items():
                unused = by_key.get(self._known(key) or "", {})
                if name not in found and (name in unused if is_own else unused):
                    found[name] = unused.pop(name if is_own else next(iter(unused)))
        return found

    def _known(self, key: QuestionKey) -> str | None:
        """Return the half of a key that this run goes by."""
        return key.names if self._trust_names else key.content

    def _renewed(self, name: str, current: Line | None, other: Line | None) -> bytes:
        """Return the line of a question: its answer under the id and names of now, or else what this run found."""
        if current is None:
            return b"" if other is None else other.content + b"\n"
        question, key = self._questions[name], self._keys[name]
        answer = replace(current.answer, id=name, images=question.image_names)
        return written(answer, QuestionKey(key.content or current.key.content, key.names or current.key.names))

    def _count(self, lines: Sequence[Line], current: dict[str, Line]) -> None:
        """Count answers that are no answers to the batch, and see to it that none is lost with a disk."""
        taken = {id(line) for line in current.values()}
        spare = [line for line in lines if line.is_answered and id(line) not in taken]
        _check_images(self.path, [each for each in self.left if self._known(self._keys[each.id]) is None], spare)
        left, answered = {question.id for question in self.left}, {line.id for line in spare}
        unread = {line.id for line in spare if line.key.names and self._known(line.key) is None}
        self.num_unread = len(unread & left)
        self.num_changed = len(answered & left - unread)
        self.num_gone = len({line.id for line in spare if line.key.names} & self._questions.keys() - left)
        self.num_other = len({line.id for line in lines if id(line) not in taken} - self._questions.keys())

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
            if line.answer.settings != self._settings:
                raise BatchError(
                    f"{self.path} holds answers of other settings, expected {self._settings!r}, got "
                    f"{line.answer.settings!r}; give another `output`"
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


def _check_images(path: Path, unreadable: Sequence[BatchQuestion], spare: Sequence[Line]) -> None:
    """Refuse to put an error in place of an answer because a disk, say, is not mounted."""
    ids = {line.id for line in spare}
    asked = {(line.answer.prompt, line.answer.images) for line in spare}
    for question in unreadable:
        if question.id in ids or (question.prompt, question.image_names) in asked:
            missing = [image for image in question.files if not os.access(image, os.R_OK) or not image.is_file()]
            raise BatchError(
                f"{(missing or question.files)[0]} cannot be read any more, and {path} has an answer about it: "
                f"restore it, or take question {question.id!r} out, or give another `output`"
            )
