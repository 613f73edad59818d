"""VidCom2: the tokens least like their frame and their video, more of them in frames unlike the video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Method, Paper
from divprune.methods.item_context import ItemContext, Modality, Need
from divprune.methods.scores import checked_number
from divprune.methods.shares import weighted_shares
from divprune.methods.video import row_similarity, video_frames

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class VidCom2(Method):
    """Video only: the tokens least like the mean of their frame and of the video, more of them in unusual frames.

    With u_video minus the cosine similarity of a token to the mean token of the video (Eq. 3, 4), u_t its mean over the
    M tokens of frame t and sigma = softmax(u / temperature) over the T frames (Eq. 5), a frame keeps
    r_t = R (1 + sigma_t - 1 / T) of its tokens, R the fraction kept of all (Eq. 6). Those are the largest of
    u_video + u_frame, u_frame minus the cosine similarity to the mean token of the frame (Eq. 7 to 10). The order is
    frame by frame, the largest first.

    Choices where the paper leaves one: r_t M is rounded down, at most M, and what remains goes one each to the most
    unusual frames that have room, so that the number is the caller's; equal scores go to the first place. The paper's
    1e-8 in the denominator of sigma, which is at least 1, is left out.

    X. Liu, Y. Wang, J. Ma, L. Zhang, "Video Compression Commander: Plug-and-Play Inference Acceleration for Video Large
    Language Models", EMNLP 2025, https://arxiv.org/abs/2505.14454

    Attributes:
        temperature: tau of the softmax, above 0; the paper's is 0.01.
    """

    name: ClassVar[str] = "vidcom2"
    paper: ClassVar[Paper | None] = Paper(
        title="Video Compression Commander: Plug-and-Play Inference Acceleration for Video Large Language Models",
        year=2025,
        url="https://arxiv.org/abs/2505.14454",
        citation="Liu, Wang, Ma, Zhang, EMNLP 2025",
    )
    fidelity: ClassVar[Fidelity] = "unverified"
    modalities: ClassVar[frozenset[Modality]] = frozenset({"video"})
    needs: ClassVar[frozenset[Need]] = frozenset({"grid"})
    temperature: float = 0.01

    def __post_init__(self) -> None:
        """Check the temperature."""
        checked_number("temperature", self.temperature, 1e-6)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select frame by frame.

        Raises:
            ValueError: The item is no video.
        """
        frames = video_frames(visual_tokens, context, self)
        num_frames, num_places, _ = frames.shape
        in_video = -row_similarity(frames, frames.mean(dim=(0, 1)))
        in_frame = -row_similarity(frames, frames.mean(dim=1, keepdim=True))
        unusual = (in_video.mean(dim=1).double() / self.temperature).softmax(dim=0)
        sizes = torch.full((num_frames,), num_places, device=frames.device)
        counts = weighted_shares(num_keep, 1 + unusual - 1 / num_frames, sizes)
        order = (in_frame + in_video).sort(dim=1, descending=True, stable=True).indices
        numbers = order + num_places * torch.arange(num_frames, device=frames.device).unsqueeze(1)
        return numbers[torch.arange(num_places, device=frames.device) < counts.unsqueeze(1)]
