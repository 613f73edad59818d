"""How many visual tokens to keep: the only place where a fraction becomes a count.

image -> visual tokens -> **budget** -> selection -> prompt -> LLM. An engine needs the count before the vision encoder
runs, and a mismatch of one breaks a prompt, so every integration calls `budget` and nothing else rounds.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import SupportsIndex

from divprune.errors import ArgumentError, argument_errors

DEFAULT_KEEP_RATIO = 0.098
"""The paper's: 56 of 576 tokens."""
KEEP_RATIO_STEPS = 1_000_000
"""`keep_ratio` is rounded to this many steps, so that an engine can carry it as an integer."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A checked budget whose number of visual tokens is not known yet.

    Attributes:
        keep_ratio: Fraction of the tokens kept, in (0, 1], rounded to 1e-6; None if `num_keep` is given.
        num_keep: Number of tokens kept, at least 1; None if `keep_ratio` is given.

    Raises:
        ValueError: Both or neither are given, or one is out of range.
        TypeError: `keep_ratio` is not a real number or `num_keep` is not an integer.
    """

    keep_ratio: float | None = None
    num_keep: int | None = None

    def __post_init__(self) -> None:
        """Check the two fields and round `keep_ratio` to its step."""
        if (self.keep_ratio is None) == (self.num_keep is None):
            both = "neither" if self.keep_ratio is None else f"keep_ratio={self.keep_ratio}, num_keep={self.num_keep}"
            raise ValueError(f"give exactly one of keep_ratio and num_keep, got {both}")
        if self.keep_ratio is not None:
            object.__setattr__(self, "keep_ratio", _checked_ratio(self.keep_ratio))
        else:
            object.__setattr__(self, "num_keep", checked_count("num_keep", self.num_keep))

    def count(self, num_visual_tokens: int) -> int:
        """Return how many of `num_visual_tokens` tokens are kept: at least 1, at most all."""
        total = checked_count("num_visual_tokens", num_visual_tokens)
        if self.num_keep is not None:
            return min(self.num_keep, total)
        # Python's round (half to even) of the product, as in the paper.
        return max(1, round((self.keep_ratio or 0.0) * total))


def budget(num_visual_tokens: int, *, keep_ratio: float | None = None, num_keep: int | None = None) -> int:
    """Return how many of `num_visual_tokens` (M) tokens are kept.

    `max(1, round(keep_ratio * M))` with Python's round, or `min(num_keep, M)`.

    Args:
        num_visual_tokens: M, at least 1.
        keep_ratio: Fraction kept, in (0, 1]; rounded to 1e-6 first.
        num_keep: Number kept, at least 1. Exactly one of `keep_ratio` and `num_keep` is given.

    Returns:
        A count between 1 and M.

    Raises:
        ValueError: A value is out of range, or both or neither of `keep_ratio` and `num_keep` are given.
        TypeError: A value has the wrong type.
    """
    return Budget(keep_ratio, num_keep).count(num_visual_tokens)


def equal_shares(count: int, sizes: Sequence[int]) -> list[int]:
    """Deal `count` tokens out to parts of an image in equal numbers, the remainder to the first.

    What a part is too small for goes to the others in the same way.

    Args:
        count: At most the sum of `sizes`.
        sizes: Tokens of each part.

    Returns:
        How many tokens each part keeps; they add up to `count`.
    """
    shares = [0] * len(sizes)
    while count:
        roomy = [part for part, size in enumerate(sizes) if shares[part] < size]
        each, remainder = divmod(count, len(roomy))
        for place, part in enumerate(roomy):
            dealt = min(each + (place < remainder), sizes[part] - shares[part])
            shares[part] += dealt
            count -= dealt
    return shares


def budget_or_default(keep_ratio: float | None, num_keep: int | None) -> Budget:
    """Return the budget that two optional arguments name; the paper's keep ratio if they name none.

    Raises:
        ArgumentError: both are given, or one is out of range.
    """
    if keep_ratio is not None and num_keep is not None:
        raise ArgumentError("give `keep_ratio` or `num_keep`, not both")
    default = DEFAULT_KEEP_RATIO if num_keep is None else None
    with argument_errors():
        return Budget(default if keep_ratio is None else keep_ratio, num_keep)


def checked_count(name: str, value: SupportsIndex | None) -> int:
    """Return `value` as an int of at least 1; errors call it `name`."""
    if value is None or isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    count = operator.index(value)
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")
    return count


def _checked_ratio(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"keep_ratio must be a number in (0, 1], got {value!r}")
    try:
        ratio = float(value)
    except OverflowError:
        raise ValueError(f"keep_ratio must be in (0, 1], got {value}") from None
    if not 0 < ratio <= 1:
        guess = f"; to keep {ratio:g} % write {ratio / 100:g}" if 1 < ratio <= 100 else ""
        raise ValueError(f"keep_ratio must be in (0, 1], got {ratio}{guess}")
    return round(ratio * KEEP_RATIO_STEPS) / KEEP_RATIO_STEPS
