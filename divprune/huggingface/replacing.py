"""A method of one object, replaced for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any


@contextmanager
def replaced(owner: Any, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """Lets `owner.name(...)` call `method(original, ...)`; as before on exit."""
    had_own = name in owner.__dict__
    original = getattr(owner, name)
    owner.__dict__[name] = partial(method, original)
    try:
        yield
    finally:
        del owner.__dict__[name]
        if had_own:
            owner.__dict__[name] = original
