"""Answers of a run through lmms-eval by request: written as soon as they are there, and never asked for again."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from divprune.jsonl_log import JsonlLog


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to one request.

    Attributes:
        key: of the request; see `request_key`.
        response: a text, texts of several rounds, or a log-likelihood and whether it is greedy.
        input_tokens: length of the prompt after pruning; None if the backend does not tell.
        output_tokens: length of the answer; None if the backend does not tell.
    """

    key: str
    response: Any
    input_tokens: int | None = None
    output_tokens: int | None = None


class Answers:
    """Responses by request, and the measurements of the calls that gave them.

    Attributes:
        measured: one mapping a call, those of earlier runs and other processes included.
    """

    def __init__(self, log: JsonlLog) -> None:
        """Read what earlier runs left."""
        self._log = log
        self.read()

    def __len__(self) -> int:
        """Return how many responses there are."""
        return len(self._by_key)

    def get(self, key: str) -> Response | None:
        """Return the response to a request, None if there is none yet."""
        return self._by_key.get(key)

    def read(self) -> None:
        """Read all files, with what other processes have written meanwhile."""
        self._by_key: dict[str, Response] = {}
        self.measured: list[Mapping[str, Any]] = []
        for responses, measured in self._log.read(_parse):
            self._take(responses, measured)

    def add(self, responses: Iterable[Response], measured: Iterable[Mapping[str, Any]] = ()) -> None:
        """Keep the responses of a batch and what was measured meanwhile: one line, whole or not at all.

        Raises:
            EvaluationError: the disk takes no more.
        """
        batch, figures = list(responses), list(measured)
        self._log.append({"responses": [asdict(one) for one in batch], "measured": figures})
        self._take(batch, figures)

    def forget(self, num_processes: int) -> None:
        """Remove this process's file, and those of processes that are not there any more."""
        self._log.delete(num_processes)
        self._by_key.clear()
        self.measured.clear()

    def delete(self) -> None:
        """Remove the files: their answers are in a record now."""
        self._log.delete()

    def _take(self, responses: list[Response], measured: list[Mapping[str, Any]]) -> None:
        if any(one.key not in self._by_key for one in responses):
            self.measured += measured
        self._by_key.update((one.key, one) for one in responses)


def _parse(line: Any) -> tuple[list[Response], list[Mapping[str, Any]]]:
    return [Response(**fields) for fields in line["responses"]], line["measured"]


def request_key(kind: str, request: Any, occurrence: int) -> str:
    """Return what identifies a request of lmms-eval: its task, document and words, not its images.

    Args:
        kind: "generate_until", "loglikelihood" or the like.
        request: an `Instance`.
        occurrence: how many equal requests stand before it: tasks may ask the same several times.
    """
    words = [part for part in request.args if isinstance(part, (str, int, float, Mapping))]
    told = [kind, request.task_name, request.doc_id, request.idx, occurrence, words]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:24]
