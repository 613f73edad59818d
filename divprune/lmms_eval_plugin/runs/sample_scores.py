"""How each document of a run was marked, from the samples that lmms-eval logs.

The mean of the scores, times the data set's `scale`, is the printed metric where its `statistic` is "mean".
"""

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from divprune.lmms_eval_plugin.scoring.answers import mmbench_scores
from divprune.lmms_eval_plugin.scoring.captions import caption_cider

Sample = Mapping[str, Any]
Values = Sequence[Any]

_MME = ("mme_perception_score", "mme_cognition_score")


def sample_scores_of(task_name: str, metric: str, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Score each document that counts for the metric.

    Args:
        task_name: lmms-eval's name of the task.
        metric: its name in lmms-eval's results, with or without a filter (`pope_f1_score,none`).
        samples: as lmms-eval logs them.

    Returns:
        One mapping a document, in the order of "doc_id", with "said" and "score": its part in the
        metric, None where it has none of its own (copies of an MMBench question, answers that only a server can judge).
        Where the metric is an F1, also "said_yes" and "is_yes"; for MME, "category" and "question_id".
    """
    name = metric.split(",")[0]
    names = _MME if name in _MME else (name,)
    counted = sorted((sample for sample in samples if _has(sample, names)), key=lambda sample: int(sample["doc_id"]))
    values = [next(sample[each] for each in names if each in sample) for sample in counted]
    scores = _reader(name, values)(values)
    extras = [_extras(name, value) for value in values]
    return [
        {"doc_id": int(sample["doc_id"]), "said": _said(sample), "score": score, **extra}
        for sample, score, extra in zip(counted, scores, extras, strict=True)
    ]


def _has(sample: Sample, names: Sequence[str]) -> bool:
    return any(name in sample for name in names)


def _said(sample: Sample) -> str:
    answers: Any = sample.get("filtered_resps") or sample.get("resps") or [""]
    while isinstance(answers, list | tuple):
        answers = answers[0] if answers else ""
    return str(answers).strip()


def _reader(name: str, values: Values) -> Callable[[Values], list[float | None]]:
    """Return what turns the metric's values of the documents into scores."""
    first = values[0] if values else None
    if isinstance(first, dict) and "score" not in first:
        if name.endswith("_CIDEr"):
            return lambda given: list(caption_cider(given))
        if {"index", "prediction", "answer", "L2-category"} <= set(first):
            return mmbench_scores
        if {"pred", "answer", "question_id"} <= set(first):
            return lambda given: [float(each["pred"].lower() == each["answer"].lower()) for each in given]
        if "parsed_pred" in first:
            return _mmmu
        if {"0", "0.9", "qtype"} <= set(first):
            return lambda given: [100.0 * each["0"] for each in given]
        if {"pred", "ground_truth"} <= set(first):
            return lambda given: [float(str(each["pred"]) == str(each["ground_truth"])) for each in given]
    if name == "gpt_eval_accuracy" and isinstance(first, dict) and "Correctness" in first:
        return lambda given: [100.0 * ("yes" in each["Correctness"].lower()) for each in given]
    return lambda given: [_number(each) for each in given]


def _mmmu(values: Values) -> list[float | None]:
    from lmms_eval.tasks.mmmu.utils import evaluate_mmmu

    return [float(evaluate_mmmu([each])[1]["acc"]) for each in values]


def _number(value: Any) -> float | None:
    """Return the number in a value: itself, or what is called "score" in it."""
    if isinstance(value, Mapping):
        value = value.get("score")
    return float(value) if isinstance(value, Real) else None


def _extras(name: str, value: Any) -> dict[str, Any]:
    if name in _MME:
        return {"category": value["category"], "question_id": value["question_id"]}
    if isinstance(value, Mapping) and {"prediction", "ground_truth", "score"} <= set(value):
        truth, said = (str(value[key]).lower() for key in ("ground_truth", "prediction"))
        if truth in ("yes", "no"):
            # As lmms-eval's F1: what is neither yes nor no is no miss.
            return {"said_yes": said == "yes", "is_yes": truth == "yes" and said in ("yes", "no")}
    return {}
