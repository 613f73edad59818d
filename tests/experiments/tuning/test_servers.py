"""A pair of OpenAI-compatible servers: the same questions in turns, how far the answers agree, and clear ends."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from divprune.experiments import ServerPair, compare_servers
from tests.experiments.tuning.test_tune import write_questions
from tests.harness.servers import Stub, completion
from tests.support.commands import Command

CHAT, MODELS = "/v1/chat/completions", "/v1/models"


def served(answer: Callable[[str], str]) -> Stub:
    """A server that answers a prompt, and tells its model when it is asked."""

    def answered(method: str, content: Any) -> tuple[int, str]:
        if method == "GET":
            return 200, json.dumps({"data": [{"id": "the-model"}]})
        assert content["model"] == "the-model"
        assert content["temperature"] == 0
        image, text = content["messages"][0]["content"]
        kind, _, data = image["image_url"]["url"].partition(";base64,")
        assert kind == "data:image/png"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (128, 128)
        status, body = completion(answer(text["text"]))
        return status, json.dumps(json.loads(body) | {"usage": {"prompt_tokens": content["max_tokens"]}})

    return Stub(answered)


@pytest.fixture
def pair() -> Iterator[tuple[Stub, Stub]]:
    """The pruned server answers questions about what is red otherwise, and others in other letters."""
    unpruned, pruned = served(lambda prompt: "Yes."), served(lambda prompt: "no" if "red" in prompt else "yes")
    with unpruned.running(CHAT, MODELS), pruned.running(CHAT, MODELS):
        yield unpruned, pruned


def base(stub: Stub) -> str:
    return stub.url.removesuffix("/chat/completions")


def test_the_same_questions_in_turns(pair: tuple[Stub, Stub], tmp_path: Path) -> None:
    source = write_questions(tmp_path, range(10), answers=["yes", "no", "maybe"], answer=None)
    found = compare_servers(ServerPair(source, base(pair[0]), base(pair[1]), max_new_tokens=7))
    prompts = [[post["messages"][0]["content"][1]["text"] for post in stub.posts] for stub in pair]
    assert prompts[0] == prompts[1] == [question.prompt for question in found.questions]
    changed = [question for question in found.questions if "red" in question.prompt]
    assert [question for question, *_ in found.changed] == changed
    told = found.as_json()
    assert told["num_questions"] == 20
    same = told["answers"]["same"]
    assert same["value"] == 1 - len(changed) / 20
    assert 0 < same["low"] < same["value"] < same["high"] <= 1
    assert told["answers"]["accuracy"]["difference"]["value"] == 0, "one of three says so, and the same another"
    assert told["pruned"]["prompt_tokens"] == 7
    assert json.loads(json.dumps(told)) == told


def test_the_command_shows_what_changed(pair: tuple[Stub, Stub], tmp_path: Path, divprune: Command) -> None:
    source = write_questions(tmp_path, range(10))
    urls = ("--unpruned-url", base(pair[0]), "--pruned-url", base(pair[1]) + "/")
    outcome = divprune("tune", "--input", source, *urls)
    assert outcome.exit_code == 0, outcome.stderr
    shown = " ".join(outcome.stdout.split())
    assert "the same (between" in shown
    assert "With 95 % confidence at most" in shown
    assert "unpruned: 'Yes.'" in shown
    assert not list(tmp_path.glob("*tuned*"))
    told = divprune("tune", "--input", source, *urls, "--json").json
    assert len(told["rows"]) == 20
    agreeing = divprune("tune", "--input", source, *urls[:2], "--pruned-url", base(pair[0]))
    assert "100.0% the same (between 83.9% and 100.0%)" in " ".join(agreeing.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pruned-url", "http://127.0.0.1:1/v1"), "together"),
        (("--unpruned-url", "localhost", "--pruned-url", "http://127.0.0.1:1/v1"), "must begin with http"),
        (("--unpruned-url", "http://127.0.0.1:1/v1", "--pruned-url", "http://127.0.0.1:1/v1"), "does not answer"),
        (("--unpruned-url", "{base}", "--pruned-url", "{base}", "--methods", "fastv"), "--methods: not for running"),
        (("embedded", "--unpruned-url", "{base}", "--pruned-url", "{base}"), ": not for running"),
        (("--unpruned-url", "{base}", "--pruned-url", "{root}"), "give its address with /v1"),
    ],
)
def test_what_cannot_be_compared(
    arguments: tuple[str, ...], message: str, pair: tuple[Stub, Stub], tmp_path: Path, divprune: Command
) -> None:
    source = write_questions(tmp_path, range(6))
    root = base(pair[0]).removesuffix("/v1")
    given = [each.format(base=base(pair[0]), root=root) for each in arguments]
    outcome = divprune("tune", "--input", source, *given)
    assert outcome.exit_code == 2
    assert message in outcome.error


@pytest.mark.parametrize(
    ("answer", "message"),
    [((500, "it fell over"), "HTTP 500: it fell over"), ((200, "[]"), "something else than a chat")],
)
def test_a_server_that_fails_names_the_question(
    answer: tuple[int, str], message: str, pair: tuple[Stub, Stub], tmp_path: Path, divprune: Command
) -> None:
    original = pair[1].answer
    pair[1].answer = lambda method, content: original(method, content) if method == "GET" else answer
    source = write_questions(tmp_path, range(6), id=None)
    outcome = divprune("tune", "--input", source, "--unpruned-url", base(pair[0]), "--pruned-url", base(pair[1]))
    assert outcome.exit_code == 2
    assert message in outcome.error
    assert "question '1'" in outcome.error
