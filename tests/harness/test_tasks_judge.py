"""The judge of ActivityNet-QA and VideoChatGPT: asked in lmms-eval's words, never twice, and never silently missing."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lmms_eval")

from tenacity import RetryError

from divprune.errors import EvaluationError
from divprune.lmms_eval_plugin.runs import preflight
from divprune.lmms_eval_plugin.scoring import judged
from divprune.lmms_eval_plugin.scoring.judge import ANSWERS_FILE, close_benches, judge_from_environment
from tests.harness.data_schemas import MADE
from tests.harness.scripted import ScriptedSimple, evaluate, metric
from tests.harness.servers import Answer, Stub, completion, judge

ACTIVITYNET, VIDEOCHATGPT = "divprune_paper_activitynet", "divprune_paper_videochatgpt"
DOCUMENT = {"question": "what is it", "answer": "a dog", "question_id": "v_1", "video_name": "clip"}


def run(manager: Any, key: str = "activitynet") -> dict[str, Any]:
    task = f"divprune_paper_{key}"
    return evaluate(ScriptedSimple({task: MADE[key].half}), [task], manager, process_docs_parallel=1)


def cause(error: BaseException) -> EvaluationError:
    assert isinstance(error, RetryError)
    found = error.last_attempt.exception()
    assert isinstance(found, EvaluationError)
    return found


def test_the_judge_is_asked_in_the_words_of_lmms_eval(judge_stub: Stub, settings: Any) -> None:
    judged.activitynet(DOCUMENT, ["a cat"])
    judged.videochatgpt_temporal(DOCUMENT, ["a cat"])
    first, second = judge_stub.posts
    assert first["model"] == second["model"] == "stub-judge"
    assert (first["temperature"], first["max_tokens"]) == (0, 64)
    system, user = first["messages"]
    assert system["content"].startswith("You are an intelligent chatbot designed for evaluating the correctness of")
    assert "Question: what is it\nCorrect Answer: a dog\nPredicted Answer: a cat\n" in user["content"]
    assert "keys 'pred' and 'score'" in user["content"]
    assert "temporal understanding" in second["messages"][0]["content"]
    assert judge_stub.requests[0][2]["Authorization"] == "Bearer a-key"


def test_both_scores_of_activitynet_come_from_one_request(judge_stub: Stub, settings: Any, manager: Any) -> None:
    results = run(manager)
    assert metric(results, ACTIVITYNET, "gpt_eval_accuracy") == 50.0
    assert metric(results, ACTIVITYNET, "gpt_eval_score") == 2.0  # 4.8 counts as 4, as in lmms-eval
    assert len(judge_stub.posts) == 4


def test_answers_of_a_judge_are_kept_and_not_asked_again(judge_stub: Stub, settings: Any, manager: Any) -> None:
    before = run(manager)
    close_benches()
    assert metric(run(manager), ACTIVITYNET, "gpt_eval_score") == metric(before, ACTIVITYNET, "gpt_eval_score")
    assert len(judge_stub.posts) == 4
    lines = (settings.folder / ANSWERS_FILE).read_text().splitlines()
    assert {json.loads(line)["model"] for line in lines} == {"stub-judge"}
    assert len(lines) == 4


def test_another_judge_is_asked_anew(judge_stub: Stub, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    judged.activitynet(DOCUMENT, ["a cat"])
    monkeypatch.setenv("MODEL_VERSION", "another")
    judged.activitynet(DOCUMENT, ["a cat"])
    assert [post["model"] for post in judge_stub.posts] == ["stub-judge", "another"]


@pytest.mark.parametrize("key", ["activitynet", "videochatgpt"])
def test_a_judge_that_dies_fails_the_run_and_keeps_what_it_said(
    key: str, judge_stub: Stub, settings: Any, manager: Any
) -> None:
    def dying(method: str, content: Any) -> Answer:
        return judge(method, content) if len(judge_stub.posts) < 3 else (503, "overloaded")

    judge_stub.answer = dying
    with pytest.raises(RetryError) as caught:
        run(manager, key)
    message = str(cause(caught.value))
    assert "does not answer any more (HTTP 503: overloaded)" in message
    assert f"the 2 answers that it has given are kept in {settings.folder / ANSWERS_FILE}" in message
    assert len(judge_stub.posts) == 4  # two good ones, and two tries of the third
    judge_stub.answer = judge
    preflight.check_scoring([f"divprune_paper_{key}"], manager, settings)
    assert metric(run(manager, key), f"divprune_paper_{key}", MADE_METRICS[key]) == MADE[key].scores[1]
    assert len(judge_stub.posts) == 7  # one before the run, and the two that were missing


MADE_METRICS = {"activitynet": "gpt_eval_accuracy", "videochatgpt": "gpt_eval_score_temporal"}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, '{"error": "invalid key"}'), "HTTP 401.*invalid key"),
        ((200, "<html>hello</html>"), "none of chat completions.*<html>"),
        ((200, '{"choices": []}'), "none of chat completions"),
        (completion(""), "an empty answer"),
        (completion("I cannot say."), "no score that can be read"),
        (completion("{'pred': 'maybe', 'score': 3}"), "no score that can be read"),
        (completion("{'pred': 'yes', 'score': 77}"), "no score that can be read"),
    ],
)
def test_a_judge_that_cannot_be_read_fails_the_run(
    answer: Answer, message: str, judge_stub: Stub, settings: Any, manager: Any
) -> None:
    judge_stub.answer = lambda method, content: answer
    with pytest.raises(RetryError) as caught:
        run(manager)
    assert re.search(message, str(cause(caught.value)))


def test_a_refused_key_is_not_tried_again(judge_stub: Stub, settings: Any) -> None:
    judge_stub.answer = lambda method, content: (401, "")
    with pytest.raises(EvaluationError, match="401"):
        judged.activitynet(DOCUMENT, ["a cat"])
    assert len(judge_stub.posts) == 1


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("{'pred': 'yes', 'score': 4.8}", ("yes", 4)),
        ('```json\n{"pred": "no", "score": 0}\n```', ("no", 0)),
        ("{'pred': 'Yes', 'score': '5'}", ("yes", 5)),
        ("{'score': 5}", None),
        ("yes", None),
    ],
)
def test_verdicts_are_read_in_the_forms_that_judges_use(said: str, verdict: Any) -> None:
    assert judged._verdict(said) == verdict


def test_the_doubled_quote_of_the_instructions_is_read(judge_stub: Stub, settings: Any) -> None:
    judge_stub.answer = lambda method, content: completion("{''score': 4.8}")
    assert judged.videochatgpt_temporal(DOCUMENT, ["x"])["gpt_eval_score_temporal"]["score"] == 4.0


def test_azure_gets_its_key_by_another_name(judge_stub: Stub, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TYPE", "azure")
    monkeypatch.setenv("AZURE_ENDPOINT", judge_stub.url)
    monkeypatch.setenv("AZURE_API_KEY", "another-key")
    judged.activitynet(DOCUMENT, ["a cat"])
    headers = {name.lower(): value for name, value in judge_stub.requests[0][2].items()}
    assert headers["api-key"] == "another-key"


def test_importing_lmms_evals_functions_leaves_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    judged._private_copy.cache_clear()
    monkeypatch.delenv("HF_HOME", raising=False)
    judged._private_copy("videochatgpt")
    assert "HF_HOME" not in os.environ


def test_the_judge_is_asked_once_before_anything_is_generated(judge_stub: Stub, settings: Any, manager: Any) -> None:
    found = preflight.check([ACTIVITYNET, VIDEOCHATGPT], manager)
    assert found["judge"]["model"] == "stub-judge"
    assert len(judge_stub.posts) == 1
    assert not (settings.folder / ANSWERS_FILE).exists()


def test_a_missing_key_is_found_before_anything_is_generated(
    settings: Any, manager: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(EvaluationError, match="OPENAI_API_KEY is not set; MODEL_VERSION names the judge"):
        preflight.check([ACTIVITYNET], manager)
    monkeypatch.setenv("OPENAI_API_KEY", "YOUR_API_KEY")  # lmms-eval's own placeholder
    with pytest.raises(EvaluationError, match="OPENAI_API_KEY is not set"):
        preflight.check([VIDEOCHATGPT], manager)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, "bad key"), "refuses the key in OPENAI_API_KEY: HTTP 401: bad key"),
        ((404, "no model"), "does not answer: HTTP 404: no model"),
        ((200, "{}"), "does not answer: an answer that is none of chat completions"),
    ],
)
def test_a_judge_that_does_not_work_is_found_before_anything_is_generated(
    answer: Answer, message: str, judge_stub: Stub, settings: Any, manager: Any
) -> None:
    judge_stub.answer = lambda method, content: answer
    with pytest.raises(EvaluationError, match=message):
        preflight.check([ACTIVITYNET], manager)


def test_a_judge_that_is_not_there_is_found(settings: Any, manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    monkeypatch.setenv("OPENAI_API_URL", "http://127.0.0.1:9/v1/chat/completions")
    with pytest.raises(EvaluationError, match=r"127.0.0.1:9/v1/chat/completions does not answer: URLError"):
        preflight.check([VIDEOCHATGPT], manager)
    monkeypatch.setenv("OPENAI_API_URL", "api.example")
    with pytest.raises(EvaluationError, match="must begin with http"):
        preflight.check([VIDEOCHATGPT], manager)


def test_a_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert "secret" not in repr(judge_from_environment())


def test_a_line_cut_off_by_a_crash_is_left_out(judge_stub: Stub, settings: Any) -> None:
    judged.activitynet(DOCUMENT, ["a cat"])
    file: Path = settings.folder / ANSWERS_FILE
    file.write_text(file.read_text() + '{"key": "ab')
    close_benches()
    judged.activitynet(DOCUMENT, ["a cat"])
    assert len(judge_stub.posts) == 1


def test_processes_of_a_run_write_their_own_files_and_read_all(
    judge_stub: Stub, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    judged.activitynet(DOCUMENT, ["a cat"])
    assert [path.name for path in settings.folder.iterdir()] == ["judged-1.jsonl"]
    monkeypatch.setenv("RANK", "0")
    close_benches()
    judged.activitynet(DOCUMENT, ["a cat"])
    assert len(judge_stub.posts) == 1
