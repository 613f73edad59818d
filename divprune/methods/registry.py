"""Methods by name: `divprune`, `random:seed=3`.

Third parties add theirs by the entry-point group `divprune.methods`.
"""

import dataclasses
import re
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract
from typing import Any

from divprune.errors import UnknownMethodError
from divprune.methods.base import Count, Fidelity, Method, Paper
from divprune.methods.docstrings import meanings, paragraphs
from divprune.methods.item_context import QUERY_NEEDS, Modality
from divprune.methods.merging import MergingMethod
from divprune.methods.spec import choices, parameter_defaults, parsed_parameters

ENTRY_POINT_GROUP = "divprune.methods"


def built_in() -> list[type[Method]]:
    """List the methods of this package, in the order in which it imports them."""
    names = vars(import_module("divprune.methods")).values()
    classes = [value for value in names if isinstance(value, type) and issubclass(value, Method)]
    return [method for method in classes if not isabstract(method)]


@dataclasses.dataclass(frozen=True, slots=True)
class MethodInfo:
    """What `available_methods` tells about one method.

    Attributes:
        name: Its name for `get_method`.
        summary: First line of its docstring.
        acts: Where it acts.
        parameters: Names of its parameters and their defaults.
        paper: The paper it comes from, or None.
        fidelity: How near it is to the paper's rule, see `Method.fidelity`.
        count: How the number of kept tokens is found, see `Method.count`.
        needs: What it needs to know besides the visual tokens: fields of `ItemContext`.
        merges: Whether dropped tokens are merged into the kept ones.
        vision_layer: The layer of the vision encoder that it needs attention or keys of, see `Method.vision_layer`;
            None if it needs neither.
        modalities: What it can prune.
        description: The paragraphs of its docstring.
        meanings: What its docstring says of its parameters, by name.
    """

    name: str
    summary: str
    acts: str
    parameters: dict[str, Any]
    paper: Paper | None
    fidelity: Fidelity = "unverified"
    count: Count = "exact"
    needs: tuple[str, ...] = ()
    merges: bool = False
    vision_layer: int | None = None
    modalities: tuple[Modality, ...] = ("image", "video")
    description: tuple[str, ...] = ()
    meanings: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def is_query_aware(self) -> bool:
        """Whether the question has a say in what is kept."""
        return bool(QUERY_NEEDS & set(self.needs))

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        paper = self.paper
        return {
            "name": self.name,
            "summary": self.summary,
            "acts": self.acts,
            "fidelity": self.fidelity,
            "count": self.count,
            "needs": list(self.needs),
            "vision_layer": self.vision_layer,
            "query_aware": self.is_query_aware,
            "merges": self.merges,
            "modalities": list(self.modalities),
            "parameters": self.parameters,
            "meanings": self.meanings,
            "year": paper.year if paper else None,
            "citation": paper.citation if paper else None,
            "paper": paper.url if paper else None,
        }


def get_method(spec: str) -> Method:
    """Return the method that `spec` names, for example `"divprune"` or `"random:seed=3"`.

    Args:
        spec: A name, optionally followed by a colon and comma-separated `parameter=value` pairs.

    Raises:
        UnknownMethodError: No method has this name.
        ValueError: The method has no such parameter, or the value does not fit it.
    """
    name, _, parameters = spec.strip().partition(":")
    method = _method_class(name.strip())
    return method(**parsed_parameters(f"method {method.name!r}", method, parameters))


def method_title(spec: str) -> str:
    """Return how tables and records call the method of a `get_method` spec: files without their folders."""
    return re.sub(r"=[^,]*[/\\]", "=", spec)


def fidelity_of(spec: str) -> Fidelity | None:
    """Return how near a method is to its paper; None for a method without one, and for what is no method.

    Args:
        spec: As for `get_method`, or another title of a row, such as "unpruned".
    """
    try:
        method = _method_class(spec.partition(":")[0])
    except UnknownMethodError:
        return None
    return None if method.paper is None else method.fidelity


def available_methods() -> list[MethodInfo]:
    """Return what is known about every method, built-in ones first."""
    return [method_info(name) for name in method_names()]


def method_info(name: str) -> MethodInfo:
    """Return what is known about the method of a name.

    Raises:
        UnknownMethodError: No method has this name.
    """
    return _info(name, _method_class(name))


def _info(name: str, method: type[Method]) -> MethodInfo:
    summary = (method.__doc__ or "").strip().partition("\n")[0]
    return MethodInfo(
        name=name,
        summary=summary,
        acts=method.acts,
        parameters=parameter_defaults(method),
        paper=method.paper,
        fidelity=method.fidelity,
        count=method.count,
        needs=tuple(sorted(method.needs)),
        merges=issubclass(method, MergingMethod),
        vision_layer=method.vision_layer if method.needs & {"vision_attention", "vision_keys"} else None,
        modalities=tuple(sorted(method.modalities)),
        description=paragraphs(method),
        meanings=meanings(method, tuple(parameter_defaults(method))),
    )


def method_names() -> list[str]:
    """Return the names of all methods, built-in ones first."""
    return list(dict.fromkeys([method.name for method in built_in()] + sorted(_third_party())))


def _third_party() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def _method_class(name: str) -> type[Method]:
    for method in built_in():
        if method.name == name:
            return method
    entry = _third_party().get(name)
    if entry is None:
        raise UnknownMethodError(f"no method named {name!r}{choices(name, method_names())}")
    method = entry.load()
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise TypeError(f"entry point {entry.value!r} must be a subclass of divprune.methods.Method, got {method!r}")
    return method
