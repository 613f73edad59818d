"""Captions as words without Java: close to Stanford's PTB tokenizer in lower case without punctuation.

NLTK's word tokenizer follows the same conventions; what it does otherwise is mended here. `tests/harness` compares
both.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
_ABBREVIATIONS = re.compile(
    r"(?:mr|mrs|ms|dr|prof|st|mt|ft|jr|sr|vs|etc|inc|co|corp|ltd|ave|blvd|rd|gen|col|lt|sgt|capt|gov|sen|rep|jan|feb"
    r"|mar|apr|aug|sept|oct|nov|dec|(?:[a-z]\.)+[a-z])\."
)
_QUOTES = {0x2019: "'", 0x2018: "`", 0x201C: '"', 0x201D: '"'}
_WRITTEN_OUT = {"€": "$ ", "£": "# ", "¢": " cents", "½": "1/2", "¼": "1/4", "¾": "3/4"}
_TIME = re.compile(r"(\d)([ap]\.?m\b)", re.IGNORECASE)


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer()


def split_words(text: str) -> str:
    """Return the text in lower case, its words apart by single blanks, without punctuation."""
    text = " ".join(text.split()).translate(_QUOTES)
    for written, plain in _WRITTEN_OUT.items():
        text = text.replace(written, plain)
    text = _TIME.sub(r"\1 \2", text)
    found = [word.lower() for word in _tokenizer().tokenize(text, convert_parentheses=True)]
    words = [word for word in _joined(found) if word not in PUNCTUATION]
    followed = zip(words, [*words[1:], ""], strict=False)
    return " ".join(_without_full_stop(word, after) for word, after in followed).strip()


def _joined(words: list[str]) -> Iterator[str]:
    """Return the words, with those in one that the PTB tokenizer does not take apart."""
    place = 0
    while place < len(words):
        word = words[place]
        if word in ("?", "!"):
            while words[place + 1 : place + 2] in (["?"], ["!"]):
                place, word = place + 1, word + words[place + 1]
        elif words[place + 1 :] == ["."] and _keeps_full_stop(f"{word}."):
            place, word = place + 1, f"{word}."
        elif word == "'" and re.fullmatch(r"\d\ds", "".join(words[place + 1 : place + 2])):
            place, word = place + 1, word + words[place + 1]
        yield word
        place += 1


def _without_full_stop(word: str, following: str) -> str:
    """Return the word as it is if its full stop is part of it: initials, abbreviations, and "no." before a number."""
    numbered = word == "no." and following[:1].isdigit()
    single = re.fullmatch(r"[a-z]\.", word) is not None
    return word if numbered or single or _keeps_full_stop(word) else word.rstrip(".")


def _keeps_full_stop(word: str) -> bool:
    return _ABBREVIATIONS.fullmatch(word) is not None
