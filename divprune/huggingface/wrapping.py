"""How `generate` and `forward` of one model instance are wrapped, and the model without the wrappers."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NoReturn

from transformers import PreTrainedModel

from divprune.errors import PruningError
from divprune.huggingface.cache_names import with_installed_name

METHODS = ("generate", "forward")


class Wrapper:
    """Stands on an instance in the place of one of its methods; has that method's signature."""

    def __init__(self, method: Callable[..., Any], run: Callable[[dict[str, Any]], Any]) -> None:
        """Wraps `method`; `run` gets a call's arguments by name."""
        self.method = method
        self._run = run
        self._signature = inspect.signature(method)
        functools.update_wrapper(self, method)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Makes the call."""
        inputs = dict(self._signature.bind(*args, **kwargs).arguments)
        inputs |= inputs.pop("kwargs", {})
        return self._run(with_installed_name(inputs))

    def __reduce_ex__(self, _: Any) -> NoReturn:
        """Refuses copies and pickles: they would hold a wrapper that belongs to another model.

        Raises:
            PruningError: always.
        """
        raise PruningError(
            "a pruned model cannot be copied or pickled: the copy would call the original; leave the prune(...) block "
            "or call detach() first, and prune the copy by itself (save_pretrained works as it is)"
        )


def is_wrapped(model: PreTrainedModel) -> bool:
    """Whether a model is pruned."""
    return any(isinstance(model.__dict__.get(name), Wrapper) for name in METHODS)


class BareModel:
    """The same modules and weights in an instance of its own, without our wrappers.

    The model's own `generate` runs on it: nothing of ours is called per decoded token, and other threads that call the
    model meanwhile still meet the wrappers.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Remembers what stands on the instance in the wrappers' places, such as another library's wrapper."""
        self._model = model
        self.before = {name: model.__dict__[name] for name in METHODS if name in model.__dict__}
        self._bare: PreTrainedModel = type(model).__new__(type(model))

    def current(self) -> PreTrainedModel:
        """The bare instance, up to date with the model."""
        compiled = self._bare.__dict__.get("_compiled_call")
        self._bare.__dict__.clear()
        self._bare.__dict__.update(self._model.__dict__)
        # A step that was compiled for the model would call the wrappers.
        for name in (*METHODS, "_compiled_call", "_compiled_call_impl"):
            self._bare.__dict__.pop(name, None)
        self._bare.__dict__.update(self.before)
        if compiled is not None:  # a compiled step of an earlier call
            self._bare.__dict__["_compiled_call"] = compiled
        return self._bare
