"""The selection as the DivPrune paper describes it, written plainly: what `benchmarks/selection.py` compares with.

The whole distance matrix comes from one product of the normalised tokens, and step i reads the rows of all i chosen
tokens again. Written from Algorithm 1 of arXiv 2503.02175 alone.
"""

import torch
from torch import Tensor


@torch.no_grad()
def paper_procedure(visual_tokens: Tensor, num_keep: int) -> Tensor:
    """Return the picks (num_keep,) int64, in the order they are picked, of `visual_tokens` (M, d) float32."""
    unit = visual_tokens / visual_tokens.norm(dim=1, keepdim=True)
    distance = 1 - unit @ unit.T
    chosen = torch.empty(num_keep, dtype=torch.int64, device=visual_tokens.device)
    distance.fill_diagonal_(torch.inf)
    chosen[0] = distance.amin(dim=0).argmax()
    distance.fill_diagonal_(0)
    for step in range(1, num_keep):
        min_distance_to_kept = distance[chosen[:step]].amin(dim=0)
        chosen[step] = min_distance_to_kept.argmax()
    return chosen
