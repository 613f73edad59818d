"""What the answers to a task are worth: its score, an interval, and a paired test against the unpruned model."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from divprune.evaluation.datasets import Statistic
from divprune.evaluation.resampling import Array, ends, resampled_sums, swapped_sums
from divprune.evaluation.sample_scores import SampleScore, ScoredSample, by_document, sample_of

Test = Literal["exact McNemar", "paired permutation"]

NUM_PERMUTATIONS = 9999


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes:
        value: the number.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A pruned model against the unpruned one, on the documents that both have answered.

    Attributes:
        difference: pruned - unpruned, on the scale of the metric.
        p_value: two-sided, of the paired test that both are equally good.
        test: which test.
        share_kept: pruned / unpruned; None if the unpruned score is 0, or may be.
        num_documents: how many both have.
    """

    difference: Estimate
    p_value: float
    test: Test
    share_kept: Estimate | None
    num_documents: int


def score(sample_scores: Iterable[SampleScore], statistic: Statistic) -> float:
    """Return the score of a task.

    Args:
        sample_scores: one a question.
        statistic: "mean" of the scores; "f1" of the answer yes, 0 where nobody said or meant it; "mme": the perception
            score of MME, a sum over its categories of 100 times (accuracy + fraction of images with both questions
            right), from images of which both questions are there.

    Raises:
        ValueError: there are no sample scores, or two of one document.
    """
    sample = sample_of(by_document(sample_scores), statistic)
    return float(sample.score(sample.values.sum(axis=0)))


def interval(sample_scores: Iterable[SampleScore], statistic: Statistic) -> Estimate:
    """Return the score with the percentile interval of a bootstrap over documents, always the same for the same scores.

    For MME images are drawn, among those of their category. B. Efron, R. Tibshirani, "An Introduction to the
    Bootstrap", 1993, Section 13.

    Raises:
        ValueError: there are no sample scores, or two of one document.
    """
    sample = sample_of(by_document(sample_scores), statistic)
    return _estimate(sample.score(resampled_sums(sample.values, sample.strata)))


def compare_scores(
    sample_scores: Iterable[SampleScore], unpruned_scores: Iterable[SampleScore], statistic: Statistic
) -> Comparison:
    """Compare with the unpruned model on the documents that both have answered.

    The intervals are those of a paired bootstrap, which draws both models' answers to a document together. The test is
    McNemar's in its exact form where answers are right or wrong and the statistic is their mean (Q. McNemar,
    Psychometrika 12, 1947: a binomial test of the documents on which the two differ), and otherwise a permutation test
    that swaps the two models' answers to documents, for MME to images, at random (9999 times, the p-value after
    B. Phipson and G. Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010); see also R. Dror et al., "The Hitchhiker's Guide to
    Testing Statistical Significance in Natural Language Processing", ACL 2018.

    Raises:
        ValueError: there is no document that both have, or there are two sample scores of one document.
    """
    pruned, unpruned, num_documents = _paired(sample_scores, unpruned_scores, statistic)
    drawn, drawn_unpruned = _resampled_scores(pruned, unpruned, seed=0)
    if statistic == "mean" and _is_right_or_wrong(pruned, unpruned):
        test: Test = "exact McNemar"
        p_value = mcnemar(*_discordant(pruned.values[:, 0], unpruned.values[:, 0]))
    else:
        test, p_value = "paired permutation", _permutation(pruned, unpruned)
    return Comparison(_estimate(drawn - drawn_unpruned), p_value, test, _share(drawn, drawn_unpruned), num_documents)


def overall_share_kept(
    tasks: Iterable[tuple[Iterable[SampleScore], Iterable[SampleScore], Statistic]],
) -> Estimate | None:
    """Return the mean over tasks of the fraction of the unpruned score that is kept.

    Args:
        tasks: of each task the sample scores of the pruned and of the unpruned model, and the statistic; documents are
            drawn anew within each task, independently of the others.

    Returns:
        The share with its interval; None if there are no tasks, or one has an unpruned score of 0.

    Raises:
        ValueError: a task has no document that both models have.
    """
    shares = []
    for seed, (sample_scores, unpruned_scores, statistic) in enumerate(tasks):
        pruned, unpruned, _ = _paired(sample_scores, unpruned_scores, statistic)
        drawn, drawn_unpruned = _resampled_scores(pruned, unpruned, seed)
        if _share(drawn, drawn_unpruned) is None:
            return None
        shares.append(drawn / drawn_unpruned)
    return _estimate(np.mean(shares, axis=0)) if shares else None


def mcnemar(num_worse: int, num_better: int) -> float:
    """Return the exact two-sided p-value of McNemar's test.

    Args:
        num_worse: documents that only the unpruned model has right.
        num_better: documents that only the pruned model has right.
    """
    total, fewer = num_worse + num_better, min(num_worse, num_better)
    term, tail = 1, 1
    for place in range(fewer):
        term = term * (total - place) // (place + 1)
        tail += term
    # Whole numbers of thousands of digits, divided exactly.
    return min(1.0, tail / 2 ** (total - 1)) if total else 1.0


def _estimate(sample: Array) -> Estimate:
    return Estimate(float(sample[0]), *ends(sample))


def _share(drawn: Array, drawn_unpruned: Array) -> Estimate | None:
    return _estimate(drawn / drawn_unpruned) if bool((drawn_unpruned > 0).all()) else None


def _resampled_scores(pruned: ScoredSample, unpruned: ScoredSample, seed: int) -> tuple[Array, Array]:
    both = resampled_sums(np.hstack([pruned.values, unpruned.values]), pruned.strata, seed)
    width = pruned.values.shape[1]
    return pruned.score(both[:, :width]), unpruned.score(both[:, width:])


def _permutation(pruned: ScoredSample, unpruned: ScoredSample) -> float:
    gains = unpruned.values - pruned.values
    swapped = swapped_sums(gains[(gains != 0).any(axis=1)], NUM_PERMUTATIONS)
    first, second = pruned.values.sum(axis=0), unpruned.values.sum(axis=0)
    seen = abs(float(pruned.score(first) - unpruned.score(second)))
    chance = np.abs(pruned.score(first + swapped) - unpruned.score(second - swapped))
    # Sums in another order differ in the last digits.
    as_large = int((chance >= seen * (1 - 1e-9) - 1e-12).sum())
    return (1 + as_large) / (1 + NUM_PERMUTATIONS)


def _is_right_or_wrong(*samples: ScoredSample) -> bool:
    """Tell whether all scores are 0 or one other number: 1, or 100 where the metric is in percent."""
    seen = np.unique(np.concatenate([sample.values[:, 0] for sample in samples]))
    return len(seen[seen != 0]) <= 1


def _discordant(pruned: Array, unpruned: Array) -> tuple[int, int]:
    return int((pruned < unpruned).sum()), int((pruned > unpruned).sum())


def _paired(
    sample_scores: Iterable[SampleScore], unpruned_scores: Iterable[SampleScore], statistic: Statistic
) -> tuple[ScoredSample, ScoredSample, int]:
    ours, theirs = by_document(sample_scores), by_document(unpruned_scores)
    common = [document for document in ours if document in theirs]
    if not common:
        raise ValueError(
            f"sample_scores must share documents with the unpruned ones, got {len(ours)} and {len(theirs)}"
        )
    return (
        sample_of({document: ours[document] for document in common}, statistic),
        sample_of({document: theirs[document] for document in common}, statistic),
        len(common),
    )
