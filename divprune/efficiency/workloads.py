"""The prompts over which the DivPrune paper averages its TFLOPs: text and visual tokens of each data set."""

from dataclasses import dataclass, replace
from typing import Self

from divprune.budget import Budget
from divprune.config import Newlines, Scope
from divprune.efficiency.reference_models import Architecture


@dataclass(frozen=True, slots=True)
class Workload:
    """One prompt.

    Attributes:
        num_text_tokens: N.
        num_visual_tokens: M, before pruning.
        num_tiles: that the image is cut into, the image as a whole being one.
        num_newlines: image newline tokens among the visual ones.
        num_frames: of the video, which have as many tokens each; 1 for an image.
    """

    num_text_tokens: int
    num_visual_tokens: int
    num_tiles: int = 1
    num_newlines: int = 0
    num_frames: int = 1

    def kept(self, budget: Budget, scope: Scope = "item", newlines: Newlines = "budget") -> int:
        """Return how many of the visual tokens stay, at most: with `newlines` "rows", as if every row kept a token.

        Args:
            budget: of the image or video; of each frame under `scope` "frame", and, a number, of each tile under
                "tile".
            scope: as for `prune`; tiles have as many tokens each.
            newlines: as for `prune`.
        """
        on_top = 0 if newlines == "budget" else self.num_newlines
        if scope == "frame":
            return budget.count((self.num_visual_tokens - on_top) // self.num_frames) * self.num_frames + on_top
        if scope == "tile" and budget.num_keep is not None:
            budget = Budget(num_keep=budget.num_keep * self.num_tiles)
        return budget.count(self.num_visual_tokens - on_top) + on_top

    def encoded(self, num_patches: int, num_left: int) -> Self:
        """Return the prompt as methods see it where a vision encoder leaves `num_left` of each tile's patches.

        That is an upper bound for images that their tiles do not fill: which of the patches that are left lie in the
        padding, depends on the image. The image as a whole, first of the tiles, has none. Newline tokens all stay.
        """
        cut = self.num_visual_tokens - self.num_newlines - num_patches
        left = num_left + min((self.num_tiles - 1) * num_left, cut)
        return replace(self, num_visual_tokens=left + self.num_newlines)


# Data set: mean text tokens, and mean visual tokens of LLaVA-1.6, whose tiles depend on the images' shapes.
_IMAGE_SETS = {
    "coco2017": (15, 2225),
    "flickr30k": (15, 1922),
    "gqa": (23, 2239),
    "mmbench": (83, 1927),
    "mme": (25, 2108),
    "mmmu": (113, 1882),
    "nocaps": (15, 2292),
    "okvqa": (39, 2249),
    "pope": (21, 2250),
    "scienceqa": (91, 1598),
    "seedbench": (57, 2116),
}
_VIDEO_SETS = {"activitynet": 28, "seedbench_video": 63, "videochatgpt": 21, "nextqa": 38, "egoschema": 196}


def paper_workloads(architecture: Architecture) -> list[Workload]:
    """Return the paper's mean prompt of each data set, for one of its models."""
    fixed = architecture.num_visual_tokens
    if architecture.frames and fixed is not None:
        return [Workload(text, fixed, num_frames=architecture.frames) for text in _VIDEO_SETS.values()]
    if fixed is not None:
        return [Workload(text, fixed) for text, _ in _IMAGE_SETS.values()]
    return [tiled_workload(name) for name in _IMAGE_SETS]


def paper_text_lengths() -> list[int]:
    """Return the mean text tokens of each of the paper's image data sets."""
    return [text for text, _ in _IMAGE_SETS.values()]


def paper_text_tokens(data_set: str) -> int:
    """Return the mean text tokens of one data set.

    Raises:
        ValueError: the paper has no such data set.
    """
    lengths = {name: text for name, (text, _) in _IMAGE_SETS.items()} | _VIDEO_SETS
    if data_set not in lengths:
        raise ValueError(f"data_set must be one of {', '.join(lengths)}, got {data_set!r}")
    return lengths[data_set]


def tiled_workload(data_set: str) -> Workload:
    """Return the paper's mean prompt of a data set for LLaVA-1.6: the whole image of 24 x 24 tokens and 2 x 2 tiles.

    A newline token follows each row of the tiles, 48 tokens as in landscape images.

    Raises:
        ValueError: the paper has no such data set, or it is one of videos.
    """
    if data_set not in _IMAGE_SETS:
        raise ValueError(f"data_set must be one of {', '.join(_IMAGE_SETS)}, got {data_set!r}")
    text, visual = _IMAGE_SETS[data_set]
    return Workload(text, visual, num_tiles=5, num_newlines=(visual - 24 * 24) // 49)
