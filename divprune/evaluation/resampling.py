"""Sums over documents drawn anew: what bootstrap intervals and permutation tests are made of."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 1000
CONFIDENCE = 0.95
SEED = 0

_CHUNK_VALUES = 2_000_000  # drawn at a time

Array = NDArray[np.float64]


def resampled_sums(values: Array, strata: Sequence[NDArray[np.int64]] | None = None, seed: int = SEED) -> Array:
    """Sum the rows of a sample and of bootstrap samples of it.

    Calls with as many rows and the same strata and seed draw the same rows, so that what belongs together stays paired.

    Args:
        values: (n, k), one row a document.
        strata: places of the rows that are drawn among themselves, as many as they are; None for all together.
        seed: of the draws.

    Returns:
        (1 + NUM_RESAMPLES, k); the first row is the sample itself.
    """
    random = np.random.default_rng(seed)
    sums = np.zeros((1 + NUM_RESAMPLES, values.shape[1]))
    for places in [np.arange(len(values))] if strata is None else strata:
        group = values[places]
        sums[0] += group.sum(axis=0)
        for part in _chunks(NUM_RESAMPLES, len(group)):
            drawn = random.integers(0, max(1, len(group)), size=(len(part), len(group)))
            # A column at a time: a gather of single numbers is several times as fast as one of rows.
            for column in range(values.shape[1]):
                sums[1 + part.start : 1 + part.stop, column] += group[:, column].take(drawn).sum(axis=1)
    return sums


def swapped_sums(differences: Array, num_permutations: int, seed: int = SEED) -> Array:
    """Sum the rows that a fair coin picks.

    Args:
        differences: (n, k), one row a pair of documents.
        num_permutations: how often.
        seed: of the coin.

    Returns:
        (num_permutations, k).
    """
    random = np.random.default_rng(seed)
    sums = np.zeros((num_permutations, differences.shape[1]))
    for part in _chunks(num_permutations, len(differences)):
        size = len(part) * len(differences)
        coins = np.unpackbits(np.frombuffer(random.bytes(size // 8 + 1), dtype=np.uint8), count=size)
        sums[part.start : part.stop] = coins.reshape(len(part), -1).astype(np.float64) @ differences
    return sums


def ends(sample: Array) -> tuple[float, float]:
    """Return the percentile interval of resampled numbers, which ignores those that are not defined."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(sample, [tail, 1 - tail])
    return float(low), float(high)


def ratio(part: Array, whole: Array) -> Array:
    """Divide; not a number where there is nothing to divide by."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _chunks(total: int, width: int) -> Iterator[range]:
    step = max(1, _CHUNK_VALUES // max(1, width))
    for start in range(0, total, step):
        yield range(start, min(start + step, total))
