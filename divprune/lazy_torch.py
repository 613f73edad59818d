"""torch, imported when one of its names is first used.

Importing torch takes seconds. What methods are called, take and cost can be told without it, so methods and selection
import `torch` from here, and `Tensor` for type checkers alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

if TYPE_CHECKING:
    import torch as torch
else:

    class _Torch(ModuleType):
        def __getattr__(self, name: str) -> Any:
            import torch

            return getattr(torch, name)

    torch = _Torch("torch")


def without_gradients(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Return a function that runs under `torch.no_grad`."""

    @wraps(function)
    def run(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        with torch.no_grad():
            return function(*arguments, **options)

    return run
