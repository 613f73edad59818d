"""How alike two answers are, and what kind of question was asked: simple rules on text, labelled as such."""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

from divprune.errors import MissingDependencyError
from divprune.evaluation.cider import cider_scores
from divprune.evaluation.resampling import CONFIDENCE, ends, resampled_sums
from divprune.evaluation.statistics import Estimate

_ARTICLES = re.compile(r"\b(a|an|the)\b")
DESCRIPTION = "description"
_KINDS = (
    ("text in the image", re.compile(r"\b(read|written|writes?|says?|text|words?|letters?|sign|title|label)\b")),
    ("count", re.compile(r"\b(how many|count|number of)\b")),
    ("where", re.compile(r"\b(where|left|right|above|below|behind|position|next to|on top|under)\b")),
    ("yes or no", re.compile(r"^(is|are|was|were|do|does|did|has|have|can|could|will|would)\b")),
    (DESCRIPTION, re.compile(r"\b(describe|caption|description|what do you see|what is shown)\b")),
)
OTHER_KIND = "other"


@dataclass(frozen=True)
class ComparedAnswer:
    """What the unpruned and the pruned model answered to a question, and the answers that are right, if known."""

    kind: str
    unpruned: str
    pruned: str
    right: tuple[str, ...] = ()


def agreement(pairs: Sequence[ComparedAnswer]) -> dict[str, Any]:
    """Tell how many answers stayed, how alike they are, and where right answers are known how right they are.

    Returns:
        Estimates with 95 % intervals, ready for JSON: "same" and "token_f1"; "accuracy" of questions with right answers
        but descriptions, and "cider" of these, each unpruned, pruned and their paired difference. The latter needs the
        extra `captions`, and two captions at least.
    """
    found: dict[str, Any] = {
        "same": asdict(_proportion([normalised(each.unpruned) == normalised(each.pruned) for each in pairs])),
        "token_f1": asdict(_mean([token_f1(each.pruned, each.unpruned) for each in pairs])),
    }
    labelled = [each for each in pairs if each.right]
    captions = [each for each in labelled if each.kind == DESCRIPTION]
    others = [each for each in labelled if each.kind != DESCRIPTION]
    if others:
        before, after = ([accuracy(getattr(each, of), each.right) for each in others] for of in ("unpruned", "pruned"))
        found["accuracy"] = _compared(before, after)
    if len(captions) > 1 and (scores := _cider(captions)) is not None:
        found["cider"] = _compared(*scores)
    return found


def _cider(captions: Sequence[ComparedAnswer]) -> tuple[list[float], list[float]] | None:
    right = [[_words(each) for each in pair.right] for pair in captions]
    try:
        before, after = (
            cider_scores([_words(getattr(each, of)) for each in captions], right) for of in ("unpruned", "pruned")
        )
    except MissingDependencyError:
        return None
    return before, after


def _compared(unpruned: Sequence[float], pruned: Sequence[float]) -> Mapping[str, Any]:
    difference = [after - before for before, after in zip(unpruned, pruned, strict=True)]
    estimates = {"unpruned": unpruned, "pruned": pruned, "difference": difference}
    return {"num_questions": len(unpruned)} | {name: asdict(_mean(values)) for name, values in estimates.items()}


def _mean(values: Sequence[float]) -> Estimate:
    """Return the mean with the percentile interval of a bootstrap over questions."""
    drawn = resampled_sums(np.array(values)[:, None])[:, 0] / len(values)
    return Estimate(float(drawn[0]), *ends(drawn))


def _proportion(values: Sequence[bool]) -> Estimate:
    """Return a proportion with Wilson's score interval, which says something of 100 % too (JASA 22, 1927)."""
    number, squared = len(values), NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) ** 2
    value = sum(values) / number
    middle = (value + squared / (2 * number)) / (1 + squared / number)
    half = sqrt(squared * (value * (1 - value) / number + squared / (4 * number**2))) / (1 + squared / number)
    return Estimate(value, max(0.0, middle - half), min(1.0, middle + half))


def _words(caption: str) -> str:
    return " ".join(caption.lower().translate(str.maketrans("", "", string.punctuation)).split())


def normalised(answer: str) -> str:
    """Return an answer without case, punctuation, articles and runs of spaces."""
    plain = answer.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(_ARTICLES.sub(" ", plain).split())


def token_f1(answer: str, other: str) -> float:
    """Return the harmonic mean of precision and recall of one answer's words in another's, in [0, 1].

    P. Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text", EMNLP 2016, Section 6.1.
    """
    words, others = normalised(answer).split(), normalised(other).split()
    if not words or not others:
        return float(words == others)
    common = sum((Counter(words) & Counter(others)).values())
    return 2 * common / (len(words) + len(others))


def accuracy(answer: str, answers: tuple[str, ...]) -> float:
    """Return how right an answer is, in [0, 1]: whether it is the one that is right; of several, min(1, matches / 3).

    S. Antol et al., "VQA: Visual Question Answering", ICCV 2015, Section 3; without the leave-one-out mean.
    """
    matches = sum(normalised(answer) == normalised(each) for each in answers)
    return float(matches > 0) if len(answers) < 3 else min(1.0, matches / 3)


def kind_of(prompt: str) -> str:
    """Guess what kind of question a prompt asks, by words in it."""
    plain = " ".join(prompt.lower().split())
    return next((name for name, pattern in _KINDS if pattern.search(plain)), OTHER_KIND)
