"""The key/value cache among a call's arguments and in its output: the one place that knows what it is called.

transformers 5.24 renamed `past_key_values` to `cache` in models, decoder layers, `generate` and outputs. Users may
write either; what goes on to the model carries the name that the installed version wants.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from transformers import GenerationMixin

from divprune.errors import PruningError

NAMES = ("cache", "past_key_values")
_PARAMETERS = inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
CACHE = next(name for name in NAMES if name in _PARAMETERS)
"""The name that the installed transformers wants."""


def cache_in(holder: Mapping[str, Any]) -> Any:
    """Look up the cache in a call's or a decoder layer's arguments, or in a model's output; None without one."""
    return next((holder[name] for name in NAMES if name in holder), None)


def without_cache(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Leave the cache out of a call's arguments."""
    return {name: value for name, value in arguments.items() if name not in NAMES}


def with_installed_name(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Give the cache among a call's arguments the name that the installed transformers wants.

    Raises:
        PruningError: the call brings a cache under each name.
    """
    given = {name: arguments[name] for name in NAMES if arguments.get(name) is not None}
    if len(given) > 1:
        raise PruningError(
            f"{' and '.join(given)} are two names of one argument, got both; pass the cache as {CACHE} alone"
        )
    renamed = without_cache(arguments)
    if any(name in arguments for name in NAMES):
        renamed[CACHE] = next(iter(given.values()), None)
    return renamed
