"""DyCoke, its first stage: windows of four frames, of which three keep what differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Method, Paper
from divprune.methods.dart import shares
from divprune.methods.grids import spread
from divprune.methods.item_context import ItemContext, Modality, Need
from divprune.methods.video import row_similarity, video_frames

if TYPE_CHECKING:
    from torch import Tensor

WINDOW = 4
"""Frames."""


@dataclass(frozen=True)
class DyCoke(Method):
    """Video only: in each window of four frames the first stays whole, the others keep what differs.

    The second and the fourth frame keep the tokens least similar (cosine, same place) to those of the first and the
    third; then the third those least similar to the first. The paper's pruning rate p = 0.7 leaves int(0.3 M) tokens of
    each of these three frames of M, 0.475 of all. The order is the whole frames' tokens, then those of the others.

    Only this first stage, token temporal merging; the second prunes the key-value cache while decoding. Deviations: the
    count is the caller's, so p follows from it, the same for all frames but one token more for the first of them where
    it does not divide; below a whole frame in every window, those frames are a video of their own and pruned by the
    same rule; of one last frame, evenly spaced tokens stay.

    K. Tao, C. Qin, H. You, Y. Sui, H. Wang, "DyCoke: Dynamic Compression of Tokens for Fast Video Large Language
    Models", CVPR 2025, https://arxiv.org/abs/2411.15024
    """

    name: ClassVar[str] = "dycoke"
    paper: ClassVar[Paper | None] = Paper(
        title="DyCoke: Dynamic Compression of Tokens for Fast Video Large Language Models",
        year=2025,
        url="https://arxiv.org/abs/2411.15024",
        citation="Tao, Qin, You, Sui, Wang, CVPR 2025",
    )
    fidelity: ClassVar[Fidelity] = "documented"
    modalities: ClassVar[frozenset[Modality]] = frozenset({"video"})
    needs: ClassVar[frozenset[Need]] = frozenset({"grid"})

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select whole frames first.

        Raises:
            ValueError: The item is no video.
        """
        frames = video_frames(visual_tokens, context, self)
        numbers = torch.arange(len(visual_tokens), device=frames.device).view(frames.shape[:2])
        # One round, unless even the windows' first frames are too many.
        while len(frames) > 1 and num_keep < len(frames[::WINDOW]) * frames.shape[1]:
            frames, numbers = frames[::WINDOW], numbers[::WINDOW]
        if len(frames) == 1:
            return numbers[0, torch.tensor(spread(num_keep, frames.shape[1]), device=frames.device)]
        whole = numbers[::WINDOW].flatten()
        return torch.cat([whole, _most_changed(frames, numbers, num_keep - len(whole))])


def _most_changed(frames: Tensor, numbers: Tensor, count: int) -> Tensor:
    """Return `count` of the tokens `numbers` (T, P) of the frames (T, P, d) that are not the first of a window."""
    places = torch.arange(len(frames), device=frames.device)
    others = places[places % WINDOW != 0]
    # The third frame of a window is compared with the first one, the second and fourth with the ones before them.
    compared = torch.where(others % WINDOW == 2, others - 2, others - 1)
    order = row_similarity(frames[others], frames[compared]).sort(dim=1, stable=True).indices
    kept = torch.tensor(shares(count, len(others)), device=frames.device)
    mask = torch.arange(frames.shape[1], device=frames.device) < kept.unsqueeze(1)
    return numbers[others].gather(1, order)[mask]
