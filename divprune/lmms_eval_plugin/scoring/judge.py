"""A language model that says how well an answer matches the expected one, behind OpenAI's protocol.

The judge is named by lmms-eval's environment variables: MODEL_VERSION, API_TYPE (openai or azure), OPENAI_API_URL (of
chat completions) and OPENAI_API_KEY, or AZURE_ENDPOINT and AZURE_API_KEY. The paper's, gpt-3.5-turbo-0613, is not
offered any more, so scores of a judge compare only with scores of the same judge.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from divprune.errors import EvaluationError
from divprune.json_over_http import NoAnswerError, post_json
from divprune.jsonl_log import append_line
from divprune.lmms_eval_plugin.scoring.settings import ScoringSettings, current

PAPERS_JUDGE = "gpt-3.5-turbo-0613"
DEFAULT_MODEL = "gpt-4o-2024-11-20"
DEFAULT_URL = "https://api.openai.com/v1/chat/completions"
ANSWERS_FILE = "judged.jsonl"

Messages = list[dict[str, str]]
Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Judge:
    """Which model is asked, and where.

    Attributes:
        model: its name.
        url: of its chat completions.
        key: the secret that pays; None if there is none.
        azure: whether the server is one of Azure, which wants the key under another name.
    """

    model: str
    url: str
    key: str | None = field(repr=False)
    azure: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """What tells the server who asks."""
        return {"api-key": self.key or ""} if self.azure else {"Authorization": f"Bearer {self.key}"}

    def ask(self, messages: Messages, max_tokens: int) -> str:
        """One request, without a second try.

        Raises:
            NoAnswerError: there was no answer, or not one of the protocol.
        """
        wanted = {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": max_tokens}
        text = post_json(self.url, wanted, self.headers)
        try:
            content = json.loads(text)["choices"][0]["message"]["content"].strip()
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise NoAnswerError(f"an answer that is none of chat completions: {text[:200]!r}") from None
        if not content:
            raise NoAnswerError("an empty answer")
        return str(content)


def judge_from_environment() -> Judge:
    """Return the judge that lmms-eval's variables name."""
    azure = os.environ.get("API_TYPE", "openai") == "azure"
    key = os.environ.get("AZURE_API_KEY" if azure else "OPENAI_API_KEY")
    url = os.environ.get("AZURE_ENDPOINT" if azure else "OPENAI_API_URL") or DEFAULT_URL
    model = os.environ.get("MODEL_VERSION") or DEFAULT_MODEL
    return Judge(model, url, key if key and key != "YOUR_API_KEY" else None, azure)


class Bench:
    """Asks a judge, keeps what it said in a file, and never asks the same again.

    Attributes:
        judge: who is asked.
        file: one JSON object a line, with "key", "model" and "said"; each process writes its own and reads all.
    """

    def __init__(self, judge: Judge, settings: ScoringSettings) -> None:
        self.judge = judge
        rank = os.environ.get("RANK", "0")
        self.file = settings.kept_in / (ANSWERS_FILE if rank == "0" else f"judged-{rank}.jsonl")
        self._settings = settings
        self._lock = threading.Lock()
        self._known = _kept_answers(settings.kept_in)
        self._failure: str | None = None

    def read(self, messages: Messages, max_tokens: int, parse: Callable[[str], Read | None]) -> Read:
        """Return what the judge says about the messages, as `parse` reads it.

        Args:
            messages: of the request.
            max_tokens: of the answer.
            parse: None for an answer that it cannot read, which is asked for again.

        Raises:
            EvaluationError: the judge does not answer, or never readably. What it said before is kept.
        """
        key = hashlib.sha256(json.dumps([self.judge.model, messages, max_tokens]).encode()).hexdigest()
        said = self._known.get(key)
        if said is not None and (known := parse(said)) is not None:
            return known
        for tried in range(self._settings.tries):
            said = self._asked(messages, max_tokens)
            if (read := parse(said)) is not None:
                self._keep(key, said)
                return read
            time.sleep(self._settings.wait_seconds * tried)
        asked = messages[-1]["content"][:300]
        raise self._failed(
            f"said {said!r} to {asked!r}, which has no score that can be read; name another judge by MODEL_VERSION, or "
            "leave the task out"
        )

    def _asked(self, messages: Messages, max_tokens: int) -> str:
        for tried in range(self._settings.tries):
            if self._failure is not None:
                raise EvaluationError(self._failure)
            try:
                return self.judge.ask(messages, max_tokens)
            except NoAnswerError as error:
                if error.final or tried + 1 == self._settings.tries:
                    raise self._failed(f"does not answer any more ({error})") from error
            time.sleep(self._settings.wait_seconds * (tried + 1))
        raise AssertionError("unreachable")

    def _failed(self, what: str) -> EvaluationError:
        """Let the other threads, and lmms-eval's further tries, fail at once with the same words."""
        self._failure = (
            f"the judge {self.judge.model} at {self.judge.url} {what}; the {len(self._known)} answers that it has "
            f"given are kept in {self.file} and are not asked for again"
        )
        return EvaluationError(self._failure)

    def _keep(self, key: str, said: str) -> None:
        line = json.dumps({"key": key, "model": self.judge.model, "said": said})
        with self._lock:
            self._known[key] = said
            self.file.parent.mkdir(parents=True, exist_ok=True)
            append_line(self.file, line.encode() + b"\n")


def _kept_answers(folder: Path) -> dict[str, str]:
    """Return what judges have said before; a last line that a crash cut off is left out."""
    known: dict[str, str] = {}
    for file in sorted(folder.glob("judged*.jsonl")):
        for line in file.read_bytes().split(b"\n"):
            try:
                entry = json.loads(line)
                known[entry["key"]] = entry["said"]
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
    return known


_BENCHES: dict[tuple[Judge, Any], Bench] = {}
_OPENING = threading.Lock()


def judge_bench() -> Bench:
    """Return the bench of this process's judge and settings."""
    key = (judge_from_environment(), current())
    with _OPENING:
        if key not in _BENCHES:
            _BENCHES[key] = Bench(*key)
        return _BENCHES[key]


def close_benches() -> None:
    """Forget benches, with their failures: a run begins anew, and reads what was kept."""
    with _OPENING:
        _BENCHES.clear()
