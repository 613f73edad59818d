"""How much of what a model sees it still sees when pruned, measured without labels.

The unpruned model's own answer is what the others are asked to agree with. Of each question there are three mean
log-likelihoods of that answer, per token: the unpruned model's, the pruned model's, and that of the unpruned model
which gets no image (blind). With sums over all questions,

    retention = (pruned - blind) / (unpruned - blind),    loss = 1 - retention:

1 if nothing is lost, 0 if the model might as well not look.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from divprune.evaluation.resampling import Array
from divprune.evaluation.statistics import Estimate

ERROR = 0.05
"""How often an interval may miss, both ends together."""


@dataclass(frozen=True)
class Questions:
    """What is known of questions before anything is pruned; arrays (n,) of mean log-likelihoods per token, in nats.

    Attributes:
        unpruned: That the unpruned model gives its own answer.
        blind: That it gives the same answer without seeing the image.
        groups: What is drawn together: questions with equal numbers are about the same image, (n,) int64.
    """

    unpruned: Array
    blind: Array
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.unpruned)

    def at(self, places: Sequence[int]) -> "Questions":
        """Return some of them."""
        own = np.asarray(places, dtype=np.int64)
        return Questions(self.unpruned[own], self.blind[own], self.groups[own])

    @property
    def seen(self) -> float:
        """What the images tell, on average: unpruned - blind, in nats per token."""
        return float((self.unpruned - self.blind).mean())

    def sees(self, error: float = ERROR) -> bool:
        """Tell whether images help the model at all, so that there is something to retain."""
        gain = _by_group(self.unpruned - self.blind, self.groups)
        if len(gain) < 2:
            return False
        half = NormalDist().inv_cdf(1 - error / 2) * float(gain.std(ddof=1)) / sqrt(len(gain))
        return float(gain.mean()) > half


def loss(questions: Questions, pruned: Array, error: float = ERROR) -> Estimate:
    """Return the share of what the images tell that pruning loses, with an interval.

    The upper end is what a promise rests on, so it must hold where few questions lose much and most lose nothing: one
    more question counts, of which all is lost, and the interval is corrected for skewness (N. J. Johnson, "Modified t
    tests and confidence intervals for asymmetrical populations", JASA 73, 1978). Of a ratio of sums the errors are
    those of its linear part. tests/evaluation/test_retention.py shows by simulation how often it holds.

    Args:
        questions: At least two groups, of which the images tell something.
        pruned: (n,) mean log-likelihoods per token that the pruned model gives the unpruned model's answers.
        error: How often the interval may miss, half of it at each end.

    Raises:
        ValueError: There are fewer than two groups, or nothing to lose.
    """
    lost = _by_group(questions.unpruned - pruned, questions.groups)
    told = _by_group(questions.unpruned - questions.blind, questions.groups)
    mean_told = float(told.mean())
    if len(lost) < 2 or mean_told <= 0:
        raise ValueError(
            f"questions must be about two images at least, which tell the model something, got {len(lost)} and "
            f"{mean_told:.3g} nats a token"
        )
    value = float(lost.sum() / told.sum())
    deviations = (lost - value * told) / mean_told
    low = value - _half_width(deviations, error / 2, -1)
    as_if_blind = np.append(deviations, (1 - value) * len(lost) / len(questions))
    high = value + float(as_if_blind.mean()) + _half_width(as_if_blind, error / 2, 1)
    return Estimate(value, low, high)


def questions_needed(questions: Questions, pruned: Array, tolerance: float, error: float = ERROR) -> int | None:
    """Return how many questions like these it takes to show that no more than `tolerance` is lost.

    Returns:
        Their number; None if more than that is lost, as far as these tell.
    """
    found = loss(questions, pruned, error)
    if found.value >= tolerance:
        return None
    groups = len(np.unique(questions.groups))
    # The ends move towards the value as the root of the number does, where they are not there yet.
    factor = ((found.high - found.value) / (tolerance - found.value)) ** 2
    return int(np.ceil(len(questions) * max(1.0, factor))) if groups else None


def difference(questions: Questions, first: Array, second: Array, error: float = ERROR) -> Estimate:
    """Return the loss of one pruned model less that of another on the same questions, with an interval."""
    apart = _by_group(second - first, questions.groups)
    told = _by_group(questions.unpruned - questions.blind, questions.groups)
    value = float(apart.sum() / told.sum())
    half = _half_width((apart - value * told) / float(told.mean()), error / 2, 0)
    return Estimate(value, value - half, value + half)


def _half_width(deviations: Array, tail: float, side: int) -> float:
    """From a mean to an end of its interval; `side` 1 for the upper, -1 for the lower, 0 for either if not skewed."""
    number = len(deviations)
    centred = deviations - deviations.mean()
    spread = float(deviations.std(ddof=1))
    if spread == 0:
        return 0.0
    quantile = NormalDist().inv_cdf(1 - tail)
    skewness = float((centred**3).mean()) / spread**3
    correction = side * skewness / (6 * sqrt(number)) * (2 * quantile**2 + 1)
    return max(0.0, spread / sqrt(number) * (quantile + correction))


def _by_group(values: Array, groups: NDArray[np.int64]) -> Array:
    """Sum what is of the same image; in units of a question, so that means over groups stay comparable."""
    _, places = np.unique(groups, return_inverse=True)
    sums: Array = np.bincount(places, weights=values).astype(np.float64)
    return sums
