"""Read what is chosen by a word and its parameters, such as "random:seed=3" or "tome:r=8": methods, encoder options."""

from __future__ import annotations

import dataclasses
from difflib import get_close_matches
from types import NoneType
from typing import Any, get_args, get_type_hints


def parameter_defaults(chosen: type[Any]) -> dict[str, Any]:
    """Return the parameters of a dataclass and their defaults; `dataclasses.MISSING` where one must be given."""
    return {field.name: field.default for field in dataclasses.fields(chosen) if field.init}


def parsed_parameters(title: str, chosen: type[Any], parameters: str) -> dict[str, Any]:
    """Read comma-separated `parameter=value` pairs of a dataclass.

    Args:
        title: How errors call it, such as "method 'random'".
        chosen: The dataclass.
        parameters: The pairs; may be empty.

    Raises:
        ValueError: It has no such parameter, the value does not fit it, or it is given twice.
    """
    found: dict[str, Any] = {}
    for pair in parameters.split(","):
        if pair.strip():
            name, value = _parsed(title, chosen, pair)
            if name in found:
                raise ValueError(f"parameter {name!r} of {title} is given twice")
            found[name] = value
    return found


def choices(wrong: str, names: list[str]) -> str:
    """Return the end of an error message: what there is, if that is short, and what was perhaps meant."""
    close = get_close_matches(wrong, names, n=1)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    return (f"; there is {', '.join(names) or 'none'}" if len(names) < 10 else f" among {len(names)}") + guess


def _parsed(title: str, chosen: type[Any], pair: str) -> tuple[str, Any]:
    key, equals, text = (part.strip() for part in pair.partition("="))
    defaults, types = parameter_defaults(chosen), _types(chosen)
    if key not in defaults:
        raise ValueError(f"{title} has no parameter {key!r}{choices(key, list(defaults))}")
    if not equals or not text:
        raise ValueError(f"parameter {key!r} of {title} needs a value: {key}=...")
    try:
        return key, _converted(text, types[key])
    except (ValueError, KeyError, OverflowError):
        kind = "bool (true or false)" if types[key] is bool else types[key].__name__
        raise ValueError(f"parameter {key!r} of {title} must be of type {kind}, got {text[:40]!r}") from None


def _types(chosen: type[Any]) -> dict[str, type]:
    """Return the type of each parameter: that of its default, or what `T | None` names beside None."""
    types, hints = {}, get_type_hints(chosen)
    for name, default in parameter_defaults(chosen).items():
        named = get_args(hints[name])
        optional = default is None and len(named) == 2 and named[1] is NoneType
        types[name] = named[0] if optional else hints[name] if default is dataclasses.MISSING else type(default)
    return types


def _converted(text: str, wanted: type) -> object:
    """Return `text` as a value of a type."""
    if wanted is bool:
        return {"true": True, "false": False}[text.lower()]
    return wanted(text) if wanted in (int, float) else text
