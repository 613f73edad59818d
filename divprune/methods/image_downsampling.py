"""Fewer visual tokens by a smaller image: the control that many papers leave out.

Vision encoders either read images at their own size, and a smaller image simply has fewer tokens, or at one fixed
size. For the first kind, give the processor a smaller image (`downsampled`) and prune nothing. For the second, the
image is made smaller and larger again, so that its detail is gone, and the tokens are pooled to the count.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, ClassVar

from divprune.budget import Budget
from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Paper
from divprune.methods.item_context import Modality, Need
from divprune.methods.spatial_pooling import SpatialPooling

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True)
class ImageDownsampling(SpatialPooling):
    """The image at a lower resolution; for encoders of a fixed size, scaled up again and the tokens pooled.

    Sides are scaled by sqrt(keep_ratio), smoothly down and bicubically up, then the tokens are average-pooled as by
    `SpatialPooling`. Where the encoder takes images of any size, `downsampled` does it before the processor.

    A strong control, see Liao, Wang, Wen and 10 others, "Are We Using the Right Benchmark: An Evaluation Framework for
    Visual Token Compression Methods", ACL 2026, https://arxiv.org/abs/2510.07143
    """

    name: ClassVar[str] = "downsampling"
    acts: ClassVar[str] = "before the processor"
    paper: ClassVar[Paper | None] = Paper(
        title="Are We Using the Right Benchmark: An Evaluation Framework for Visual Token Compression Methods",
        year=2026,
        url="https://arxiv.org/abs/2510.07143",
        citation="Liao, Wang, Wen, Zheng, Wang, He, Lyu, Jiang, Zou, Fu, Ren, Zhang, Hu, ACL 2026",
    )
    fidelity: ClassVar[Fidelity] = "unverified"
    modalities: ClassVar[frozenset[Modality]] = frozenset({"image"})
    needs: ClassVar[frozenset[Need]] = frozenset({"grid", "pieces"})

    def coarsened(self, pixels: Tensor, keep_ratio: float) -> Tensor:
        """Return images (n, channels, height, width) of the same size with `keep_ratio` of the detail."""
        height, width = pixels.shape[-2:]
        small = scaled((width, height), keep_ratio)[::-1]
        if small == (height, width):
            return pixels
        resize = torch.nn.functional.interpolate
        less = resize(pixels.float(), small, mode="bicubic", align_corners=False, antialias=True)
        return resize(less, (height, width), mode="bicubic", align_corners=False).to(pixels.dtype)


def downsampled(image: Image, keep_ratio: float) -> Image:
    """Return an image with `keep_ratio` of the pixels, for encoders that read images at their own size.

    Args:
        image: A Pillow image.
        keep_ratio: In (0, 1].

    Raises:
        ValueError: `keep_ratio` is out of range.
    """
    return image.resize(scaled(image.size, Budget(keep_ratio=keep_ratio).keep_ratio or 1.0))


def scaled(size: tuple[int, int], keep_ratio: float) -> tuple[int, int]:
    """Return (width, height) with `keep_ratio` of the area, at least one pixel each."""
    width, height = (max(1, round(side * sqrt(keep_ratio))) for side in size)
    return width, height
