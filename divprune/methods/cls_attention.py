"""CLS attention: keep what the vision encoder's CLS token attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.methods.base import Fidelity, Method, Paper
from divprune.methods.item_context import ItemContext, Need
from divprune.methods.scores import importance, ranked

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CLSAttention(Method):
    """Largest attention from the CLS token in the vision encoder's last layer, averaged over the heads.

    The baseline that tables call FasterVLM. In encoders without a CLS token, the attention of all patches.

    Q. Zhang, A. Cheng, M. Lu, Z. Zhuo, M. Wang, J. Cao, S. Guo, Q. She, S. Zhang, "[CLS] Attention is All You Need for
    Training-Free Visual Token Pruning: Make VLM Inference Faster", 2024, https://arxiv.org/abs/2412.01818
    """

    name: ClassVar[str] = "cls-attention"
    nested: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        title="[CLS] Attention is All You Need for Training-Free Visual Token Pruning: Make VLM Inference Faster",
        year=2024,
        url="https://arxiv.org/abs/2412.01818",
        citation="Zhang, Cheng, Lu, Zhuo, Wang, Cao, Guo, She, Zhang, 2024",
    )
    fidelity: ClassVar[Fidelity] = "unverified"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision_attention"})
    vision_layer: ClassVar[int] = -1

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select; the picks are nested in `num_keep`, ties go to the lowest index."""
        return ranked(importance(context, self.name))[:num_keep].to(visual_tokens.device)
