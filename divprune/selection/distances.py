"""Distances between tokens, in blocks, at full precision.

The three metrics of the paper's ablation: cosine distance 1 - a.b / (|a| |b|) (its Eq. 4), l1 and l2. Nothing smaller
than float32 enters a product, a zero vector is at cosine distance 1 from everything, and cosine distances that
rounding cannot tell from zero are zero: so copies of one token tie exactly.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import threshold

METRICS = ("cosine", "l1", "l2")

Index = Tensor | slice
ALL = slice(None)


class Distances:
    """Distances between the tokens of one set, or of each set of a batch, computed when asked for.

    The tokens are neither copied nor normalised unless their dtype or their range asks for it: cosine distances are
    scaled after the product, which touches far fewer numbers.

    Attributes:
        tokens: (..., M, d) float32 or float64.
        metric: One of `METRICS`.
    """

    def __init__(self, tokens: Tensor, metric: str) -> None:
        """Promote half types and check the values.

        Args:
            tokens: (..., M, d) floating point.
            metric: One of `METRICS`.

        Raises:
            ValueError: A token holds NaN or infinity.
        """
        self.tokens = tokens if tokens.dtype == torch.float64 else tokens.float()
        self.metric = metric
        length = _lengths(self.tokens)
        limits = torch.finfo(self.tokens.dtype)
        # Comparisons are False for NaN, so one reduction covers both the range and the values.
        safe = (length == 0) | ((length > limits.tiny**0.4) & (length < limits.max**0.4))
        if not bool(safe.all()):
            _check_finite(tokens)
            if metric == "cosine":
                self.tokens = _rescaled(self.tokens)
                length = _lengths(self.tokens)
        inverse = torch.where(length > 0, 1 / length, 0.0)
        self._inverse_length = inverse.to(self.tokens.dtype)

    def __len__(self) -> int:
        """Return M."""
        return self.tokens.shape[-2]

    def block(self, rows: Index = ALL, columns: Index = ALL) -> Tensor:
        """Return the distances (..., n, m) between n tokens `rows` and m tokens `columns`, in a fresh tensor."""
        first = self.tokens if isinstance(rows, slice) else self.tokens.index_select(-2, rows)
        second = (
            first
            if columns is rows
            else self.tokens
            if isinstance(columns, slice)
            else self.tokens.index_select(-2, columns)
        )
        if self.metric != "cosine":
            power = {"l1": 1.0, "l2": 2.0}[self.metric]
            return torch.cdist(first, second, p=power, compute_mode="donot_use_mm_for_euclid_dist")
        product = first @ second.mT
        product *= self._inverse_length[..., rows].unsqueeze(-1)
        one = product.new_ones(())
        torch.addcmul(one, product, self._inverse_length[..., columns].unsqueeze(-2), value=-1, out=product)
        return threshold(product, 8 * torch.finfo(product.dtype).eps, 0.0, inplace=True)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Keep autocast and reduced-precision products (TF32, bfloat16) out of the block."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    reduced = [(backend, backend.fp32_precision) for backend in backends]
    reduced = [(backend, precision) for backend, precision in reduced if precision not in ("ieee", "none")]
    try:
        for backend, _ in reduced:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in reduced:
            backend.fp32_precision = precision


def _lengths(tokens: Tensor) -> Tensor:
    """Return the Euclidean lengths (..., M) in float64, where the squares of float32 cannot overflow."""
    # In pieces that stay in the cache.
    pieces = [torch.linalg.vector_norm(piece, dim=-1, dtype=torch.float64) for piece in tokens.split(64, dim=-2)]
    return torch.cat(pieces, dim=-1)


def _rescaled(tokens: Tensor) -> Tensor:
    """Return the tokens with the largest component of each at 1: directions are kept, squares are safe."""
    largest = tokens.abs().amax(dim=-1, keepdim=True)
    return tokens / torch.where(largest > 0, largest, 1.0)


def _check_finite(tokens: Tensor) -> None:
    finite = torch.isfinite(tokens).all(dim=-1)
    if not bool(finite.all()):
        where = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"visual_tokens must be finite, got NaN or infinity in token {where[-1] if len(where) == 1 else where}"
        )
