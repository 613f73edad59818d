"""Scores of answers about scenes, each with the interval that other scenes of the kind would give."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from divprune.evaluation.cider import cider_scores
from divprune.evaluation.scenes import ANSWER_KINDS
from divprune.tiny import KINDS, Question

NUM_RESAMPLES = 1000
CONFIDENCE = 0.95

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Answered:
    """A question about a scene and what the model said.

    Attributes:
        place: the scene's place among the scenes asked about, from 0.
        question: what was asked.
        said: the answer.
    """

    place: int
    question: Question
    said: str

    @property
    def is_right(self) -> bool:
        """Whether it is, word for word, the expected answer."""
        return self.said == self.question.answer


def scores(answered: Sequence[Answered], num_scenes: int, with_cider: bool) -> dict[str, float | None]:
    """Score answers: accuracies, existence F1 as in POPE ("yes" is the positive answer), and caption CIDEr.

    The intervals are percentiles of a bootstrap over scenes, since questions about one scene stand or fall together;
    the same resampled scenes serve all calls with the same `num_scenes`.

    Args:
        answered: answers about scenes 0 to `num_scenes` - 1.
        num_scenes: how many scenes.
        with_cider: whether captions get a CIDEr; needs the extra `captions`.

    Returns:
        `{score}_{unit}`, `{score}_low_{unit}` and `{score}_high_{unit}`, ready for a record; None where nothing was
        asked or the score was not wanted.
    """
    # The first row is the sample itself, the others are drawn from it.
    weights = np.concatenate([np.ones((1, num_scenes)), _resampled(num_scenes)])
    values = {f"{kind}_percent": 100 * _accuracy(answered, kind, weights) for kind in KINDS}
    values["existence_f1_percent"] = 100 * _f1(answered, weights)
    values["mean_percent"] = np.mean([values[f"{kind}_percent"] for kind in ANSWER_KINDS], axis=0)
    values["caption_cider"] = _cider(answered, weights) if with_cider else np.full(len(weights), np.nan)
    return {name: number for score, sample in values.items() for name, number in _interval(score, sample).items()}


def _resampled(num_scenes: int) -> Array:
    draw = np.random.default_rng(0)
    return draw.multinomial(num_scenes, np.full(num_scenes, 1 / num_scenes), size=NUM_RESAMPLES).astype(np.float64)


def _interval(score: str, sample: Array) -> dict[str, float | None]:
    name, _, unit = score.rpartition("_")
    names = [f"{name}{which}_{unit}" for which in ("", "_low", "_high")]
    if np.isnan(sample[0]):
        return dict.fromkeys(names)
    tail = (1 - CONFIDENCE) / 2
    numbers = (sample[0], np.nanquantile(sample, tail), np.nanquantile(sample, 1 - tail))
    return {name: float(number) for name, number in zip(names, numbers, strict=True)}


def _sums(answered: Sequence[Answered], weights: Array, marks: Sequence[float]) -> Array:
    """Sum marks under each weighting of the scenes: (1 + NUM_RESAMPLES,)."""
    by_scene = np.zeros(weights.shape[1])
    for one, mark in zip(answered, marks, strict=True):
        by_scene[one.place] += mark
    return weights @ by_scene


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _accuracy(answered: Sequence[Answered], kind: str, weights: Array) -> Array:
    asked = [one for one in answered if one.question.kind == kind]
    right = _sums(asked, weights, [one.is_right for one in asked])
    return _ratio(right, _sums(asked, weights, [1.0] * len(asked)))


def _f1(answered: Sequence[Answered], weights: Array) -> Array:
    asked = [one for one in answered if one.question.kind == "existence"]
    said = [one.said == "yes" for one in asked]
    true = [one.question.answer == "yes" for one in asked]
    both = _sums(asked, weights, [a and b for a, b in zip(said, true, strict=True)])
    return _ratio(2 * both, _sums(asked, weights, said) + _sums(asked, weights, true))


def _cider(answered: Sequence[Answered], weights: Array) -> Array:
    captions = [one for one in answered if one.question.kind == "caption"]
    marks = cider_scores([one.said for one in captions], [one.question.answer for one in captions])
    return _ratio(_sums(captions, weights, marks), _sums(captions, weights, [1.0] * len(captions)))
