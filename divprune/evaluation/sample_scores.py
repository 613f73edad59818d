"""Marks of answers, and the sums that scores are made of.

A mark is a mapping: always "doc_id" and "score" (a number, on the scale of the task's metric, None for a document that
has no part in it); for the statistic "f1" also "said_yes" and "is_yes"; for "mme" also "category" and "question_id",
which names the image.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divprune.evaluation.datasets import Statistic
from divprune.evaluation.resampling import Array, ratio

Mark = Mapping[str, Any]

COGNITION = frozenset({"code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation"})
"""MME's categories that are no part of its perception score."""
_QUESTIONS_PER_PICTURE = 2


@dataclass(frozen=True)
class MarkedSample:
    """What a score is a function of: sums over units that are drawn, documents or images.

    Attributes:
        values: (n, k), one row a unit.
        strata: places of units that are drawn among themselves; None for all together.
        score: from sums (..., k) to scores.
    """

    values: Array
    strata: Sequence[NDArray[np.int64]] | None
    score: Callable[[Array], Array]


def by_document(marks: Iterable[Mark]) -> dict[Any, Mark]:
    """Return the marks that have a score, by their document.

    Raises:
        ValueError: there are none, or two of one document.
    """
    found: dict[Any, Mark] = {}
    for mark in marks:
        if mark["doc_id"] in found:
            raise ValueError(f"marks must name each document once, got doc_id {mark['doc_id']!r} twice")
        found[mark["doc_id"]] = mark
    scored = {document: mark for document, mark in found.items() if mark["score"] is not None}
    if not scored:
        raise ValueError("marks must be of at least one document with a score, got none")
    return scored


def sample_of(marks: Mapping[Any, Mark], statistic: Statistic) -> MarkedSample:
    """Return what a score is made of.

    Args:
        marks: by document, at least one.
        statistic: see `divprune.evaluation.statistics.score`.

    Raises:
        ValueError: MME's perception categories have no image with both questions.
    """
    return _SAMPLES[statistic](marks)


def _mean_sample(marks: Mapping[Any, Mark]) -> MarkedSample:
    values = np.array([(float(mark["score"]), 1.0) for mark in marks.values()])
    return MarkedSample(values, None, lambda sums: sums[..., 0] / sums[..., 1])


def _f1_sample(marks: Mapping[Any, Mark]) -> MarkedSample:
    pairs = [(bool(mark["said_yes"]), bool(mark["is_yes"])) for mark in marks.values()]
    values = np.array([(said and meant, said, meant) for said, meant in pairs], dtype=np.float64)
    return MarkedSample(values, None, lambda sums: np.nan_to_num(ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2])))


def _mme_sample(marks: Mapping[Any, Mark]) -> MarkedSample:
    images: dict[tuple[str, Any], list[float]] = {}
    for mark in marks.values():
        if mark["category"] not in COGNITION:
            images.setdefault((mark["category"], mark["question_id"]), []).append(float(mark["score"]))
    whole = {key: found for key, found in sorted(images.items()) if len(found) == _QUESTIONS_PER_PICTURE}
    if not whole:
        raise ValueError("marks must hold both questions about at least one image of a perception category, got none")
    of_pictures = np.array([category for category, _ in whole])
    strata = [np.flatnonzero(of_pictures == category) for category in dict.fromkeys(of_pictures.tolist())]
    values = np.array([[100 * (np.mean(found) + float(min(found) == 1))] for found in whole.values()])
    for places in strata:
        values[places] /= len(places)
    return MarkedSample(values, strata, lambda sums: sums[..., 0])


_SAMPLES: Mapping[Statistic, Callable[[Mapping[Any, Mark]], MarkedSample]] = {
    "mean": _mean_sample,
    "f1": _f1_sample,
    "mme": _mme_sample,
}
