"""Algorithm 1 as the published procedure computes it, to reproduce printed numbers; `max_min.select` is the default.

image -> visual tokens -> **selection** -> prompt -> LLM.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from divprune.lazy_torch import torch, without_gradients
from divprune.selection.distances import full_precision
from divprune.selection.max_min import check_tokens

if TYPE_CHECKING:
    from torch import Tensor


@without_gradients
def as_published_picks(visual_tokens: Tensor, num_keep: int) -> Tensor:
    """Pick tokens by cosine distances that are computed in the tokens' own number format.

    Algorithm 1 of S. R. Alvar et al., "DivPrune", CVPR 2025, arXiv 2503.02175, with two quirks of the procedure that
    its numbers were made by: lengths, products and distances (Eq. 4) are rounded to the tokens' own format, where half
    types know few distances near 0 and many tie; and kept tokens stay candidates, at about distance 0 from themselves.
    Where one of those is the farthest the procedure takes it again, and then for ever; the picks end there.

    Args:
        visual_tokens: (M, d), floating point. Zero vectors are at distance 1 from everything.
        num_keep: How many to keep, between 1 and M.

    Returns:
        (k,) int64 on the device of `visual_tokens`, 1 <= k <= num_keep, in the order they are picked; ties go to the
        lowest index.

    Raises:
        ValueError: `visual_tokens` has another shape, NaN or infinity, or a token whose length overflows its format.
        TypeError: It is no floating-point tensor.
    """
    check_tokens(visual_tokens)
    with full_precision(visual_tokens.device):
        distance = _distances(visual_tokens)
    nearest_other = distance.clone().fill_diagonal_(inf).amin(dim=1)
    picks = torch.empty(num_keep, dtype=torch.int64, device=distance.device)
    min_distance_to_kept = torch.full_like(nearest_other, inf)
    picks[0] = nearest_other.argmax()
    # A loop over picks: each depends on the one before.
    for step in range(1, num_keep):
        torch.minimum(
            min_distance_to_kept, distance.index_select(0, picks[step - 1 : step])[0], out=min_distance_to_kept
        )
        picks[step] = min_distance_to_kept.argmax()
    seen_before = (picks.unsqueeze(1) == picks).tril(-1).any(dim=1)
    return picks[~seen_before]


def _distances(tokens: Tensor) -> Tensor:
    """(M, M) cosine distances in the format of tokens (M, d)."""
    lengths = torch.linalg.vector_norm(tokens, dim=1, keepdim=True)
    finite = lengths.isfinite().squeeze(1)
    if not bool(finite.all()):
        raise ValueError(
            f"visual_tokens must be finite, with lengths within the range of {tokens.dtype}, got NaN, infinity or a "
            f"length beyond it at [{int((~finite).nonzero()[0])}]; convert them with .float()"
        )
    unit = torch.where(lengths > 0, tokens / lengths, 0.0)
    return 1 - unit @ unit.T
