"""Float32 out of the way: tests compare logits in float64, where every processor rounds far below what a bug costs.

A float32 bound is none: processors differ by how they add (with or without AVX-512, with AMX), and models amplify it.
In float64 all families agree with the hand-made references to 1e-12, and an off-by-one that costs 1e-6 is seen.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import safetensors.torch  # noqa: F401  # makes a table of dtypes when it is imported, which must hold the real ones
import torch

ROUNDING = 1e-9
"""Above what float64 rounding does to logits of about 10."""
DIFFERENCE = 1e-3
"""Below what other tokens do to them."""
RELATIVE = 1000
"""In float32, by how much other tokens must cost more than rounding."""

# torch makes its table of dtypes when something is first saved.
torch.save(torch.zeros(1), io.BytesIO())

_REAL = torch.float32, torch.Tensor.float, torch.get_default_dtype()


def _set(float32: torch.dtype, to_float32: Any, default: torch.dtype) -> None:
    torch.float32 = torch.float = float32  # type: ignore[misc]
    torch.Tensor.float = to_float32  # type: ignore[method-assign]
    torch.set_default_dtype(default)


@contextmanager
def float32_is_float64() -> Iterator[None]:
    """Make, and ask for, float64 wherever float32 is meant: by default, by name, and by `tensor.float()`.

    Models compute parts in float32 whatever their weights are (norms, rotary embeddings, softmax, recurrent states), so
    `model.double()` alone leaves float32's rounding in. They look `torch.float32` up when they run.
    """
    _set(torch.float64, torch.Tensor.double, torch.float64)
    try:
        yield
    finally:
        _set(*_REAL)


class Comparison:
    """How far apart two results are, and may be, in the test that runs now."""

    def __init__(self) -> None:
        self.begin(is_float64=True)

    def begin(self, is_float64: bool) -> None:
        self.is_float64 = is_float64
        self.largest_rounding, self.smallest_difference = 0.0, 1.0

    def is_rounding(self, error: Any) -> bool:
        error = float(torch.as_tensor(error).detach())
        if self.is_float64:
            return error < ROUNDING
        if error * RELATIVE >= 1:
            return False
        # Provisional; `end` compares with what the wrong tokens cost in the same test.
        self.largest_rounding = max(self.largest_rounding, error)
        return True

    def is_different(self, error: Any) -> bool:
        error = float(torch.as_tensor(error).detach())
        if not self.is_float64:
            self.smallest_difference = min(self.smallest_difference, error)
        return error > DIFFERENCE

    def end(self) -> None:
        assert self.largest_rounding * RELATIVE < self.smallest_difference


COMPARISON = Comparison()


def is_rounding(error: Any) -> bool:
    """Whether a difference of logits is what rounding does to right ones."""
    return COMPARISON.is_rounding(error)


def is_different(error: Any) -> bool:
    """Whether a difference of logits is what wrong tokens make."""
    return COMPARISON.is_different(error)


@contextmanager
def compared(is_float64: bool) -> Iterator[None]:
    """Compare one test's logits; in float32 if it asks for that, relative to what the wrong tokens cost."""
    COMPARISON.begin(is_float64)
    if is_float64:
        yield
        return
    _set(*_REAL)
    try:
        yield
        COMPARISON.end()
    finally:
        _set(torch.float64, torch.Tensor.double, torch.float64)
