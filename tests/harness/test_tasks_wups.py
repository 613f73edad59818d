"""NExT-QA's WUPS on a WordNet of a few animals, whose similarities can be worked out by hand."""

from typing import Any

import pytest

pytest.importorskip("lmms_eval")

import nltk

from divprune.errors import EvaluationError
from divprune.lmms_eval_plugin.runs import preflight
from divprune.lmms_eval_plugin.scoring import wups


def score(said: str, expected: str, kind: str = "DO", more: str | None = None) -> float:
    document = {"answer": expected, "type": kind, "additional_ref_answer": more}
    return float(wups.nextqa(document, [said])["WUPS"]["score"])


def test_similarity_is_twice_the_depth_of_the_common_ancestor_over_the_depths() -> None:
    # entity 1, animal 2, dog and cat 3, puppy 4
    assert wups.similarity("dog", "cat") == pytest.approx(2 * 2 / (3 + 3))
    assert wups.similarity("puppy", "dog") == pytest.approx(2 * 3 / (4 + 3))
    assert wups.similarity("dog", "xyzzy") == 0.0
    assert wups.similarity("xyzzy", "xyzzy") == 1.0


def test_answers_are_compared_as_lemmas_without_stop_words() -> None:
    assert wups.lemmas("The dog is running") == "dog run"
    assert wups.lemmas("it caught two Dogs.") == "catch two dog ."
    assert score("the dogs", "a dog") == 100.0


def test_the_nearest_words_are_multiplied_both_ways_and_the_smaller_counts() -> None:
    assert score("cat", "dog") == pytest.approx(100 * 2 / 3)
    # "dog cat" to "dog": 1 x 2/3 one way, 1 the other.
    assert score("dog cat", "dog") == pytest.approx(100 * 2 / 3)
    assert score("xyzzy", "dog") == 0.0
    assert score("", "dog") == 0.0
    # A word like nothing in the other answer is left out.
    assert score("dog xyzzy", "dog") == 100.0


def test_the_better_reference_counts() -> None:
    assert score("puppy", "cat", more="a dog") == pytest.approx(100 * 6 / 7)


def test_counts_are_right_or_wrong() -> None:
    assert score("two", "two", "DC") == 100.0
    assert score("dog", "cat", "DB") == 0.0
    assert score("cats", "dog", "DB", more="cat") == 100.0


def test_missing_corpora_are_found_before_anything_is_generated(
    manager: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert preflight.check(["divprune_paper_nextqa"], manager) == {}
    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(EvaluationError, match=r"WUPS needs NLTK's wordnet, punkt_tab, averaged_.* nltk.downloader"):
        preflight.check(["divprune_paper_nextqa"], manager)
    monkeypatch.undo()


def test_todays_task_needs_a_package_more() -> None:
    with pytest.raises(EvaluationError, match="nextqa_oe_test needs the package pywsd"):
        preflight.check_wordnet(["nextqa_oe_test"])
