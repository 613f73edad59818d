"""Captions as words without Java: close to Stanford's PTB tokenizer in lower case without punctuation.

NLTK's word tokenizer follows the same conventions; what it does otherwise is mended here. `tests/harness` compares both.
"""

import re
from functools import lru_cache
from typing import Any

PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
_ABBREVIATIONS = frozenset(
    "mr. mrs. ms. dr. prof. st. mt. ft. jr. sr. vs. etc. e.g. i.e. a.m. p.m. u.s. u.k. d.c. no. inc. co. corp. ltd. "
    "ave. blvd. rd. gen. col. lt. sgt. capt. gov. sen. rep. jan. feb. mar. apr. aug. sept. oct. nov. dec.".split()
)
_REPLACED = {"/": "\\/", "*": "\\*", "€": "$", "£": "#", "¢": "cents", "½": "1\\/2", "¼": "1\\/4", "¾": "3\\/4"}


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer()


def split_words(text: str) -> str:
    """The text in lower case, its words apart by single blanks, without punctuation."""
    text = " ".join(text.split()).translate({ord("’"): "'", ord("‘"): "`", ord("“"): '"', ord("”"): '"'})
    words = [part for word in _tokenizer().tokenize(text, convert_parentheses=True) for part in _mended(word)]
    return " ".join(word for word in words if word not in PUNCTUATION)


def _mended(word: str) -> list[str]:
    """What the PTB tokenizer makes of a word of NLTK's."""
    word = word.lower()
    if word.startswith("-") and word.endswith("b-"):
        return [word]
    for old, new in _REPLACED.items():
        word = word.replace(old, new)
    if word.endswith(".") and not _keeps_full_stop(word):
        word = word.rstrip(".")
    return [word] if word else []


def _keeps_full_stop(word: str) -> bool:
    return word in _ABBREVIATIONS or re.fullmatch(r"(?:[a-z]\.)+", word) is not None
