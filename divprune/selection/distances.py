"""Distances between tokens, block by block and at full precision.

The three metrics of the paper's ablation: cosine distance 1 - a.b / (|a| |b|) (its Eq. 4), l1 and l2. Nothing smaller
than float32 enters a product, and a zero vector is at cosine distance 1 from everything. Cosine distances that rounding
cannot tell from zero are zero, so that copies of a token tie exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from divprune.lazy_torch import torch
from divprune.selection.symmetric import mirror, panels, upper_products

if TYPE_CHECKING:
    from torch import Tensor

METRICS = ("cosine", "l1", "l2")

ALL = slice(None)
_POWERS = {"l1": 1.0, "l2": 2.0}
# Rows whose copies stay in the cache.
_CACHED_ROWS, _ROWS_ON_GPU = 64, 4096
# Features whose squares float32 adds up.
_GROUP = 128


class Distances:
    """Distances between the tokens of one set, or of each set of a batch, computed when asked for.

    Cosine distances are scaled after the product instead of normalising the tokens before it. That touches fewer
    numbers, and the tokens are copied only where their dtype or their range asks for it.

    Attributes:
        tokens: (..., M, d) float32 or float64.
        metric: One of `METRICS`.
    """

    def __init__(self, tokens: Tensor, metric: str, check: bool = True) -> None:
        """Promote half types and check the values.

        Args:
            tokens: (..., M, d) floating point.
            metric: One of `METRICS`.
            check: Wait for the device, to see that all values are finite and to rescale tokens whose squares would
                overflow or vanish. Without, the caller knows that neither is so.

        Raises:
            ValueError: A token holds NaN or infinity.
        """
        self.tokens = tokens if tokens.dtype == torch.float64 else tokens.float()
        self.metric = metric
        lengths = self._checked(tokens) if check else _lengths(self.tokens)
        self._inverse_lengths = torch.where(lengths > 0, 1 / lengths, 0.0).to(self.tokens.dtype)

    def _checked(self, tokens: Tensor) -> Tensor:
        """Refuse values that are not finite, rescale tokens of extreme lengths, and return the lengths."""
        lengths = _fast_lengths(self.tokens)
        # Products of two lengths neither overflow nor vanish, and squares that vanish do not count. NaN fails every
        # comparison, so this one test (and one wait for the device) also finds values that are not finite.
        range_of_type = torch.finfo(self.tokens.dtype)
        shortest, longest = torch.stack(torch.aminmax(lengths)).tolist()
        if range_of_type.tiny**0.3 < shortest and longest < range_of_type.max**0.4:
            return lengths
        unsafe = ~((lengths > range_of_type.tiny**0.3) & (lengths < range_of_type.max**0.4))
        # Zero vectors are safe.
        if not bool(self.tokens[unsafe].any()):
            return lengths
        _check_finite(tokens)
        if self.metric == "cosine":
            self.tokens = _rescaled(self.tokens)
        return _lengths(self.tokens)

    def __len__(self) -> int:
        """Return M."""
        return self.tokens.shape[-2]

    def block(self, rows: Tensor | slice, columns: Tensor | slice) -> Tensor:
        """Return the distances (..., n, m) between n tokens `rows` and m tokens `columns`, in a fresh tensor."""
        first = picked(self.tokens, rows)
        second = first if columns is rows else picked(self.tokens, columns)
        if self.metric != "cosine":
            return torch.cdist(first, second, _POWERS[self.metric], "donot_use_mm_for_euclid_dist")
        product = first @ second.mT
        product *= self._inverse_lengths[..., rows].unsqueeze(-1)
        scale = self._inverse_lengths[..., columns].unsqueeze(-2)
        return _cosine_distance(product, scale)

    def pairs(self, first: Tensor | slice, second: Tensor) -> Tensor:
        """Return the distances (n,) between n tokens `first`, perhaps `ALL`, and as many tokens `second` of one set."""
        distance = self.tokens.new_empty(len(second))
        for part in _cached_parts(self.tokens, len(second)):
            one = picked(self.tokens, part if isinstance(first, slice) else first[part])
            other = picked(self.tokens, second[part])
            if self.metric == "cosine":
                torch.linalg.vecdot(one, other, out=distance[part])
            else:
                torch.linalg.vector_norm(one - other, _POWERS[self.metric], dim=-1, out=distance[part])
        if self.metric == "cosine":
            distance *= self._inverse_lengths[first]
            distance = _cosine_distance(distance, self._inverse_lengths[second])
        return distance

    def unit_tokens(self) -> Tensor:
        """Return the tokens (..., M, d) as unit vectors; zero vectors stay zero."""
        return self.tokens * self._inverse_lengths.unsqueeze(-1)

    def centred_unit_tokens(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the tokens (M, d) of one set as unit vectors less about their mean, and the squared lengths (M,).

        Args:
            dtype: What the vectors are rounded to.
        """
        some = slice(None, None, max(1, len(self) // _CACHED_ROWS))
        centre = (self.tokens[some] * self._inverse_lengths[some, None]).mean(dim=0)
        centred, square = torch.empty_like(self.tokens, dtype=dtype), torch.empty_like(self._inverse_lengths)
        for part in _cached_parts(self.tokens, len(self)):
            unit = torch.addcmul(-centre, self.tokens[part], self._inverse_lengths[part, None])
            torch.linalg.vecdot(unit, unit, out=square[part])
            centred[part] = unit
        return centred, square

    def matrix_and_scale(self) -> tuple[Tensor, Tensor | None]:
        """Return what distances are made of in few passes over memory.

        Returns:
            (..., M, M) products of tokens, and the (..., M) inverse lengths that make one minus cosine distances of
            them; or distances, and None, for other metrics.
        """
        if self.metric == "cosine":
            return self.tokens @ self.tokens.mT, self._inverse_lengths
        return self.block(ALL, ALL), None

    def matrix(self) -> Tensor:
        """Return all distances (..., M, M)."""
        if self.tokens.ndim > 2 or self.tokens.device.type != "cpu":
            return self.block(ALL, ALL)
        if self.metric != "cosine":
            matrix = self.tokens.new_empty((len(self), len(self)))
            for part in panels(len(self)):
                matrix[: part.stop, part] = self.block(slice(part.stop), part)
            return mirror(matrix)
        products = upper_products(self.tokens)
        products *= self._inverse_lengths.unsqueeze(1)
        return mirror(_cosine_distance(products, self._inverse_lengths))


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Keep autocast and reduced-precision products (TF32, bfloat16) out of the block."""
    backends = [getattr(library, "matmul", None) for library in (torch.backends.cuda, torch.backends.mkldnn)]
    settings = [(backend, getattr(backend, "fp32_precision", "none")) for backend in backends]
    reduced = [(backend, precision) for backend, precision in settings if backend and precision in ("tf32", "bf16")]
    try:
        for backend, _ in reduced:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in reduced:
            backend.fp32_precision = precision


def picked(tokens: Tensor, index: Tensor | slice) -> Tensor:
    """Return the tokens (..., n, d) at `index`."""
    # index_select copies whole rows; indexing with a tensor is several times slower.
    return tokens[..., index, :] if isinstance(index, slice) else tokens.index_select(-2, index)


def _cosine_distance(product: Tensor, scale: Tensor) -> Tensor:
    """Return 1 - product * scale, zero where rounding cannot tell it from zero, in the memory of `product`."""
    distance = torch.addcmul(product.new_ones(()), product, scale, value=-1, out=product)
    return torch.nn.functional.threshold(distance, zero_below(distance.dtype), 0.0, inplace=True)


def zero_below(dtype: torch.dtype) -> float:
    """Return the cosine distance up to which rounding cannot tell distances from zero."""
    return 4 * torch.finfo(dtype).eps


def _cached_parts(tokens: Tensor, count: int) -> Iterator[slice]:
    """Yield the slices of `count` rows to work on one after the other."""
    size = _ROWS_ON_GPU if tokens.is_cuda else _CACHED_ROWS
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _lengths(tokens: Tensor) -> Tensor:
    """Return the Euclidean lengths (..., M) in float64, where the squares of float32 cannot overflow."""
    rows = tokens.reshape(-1, tokens.shape[-1])
    lengths = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    # One small buffer: it stays in the cache, and a float64 copy of all tokens would be twice as large as they are.
    parts = list(_cached_parts(rows, len(rows)))
    buffer = torch.empty(parts[0].stop, rows.shape[1], dtype=torch.float64, device=rows.device)
    for part in parts:
        wide = buffer[: part.stop - part.start].copy_(rows[part])
        torch.linalg.vector_norm(wide, dim=-1, out=lengths[part])
    return lengths.view(tokens.shape[:-1])


def _fast_lengths(tokens: Tensor) -> Tensor:
    """Return the same as `_lengths` for less, where no square overflows or vanishes; inf, NaN or 0 elsewhere."""
    groups = [part for part in tokens.tensor_split([tokens.shape[-1] // _GROUP * _GROUP], dim=-1) if part.shape[-1]]
    # So few float32 numbers add up to a float32 exactly enough; a sum of all of them would lose digits.
    squares = [
        torch.linalg.vector_norm(group.unflatten(-1, (-1, min(_GROUP, group.shape[-1]))), dim=-1).double().square()
        for group in groups
    ]
    return torch.cat(squares, dim=-1).sum(dim=-1).sqrt()


def _rescaled(tokens: Tensor) -> Tensor:
    """Return each token divided by its largest component: the same directions, and squares that are safe."""
    largest = tokens.abs().amax(dim=-1, keepdim=True)
    return tokens / torch.where(largest > 0, largest, 1.0)


def _check_finite(tokens: Tensor) -> None:
    finite = torch.isfinite(tokens).all(dim=-1)
    if not bool(finite.all()):
        where = ", ".join(map(str, (~finite).nonzero()[0].tolist()))
        raise ValueError(f"visual_tokens must be finite, got NaN or infinity at [{where}]")


def cosine_similarities(tokens: Tensor) -> Tensor:
    """Return (B, M, M) cosine similarities of (B, M, d) tokens, in float32 at least; zero vectors are similar to none.

    The product of unit vectors itself: 1 - (1 - product) rounds it to multiples of the dtype's step at 1, and a
    near-tie that falls the other way changes all later picks of a greedy rule.

    Raises:
        ValueError: A token holds NaN or infinity.
    """
    with full_precision(tokens.device):
        # Which checks the values, and changes them only where their squares would not be safe.
        unit = unit_rows(Distances(tokens, "cosine").tokens)
        return unit @ unit.mT


def unit_range(scores: Tensor) -> Tensor:
    """Return scores (..., M) shifted and scaled to [0, 1]; zeros, if all are equal."""
    low, high = scores.amin(dim=-1, keepdim=True), scores.amax(dim=-1, keepdim=True)
    return torch.where(high > low, (scores - low) / (high - low), 0.0)


def unit_rows(tokens: Tensor) -> Tensor:
    """Return tokens (..., d) scaled to length 1 in float32 at least; zero vectors stay zero."""
    precise = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    length = torch.linalg.vector_norm(precise, dim=-1, keepdim=True)
    return torch.where(length > 0, precise / length, 0.0)
