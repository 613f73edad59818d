"""A running pair of OpenAI-compatible servers, one pruned and one not: how far do their answers agree?

Servers tell answers but no likelihoods of given ones, so this is agreement alone, and nothing is searched.
"""

import base64
import json
import mimetypes
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from divprune.errors import ArgumentError, TuningError
from divprune.experiments.tuning.agreement import ComparedAnswer, agreement, kind_of, normalised
from divprune.experiments.tuning.questions import questions_with_images
from divprune.json_over_http import NoAnswerError, get_text, post_json
from divprune.progress import SILENT, Progress
from divprune.serving.questions import BatchQuestion

PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class ServerPair:
    """Which servers are asked what.

    Attributes:
        source: A folder of images, or a JSONL file of questions, as for `divprune batch`.
        unpruned_url: Of the unpruned server, such as http://127.0.0.1:8000/v1.
        pruned_url: Of the pruned one.
        prompt: Asked where the source does not say.
        recursive: Whether a folder's subfolders are read too.
        limit: Only so many questions, drawn at random; None for all.
        max_new_tokens: Length limit of an answer.
    """

    source: Path
    unpruned_url: str
    pruned_url: str
    prompt: str | None = None
    recursive: bool = False
    limit: int | None = None
    max_new_tokens: int = 64


@dataclass(frozen=True)
class ServerAnswer:
    """What a server answered: the text, the tokens of its prompt if it tells, and how long it took."""

    text: str
    prompt_tokens: int | None
    seconds: float


@dataclass(frozen=True)
class ServerAgreement:
    """How far two servers agree.

    Attributes:
        questions: What was asked.
        unpruned: The unpruned server's answers, one a question.
        pruned: The pruned server's.
    """

    questions: Sequence[BatchQuestion]
    unpruned: Sequence[ServerAnswer]
    pruned: Sequence[ServerAnswer]

    @property
    def changed(self) -> list[tuple[BatchQuestion, str, str]]:
        """Questions that are answered in other words, with both answers."""
        every = zip(self.questions, self.unpruned, self.pruned, strict=True)
        return [
            (question, before.text, after.text)
            for question, before, after in every
            if normalised(before.text) != normalised(after.text)
        ]

    def as_json(self) -> dict[str, Any]:
        """Return it, ready for JSON."""
        every = list(zip(self.questions, self.unpruned, self.pruned, strict=True))
        pairs = [
            ComparedAnswer(kind_of(question.prompt), before.text, after.text, question.answers)
            for question, before, after in every
        ]
        return {
            "num_questions": len(every),
            "answers": agreement(pairs),
            "unpruned": _summary(self.unpruned),
            "pruned": _summary(self.pruned),
            "rows": [
                {"id": question.id, "unpruned": asdict(before), "pruned": asdict(after)}
                for question, before, after in every
            ],
        }


def compare_servers(options: ServerPair, progress: Progress = SILENT) -> ServerAgreement:
    """Ask two servers the same questions in turns, one at a time, greedily.

    A key for both is taken from the variable OPENAI_API_KEY.

    Raises:
        ArgumentError: There is no such server at an address.
        BatchError: The questions cannot be read.
        TuningError: There are too few questions, or a server does not answer one.
    """
    questions = questions_with_images(
        options.source, options.prompt, recursive=options.recursive, limit=options.limit, progress=progress
    )
    addresses = {"unpruned_url": options.unpruned_url, "pruned_url": options.pruned_url}
    servers = [_Server(name, url, options.max_new_tokens) for name, url in addresses.items()]
    answers: list[list[ServerAnswer]] = [[], []]
    with progress.counting("asking both servers", len(questions)) as advance:
        for number, question in enumerate(questions):
            # Whoever is asked second finds the files in the system's cache.
            for place in (0, 1) if number % 2 == 0 else (1, 0):
                answers[place].append(servers[place].ask(question))
            advance(1)
    return ServerAgreement(questions, *answers)


class _Server:
    def __init__(self, argument: str, url: str, max_new_tokens: int) -> None:
        if not url.startswith(("http://", "https://")):
            raise ArgumentError(f"`{argument}` must begin with http:// or https://, got {url!r}")
        self._url, self._max_new_tokens = url.rstrip("/"), max_new_tokens
        key = os.environ.get("OPENAI_API_KEY")
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        try:
            listed = json.loads(get_text(f"{self._url}/models", self._headers))
            self._model: str = listed["data"][0]["id"]
        except NoAnswerError as error:
            raise ArgumentError(
                f"`{argument}` {url} does not answer ({error}); start the server, and give its address with /v1"
            ) from None
        except (ValueError, KeyError, IndexError, TypeError):
            raise ArgumentError(
                f"`{argument}` {url} does not list a model as OpenAI-compatible servers do; its address ends in /v1"
            ) from None

    def ask(self, question: BatchQuestion) -> ServerAnswer:
        """Ask one question."""
        images = [{"type": "image_url", "image_url": {"url": _url_of(image)}} for image in question.images]
        content = [*images, {"type": "text", "text": question.prompt}]
        payload = {
            "model": self._model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self._max_new_tokens,
        }
        started = time.perf_counter()
        try:
            found = json.loads(post_json(f"{self._url}/chat/completions", payload, self._headers, PATIENCE_SECONDS))
            seconds = time.perf_counter() - started
            text = str(found["choices"][0]["message"]["content"] or "").strip()
        except NoAnswerError as error:
            raise TuningError(f"{self._url} gives no answer to question {question.id!r}: {error}") from None
        except (ValueError, KeyError, IndexError, TypeError):
            raise TuningError(f"{self._url} answers question {question.id!r} with something else than a chat") from None
        return ServerAnswer(text, (found.get("usage") or {}).get("prompt_tokens"), seconds)


def _url_of(image: Path | str) -> str:
    if isinstance(image, str):
        return image
    kind = mimetypes.guess_type(image.name)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(image.read_bytes()).decode()}"


def _summary(answers: Sequence[ServerAnswer]) -> dict[str, float | None]:
    tokens = [each.prompt_tokens for each in answers if each.prompt_tokens is not None]
    seconds = median(each.seconds for each in answers)
    return {"prompt_tokens": fmean(tokens) if tokens else None, "seconds": seconds}
