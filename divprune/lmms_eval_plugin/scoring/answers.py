"""Scores of answers that need nothing beside the document: choices, and yes or no.

Each function is a task's `process_results`: of a document and the answer in a list, to the metric's name and a score
with a "score" in the metric's unit. The mean of the scores is the metric, except where said otherwise.
"""

import random
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from divprune.lmms_eval_plugin.scoring.documents import Document

Marks = dict[str, dict[str, Any]]

_CIRCULAR = 1_000_000  # MMBench numbers the copies of a question with their options moved on by this much
_RANDOM = threading.Lock()


def mean_score(results: Sequence[dict[str, Any]]) -> float:
    """Return the mean of the samples' scores."""
    return sum(result["score"] for result in results) / len(results)


@contextmanager
def random_of(text: str) -> Iterator[None]:
    """Python's global generator, seeded by the text and put back afterwards.

    Scorers that guess where they cannot read an answer then guess the same in every run, in any order and on any
    number of machines.
    """
    with _RANDOM:
        state = random.getstate()
        random.seed(text)
        try:
            yield
        finally:
            random.setstate(state)


def scienceqa(document: Document, answers: Sequence[str]) -> dict[str, float]:
    """Return the letter alone, or at the start before a full stop; capitals only, as the paper's evaluation did."""
    expected = chr(ord("A") + document["answer"])
    said = answers[0].strip()
    stated = said[0] if len(said) >= 2 and said[1] == "." else said
    return {"exact_match": float(stated == expected)}


def scienceqa_answer(document: Document) -> str:
    """Return the letter of the right choice."""
    return chr(ord("A") + document["answer"])


def seedbench(document: Document, answers: Sequence[str]) -> Marks:
    """Return the answer's first character, capitals only, as the paper's evaluation did."""
    said = answers[0].strip()[:1]
    sample_score = {"pred": said, "answer": document["answer"], "question_id": document["question_id"]}
    return {f"seed_{document['data_type']}": sample_score | {"score": float(said == document["answer"])}}


def mmmu(document: Document, answers: Sequence[str]) -> Marks:
    """lmms-eval's parser and comparison; where it guesses a letter, the document decides the guess."""
    from lmms_eval.tasks.mmmu import utils

    with random_of(document["id"]):
        sample_score = dict(utils.mmmu_process_results(document, answers)["mmmu_acc"])
    return {"mmmu_acc": sample_score | {"score": float(utils.evaluate_mmmu([sample_score])[1]["acc"])}}


def egoschema(document: Document, answers: Sequence[str]) -> Marks:
    """Return the option that lmms-eval's parser reads; where it guesses a letter, the document decides the guess.

    "submission" has no score: EgoSchema keeps the answers of its full set to itself.
    """
    from lmms_eval.tasks.egoschema import utils

    with random_of(f"{document['video_idx']} {document['question']}"):
        read = utils.egoschema_process_results_generation(document, answers)
    score = read["score"]
    right = float(str(score["pred"]) == str(score["ground_truth"]))
    return {"submission": read["submission"], "score": score | {"score": right}}


def mmbench(document: Document, answers: Sequence[str]) -> Marks:
    """Tell whether this copy of the question was answered rightly, read by lmms-eval's rules without any judge."""
    from lmms_eval.tasks.mmbench import en_utils

    sample_score = dict(en_utils.mmbench_process_results(document, answers)["gpt_eval_score"])
    return {"gpt_eval_score": sample_score | {"right": mmbench_right(sample_score)}}


def mmbench_right(sample_score: dict[str, Any]) -> bool:
    """Tell whether the letter in the prediction is the answer, as `mmbench_en_dev_static` decides it."""
    from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer

    item = {letter: sample_score[letter] for letter in "ABCD"} | {"prediction": str(sample_score["prediction"])}
    evaluator = _mmbench_evaluator()
    said = evaluator.prefetch_answer(item)
    if not said:
        said = extract_mcq_answer(item["prediction"], choices=sorted(evaluator.build_choices(item)))
    return bool(said == sample_score["answer"])


@lru_cache(maxsize=1)
def _mmbench_evaluator() -> Any:
    from lmms_eval.tasks.mmbench.mmbench_evals import MMBench_Evaluator

    return MMBench_Evaluator()


def mmbench_scores(sample_scores: Sequence[dict[str, Any]]) -> list[float | None]:
    """100 for a question of which every copy was answered rightly, else 0; None for the copies themselves.

    A question counts once, however many copies with its options in another order there are.
    """
    wrong = {sample_score["index"] % _CIRCULAR for sample_score in sample_scores if not _is_right(sample_score)}
    return [
        None if sample_score["index"] >= _CIRCULAR else 100.0 * (sample_score["index"] not in wrong)
        for sample_score in sample_scores
    ]


def _is_right(sample_score: dict[str, Any]) -> bool:
    return bool(sample_score["right"]) if "right" in sample_score else mmbench_right(sample_score)


def mmbench_score(results: Sequence[dict[str, Any]]) -> float:
    """Return the percentage of questions of which every copy was answered rightly."""
    counted = [score for score in mmbench_scores(results) if score is not None]
    return sum(counted) / len(counted) if counted else 0.0


def mme_score(results: Sequence[dict[str, Any]]) -> float:
    """Return the sum over categories of accuracy and fraction of images with both questions right, in percent.

    An image of which only one question was asked, at the end of a limited run, is left out.
    """
    images: dict[tuple[str, str], list[float]] = defaultdict(list)
    for result in results:
        images[result["category"], result["question_id"]].append(result["score"])
    categories: dict[str, list[float]] = defaultdict(list)
    for (category, _), scores in images.items():
        if len(scores) == 2:
            categories[category].append(50.0 * sum(scores) + 100.0 * (sum(scores) == 2))
    return sum(sum(scores) / len(scores) for scores in categories.values())
