"""Questions to a server that speaks OpenAI's protocol: one that answers with the embedded model, and broken ones."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from divprune import prune
from divprune.checkpoints import EMBEDDED, load_model
from divprune.errors import EvaluationError, MissingDependencyError
from divprune.evaluation.runs import EvaluationRun
from divprune.prompting import Message, build_batch, decode_answer
from divprune.records import Record
from tests.harness.scene_runs import Silent, said, value
from tests.harness.scene_tasks import CHOICE, POPE
from tests.harness.servers import Answer, Stub, completion

CELL = EvaluationRun(EMBEDDED, POPE, "divprune", 0.098)
LIMIT = 10


@pytest.fixture(scope="module")
def answering() -> Callable[[str, Any], Answer]:
    """Answers as a server does whose model is pruned."""
    loaded = load_model(EMBEDDED, torch.device("cpu"), "float32")
    lock = threading.Lock()

    def answer(method: str, content: Any) -> Answer:
        pieces = content["messages"][-1]["content"]
        (url,) = [piece["image_url"]["url"] for piece in pieces if piece["type"] == "image_url"]
        (words,) = [piece["text"] for piece in pieces if piece["type"] == "text"]
        picture = Image.open(BytesIO(base64.b64decode(url.partition(",")[2])))
        with lock, prune(loaded.model, "divprune", keep_ratio=0.098):
            inputs = build_batch(loaded, [[Message("user", (picture, words))]])
            sequences = loaded.model.generate(**inputs, max_new_tokens=content["max_tokens"], do_sample=False)
        return completion(decode_answer(loaded, inputs, sequences))

    return answer


@pytest.fixture
def server(answering: Callable[[str, Any], Answer]) -> Iterator[Stub]:
    with Stub(answering).running("/v1/chat/completions") as stub:
        yield stub


def options(server: Stub) -> dict[str, Any]:
    address = server.url.removesuffix("/chat/completions")
    return {"backend": "openai-server", "base_url": address, "num_concurrent": 3, "limit": LIMIT, "served_model": "own"}


def test_a_server_answers_like_a_model_in_this_process(
    run: Callable[..., list[Record]], server: Stub, tmp_path: Path
) -> None:
    (here,) = run([CELL], output=tmp_path / "here", limit=LIMIT)
    (there,) = run([CELL], output=tmp_path / "there", **options(server))
    assert said(tmp_path / "there", CELL) == said(tmp_path / "here", CELL)
    assert value(there, "pope_f1_score") == value(here, "pope_f1_score")
    assert len(server.posts) == LIMIT
    assert {post["model"] for post in server.posts} == {"own"}
    assert there.config["backend"] == "openai-server"
    run([CELL], output=tmp_path / "there", **options(server))
    assert len(server.posts) == LIMIT, "what is done is not asked again"


def test_a_server_that_breaks_down_costs_no_answers(
    run: Callable[..., list[Record]], server: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("divprune.lmms_eval_plugin.runs.backends.SERVER_BACKOFF_SECONDS", 0.0)
    well, given = server.answer, options(server) | {"num_concurrent": 1}

    def failing(method: str, content: Any) -> Answer:
        return well(method, content) if len(server.posts) <= 6 else (503, json.dumps({"error": "overloaded"}))

    server.answer = failing
    with pytest.raises(EvaluationError, match=r"document \d of scenes_pope got no answer from the server.*same"):
        run([CELL], **given)
    server.answer, asked = well, len(server.posts)
    progress = Silent()
    (record,) = run([CELL], progress=progress, **given)
    assert record.config["num_samples"] == LIMIT
    assert "6 answers" in progress.notes[0]
    assert len(server.posts) == asked + LIMIT - 6


def test_what_a_server_cannot_do_is_said_first(
    run: Callable[..., list[Record]], server: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = options(server)
    (weighed,) = run([EvaluationRun(EMBEDDED, CHOICE, "divprune", 0.098)], **given)
    assert "weighs continuations" in weighed.config["refusal"]
    (placed,) = run([EvaluationRun(EMBEDDED, POPE, "divprune", 0.098, order="selection")], **given)
    assert "takes no order of its own" in placed.config["refusal"]
    (nowhere,) = run([CELL], **given | {"base_url": None})
    assert "`base_url`" in nowhere.config["refusal"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(EvaluationError, match="runs in one process"):
        run([CELL], **given)
    assert not server.posts


def test_answers_of_vllm_are_as_long_as_the_task_says() -> None:
    from divprune.lmms_eval_plugin.runs.vllm_model import TasksLengthVLLM

    model = object.__new__(TasksLengthVLLM)
    model.max_new_tokens = 1024
    assert [model._select_max_new_tokens(asked) for asked in (6, "16", None)] == [6, 16, 1024]


def test_vllm_that_is_missing_is_said(run: Callable[..., list[Record]]) -> None:
    with pytest.raises(MissingDependencyError, match=r"divprune\[eval,vllm\]"):
        run([CELL], backend="vllm", limit=2)
