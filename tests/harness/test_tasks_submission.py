"""EgoSchema's full set: a server scores it, is looked for first, and a failure costs no answers."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("lmms_eval")

from divprune.errors import EvaluationError
from divprune.lmms_eval_plugin.runs import preflight
from divprune.lmms_eval_plugin.scoring.settings import ScoringSettings, use
from divprune.lmms_eval_plugin.scoring.submission import SUBMISSION_FILE, egoschema
from tests.harness.data_schemas import MADE
from tests.harness.scripted import ScriptedSimple, evaluate, metric
from tests.harness.servers import Answer, Stub

TASK = "divprune_paper_egoschema"
RESULTS = [{"clip-a": 0}, {"clip-b": 4}]


def test_all_answers_are_sent_at_once(egoschema_stub: Stub, settings: Any, manager: Any) -> None:
    results = evaluate(ScriptedSimple({TASK: MADE["egoschema"].half}), [TASK], manager)
    assert metric(results, TASK, "submission") == 50.0
    names = MADE["egoschema"].clips
    assert egoschema_stub.posts == [dict(zip(names, [0, 1, 4, 4], strict=True))]
    assert json.loads((settings.folder / SUBMISSION_FILE).read_text()) == egoschema_stub.posts[0]


def test_the_server_is_looked_for_without_sending_it_anything(
    egoschema_stub: Stub, settings: Any, manager: Any
) -> None:
    assert preflight.check([TASK], manager, settings) == {"egoschema_url": egoschema_stub.url}
    assert [method for method, *_ in egoschema_stub.requests] == ["GET"]


@pytest.mark.parametrize("answer", [(404, "gone"), (503, "asleep")])
def test_a_server_that_is_not_there_is_found_before_anything_is_generated(
    answer: Answer, egoschema_stub: Stub, settings: Any, manager: Any
) -> None:
    egoschema_stub.answer = lambda method, content: answer
    with pytest.raises(EvaluationError, match=f"{answer[0]}.*divprune_paper_egoschema_subset"):
        preflight.check([TASK], manager)
    assert preflight.check(["divprune_paper_egoschema_subset"], manager) == {}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((503, "asleep"), "does not answer .HTTP 503: asleep"),
        ((400, "too many"), "does not answer .HTTP 400: too many"),
        ((200, "thank you"), "said 'thank you', without accuracy"),
    ],
)
def test_a_server_that_fails_leaves_the_answers(
    answer: Answer, message: str, egoschema_stub: Stub, settings: Any
) -> None:
    egoschema_stub.answer = lambda method, content: answer
    with pytest.raises(EvaluationError, match=f"{message}.*are kept in .*{SUBMISSION_FILE}"):
        egoschema(RESULTS)
    assert json.loads((settings.folder / SUBMISSION_FILE).read_text()) == {"clip-a": 0, "clip-b": 4}
    assert len(egoschema_stub.posts) == (2 if answer[0] == 503 else 1)


def test_a_server_that_wakes_up_is_asked_again(egoschema_stub: Stub, settings: Any) -> None:
    good = egoschema_stub.answer

    def waking(method: str, content: Any) -> Answer:
        return good(method, content) if len(egoschema_stub.posts) > 1 else (502, "")

    egoschema_stub.answer = waking
    assert egoschema([{"0074f737-0": 0}, {"0074f737-1": 1}]) == 50.0


def test_the_total_is_read_wherever_it_stands(egoschema_stub: Stub, settings: Any) -> None:
    line = "{} result: 1 correct, 1 wrong, 0 missing, 0 invalid, accuracy: {}"
    for lines in ((("Subset", 0.6), ("Total", 0.25)), (("Total", 0.25), ("Subset", 0.6))):
        text = "\n".join(line.format(*each) for each in lines)
        egoschema_stub.answer = lambda method, content, text=text: (200, text)
        assert egoschema(RESULTS) == 25.0


def test_the_answers_go_to_the_output_of_lmms_evals_command(egoschema_stub: Stub, tmp_path: Path) -> None:
    with use(ScoringSettings("python", None, egoschema_stub.url)):
        egoschema(RESULTS, SimpleNamespace(output_path=str(tmp_path)))
    assert (tmp_path / "submissions" / SUBMISSION_FILE).is_file()
