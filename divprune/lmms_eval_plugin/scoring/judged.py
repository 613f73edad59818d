"""ActivityNet-QA and VideoChatGPT: a judge reads every answer.

The words to the judge are those of lmms-eval's own functions, which cannot be called as they are: they need HF_HOME to
be set when imported, take an unreachable judge for a score of 0, and ask for the same again.
"""

import importlib.util
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import ModuleType, SimpleNamespace
from typing import Any

from divprune.lmms_eval_plugin.scoring.documents import Document
from divprune.lmms_eval_plugin.scoring.judge import Messages, judge_bench

MAX_TOKENS = 64
_IMPORTING = threading.Lock()


def activitynet(document: Document, answers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Tell whether the judge takes the answer for right, in percent, and its score from 0 to 5."""
    said = answers[0]
    messages = _messages("activitynetqa", "get_eval", document["question"], document["answer"], said)
    verdict, rating = judge_bench().read(messages, MAX_TOKENS, _verdict)
    sample_score = {"question_id": document["question_id"], "pred": said, "Correctness": verdict, "rating": rating}
    return {
        "gpt_eval_score": sample_score | {"score": float(rating)},
        "gpt_eval_accuracy": sample_score | {"score": 100.0 * (verdict == "yes")},
    }


def videochatgpt_temporal(document: Document, answers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Tell how well the answer keeps the order of events, from 0 to 5."""
    said = answers[0]
    question, expected = document["question"], document["answer"]
    messages = _messages("videochatgpt", "get_eval_generic", question, expected, said, "temporal")
    rating = judge_bench().read(messages, MAX_TOKENS, _rating)
    sample_score = {"video_name": document["video_name"], "Q": question, "A": expected, "pred": said}
    return {"gpt_eval_score_temporal": sample_score | {"score": float(rating)}}


def _rating(said: str) -> int | None:
    """Return the integer part of a score from 0 to 5, as lmms-eval takes it; None if there is none.

    Judges repeat the doubled quote of the example in their instructions: a score all the same.
    """
    found = re.search(r"""["']score["']?\s*:\s*["']?(\d+(?:\.\d+)?)""", said)
    rating = int(float(found[1])) if found else None
    return rating if rating is not None and 0 <= rating <= 5 else None


def _verdict(said: str) -> tuple[str, int] | None:
    """Yes or no, and a score from 0 to 5; None if either is missing."""
    found = re.search(r"""["']pred["']?\s*:\s*["']?\s*([a-z]+)""", said.lower())
    rating = _rating(said)
    if found is None or rating is None or found[1] not in ("yes", "no"):
        return None
    return found[1], rating


def _messages(task: str, function: str, *arguments: str) -> Messages:
    """Return what lmms-eval's function would send to the judge."""
    caught = threading.local()
    module = _private_copy(task)
    with _IMPORTING:
        module.requests = _catching(caught)  # type: ignore[attr-defined]
        getattr(module, function)(*arguments, MAX_TOKENS, retries=1)
    messages: Messages = caught.payload["messages"]
    return messages


def _catching(caught: threading.local) -> SimpleNamespace:
    """Something that lmms-eval takes for the library that sends requests."""

    def post(url: str, headers: Mapping[str, str], json: Mapping[str, Any], timeout: float) -> SimpleNamespace:
        caught.payload = json
        answer: Callable[[], Any] = lambda: {"choices": [{"message": {"content": "-"}}], "model": ""}  # noqa: E731
        return SimpleNamespace(raise_for_status=lambda: None, json=answer)

    errors = SimpleNamespace(HTTPError=OSError, RequestException=OSError, JSONDecodeError=ValueError)
    return SimpleNamespace(post=post, exceptions=errors)


@lru_cache(maxsize=4)
def _private_copy(task: str) -> ModuleType:
    """lmms-eval's functions of a task in a module of our own, imported with HF_HOME set."""
    spec = importlib.util.find_spec(f"lmms_eval.tasks.{task}.utils")
    if spec is None or spec.origin is None:
        raise ImportError(f"lmms-eval has no task {task!r}")
    own = importlib.util.spec_from_file_location(f"divprune_private_{task}", spec.origin)
    if own is None or own.loader is None:
        raise ImportError(f"cannot read {spec.origin}")
    module = importlib.util.module_from_spec(own)
    with _IMPORTING:
        missing = "HF_HOME" not in os.environ
        os.environ.setdefault("HF_HOME", os.path.expanduser("~/.cache/huggingface"))
        try:
            own.loader.exec_module(module)
        finally:
            if missing:
                del os.environ["HF_HOME"]
    return module
