"""Search for the smallest keep ratio that loses no more than a tolerance.

```
choosing questions      per method: bisect over the keep ratios; of each setting as many questions as it takes to tell
confirming questions    the cheapest settings that passed, cheapest first, until one keeps the promise
```

Looks at a setting are at 32, 64, 128 ... questions; it is out as soon as it is clear that it loses too much, and in as
soon as it is clear that it does not. All looks at it together err with probability `error` (Bonferroni). The promise
rests on the confirming questions alone, which no choice was made by.

The other way round, `Search.within` a cost: of each method the largest keep ratio that costs no more, and of these the
one that loses least.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Literal

import numpy as np

from divprune.evaluation.resampling import Array
from divprune.evaluation.retention import ERROR, Questions, difference, loss, questions_needed
from divprune.evaluation.statistics import Estimate
from divprune.methods import RandomTokens

SEARCHED_KEEP_RATIOS = (0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)
FIRST_LOOK = 32
MAX_CONFIRMATIONS = 3

Verdict = Literal["in", "out"]


@dataclass(frozen=True, slots=True)
class PruningSetting:
    """A way to prune: a method as `get_method` reads it, and a keep ratio."""

    method: str
    keep_ratio: float


Measure = Callable[[PruningSetting, Sequence[int]], Sequence[float]]
"""Mean log-likelihoods per token that a pruned model gives the unpruned answers to some questions, by their places."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What was found of a setting on the choosing questions.

    Attributes:
        setting: Which.
        verdict: Whether it passed.
        num_questions: How many it took.
        loss: On those.
    """

    setting: PruningSetting
    verdict: Verdict
    num_questions: int
    loss: Estimate


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What was found of a setting on the confirming questions.

    Attributes:
        setting: Which.
        loss: The interval is that of the promise.
        holds: Whether its upper end is within the tolerance.
        needed: How many questions it would take to tell, if it does not; None if more is lost than that.
    """

    setting: PruningSetting
    loss: Estimate
    holds: bool
    needed: int | None


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        tolerance: Largest loss that was allowed.
        tried: Settings on the choosing questions, in the order of the search.
        confirmed: Settings on the confirming questions, in that order; the last one is chosen if it holds.
        against_random: Loss of the chosen setting less that of random tokens of the same number, on the confirming
            questions; None where nothing was chosen, or random tokens were.
        has_target: Whether a cost was given, and no tolerance has to be kept.
    """

    tolerance: float
    tried: Sequence[Tried]
    confirmed: Sequence[Confirmed]
    against_random: Estimate | None
    has_target: bool = False

    @property
    def chosen(self) -> Confirmed | None:
        """The setting that keeps the promise, or loses least within the cost; None if none does."""
        return self.confirmed[-1] if self.confirmed and (self.has_target or self.confirmed[-1].holds) else None


@dataclass
class Search:
    """Finds a setting.

    Attributes:
        questions: All of them.
        choosing: Places of those that choices are made by.
        confirming: Places of the others.
        measure: Asks a pruned model.
        tolerance: Largest share of what the images tell that may be lost.
        cost: By which settings are cheaper or dearer.
        error: How often an interval may miss.
    """

    questions: Questions
    choosing: Sequence[int]
    confirming: Sequence[int]
    measure: Measure
    tolerance: float
    cost: Callable[[PruningSetting], float] = attrgetter("keep_ratio")
    error: float = ERROR
    _found: dict[PruningSetting, dict[int, float]] = field(default_factory=dict)

    def run(self, methods: Sequence[str], keep_ratios: Sequence[float] = SEARCHED_KEEP_RATIOS) -> Found:
        """Search all methods; "random" is always looked at beside the setting that is chosen."""
        tried: list[Tried] = []
        for method in methods:
            self._bisect(method, sorted(keep_ratios), tried)
        passed = sorted(
            (each for each in tried if each.verdict == "in"),
            key=lambda each: (self.cost(each.setting), each.loss.value),
        )
        confirmed: list[Confirmed] = []
        for each in passed[:MAX_CONFIRMATIONS]:
            confirmed.append(self._confirm(each.setting, self.error / min(MAX_CONFIRMATIONS, len(passed))))
            if confirmed[-1].holds:
                break
        found = Found(self.tolerance, tried, confirmed, None)
        return replace(found, against_random=self._against_random(found.chosen))

    def within(
        self, methods: Sequence[str], keep_ratios: Sequence[float], affordable: Callable[[PruningSetting], bool]
    ) -> Found:
        """Find the setting that loses least among those that can be afforded.

        Raises:
            ValueError: None can.
        """
        largest = [self._largest(method, sorted(keep_ratios), affordable) for method in methods]
        tried = [self._judge(setting, is_whole=True) for setting in largest if setting is not None]
        if not tried:
            raise ValueError(f"no method is within the cost, not even at a keep ratio of {min(keep_ratios):g}")
        best = min(tried, key=lambda each: each.loss.value)
        found = Found(self.tolerance, tried, [self._confirm(best.setting, self.error)], None, has_target=True)
        return replace(found, against_random=self._against_random(found.chosen))

    def _largest(
        self, method: str, keep_ratios: Sequence[float], affordable: Callable[[PruningSetting], bool]
    ) -> PruningSetting | None:
        low, high = 0, len(keep_ratios)
        while low < high:
            middle = (low + high) // 2
            if affordable(PruningSetting(method, keep_ratios[middle])):
                low = middle + 1
            else:
                high = middle
        return PruningSetting(method, keep_ratios[low - 1]) if low else None

    def _against_random(self, chosen: Confirmed | None) -> Estimate | None:
        if chosen is None or chosen.setting.method.partition(":")[0] == RandomTokens.name:
            return None
        others = self._asked(PruningSetting(RandomTokens.name, chosen.setting.keep_ratio), self.confirming)
        own = self._asked(chosen.setting, self.confirming)
        return difference(self.questions.at(self.confirming), own, others, self.error)

    def loss_of(self, setting: PruningSetting) -> Estimate:
        """Return the loss of a setting on the confirming questions."""
        return loss(self.questions.at(self.confirming), self._asked(setting, self.confirming), self.error)

    def _bisect(self, method: str, keep_ratios: Sequence[float], tried: list[Tried]) -> None:
        """Find the smallest ratio that passes: what keeps more loses less."""
        low, high = 0, len(keep_ratios)
        while low < high:
            middle = (low + high) // 2
            tried.append(self._judge(PruningSetting(method, keep_ratios[middle])))
            if tried[-1].verdict == "in":
                high = middle
            else:
                low = middle + 1

    def _judge(self, setting: PruningSetting, *, is_whole: bool = False) -> Tried:
        """Ask as many of the choosing questions as it takes; with all of them, the likelier of the two is taken."""
        looks = [len(self.choosing)] if is_whole else _looks(len(self.choosing))
        for number in looks:
            places = self.choosing[:number]
            found = loss(self.questions.at(places), self._asked(setting, places), self.error / len(looks))
            if found.low > self.tolerance:
                return Tried(setting, "out", number, found)
            if found.high <= self.tolerance:
                break
        return Tried(setting, "in" if found.value <= self.tolerance else "out", number, found)

    def _confirm(self, setting: PruningSetting, error: float) -> Confirmed:
        questions, pruned = self.questions.at(self.confirming), self._asked(setting, self.confirming)
        found = loss(questions, pruned, error)
        holds = found.high <= self.tolerance
        needed = None if holds else questions_needed(questions, pruned, self.tolerance, error)
        return Confirmed(setting, found, holds, needed)

    def _asked(self, setting: PruningSetting, places: Sequence[int]) -> Array:
        """Return what a pruned model says of some questions; what has been asked is not asked again."""
        known = self._found.setdefault(setting, {})
        new = [place for place in places if place not in known]
        if new:
            known.update(zip(new, self.measure(setting, new), strict=True))
        return np.array([known[place] for place in places])


def split(questions: Questions, seed: int = 0) -> tuple[list[int], list[int]]:
    """Divide questions: a third to make choices by, the others to confirm one; images stay together."""
    random = np.random.default_rng(seed)
    groups = random.permutation(np.unique(questions.groups))
    first = set(groups[: -(-len(groups) // 3)].tolist())
    shuffled = random.permutation(len(questions)).tolist()
    choosing = [place for place in shuffled if questions.groups[place] in first]
    return choosing, [place for place in shuffled if questions.groups[place] not in first]


def _looks(total: int) -> list[int]:
    numbers = []
    number = FIRST_LOOK
    while number < total:
        numbers.append(number)
        number *= 2
    return [*numbers, total]
