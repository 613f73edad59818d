"""How alike two answers are, and what kind of question was asked: simple rules on text, labelled as such."""

import re
import string
from collections import Counter

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_KINDS = (
    ("text in the image", re.compile(r"\b(read|written|writes?|says?|text|words?|letters?|sign|title|label)\b")),
    ("count", re.compile(r"\b(how many|count|number of)\b")),
    ("where", re.compile(r"\b(where|left|right|above|below|behind|position|next to|on top|under)\b")),
    ("yes or no", re.compile(r"^(is|are|was|were|do|does|did|has|have|can|could|will|would)\b")),
    ("description", re.compile(r"\b(describe|caption|description|what do you see|what is shown)\b")),
)
OTHER_KIND = "other"


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
