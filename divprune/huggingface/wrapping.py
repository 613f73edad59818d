"""How `generate` and `forward` of one model instance are wrapped, and the model without the wrappers."""

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn, cast

import torch
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from divprune.errors import PruningError
from divprune.huggingface.model_inputs import has_visual_inputs

WRAPPED = ("generate", "forward")


class Uncopied:
    """Belongs to one model."""

    def __reduce_ex__(self, _: Any) -> NoReturn:
        """Refuse copies and pickles: they would hold a wrapper that belongs to another model.

        Raises:
            PruningError: always.
        """
        raise PruningError(
            "a pruned model cannot be copied or pickled: the copy would call the original; leave the prune(...) block "
            "or call detach() first, and prune the copy by itself (save_pretrained works as it is)"
        )


class Wrapper(Uncopied):
    """Stands on an instance in the place of one of its methods; has that method's signature.

    Another library may keep it in a wrapper of its own, also after `release`: then it passes calls on.
    """

    def __init__(
        self, name: str, method: Callable[..., Any], run: Callable[[dict[str, Any]], Any], guard: "Guard"
    ) -> None:
        """Wrap `method`, called so on the model; `run` gets a call's arguments by name."""
        self._name = name
        self.method = method
        self._run: Callable[[dict[str, Any]], Any] | None = run
        self._guard = guard
        self._signature = inspect.signature(method)
        # Not its attributes: another library's wrapper may have copied those of one of ours.
        functools.update_wrapper(self, method, updated=())

    @cast(Callable[[Callable[..., Any]], Callable[..., Any]], torch.compiler.disable)
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call `run` with the arguments by name."""
        if self._run is None or (self._name == "forward" and self._guard.is_own_call):
            # Another library's `generate` or `forward` calls the model, on a prompt that is pruned already.
            return self.method(*args, **kwargs)
        inputs = dict(self._signature.bind(*args, **kwargs).arguments)
        inputs |= inputs.pop("kwargs", {})
        with self._guard.own_call():
            return self._run(inputs)

    def release(self) -> None:
        """Pass later calls on to the method."""
        self._run = None


def is_wrapped(model: PreTrainedModel) -> bool:
    """Tell whether a model is pruned."""
    return any(isinstance(model.__dict__.get(name), Wrapper) for name in WRAPPED)


class Guard(Uncopied):
    """Lets the wrappers' calls through, one at a time, and refuses images that reach the model's body past them."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Stand on the body (`model.base_model`), which reads the pixels in every family, and on `compile`."""
        self._model, self._body = model, model.base_model
        self._names = list(inspect.signature(self._body.forward).parameters)
        self._lock, self._thread, self._is_removed = threading.RLock(), cast(int | None, None), False
        self._compile = model.__dict__.get("compile")
        model.__dict__["compile"] = self._refuse_compiling
        self._hook: RemovableHandle | None = None
        self._stand()

    def _stand(self) -> None:
        # Some classes of older versions have no body of their own: what calls them meets the wrappers.
        if self._body is not self._model:
            self._hook = self._body.register_forward_pre_hook(self._refuse_images, with_kwargs=True)

    @property
    def is_own_call(self) -> bool:
        """Whether a wrapper's call is running in this thread."""
        return self._thread == threading.get_ident()

    @contextmanager
    def own_call(self) -> Iterator[None]:
        """Run a wrapper's call, after those of other threads; nothing of the guard is called meanwhile."""
        with self._lock:
            outer, self._thread = self._thread, threading.get_ident()
            if outer is None and self._hook is not None:
                self._hook.remove()
            try:
                yield
            finally:
                self._thread = outer
                if outer is None and not self._is_removed:
                    self._stand()

    def remove(self) -> None:
        """Take away all that is ours, after calls of other threads have ended."""
        with self._lock:
            self._is_removed = True
            if self._hook is not None:
                self._hook.remove()
            if self._model.__dict__.get("compile") == self._refuse_compiling:
                del self._model.__dict__["compile"]
                self._model.__dict__.update({} if self._compile is None else {"compile": self._compile})

    def _refuse_images(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if has_visual_inputs(dict(zip(self._names, args, strict=False)) | kwargs):
            raise PruningError(
                "images came past the pruning: the body (model.model) was called by itself, or another library has "
                "replaced model.forward since; call model(...), attach after the trainer is built, or detach first"
            )

    def _refuse_compiling(self, *_: Any, **__: Any) -> NoReturn:
        raise PruningError(
            "model.compile() must not be called while the model is pruned, it would compile the pruning too; before "
            "pruning, write model.forward = torch.compile(model.forward)"
        )


class WrappedModel:
    """A model whose `generate` and `forward` are wrapped, and the same modules and weights without the wrappers.

    The model's own `generate` runs on the latter: nothing of ours is called per decoded token, and other threads that
    call the model meanwhile still meet the wrappers.

    Attributes:
        forward: the model's own, or what stood in its place before.
    """

    def __init__(self, model: PreTrainedModel, **runs: Callable[[dict[str, Any]], Any]) -> None:
        """Wrap the methods of these names; what stood on the instance, such as another library's wrapper, is kept.

        Raises:
            PruningError: the model is pruned already.
        """
        if is_wrapped(model):
            raise PruningError("the model is pruned already; leave the prune(...) block or call detach() first")
        self.forward: Callable[..., Any] = model.forward
        self._model = model
        self._before = {name: model.__dict__[name] for name in WRAPPED if name in model.__dict__}
        self._bare: PreTrainedModel = type(model).__new__(type(model))
        self._guard = Guard(model)
        self._wrappers = {name: Wrapper(name, getattr(model, name), run, self._guard) for name, run in runs.items()}
        model.__dict__.update(self._wrappers)

    def unwrap(self) -> None:
        """Give the model back as it was, after calls of other threads have ended; what others put there since stays."""
        self._guard.remove()
        for name, wrapper in self._wrappers.items():
            wrapper.release()
            if self._model.__dict__.get(name) is wrapper:
                del self._model.__dict__[name]
                self._model.__dict__.update({name: self._before[name]} if name in self._before else {})

    def current(self) -> PreTrainedModel:
        """Bring the bare instance up to date with the model, and return it."""
        compiled = self._bare.__dict__.get("_compiled_call")
        self._bare.__dict__.clear()
        self._bare.__dict__.update(self._model.__dict__)
        # A step that was compiled for the model would call the wrappers.
        for name in (*WRAPPED, "compile", "_compiled_call", "_compiled_call_impl"):
            self._bare.__dict__.pop(name, None)
        self._bare.__dict__.update(self._before)
        if compiled is not None:  # a compiled step of an earlier call
            self._bare.__dict__["_compiled_call"] = compiled
        return self._bare

    def generator(self) -> tuple[PreTrainedModel, Callable[..., Any]]:
        """Return the model to generate with, and its `generate`.

        The model itself if another library wraps that, or has since wrapped `forward`: its wrapper calls ours, on a
        prompt that is pruned already.
        """
        if "generate" in self._before:
            return self._model, self._before["generate"]
        own = isinstance(self._model.__dict__.get("forward"), Wrapper)
        model: Any = self.current() if own else self._model
        return model, partial(type(model).generate, model)


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
