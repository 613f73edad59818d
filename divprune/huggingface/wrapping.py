"""How `generate` and `forward` of one model instance are wrapped, and the model without the wrappers."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn, cast

from transformers import PreTrainedModel

from divprune.errors import PruningError

WRAPPED = ("generate", "forward")


class Wrapper:
    """Stands on an instance in the place of one of its methods; has that method's signature."""

    def __init__(self, method: Callable[..., Any], run: Callable[[dict[str, Any]], Any]) -> None:
        """Wrap `method`; `run` gets a call's arguments by name."""
        self.method = method
        self._run = run
        self._signature = inspect.signature(method)
        functools.update_wrapper(self, method)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call `run` with the arguments by name."""
        inputs = dict(self._signature.bind(*args, **kwargs).arguments)
        inputs |= inputs.pop("kwargs", {})
        return self._run(inputs)

    def __reduce_ex__(self, _: Any) -> NoReturn:
        """Refuse copies and pickles: they would hold a wrapper that belongs to another model.

        Raises:
            PruningError: always.
        """
        raise PruningError(
            "a pruned model cannot be copied or pickled: the copy would call the original; leave the prune(...) block "
            "or call detach() first, and prune the copy by itself (save_pretrained works as it is)"
        )


def is_wrapped(model: PreTrainedModel) -> bool:
    """Tell whether a model is pruned."""
    return any(isinstance(model.__dict__.get(name), Wrapper) for name in WRAPPED)


class BareModel:
    """The same modules and weights in an instance of its own, without our wrappers.

    The model's own `generate` runs on it: nothing of ours is called per decoded token, and other threads that call the
    model meanwhile still meet the wrappers.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Remember what stands on the instance in the wrappers' places, such as another library's wrapper.

        Raises:
            PruningError: the model is pruned already.
        """
        if is_wrapped(model):
            raise PruningError("the model is pruned already; leave the prune(...) block or call detach() first")
        self._model = model
        self.before = {name: model.__dict__[name] for name in WRAPPED if name in model.__dict__}
        self._bare: PreTrainedModel = type(model).__new__(type(model))

    def current(self) -> PreTrainedModel:
        """Bring the bare instance up to date with the model, and return it."""
        compiled = self._bare.__dict__.get("_compiled_call")
        self._bare.__dict__.clear()
        self._bare.__dict__.update(self._model.__dict__)
        # A step that was compiled for the model would call the wrappers.
        for name in (*WRAPPED, "_compiled_call", "_compiled_call_impl"):
            self._bare.__dict__.pop(name, None)
        self._bare.__dict__.update(self.before)
        if compiled is not None:  # a compiled step of an earlier call
            self._bare.__dict__["_compiled_call"] = compiled
        return self._bare

    def generator(self) -> tuple[PreTrainedModel, Callable[..., Any]]:
        """Return the model to generate with, and its `generate`; the model itself if another library wraps that."""
        if "generate" in self.before:
            return self._model, self.before["generate"]
        bare = self.current()
        return bare, cast(Callable[..., Any], bare.generate)


@contextmanager
def replaced(owner: Any, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """Let `owner.name(...)` call `method(original, ...)`; as before on exit."""
    had_own = name in owner.__dict__
    original = getattr(owner, name)
    owner.__dict__[name] = partial(method, original)
    try:
        yield
    finally:
        del owner.__dict__[name]
        if had_own:
            owner.__dict__[name] = original
