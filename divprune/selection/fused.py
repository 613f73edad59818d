"""Greedy max-min selection on a GPU: one matrix product, then one kernel launch for all picks of all sets.

Written for Triton (`selection.fused_kernel`), which torch brings along on Linux with CUDA; the same picks as
`selection.dense`. Nothing here waits for the device. Not yet measured on a GPU: before its first use on one, a small
set must give the same picks as plain torch there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from divprune.lazy_torch import torch
from divprune.selection.dense import dense_picks
from divprune.selection.distances import Distances, zero_below

if TYPE_CHECKING:
    from torch import Tensor

    Check = Callable[[torch.device], str | None]
    """Compares a kernel with plain torch on a device: what differs, None if nothing does."""

MOST_TOKENS = 16384
"""A row of the matrix must fit into the registers of one multiprocessor."""
_SMALLEST_BLOCK, _MOST_ROWS, _NUMBERS_AT_A_TIME = 16, 16, 4096
_NUMBERS_PER_THREAD, _FEWEST_WARPS, _MOST_WARPS, _WARP = 8, 4, 32, 32


def runs_on(device: torch.device, check: Check | None = None) -> bool:
    """Return whether a kernel is to be used on a device; where it fails its check, warn once and return False.

    Args:
        device: Where the tokens are.
        check: What the kernel must pass before its first use; by default that of `fused_picks`.
    """
    # Triton also knows ROCm, whose warps are wider; nobody has tried that.
    if device.type != "cuda" or torch.version.hip is not None or find_spec("triton") is None:
        return False
    index = torch.cuda.current_device() if device.index is None else device.index
    return _passes_check(torch.device("cuda", index), check or difference_to_plain)


def fused_picks(
    distances: Distances,
    num_keep: int,
    valid: Tensor | None = None,
    counts: Sequence[int] | None = None,
    min_distance: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Pick from each set of a batch, as Algorithm 1 of the paper does.

    Can be captured in a CUDA graph, together with `Distances(..., check=False)`.

    Args:
        distances: Of the batch (B, M, d), M at most `MOST_TOKENS`.
        num_keep: Most picks from a set, between 1 and M.
        valid: (B, M) bool, the tokens that exist; by default all.
        counts: B numbers of picks, between 1 and `num_keep` and the number of valid tokens; by default `num_keep`.
        min_distance: Stop before the first pick that is nearer than this to an earlier one.

    Returns:
        (B, num_keep) int64 picks, and (B, num_keep) distances of each to its nearest earlier pick: inf for the first,
        -inf past the last.
    """
    from divprune.selection.fused_kernel import max_min_kernel

    tokens = distances.tokens.contiguous()
    batch, total, width = tokens.shape
    matrix, inverse_lengths = distances.matrix_and_scale()
    picks = torch.empty(batch, num_keep, dtype=torch.int64, device=tokens.device)
    when_chosen = torch.empty_like(picks, dtype=tokens.dtype)
    options = compile_options(total)
    # Triton launches on the current device, whichever the tensors are on.
    with torch.cuda.device_of(tokens):
        max_min_kernel[(batch * -(-total // options["ROWS"]),)](
            matrix,
            inverse_lengths,
            tokens,
            None if valid is None else valid.to(torch.int8).contiguous(),
            _counts_on(tokens.device, counts, num_keep),
            None if min_distance is None else matrix.new_full((1,), min_distance),
            tokens.new_empty(batch, total),
            torch.zeros(batch, dtype=torch.int32, device=tokens.device),
            picks,
            when_chosen,
            total,
            width,
            num_keep,
            ZERO_BELOW=zero_below(tokens.dtype),
            **options,
        )
    return picks, when_chosen


def compile_options(total: int) -> dict[str, int]:
    """Return what the kernel for sets of `total` tokens is compiled with: a few versions cover all sizes."""
    block = max(_SMALLEST_BLOCK, 1 << (total - 1).bit_length())
    rows = max(1, min(_MOST_ROWS, _NUMBERS_AT_A_TIME // block))
    return {
        "ROWS": rows,
        "BLOCK": block,
        "WIDTH_BLOCK": _NUMBERS_AT_A_TIME // _MOST_ROWS,
        "num_warps": min(_MOST_WARPS, max(_FEWEST_WARPS, block // (_NUMBERS_PER_THREAD * _WARP))),
        # Without fused multiply-adds a distance is rounded in the same way wherever it is computed.
        "enable_fp_fusion": False,
    }


def _counts_on(device: torch.device, counts: Sequence[int] | None, num_keep: int) -> Tensor | None:
    """Return the counts (B,) int32, None if all of them are `num_keep`."""
    if counts is None or all(count == num_keep for count in counts):
        return None
    return torch.tensor(counts, dtype=torch.int32, device=device)


@cache
def _passes_check(device: torch.device, check: Check) -> bool:
    try:
        difference = check(device)
    # Whatever a compiler or a driver can raise: plain torch does the same.
    except Exception as error:
        difference = f"{type(error).__name__}: {error}"
    if difference is not None:
        warnings.warn(
            f"selection on {device} uses plain torch, many launches instead of one, since its Triton kernel failed the "
            f"check before its first use ({difference}); please report this with the versions of torch and triton, and "
            "see that a C compiler is installed, which Triton needs",
            RuntimeWarning,
            stacklevel=2,
        )
    return difference is None


def difference_to_plain(device: torch.device) -> str | None:
    """Return how the kernel's picks from a small batch differ from plain torch's on the same device; None if not."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 45, 24, generator=draw)
    rows[:, 30:40] = rows[:, 3:13]
    rows[:, 41] = 0
    valid = torch.ones(2, 45, dtype=torch.bool)
    valid[1, ::4] = False
    distances, valid = Distances(rows.to(device), "cosine"), valid.to(device)
    plain, _ = dense_picks(distances, 33, valid)
    counts = [33, 20]
    ours, when_chosen = fused_picks(distances, 33, valid, counts, min_distance=0.0)
    past_last = torch.arange(33, device=device) >= torch.tensor(counts, device=device).unsqueeze(1)
    if not torch.equal(ours, plain.masked_fill(past_last, 0)) or not torch.equal(when_chosen.isneginf(), past_last):
        return "other picks"
    return None
