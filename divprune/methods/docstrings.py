"""What the docstring of a method says: its description, and the meaning of each parameter."""

import re
from inspect import cleandoc

_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n        .*)*)", flags=re.M)


def docstring_parts(documented: type[object]) -> tuple[str, dict[str, str]]:
    """Return the body of a class's docstring, and what its "Attributes" say by name."""
    body, _, attributes = cleandoc(documented.__doc__ or "").partition("\n\nAttributes:\n")
    return body, {name: " ".join(text.split()) for name, text in _ATTRIBUTE.findall(attributes)}


def paragraphs(documented: type[object]) -> tuple[str, ...]:
    """Return the paragraphs of a class's docstring, each in one line, without its "Attributes"."""
    return tuple(" ".join(paragraph.split()) for paragraph in docstring_parts(documented)[0].split("\n\n"))


def meanings(documented: type[object], names: tuple[str, ...]) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say of attributes, the nearest class first.

    Args:
        documented: the class.
        names: of the attributes; those of which nothing is said are left out.
    """
    said: dict[str, str] = {}
    for each in reversed(documented.__mro__):
        said |= docstring_parts(each)[1]
    return {name: said[name] for name in names if name in said}
