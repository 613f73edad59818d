"""The search, on made-up models whose true losses are known."""

from collections.abc import Sequence

import numpy as np
import pytest

from divprune.evaluation.retention import Questions
from divprune.experiments.tuning.search import SEARCHED_KEEP_RATIOS, PruningSetting, Search, split

TOLERANCE = 0.02
TRUE_LOSSES = {"good": 0.004, "poor": 0.05, "random": 0.05}


class Model:
    """Loses `strength / keep_ratio ** 1.5` of what images tell, now more and now less."""

    def __init__(self, num_questions: int, seed: int, spread: float = 0.1) -> None:
        self.random = np.random.default_rng(seed)
        told = self.random.exponential(1, num_questions)
        self.questions = Questions(np.zeros(num_questions), -told, np.arange(num_questions))
        self.spread, self.asked = spread, 0

    def true_loss(self, setting: PruningSetting) -> float:
        return min(1.0, TRUE_LOSSES[setting.method] * (0.1 / setting.keep_ratio) ** 1.5)

    def measure(self, setting: PruningSetting, places: Sequence[int]) -> Sequence[float]:
        self.asked += len(places)
        noise = self.random.gamma(0.5, 2 * self.true_loss(setting), len(places))
        return list(-noise - self.random.normal(0, self.spread, len(places)))

    def search(self) -> Search:
        return Search(self.questions, *split(self.questions), self.measure, TOLERANCE)


def test_the_smallest_ratio_that_is_good_enough() -> None:
    model = Model(4000, seed=0, spread=0.05)
    found = model.search().run(["poor", "good"])
    assert found.chosen is not None
    # 0.004 / (ratio / 0.1) ** 1.5 is 0.0113 at 0.05 and 0.0243 at 0.03.
    assert found.chosen.setting == PruningSetting("good", 0.05)
    assert found.against_random is not None
    assert found.against_random.high < 0
    every = len(SEARCHED_KEEP_RATIOS) * 2 * 4000
    assert model.asked <= every / 4


def test_settings_that_are_clearly_out_are_left_early() -> None:
    model = Model(4000, seed=1)
    first = model.search().run(["poor"], [0.02, 0.05, 0.4]).tried[0]
    assert first.setting.keep_ratio == 0.05
    assert first.verdict == "out"
    assert first.num_questions < 500


def test_too_few_questions_to_tell() -> None:
    found = Model(60, seed=2).search().run(["good"])
    assert found.chosen is None
    assert found.confirmed
    assert found.confirmed[-1].needed is None or found.confirmed[-1].needed > 60


def test_nothing_is_good_enough() -> None:
    found = Model(400, seed=3).search().run(["poor"], [0.02, 0.03])
    assert found.chosen is None
    assert not found.confirmed
    assert {each.verdict for each in found.tried} == {"out"}


def test_within_a_cost_the_setting_that_loses_least() -> None:
    found = (
        Model(900, seed=4).search().within(["poor", "good"], SEARCHED_KEEP_RATIOS, lambda each: each.keep_ratio <= 0.12)
    )
    assert found.chosen is not None
    assert found.chosen.setting == PruningSetting("good", 0.1)
    assert {each.setting.keep_ratio for each in found.tried} == {0.1}
    with pytest.raises(ValueError, match="not even at"):
        Model(900, seed=4).search().within(["good"], SEARCHED_KEEP_RATIOS, lambda _: False)


def test_questions_of_an_image_are_on_one_side() -> None:
    groups = np.repeat(np.arange(25), 4)
    questions = Questions(np.zeros(100), -np.ones(100), groups)
    choosing, confirming = split(questions)
    assert sorted(choosing + confirming) == list(range(100))
    assert not set(groups[choosing]) & set(groups[confirming])


@pytest.mark.slow
@pytest.mark.parametrize("num_questions", [600, 1500])
def test_promises_are_kept_as_often_as_stated(num_questions: int) -> None:
    """Of 1,000 searches at most 50 may promise what is not so, on models whose losses lie around the tolerance."""
    broken = promised = 0
    for seed in range(1000):
        model = Model(num_questions, seed)
        found = model.search().run(["good", "poor"], [0.02, 0.03, 0.035, 0.05, 0.1, 0.2])
        if found.chosen is not None:
            promised += 1
            broken += model.true_loss(found.chosen.setting) > TOLERANCE
    assert broken <= 50
    assert promised > 0
