"""Scores of answers about images or videos, each with the interval that others of the kind would give."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from divprune.embedded import KINDS, Question
from divprune.evaluation.cider import cider_scores, scene_words
from divprune.evaluation.resampling import NUM_RESAMPLES, Array, ends, ratio, resampled_sums
from divprune.evaluation.scenes.bench import CAPTION, answer_kinds


@dataclass(frozen=True)
class Answered:
    """A question about a scene and the model's prediction.

    Attributes:
        place: the scene's place among the scenes asked about, from 0.
        question: what was asked.
        prediction: the answer.
    """

    place: int
    question: Question
    prediction: str

    @property
    def is_right(self) -> bool:
        """Whether it is, word for word, the expected answer."""
        return self.prediction == self.question.answer


def scores(
    answered: Sequence[Answered], num_scenes: int, with_cider: bool, kinds: Sequence[str] = KINDS
) -> dict[str, float | None]:
    """Score answers: accuracies, existence F1 as in POPE ("yes" is the positive answer), and caption CIDEr.

    The intervals are percentiles of a bootstrap over scenes, since questions about one scene stand or fall together;
    the same resampled scenes serve all calls with the same `num_scenes`.

    Args:
        answered: answers about scenes 0 to `num_scenes` - 1.
        num_scenes: how many scenes.
        with_cider: whether captions get a CIDEr; needs the extra `captions`.
        kinds: of the questions; the mean is over all of them but captions.

    Returns:
        `{score}_{unit}`, `{score}_low_{unit}` and `{score}_high_{unit}`, ready for a record; None where nothing was
        asked or the score was not wanted.
    """
    values = {f"{kind}_percent": 100 * _accuracy(answered, kind, num_scenes) for kind in kinds}
    values["existence_f1_percent"] = 100 * _f1(answered, num_scenes)
    values["mean_percent"] = np.mean([values[f"{kind}_percent"] for kind in answer_kinds(kinds)], axis=0)
    if CAPTION in kinds:
        values["caption_cider"] = _cider(answered, num_scenes) if with_cider else np.full(1 + NUM_RESAMPLES, np.nan)
    return {name: number for score, sample in values.items() for name, number in _interval(score, sample).items()}


def _interval(score: str, sample: Array) -> dict[str, float | None]:
    name, _, unit = score.rpartition("_")
    names = [f"{name}{which}_{unit}" for which in ("", "_low", "_high")]
    if np.isnan(sample[0]):
        return dict.fromkeys(names)
    numbers = (sample[0], *ends(sample))
    return {name: float(number) for name, number in zip(names, numbers, strict=True)}


def _sums(answered: Sequence[Answered], num_scenes: int, *scores: Sequence[float]) -> Array:
    """Sum several scores of each answer over the scenes, and over scenes drawn from them: (n, 1 + NUM_RESAMPLES)."""
    by_scene = np.zeros((num_scenes, len(scores)))
    for one, *values in zip(answered, *scores, strict=True):
        by_scene[one.place] += values
    return resampled_sums(by_scene).T


def _accuracy(answered: Sequence[Answered], kind: str, num_scenes: int) -> Array:
    asked = [one for one in answered if one.question.kind == kind]
    return ratio(*_sums(asked, num_scenes, [one.is_right for one in asked], [1.0] * len(asked)))


def _f1(answered: Sequence[Answered], num_scenes: int) -> Array:
    asked = [one for one in answered if one.question.kind == "existence"]
    positive = [one.prediction == "yes" for one in asked]
    true = [one.question.answer == "yes" for one in asked]
    both, num_positive, num_true = _sums(
        asked, num_scenes, [a and b for a, b in zip(positive, true, strict=True)], positive, true
    )
    return ratio(2 * both, num_positive + num_true)


def _cider(answered: Sequence[Answered], num_scenes: int) -> Array:
    captions = [one for one in answered if one.question.kind == "caption"]
    predictions = [scene_words(one.prediction) for one in captions]
    scores = cider_scores(predictions, [[scene_words(one.question.answer)] for one in captions])
    return ratio(*_sums(captions, num_scenes, scores, [1.0] * len(captions)))
