"""Scores on hand-made answers, and intervals that mean something."""

import importlib.util
import math

import pytest

from divprune.embedded import KINDS, Question, questions, scene
from divprune.errors import MissingDependencyError
from divprune.evaluation import cider
from divprune.evaluation.cider import cider_scores, scene_words
from divprune.evaluation.scenes.bench import answer_kinds
from divprune.evaluation.scenes.scores import Answered, scores

HAS_SCORER = importlib.util.find_spec("pycocoevalcap") is not None


def existence(place: int, answer: str, said: str) -> Answered:
    return Answered(place, Question("existence", "", answer, place, "test"), said)


def test_f1_and_accuracy_of_a_small_example() -> None:
    # Two true positives, one false positive, one missed, one true negative: F1 = 4 / 6.
    pairs = [("yes", "yes"), ("yes", "yes"), ("no", "yes"), ("yes", "no"), ("no", "no")]
    table = scores([existence(place, *pair) for place, pair in enumerate(pairs)], 5, with_cider=False)
    assert table["existence_f1_percent"] == pytest.approx(100 * 4 / 6)
    assert table["existence_percent"] == pytest.approx(60)
    assert table["count_percent"] is None
    assert table["caption_cider"] is None


def answers(num_scenes: int, right: float) -> list[Answered]:
    every = [(place, question) for place in range(num_scenes) for question in questions(scene(place, "test"))]
    return [
        Answered(place, question, question.answer if number % 10 < 10 * right else "neither")
        for number, (place, question) in enumerate(every)
    ]


def test_the_mean_is_over_kinds_and_intervals_hold_it() -> None:
    table = scores(answers(30, 0.7), 30, with_cider=False)
    assert table["mean_percent"] == pytest.approx(sum(table[f"{kind}_percent"] for kind in answer_kinds(KINDS)) / 5)
    for kind in (*KINDS, "mean"):
        assert table[f"{kind}_low_percent"] < table[f"{kind}_percent"] < table[f"{kind}_high_percent"]
    assert table == scores(answers(30, 0.7), 30, with_cider=False)
    perfect = scores(answers(30, 1.0), 30, with_cider=False)
    assert perfect["mean_low_percent"] == perfect["mean_high_percent"] == 100


def test_intervals_have_the_width_of_a_proportion() -> None:
    # One question a scene, half of them right: 1.96 standard errors to each side.
    asked = [existence(place, "yes", "yes" if place % 2 else "no") for place in range(200)]
    table = scores(asked, 200, with_cider=False)
    half = 100 * 1.96 * math.sqrt(0.25 / 200)
    assert table["existence_low_percent"] == pytest.approx(50 - half, abs=1)
    assert table["existence_high_percent"] == pytest.approx(50 + half, abs=1)


def test_questions_about_one_scene_stand_or_fall_together() -> None:
    # The same 200 answers from 20 scenes, all ten of a scene right or wrong: the interval is about 3 times as wide.
    alone = scores([existence(place, "yes", "yes" if place % 2 else "no") for place in range(200)], 200, False)
    groups = [existence(place, "yes", "yes" if place % 2 else "no") for place in range(20) for _ in range(10)]
    together = scores(groups, 20, False)
    width, wider = (table["existence_high_percent"] - table["existence_low_percent"] for table in (alone, together))
    assert wider > 2.5 * width


@pytest.mark.skipif(not HAS_SCORER, reason="needs the extra captions")
def test_cider_is_ten_for_the_expected_caption_and_less_for_others() -> None:
    expected = ["a red circle, two blue stars and an orange square", "a green ring", "two white crosses and a red star"]
    expected = [scene_words(caption) for caption in expected]
    references = [[caption] for caption in expected]
    # Three words have no sequence of four, which is a quarter of the score.
    assert cider_scores(expected, references) == pytest.approx([10, 7.5, 10])
    said = ["a red circle and an orange square", "a blue ring", "nothing"]
    first, second, third = cider_scores(said, references)
    assert 0 < second < 10
    assert 0 < first < 10
    assert third == 0
    assert cider_scores([], []) == []


@pytest.mark.skipif(not HAS_SCORER, reason="needs the extra captions")
def test_captions_enter_the_table() -> None:
    table = scores(answers(12, 1.0), 12, with_cider=True)
    assert 7.5 < table["caption_cider"] <= 10
    assert table["caption_percent"] == 100


def test_the_missing_scorer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycocoevalcap.cider.cider", None)
    with pytest.raises(MissingDependencyError, match=r"divprune\[captions\]"):
        cider.cider_scores(["a"], [["a"]])
