"""CIDEr: the official tokenizer and ours, the choice between them, and each picture's score."""

import random
import shutil
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("lmms_eval")

from divprune.errors import EvaluationError
from divprune.lmms_eval_plugin.scoring import captions
from divprune.lmms_eval_plugin.scoring.settings import ScoringSettings, use
from divprune.lmms_eval_plugin.scoring.words import split_words

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="the official tokenizer needs Java")

WHO = [
    "A man",
    "Two women",
    "The boy's dog",
    "Someone's cats",
    "A black-and-white cow",
    "An old man, smiling,",
    "A child",
]
DOES = [
    "is riding",
    "isn't holding",
    "stands next to",
    "can't reach",
    "are looking at",
    "sits (quietly) on",
    "holds up",
]
WHAT = [
    'a red "STOP" sign',
    "an ice-cream cone",
    "a skateboard",
    "Mr. Brown's bike",
    "a No. 7 bus",
    "some 1950s toys",
    "it",
]
WHERE = [
    "in front of St. Paul's.",
    "at 5 p.m.",
    "near the water; it's cold.",
    "on a 2-lane street!",
    "outdoors. It rains.",
    "",
]
PLAIN = [
    ("A man rides a horse.", "a man rides a horse"),
    ("The dog's ball isn't red.", "the dog 's ball is n't red"),
    ("Two dogs. One cat.", "two dogs one cat"),
    ("A U.S. flag (big) at 5 p.m.", "a u.s. flag -lrb- big -rrb- at 5 p.m."),
    ("Mr. Smith's red-and-white car!", "mr. smith 's red-and-white car"),
    ("", ""),
]


def made_captions(count: int) -> list[dict[str, Any]]:
    chance = random.Random(7)

    def one() -> str:
        return " ".join(chance.choice(words) for words in (WHO, DOES, WHAT, WHERE)).strip()

    items = []
    for place in range(count):
        references = [one() for _ in range(5)]
        words = chance.choice(references).split()
        words[chance.randrange(len(words))] = chance.choice(WHAT)
        items.append({"image_id": place, "answer": references, "pred": " ".join(words)})
    return items


def scores_with(tokenizer: Any, items: list[dict[str, Any]]) -> list[float]:
    with use(ScoringSettings(tokenizer)):
        return captions.caption_cider(items)


@pytest.mark.parametrize(("text", "words"), PLAIN)
def test_words_are_apart_in_lower_case_without_punctuation(text: str, words: str) -> None:
    assert split_words(text) == words


@needs_java
def test_the_official_tokenizer_says_the_same_of_plain_captions() -> None:
    assert captions.java_words([text for text, _ in PLAIN]) == [words for _, words in PLAIN]


@needs_java
def test_java_is_called_as_pycocoevalcap_calls_it() -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    texts = [item["pred"] for item in made_captions(40)] + ["a café\nby night", "last"]
    official = PTBTokenizer().tokenize({place: [{"caption": text}] for place, text in enumerate(texts)})
    assert captions.java_words(texts) == [official[place][0] for place in range(len(texts))]


@needs_java
def test_both_tokenizers_give_the_same_cider_within_a_thousandth() -> None:
    items = made_captions(400)
    official, ours = scores_with("java", items), scores_with("python", items)
    assert sum(official) / 400 == pytest.approx(sum(ours) / 400, abs=1e-3)
    assert 0.5 < sum(ours) / 400 < 9.5


@needs_java
def test_the_default_is_the_official_tokenizer() -> None:
    items = made_captions(8)
    assert scores_with("auto", items) == scores_with("java", items)


def test_captions_without_references_in_common_score_zero_and_copies_ten() -> None:
    items = [
        {"image_id": 0, "answer": ["a red circle on a floor"] * 5, "pred": "a red circle on a floor"},
        {"image_id": 1, "answer": ["three stars above one ring"] * 5, "pred": "dogs"},
    ]
    assert scores_with("python", items) == pytest.approx([10.0, 0.0])


def test_without_java_captions_are_refused_unless_the_fallback_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for tokenizer in ("auto", "java"):
        with pytest.raises(EvaluationError, match=r"default-jre-headless.*tokenizer in Python"):
            scores_with(tokenizer, made_captions(2))
    assert scores_with("python", made_captions(2))


@needs_java
def test_java_is_tried_before_anything_is_generated(manager: Any) -> None:
    from divprune.lmms_eval_plugin.runs import preflight

    assert preflight.check(["divprune_paper_nocaps"], manager, ScoringSettings()) == {"tokenizer": "java"}


def test_a_java_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho no room for the heap >&2\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(EvaluationError, match="no room for the heap"):
        scores_with("java", made_captions(3))


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from divprune.lmms_eval_plugin.scoring.settings import current

    monkeypatch.setenv("DIVPRUNE_CIDER_TOKENIZER", "python")
    monkeypatch.setenv("DIVPRUNE_SCORING_FOLDER", str(tmp_path))
    monkeypatch.setenv("DIVPRUNE_EGOSCHEMA_URL", "http://127.0.0.1:1/")
    assert current() == ScoringSettings("python", tmp_path, "http://127.0.0.1:1/")
    monkeypatch.setenv("DIVPRUNE_CIDER_TOKENIZER", "perl")
    with pytest.raises(EvaluationError, match="got 'perl'"):
        current()
    with use(ScoringSettings("java")) as wanted:
        assert current() is wanted
        assert replace(current(), tokenizer="python").tokenizer == "python"
