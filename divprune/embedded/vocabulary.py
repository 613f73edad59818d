"""The words that the embedded models know."""

import re
from collections.abc import Mapping, Sequence

from divprune.embedded.scenes import COLORS, REGIONS, SHAPES
from divprune.embedded.templates import TEMPLATES, VIDEO_TEMPLATES
from divprune.embedded.videos import DIRECTIONS

IMAGE_TOKEN = "<image>"
VIDEO_TOKEN = "<video>"
_FIELD = re.compile(r"{\w+}")
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", IMAGE_TOKEN)
_PUNCTUATION = (":", "?", ",", ".", "!")
_OTHER_WORDS = ("user", "assistant", "yes", "no", "a", "an", "and", "object", "objects", "thing", "things", "shapes")
NUMBERS: tuple[str, ...] = ("zero", "one", "two", "three", "four", "five", "six")


def plural(shape: str) -> str:
    """Return the plural of a shape's name."""
    return shape + ("es" if shape.endswith("s") else "s")


def words(text: str) -> list[str]:
    """Split like the saved tokenizer: lower case, at white space, punctuation marks alone."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def _words_of(templates: Mapping[str, Sequence[str]]) -> list[str]:
    return [word for wordings in templates.values() for text in wordings for word in words(_FIELD.sub("", text))]


WORDS: tuple[str, ...] = tuple(
    dict.fromkeys(
        [
            *_SPECIAL,
            *_PUNCTUATION,
            *(str(digit) for digit in range(10)),
            *NUMBERS,
            *COLORS,
            *SHAPES,
            *(plural(shape) for shape in SHAPES),
            *(word for region in REGIONS for word in region.split()),
            *_OTHER_WORDS,
            *_words_of(TEMPLATES),
        ]
    )
)
"""The embedded model's vocabulary; a word's place is its token id."""

VIDEO_WORDS: tuple[str, ...] = tuple(
    dict.fromkeys([*WORDS, VIDEO_TOKEN, *DIRECTIONS, "first", "last", *_words_of(VIDEO_TEMPLATES)])
)
"""The embedded video model's: the words of the other keep their ids."""
