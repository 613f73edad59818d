"""NExT-QA's open-ended answers by WUPS: how near the words of two short answers are in WordNet.

M. Malinowski, M. Fritz, "A Multi-World Approach to Question Answering about Real-World Scenes", NeurIPS 2014, as
NExT-QA uses it (J. Xiao et al., CVPR 2021): words without stop words, as lemmas; the product over one answer's words of
the nearest of the other's, both ways, the smaller. lmms-eval's own function downloads its corpora when it is imported
and needs the package pywsd for the lemmas; this one needs the corpora only.
"""

import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from divprune.lmms_eval_plugin.scoring.documents import Document

# What the scores need below a folder of NLTK_DATA: each with the name under which nltk.downloader knows it.
CORPORA = {
    "wordnet": ("corpora/wordnet", "corpora/wordnet.zip"),
    "punkt_tab": ("tokenizers/punkt_tab/english",),
    "averaged_perceptron_tagger_eng": ("taggers/averaged_perceptron_tagger_eng",),
}
_EXACT = ("DC", "DB")  # counts, and yes or no
_PARTS = {"NN": "n", "JJ": "a", "VB": "v", "RB": "r"}  # from the tags of the Penn Treebank to those of WordNet
_READING = threading.Lock()  # NLTK opens its corpora when they are first asked, and not in two threads at once


def missing_corpora() -> list[str]:
    """Return the corpora that are nowhere on NLTK's search path."""
    import nltk

    return [name for name, places in CORPORA.items() if not any(_found(nltk, place) for place in places)]


def _found(nltk: Any, place: str) -> bool:
    try:
        nltk.data.find(place)
    except LookupError:
        return False
    return True


def nextqa(document: Document, answers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Score an answer by WUPS in percent, against the better of the references; counts, yes and no by exact match."""
    references = [document["answer"], *filter(None, [document.get("additional_ref_answer")])]
    with _READING:
        said = lemmas(answers[0])
        expected = [lemmas(reference) for reference in references]
        exact = document["type"] in _EXACT
        score = float(said in expected) if exact else max(wups(said, each) for each in expected)
    return {"WUPS": {"qtype": document["type"], "pred": answers[0], "score": 100.0 * score}}


def wups(said: str, expected: str) -> float:
    """Return the similarity of two texts in [0, 1]."""
    from nltk.tokenize import word_tokenize

    words, others = word_tokenize(said), word_tokenize(expected)
    return min(_one_way(words, others), _one_way(others, words))


def _one_way(words: Sequence[str], others: Sequence[str]) -> float:
    product, found = 1.0, False
    for word in words:
        nearest = max((similarity(word, other) for other in others), default=0.0)
        # Words like nothing in the other answer are left out, unless there are no others.
        if nearest > 0.0:
            product, found = product * nearest, True
    return product if found else 0.0


@lru_cache(maxsize=65536)
def similarity(word: str, other: str) -> float:
    """Wu and Palmer's similarity of the first senses of two words."""
    if word == other:
        return 1.0
    from nltk.corpus import wordnet

    senses, other_senses = wordnet.synsets(word), wordnet.synsets(other)
    if not senses or not other_senses:
        return 0.0
    return float(senses[0].wup_similarity(other_senses[0]) or 0.0)


def lemmas(text: str) -> str:
    """Return the text's words as lemmas, without stop words."""
    from nltk import pos_tag
    from nltk.tokenize import word_tokenize

    tagged = pos_tag(word_tokenize(text))
    return " ".join(lemma for word, tag in tagged if (lemma := _lemma(word.lower(), tag)) not in stop_words())


def _lemma(word: str, tag: str) -> str:
    """Return the word's lemma if WordNet knows it, else its stem if WordNet knows that, else the word."""
    from nltk import pos_tag
    from nltk.corpus import wordnet
    from nltk.stem import PorterStemmer, WordNetLemmatizer

    # A word of none of the four classes is tagged once more by itself.
    part = _PARTS.get(tag[:2]) or _PARTS.get(pos_tag([word])[0][1][:2], "n")
    lemma: str = WordNetLemmatizer().lemmatize(word, pos=part)
    if wordnet.synsets(lemma):
        return lemma
    stem: str = PorterStemmer().stem(word)
    return stem if wordnet.synsets(stem) else word


@lru_cache(maxsize=1)
def stop_words() -> frozenset[str]:
    """lmms-eval's list for this data set."""
    import lmms_eval.tasks.nextqa as task

    lines = (Path(next(iter(task.__path__))) / "stopwords.csv").read_text(encoding="utf-8").splitlines()
    return frozenset(lines[1:])
