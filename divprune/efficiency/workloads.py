"""The prompts over which the DivPrune paper averages its TFLOPs: text and visual tokens of each data set."""

from dataclasses import dataclass

from divprune.efficiency.reference_models import Architecture


@dataclass(frozen=True, slots=True)
class Workload:
    """One prompt.

    Attributes:
        num_text_tokens: N.
        num_visual_tokens: M, before pruning.
    """

    num_text_tokens: int
    num_visual_tokens: int


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
        return [Workload(text, fixed) for text in _VIDEO_SETS.values()]
    return [Workload(text, tiled if fixed is None else fixed) for text, tiled in _IMAGE_SETS.values()]


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


def tiled_visual_tokens(data_set: str) -> int:
    """Return the mean visual tokens that LLaVA-1.6 makes of a data set's images.

    Raises:
        ValueError: the paper has no such data set, or it is one of videos.
    """
    if data_set not in _IMAGE_SETS:
        raise ValueError(f"data_set must be one of {', '.join(_IMAGE_SETS)}, got {data_set!r}")
    return _IMAGE_SETS[data_set][1]
