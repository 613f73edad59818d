"""The arguments of a call that vLLM makes, known by what they are instead of what they are called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from divprune.budget import Budget
from divprune.vllm_plugin.settings import from_integers

BUDGET = "divprune"
"""Key under which a request's budget goes through vLLM's processing as one more processor argument."""

Place = int | str
"""Of an argument: its index, or its name."""
CallArguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Given:
    """A call's arguments, without `self`.

    Attributes:
        args: Those given by place.
        kwargs: Those given by name.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def find(self, is_meant: Callable[[Any], bool], meaning: str) -> tuple[Place, Any]:
        """Return the first argument that is meant, and its place.

        Raises:
            TypeError: None is.
        """
        each: list[tuple[Place, Any]] = [*enumerate(self.args), *self.kwargs.items()]
        for place, value in each:
            if is_meant(value):
                return place, value
        raise TypeError(
            f"vLLM must hand over {meaning}, got {[type(value).__name__ for _, value in each]}; "
            "install a tested version of vLLM (docs/serving.md), and report this"
        )

    def with_value(self, place: Place, value: Any) -> CallArguments:
        """Return the arguments with another value at a place."""
        if isinstance(place, str):
            return self.args, {**self.kwargs, place: value}
        return (*self.args[:place], value, *self.args[place + 1 :]), self.kwargs

    def without_budget(self) -> tuple[tuple[Any, ...], dict[str, Any], Budget]:
        """Return the arguments as they are meant for the family's own processor, and the budget that they carried."""
        place, carrier = self.find(holds_budget, "processor arguments that carry the budget")
        args, kwargs = self.with_value(place, {name: value for name, value in carrier.items() if name != BUDGET})
        return args, kwargs, from_integers(carrier[BUDGET][1:])


def holds_budget(value: Any) -> bool:
    """Tell whether a value is a mapping of processor arguments that carries the budget."""
    return isinstance(value, Mapping) and BUDGET in value
