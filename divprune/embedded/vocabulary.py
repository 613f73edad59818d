"""The words the embedded model knows."""

import re

from divprune.embedded.scenes import COLORS, REGIONS, SHAPES
from divprune.embedded.templates import TEMPLATES

IMAGE_TOKEN = "<image>"
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
            *(word for wordings in TEMPLATES.values() for text in wordings for word in words(_FIELD.sub("", text))),
        ]
    )
)
"""The vocabulary; a word's place is its token id."""
