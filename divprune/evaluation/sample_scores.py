"""Scores of single answers, and the sums that a task's score is made of.

A sample score is a mapping: always "doc_id" and "score" (a number, on the scale of the task's metric, None for a
document that has no part in it); for the statistic "f1" also "said_yes" and "is_yes"; for "mme" also "category" and
"question_id", which names the image.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divprune.evaluation.datasets import Statistic
from divprune.evaluation.resampling import Array, ratio

SampleScore = Mapping[str, Any]

COGNITION = frozenset({"code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation"})
"""MME's categories that are no part of its perception score."""
_QUESTIONS_PER_PICTURE = 2


@dataclass(frozen=True)
class ScoredSample:
    """What a score is a function of: sums over units that are drawn, documents or images.

    Attributes:
        values: (n, k), one row a unit.
        strata: places of units that are drawn among themselves; None for all together.
        score: from sums (..., k) to scores.
    """

    values: Array
    strata: Sequence[NDArray[np.int64]] | None
    score: Callable[[Array], Array]


def by_document(sample_scores: Iterable[SampleScore]) -> dict[Any, SampleScore]:
    """Return the sample scores that have a score, by their document.

    Raises:
        ValueError: there are none, or two of one document.
    """
    found: dict[Any, SampleScore] = {}
    for sample_score in sample_scores:
        if sample_score["doc_id"] in found:
            raise ValueError(f"sample_scores must name each document once, got doc_id {sample_score['doc_id']!r} twice")
        found[sample_score["doc_id"]] = sample_score
    scored = {document: sample_score for document, sample_score in found.items() if sample_score["score"] is not None}
    if not scored:
        raise ValueError("sample_scores must be of at least one document with a score, got none")
    return scored


def sample_of(sample_scores: Mapping[Any, SampleScore], statistic: Statistic) -> ScoredSample:
    """Return what a score is made of.

    Args:
        sample_scores: by document, at least one.
        statistic: see `divprune.evaluation.statistics.score`.

    Raises:
        ValueError: MME's perception categories have no image with both questions.
    """
    return _SAMPLES[statistic](sample_scores)


def _mean_sample(sample_scores: Mapping[Any, SampleScore]) -> ScoredSample:
    values = np.array([(float(sample_score["score"]), 1.0) for sample_score in sample_scores.values()])
    return ScoredSample(values, None, lambda sums: sums[..., 0] / sums[..., 1])


def _f1_sample(sample_scores: Mapping[Any, SampleScore]) -> ScoredSample:
    pairs = [(bool(sample_score["said_yes"]), bool(sample_score["is_yes"])) for sample_score in sample_scores.values()]
    values = np.array([(said and meant, said, meant) for said, meant in pairs], dtype=np.float64)
    return ScoredSample(values, None, lambda sums: np.nan_to_num(ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2])))


def _mme_sample(sample_scores: Mapping[Any, SampleScore]) -> ScoredSample:
    images: dict[tuple[str, Any], list[float]] = {}
    for sample_score in sample_scores.values():
        if sample_score["category"] not in COGNITION:
            images.setdefault((sample_score["category"], sample_score["question_id"]), []).append(
                float(sample_score["score"])
            )
    whole = {key: found for key, found in sorted(images.items()) if len(found) == _QUESTIONS_PER_PICTURE}
    if not whole:
        raise ValueError("sample_scores must hold both questions about an image of a perception category, got none")
    of_pictures = np.array([category for category, _ in whole])
    strata = [np.flatnonzero(of_pictures == category) for category in dict.fromkeys(of_pictures.tolist())]
    values = np.array([[100 * (np.mean(found) + float(min(found) == 1))] for found in whole.values()])
    for places in strata:
        values[places] /= len(places)
    return ScoredSample(values, strata, lambda sums: sums[..., 0])


_SAMPLES: Mapping[Statistic, Callable[[Mapping[Any, SampleScore]], ScoredSample]] = {
    "mean": _mean_sample,
    "f1": _f1_sample,
    "mme": _mme_sample,
}
