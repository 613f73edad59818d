"""How likely a run's model finds the unpruned model's answers: judged while the run answers, kept beside its record.

requests -> answers of the unpruned run -> teacher forcing by this run's model -> `NAME.retention.jsonl`.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from PIL import Image

from divprune.distributed import is_main_process, num_processes
from divprune.errors import EvaluationError
from divprune.evaluation.results import JudgedResponse, Results
from divprune.evaluation.runs import UNPRUNED, EvaluationRun
from divprune.jsonl_log import JsonlLog
from divprune.media import Medium
from divprune.outputs import FileKind, safe_output, write_whole
from divprune.prompting import Conversation

_FILE = FileKind("retention file of a run", "one in another folder", rb'\A\{"key": ')


class RetentionJudge:
    """Judges the unpruned model's answers by the model of a run; those of earlier starts are not judged again."""

    def __init__(
        self, run: EvaluationRun, model: Any, results: Results, identity: Mapping[str, Any], resume: bool = True
    ) -> None:
        """Prepare.

        Args:
            run: what runs.
            model: that answers, a `HarnessModel`.
            results: the folder of records; the unpruned run's answers are there if this is another one.
            identity: what answers of the run depend on.
            resume: whether to take what earlier starts have judged.

        Raises:
            EvaluationError: the unpruned run has left no answers.
        """
        self._run, self._model, self._folder = run, model, results.folder
        self._answers: Mapping[str, str] | None = None
        if run.method != UNPRUNED:
            unpruned = EvaluationRun(run.model, run.task)
            self._answers = {each.key: each.answer for each in results.judged(unpruned)}
            if not self._answers:
                raise EvaluationError(
                    f"{run.name} is judged by the answers of {unpruned.name}, which has none; run that first, with "
                    "`retention`"
                )
            asked = json.dumps(self._answers, sort_keys=True)
            identity = {**identity, "answers": hashlib.sha256(asked.encode()).hexdigest()}
        self._log = JsonlLog(results.folder, f"{run.name}.retention", identity, model.rank)
        if not resume:
            self._log.delete(num_processes())
        self._known = {each.key: each for each in self._log.read(_parse)}

    def judge(self, requests: Sequence[Any], keys: Sequence[str], answer_of: Callable[[str], Any]) -> None:
        """Judge the answers to some requests, and write each down.

        Args:
            requests: of generation.
            keys: of these, see `request_key`.
            answer_of: this run's own answer to a request, by its key.
        """
        for request, key in zip(requests, keys, strict=True):
            answer = answer_of(key) if self._answers is None else self._answers.get(key)
            if key not in self._known and isinstance(answer, str) and answer.strip():
                self._known[key] = self._judged(request, key, answer.strip())
                self._log.append(asdict(self._known[key]))

    def finish(self) -> None:
        """Write the file of the run, with what other processes have judged; all wait: the next run reads it."""
        if is_main_process():
            found = {each.key: each for each in self._log.read(_parse)}
            lines = [json.dumps(asdict(found[key])) + "\n" for key in sorted(found)]
            path = safe_output("output", self._folder / f"{self._run.name}.retention.jsonl", _FILE)
            write_whole(path, "".join(lines))
            self._log.delete()
        self._model.accelerator.wait_for_everyone()

    def _judged(self, request: Any, key: str, answer: str) -> JudgedResponse:
        conversation = self._model.named(request, self._model.conversation_of)
        found = JudgedResponse(key, answer, self._model.judge(request, conversation, answer))
        if self._answers is not None:
            return found
        blind = self._model.judge(request, without_media(conversation), answer)
        return replace(found, blind_log_likelihood=blind, media=_digest(conversation))


def without_media(conversation: Conversation) -> Conversation:
    """Return a conversation in words alone."""
    words = [replace(each, parts=tuple(part for part in each.parts if isinstance(part, str))) for each in conversation]
    return [each for each in words if each.parts]


def _digest(conversation: Conversation) -> str:
    """Return what tells whether two requests show the same images."""
    digest = hashlib.sha256()
    for image in _images(part for message in conversation for part in message.parts):
        digest.update(repr(image.size).encode() + image.tobytes())
    return digest.hexdigest()[:16]


def _images(parts: Iterable[Any]) -> Iterable[Image.Image]:
    for part in parts:
        if isinstance(part, Image.Image):
            yield part
        elif isinstance(part, Medium):
            yield from part.frames


def _parse(line: Any) -> JudgedResponse:
    return JudgedResponse(**line)
