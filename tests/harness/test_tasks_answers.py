"""Scorers: the same for the same answers in any order, and what today's tasks say where they agree."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lmms_eval")

from divprune.evaluation.datasets import data_set
from divprune.lmms_eval_plugin.runs.sample_scores import sample_scores_of
from divprune.lmms_eval_plugin.scoring import answers
from tests.harness.data_schemas import MADE
from tests.harness.scripted import ScriptedChat, ScriptedSimple, evaluate, metric

MMMU, EGOSCHEMA = MADE["mmmu"].documents[0], MADE["egoschema_subset"].documents[0]
Scorer = Callable[[Any, list[str]], dict[str, Any]]


@pytest.mark.parametrize(
    ("scorer", "document", "name"), [(answers.mmmu, MMMU, "id"), (answers.egoschema, EGOSCHEMA, "question")]
)
def test_guesses_depend_on_the_document_alone(scorer: Scorer, document: dict[str, Any], name: str) -> None:
    others = [document | {name: f"{document[name]}_{place}"} for place in range(40)]
    expected = [scorer(each, ["?"]) for each in others]
    random.seed(5)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda each: scorer(each, ["?"]), reversed(others))) == expected[::-1]
    guessed = {str(each.get("score") or each["mmmu_acc"]["parsed_pred"]) for each in expected}
    assert len(guessed) > 2


def test_guesses_leave_pythons_generator_alone() -> None:
    random.seed(5)
    expected = random.random()
    random.seed(5)
    answers.mmmu(MMMU, ["?"])
    answers.egoschema(EGOSCHEMA, ["?"])
    answers.mmbench(MADE["mmbench"].documents[0], ["?"])
    assert random.random() == expected


def test_an_mmbench_question_counts_once_and_only_if_every_copy_is_right() -> None:
    results = [answers.mmbench(document, [said])["gpt_eval_score"] for document, said in zip(
        MADE["mmbench"].documents, ["A", "B", "D", "B"], strict=True)]  # fmt: skip
    assert answers.mmbench_scores(results) == [100.0, None, 0.0, None]
    assert answers.mmbench_score(results) == 50.0
    assert answers.mmbench_score(results[1:2]) == 0.0


def test_an_mme_picture_without_its_second_question_is_left_out() -> None:
    whole = [{"category": "count", "question_id": "1", "score": score} for score in (1.0, 0.0)]
    assert answers.mme_score([*whole, {"category": "count", "question_id": "2", "score": 1.0}]) == 50.0
    assert answers.mme_score([]) == 0.0


def test_small_letters_are_wrong_as_in_the_papers_evaluation() -> None:
    science, seed = MADE["scienceqa"].documents[1], MADE["seedbench"].documents[0]
    assert [answers.scienceqa(science, [said])["exact_match"] for said in ("B", "B. x", "b", "b. x", "", "B x")] == [
        1.0, 1.0, 0.0, 0.0, 0.0, 0.0,
    ]  # fmt: skip
    assert [answers.seedbench(seed, [said])["seed_image"]["score"] for said in ("A", "A) x", "a", "")] == [
        1.0,
        1.0,
        0.0,
        0.0,
    ]


AGREE = ["mmbench", "mme", "mmmu", "okvqa", "pope", "seedbench", "seedbench_video", "scienceqa", "gqa"]


@pytest.mark.parametrize("key", AGREE)
def test_todays_task_gives_the_same_score_and_the_same_marks(
    key: str, manager: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With capital letters, and answers that both parsers read; today's files are the ones of lmms-eval."""
    monkeypatch.chdir(tmp_path)
    row = data_set(key)
    todays = {"mmbench": "mmbench_en_dev_static"}.get(key, row.todays_task)
    config = manager._get_config(row.task)
    names = ["dataset_path", "dataset_name", "dataset_kwargs", "process_docs"]
    names += ["lmms_eval_specific_kwargs", "doc_to_visual"] if key == "gqa" else []
    spec = {"task": todays, **{name: config.get(name) for name in names}}
    said = ["A" if key.startswith(("scienceqa", "seedbench")) else each for each in MADE[key].half]
    found = evaluate(ScriptedSimple({todays: said}), [spec], manager)
    ours = evaluate(ScriptedSimple({row.task: said}), [row.task], manager)
    assert metric(found, todays, row.metric) == pytest.approx(metric(ours, row.task, row.metric))
    assert sample_scores_of(todays, row.metric, found["samples"][todays]) == sample_scores_of(
        row.task, row.metric, ours["samples"][row.task]
    )


def test_marks_of_other_tasks_are_their_numbers_or_none() -> None:
    samples = [
        {"doc_id": 1, "filtered_resps": [" b "], "acc": True, "f": {"score": 2}, "odd": ["x"]},
        {"doc_id": 0, "filtered_resps": [["a"]], "acc": 0.5, "f": {"score": 1}, "odd": ["y"]},
    ]
    assert sample_scores_of("other", "acc,none", samples) == [
        {"doc_id": 0, "said": "a", "score": 0.5},
        {"doc_id": 1, "said": "b", "score": 1.0},
    ]
    assert [sample_score["score"] for sample_score in sample_scores_of("other", "f", samples)] == [1.0, 2.0]
    assert [sample_score["score"] for sample_score in sample_scores_of("other", "odd", samples)] == [None, None]
    assert sample_scores_of("other", "missing", samples) == []


def test_marks_of_todays_video_tasks() -> None:
    judged = {"doc_id": 0, "resps": ["x"], "gpt_eval_accuracy": {"Correctness": "yes", "score": 4}}
    assert sample_scores_of("activitynetqa", "gpt_eval_accuracy", [judged])[0]["score"] == 100.0
    wups = {"doc_id": 0, "resps": ["x"], "WUPS": {"0": 0.25, "0.9": 0.1, "qtype": "CW"}}
    assert sample_scores_of("nextqa_oe_test", "WUPS", [wups])[0]["score"] == 25.0
    subset = {"doc_id": 0, "resps": ["x"], "score": {"pred": 3, "ground_truth": "3"}}
    assert sample_scores_of("egoschema_subset", "score", [subset])[0]["score"] == 1.0


@pytest.mark.usefixtures("judge_stub", "settings")
def test_nothing_is_written_outside_the_runs_folder(
    manager: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = ScriptedChat({f"divprune_paper_{key}": made.half for key, made in MADE.items()})
    evaluate(model, ["divprune_paper"], manager)
    assert list((tmp_path / "here").iterdir()) == []
    assert not (tmp_path / "cache").exists()
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["egoschema-submission.json", "judged.jsonl"]
