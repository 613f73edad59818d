"""The sixteen data sets, with the real task files and scorers, offline: known answers give known scores."""

from typing import Any

import pytest

pytest.importorskip("lmms_eval")

from divprune.evaluation.datasets import DATA_SETS, TASK_PREFIX
from divprune.lmms_eval_plugin.runs.sample_scores import _extras, sample_scores_of
from divprune.lmms_eval_plugin.scoring.judged import _private_copy
from tests.harness.data_schemas import MADE, Made
from tests.harness.scripted import ScriptedChat, ScriptedSimple, evaluate, metric

METRICS = {each.key: each.metric for each in DATA_SETS} | {"egoschema_subset": "score"}
TASKS = {key: TASK_PREFIX + key for key in METRICS}


@pytest.mark.usefixtures("judge_stub", "settings")
@pytest.mark.parametrize("kind", [ScriptedSimple, ScriptedChat])
@pytest.mark.parametrize(("which", "place"), [("right", 0), ("half", 1), ("wrong", 2)])
def test_known_answers_give_known_scores(kind: type[ScriptedSimple], which: str, place: int, manager: Any) -> None:
    model = kind({TASKS[key]: getattr(made, which) for key, made in MADE.items()})
    results = evaluate(model, list(TASKS.values()), manager)
    found = {key: metric(results, TASKS[key], METRICS[key]) for key in MADE}
    assert found == pytest.approx({key: made.scores[place] for key, made in MADE.items()}, abs=1e-6)
    for key, made in MADE.items():
        check_what_was_asked(model, key, made)
        check_marks(key, made, results, found[key])


def check_what_was_asked(model: ScriptedSimple, key: str, made: Made) -> None:
    asked = [model.prompts[TASKS[key], number] for number in range(len(made.prompts))]
    assert asked == made.prompts
    shown = [len(model.shown[TASKS[key], number]) for number in range(len(made.prompts))]
    assert shown == (made.num_pictures or [1] * len(made.prompts))


def check_marks(key: str, made: Made, results: dict[str, Any], score: float) -> None:
    found = sample_scores_of(TASKS[key], METRICS[key], results["samples"][TASKS[key]])
    assert [sample_score["doc_id"] for sample_score in found] == list(range(len(made.right)))
    if key == "egoschema":
        assert {sample_score["score"] for sample_score in found} == {None}
        return
    scores = [sample_score["score"] for sample_score in found if sample_score["score"] is not None]
    assert {type(each) for each in scores} == {float}
    if key == "pope":
        hits = sum(sample_score["said_yes"] and sample_score["is_yes"] for sample_score in found)
        assert 2 * hits / (
            sum(sample_score["said_yes"] + sample_score["is_yes"] for sample_score in found)
        ) == pytest.approx(score)
    elif key == "mme":
        assert mme(found) == pytest.approx(score)
    else:
        assert sum(scores) / len(scores) == pytest.approx(score)


@pytest.mark.parametrize(
    ("key", "module", "function"),
    [
        ("mmmu", "mmmu", "mmmu_doc_to_text"),
        ("activitynet", "activitynetqa", "activitynetqa_doc_to_text"),
        ("videochatgpt", "videochatgpt", "videochatgpt_doc_to_text"),
        ("egoschema", "egoschema", "egoschema_doc_to_text"),
    ],
)
def test_our_own_prompts_are_those_of_lmms_evals_functions(key: str, module: str, function: str, manager: Any) -> None:
    options = manager.simple_config(TASKS[key])["lmms_eval_specific_kwargs"]["default"] | {"prompt_type": "format"}
    theirs = getattr(_private_copy(module), function)
    assert [theirs(document, options) for document in MADE[key].documents] == MADE[key].prompts


def mme(found: list[dict[str, Any]]) -> float:
    total = 0.0
    for category in {sample_score["category"] for sample_score in found} - {"code_reasoning"}:
        scores = [sample_score["score"] for sample_score in found if sample_score["category"] == category]
        total += 50 * sum(scores) + 100 * (sum(scores) == 2)
    return total


def test_the_f1_of_marks_is_that_of_lmms_eval_also_for_answers_that_cannot_be_read() -> None:
    from lmms_eval.tasks.pope.utils import pope_aggregate_f1_score

    from divprune.evaluation.statistics import score

    said = ["yes", "yes", "no", "maybe", "", "no", "yes", "no"]
    truth = ["yes", "no", "yes", "yes", "yes", "no", "yes", "no"]
    values = [
        {"question_id": place, "score": float(a == b), "prediction": a, "ground_truth": b, "category": "random"}
        for place, (a, b) in enumerate(zip(said, truth, strict=True))
    ]
    found = [
        {"doc_id": place, "score": value["score"], **_extras("pope_f1_score", value)}
        for place, value in enumerate(values)
    ]
    assert score(found, "f1") == pytest.approx(pope_aggregate_f1_score(values))
